"""The learned quantizer: gradients against plain autograd and the published table, steps, heads, ties, freezing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.functional import learned_step
from quant.learned.quantizer import SMALLEST_STEP, tie
from quant.learned.sites import STORED, Site
from tests.support.learned import quantizer, twin

TABLE = [0.9, 0.5, 0.3, 0.2, 0.1, 0.06, 0.03]
SHIFTS = [-0.1, -0.15, -0.2, -0.25, -0.3, -0.35, -0.4]
LN2 = math.log(2)


def values(count=60, spread=2.0, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(count, generator=random, dtype=torch.float64) * spread


def gradients(one, value, upstream):
    """Result, and gradients of the value, bits, steps and offsets (growth and moves in units of steps and offsets)."""
    x = value.clone().requires_grad_()
    result = one(x)
    (result * upstream).sum().backward()
    steps = one.growth.grad / one.start.steps
    moved = None if one.moved is None else one.moved.grad / one.start.steps
    return result.detach(), x.grad, one.bits.grad, steps, moved


@settings(deadline=None, max_examples=60)
@given(
    bits=st.floats(1.0, 9.0),
    signed=st.booleans(),
    offset=st.booleans(),
    spread=st.sampled_from([0.1, 2.0, 30.0]),
    seed=st.integers(0, 99),
)
def test_values_and_gradients_are_those_of_plain_autograd(bits, signed, offset, spread, seed):
    value, upstream = values(spread=spread, seed=seed), values(seed=seed + 1)
    steps = torch.tensor(TABLE, dtype=torch.float64, requires_grad=True)
    shifts = torch.tensor(SHIFTS, dtype=torch.float64, requires_grad=True) if offset else None
    real = torch.tensor(bits, dtype=torch.float64, requires_grad=True)
    x = value.clone().requires_grad_()
    expected = twin(x, steps, real, signed, shifts)
    (expected * upstream).sum().backward()
    one = quantizer(TABLE, bits, signed=signed, offsets=SHIFTS if offset else None)
    one.clamp()
    found, of_x, of_bits, of_steps, of_shifts = gradients(one, value, upstream)
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(found, expected.detach(), **close)
    torch.testing.assert_close(of_x, x.grad, **close)
    torch.testing.assert_close(of_steps[0], steps.grad, **close)
    if offset:
        torch.testing.assert_close(of_shifts[0], shifts.grad, **close)
    if 2 <= bits <= 8:  # outside, the twin's clamp has no gradient; here the bits are brought back before
        torch.testing.assert_close(of_bits[0, 0], real.grad, **close)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", range(2, 9))
def test_gradients_are_those_of_the_published_table(bits, signed):
    """Inside: x 1, scale g·(round(u) − u), offset 0, bits 0; above: x 0, scale g·Qp, offset 1, bits ± scale·ln2·2^…"""
    step, shift = 0.5, -0.25
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    slope = LN2 * step * 2 ** (bits - 1 if signed else bits)
    g = high**-0.5
    for u, of_x, of_scale, of_shift, of_bits in (
        (low + 0.3, 1, -0.3, 0, 0),
        (low + 0.0, 1, 0.0, 0, 0),
        (high + 0.0, 1, 0.0, 0, 0),
        (low - 0.4, 0, low, 1, -slope if signed else 0.0),
        (high + 0.4, 0, high, 1, slope),
    ):
        one = quantizer([step] * 7, bits, signed=signed, offsets=[shift] * 7)
        value = torch.tensor([u * step + shift], dtype=torch.float64)
        _, x, n, steps, moved = gradients(one, value, torch.ones(1, dtype=torch.float64))
        assert float(x) == of_x
        assert float(n) == pytest.approx(of_bits, rel=1e-12, abs=0)
        slot = bits - 2
        assert float(steps[0, slot]) == pytest.approx(of_scale * g, abs=1e-12)
        assert float(moved[0, slot]) == pytest.approx(of_shift, abs=1e-12)
        others = [k for k in range(7) if k != slot]
        assert not steps[0, others].any()
        assert not moved[0, others].any()


def test_the_task_asks_for_bits_only_where_values_saturate():
    """With a squared error nothing but saturation has a gradient, and it asks for more bits."""
    for signed in (True, False):
        one = quantizer(TABLE, 4, signed=signed)
        inside = values().clamp(0.0 if not signed else -8 * 0.3, 7 * 0.3)
        (one(inside) - inside).square().sum().backward()
        assert float(one.bits.grad) == 0.0
        one = quantizer(TABLE, 4, signed=signed)
        wide = values(spread=20.0)
        (one(wide) - wide).square().sum().backward()
        assert float(one.bits.grad) < 0


def test_values_are_clamped_before_they_are_rounded():
    """u = 7.4999 would round to 7 first and have the gradients of a value inside; clamped first it saturates."""
    one = quantizer([1.0] * 7, 4)
    result, x, bits, _, _ = gradients(one, torch.tensor([7.4999], dtype=torch.float64), torch.ones(1).double())
    assert (float(result), float(x)) == (7.0, 0.0)
    assert float(bits) == pytest.approx(8 * LN2)


@pytest.mark.parametrize(("given_bits", "width"), [(-3.0, 2), (1.9, 2), (2.4, 2), (4.6, 5), (8.2, 8), (40.0, 8)])
def test_bits_are_kept_between_two_and_eight(given_bits, width):
    one = quantizer(TABLE, given_bits)
    assert float(one.width().detach()) == width
    assert float(one.step(one.width()).detach()) == pytest.approx(TABLE[width - 2])
    one.clamp()
    assert 2 <= float(one.bits.detach()) <= 8
    one.width().sum().backward()
    assert float(one.bits.grad) == 1.0  # the gradient passes rounding and clamp: bits can leave an end


def test_one_step_for_all_widths_is_that_of_the_first():
    many, single = quantizer(TABLE, 5), quantizer(TABLE, 5, switchable=False)
    assert torch.equal(many(values()), single(values()))
    for one, step in ((many, TABLE[1]), (single, TABLE[3])):
        with torch.no_grad():
            one.bits.fill_(3)
        assert float(one.step(one.width()).detach()) == pytest.approx(step)
        assert one.growth.numel() == (7 if one is many else 1)


def test_steps_stay_above_the_smallest():
    one = quantizer(TABLE, 4)
    with torch.no_grad():
        one.growth.fill_(-50.0)
    assert float(one.step(one.width()).detach()) == SMALLEST_STEP


@settings(deadline=None, max_examples=40)
@given(
    bits=st.lists(st.integers(2, 8), min_size=6, max_size=6),
    part=st.integers(0, 5),
    other=st.integers(2, 8),
    form=st.sampled_from(["channels", "heads", "rows"]),
)
def test_a_head_s_width_changes_its_values_only_and_heads_share_a_scale(bits, part, other, form):
    site, shape = {
        "channels": (Site("stored/x", STORED, "x", 2, 3, 1, (2, 3, 4), (2, 3, 1)), (5, 24)),
        "heads": (Site("stored/x", STORED, "x", 1, 6, parts=(6, 1, 1)), (2, 6, 3, 4)),
        "rows": (Site("weights/x", "weights", "x", 2, 3, 2, (2, 3, 4, 7), (2, 3, 1, 1)), (24, 7)),
    }[form]
    table = [TABLE] * site.tables
    value = values(math.prod(shape), spread=4.0).reshape(shape)
    changed = [other if k == part else bits[k] for k in range(6)]
    before, after = (quantizer(table, one, site=site)(value) for one in (bits, changed))

    def parts(tensor):
        if form == "channels":
            return tensor.reshape(5, 6, 4).movedim(1, 0)
        return tensor.movedim(1, 0) if form == "heads" else tensor.reshape(6, 4, 7)

    for k in range(6):
        expected = quantizer(TABLE, changed[k])(parts(value)[k])
        torch.testing.assert_close(parts(after)[k], expected, rtol=0, atol=0)
        if k != part:
            assert torch.equal(parts(after)[k], parts(before)[k])


def test_gradients_of_heads_are_each_their_own():
    site = Site("stored/x", STORED, "x", 1, 3, parts=(3, 1, 1))
    value, upstream = values(60, 6.0).reshape(2, 3, 5, 2), values(60, seed=7).reshape(2, 3, 5, 2)
    one = quantizer([TABLE], [3, 4, 3], site=site)
    _, of_x, bits, steps, _ = gradients(one, value, upstream)
    expected = torch.zeros(7, dtype=torch.float64)
    for k, width in enumerate((3, 4, 3)):
        alone = quantizer(TABLE, width)
        _, x, n, own, _ = gradients(alone, value[:, k], upstream[:, k])
        torch.testing.assert_close(of_x[:, k], x)
        torch.testing.assert_close(bits[0, k], n[0, 0])
        expected += own[0]
    torch.testing.assert_close(steps[0], expected)  # heads of one width share a slot


def test_ends_scales_and_offsets_may_have_shapes_of_their_own():
    """A scale for everything with ends per channel and an offset per row, against autograd."""
    value, upstream = values(24, 3.0).reshape(4, 6), values(24, seed=3).reshape(4, 6)
    scale = torch.tensor(0.5, dtype=torch.float64)
    low, high = torch.tensor([-2.0, -4, -1, 0, -3, -2]).double(), torch.tensor([1.0, 3, 7, 2, 1, 0]).double()
    offset = torch.tensor([[0.1], [-0.2], [0.0], [0.7]], dtype=torch.float64)
    found = [one.clone().requires_grad_() for one in (value, scale, low, high, offset)]
    x, s, a, b, o = found
    (learned_step(x, s, a, b, 0.25, o) * upstream).sum().backward()
    slow = [one.clone().requires_grad_() for one in (value, scale, low, high, offset)]
    x, s, a, b, o = slow
    position = torch.minimum(torch.maximum((x - o) / s, a), b)
    ((s * (position + (position.round() - position).detach()) + o) * upstream).sum().backward()
    for k, (one, other) in enumerate(zip(found, slow, strict=True)):
        torch.testing.assert_close(one.grad, other.grad * (0.25 if k == 1 else 1.0))


# Ties and freezing


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(1e-4, 10.0), min_size=1, max_size=12))
def test_tied_steps_are_the_nearest_powers_of_two_of_one_base(given_steps):
    steps = torch.tensor([given_steps], dtype=torch.float64)
    tied = tie(steps)
    exponents = (tied / tied[0, 0]).log2()
    torch.testing.assert_close(exponents, exponents.round(), rtol=0, atol=1e-9)
    assert bool(((tied / steps).log2().abs() <= 0.5 + 1e-9).all())
    own = (steps.log2() % 1)[0]
    errors = [((steps.log2() - base) - (steps.log2() - base).round()).square().sum() for base in own]
    assert float((tied / steps).log2().square().sum()) <= float(min(errors)) + 1e-9
    torch.testing.assert_close(tie(tied), tied, rtol=1e-12, atol=0)


def test_tables_are_tied_apart():
    steps = torch.tensor([[1.0, 2.1], [3.0, 5.9]], dtype=torch.float64)
    torch.testing.assert_close(tie(steps), torch.cat([tie(steps[:1]), tie(steps[1:])]))
    torch.testing.assert_close(tie(steps)[0] / tie(steps)[0, 0], torch.tensor([1.0, 2.0], dtype=torch.float64))


def trained(**given):
    """A quantizer of three heads as training leaves it: real bits, steps that moved."""
    site = Site("stored/x", STORED, "x", 1, 3, parts=(3, 1, 1), signed=given.get("signed", True))
    site = replace(site, offset="offsets" in given)
    one = quantizer([TABLE], [2.6, 4.4, 7.8], site=site, **given)
    with torch.no_grad():
        one.growth.copy_(torch.linspace(-0.2, 0.3, 7).double())
        if one.moved is not None:
            one.moved.copy_(torch.linspace(0.1, -0.1, 7).double())
    return one


def test_freezing_keeps_the_values():
    one, value = trained(), values(120, 4.0).reshape(2, 3, 5, 4)
    before, width = one(value), one.width().detach()
    one.freeze()
    torch.testing.assert_close(one(value), before, rtol=1e-12, atol=1e-12)
    assert torch.equal(one.bits, width)
    assert not one.bits.requires_grad
    (one(value) ** 2).sum().backward()
    assert one.bits.grad is None
    assert float(one.growth.grad[0, 0]) != 0.0
    assert not one.growth.grad[0, 1:].any()


def test_frozen_steps_of_one_sum_are_powers_of_two():
    one = trained()
    before = one.step(one.width()).detach()
    one.freeze(powers_of_two=True)
    with torch.no_grad():
        one.growth.fill_(0.37)  # training goes on: one factor for all heads
    steps = one.step(one.width()).detach()
    exponents = (steps / steps[0, 0]).log2()
    torch.testing.assert_close(exponents, exponents.round(), rtol=0, atol=1e-12)
    torch.testing.assert_close(steps, tie(before) * math.exp(0.37))


def test_frozen_offsets_are_whole_steps_within_the_codes():
    one, value = trained(signed=False, offsets=[SHIFTS]), values(120, 4.0).reshape(2, 3, 5, 4)
    exact = one.shift(one.width()).detach()
    one.freeze()
    width, steps = one.width(), one.step(one.width()).detach()
    low, high = one.range(width)
    assert torch.equal(one.zero, one.zero.round())
    assert bool(((one.zero >= low) & (one.zero <= high)).all())
    assert bool(((one.shift(width) - exact).abs() <= steps / 2 + 1e-12).all())
    codes = one(value).detach() / steps.reshape(3, 1, 1) + one.zero.reshape(3, 1, 1)
    torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-9)
    assert float(codes.min()) >= 0
    outside = quantizer(TABLE, 4, signed=False, offsets=[0.4] * 7)  # zero would be code −1
    outside.freeze()
    assert float(outside.zero) == 0.0


def test_a_frozen_scale_has_the_gradient_of_the_hardware_s_value():
    """scale · (code − zero): where a value saturates, the scale's gradient is code − zero, not the code."""
    one = quantizer(TABLE, 4, signed=False, offsets=[-0.9] * 7)
    one.freeze()
    zero, step = float(one.zero), float(one.step(one.width()).detach())
    assert (zero, step) == (3.0, pytest.approx(0.3))
    for value, code in ((100.0, 15), (-100.0, 0)):
        one.growth.grad = None
        one(torch.tensor([value], dtype=torch.float64)).sum().backward()
        g = 15**-0.5
        assert float(one.growth.grad[0, 0]) == pytest.approx(g * (code - zero) * step)
