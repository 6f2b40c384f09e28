"""Affine codes, LSQ gradients, log2 codes, and the weight quantizers of the registry."""

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from accelsim.formats import Format
from accelsim.problems import AccelsimError
from quant.functional import (
    NO_LEADING_ONE,
    Affine,
    affine_from_range,
    code_range,
    dequantize,
    fake_quantize,
    fake_quantize_ste,
    gradient_multiplier,
    levels_tensor,
    log2_code,
    log2_divide,
    log2_value,
    project_levels,
    quantize,
)
from quant.levels import levels, nearest, published_apot_levels, sqnr_db
from quant.quantizers import options_of, quantize_weights, quantizer_names
from quant.quantizers.apot import ApotOptions
from quant.quantizers.log2 import Log2Options
from quant.quantizers.pot import PotOptions
from quant.quantizers.published_apot import (
    INITIAL_ALPHA,
    PublishedApotOptions,
    fake_quantize_published,
    normalize,
    signed_levels,
)
from quant.quantizers.uniform import UniformOptions

finite = st.floats(-1e4, 1e4, width=32)
ranges = st.tuples(finite, finite).map(sorted)
kinds = st.sampled_from([(False, True), (True, True), (False, False), (True, False)])  # symmetric, signed


def scalar(value: float, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(value, dtype=dtype)


def made(ends: list[float], bits: int, kind: tuple[bool, bool], dtype: torch.dtype = torch.float32) -> Affine:
    return affine_from_range(scalar(ends[0], dtype), scalar(ends[1], dtype), bits, *kind)


# --- affine codes ---


def test_codes_of_a_known_range() -> None:
    """[−1, 3] in 3 bits: scale 4/7, zero point −4 + round(7/4) = −2; by hand."""
    affine = made([-1.0, 3.0], 3, (False, True), torch.float64)
    assert (float(affine.scale), float(affine.zero_point), affine.low, affine.high) == (4 / 7, -2, -4, 3)
    x = torch.tensor([-9.0, -1.0, 0.0, 0.28, 0.29, 3.0, 9.0], dtype=torch.float64)
    assert quantize(x, affine).tolist() == [-4, -4, -2, -2, -1, 3, 3]
    assert dequantize(torch.tensor([-4.0, -2.0, 3.0]), affine).tolist() == pytest.approx([-8 / 7, 0, 20 / 7])


def test_symmetric_and_unsigned_codes() -> None:
    symmetric = made([-2.0, 7.0], 4, (True, True))
    assert (float(symmetric.scale), float(symmetric.zero_point)) == (1, 0)
    assert (symmetric.low, symmetric.high) == (-7, 7)
    unsigned = made([-2.0, 15.0], 4, (True, False))
    assert (float(unsigned.scale), float(unsigned.zero_point), unsigned.low, unsigned.high) == (1, 0, 0, 15)
    shifted = made([-3.0, 12.0], 4, (False, False))
    assert (float(shifted.scale), float(shifted.zero_point), shifted.low, shifted.high) == (1, 3, 0, 15)


def test_ties_round_to_even() -> None:
    affine = Affine(scalar(1.0), scalar(0.0), -8, 7)
    assert quantize(torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5]), affine).tolist() == [0, 2, 2, 0, -2]


@pytest.mark.parametrize("kind", [(False, True), (True, True), (False, False), (True, False)])
def test_degenerate_ranges(kind: tuple[bool, bool]) -> None:
    """Only zeros, one-sided, and below the normal numbers: finite codes in range, zero stays zero."""
    for ends in ([0.0, 0.0], [2.0, 5.0], [-5.0, -2.0], [0.0, 1e-44]):
        affine = made(ends, 8, kind)
        assert float(affine.scale) > 0
        assert affine.low <= float(affine.zero_point) <= affine.high
        assert float(fake_quantize(scalar(0.0), affine)) == 0
        assert bool(torch.isfinite(fake_quantize(torch.tensor(ends), affine)).all())
    assert float(made([0.0, 0.0], 8, kind).scale) == 1
    assert float(made([2.0, 5.0], 8, kind).scale) == pytest.approx(5 / (127 if kind == (True, True) else 255))


