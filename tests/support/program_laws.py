"""Laws that every program must obey: hazards, capacity, conservation, bounds; networks and plans to lower."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, assume, settings

from accelsim.arch import Accelerator
from accelsim.bounds import design_bound, program_bound_ticks
from accelsim.config import load_plan
from accelsim.counts import ENGINE_COUNTS, MAX_MODES, count_columns
from accelsim.kernels.mapper import C_FIRST, C_HALO
from accelsim.lowering import Lowered
from accelsim.mappers.heuristic import map_and_lower
from accelsim.optable import EngineTable, OpTable, op_table
from accelsim.problems import InfeasibleError
from accelsim.program import REGION_BITS, REGION_BUFFER, REGION_OFFSET, RUN_BITS, RUNS, Row
from accelsim.result import run_program
from accelsim.workloads.registry import build_workload

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
