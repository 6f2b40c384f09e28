"""Chain cut: the longest way through work that must be done, bits that must cross the bus and ops that must wait.

`walk` finds how long it is for one plan; `longest_way` says which work, weights and waits it is made of: a linear form
that bounds every other plan of the same workload, too.  The proofs are in docs/decisions/0009-design-bound.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from accelsim.arch import Accelerator
from accelsim.bound_graph import Graph, graph_of, spilled_bits
from accelsim.bound_tiles import RowTimes
from accelsim.kernels.cut import FROM_BUS, FROM_WORK, chain_work, walk_cuts
from accelsim.optable import OpTable
from accelsim.program import Int64

Float = np.ndarray


@dataclass(frozen=True, eq=False)
class Spills:
    """Bits of tensors that no mapping keeps on chip: at least in all; of those too large for the buffer, by cut.

    `between[k, m]` cross after op k has begun and before op m has begun its last row, `until[m]` before that,
    `since[k]` after op k has begun.
    """

    bits: int
    between: Float
    until: Float
    since: Float


@lru_cache(maxsize=64)
def spills_of(table: OpTable, capacity_bits: int) -> Spills:
    """The spills of a workload and plan with an activation buffer of `capacity_bits`."""
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
    return Spills(spilled_bits(graph.crossings, capacity_bits), between, until, since)


@dataclass(frozen=True, eq=False)
class CutFacts:
    """What cuts of a design have in common for every plan that moves no fewer bits than the one they are made from.

    `least_weights` and `least_between` [n], [n, n] are weight bits of ops, and of those from one op to another.
    """

    graph: Graph
    spills: Spills
    least_weights: Int64
    least_between: Float
    held_bits: int
    cycles_per_bit: float
    latency_cycles: int


def cut_facts(table: OpTable, accelerator: Accelerator) -> CutFacts:
    """Facts of the plan of `table`: exact for it, valid for plans whose tensors and weights are no smaller."""
    graph = graph_of(table)
    bus = accelerator.bus_ticks()
    return CutFacts(
        graph, spills_of(table, accelerator.activation_buffer.capacity_bits), graph.weights_bits,
        _weights_between(table), accelerator.weight_buffer.capacity_bits,
        accelerator.clock_hz / accelerator.dram.bandwidth_bits_per_s, bus.read_latency // bus.per_cycle,
    )  # fmt: skip


@lru_cache(maxsize=64)
def _weights_between(table: OpTable) -> Float:
    """[k, m] parameter bits of the ops that follow op k and that op m follows, both included."""
    graph = graph_of(table)
    return between_ops(graph, graph.weights_bits)


def between_ops(graph: Graph, bits: np.ndarray) -> Float:
    """[k, m] sums of bits [n] of the ops that follow op k and that op m follows, both included."""
    follows = graph.follows.astype(np.float64)
    return np.asarray((follows * bits) @ follows, np.float64)


@dataclass(frozen=True, eq=False)
class Walk:
    """Earliest begin and finish of every op, `reasons` as `kernels.cut.walk_cuts` writes them, and the last step.

    `to_finish[m]`: cycles of the whole if the way ends behind op m's last row; `to_stores[m]`: if it ends with the bits
    that cross after op m has begun.  `between` and `since` are weight bits, less what the weight buffer holds.
    `column[k, m]` is the column of work that lasts longest from op k to op m in one chain.
    """

    cycles: float
    begin: Float
    finish: Float
    reasons: Int64
    to_finish: Float
    to_stores: Float
    between: Float
    since: Float
    column: Int64


def walk(facts: CutFacts, work: Float, times: RowTimes, weights_bits: np.ndarray, between: Float) -> Walk:
    """Chain cut of a plan: `work` as `work_cycles` has it, `weights_bits` [n] and `between` (by `between_ops`).

    From the start nothing is on chip; when an op begins, the weight buffer may be full of what later ops need; to the
    finish the outputs must be written.
    """
    graph, spills, per_bit = facts.graph, facts.spills, facts.cycles_per_bit
    before = graph.before.astype(np.float64)
    reads = (facts.least_weights > 0) | (graph.input_bits > 0)
    head = np.maximum((before.T @ work).max(axis=1), facts.latency_cycles * reads)
    tail = (before @ work).max(axis=1)
    more = np.maximum(0.0, between - facts.held_bits)
    least = np.maximum(0.0, facts.least_between - facts.held_bits) + spills.between
    middle = (more + spills.between) * per_bit + facts.latency_cycles * (least > 0)
    until = (weights_bits + graph.input_bits) @ graph.follows + spills.until
    loaded = until * per_bit + facts.latency_cycles * (_least_until(facts) > 0)
    inside, column = np.zeros_like(between), np.zeros(between.shape, np.int64)
    chain_work(graph.follows, graph.before, work, inside, column)
    begin, finish, reasons = np.zeros(len(head)), np.zeros(len(head)), np.zeros((len(head), 2), np.int64)
    walk_cuts(
        graph.follows, graph.before, head, times.own + times.drain, np.where(inside > 0, inside + times.drain, 0.0),
        middle, loaded, times.tile, begin, finish, reasons,
    )  # fmt: skip
    since = np.maximum(0.0, graph.follows @ weights_bits - facts.held_bits)
    to_stores = begin + (since + graph.follows @ graph.output_bits + spills.since) * per_bit
    cycles = float(max((finish + tail).max(initial=0.0), to_stores.max(initial=0.0)))
    return Walk(cycles, begin, finish, reasons, finish + tail, to_stores, more, since, column)


def _least_until(facts: CutFacts) -> Float:
    bits = (facts.least_weights + facts.graph.input_bits) @ facts.graph.follows
    return np.asarray(bits + facts.spills.until, np.float64)


@dataclass(frozen=True, eq=False)
class Way:
    """cycles ≥ constant_cycles + Σ work × work_cycles + own, drain and tile × those of the ops + weights × their bits.

    `work` [n, columns], `own`, `drain`, `tile` and `weights` [n] say how often the way goes through each of them.
    """

    constant_cycles: float
    work: Float
    own: Float
    drain: Float
    tile: Float
    weights: Float

    def cycles(self, work: Float, times: RowTimes, weights_bits: np.ndarray, cycles_per_bit: float) -> float:
        """The bound that the way gives for a plan."""
        rows = self.own @ times.own + self.drain @ times.drain + self.tile @ times.tile
        crossed = (self.weights @ weights_bits) * cycles_per_bit
        return float(self.constant_cycles + (self.work * work).sum() + rows + crossed)


def longest_way(facts: CutFacts, walked: Walk, work: Float) -> Way:
    """What the longest way of a walk is made of, traced back from its end."""
    trace = _Trace(facts, walked, work)
    m, at_finish = trace.end()
    while m >= 0:
        m, at_finish = trace.finish_of(m) if at_finish else trace.begin_of(m)
    return replace(trace.way, constant_cycles=trace.constant_cycles)


class _Trace:
    """One step back at a time: each adds to the way, and says which op's begin or finish it came from (-1: none)."""

    def __init__(self, facts: CutFacts, walked: Walk, work: Float) -> None:
        self.facts, self.walked, self.work = facts, walked, work
        self.way = Way(0.0, np.zeros_like(work), *(np.zeros(len(work)) for _ in range(4)))
        self.constant_cycles = 0.0

    def end(self) -> tuple[int, bool]:
        """(last op of the way, whether its finish is on the way)."""
        walked, graph = self.walked, self.facts.graph
        if walked.to_stores.max() <= walked.to_finish.max():
            m = int(walked.to_finish.argmax())
            self._longest_work(graph.before[m])
            return m, True
        m = int(walked.to_stores.argmax())
        follows = graph.follows[m]
        bits = float(follows @ graph.output_bits + self.facts.spills.since[m])
        self._beyond_buffer(follows, bits, bool(walked.since[m] > 0))
        return m, False

    def finish_of(self, m: int) -> tuple[int, bool]:
        """From the finish of op m."""
        facts, way, n = self.facts, self.way, len(self.work)
        graph, reason = facts.graph, int(self.walked.reasons[m, 1])
        if reason == FROM_BUS:
            until = graph.follows[:, m]
            way.weights[until] += 1
            bits = float(until @ graph.input_bits + facts.spills.until[m])
            self.constant_cycles += bits * facts.cycles_per_bit
            self.constant_cycles += facts.latency_cycles * bool(_least_until(facts)[m] > 0)
            return -1, False
        if reason == FROM_WORK:
            way.own[m] += 1
            way.drain[m] += 1
            return m, False
        k, kind = reason % n, reason // n
        if kind == 0:
            between = graph.follows[k] & graph.follows[:, m]
            self._beyond_buffer(between, float(facts.spills.between[k, m]), bool(self.walked.between[k, m] > 0))
            least = max(0.0, facts.least_between[k, m] - facts.held_bits) + facts.spills.between[k, m]
            self.constant_cycles += facts.latency_cycles * bool(least > 0)
            return k, False
        if kind == 1:
            way.tile[m] += 1
            return k, True
        way.drain[m] += 1
        way.work[graph.follows[k] & graph.follows[:, m], self.walked.column[k, m]] += 1
        return k, False

    def begin_of(self, m: int) -> tuple[int, bool]:
        """From the begin of op m."""
        reason, n = int(self.walked.reasons[m, 0]), len(self.work)
        if reason == FROM_WORK:
            if self.walked.begin[m] > self.facts.latency_cycles:
                self._longest_work(self.facts.graph.before[:, m])
            else:
                self.constant_cycles += float(self.walked.begin[m])
            return -1, False
        if reason < n:
            return reason, True
        self.way.tile[reason - n] += 1
        return reason - n, False

    def _longest_work(self, ops: np.ndarray) -> None:
        self.way.work[ops, int((ops.astype(np.float64) @ self.work).argmax())] += 1

    def _beyond_buffer(self, ops: np.ndarray, bits: float, full: bool) -> None:
        """Bits over the bus, and the weights of ops less what the weight buffer holds if they are more."""
        if full:
            self.way.weights[ops] += 1
        self.constant_cycles += (bits - full * self.facts.held_bits) * self.facts.cycles_per_bit