@pytest.mark.parametrize("ends", [(float("nan"), 1.0), (0.0, float("inf")), (2.0, 1.0)])
def test_bad_ranges(ends: tuple[float, float]) -> None:
    with pytest.raises(AccelsimError, match="finite low ≤ high"):
        affine_from_range(scalar(ends[0]), scalar(ends[1]), 8, False)


@pytest.mark.parametrize(("bits", "signed"), [(1, True), (0, False), (17, True)])
def test_bad_widths(bits: int, signed: bool) -> None:
    with pytest.raises(AccelsimError, match=f"{bits} bits"):
        code_range(bits, False, signed)


@given(ranges, st.integers(2, 16), kinds, st.lists(finite, min_size=1, max_size=30))
@settings(max_examples=150)
def test_affine_laws(ends: list[float], bits: int, kind: tuple[bool, bool], values: list[float]) -> None:
    """Integer codes in range, zero exact, idempotent, monotone, error at most half a step inside the range."""
    affine = made(ends, bits, kind, torch.float64)
    x = torch.tensor(sorted(values), dtype=torch.float64)
    codes = quantize(x, affine)
    assert bool((codes == codes.round()).all())
    assert affine.low <= float(codes.min())
    assert float(codes.max()) <= affine.high
    assert bool((codes.diff() >= 0).all())
    once = fake_quantize(x, affine)
    assert bool((fake_quantize(once, affine) == once).all())
    assert float(fake_quantize(scalar(0.0, torch.float64), affine)) == 0
    first, last = dequantize(torch.tensor([affine.low, affine.high], dtype=torch.float64), affine)
    inside = (x >= first) & (x <= last)
    assert bool(((once - x).abs()[inside] <= affine.scale / 2 * (1 + 1e-9)).all())


def test_affine_is_frozen_and_follows_the_dtype() -> None:
    for dtype in (torch.float32, torch.float64):
        affine = made([-1.0, 1.0], 8, (False, True), dtype)
        assert affine.scale.dtype == affine.zero_point.dtype == dtype
        assert fake_quantize(torch.ones(3, dtype=dtype), affine).dtype == dtype
    with pytest.raises(FrozenInstanceError):
        affine.low = 0  # type: ignore[misc]


# --- straight-through gradients ---


def test_lsq_gradients_equal_the_closed_forms() -> None:
    """quantization_methods.md section 1.2 of the reference notes (LSQ, Q-ViT): every case, weighted upstream."""
    scale = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    offset = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([-9.0, -3.71, -0.3, 0.2, 0.66, 1.6, 9.0], dtype=torch.float64, requires_grad=True)
    upstream = torch.tensor([1.0, -2.0, 0.5, 3.0, 1.5, -1.0, 2.0], dtype=torch.float64)
    g = gradient_multiplier(x.numel(), 7)
    assert g == 1 / math.sqrt(7 * 7)
    result = fake_quantize_ste(x, Affine(scale, torch.tensor(0.0, dtype=torch.float64), -8, 7), g, offset)
    result.backward(upstream)
    expected_x, expected_scale, expected_offset = [], 0.0, 0.0
    for value, up in zip(x.tolist(), upstream.tolist(), strict=True):
        u = (value - 0.2) / 0.5
        if u < -8 or u > 7:
            expected_x.append(0.0)
            expected_scale += g * up * (-8 if u < -8 else 7)
            expected_offset += up  # not scaled by g
        else:
            expected_x.append(up)
            expected_scale += g * up * (round(u) - u)
    assert x.grad is not None
    assert x.grad.tolist() == expected_x
    assert float(scale.grad) == pytest.approx(expected_scale, rel=1e-12)
    assert float(offset.grad) == pytest.approx(expected_offset)


