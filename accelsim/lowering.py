"""Lowering: a mapping becomes a Program and its counts.  The work is done by `kernels/lower.py`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from accelsim.arch import Accelerator
from accelsim.counts import count_columns
from accelsim.dram import slowdown
from accelsim.head_checks import check_heads
from accelsim.kernels.alloc import assign_offsets, longest_ticks, overlap_lists
from accelsim.kernels.lower import lower_program
from accelsim.kernels.segments import N_SEGMENT
from accelsim.kernels.tables import (
    CURSOR,
    N_PHASES,
    N_REGIONS,
    N_RING,
    N_TEMPLATES,
    OVERFLOW,
    OVERFLOW_READS,
    OVERFLOW_SPACE,
    Output,
    Tables,
)  # fmt: skip
from accelsim.mapping import MappingArrays
from accelsim.optable import EngineTable, OpTable
from accelsim.problems import AccelsimError, InfeasibleError, Problem
from accelsim.program import N_COLUMNS, REGION_BITS, REGION_BUFFER, REGION_OFFSET, Int64, Program
from accelsim.segment_table import segment_table
from accelsim.token_checks import check_forms

PREFETCH_CHAINS = 4
# How often regions are placed anew, those first that stuck out of the buffer.
PLACEMENTS = 24
# Room for templates at first; it grows when that is too little.
TEMPLATES_PER_OP = 64
# Total time must stay far below 2^63 ticks, also for a batch.
MAX_TICKS = 1 << 58
MAX_IMAGES = 1_000_000
MAX_RECORDED_ROWS = 5_000_000


@dataclass(frozen=True, eq=False)
class Lowered:
    """A program, its counts by op (columns of `count_columns`), the life of its regions in chains, the DRAM addresses
    of the tensors of its OpTable.
    """

    program: Program
    counts: Int64
    region_life: Int64
    peak_activation_bits: int
    tensor_address_bits: Int64


class DoesNotFitError(InfeasibleError):
    """Fragmentation: the regions fit by sum but not by placement.  `chains` are those whose regions stick out."""

    def __init__(self, problem: Problem, chains: tuple[int, ...]) -> None:
        self.chains = chains
        super().__init__(problem)


def make_tables(table: OpTable, engines: EngineTable, accelerator: Accelerator, arrays: MappingArrays) -> Tables:
    """Bundle what the kernels read."""
    bus = accelerator.bus_ticks()
    vector = accelerator.vector
    segments = segment_table(table, engines, arrays)
    scalars = np.array(
        [
            vector.port_bits_per_cycle, vector.latency_cycles, accelerator.dram.burst_bits, bus.burst,
            bus.read_latency, bus.write_latency, bus.per_cycle, accelerator.weight_buffer.capacity_bits,
            PREFETCH_CHAINS,
        ],
        np.int64,
    )  # fmt: skip
    return Tables(
        table.ops, table.slices, table.tensors, table.vector, engines.engines, engines.modes,
        np.array(vector.throughput(), np.int64), arrays.chains, arrays.parts, arrays.n_parts, arrays.resident, scalars,
        table.groups, segments.forms, segments.form_slices, table.heads, table.head_parts, segments.rows,
        segments.spans,
    )  # fmt: skip


def lower(table: OpTable, engines: EngineTable, accelerator: Accelerator, arrays: MappingArrays) -> Lowered:
    """Program and counts of a mapping.

    Raises DoesNotFitError when the activation regions cannot be placed, InfeasibleError when weights do not fit, the
    total time could overflow int64 or an engine cannot execute a token group or a head of a part that it has.
    """
    check_forms(table, engines, accelerator, arrays)
    check_heads(table, engines, accelerator, arrays)
    tables = make_tables(table, engines, accelerator, arrays)
    size = TEMPLATES_PER_OP * len(table.op_names)
    while True:
        out = _output(table, accelerator, size, max(1, len(tables.segments)))
        lower_program(tables, out, len(arrays.chains))
        if out.cursor[OVERFLOW] == OVERFLOW_READS:
            raise AccelsimError(Problem("lowering", "a tile reads more than three regions", "ops with at most three"))
        if out.cursor[OVERFLOW] != OVERFLOW_SPACE:
            break
        size *= 4
    n_templates, n_phases, n_regions = (int(out.cursor[k]) for k in (N_TEMPLATES, N_PHASES, N_REGIONS))
    templates, phases = out.templates[:n_templates], out.phases[:n_phases]
    regions, life = out.regions[:n_regions], out.region_life[:n_regions]
    peak = _place(regions, life, accelerator)
    bus = accelerator.bus_ticks()
    timing = accelerator.dram.timing(accelerator.clock_hz)
    if longest_ticks(templates, phases) * slowdown(timing) > MAX_TICKS:
        raise InfeasibleError(
            Problem(accelerator.name, "the program takes longer than time can count", "less than 2^58 ticks",
                    ("a rounder ratio of clock to bandwidth", "a smaller network"))
        )  # fmt: skip
    before_start, before, wrap_start, wrap = overlap_lists(regions, np.arange(n_regions))
    program = Program(
        units=(*(engine.name for engine in accelerator.engines), "vector", "dram"),
        op_names=table.op_names,
        ticks_per_cycle=bus.per_cycle,
        templates=templates,
        phases=phases,
        regions=regions,
        before_start=before_start,
        before=before,
        wrap_start=wrap_start,
        wrap=wrap,
        dram=timing,
    )
    return Lowered(program, out.counts, life, peak, out.dram_base)


def check_batch(program: Program, images: int, record: bool = False) -> None:
    """Refuse a batch whose time could leave int64, or whose record of rows would not fit in memory.

    Raises InfeasibleError with the largest batch that is accepted.
    """
    if images == 1 and not record:
        return  # lowering has checked one image
    ticks = longest_ticks(program.templates, program.phases) * slowdown(program.dram)
    limit = min(MAX_IMAGES, int(MAX_TICKS / max(1.0, ticks)))
    if record:
        limit = min(limit, max(1, MAX_RECORDED_ROWS // max(1, program.n_rows)))
    if images > limit:
        what = f"a batch of {images} images" + (" with every row recorded" if record else "")
        raise InfeasibleError(Problem("batch", what, f"at most {limit}", ("a smaller batch",)))


def _output(table: OpTable, accelerator: Accelerator, size: int, segments: int) -> Output:
    n = len(table.op_names)
    return Output(
        templates=np.empty((size, N_COLUMNS), np.int64),
        phases=np.empty((size, 4), np.int64),
        regions=np.empty((size, 3), np.int64),
        region_life=np.empty((size, 2), np.int64),
        counts=np.zeros((n, len(count_columns(accelerator))), np.int64),
        cursor=np.zeros(len(CURSOR), np.int64),
        tensor_region=np.full(len(table.tensor_names), -1, np.int64),
        ring=np.zeros((n, N_RING), np.int64),
        dram_base=np.zeros(len(table.tensor_names), np.int64),
        segments=np.zeros((segments, N_SEGMENT), np.int64),
    )


def _offsets(bits: Int64, first: Int64, last: Int64, capacity_bits: int) -> tuple[int, Int64]:
    """(highest address used, offsets) of regions with known lives, largest first, as that wastes least.

    While regions stick out of the buffer, they are placed before all others next time.
    """
    order = np.argsort(-bits, kind="stable")
    for _ in range(PLACEMENTS):
        offsets = np.zeros(len(bits), np.int64)
        peak = int(assign_offsets(bits, first, last, order, offsets))
        if peak <= capacity_bits:
            break
        outside = (offsets + bits > capacity_bits)[order]
        order = np.concatenate([order[outside], order[~outside]])
    return peak, offsets


def _place(regions: Int64, life: Int64, accelerator: Accelerator) -> int:
    """Give activation regions their offsets; returns the highest address used."""
    own = np.flatnonzero(regions[:, REGION_BUFFER] == 0)
    bits = np.ascontiguousarray(regions[own, REGION_BITS])
    first, last = np.ascontiguousarray(life[own, 0]), np.ascontiguousarray(life[own, 1])
    capacity = accelerator.activation_buffer.capacity_bits
    peak, offsets = _offsets(bits, first, last, capacity)
    regions[own, REGION_OFFSET] = offsets
    weights = regions[regions[:, REGION_BUFFER] == 1]
    top = int((weights[:, REGION_OFFSET] + weights[:, REGION_BITS]).max(initial=0))
    if top > accelerator.weight_buffer.capacity_bits:
        raise InfeasibleError(
            Problem(f"weight buffer of {accelerator.name}", "weights of a chain do not fit", demand=top,
                    bound=accelerator.weight_buffer.capacity_bits, unit="bits",
                    levers=("a larger weight_buffer.capacity_bits", "more weight blocks or shorter chains"))
        )  # fmt: skip
    if peak > capacity:
        outside = own[offsets + bits > capacity]
        chains = tuple(int(c) for c in np.unique(life[outside]))
        problem = Problem(
            f"activation buffer of {accelerator.name}", "regions cannot be placed", demand=peak, bound=capacity,
            unit="bits", levers=("a larger activation_buffer.capacity_bits", "fewer resident tensors", "smaller tiles"),
        )  # fmt: skip
        raise DoesNotFitError(problem, chains)
    return peak
