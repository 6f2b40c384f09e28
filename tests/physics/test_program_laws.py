"""Laws of whole programs on random designs: hazards, capacity, conservation, bounds, agreement with the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from accelsim.arch import Accelerator
from accelsim.bounds import design_bound, program_bound_ticks
from accelsim.config import load_accelerator, load_plan
from accelsim.counts import ENGINE_COUNTS, MAX_MODES, count_columns
from accelsim.kernels.mapper import C_FIRST, C_HALO
from accelsim.lowering import Lowered
from accelsim.mappers.heuristic import map_and_lower
from accelsim.optable import T_BITS, T_FIRST, T_LAST, EngineTable, OpTable, op_table
from accelsim.problems import InfeasibleError
from accelsim.program import CAUSES, REGION_BITS, REGION_BUFFER, REGION_OFFSET, RUN_BITS, RUNS, Row
from accelsim.reference import simulate_by_stepping
from accelsim.result import run_program
from accelsim.workloads.registry import build_workload
from tests.support.designs import accelerators
from tests.support.halos import lower_with_halos

SLOW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
CASES = [("efficientvit_b0", 64), ("efficientvit_b1", 96), ("deit_tiny", 64)]
PLANS = ["uniform8", "w4a8", "uniform4", "m2q", "m2q:0.25"]


def table_of(case: int, plan: str) -> OpTable:
    model, resolution = CASES[case]
    return op_table(build_workload(model, resolution), load_plan(plan))


def lowered_or_skip(
    table: OpTable, accelerator: Accelerator, fuse: bool = True
) -> tuple[np.ndarray, Lowered, EngineTable]:
    problems = ()
    try:
        arrays, engines, lowered = map_and_lower(table, accelerator, fuse)
    except InfeasibleError as error:
        problems = error.problems
    # An infeasibility names levers, and its numbers say that something is missing.
    assert all(p.levers and (p.gap is None or p.gap > 0) for p in problems)
    assume(not problems)
    return arrays.chains, lowered, engines


def assert_no_hazard(lowered: Lowered, accelerator: Accelerator, chains: np.ndarray) -> None:
    """Every row reads what it means to read, and all regions lie inside their buffer.

    A region holds the tile of the iteration in which it was opened last.  In a chain, op k reads the tile that op j
    wrote k − j iterations before, or that the DMA loaded one iteration before; a store reads the iteration before.
    The first op of a chain that keeps its halo reads the tile before that one as well.
    Weight generations of an op are read in the order of their loads, none skipped.
    """
    program = lowered.program
    regions = program.regions
    capacity = [accelerator.activation_buffer.capacity_bits, accelerator.weight_buffer.capacity_bits]
    ends = regions[:, REGION_OFFSET] + regions[:, REGION_BITS]
    assert (regions[:, REGION_OFFSET] >= 0).all()
    assert (ends <= np.array(capacity)[regions[:, REGION_BUFFER]]).all()
    chain_of = np.repeat(np.arange(len(chains)), chains[:, 1])
    keeps = set(chains[chains[:, C_HALO] == 1, C_FIRST].tolist())
    dram = len(program.units) - 1
    content: list[Row | None] = [None] * len(regions)
    loads_of = [0] * len(program.op_names)
    load_number = [0] * len(regions)
    reading = [0] * len(program.op_names)
    opened = np.zeros(len(regions), np.int64)
    for row in program.expand(2):
        behind: list[int] = []
        for region in row.reads:
            writer = content[region]
            assert writer is not None, f"{program.op_names[row.op]} reads region {region} whose content is gone"
            if regions[region, REGION_BUFFER] == 1:
                assert writer.op == row.op
                assert 0 <= load_number[region] - reading[row.op] <= 1
                reading[row.op] = load_number[region]
            elif writer.unit == dram or row.unit == dram:
                assert writer.op == row.op
                behind.append(row.iteration - writer.iteration)
            elif chain_of[writer.op] == chain_of[row.op]:
                assert row.iteration - writer.iteration == row.op - writer.op
        if row.op in keeps and row.unit != dram:
            assert behind == ([1] if row.iteration == 1 else [1, 2])
        else:
            assert set(behind) <= {1}
        if row.write >= 0 and row.opens:
            mine = regions[row.write]
            clash = (
                (regions[:, REGION_BUFFER] == mine[REGION_BUFFER])
                & (regions[:, REGION_OFFSET] < ends[row.write])
                & (ends > mine[REGION_OFFSET])
            )
            for other in np.flatnonzero(clash):
                content[other] = None
            content[row.write] = row
            opened[row.write] += 1
            if mine[REGION_BUFFER] == 1:
                loads_of[row.op] += 1
                load_number[row.write] = loads_of[row.op]
        elif row.write >= 0:
            assert content[row.write] is not None
    assert reading == loads_of
    # Every region is opened, and one that outlives its chain once an image: all tiles go into one generation.
    assert (opened >= 2).all()
    assert (opened[lowered.region_life[:, 1] > lowered.region_life[:, 0]] == 2).all()


@given(accelerators(), st.integers(0, 2), st.sampled_from(PLANS), st.booleans())
@SLOW
def test_random_designs_obey_the_laws(accelerator: Accelerator, case: int, plan: str, fuse: bool) -> None:
    table = table_of(case, plan)
    chains, lowered, engines = lowered_or_skip(table, accelerator, fuse)
    assert_laws(table, accelerator, chains, lowered, engines)


@given(accelerators(), st.integers(0, 2), st.sampled_from(PLANS), st.booleans())
@SLOW
def test_random_designs_that_keep_halos_obey_the_laws(
    accelerator: Accelerator, case: int, plan: str, fuse: bool
) -> None:
    table = table_of(case, plan)
    try:
        arrays, engines, _ = map_and_lower(table, accelerator, fuse)
    except InfeasibleError:
        assume(False)
        return
    chains, roomy, lowered = lower_with_halos(table, engines, accelerator, arrays)
    assume(chains[:, C_HALO].any())
    assert_laws(table, roomy, chains, lowered, engines)


def assert_laws(
    table: OpTable, accelerator: Accelerator, chains: np.ndarray, lowered: Lowered, engines: EngineTable
) -> None:
    """No hazard, conservation of time, MACs and bits moved, both bounds."""
    assert_no_hazard(lowered, accelerator, chains)
    result = run_program(lowered)
    total = result.total_ticks
    assert (result.unit_busy_ticks + result.unit_wait_ticks.sum(axis=1) + result.unit_drained_ticks == total).all()
    assert result.op_own_ticks.sum() == total
    assert total >= program_bound_ticks(lowered.program)
    assert result.cycles_total >= design_bound(table, engines, accelerator).cycles
    columns = list(count_columns(accelerator))
    products = [
        columns.index(f"{engine.name}.{ENGINE_COUNTS[mode]}")
        for engine in accelerator.engines
        for mode in range(MAX_MODES)
    ]
    macs = [item.op.macs for item in table.quantized.ops]
    assert result.counts[:, products].sum(axis=1).tolist() == macs
    # What the rows move is what the counts say, whole bursts of it.
    burst = accelerator.dram.burst_bits
    moved = 0
    for first, rows, count, _ in lowered.program.phases.tolist():
        body = lowered.program.templates[first : first + rows]
        moved += count * int((body[:, RUNS] * -(-body[:, RUN_BITS] // burst)).sum()) * burst
    reads, writes = columns.index("dram_read_bits"), columns.index("dram_write_bits")
    assert moved == result.counts[:, [reads, writes]].sum()


@given(accelerators(), st.integers(0, 2), st.sampled_from(PLANS))
@SLOW
def test_an_output_stage_takes_results_in_order(accelerator: Accelerator, case: int, plan: str) -> None:
    """A tile's first result comes when the engine's previous tile has left its output stage, and not a tick before."""
    _, lowered, _ = lowered_or_skip(table_of(case, plan), accelerator)
    times = run_program(lowered, record=True).rows
    before: dict[int, int] = {}
    for row, (start, _, finish, cause, blocker, _) in zip(lowered.program.expand(), times.tolist(), strict=True):
        if row.lead_ticks > 0:
            assert start + row.lead_ticks >= before.get(row.unit, 0)
            assert finish > before.get(row.unit, 0)
            if cause == CAUSES.index("output"):
                assert start + row.lead_ticks == before[row.unit] == times[blocker, 2]
            before[row.unit] = finish


@given(accelerators(), st.integers(0, 2), st.sampled_from(PLANS))
@SLOW
def test_dram_writes_are_the_output_and_the_spilled_tensors(accelerator: Accelerator, case: int, plan: str) -> None:
    table = table_of(case, plan)
    try:
        arrays, _, lowered = map_and_lower(table, accelerator)
    except InfeasibleError:
        assume(False)
        return
    stored = 0
    chain_of = np.repeat(np.arange(len(arrays.chains)), arrays.chains[:, 1])
    for t, tensor in enumerate(table.tensors):
        internal = chain_of[tensor[T_FIRST]] == chain_of[tensor[T_LAST]] and not tensor[5]
        if not arrays.resident[t] and not tensor[4] and not internal:
            stored += int(tensor[T_BITS])
    payload = 0
    for row in lowered.program.expand():
        if row.unit == len(lowered.program.units) - 1 and row.write < 0:
            payload += row.run_bits * row.runs
    assert stored <= payload <= stored * 1.02 + 4096 * len(arrays.chains)


def test_lowered_program_equals_the_oracle() -> None:
    from accelsim.arch import Buffer, Dram

    base = load_accelerator("m2vit")
    buffers = {"activation_buffer": Buffer(12 * 8192), "weight_buffer": Buffer(24 * 8192)}
    # 2 and 2/3 cycles a burst.
    for plan, images, bandwidth in (("uniform8", 2, 51_200_000_000), ("m2q", 1, 153_600_000_000)):
        small = base.replace(dram=Dram(bandwidth, 512, 3e-8), **buffers)
        table = op_table(build_workload("efficientvit_b0", 64), load_plan(plan))
        _, _, lowered = map_and_lower(table, small)
        rows = run_program(lowered, images, record=True).rows
        oracle = simulate_by_stepping(lowered.program, images)
        assert rows[:, :3].tolist() == [[row.start, row.free, row.finish] for row in oracle]


@given(accelerators(shift=False), st.sampled_from([2, 3]))
@SLOW
def test_faster_dram_never_slows_a_fixed_program(accelerator: Accelerator, factor: int) -> None:
    from dataclasses import replace

    table = table_of(0, "uniform8")
    _, lowered, _ = lowered_or_skip(table, accelerator)
    before = run_program(lowered).total_ticks
    bus = len(lowered.program.units) - 1
    templates = lowered.program.templates.copy()
    transfers = templates[:, 0] == bus
    latency = templates[transfers, 3] - templates[transfers, 2]
    templates[transfers, 2] = -(-templates[transfers, 2] // factor)
    templates[transfers, 3] = templates[transfers, 2] + latency
    faster = replace(lowered, program=replace(lowered.program, templates=templates))
    assert run_program(faster).total_ticks <= before


@pytest.mark.parametrize("model", ["efficientvit_b1", "deit_small"])
def test_w8_on_a_heterogeneous_design_equals_the_multiplier_alone(model: str) -> None:
    both = load_accelerator("m2vit")
    alone = both.replace(engines=both.engines[:1])
    table = op_table(build_workload(model), load_plan("uniform8"))
    cycles = [run_program(map_and_lower(table, design)[2]).cycles_total for design in (both, alone)]
    assert cycles[0] == cycles[1]


def test_infeasible_says_what_is_missing() -> None:
    from accelsim.arch import Buffer

    tiny = load_accelerator("trio_vit").replace(activation_buffer=Buffer(8192, 8192))
    with pytest.raises(InfeasibleError) as caught:
        map_and_lower(op_table(build_workload("efficientvit_b1"), load_plan("uniform8")), tiny)
    problem = caught.value.problems[0]
    assert problem.gap is not None
    assert problem.gap > 0
    # The lever is true: with exactly the bits it asks for, this chain no longer fails first.
    enough = tiny.replace(activation_buffer=Buffer(problem.demand or 0, 8192))
    later = ""
    try:
        map_and_lower(op_table(build_workload("efficientvit_b1"), load_plan("uniform8")), enough)
    except InfeasibleError as error:
        later = error.problems[0].where
    assert later != problem.where
