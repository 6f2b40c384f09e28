import os
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from accelsim.problems import AccelsimError
from codesign.allocate.exchanges import Exchanges
from codesign.allocate.model import prepare
from codesign.allocate.problem import Knapsack
from codesign.allocate.quiet import quiet_stdout
from codesign.allocate.relaxation import Relaxation, lower_bound
from codesign.allocate.solve import Limits, minimise
from tests.support.knapsacks import every_plan, random_knapsack, typical_knapsack


def knapsack(group, parent, loads, penalty=None, stage=None):
    loads = np.array(loads, np.float64)
    stage = np.zeros(loads.shape[1], np.int64) if stage is None else np.array(stage)
    return Knapsack(
        np.array(group),
        np.array(parent),
        np.zeros(len(group)) if penalty is None else np.array(penalty, np.float64),
        np.ones((len(group), 1)),
        ("energy_pj",),
        csr_array(loads),
        stage,
        np.zeros(int(stage.max()) + 1),
        np.zeros(1),
    )


def picks(model, plan):
    """The pick of every group in a plan of the problem; groups that do not choose have their first variable."""
    pick = model.start[:-1].copy()
    place = np.argsort(model.order)
    pick[model.group[place[plan]]] = place[plan]
    return pick


@pytest.mark.parametrize("seed", range(30))
def test_totals_after_every_exchange_are_those_of_the_changed_plan(seed):
    rng = np.random.default_rng(seed)
    problem = random_knapsack(rng, integers=bool(seed % 2), stages=2 + seed % 2, units=1 + seed % 3)
    model = prepare(problem)
    exchanges = Exchanges(model)
    plans = every_plan(problem)
    for plan in rng.choice(len(plans), 3):
        pick = picks(model, plans[plan])
        assert model.chosen(pick).tolist() == plans[plan].tolist()
        now, after = exchanges.after(pick)
        assert now == pytest.approx(exchanges.totals(pick), rel=1e-12)
        active = model.active(pick)
        for variable in range(model.size):
            if not active[model.group[variable]] or variable in pick:
                assert np.isinf(after[variable, 0])
                continue
            other = pick.copy()
            other[model.group[variable]] = variable
            assert problem.is_complete(model.chosen(other))
            assert after[variable] == pytest.approx(exchanges.totals(other), rel=1e-12)


def test_a_stage_of_one_item_has_no_makespan_to_relax():
    # Half of each option would take 5 cycles; there is no such plan.
    assert lower_bound(knapsack([0, 0], [-1, -1], [[10, 0], [0, 10]]), {"latency_cycles": 1}) == pytest.approx(10)
    # Items under different branches of one group never run both.
    parent = [-1, -1, 0, 0, 1, 1]
    loads = [[0, 0], [0, 0], [10, 0], [0, 10], [12, 0], [0, 12]]
    model = prepare(knapsack([0, 0, 1, 1, 2, 2], parent, loads))
    assert model.stages == 0
    assert lower_bound(model, {"latency_cycles": 1}) == pytest.approx(10)


def test_loads_of_a_branch_join_those_of_its_item():
    problem = knapsack([0, 1, 1], [-1, 0, 0], [[3, 0], [0, 5], [4, 0]])
    model = prepare(problem)
    assert model.stages == 0
    assert lower_bound(model, {"latency_cycles": 1}) == pytest.approx(5)
    assert minimise(problem, "latency_cycles").value == 5


def test_one_stage_of_many_rows_is_bounded_by_all_of_them():
    two = knapsack([0, 0, 1, 1], [-1] * 4, [[10, 0], [0, 4], [10, 0], [0, 4]])
    # Shares of 2/7 and 5/7 balance both rows; the best plan puts both groups on the second.
    assert lower_bound(two, {"latency_cycles": 1}) == pytest.approx(40 / 7)
    assert minimise(two, "latency_cycles").value == 8
    rng = np.random.default_rng(0)
    loads = rng.gamma(1.0, 10.0, (60, 150))
    many = knapsack(np.repeat(np.arange(12), 5), [-1] * 60, loads, penalty=rng.random(60))
    bound = lower_bound(many, {"latency_cycles": 1.0}, Limits(penalty=3.0))
    found = minimise(many, "latency_cycles", Limits(penalty=3.0), "fast")
    assert 0.8 * found.value < bound <= found.value


