"""The cost table: additive costs of ops, entries equal to simulations, the same bytes, the loop's promises."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from accelsim.api import Report, simulate
from accelsim.config import load_accelerator, load_plan
from accelsim.optable import op_table
from accelsim.problems import InfeasibleError, Problem
from accelsim.workloads.registry import build_workload
from codesign.allocate.cost_table import CYCLES, ENERGY, CostTable, cost_table, run_choice
from codesign.allocate.feedback import LoopSettings, allocate
from codesign.allocate.goal import Limits
from codesign.allocate.op_costs import op_costs
from codesign.allocate.options import OptionSettings, OptionSpace, option_space
from codesign.allocate.pricing import priced
from codesign.allocate.solve import minimise
from quant.penalties.weights_only import workload_penalties

FORMATS = ("u8", "u4", "apot8")
DESIGNS = [
    ("glyph_hybrid_narrow", "tiny", "uniform8"),
    ("glyph_hybrid_narrow", "m2vit", "m2q"),
    ("efficientvit_b0", "m2vit", "m2q"),
    ("deit_tiny", "trio_vit", "uniform8"),
    ("glyph_hybrid_narrow", "bitfusion_edge", "uniform4"),
]


def space_on(arch: str, mixtures: int = 1) -> OptionSpace:
    workload = build_workload("digits_hybrid")
    penalties = workload_penalties(workload, FORMATS)
    # Activations may have 6 bits as well, at a loss of our own choice.
    activations = {name: {"u8": 0.0, "u6": 0.001} for name in penalties.activations}
    penalties = replace(penalties, activations=activations)
    settings = OptionSettings(FORMATS, ("u8", "u6"), mixtures=mixtures)
    return option_space(workload, penalties, load_accelerator(arch), settings)


@pytest.mark.parametrize(("model", "arch", "plan"), DESIGNS)
def test_costs_of_ops_sum_to_the_design(model: str, arch: str, plan: str) -> None:
    report = simulate(op_table(build_workload(model), load_plan(plan)), load_accelerator(arch))
    costs, cycles = op_costs(report), report.result.cycles_total
    assert costs.cycles.sum() == pytest.approx(cycles, rel=1e-12)
    energy = costs.energy_pj.sum() + costs.static_pj_per_cycle * cycles
    assert energy == pytest.approx(report.prices.arithmetic.energy_pj, rel=1e-12)
    busy = report.result.busy_cycles()
    assert np.ceil(costs.loads.sum(axis=0) - 1e-9).tolist() == [busy[unit] for unit in report.result.program.units]
    assert costs.bus_bits.sum() == report.totals[-2:].sum()


@pytest.fixture(scope="module")
def tables() -> dict[str, tuple[OptionSpace, CostTable]]:
    found = {}
    for arch in ("m2vit", "bitfusion_edge"):
        space = space_on(arch)
        found[arch] = (space, cost_table(space, load_accelerator(arch)))
    return found


@pytest.mark.parametrize("arch", ["m2vit", "bitfusion_edge"])
def test_the_context_is_exact_and_single_groups_are(
    arch: str, tables: dict[str, tuple[OptionSpace, CostTable]]
) -> None:
    space, table = tables[arch]
    accelerator = load_accelerator(arch)
    report = run_choice(space, space.start, accelerator)
    assert table.predict(space.start, space)[CYCLES] == pytest.approx(report.result.cycles_total)
    for name in list(space.group_formats)[::5]:
        changed = replace(space.start, groups={**space.start.groups, name: "u6"})
        found = run_choice(space, changed, accelerator)
        assert table.predict(changed, space)[CYCLES] == pytest.approx(found.result.cycles_total, abs=1e-6)


@pytest.mark.parametrize("arch", ["m2vit", "bitfusion_edge"])
def test_entries_are_close_to_the_simulation_of_one_change(
    arch: str, tables: dict[str, tuple[OptionSpace, CostTable]]
) -> None:
    """An entry leaves out what its change does beyond half the way to the next changed op; that is little."""
    space, table = tables[arch]
    accelerator = load_accelerator(arch)
    off = []
    for one in space.ops[::3]:
        for option in range(1, len(one.counts), 2):
            changed = replace(space.start, options={**space.start.options, one.op: option})
            report = run_choice(space, changed, accelerator)
            predicted = table.predict(changed, space)
            energy = predicted[ENERGY] + table.static_pj_per_cycle * predicted[CYCLES]
            assert energy == pytest.approx(report.prices.arithmetic.energy_pj, rel=0.01)
            off.append(abs(predicted[CYCLES] / report.result.cycles_total - 1))
    assert max(off) < 0.05
    assert np.median(off) < 0.005


def test_a_table_has_the_same_bytes_again(tables: dict[str, tuple[OptionSpace, CostTable]]) -> None:
    space, table = tables["m2vit"]
    again = cost_table(space_on("m2vit"), load_accelerator("m2vit"))
    first, second = (json.dumps(one.to_json(space)) for one in (table, again))
    assert first == second
    assert set(table.to_json(space)["context"]["filters"]) == {one.op for one in space.ops}


def test_a_stronger_accelerator_has_another_fingerprint(tables: dict[str, tuple[OptionSpace, CostTable]]) -> None:
    space, table = tables["m2vit"]
    fast = load_accelerator("m2vit")
    fast = fast.replace(dram=fast.dram.faster(2))
    other = cost_table(space, fast)
    assert other.to_json(space)["fingerprint"] != table.to_json(space)["fingerprint"]


def test_chosen_variables_and_choices_are_the_same_thing(tables: dict[str, tuple[OptionSpace, CostTable]]) -> None:
    """The arrays that solvers see predict what the table predicts."""
    space, table = tables["bitfusion_edge"]
    pricing = priced(space, table)
    for limit in (0.0, 0.01, 0.1, 1.0):
        solution = minimise(pricing.problem, "edp", Limits(penalty=limit), "fast")
        chosen = pricing.selection(solution.chosen)
        assert pricing.problem.is_complete(solution.chosen)
        assert solution.totals["penalty"] == pytest.approx(space.penalty(chosen), abs=1e-12)
        predicted = table.predict(chosen, space)
        assert solution.totals["latency_cycles"] >= predicted[CYCLES] - 1e-6
        assert solution.totals["size_bits"] > 0


def brute_force(space: OptionSpace, arch: str, limit: float) -> float:
    """Least simulated EDP over choices that differ from the base in two ops."""
    accelerator = load_accelerator(arch)
    best = np.inf
    ops = space.ops[:2]
    for a in range(len(ops[0].counts)):
        for b in range(len(ops[1].counts)):
            chosen = replace(space.start, options={**space.start.options, ops[0].op: a, ops[1].op: b})
            if space.penalty(chosen) <= limit:
                report = run_choice(space, chosen, accelerator)
                best = min(best, report.result.cycles_total * report.prices.arithmetic.energy_pj)
    return float(best)


@pytest.mark.parametrize("limit", [0.0, 0.02, 0.3])
def test_the_loop_keeps_its_limit_and_is_better_than_the_base(limit: float) -> None:
    space, accelerator = space_on("m2vit"), load_accelerator("m2vit")
    found = allocate(space, accelerator, Limits(penalty=limit), LoopSettings(rounds=3, tries=8))
    assert found.penalty <= limit + 1e-9
    base = run_choice(space, space.start, accelerator)
    assert found.value("edp") <= base.result.cycles_total * base.prices.arithmetic.energy_pj
    assert found.value("edp") <= brute_force(space, "m2vit", limit) * (1 + 1e-9)
    again = allocate(space, accelerator, Limits(penalty=limit), LoopSettings(rounds=3, tries=8))
    assert again.selection == found.selection


def test_more_loss_never_costs_more() -> None:
    """Of the first round's table: its optimum is monotone in the limit."""
    space, accelerator = space_on("m2vit"), load_accelerator("m2vit")
    pricing = priced(space, cost_table(space, accelerator))
    values = [minimise(pricing.problem, "edp", Limits(penalty=limit), "exact").value for limit in (0, 0.01, 0.1, 1)]
    assert all(a >= b * (1 - 1e-4) for a, b in pairwise(values))


