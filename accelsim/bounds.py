"""Lower bounds: of a program whatever the timing between its rows, and of a design whatever the mapping."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from accelsim.arch import Accelerator
from accelsim.bound_compute import work_cycles
from accelsim.bound_graph import graph_of, spilled_bits
from accelsim.kernels.cut import walk_cuts
from accelsim.optable import EngineTable, OpTable
from accelsim.program import Program

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
    """Bound of any mapping, one image (DESIGN §6)."""
    work = work_cycles(table, engines, accelerator)
    whole = work.sum(axis=0)
    graph = graph_of(table)
    once = int((graph.weights_bits + graph.input_bits + graph.output_bits).sum())
    clock, bandwidth = accelerator.clock_hz, accelerator.dram.bandwidth_bits_per_s
    spilled = _spills(table, accelerator.activation_buffer.capacity_bits).bits
    return DesignBound(
        int(whole[:-1].max(initial=0) + _ROUNDING_CYCLES),
        int(whole[-1]),
        once * clock // bandwidth,
        (once + spilled) * clock // bandwidth,
        int(_cut_cycles(table, work, accelerator) + _ROUNDING_CYCLES),
    )


@dataclass(frozen=True, eq=False)
class _Spills:
    """Bits of tensors that no mapping keeps on chip: at least in all; of those too large for the buffer, by cut.

    `between[k, m]` cross after op k has begun and before op m has begun its last row, `until[m]` before that,
    `since[k]` after op k has begun.
    """

    bits: int
    between: np.ndarray
    until: np.ndarray
    since: np.ndarray


@lru_cache(maxsize=64)
def _spills(table: OpTable, capacity_bits: int) -> _Spills:
    graph = graph_of(table)
    follows = graph.follows
    n = len(follows)
    between, until, since = np.zeros((n, n)), np.zeros(n), np.zeros(n)
    for item in graph.crossings:
        if item.bits > capacity_bits:
            needed = np.zeros(n)
            stored = True
            for op, bits in item.loads:
                needed += follows[op] * float(bits + stored * item.bits)
                stored = False
            between += np.outer(follows[:, item.first], needed)
            until += needed
            since += follows[:, item.first] * float(item.spilled_bits)
    return _Spills(spilled_bits(graph.crossings, capacity_bits), between, until, since)


@lru_cache(maxsize=64)
def _weights_between(table: OpTable) -> np.ndarray:
    """[k, m] parameter bits of the ops that follow op k and that op m follows, both included."""
    graph = graph_of(table)
    follows = graph.follows.astype(np.float64)
    return np.asarray((follows * graph.weights_bits) @ follows, np.float64)


def _cut_cycles(table: OpTable, work: np.ndarray, accelerator: Accelerator) -> float:
    """Chain cut: what must be done before an op, what must cross the bus until it is done, what must wait for it.

    From the start nothing is on chip; when an op begins, the weight buffer may be full of what later ops need; to the
    finish the outputs must be written.
    """
    graph = graph_of(table)
    before = graph.before.astype(np.float64)
    spills = _spills(table, accelerator.activation_buffer.capacity_bits)
    held = accelerator.weight_buffer.capacity_bits
    cycles_per_bit = accelerator.clock_hz / accelerator.dram.bandwidth_bits_per_s
    bus = accelerator.bus_ticks()
    latency = bus.read_latency // bus.per_cycle
    head, tail = (before.T @ work).max(axis=1), (before @ work).max(axis=1)
    between = np.maximum(0.0, _weights_between(table) - held) + spills.between
    middle = between * cycles_per_bit + latency * (between > 0)
    until = (graph.weights_bits + graph.input_bits) @ graph.follows + spills.until
    loaded = until * cycles_per_bit + latency * (until > 0)
    begin, finish = np.zeros(len(head)), np.zeros(len(head))
    walk_cuts(graph.follows, graph.before, head, work.max(axis=1), middle, loaded, begin, finish)
    since = np.maximum(0.0, graph.follows @ graph.weights_bits - held) + graph.follows @ graph.output_bits
    to_finish = begin + (since + spills.since) * cycles_per_bit
    return float(max((finish + tail).max(initial=0.0), to_finish.max(initial=0.0)))


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
