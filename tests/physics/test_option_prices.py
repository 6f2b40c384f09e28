"""Prices of methods, parts and tokens: single changes are exact, choices and variables are the same, starts count."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from accelsim.problems import InfeasibleError
from codesign.allocate.cost_table import CYCLES, ENERGY, CostTable, cost_table, run_choice
from codesign.allocate.families import FAMILIES, without
from codesign.allocate.feedback import LoopSettings, allocate
from codesign.allocate.goal import Limits
from codesign.allocate.options import OptionSpace, Selection
from codesign.allocate.pricing import priced
from codesign.allocate.solve import minimise
from tests.support.option_spaces import ALL, able, random_selection, space_of_all

CASES = [("m2vit", False), ("bitfusion_edge", True)]
SMALL = replace(ALL, weight_formats=("u8", "u4"), activation_formats=("u8", "u4", "r4"), mixtures=0)


@lru_cache(maxsize=4)
def priced_space(arch: str, ranked: bool) -> tuple[OptionSpace, CostTable]:
    space = space_of_all(arch, ranked, SMALL)
    return space, cost_table(space, able(arch))


def assert_exact(space: OptionSpace, table: CostTable, chosen: Selection, arch: str) -> None:
    predicted = table.predict(chosen, space)
    try:
        report = run_choice(space, chosen, able(arch))
    except InfeasibleError:
        assert not np.isfinite(predicted).all()
        return
    energy = predicted[ENERGY] + table.static_pj_per_cycle * predicted[CYCLES]
    assert predicted[CYCLES] == pytest.approx(report.result.cycles_total, abs=1e-6)
    assert energy == pytest.approx(report.prices.arithmetic.energy_pj, rel=1e-9)


@pytest.mark.parametrize(("arch", "ranked"), CASES)
def test_single_changes_of_groups_and_switches_are_exact(arch: str, ranked: bool) -> None:
    space, table = priced_space(arch, ranked)
    seen = 0
    for name, choices in space.group_formats.items():
        for choice in choices[1:]:
            assert_exact(space, table, replace(space.start, groups={**space.start.groups, name: choice}), arch)
            seen += 1
    for name, values in space.switches.items():
        for value in values[1:]:
            assert_exact(space, table, replace(space.start, switches={**space.start.switches, name: value}), arch)
            seen += 1
    assert seen > 20


def test_options_are_priced_once_per_stored_format_not_per_method() -> None:
    space, table = priced_space("bitfusion_edge", True)
    one = next(one for one in space.ops if one.reads and len(space.group_formats[one.reads]) == 6)
    assert [stored for op, stored in table.options if op == one.op] == ["u8", "u4"]
    data = table.to_json(space)
    assert {row["switch"] for row in data["switches"]} == set(space.switches)
    assert data["context"]["switches"] == dict(space.start.switches)


@pytest.mark.parametrize(("arch", "ranked"), CASES)
def test_chosen_variables_and_choices_are_the_same_thing(arch: str, ranked: bool) -> None:
    space, table = priced_space(arch, ranked)
    pricing = priced(space, table)
    base = space.penalty(space.start)
    for limit in (base, base + 0.01, base + 0.2):
        solution = minimise(pricing.problem, "edp", Limits(penalty=limit), "fast")
        chosen = pricing.selection(solution.chosen)
        assert set(chosen.groups) == set(space.group_formats)
        assert set(chosen.switches) == set(space.switches)
        assert solution.totals["penalty"] == pytest.approx(space.penalty(chosen), abs=1e-12)
        assert solution.totals["latency_cycles"] >= table.predict(chosen, space)[CYCLES] - 1e-6


@pytest.mark.parametrize("ranked", [False, True])
def test_all_options_are_never_worse_than_some_on_one_table(ranked: bool) -> None:
    """Of the exact solver's own problem: what the table says of a part of the options it says of all of them."""
    arch = "bitfusion_edge"
    space, table = priced_space(arch, ranked)
    limit = Limits(penalty=space.penalty(space.start) + 0.02)
    best = minimise(priced(space, table).problem, "edp", limit, "exact").value
    for family in FAMILIES:
        less = space_of_all(arch, ranked, without(SMALL, family))
        value = minimise(priced(less, _part_of(table, space, less)).problem, "edp", limit, "exact").value
        assert best <= value * (1 + 2e-4)


def _part_of(table: CostTable, space: OptionSpace, less: OptionSpace) -> CostTable:
    """The whole table's entries for what a smaller space offers."""
    options = {}
    formats = list(space.settings.weight_formats)
    columns = [formats.index(name) for name in less.settings.weight_formats]
    for one in less.ops:
        whole = space.by_op[one.op].counts[:, columns].tolist()
        rows = [whole.index(row) for row in one.counts.tolist()]
        for stored in less.reads_of(one):
            options[one.op, stored] = table.options[one.op, stored][rows]
    return replace(table, options=options)


def test_no_result_is_worse_than_a_start_within_the_limit() -> None:
    space, table = priced_space("m2vit", False)
    accelerator = able("m2vit")
    found = allocate(space, accelerator, Limits(), LoopSettings(rounds=2, tries=0), table)
    limits = Limits(penalty=found.penalty)
    poor = LoopSettings(rounds=1, tries=0)
    again = allocate(space, accelerator, limits, poor, table, starts=(found.selection,))
    assert again.value("edp") <= found.value("edp")
    # One that loses more than the limit is not even simulated.
    rng = np.random.default_rng(3)
    worst = max((random_selection(space, rng) for _ in range(5)), key=space.penalty)
    tight = Limits(penalty=space.penalty(space.start))
    with_it, alone = (allocate(space, accelerator, tight, poor, table, starts=one) for one in ((worst,), ()))
    assert with_it.simulations == alone.simulations
    assert with_it.selection == alone.selection
