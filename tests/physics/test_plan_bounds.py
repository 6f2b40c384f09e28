"""Plan bounds: below every simulated plan and mapping, equal to the design bound for one plan, monotone."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from itertools import pairwise, product
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from accelsim.api import Report, simulate
from accelsim.arch import Accelerator
from accelsim.bound_compute import work_cycles
from accelsim.bound_cut import cut_facts, longest_way, walk
from accelsim.bound_energy import ARRAY, COMPONENTS, VECTOR, least_energies_pj
from accelsim.bound_tiles import most_vector_cycles, row_times
from accelsim.bounds import design_bound
from accelsim.config import load_accelerator, load_plan
from accelsim.counts import ENGINE_COUNTS
from accelsim.energy import price_per_op, unit_energies
from accelsim.ir import VECTOR_KINDS
from accelsim.optable import engine_table, op_table
from accelsim.problems import AccelsimError, InfeasibleError
from accelsim.workloads.builder import WorkloadBuilder
from accelsim.workloads.registry import build_workload
from codesign.allocate.bound_cells import StaticEnergy, least_edp
from codesign.allocate.bounds import PlanBounds, plan_bounds, plan_bounds_of
from codesign.allocate.options import OptionSettings, OptionSpace, Selection, option_space
from tests.fuzz.networks import random_workload
from tests.support.designs import accelerators
from tests.support.penalty_fakes import fake_penalties
from tests.support.program_laws import PLANS, SLOW, table_of

ROUNDING = 1e-9


def components_pj(report: Report) -> np.ndarray:
    """Simulated dynamic energy of every op by component."""
    memory = len(COMPONENTS) - 2  # one count column each, behind those of the engines and of the vector unit
    place = np.array([ARRAY] * (len(ENGINE_COUNTS) * len(report.accelerator.engines)) + [VECTOR] * len(VECTOR_KINDS))
    place = np.append(place, np.arange(memory) + 2)
    energy = report.result.counts * unit_energies(report.accelerator)
    return np.stack([energy[:, place == k].sum(axis=1) for k in range(len(COMPONENTS))], axis=1)


def assert_energies_hold(report: Report) -> None:
    simulated = components_pj(report)
    assert np.allclose(simulated.sum(axis=1), price_per_op(report.result.counts, report.accelerator))
    least, _ = least_energies_pj(report.table, report.engines, report.accelerator)
    assert (least <= simulated * (1 + ROUNDING) + 1e-6).all()
    busy = report.result.busy_cycles()["vector"]
    assert busy <= most_vector_cycles(report.table, report.accelerator.vector).sum()


def assert_below(bounds: PlanBounds, report: Report) -> None:
    price = report.prices.arithmetic
    assert bounds.latency_cycles <= report.result.cycles_total * (1 + ROUNDING)
    assert bounds.energy_pj <= price.energy_pj * (1 + ROUNDING)
    assert bounds.edp_pj_s <= price.edp_pj_s * (1 + ROUNDING)


@given(accelerators(), st.integers(0, 10**9), st.sampled_from(PLANS), st.booleans())
@SLOW
def test_no_simulated_op_takes_less_energy(accelerator: Accelerator, seed: int, plan: str, fuse: bool) -> None:
    try:
        table = op_table(random_workload(Random(seed)), load_plan(plan))
        report = simulate(table, accelerator, fuse=fuse)
    except AccelsimError:  # no network, or no mapping of it
        assume(False)
        return
    assert_energies_hold(report)
    assert_below(plan_bounds_of(table, accelerator), report)


@pytest.mark.parametrize("arch", ["m2vit", "trio_vit", "tiny", "bitfusion_edge", "systolic_ws", "systolic_is"])
@pytest.mark.parametrize("plan", ["uniform8", "m2q", "w4a8"])
def test_energies_of_presets_are_close(arch: str, plan: str) -> None:
    """Below the simulation, and on a network that fits the buffers not by much: nothing is left out."""
    try:
        report = simulate(
            op_table(build_workload("glyph_hybrid_narrow", None), load_plan(plan)), load_accelerator(arch),
            mapper="exhaustive:energy",
        )  # fmt: skip
    except InfeasibleError:
        pytest.skip("the plan does not run there")
    assert_energies_hold(report)
    least, _ = least_energies_pj(report.table, report.engines, report.accelerator)
    assert components_pj(report).sum() < 1.006 * least.sum()


@given(accelerators(), st.integers(0, 2), st.sampled_from(PLANS))
@SLOW
def test_the_longest_way_is_what_the_walk_found(accelerator: Accelerator, case: int, plan: str) -> None:
    table = table_of(case, plan)
    try:
        engines = engine_table(accelerator, table)
    except InfeasibleError:
        assume(False)
        return
    work, times, facts = work_cycles(table, engines, accelerator), row_times(table, engines, accelerator), None
    facts = cut_facts(table, accelerator)
    walked = walk(facts, work, times, facts.least_weights, facts.least_between)
    way = longest_way(facts, walked, work)
    assert way.cycles(work, times, facts.least_weights, facts.cycles_per_bit) == pytest.approx(walked.cycles, rel=1e-9)


SETTINGS = OptionSettings(mixtures=2)


@lru_cache(maxsize=4)
def space_of(arch: str, network: str = "glyph_hybrid_narrow") -> tuple[OptionSpace, Accelerator]:
    workload, accelerator = build_workload(network, None), load_accelerator(arch)
    return option_space(workload, fake_penalties(workload), accelerator, SETTINGS), accelerator


def random_choice(space: OptionSpace, rng: np.random.Generator, change: float) -> Selection:
    """A choice that leaves the base with probability `change` at every op and group."""
    options = {one.op: int(rng.integers(len(one.penalty))) if rng.random() < change else 0 for one in space.ops}
    groups = {
        name: formats[int(rng.integers(len(formats)))] if rng.random() < change else formats[0]
        for name, formats in space.group_formats.items()
    }
    switches = {name: values[int(rng.integers(len(values)))] for name, values in space.switches.items()}
    return Selection(options, groups, switches)


@pytest.mark.parametrize("arch", ["m2vit", "trio_vit", "tiny", "bitfusion_edge", "systolic_ws"])
def test_no_plan_within_the_limit_beats_the_bound(arch: str) -> None:
    space, accelerator = space_of(arch)
    rng = np.random.default_rng(7)
    for change in (0.1, 1.0):
        chosen = random_choice(space, rng, change)
        bounds = plan_bounds(space, accelerator, space.penalty(chosen) * (1 + ROUNDING))
        table = op_table(space.workload, space.plan(chosen))
        for mapper in ("heuristic", "exhaustive:edp", "exhaustive:latency"):
            try:
                report = simulate(table, accelerator, mapper=mapper)
            except InfeasibleError:
                continue
            assert_below(bounds, report)
            one = plan_bounds_of(table, accelerator)
            assert_below(one, report)
            # The bound of all plans is below that of each.
            assert bounds.latency_cycles <= one.latency_cycles + 1
            assert bounds.energy_pj <= one.energy_pj * (1 + ROUNDING)
            assert bounds.edp_pj_s <= one.edp_pj_s * (1 + 1e-3)


@pytest.mark.parametrize("arch", ["bitfusion_edge", "trio_vit", "m2vit"])
def test_bounds_of_one_plan_are_those_of_the_design(arch: str) -> None:
    """Only the base plan loses nothing: the linear programs have one solution, and it is the closed form."""
    workload, accelerator = build_workload("glyph_hybrid_narrow", None), load_accelerator(arch)
    only = OptionSettings(("u8",), ("u8",), ("divide",))
    space = option_space(workload, fake_penalties(workload), accelerator, only)
    table = op_table(workload, space.plan(space.start))
    one, every = plan_bounds_of(table, accelerator), plan_bounds(space, accelerator, None)
    assert one.latency_cycles == design_bound(table, engine_table(accelerator, table), accelerator).cycles
    assert every.latency_cycles == pytest.approx(one.latency_cycles, abs=1.0)
    assert every.energy_pj == pytest.approx(one.energy_pj, rel=1e-3)
    assert every.edp_pj_s == pytest.approx(one.edp_pj_s, rel=2e-3)
    assert every.edp_pj_s <= one.edp_pj_s * (1 + 2e-3)


def small_space(arch: str) -> tuple[OptionSpace, Accelerator]:
    """Three ops of four formats: few enough plans to simulate all."""
    net = WorkloadBuilder("tiny_net", 8, 8)
    tip = net.conv("a", "pw", net.input, 24)
    tip = net.conv("b", "dw", tip, 24, kernel=3, padding=1, groups=24)
    workload = net.build(net.conv("c", "pw", tip, 16))
    settings = OptionSettings(("u8", "u4", "apot8"), ("u8", "u6"), mixtures=1)
    accelerator = load_accelerator(arch)
    return option_space(workload, fake_penalties(workload, 3), accelerator, settings), accelerator


@pytest.mark.parametrize("arch", ["m2vit", "bitfusion_edge", "trio_vit"])
def test_brute_force_over_all_plans(arch: str) -> None:
    space, accelerator = small_space(arch)
    names = [one.op for one in space.ops]
    found = []
    for picks in product(*(range(len(one.penalty)) for one in space.ops)):
        for formats in product(*space.group_formats.values()):
            chosen = Selection(
                dict(zip(names, picks, strict=True)), dict(zip(space.group_formats, formats, strict=True))
            )
            try:
                report = simulate(op_table(space.workload, space.plan(chosen)), accelerator)
            except InfeasibleError:
                continue
            found.append((space.penalty(chosen), report))
    assert len(found) > 10
    limits = np.quantile([penalty for penalty, _ in found], [0.0, 0.3, 1.0])
    for limit in limits:
        bounds = plan_bounds(space, accelerator, float(limit))
        inside = [report for penalty, report in found if penalty <= limit * (1 + ROUNDING)]
        for report in inside:
            assert_below(bounds, report)
        # Not empty words, even on a net of three ops.
        assert min(report.prices.arithmetic.edp_pj_s for report in inside) < 2.5 * bounds.edp_pj_s


def test_bounds_fall_with_the_limit_and_with_bandwidth() -> None:
    space, accelerator = space_of("bitfusion_edge")
    at = [plan_bounds(space, accelerator, limit) for limit in (0.0, 0.02, 0.3, None)]
    faster = replace(accelerator, dram=accelerator.dram.faster(2))
    fast = plan_bounds(space, faster, 0.02)
    for earlier, later in (*pairwise(at), (at[1], fast)):
        assert later.latency_cycles <= earlier.latency_cycles * (1 + ROUNDING)
        assert later.edp_pj_s <= earlier.edp_pj_s * (1 + 2e-4)
    assert all(later.energy_pj <= earlier.energy_pj * (1 + ROUNDING) for earlier, later in pairwise(at))
    assert at[-1].edp_pj_s < 0.8 * at[0].edp_pj_s


def test_an_incumbent_ends_the_search_and_caps_the_bound() -> None:
    space, accelerator = space_of("bitfusion_edge")
    free = plan_bounds(space, accelerator, 0.1)
    low = plan_bounds(space, accelerator, 0.1, free.edp_pj_s / 2)
    assert low.edp_pj_s == pytest.approx(free.edp_pj_s / 2)
    assert low.cells < free.cells
    high = plan_bounds(space, accelerator, 0.1, free.edp_pj_s * 2)
    assert high.edp_pj_s == pytest.approx(free.edp_pj_s, rel=1e-3)


def test_no_plan_within_a_negative_limit() -> None:
    space, accelerator = space_of("tiny")
    with pytest.raises(InfeasibleError, match="predicted loss"):
        plan_bounds(space, accelerator, -1.0)


def test_cells_find_the_least_product() -> None:
    """Energy 100 / latency + 10 falls with latency, static energy 2 per cycle rises: least of 100 + 10 t + 2 t²."""

    def dynamic(limit: float | None) -> tuple[float, float]:
        return (10.0, 0.0) if limit is None else (100 / limit + 10, 100 / limit**2)

    found = least_edp(3.0, 50.0, dynamic, StaticEnergy(2.0, lambda cycles: 0.0))
    assert found.value == pytest.approx(100 + 30 + 18, rel=2e-4)
    assert found.value <= 148
    assert found.cells < 30
    # Nothing falls: the open cell at the end of all others.
    flat = least_edp(3.0, 3.0, lambda limit: (10.0, 0.0), StaticEnergy(2.0, lambda cycles: 1.0))
    assert flat.value == 3 * (10 + 6 + 1)
    assert flat.high is None