@pytest.mark.parametrize("seed", range(5))
def test_bound_is_that_of_the_linear_relaxation(seed):
    """The certificate loses nothing but rounding: it equals the totals of the fractional plan."""
    model = prepare(typical_knapsack(seed))
    relaxation = Relaxation(model)
    quickest = minimise(model, "latency_cycles", None, "fast").value
    found = relaxation.solve(model.goal("penalty", Limits(latency_cycles=1.3 * quickest)))
    assert found.bound == pytest.approx(found.totals[0], rel=1e-6)
    assert found.totals[1] <= 1.3 * quickest * (1 + 1e-6)


def test_limits_that_exclude_each_other_are_proven_to():
    problem = knapsack([0, 0], [-1, -1], [[1, 0], [9, 0]], penalty=[5.0, 1.0])
    assert lower_bound(problem, {"penalty": 1}, Limits(penalty=5, latency_cycles=1)) == pytest.approx(5)
    assert lower_bound(problem, {"penalty": 1}, Limits(penalty=2, latency_cycles=3)) == np.inf


def test_a_limit_of_nothing_and_one_of_infinity():
    problem = knapsack([0, 0, 1, 1], [-1] * 4, [[1, 0], [9, 0], [1, 0], [9, 0]], penalty=[5.0, 0.0, 2.0, 0.0])
    for method in ("fast", "exact"):
        assert minimise(problem, "latency_cycles", Limits(penalty=0.0), method).value == 18
        assert minimise(problem, "latency_cycles", Limits(penalty=np.inf, edp=np.inf), method).value == 2


def test_limits_are_values():
    assert Limits(penalty=1, size_bits=3, energy_pj=2) == Limits(energy_pj=2, size_bits=3, penalty=1)
    assert list(Limits(edp=4, size_bits=3, energy_pj=None, penalty=1).all()) == ["penalty", "size_bits", "edp"]


def test_what_is_unknown_or_broken_is_told():
    problem = random_knapsack(np.random.default_rng(0))
    with pytest.raises(AccelsimError, match=r"no total 'area_mm2'.*size_bits, edp"):
        minimise(problem, "penalty", Limits(area_mm2=3))
    with pytest.raises(AccelsimError, match="no method 'magic'"):
        minimise(problem, "penalty", method="magic")
    with pytest.raises(AccelsimError, match="EDP is not linear"):
        lower_bound(problem, {"edp": 1})
    with pytest.raises(AccelsimError, match="negative weight on latency"):
        lower_bound(problem, {"latency_cycles": -1})
    with pytest.raises(AccelsimError, match="several parents"):
        prepare(knapsack([0, 1, 1], [-1, 0, -1], [[0, 0]] * 3))
    with pytest.raises(AccelsimError, match="hangs under itself"):
        prepare(knapsack([0, 1], [1, 0], [[0, 0]] * 2))
    with pytest.raises(AccelsimError, match="numbers"):
        minimise(problem, "penalty", Limits(edp=np.nan))
    with pytest.raises(AccelsimError, match="not finite"):
        prepare(replace(problem, penalty=problem.penalty + np.inf))
    with pytest.raises(AccelsimError, match="EDP has no least value"):
        minimise(replace(problem, offset_cycles=problem.offset_cycles - 100), "edp")


def test_what_c_prints_inside_is_swallowed_and_later_not(capfd):
    with quiet_stdout(), quiet_stdout():
        os.write(1, b"inside")
    os.write(1, b"after")
    assert capfd.readouterr().out == "after"