def test_lsq_saturates_at_the_codes_around_the_zero_point() -> None:
    """With zero point z the codes run from low − z to high − z: above the range the scale's gradient is high − z."""
    scale = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    affine = Affine(scale, torch.tensor([3.0, -2.0], dtype=torch.float64), -8, 7)
    x = torch.full((5, 2), 100.0, dtype=torch.float64, requires_grad=True)
    fake_quantize_ste(x, affine, 0.1).sum().backward()
    assert scale.grad.tolist() == pytest.approx([5 * 0.1 * 4, 5 * 0.1 * 9])
    assert x.grad.abs().sum() == 0


@given(ranges, st.integers(2, 8), kinds, st.integers(0, 1000))
@settings(max_examples=50)
def test_ste_value_is_fake_quantize_and_x_gradient_is_the_mask(
    ends: list[float], bits: int, kind: tuple[bool, bool], seed: int
) -> None:
    affine = made(ends, bits, kind, torch.float64)
    spread = max(abs(ends[0]), abs(ends[1]), 1.0)
    x = (torch.rand(40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3 - 1.5) * spread
    x.requires_grad_()
    result = fake_quantize_ste(x, affine)
    assert bool((result == fake_quantize(x, affine)).all())
    result.sum().backward()
    u = x / affine.scale + affine.zero_point
    assert bool((x.grad == ((u >= affine.low) & (u <= affine.high))).all())


def test_scale_gradient_shape_and_finite_training() -> None:
    """Per-channel scales learn a range: from ten times too large the error falls and nothing becomes infinite."""
    torch.manual_seed(0)
    x = torch.randn(200, 4) * torch.tensor([0.5, 1.0, 2.0, 4.0])
    scale = torch.full((1, 4), 10.0, requires_grad=True)
    affine = Affine(scale, torch.zeros(1, 4), -8, 7)
    optimizer = torch.optim.Adam([scale], lr=0.3)
    losses = []
    for _ in range(60):
        loss = ((fake_quantize_ste(x, affine) - x) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert scale.grad.shape == scale.shape
    assert bool(torch.isfinite(scale).all())
    assert losses[-1] < 0.05 * losses[0]


# --- levels and log2 ---


@pytest.mark.parametrize("name", ["u4", "pot4", "apot8", "apot12"])
def test_level_projection_is_that_of_quant_levels(name: str) -> None:
    fmt = Format.parse(name)
    assert levels_tensor(fmt).tolist() == levels(fmt).tolist()
    weights, scale = torch.randn(3, 50), torch.tensor([0.1, 0.02, 0.5])
    expected = nearest((weights.double() / scale.double()[:, None]).numpy(), levels(fmt))
    assert project_levels(weights, levels_tensor(fmt), scale).tolist() == expected.tolist()


def test_leading_one_rule_of_the_hardware() -> None:
    """Example of the reference: 01100011₂ → 7; bit i − 1 decides, lower bits do not."""
    values = torch.tensor([0b01100011, 1, 2, 3, 4, 5, 6, 0b1011111, 0b1100000, 0])
    assert log2_code(values, 0, 6).tolist() == [7, 0, 1, 2, 2, 2, 3, 6, 7, NO_LEADING_ONE]


@given(st.integers(1, (1 << 62) - 1))
@settings(max_examples=300)
def test_leading_one_rule_on_any_integer(value: int) -> None:
    i = value.bit_length() - 1
    expected = i + (value >> (i - 1) & 1 if i else 0)
    assert log2_code(torch.tensor([value]), 0, 6).tolist() == [expected]
    if value < 1 << 53:
        assert log2_code(torch.tensor([float(value)], dtype=torch.float64), 0, 6).tolist() == [expected]


@given(st.floats(2.0**-40, 2.0**40), st.integers(-20, 5), st.integers(2, 6))
@settings(max_examples=150)
def test_log2_of_reals_scales_rounds_at_one_and_a_half_and_clamps(x: float, base: int, bits: int) -> None:
    value = torch.tensor([x], dtype=torch.float64)
    (code,) = log2_code(value, base, bits).tolist()
    floor = math.floor(math.log2(x))
    assume(2.0**floor <= x < 2.0 ** (floor + 1))
    exponent = floor + (x >= 1.5 * 2.0**floor)
    assert code == min(max(exponent - base, 0), 2**bits - 1)
    assert log2_value(torch.tensor([code]), base).item() == 2.0 ** (base + code)
    assert log2_code(value * 2.0**7, base + 7, bits).tolist() == [code]


def test_divisor_window_of_trio_vit_and_zero() -> None:
    """Exponents −6 … 9 in four bits; dividing by zero gives zero."""
    divisors = torch.tensor([0.0, 2.0**-9, 2.0**-6, 1.0, 700.0, 2.0**12])
    code = log2_code(divisors, -6, 4)
    assert code.tolist() == [NO_LEADING_ONE, 0, 0, 6, 15, 15]
    assert log2_value(code, -6, torch.float32).tolist() == [0, 2.0**-6, 2.0**-6, 1, 512, 512]
    assert log2_divide(torch.full((6,), 3.0), code, -6).tolist() == [0, 192, 192, 3, 3 / 512, 3 / 512]


def test_log2_powers_are_exact() -> None:
    exponents = torch.arange(2046)
    assert log2_value(exponents, -1022).tolist() == [2.0**e for e in range(-1022, 1024)]


@pytest.mark.parametrize("bad", [[-1.0], [float("nan")], [float("inf")]])
def test_log2_of_bad_values(bad: list[float]) -> None:
    with pytest.raises(AccelsimError, match="log2_code"):
        log2_code(torch.tensor(bad), 0, 4)


# --- registry ---


def test_registry_names_and_errors() -> None:
    assert quantizer_names() == ("apot", "apot_published", "log2", "pot", "uniform")
    assert options_of("pot") is PotOptions
    with pytest.raises(AccelsimError, match="apot_published"):
        quantize_weights("ternary", torch.ones(2, 2))
    with pytest.raises(AccelsimError, match="PotOptions"):
        quantize_weights("pot", torch.ones(2, 2), UniformOptions())
    for bad in (torch.ones(3), torch.ones(2, 0), torch.tensor([[float("nan")]])):
        with pytest.raises(AccelsimError, match="finite"):
            quantize_weights("uniform", bad)
    with pytest.raises(AccelsimError, match="4 terms"):
        quantize_weights("apot", torch.ones(2, 2), ApotOptions(terms=4))


@pytest.mark.parametrize(
    ("name", "options", "fmt"),
    [
        ("uniform", UniformOptions(bits=8), "u8"),
        ("uniform", UniformOptions(bits=4, power=2.4), "u4"),
        ("pot", PotOptions(bits=3), "pot3"),
        ("pot", PotOptions(), "pot4"),
        ("apot", ApotOptions(terms=1), "pot4"),
        ("apot", ApotOptions(), "apot8"),
        ("apot", ApotOptions(terms=3), "apot12"),
        ("log2", Log2Options(), "pot4"),
        ("log2", Log2Options(bits=3), "pot3"),
        ("apot_published", PublishedApotOptions(bits=6), None),
    ],
)
def test_integers_are_levels_of_the_format_and_zero_filters_keep_scale_one(
    name: str, options: object, fmt: str | None
) -> None:
    weights = torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    weights[2] = 0
    scale, integers, found = quantize_weights(name, weights, options)
    assert (found and found.name) == fmt
    assert integers.dtype == torch.int64
    assert integers.shape == weights.shape
    assert scale.shape == (5,)
    assert scale.dtype == weights.dtype
    assert float(scale[2]) == 1
    assert bool((integers[2] == 0).all())
    allowed = levels_tensor(found) if found else signed_levels(6)
    assert bool(torch.isin(integers, allowed).all())
    if name != "log2":  # its ties go up, by the leading-one rule
        nearest_level = allowed[project_levels(weights.flatten(1), allowed, scale)]
        assert bool((nearest_level == integers.flatten(1)).all())


def error(name: str, weights: Tensor, options: object) -> Tensor:
    scale, integers, _ = quantize_weights(name, weights, options)
    return ((scale[:, None] * integers - weights) ** 2).sum(1)


def test_search_is_never_worse_than_the_maximum_and_filters_than_the_tensor() -> None:
    weights = torch.from_numpy(np.random.default_rng(4).laplace(size=(20, 100)) * np.linspace(0.1, 2, 20)[:, None])
    for name, kind in (("uniform", UniformOptions), ("pot", PotOptions), ("apot", ApotOptions)):
        searched = error(name, weights, kind())
        assert bool((searched <= error(name, weights, kind(clip="max")) * (1 + 1e-12)).all())
        assert float(searched.sum()) < float(error(name, weights, kind(per_tensor=True)).sum())
        scale = quantize_weights(name, weights, kind(per_tensor=True)).scale
        assert bool((scale == scale[0]).all())


def test_log2_scales_are_powers_of_two_and_the_window_is_the_best() -> None:
    weights = torch.randn(30, 64, generator=torch.Generator().manual_seed(3)).double()
    scale, integers, fmt = quantize_weights("log2", weights)
    assert fmt is not None
    assert bool((torch.frexp(scale).mantissa == 0.5).all())
    kept = ((scale[:, None] * integers - weights) ** 2).sum(1)
    for shift in (-2, -1, 1, 2):
        other = scale * 2.0**shift
        chosen = levels_tensor(fmt)[project_levels(weights, levels_tensor(fmt), other)]
        assert bool((kept <= ((other[:, None] * chosen - weights) ** 2).sum(1) + 1e-9).all())


# --- published additive powers of two ---


def test_published_quantizer_uses_the_published_magnitudes() -> None:
    """m2vit.md section 6.1: the magnitudes of 3 bits, normalized to 1, are exactly these."""
    weights = torch.linspace(-1, 1, 4001, dtype=torch.float64)[None]
    for bits in (3, 4, 6):
        scale, integers, fmt = quantize_weights("apot_published", weights, PublishedApotOptions(bits=bits, clip="max"))
        assert fmt is None
        magnitudes = np.unique((integers * scale[:, None]).abs().numpy().round(12))
        assert magnitudes == pytest.approx(published_apot_levels(bits))
    assert published_apot_levels(3) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1])


