"""Learned rounding between neighbouring levels of any set, its annealing, and bias correction."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from accelsim.formats import Format
from accelsim.problems import AccelsimError
from quant.functional import levels_tensor, project_levels
from quant.observers import weight_scale
from quant.rounding import (
    SoftRounding,
    annealed_beta,
    bias_correction,
    inverse_rectified_sigmoid,
    rectified_sigmoid,
)

NAMES = ("u4", "u8", "pot4", "apot8", "apot12")


def case(name: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    weights = torch.randn(6, 40, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    fmt = Format.parse(name)
    return weights, weight_scale(weights, fmt)[0], levels_tensor(fmt)


def test_rectified_sigmoid_formula_reaches_both_ends_and_is_inverted() -> None:
    v = torch.linspace(-6, 6, 101, dtype=torch.float64)
    expected = np.clip(1.2 / (1 + np.exp(-v.numpy())) - 0.1, 0, 1)
    assert rectified_sigmoid(v).numpy() == pytest.approx(expected)
    assert (float(rectified_sigmoid(v)[0]), float(rectified_sigmoid(v)[-1])) == (0, 1)
    h = torch.linspace(0, 1, 21, dtype=torch.float64)
    assert rectified_sigmoid(inverse_rectified_sigmoid(h)).numpy() == pytest.approx(h.numpy())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_starts_at_the_float_weights_clipped_to_the_levels(name: str, dtype: torch.dtype) -> None:
    weights, scale, levels = case(name, dtype=dtype)
    soft = SoftRounding(weights, scale, levels).soft()
    ends = scale[:, None] * levels[-1]
    assert soft.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert torch.allclose(soft, weights.clamp(-ends, ends), rtol=0, atol=tolerance * float(ends.max()))


@pytest.mark.parametrize("name", NAMES)
def test_hard_rounding_at_the_start_is_the_nearest_level(name: str) -> None:
    weights, scale, levels = case(name)
    hard = SoftRounding(weights, scale, levels).hard()
    assert hard.dtype == torch.int64
    assert (hard == levels[project_levels(weights, levels, scale)]).all()


@given(st.sampled_from(NAMES), st.integers(0, 1000), st.floats(0, 30))
@settings(max_examples=40)
def test_any_v_picks_one_of_the_two_neighbours(name: str, seed: int, spread: float) -> None:
    weights, scale, levels = case(name, seed)
    levels = levels.double()
    rounding = SoftRounding(weights, scale, levels)
    with torch.no_grad():
        rounding.v.copy_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(seed + 1)) * spread)
    hard, position = rounding.hard(), weights / scale[:, None]
    assert torch.isin(hard, levels).all()
    lower = levels[(torch.searchsorted(levels, position, right=True) - 1).clamp(0, len(levels) - 2)]
    upper = levels[(torch.searchsorted(levels, position, right=True)).clamp(1, len(levels) - 1)]
    assert ((hard == lower) | (hard == upper)).all()
    between = rounding.soft().detach() / scale[:, None]
    assert ((between >= lower - 1e-9) & (between <= upper + 1e-9)).all()


def test_weights_of_any_shape() -> None:
    weights = torch.randn(4, 3, 3, 3)
    rounding = SoftRounding(weights, torch.full((4,), 0.1), levels_tensor(Format.parse("u4")))
    assert rounding.soft().shape == rounding.hard().shape == weights.shape


def test_penalty_formula_is_largest_in_the_middle_and_zero_at_the_ends() -> None:
    rounding = SoftRounding(torch.zeros(1, 3), torch.ones(1), torch.tensor([-1, 0, 1]))
    with torch.no_grad():
        rounding.v.copy_(torch.tensor([[-9.0, 0.0, 9.0]]))
    assert rounding.penalty(2.0).item() == pytest.approx(1.0)
    h = torch.tensor([0.3, 0.6, 0.9])
    with torch.no_grad():
        rounding.v.copy_(inverse_rectified_sigmoid(h)[None])
    assert rounding.penalty(4.0).item() == pytest.approx(float((1 - (2 * h - 1).abs() ** 4).sum()), rel=1e-5)
    assert rounding.penalty(None).item() == 0


def test_beta_waits_then_falls_linearly() -> None:
    betas = [annealed_beta(step, 1000) for step in (0, 199, 200, 600, 1000)]
    assert betas[:2] == [None, None]
    assert betas[2:] == pytest.approx([20, 11, 2])


def test_reconstruction_beats_nearest_rounding_and_ends_on_levels() -> None:
    """Correlated inputs: the learned choice of neighbours has less output error than the nearest levels."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 8, generator=generator) @ torch.randn(8, 24, generator=generator)
    for name in ("u4", "pot4", "apot8"):
        weights = torch.randn(5, 24, generator=generator)
        scale, nearest = weight_scale(weights, Format.parse(name))
        plain = ((inputs @ (scale[:, None] * nearest).T - inputs @ weights.T) ** 2).mean()
        rounding = SoftRounding(weights, scale, levels_tensor(Format.parse(name)))
        optimizer = torch.optim.Adam([rounding.v], lr=0.1)
        target, steps = inputs @ weights.T, 300
        for step in range(steps):
            loss = ((inputs @ rounding.soft().T - target) ** 2).mean() / plain
            loss = loss + 0.03 * rounding.penalty(annealed_beta(step, steps))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        learned = ((inputs @ (scale[:, None] * rounding.hard()).T - target) ** 2).mean()
        assert float(learned) < 0.9 * float(plain)


def test_levels_must_ascend() -> None:
    for bad in (torch.tensor([1]), torch.tensor([1, 0]), torch.tensor([0, 0, 1])):
        with pytest.raises(AccelsimError, match="levels"):
            SoftRounding(torch.zeros(1, 2), torch.ones(1), bad)


def test_bias_correction_restores_the_mean() -> None:
    output = torch.randn(100, 4)
    quantized = output * 0.9 + torch.tensor([0.1, -0.2, 0.3, 0.0])
    corrected = quantized + bias_correction(output.mean(0), quantized.mean(0))
    assert torch.allclose(corrected.mean(0), output.mean(0), atol=1e-6)
