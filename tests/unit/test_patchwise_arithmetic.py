"""Narrow codes, zero points that fit them, the order of tokens and their counts, against plain twins."""

from __future__ import annotations

import itertools
from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.plan import QuantPlan, apply_plan
from accelsim.problems import AccelsimError
from accelsim.token_groups import TokenGroups
from accelsim.workloads import build_workload
from accelsim.workloads.rank import rank_tokens
from quant.costs import bit_operations
from quant.functional import Affine
from quant.patchwise.narrow import Narrow, aligned, narrow_codes
from quant.patchwise.order import Fixed, Threshold, flags, full_tokens, places, rank_words, ranking_settings
from tests.support.patchwise import grouped_plan

IMPORTANT = ranking_settings(Fixed(), "important", 0, True)


def plain_narrow(code: int, low: int, high: int, drop: int) -> int:
    """The rule for one code, in fractions."""
    step = 2**drop
    quotient = floor(Fraction(code, step) + Fraction(1, 2))
    inside = [k for k in range(-300, 300) if low <= k * step <= high]
    return min(max(quotient, inside[0]), inside[-1]) * step


@settings(max_examples=60)
@given(st.integers(3, 8), st.integers(1, 6), st.booleans(), st.data())
def test_narrow_codes_are_those_of_the_plain_rule(bits: int, drop: int, symmetric: bool, data: st.DataObject) -> None:
    """Integers and whole numbers in floats, whatever the range."""
    drop = min(drop, bits - 2)
    high = 2 ** (bits - 1) - 1
    low = -high if symmetric else -high - 1
    codes = data.draw(st.lists(st.integers(low, high), min_size=1, max_size=20))
    expected = [plain_narrow(code, low, high, drop) for code in codes]
    found = narrow_codes(torch.tensor(codes), low, high, drop)
    assert found.tolist() == expected
    assert found.dtype == torch.int64
    assert narrow_codes(torch.tensor(codes, dtype=torch.float32), low, high, drop).tolist() == expected
    assert all(code % 2**drop == 0 and low <= code <= high for code in found.tolist())


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 4))
def test_shifted_narrow_products_are_aligned_sums(seed: int, left_drop: int, right_drop: int) -> None:
    """An engine that multiplies stored narrow codes and shifts each partial sum computes the sum of aligned codes."""
    rng = np.random.default_rng(seed)
    full = rng.integers(-128, 128, (2, 12))
    narrow = np.stack([narrow_codes(torch.from_numpy(full[0]), -128, 127, left_drop).numpy(),
                       narrow_codes(torch.from_numpy(full[1]), -128, 127, right_drop).numpy()])  # fmt: skip
    stored = narrow >> np.array([[left_drop], [right_drop]])
    wide, some = slice(0, 5), slice(5, None)  # terms whose right operand is full, and whose is narrow
    aligned_sum = int(narrow[0, wide] @ full[1, wide] + narrow[0, some] @ narrow[1, some])
    products = int(stored[0, wide] @ full[1, wide]) << left_drop
    products += int(stored[0, some] @ stored[1, some]) << (left_drop + right_drop)
    assert aligned_sum == products


@settings(max_examples=60)
@given(st.integers(4, 8), st.integers(1, 4), st.floats(-8, 0), st.floats(0, 8))
def test_aligned_quantizers_keep_their_range(bits: int, drop: int, low: float, high: float) -> None:
    """The zero point is a legal multiple, both ends are still reached, and what fits stays as it is."""
    drop = min(drop, bits - 2)
    first, last = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    scale = max(high - low, 1e-3) / (last - first)
    zero = float(np.clip(first - round(low / scale), first, last))
    given_one = Affine(torch.tensor(scale), torch.tensor(zero), first, last)
    found = aligned(given_one, drop)
    moved, step = float(found.zero_point), 2**drop
    assert moved % step == 0
    assert first <= moved <= last
    assert abs(moved - zero) < 2 * step
    reach = 1e-5 * (abs(low) + abs(high) + 1)
    assert float(found.scale) * (last - moved) >= scale * (last - zero) - reach
    assert float(found.scale) * (first - moved) <= scale * (first - zero) + reach
    if zero % step == 0:
        assert float(found.scale) == float(given_one.scale)


def plain_full(ordered: list[int], share: int) -> int:
    """The smallest k, tried one after the other."""
    return next(k for k in range(1, len(ordered) + 1) if 256 * sum(ordered[:k]) >= share * sum(ordered))