def test_published_normalization() -> None:
    weights = torch.randn(8, 30, generator=torch.Generator().manual_seed(0)).double() * 0.3 + 2
    values, mean, deviation = normalize(weights)
    assert values.mean().item() == pytest.approx(0, abs=1e-12)
    assert values.std().item() == pytest.approx(1)
    assert torch.allclose(values * deviation + mean, weights)
    scale, integers, _ = quantize_weights("apot_published", weights, PublishedApotOptions(bits=6, normalize=True))
    assert sqnr_db((weights - mean).numpy(), (scale[:, None] * integers).numpy()) > 28


def test_published_clip_gradients_equal_the_closed_forms() -> None:
    """quantization_methods.md section 7 of the reference notes: α gets the sign outside, q − w/α inside; w 1 or 0."""
    alpha = torch.tensor(INITIAL_ALPHA, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([[-4.0, -1.0, 0.1, 2.0, 5.0]], dtype=torch.float64, requires_grad=True)
    upstream = torch.tensor([[1.0, 2.0, -1.0, 0.5, 3.0]], dtype=torch.float64)
    result = fake_quantize_published(weights, alpha, 3)
    assert (result / 3).tolist()[0] == pytest.approx([-1, -0.3, 0, 0.6, 1])
    result.backward(upstream)
    assert weights.grad.tolist() == [[0, 2, -1, 0.5, 0]]
    inside = 2 * (-0.3 + 1 / 3) - (0 - 0.1 / 3) + 0.5 * (0.6 - 2 / 3)
    assert float(alpha.grad) == pytest.approx(-1 + 3 + inside)
