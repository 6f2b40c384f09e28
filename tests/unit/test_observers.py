"""Ranges from data: granularities, percentiles, error search, batches, weight scales, channel statistics."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from accelsim.formats import Format
from accelsim.problems import AccelsimError
from quant.functional import Affine, affine_from_range, fake_quantize
from quant.levels import levels, nearest, project, sqnr_db
from quant.observers import (
    PER_TENSOR,
    PER_TOKEN,
    SHRINK_FACTORS,
    Granularity,
    Observed,
    channel_midpoint,
    migration_ratio,
    minmax,
    mse,
    per_channel,
    per_group,
    percentile,
    quantile,
    weight_scale,
)

SHAPE = (3, 8, 4, 5)


def data(seed: int = 0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * torch.arange(
        1, 9
    ).reshape(1, 8, 1, 1)


def laplace(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).laplace(0.1, 1.0, shape))


def blocks(x: Tensor, granularity: Granularity) -> list[tuple[tuple[slice, ...], Tensor]]:
    """Every block of a granularity, cut in plain Python."""
    sizes = granularity.block(tuple(x.shape))
    found: list[tuple[slice, ...]] = [()]
    for length, size in zip(x.shape, sizes, strict=True):
        found = [(*place, slice(start, start + size)) for place in found for start in range(0, length, size)]
    return [(place, x[place]) for place in found]


GRANULARITIES = [
    PER_TENSOR,
    per_channel(1),
    per_channel(0),
    per_group(4, 1),
    per_group(2, -2, per=1),
    PER_TOKEN,
    Granularity(((1, 2), (3, 1))),
]


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("observe", [minmax, percentile, mse])
def test_every_block_is_quantized_as_if_alone(granularity: Granularity, observe: object) -> None:
    x = data()
    whole = fake_quantize(x, observe(x, 4, granularity=granularity))  # type: ignore[operator]
    parts = blocks(x, granularity)
    assert len(parts) == x.numel() // int(np.prod(granularity.block(SHAPE)))
    for place, part in parts:
        assert bool((whole[place] == fake_quantize(part, observe(part, 4))).all())  # type: ignore[operator]


def test_scales_broadcast_with_the_least_shape() -> None:
    x = data()
    assert minmax(x, 8).scale.shape == (1, 1, 1, 1)
    assert minmax(x, 8, granularity=per_channel(1)).scale.shape == (1, 8, 1, 1)
    assert minmax(x, 8, granularity=per_group(4, 1)).scale.shape == (1, 8, 1, 1)
    assert minmax(x, 8, granularity=PER_TOKEN).scale.shape == (3, 8, 1, 1)


@pytest.mark.parametrize("granularity", [per_group(3, 1), per_channel(4), per_group(0, 1)])
def test_granularity_that_does_not_fit(granularity: Granularity) -> None:
    with pytest.raises(AccelsimError, match="a divisor of an axis"):
        minmax(data(), 8, granularity=granularity)


def test_minmax_is_the_range() -> None:
    x = data()
    for symmetric in (False, True):
        expected = affine_from_range(x.min(), x.max(), 6, symmetric)
        found = minmax(x, 6, symmetric=symmetric)
        assert (found.scale.item(), found.zero_point.item()) == (expected.scale.item(), expected.zero_point.item())
        assert (found.low, found.high) == (expected.low, expected.high)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=50), st.floats(0, 100))
@settings(max_examples=100)
def test_quantile_is_numpys(values: list[float], percent: float) -> None:
    found = quantile(torch.tensor([values], dtype=torch.float64), percent)
    assert found.item() == pytest.approx(float(np.percentile(values, percent)), abs=1e-9)


def test_percentile_ignores_outliers_on_both_sides() -> None:
    x = torch.cat([torch.linspace(-1, 2, 10001, dtype=torch.float64), torch.tensor([-500.0, 900.0]).double()])
    found = percentile(x, 8, 99.9)
    low, high = np.percentile(x.numpy(), (0.1, 99.9))
    assert found.scale.item() == pytest.approx((high - low) / 255)
    with pytest.raises(AccelsimError, match="q = 20"):
        percentile(x, 8, 20)


def cost(x: Tensor, affine: Affine, power: float) -> float:
    return float(((fake_quantize(x, affine) - x).abs() ** power).sum())


@pytest.mark.parametrize("power", [2.0, 2.4])
@pytest.mark.parametrize("symmetric", [False, True])
def test_error_search_is_the_brute_force_minimum_over_80_factors(power: float, symmetric: bool) -> None:
    assert len(SHRINK_FACTORS) == 80
    assert (SHRINK_FACTORS[0], SHRINK_FACTORS[1], SHRINK_FACTORS[-1]) == (1.0, 0.99, 0.21)
    x = laplace(2, 5000)
    costs = [cost(x, affine_from_range(x.min() * f, x.max() * f, 4, symmetric), power) for f in SHRINK_FACTORS]
    found = mse(x, 4, power, symmetric=symmetric)
    assert cost(x, found, power) == pytest.approx(min(costs))
    assert min(costs) < costs[0]


@given(
    st.integers(0, 10_000),
    st.integers(2, 8),
    st.sampled_from([2.0, 2.4]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(GRANULARITIES),
)
@settings(max_examples=15)
def test_error_search_is_never_worse_than_minmax(
    seed: int, bits: int, power: float, symmetric: bool, signed: bool, granularity: Granularity
) -> None:
    x = data(seed) ** 3
    options = {"symmetric": symmetric, "signed": signed, "granularity": granularity}
    found, plain = mse(x, bits, power, **options), minmax(x, bits, **options)  # type: ignore[arg-type]
    for place, part in blocks(x, granularity):
        best = ((fake_quantize(x, found)[place] - part).abs() ** power).sum()
        assert float(best) <= float(((fake_quantize(x, plain)[place] - part).abs() ** power).sum()) * (1 + 1e-12)


def test_batches_that_fit_give_what_one_tensor_gives() -> None:
    x = data()
    seen = Observed(per_channel(1))
    for image in x:
        seen.update(image[None])
    for observe in (minmax, percentile, mse):
        together, apart = observe(x, 5, granularity=per_channel(1)), observe(seen, 5)
        assert together.scale.shape == apart.scale.shape
        assert torch.allclose(together.scale, apart.scale, rtol=1e-12)
        assert bool((together.zero_point == apart.zero_point).all())


def test_sample_is_bounded_uniform_repeatable_and_the_range_exact() -> None:
    """10 batches of 1,000 into 2,000 places: every batch gives about 200, the extremes are never lost."""
    seen, again, other = Observed(capacity=2000), Observed(capacity=2000), Observed(capacity=2000, seed=1)
    for batch in range(10):
        values = torch.arange(1000, dtype=torch.float64) + 1000 * batch
        for observer in (seen, again, other):
            observer.update(values)
    assert seen.values.shape == (1, 2000)
    assert (seen.low.item(), seen.high.item()) == (0, 9999)
    shares = torch.bincount((seen.values[0] // 1000).long())
    assert int(shares.min()) >= 140
    assert int(shares.max()) <= 260
    assert len(seen.values[0].unique()) == 2000
    assert seen.values.tolist() == again.values.tolist()
    assert seen.values.tolist() != other.values.tolist()
    assert mse(seen, 8).scale.item() == pytest.approx(9999 / 255, rel=0.05)


def test_observer_errors() -> None:
    seen = Observed(PER_TOKEN)
    with pytest.raises(AccelsimError, match="at least one batch"):
        minmax(seen, 8)
    seen.update(torch.ones(2, 3, 4))
    with pytest.raises(AccelsimError, match="the same blocks"):
        seen.update(torch.ones(1, 3, 4))
    with pytest.raises(AccelsimError, match="no values"):
        minmax(torch.ones(0), 8)


@pytest.mark.parametrize("name", ["u8", "u4", "u3", "pot3", "pot4", "apot8", "apot12"])
def test_weight_scales_are_at_least_as_good_as_projection(name: str) -> None:
    weights = torch.randn(64, 200, generator=torch.Generator().manual_seed(0))
    weights[5] = 0
    fmt = Format.parse(name)
    scale, integers = weight_scale(weights, fmt)
    assert scale.dtype == weights.dtype
    assert integers.dtype == torch.int64
    assert float(scale[5]) == 1
    assert np.isin(integers.numpy(), levels(fmt)).all()
    reference_scale, reference = project(weights.double().numpy(), fmt)
    found = sqnr_db(weights.double().numpy(), (scale[:, None] * integers).double().numpy())
    plain = sqnr_db(weights.double().numpy(), reference_scale[:, None] * reference)
    assert found >= plain - 0.01
    # Sums of two or three powers gain when the largest weight may lie below the largest level; the others hardly.
    gain = {"apot8": (2.5, 5.0), "apot12": (8.0, 11.0)}.get(name, (-0.01, 0.3))
    assert gain[0] <= found - plain <= gain[1]


@pytest.mark.parametrize("name", ["u4", "pot4"])
def test_weight_scale_minimizes_the_power_asked_for(name: str) -> None:
    weights = laplace(3, 10, 300)
    fmt, costs = Format.parse(name), {}
    for power in (2.0, 2.4):
        scale, integers = weight_scale(weights, fmt, power)
        chosen = nearest((weights / scale[:, None]).numpy(), levels(fmt))
        assert (levels(fmt)[chosen] == integers.numpy()).all()
        error = (scale[:, None] * integers - weights).abs()
        costs[power] = [float((error**p).sum()) for p in (2.0, 2.4)]
    assert costs[2.0][0] <= costs[2.4][0]
    assert costs[2.4][1] <= costs[2.0][1]
    assert costs[2.0] != costs[2.4]  # the power matters


def test_migration_ratio_formula() -> None:
    """m2vit.md section 1.3: channel max / max(99th percentile, mean of maxima), within 0.1 … 64."""
    maxima = torch.tensor([0.01, 1.0, 3.0, 500.0])
    assert migration_ratio(maxima, 2.0).tolist() == pytest.approx([0.1, 0.1, 0.1, 500 / maxima.mean().item()])
    assert migration_ratio(torch.tensor([0.5, 4.0]), 5.0).tolist() == pytest.approx([0.1, 0.8])
    assert migration_ratio(torch.tensor([1.0] * 199 + [1e6]), 2.0).max().item() == 64
    with pytest.raises(AccelsimError, match="above 0"):
        migration_ratio(torch.zeros(3), 0.0)


def test_midpoint_centres_every_channel() -> None:
    x = data() + torch.arange(8).reshape(1, 8, 1, 1)
    low, high = x.amin((0, 2, 3)), x.amax((0, 2, 3))
    centred = x - channel_midpoint(low, high).reshape(1, 8, 1, 1)
    assert torch.allclose(centred.amax((0, 2, 3)), -centred.amin((0, 2, 3)))
