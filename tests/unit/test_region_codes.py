"""Rounding to two-region levels, and their stored codes."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from accelsim.formats import Format, two_region
from accelsim.problems import AccelsimError
from quant.regions.codes import (
    nearest_region,
    pack,
    region_integers,
    region_levels,
    region_range,
    region_values,
    region_values_ste,
    rounding_constant,
    threshold,
    unpack,
)

FORMATS = st.builds(two_region, st.integers(3, 8), st.integers(0, 15), st.booleans())


def brute_nearest(value: Fraction, fmt: Format) -> int:
    """The nearest level in exact arithmetic, of two the one nearer to zero."""
    return min((abs(value - int(level)), abs(int(level)), int(level)) for level in region_levels(fmt))[2]


def test_the_levels_of_two_small_formats() -> None:
    assert region_levels(Format.parse("r3n2")).tolist() == [-4, -3, -2, -1, 0, 4, 8, 12]
    assert region_levels(Format.parse("r3p2")).tolist() == [0, 1, 2, 3, 4, 8, 12]
    assert region_levels(Format.parse("r4p0")).tolist() == list(range(8))


@given(FORMATS, st.lists(st.integers(-(1 << 24), 1 << 24), max_size=20), st.data())
def test_an_integer_goes_to_the_nearest_level_and_a_tie_towards_zero(
    fmt: Format, far: list[int], data: st.DataObject
) -> None:
    levels = region_levels(fmt)
    k = data.draw(st.integers(0, len(levels) - 2))
    middle = int(levels[k] + levels[k + 1]) // 2
    values = [*far, *(middle + d for d in range(-2, 3)), *(threshold(fmt) + d for d in range(-1, 3))]
    found = nearest_region(torch.tensor(values), fmt).tolist()
    assert found == [brute_nearest(Fraction(v), fmt) for v in values]


@given(FORMATS, st.data(), st.sampled_from([torch.float32, torch.float64]))
def test_a_real_number_is_rounded_once_to_the_nearest_level(
    fmt: Format, data: st.DataObject, dtype: torch.dtype
) -> None:
    low, high = region_range(fmt)
    width: Literal[32, 64] = 32 if dtype is torch.float32 else 64
    reals = st.floats(2.0 * low - 4, 2.0 * high + 4, width=width)
    levels = region_levels(fmt)
    ties = st.integers(0, len(levels) - 2).map(lambda k: float(levels[k] + levels[k + 1]) / 2)
    values = torch.tensor(data.draw(st.lists(reals | ties | st.floats(-2, 2, width=width), min_size=1)), dtype=dtype)
    for one in (values, torch.nextafter(values, values + 1), torch.nextafter(values, values - 1)):
        found = region_integers(one, 1.0, fmt)
        assert found.dtype is dtype
        assert found.tolist() == [brute_nearest(Fraction(v), fmt) for v in one.tolist()]


@given(FORMATS, st.lists(st.integers(-70000, 70000), min_size=1))
def test_reals_that_are_whole_round_as_integers_do(fmt: Format, values: list[int]) -> None:
    whole = torch.tensor(values)
    assert region_integers(whole.double() * 0.25, 0.25, fmt).long().equal(nearest_region(whole, fmt))


def test_no_double_rounding() -> None:
    fmt = Format.parse("r4n1")  # 0.6 fine steps are nearer to 0 than to 2, but round to 1 and then up to 2
    assert region_integers(torch.tensor([0.6, 1.4]), 1.0, fmt).tolist() == [0.0, 2.0]


@given(FORMATS, st.lists(st.floats(-1e6, 1e6), min_size=2))
def test_rounding_is_monotone_and_leaves_levels_alone(fmt: Format, values: list[float]) -> None:
    rounded = region_integers(torch.tensor(sorted(values), dtype=torch.float64), 0.37, fmt)
    assert bool((rounded.diff() >= 0).all())
    levels = torch.from_numpy(region_levels(fmt))
    assert nearest_region(levels, fmt).equal(levels)
    # The level comes back from its own value, although the quotient is rounded.
    assert region_integers(levels.float() * 0.0371, torch.tensor(0.0371), fmt).long().equal(levels)


@given(FORMATS)
def test_stored_codes_come_back_and_have_the_bits_of_the_format(fmt: Format) -> None:
    levels = torch.from_numpy(region_levels(fmt))
    codes = pack(levels, fmt)
    assert unpack(codes, fmt).equal(levels)
    low, high = (-fmt.low_codes, fmt.low_codes - 1) if fmt.low_negative else (0, (1 << fmt.bits) - 1)
    assert low <= int(codes.min())
    assert int(codes.max()) <= high
    assert len(set(codes.tolist())) == len(levels)
    every = torch.arange(low, high + 1)
    assert np.unique(unpack(every, fmt).numpy()).tolist() == levels.tolist()
    if not fmt.low_negative:
        assert (codes >= fmt.low_codes).equal(levels >= fmt.low_codes)  # the flag


@given(FORMATS, st.integers(-200_000, 200_000))
def test_what_is_no_level_cannot_be_packed(fmt: Format, value: int) -> None:
    if value in region_levels(fmt):
        assert unpack(pack(torch.tensor([value]), fmt), fmt).tolist() == [value]
        return
    with pytest.raises(AccelsimError, match="is not a level"):
        pack(torch.tensor([0, value]), fmt)


def test_levels_are_those_of_two_region_formats_only() -> None:
    with pytest.raises(AccelsimError, match="u8"):
        region_levels(Format.parse("u8"))


@given(FORMATS, st.integers(0, 1 << 22))
def test_the_constants_of_the_hardware_give_the_same_levels(fmt: Format, value: int) -> None:
    """v > T ? (v + constant) >> m << m : v, between the ends."""
    coarse = (value + rounding_constant(fmt)) >> fmt.region_shift << fmt.region_shift
    limit = fmt.low_codes - 1
    found = min(coarse, limit << fmt.region_shift) if value > threshold(fmt) else min(value, limit)
    assert nearest_region(torch.tensor([value]), fmt).tolist() == [found]


def test_training_sees_the_levels_and_passes_gradients_inside_the_range() -> None:
    fmt = Format.parse("r4n2")  # −8 … −1, 0, 4 … 28
    x = torch.tensor([[-9.0, -7.6], [5.0, 29.0]]).mul(0.5).requires_grad_()
    step = torch.tensor(0.5, requires_grad=True)
    shown = region_values_ste(x, step, fmt, multiplier=2.0)
    assert shown.equal(region_values(x.detach(), step.detach(), fmt))
    assert shown.tolist() == [[-4.0, -4.0], [2.0, 14.0]]
    shown.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert step.grad is not None
    assert x.grad.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert float(step.grad) == pytest.approx(2 * (-8 + (-8 + 7.6) + (4 - 5) + 28))
