"""Bounds of spaces with every kind of option: no simulated design of a random choice is below them."""

from __future__ import annotations

import numpy as np
import pytest

from accelsim.api import simulate
from accelsim.optable import op_table
from accelsim.problems import InfeasibleError
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
