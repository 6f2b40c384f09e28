"""The frontier of sums and its hull, against all choices there are and against the knapsack."""

from __future__ import annotations

import time
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.problems import AccelsimError, InfeasibleError
from codesign.allocate.flat import exact_groups
from codesign.frontier.hull import bound, hull
from codesign.frontier.merge import Frontier, Group, merge, monotone


def some_groups(seed: int, count: int | None = None, whole: bool = True, options: int = 4) -> list[Group]:
    """Errors that rise as widths fall, costs that fall; options that cannot be had where costs are real numbers."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(int(rng.integers(1, 8)) if count is None else count):
        size = int(rng.integers(1, options + 1)) if count is None else options
        errors = monotone(rng.integers(0, 200, size) / 8)  # eighths: sums are exact
        costs = rng.integers(-3, 40) * np.arange(size, 0, -1) + rng.integers(0, 4, size)
        if whole:
            found.append(Group(errors, costs))
            continue
        real = 0.7 * costs
        real[1:][rng.random(size - 1) < 0.2] = np.inf
        found.append(Group(errors, real))
    return found


def every(groups: list[Group]) -> list[tuple[float, float]]:
    """(cost, error) of all choices."""
    pairs = [list(zip(one.costs.tolist(), one.errors.tolist(), strict=True)) for one in groups]
    return [(sum(c for c, _ in one), sum(e for _, e in one)) for one in product(*pairs)]


def undominated(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for cost, error in sorted(points):
        if np.isfinite(cost) and (not found or error < found[-1][1]):
            found.append((cost, error))
    return found


def sums(groups: list[Group], front: Frontier) -> tuple[list[float], list[float]]:
    costs = [sum(one.costs[k] for one, k in zip(groups, row, strict=True)) for row in front.choices]
    errors = [sum(one.errors[k] for one, k in zip(groups, row, strict=True)) for row in front.choices]
    return costs, errors


@given(seed=st.integers(0, 100_000))
@settings(max_examples=150, deadline=None)
def test_the_merge_is_the_frontier_of_all_choices(seed: int) -> None:
    groups = some_groups(seed)
    front = merge(groups)
    assert list(zip(front.costs.tolist(), front.errors.tolist(), strict=True)) == undominated(every(groups))
    assert front.costs.dtype == np.int64
    assert front.slack == 0
    assert sums(groups, front) == (front.costs.tolist(), front.errors.tolist())


@given(seed=st.integers(0, 100_000))
@settings(max_examples=50, deadline=None)
def test_real_costs_and_options_that_cannot_be_had(seed: int) -> None:
    groups = some_groups(seed, whole=False)
    front = merge(groups)
    costs, errors = sums(groups, front)
    assert (costs, errors) == (pytest.approx(front.costs.tolist()), front.errors.tolist())
    expected = undominated(every(groups))
    for budget in front.costs + 1e-9:
        # Equal sums may differ in their last bits with the order in which they are formed.
        assert front.errors[front.costs <= budget].min() == min(one[1] for one in expected if one[0] <= budget)
    assert {round(cost, 6) for cost, _ in expected} == {round(float(cost), 6) for cost in front.costs}


@given(seed=st.integers(0, 100_000), bins=st.integers(2, 30))
@settings(max_examples=150, deadline=None)
def test_bins_lose_no_more_than_their_slack(seed: int, bins: int) -> None:
    groups = some_groups(seed)
    exact, front = merge(groups), merge(groups, bins)
    assert len(front) <= bins + 1
    width = sum(float(one.costs.max() - one.costs.min()) for one in groups) / bins
    assert front.slack <= len(groups) * width + 1e-9
    assert front.costs[0] == exact.costs[0]
    assert sums(groups, front) == (front.costs.tolist(), front.errors.tolist())
    for cost, error in zip(exact.costs.tolist(), exact.errors.tolist(), strict=True):
        assert front.errors[front.pick(cost + front.slack)] <= error
    if len(exact) <= bins and all(len(merge(groups[:k])) <= bins for k in range(1, len(groups))):
        assert front.slack == 0


@given(seed=st.integers(0, 100_000), share=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_picks_are_those_of_the_knapsack(seed: int, share: float) -> None:
    groups = some_groups(seed, count=6)
    front = merge(groups)
    budget = float(np.ceil(front.costs[0] + share * (front.costs[-1] - front.costs[0]))) + 0.5
    errors, costs = (np.array([getattr(one, name) for one in groups]) for name in ("errors", "costs"))
    shifted = costs - costs.min(axis=1, keepdims=True)
    choice = exact_groups(errors, shifted[None].astype(float), np.array([budget - costs.min(axis=1).sum()]))
    found = front.pick(budget)
    assert front.errors[found] == pytest.approx(errors[np.arange(6), choice].sum(), abs=1e-6)
    assert front.costs[found] <= budget
    binned = merge(groups, 40)
    room = budget - binned.slack - float(costs.min(axis=1).sum())
    if room > 0:  # no worse than the knapsack with the slack less
        least = exact_groups(errors, shifted[None].astype(float), np.array([room]))
        assert binned.errors[binned.pick(budget)] <= errors[np.arange(6), least].sum() + 1e-6


@given(seed=st.integers(0, 100_000))
@settings(max_examples=150, deadline=None)
def test_the_hull_is_that_of_the_frontier(seed: int) -> None:
    groups = some_groups(seed)
    front, found = merge(groups), hull(groups)
    points = set(zip(front.costs.tolist(), front.errors.tolist(), strict=True))
    assert set(zip(found.costs.tolist(), found.errors.tolist(), strict=True)) <= points
    assert (found.costs[0], found.costs[-1]) == (front.costs[0], front.costs[-1])
    assert sums(groups, found) == (found.costs.tolist(), found.errors.tolist())
    # Convex, below every point of the frontier, and what each price finds is on it.
    slopes = np.diff(found.errors) / np.diff(found.costs)
    assert (np.diff(slopes) >= -1e-9).all()
    assert (np.interp(front.costs, found.costs, found.errors) <= front.errors + 1e-9).all()
    for price in (0.0, 0.03, 0.4, 2.0, 1e6):
        least = sum(float((one.errors + price * one.costs).min()) for one in groups)
        assert (found.errors + price * found.costs).min() == pytest.approx(least)


@given(seed=st.integers(0, 100_000), low=st.floats(0, 1), high=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_a_larger_budget_is_never_worse(seed: int, low: float, high: float) -> None:
    groups = some_groups(seed)
    for front in (merge(groups), merge(groups, 5), hull(groups)):
        low, high = sorted((low, high))
        budgets = [float(front.costs[0] + share * (front.costs[-1] - front.costs[0]) + 1e-9) for share in (low, high)]
        first, second = (front.errors[front.pick(one)] for one in budgets)
        assert second <= first
        assert bound(hull(groups), budgets[0]) <= first + 1e-9


def test_a_hull_misses_what_lies_between_two_prices() -> None:
    group = Group(np.array([0.0, 6.0, 8.0]), np.array([4, 2, 0]))  # the middle one lies above the line
    assert merge([group]).costs.tolist() == [0, 2, 4]
    found = hull([group])
    assert found.costs.tolist() == [0, 4]
    assert bound(found, 2) == 4.0
    assert found.errors[found.pick(2)] == 8.0


def test_monotone_errors_never_fall_as_widths_do() -> None:
    assert monotone(np.array([0.0, 3.0, 1.0, 4.0])).tolist() == [0.0, 3.0, 3.0, 4.0]


def test_large_problems_take_seconds() -> None:
    rng = np.random.default_rng(0)

    def random_groups(count: int, options: int) -> list[Group]:
        errors = np.sort(rng.gamma(0.3, 1.0, (count, options)), axis=1)
        weights = rng.integers(1, 100_000, count)
        return [Group(errors[k], weights[k] * np.arange(options, 0, -1)) for k in range(count)]

    start = time.perf_counter()
    few, many = random_groups(26, 5), random_groups(300, 7)
    for groups in (few, many):
        front = merge(groups, 5000)
        corners = hull(groups)
        assert len(front) <= 5001
        budget = 0.6 * float(front.costs[-1])
        # The hull bounds what any choice reaches; the binned frontier comes near it.
        least = bound(corners, budget)
        assert least <= front.errors[front.pick(budget)] <= corners.errors[corners.pick(budget)] + 1e-9
    assert time.perf_counter() - start < 60


def test_faults_are_named() -> None:
    group = Group(np.array([0.0, 1.0]), np.array([2, 1]))
    with pytest.raises(InfeasibleError, match="the least cost is 1"):
        merge([group]).pick(0.5)
    with pytest.raises(AccelsimError, match="at least 2"):
        merge([group], 1)
    with pytest.raises(AccelsimError, match="has no groups"):
        merge([])
    with pytest.raises(AccelsimError, match="one of each"):
        hull([Group(np.array([0.0]), np.array([2, 1]))])
    with pytest.raises(AccelsimError, match="not finite"):
        merge([Group(np.array([np.nan]), np.array([2]))])
    with pytest.raises(AccelsimError, match="has no option"):
        hull([Group(np.array([1.0]), np.array([np.inf]))])
