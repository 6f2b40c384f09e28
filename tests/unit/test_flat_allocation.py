import itertools

import numpy as np
import pytest

from accelsim.problems import AccelsimError, InfeasibleError
from codesign.allocate.flat import allocate_groups
from codesign.allocate.goal import LIMIT_ROUNDING


def instance(rng, groups, options, budgets, share=0.5):
    """Options of falling penalty and rising cost; budgets between the least and the greatest total."""
    penalties = np.sort(rng.lognormal(0, 1.5, (groups, options)), axis=1)[:, ::-1]
    costs = np.sort(rng.lognormal(0, 1, (groups, options, budgets)), axis=1) * rng.lognormal(0, 1, (groups, 1, budgets))
    least, most = costs.min(axis=1).sum(axis=0), costs.max(axis=1).sum(axis=0)
    return penalties, costs, least + share * (most - least)


def best_of_all(penalties, costs, budgets):
    groups, options = penalties.shape
    rows = np.arange(groups)
    best = np.inf
    for choice in itertools.product(range(options), repeat=groups):
        spent = costs[rows, choice].sum(axis=0)
        if (spent <= budgets + LIMIT_ROUNDING * np.abs(budgets)).all():
            best = min(best, penalties[rows, choice].sum())
    return best


@pytest.mark.parametrize("budgets", [1, 2, 3])
@pytest.mark.parametrize("seed", range(25))
def test_small_instances_bound_best_and_found_in_order(budgets, seed):
    rng = np.random.default_rng(seed)
    penalties, costs, budget = instance(rng, 5, 4, budgets, share=rng.uniform(0.0, 1.0))
    ragged = rng.random(penalties.shape) < 0.2
    ragged[:, 0] = False
    penalties[ragged] = np.inf
    costs[ragged] = np.inf
    best = best_of_all(penalties, np.where(ragged[..., None], 0.0, costs), budget)
    found = allocate_groups(penalties, costs, budget)
    rows = np.arange(5)
    assert found.penalty == penalties[rows, found.choice].sum()
    assert found.spent == pytest.approx(costs[rows, found.choice].sum(axis=0))
    assert (found.spent <= budget * (1 + 2 * LIMIT_ROUNDING)).all()
    assert found.bound <= best <= found.penalty
    assert found.penalty <= 2.0 * best + 1.0


@pytest.mark.parametrize(("budgets", "gap"), [(1, 1e-5), (3, 1e-3)])
def test_gap_of_forty_thousand_groups(budgets, gap):
    penalties, costs, budget = instance(np.random.default_rng(7), 40_000, 6, budgets)
    found = allocate_groups(penalties, costs, budget)
    assert 0.0 < found.gap <= gap
    assert (found.spent <= budget * (1 + 2 * LIMIT_ROUNDING)).all()
    # All budgets are scarce here, so none is left unspent.
    assert (found.spent > 0.999 * budget).all()


def test_more_budget_never_costs_penalty():
    rng = np.random.default_rng(3)
    penalties, costs, _ = instance(rng, 2_000, 5, 1)
    least, most = costs.min(axis=1).sum(), costs.max(axis=1).sum()
    found = [allocate_groups(penalties, costs, np.array([budget])) for budget in np.linspace(least, most, 12)]
    assert all(after.bound >= before.bound - 1e-9 for before, after in itertools.pairwise(found[::-1]))
    assert all(after.bound <= before.penalty for before, after in itertools.pairwise(found))
    assert found[-1].penalty == pytest.approx(penalties.min(axis=1).sum())
    assert found[0].spent[0] == pytest.approx(least)


def test_budgets_that_only_the_exact_solver_meets():
    # The cheap option of either budget is the dear one of the other; room for exactly one split.
    penalties = np.zeros((4, 2))
    costs = np.array(
        [[[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 2.0]], [[4.0, 0.0], [0.0, 4.0]], [[8.0, 0.0], [0.0, 8.0]]]
    )
    found = allocate_groups(penalties, costs, np.array([11.0, 4.0]))
    assert found.spent.tolist() == [11.0, 4.0]


def test_faults_and_impossible_budgets():
    penalties, costs, budget = instance(np.random.default_rng(1), 30, 3, 1)
    with pytest.raises(InfeasibleError, match="budget_0"):
        allocate_groups(penalties, costs, np.array([0.9 * costs.min(axis=1).sum()]))
    penalties[4] = np.inf
    with pytest.raises(AccelsimError, match="no option"):
        allocate_groups(penalties, costs, budget)
