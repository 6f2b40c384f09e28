"""Allocation problems of the size that networks give: what must hold between methods, limits and objectives."""

from itertools import pairwise

import numpy as np
import pytest

from codesign.allocate.model import prepare
from codesign.allocate.solve import Limits, minimise
from tests.support.knapsacks import typical_knapsack


@pytest.fixture(scope="module", params=[0, 1])
def network(request):
    """A model, its plan of least penalty and its plan of least EDP."""
    model = prepare(typical_knapsack(request.param, ops=15, options=8))
    return model, minimise(model, "penalty", method="fast"), minimise(model, "edp", method="fast")


def middle(network, name, share=0.5):
    """A limit between what the two plans have."""
    _, best, quick = network
    return share * best.totals[name] + (1 - share) * quick.totals[name]


CASES = {
    "latency": ("penalty", ("latency_cycles",)),
    "energy_and_size": ("penalty", ("energy_pj", "size_bits")),
    "edp": ("penalty", ("edp",)),
    "reverse": ("edp", ("penalty",)),
    "latency_reverse": ("latency_cycles", ("penalty",)),
}


@pytest.mark.parametrize("case", CASES)
def test_bounds_exact_and_fast_are_in_order(network, case):
    objective, names = CASES[case]
    limits = Limits(**{name: middle(network, name) for name in names})
    model = network[0]
    fast = minimise(model, objective, limits, "fast")
    exact = minimise(model, objective, limits, "exact", gap=1e-3, time_limit_s=30)
    assert model.problem.is_complete(fast.chosen)
    assert model.problem.is_complete(exact.chosen)
    assert fast.bound <= exact.value * (1 + 1e-9)
    assert exact.bound <= exact.value <= fast.value
    assert exact.gap <= 1e-3
    assert fast.gap <= 0.1
    for solution in (fast, exact):
        assert all(solution.totals[name] <= limit * (1 + 2e-9) for name, limit in limits.all().items())


def test_least_penalty_falls_as_budgets_grow(network):
    shares = np.linspace(0.1, 0.9, 5)
    for name in ("latency_cycles", "edp"):
        found = [
            minimise(network[0], "penalty", Limits(**{name: middle(network, name, share)}), gap=1e-3)
            for share in shares
        ]
        assert all(tight.value >= loose.bound for tight, loose in pairwise(found))
        assert all(loose.value <= tight.value * (1 + 1e-3) for tight, loose in pairwise(found))


def test_limit_of_edp_and_its_reverse_meet(network):
    model = network[0]
    limit = middle(network, "edp")
    least = minimise(model, "penalty", Limits(edp=limit))
    back = minimise(model, "edp", Limits(penalty=least.value), gap=1e-3)
    assert back.bound <= least.totals["edp"]
    assert back.value <= least.totals["edp"] * (1 + 1e-3)


def test_same_problem_same_plan(network):
    limits = Limits(edp=middle(network, "edp"))
    for method in ("fast", "exact"):
        one, two = (minimise(network[0], "penalty", limits, method) for _ in range(2))
        assert one.chosen.tolist() == two.chosen.tolist()
        assert (one.value, one.bound) == (two.value, two.bound)


def test_without_time_the_plan_of_the_fast_solver_is_kept_with_an_honest_gap():
    # Makespans of several ops: HiGHS needs many seconds for a gap that the fast solver leaves.
    model = prepare(typical_knapsack(1))
    loose = minimise(model, "latency_cycles", method="fast")
    limits = Limits(penalty=0.3 * loose.totals["penalty"])
    fast = minimise(model, "latency_cycles", limits, "fast")
    hurried = minimise(model, "latency_cycles", limits, gap=0.0, time_limit_s=0.0)
    assert hurried.totals["penalty"] <= limits.penalty * (1 + 2e-9)
    assert fast.bound <= hurried.bound <= hurried.value <= fast.value
    assert hurried.gap == (hurried.value - hurried.bound) / hurried.value > 0.0
