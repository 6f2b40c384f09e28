"""Lower bounds: of a program whatever the timing between its rows, and of a design whatever the mapping."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from accelsim.arch import Accelerator
from accelsim.bound_compute import work_cycles
from accelsim.bound_cut import cut_facts, walk
from accelsim.bound_graph import graph_of
from accelsim.bound_tiles import row_times
from accelsim.optable import EngineTable, OpTable
from accelsim.program import Program
from accelsim.token_bound import least_design

# Sums of fractions of cycles are off by less; a simulated time is whole, so this is added before rounding down.
_ROUNDING_CYCLES = 1e-6


@dataclass(frozen=True)
class DesignBound:
    """No mapping of this workload and plan on this accelerator is faster than the largest of these, in cycles.

    `compute_cycles`: work shared perfectly among compatible engines, with the rounding to lanes, pixel groups and ports
    that no tile avoids.  `vector_cycles`: the vector unit, each op in one tile.  `traffic_cycles`: all weights, the
    input rows that are read and the output cross the bus once, without latency or burst rounding.  `spill_cycles`: this
    and the tensors that no mapping keeps on chip, out and back.  `cut_cycles`: ops that must be done before, bits that
    must cross between, ops that must wait.  docs/decisions/0009-design-bound.md has the proofs.
    """

    compute_cycles: int
    vector_cycles: int
    traffic_cycles: int
    spill_cycles: int
    cut_cycles: int

    @property
    def cycles(self) -> int:
        """The largest bound."""
        return max(self.compute_cycles, self.vector_cycles, self.spill_cycles, self.cut_cycles)


def design_bound(table: OpTable, engines: EngineTable, accelerator: Accelerator) -> DesignBound:
    """Bound of any mapping, one image (DESIGN §6); with token groups that of all tokens narrow, whatever the counts."""
    table, engines = least_design(table, engines, accelerator)
    work = work_cycles(table, engines, accelerator)
    whole = work.sum(axis=0)
    graph = graph_of(table)
    once = int((graph.weights_bits + graph.input_bits + graph.output_bits).sum())
    clock, bandwidth = accelerator.clock_hz, accelerator.dram.bandwidth_bits_per_s
    facts = cut_facts(table, accelerator)
    times = row_times(table, engines, accelerator)
    walked = walk(facts, work, times, graph.weights_bits, facts.least_between)
    return DesignBound(
        int(whole[:-1].max(initial=0) + _ROUNDING_CYCLES),
        int(whole[-1]),
        once * clock // bandwidth,
        (once + facts.spills.bits) * clock // bandwidth,
        int(walked.cycles + _ROUNDING_CYCLES),
    )


def program_bound_ticks(program: Program) -> int:
    """No schedule of these rows is shorter: the busiest unit, or the longest path of reads and dependencies."""
    usable: dict[int, int] = {}
    finishes: list[int] = []
    busy = np.zeros(len(program.units), np.int64)
    longest = 0
    for row in program.expand():
        start = max((usable[region] for region in row.reads), default=0)
        start = max([start, *(finishes[dep] for dep in row.deps)])
        finish = start + row.latency_ticks
        finishes.append(finish)
        if row.write >= 0:
            usable[row.write] = finish if row.opens else max(usable[row.write], finish)
        busy[row.unit] += row.occupancy_ticks
        longest = max(longest, finish)
    return max(longest, int(busy.max()))
