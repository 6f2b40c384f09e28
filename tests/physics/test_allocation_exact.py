"""Solvers of the allocation problem against trying every plan, for every objective and kind of limit."""

import numpy as np
import pytest

from accelsim.problems import InfeasibleError
from codesign.allocate.goal import LIMIT_ROUNDING, relative_gap
from codesign.allocate.model import prepare
from codesign.allocate.relaxation import Relaxation, lower_bound
from codesign.allocate.solve import Limits, minimise
from tests.support.knapsacks import all_totals, every_plan, random_knapsack, typical_knapsack

NAMES = ("penalty", "latency_cycles", "energy_pj", "size_bits", "edp")
# HiGHS proves optima to its tolerances.
CLOSE = 2e-6


def drawn(seed):
    """A problem, the totals of all its plans, and limits: attained values, quantiles, or less than the least."""
    rng = np.random.default_rng(seed)
    problem = random_knapsack(rng, nested=bool(rng.random() < 0.8), integers=bool(rng.random() < 0.5))
    totals = all_totals(problem)
    limits = {}
    for name in NAMES:
        if rng.random() < 0.4:
            kind = rng.random()
            values = totals[name]
            limits[name] = float(
                rng.choice(values) if kind < 0.6 else np.quantile(values, 0.3) if kind < 0.9 else values.min() - 0.1
            )
    return problem, totals, limits


def within(totals, limits):
    allowed = np.ones(len(totals["penalty"]), np.bool_)
    for name, limit in limits.items():
        allowed &= totals[name] <= limit + LIMIT_ROUNDING * abs(limit)
    return allowed


def check_solution(problem, solution, limits, best):
    assert problem.is_complete(solution.chosen)
    assert solution.totals == problem.totals(solution.chosen)
    assert solution.value == solution.totals[solution.objective]
    assert all(solution.totals[name] <= limit + LIMIT_ROUNDING * abs(limit) for name, limit in limits.items())
    assert solution.bound <= best + CLOSE * abs(best) + 1e-12
    assert solution.gap == relative_gap(solution.value, solution.bound)


@pytest.mark.parametrize("objective", NAMES)
@pytest.mark.parametrize("block", range(6))
def test_exact_is_the_best_of_all_plans_and_fast_is_between(objective, block):
    for seed in range(10 * block, 10 * block + 10):
        problem, totals, limits = drawn(seed + 1000 * NAMES.index(objective))
        allowed = within(totals, limits)
        if not allowed.any():
            for method in ("exact", "fast"):
                with pytest.raises(InfeasibleError):
                    minimise(problem, objective, Limits(**limits), method)
            continue
        best = totals[objective][allowed].min()
        exact = minimise(problem, objective, Limits(**limits), gap=1e-7)
        check_solution(problem, exact, limits, best)
        assert exact.value == pytest.approx(best, rel=CLOSE, abs=1e-12)
        assert exact.gap <= 1e-5
        fast = minimise(problem, objective, Limits(**limits), "fast")
        check_solution(problem, fast, limits, best)
        assert fast.value >= best - 1e-12


def test_fast_seldom_misses_the_best():
    missed = solved = 0
    for seed in range(2000, 2050):
        problem, totals, limits = drawn(seed)
        allowed = within(totals, limits)
        if not allowed.any():
            continue
        solved += 1
        fast = minimise(problem, "edp", Limits(**limits), "fast")
        missed += fast.value > totals["edp"][allowed].min() * (1 + CLOSE)
    assert solved > 25
    assert missed <= solved // 20


@pytest.mark.parametrize("seed", range(40))
def test_lower_bound_holds_for_every_plan_and_any_weights(seed):
    problem, totals, limits = drawn(seed + 5000)
    rng = np.random.default_rng(seed)
    weights = {name: float(rng.gamma(1.0)) for name in NAMES[:-1] if rng.random() < 0.7}
    weighted = sum((weight * totals[name] for name, weight in weights.items()), np.zeros(len(totals["edp"])))
    limits.pop("edp", None)
    allowed = within(totals, limits)
    bound = lower_bound(problem, weights, Limits(**limits))
    # No tolerance: the bound is certified.
    assert bound <= (weighted[allowed].min() if allowed.any() else np.inf)
    free = lower_bound(problem, weights)
    assert free <= weighted.min()
    assert bound >= free - 1e-9 * abs(free)


def test_infeasible_error_names_the_least_reachable_value():
    checked = 0
    for seed in range(7000, 7040):
        problem, totals, _ = drawn(seed)
        least = totals["latency_cycles"].min()
        quick = totals["latency_cycles"] <= least * 1.05
        energy = totals["energy_pj"][quick].min()
        if energy <= totals["energy_pj"].min() * 1.01:
            continue
        checked += 1
        limits = Limits(latency_cycles=least * 1.05, energy_pj=energy * 0.995)
        with pytest.raises(InfeasibleError) as caught:
            minimise(problem, "penalty", limits)
        (found,) = caught.value.problems
        assert "energy_pj" in found.what
        assert found.demand == pytest.approx(energy * 1e6, rel=2e-4)
        assert found.bound == pytest.approx(energy * 0.995e6, rel=1e-6)
    assert checked > 10


@pytest.mark.parametrize("seed", range(20))
def test_excess_is_what_choosing_a_variable_costs_at_least(seed):
    problem, totals, limits = drawn(seed + 9000)
    limits.pop("edp", None)
    model = prepare(problem)
    relaxed = Relaxation(model).solve(model.goal("energy_pj", Limits(**limits)))
    allowed = within(totals, limits)
    plans = every_plan(problem)
    for place, variable in enumerate(model.order):
        having = np.array([variable in plan for plan in plans]) & allowed
        if having.any():
            assert relaxed.bound + relaxed.excess[place] <= totals["energy_pj"][having].min() + 1e-9


def test_exact_finds_what_fast_misses():
    missed = 0
    for seed in range(6):
        problem = typical_knapsack(seed, ops=6, options=3, shared=0.7)
        totals = all_totals(problem)
        for share in (0.02, 0.2, 0.5):
            for objective, name in (("latency_cycles", "penalty"), ("edp", "penalty"), ("penalty", "edp")):
                limit = float(np.quantile(totals[name], share))
                best = totals[objective][totals[name] <= limit].min()
                exact = minimise(problem, objective, Limits(**{name: limit}), gap=1e-6)
                fast = minimise(problem, objective, Limits(**{name: limit}), "fast")
                assert exact.value == pytest.approx(best, rel=CLOSE)
                assert fast.bound <= best <= fast.value * (1 + 1e-12)
                missed += fast.value > best * (1 + CLOSE)
    # Else this test would not see a variable left out wrongly.
    assert missed > 0