@settings(max_examples=60)
@given(st.lists(st.integers(0, 40), min_size=2, max_size=12), st.integers(1, 256))
def test_words_are_those_of_a_plain_sort(importance: list[int], share: int) -> None:
    """Class token first, then by importance, ties in order; flags at the smallest prefix that holds the share."""
    words = rank_words(torch.tensor([importance]), ranking_settings(Threshold(share), "important", 0, True))
    rest = sorted(range(1, len(importance)), key=lambda k: -importance[k])
    order = [0, *rest]
    assert places(words)[0].tolist() == order
    full = plain_full([importance[k] for k in order], share)
    assert flags(words)[0].tolist() == [k < full for k in range(len(importance))]
    real = rank_words(
        torch.tensor([importance], dtype=torch.float64), ranking_settings(Threshold(share), "important", 0, True)
    )
    assert torch.equal(words, real)


def test_full_tokens_are_counted_per_image() -> None:
    """One image needs three of four tokens for three quarters, the other one; nothing to share: one token."""
    ordered = torch.tensor([[1, 1, 1, 1], [97, 1, 1, 1], [0, 0, 0, 0]])
    assert full_tokens(ordered, 192).tolist() == [3, 1, 1]
    assert full_tokens(torch.tensor([[float("nan")] * 3]), 192).tolist() == [3]


def test_controls_change_the_order_and_not_the_counts() -> None:
    """The inverse is least important first; the random order depends on image and seed only."""
    importance = torch.randint(0, 1000, (6, 33), generator=torch.Generator().manual_seed(1))
    words = {
        (order, seed): rank_words(importance, ranking_settings(Threshold(128), order, seed, True))
        for order, seed in (("important", 0), ("inverse", 0), ("random", 0), ("random", 1))
    }
    for one in words.values():
        assert torch.equal(places(one).sort(1).values, torch.arange(33).expand(6, 33))
        assert bool((places(one)[:, 0] == 0).all())
        assert torch.equal(flags(one), flags(words["important", 0]))
    inverse = importance.gather(1, places(words["inverse", 0]))[:, 1:]
    assert bool((inverse.diff(dim=1) >= 0).all())
    random = places(words["random", 0])
    assert not torch.equal(random, places(words["random", 1]))
    assert len({tuple(row) for row in random.tolist()}) == 6
    alone = rank_words(importance[3:4], ranking_settings(Fixed(), "random", 0, True))
    assert torch.equal(places(alone)[0], random[3])
    with pytest.raises(AccelsimError, match="unknown order 'best'"):
        ranking_settings(Fixed(), "best", 0, True)
    with pytest.raises(AccelsimError, match="a share of 0/256"):
        Threshold(0)


def test_without_a_class_token_all_tokens_are_sorted() -> None:
    """`first` is what keeps token 0 in front."""
    importance = torch.tensor([[1, 5, 3]])
    assert places(rank_words(importance, ranking_settings(Fixed(), "important", 0, False))).tolist() == [[1, 2, 0]]
    assert places(rank_words(importance, IMPORTANT)).tolist() == [[0, 1, 2]]


def test_groups_of_a_tensor_without_tokens_are_refused() -> None:
    """The rows must be the tokens: nothing is guessed from the shape."""
    groups = TokenGroups("b1", 5, 2)
    narrow = Narrow("b1.fc1", groups, -128, 127, 65, False)
    with pytest.raises(AccelsimError, match="65 tokens in the last axis but one"):
        narrow(torch.zeros(2, 64, 5, dtype=torch.int64), [])


@pytest.mark.parametrize("high", [1, 5, 64, 65])
def test_bit_operations_are_a_plain_double_sum(high: int) -> None:
    """Every product of every pair of tokens with the bits of both; the ranking reads one full row."""
    workload = rank_tokens(build_workload("glyph_vit"), ["b1", "b2"])
    plan: QuantPlan = grouped_plan(workload, {"b1": high}, 3)
    bits = [8] * high + [5] * (65 - high)
    expected = 0
    for op in workload.ops:
        own = op.name.startswith("b1.") and op.loop is not None
        if own and op.name in ("b1.scores", "b1.values"):
            d = op.loop.depth if op.name == "b1.scores" else op.loop.cols
            expected += op.loop.groups * d * sum(p * q for p, q in itertools.product(bits, bits))
        elif own and op.name in ("b1.qkv", "b1.proj", "b1.fc1", "b1.fc2"):
            expected += op.loop.depth * op.loop.cols * sum(8 * b for b in bits)
        elif op.name == "b2.rank_scores":
            expected += op.loop.groups * op.loop.depth * sum(8 * b for b in bits)
        else:
            expected += op.macs * 64
    assert bit_operations(apply_plan(workload, plan)) == expected