def test_a_limit_of_latency_holds_for_the_simulated_design() -> None:
    space, accelerator = space_on("m2vit"), load_accelerator("m2vit")
    base = run_choice(space, space.start, accelerator).result.cycles_total
    limit = 0.97 * base
    found = allocate(
        space, accelerator, Limits(penalty=1.0, latency_cycles=limit), LoopSettings("energy_pj", rounds=4, tries=8)
    )
    assert found.report.result.cycles_total <= limit


def test_a_choice_that_cannot_run_ends_the_loop_with_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option can run alone, but not always all of a choice together."""
    space, accelerator = space_on("m2vit"), load_accelerator("m2vit")
    settings = LoopSettings(rounds=4, tries=0)
    calls = []

    def refusing(*arguments: Any) -> Report:
        calls.append(arguments)
        if len(calls) == failing:
            raise InfeasibleError(Problem("buffer", "is too small"))
        return run_choice(*arguments)

    monkeypatch.setattr("codesign.allocate.feedback.run_choice", refusing)
    # The choices of one format come first, then that of the first table.
    uniform = sum(space.penalty(one) <= 0.3 for one in space.uniform)
    failing = uniform + 2
    found = allocate(space, accelerator, Limits(penalty=0.3), settings)
    assert len(calls) == failing
    assert len(found.rounds) == 1
    assert not found.stable
    calls.clear()
    failing = uniform + 1
    found = allocate(space, accelerator, Limits(penalty=0.3), settings)
    assert found.rounds == ()
    assert found.selection in space.uniform


def test_an_impossible_limit_is_refused_with_numbers() -> None:
    space, accelerator = space_on("m2vit"), load_accelerator("m2vit")
    with pytest.raises(InfeasibleError) as caught:
        allocate(space, accelerator, Limits(latency_cycles=10.0), LoopSettings(rounds=2, tries=2))
    assert "latency_cycles" in str(caught.value)


def test_the_reverse_problem_keeps_its_limit_and_loses_no_more_than_one_format_that_meets_it() -> None:
    space, accelerator = space_on("m2vit"), load_accelerator("m2vit")
    one = space.uniform[FORMATS.index("u4")]
    report = run_choice(space, one, accelerator)
    limit = report.result.cycles_total * report.prices.arithmetic.energy_pj
    reverse = allocate(space, accelerator, Limits(edp=limit), LoopSettings("penalty", rounds=4))
    assert reverse.value("edp") <= limit
    assert reverse.penalty <= space.penalty(one)


@pytest.mark.parametrize("name", ["u4", "apot8"])
def test_the_loop_is_no_worse_than_one_format_everywhere(name: str) -> None:
    space, accelerator = space_on("m2vit"), load_accelerator("m2vit")
    one = space.uniform[FORMATS.index(name)]
    report = run_choice(space, one, accelerator)
    found = allocate(space, accelerator, Limits(penalty=space.penalty(one)), LoopSettings(rounds=1, tries=0))
    assert found.value("edp") <= report.result.cycles_total * report.prices.arithmetic.energy_pj


def test_a_network_of_few_layers_has_a_table() -> None:
    """Fewer layers than ops that lie between two that change in one simulation."""
    whole = space_on("m2vit")
    few = replace(whole, ops=whole.ops[:2])
    table = cost_table(few, load_accelerator("m2vit"))
    assert {op for op, _ in table.options} == {one.op for one in whole.ops[:2]}
    assert cost_table(replace(whole, ops=()), load_accelerator("m2vit")).options == {}
