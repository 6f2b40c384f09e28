"""Bounds of spaces with every kind of option: no simulated design of a random choice is below them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from accelsim.api import simulate
from accelsim.energy import price_per_op
from accelsim.optable import op_table
from accelsim.problems import InfeasibleError
from codesign.allocate.bound_facts import op_facts
from codesign.allocate.bounds import plan_bounds, plan_bounds_of
from tests.support.option_spaces import able, random_selection, space_of_all

ROUNDING = 1e-9
CASES = [(arch, ranked) for arch in ("m2vit", "bitfusion_edge") for ranked in (False, True)]


@pytest.mark.parametrize(("arch", "ranked"), CASES)
def test_no_design_of_a_random_choice_is_below_the_bound(arch: str, ranked: bool) -> None:
    space, accelerator = space_of_all(arch, ranked), able(arch)
    rng = np.random.default_rng(11)
    bounds = {limit: plan_bounds(space, accelerator, limit) for limit in (None, 0.3)[: 1 + (arch != "m2vit")]}
    seen = 0
    for change in (0.15, 0.15, 0.5, 0.5, *(1.0,) * 8):
        chosen = random_selection(space, rng, change)
        try:
            table = op_table(space.workload, space.plan(chosen))
            report = simulate(table, accelerator)
        except InfeasibleError:
            continue
        seen += 1
        one = plan_bounds_of(table, accelerator)
        every = [found for limit, found in bounds.items() if limit is None or space.penalty(chosen) <= limit]
        price = report.prices.arithmetic
        for found in (*every, one):
            assert found.latency_cycles <= report.result.cycles_total * (1 + ROUNDING)
            assert found.energy_pj <= price.energy_pj * (1 + ROUNDING)
            assert found.edp_pj_s <= price.edp_pj_s * (1 + ROUNDING)
        for found in every:
            assert found.latency_cycles <= one.latency_cycles + 1
            assert found.energy_pj <= one.energy_pj * (1 + ROUNDING)
    assert seen >= 6


@pytest.mark.parametrize(("arch", "ranked"), CASES)
def test_least_energies_of_ops_know_of_narrow_tokens_and_parts(arch: str, ranked: bool) -> None:
    """As many narrow tokens and parts as there can be, everything else as in the base, op by op."""
    space, accelerator = space_of_all(arch, ranked), able(arch)
    groups = dict(space.start.groups)
    groups |= {name: choices[-1] for name, choices in space.group_formats.items() if "/" in choices[-1]}
    chosen = replace(space.start, groups=groups, switches={name: v[-1] for name, v in space.switches.items()})
    assert chosen != space.start
    table = op_table(space.workload, space.plan(chosen))
    report, facts = simulate(table, accelerator), op_facts(table, accelerator)
    simulated = price_per_op(report.result.counts, accelerator)
    assert (facts.own_pj + facts.second_pj + facts.written_pj <= simulated * (1 + ROUNDING) + 1e-6).all()
