"""What every mapping of a workload has in common: order forced by dependencies, and bits that must cross the bus.

Nothing here depends on the accelerator, so it is computed once per OpTable.  The proofs are in
docs/decisions/0009-design-bound.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from accelsim.ir import Loop, OpKind
from accelsim.optable import (
    AXIS_GROUPS,
    AXIS_ROWS,
    KIND_CONV,
    KIND_VECTOR,
    O_ABITS,
    O_AXES,
    O_GROUP_EXTENT,
    O_IN0,
    O_IN0_ROOT0,
    O_IN0_ROOT1,
    O_IN1,
    O_IN1_ROOT0,
    O_IN1_ROOT1,
    O_IN_H,
    O_KERNEL_H,
    O_KIND,
    O_OUT,
    O_PARAM_BITS,
    O_RBITS,
    O_ROWS_H,
    O_SLICES,
    O_STRIDE,
    O_UNIT_EXTRA,
    O_UNIT_WEIGHTS,
    O_UNITS,
    S_STORED,
    S_UNITS,
    T_BITS,
    T_INPUT,
    T_LAST,
    T_OUTPUT,
    OpTable,
)  # fmt: skip
from accelsim.program import Int64

_OPERANDS = (
    (O_IN0_ROOT0, O_IN0_ROOT1, O_IN0, O_ABITS), (O_IN0_ROOT1, O_IN0_ROOT0, O_IN0, O_ABITS),
    (O_IN1_ROOT0, O_IN1_ROOT1, O_IN1, O_RBITS), (O_IN1_ROOT1, O_IN1_ROOT0, O_IN1, O_RBITS),
)  # fmt: skip
_Reads = list[list[tuple[int, int]]]  # per op: (tensor, bits at least)


@dataclass(frozen=True)
class Crossing:
    """A tensor that outlives its chain under every mapping: it stays on chip from `first` to `last`, or is spilled.

    `bits` are stored by op `first`, `loads` are (op, bits) of every operand that would have to be loaded.
    """

    first: int
    last: int
    bits: int
    loads: tuple[tuple[int, int], ...]

    @property
    def spilled_bits(self) -> int:
        """Bits over the bus when the tensor does not stay on chip."""
        return self.bits + sum(bits for _, bits in self.loads)


@dataclass(frozen=True, eq=False)
class Graph:
    """Facts of n ops.  `follows[k, m]`: m is k or waits for k (transitive).  Both relations hold for every mapping.

    `before[k, m]`: every row of m starts when all rows of k have finished (m follows k and is never in its chain).
    `weights_bits`, `input_bits` and `output_bits` are what an op moves at least: its parameters, its part of the graph
    inputs, its part of the graph outputs.
    """

    follows: np.ndarray
    before: np.ndarray
    weights_bits: Int64
    input_bits: Int64
    output_bits: Int64
    crossings: tuple[Crossing, ...]


@lru_cache(maxsize=64)
def graph_of(table: OpTable) -> Graph:
    """The facts of a workload and plan."""
    end, writers = last_in_chain(table), _writers(table)
    n = len(end)
    reads = [_reads(table, end, writers, k) for k in range(n)]
    follows = np.eye(n, dtype=np.bool_)
    for m in range(n):
        for t, _ in reads[m]:
            if writers[t] >= 0:
                follows[:, m] |= follows[:, writers[t]]
    outputs = np.zeros(n, np.int64)
    for k in range(n):
        tensor = table.tensors[table.ops[k, O_OUT]]
        outputs[k] = tensor[T_BITS] if tensor[T_OUTPUT] and not tensor[T_INPUT] else 0
    return Graph(
        follows, follows & (np.arange(n)[None, :] > end[:, None]), _weights_bits(table), _input_bits(table, reads),
        outputs, _crossings(table, end, reads),
    )  # fmt: skip


def last_in_chain(table: OpTable) -> Int64:
    """For every op the last op that may be in its chain: no legal mapping has a longer one.

    A chain is a run of ops with one extent; behind its first op no window is larger than 1, and an output that is
    needed elsewhere ends it.
    """
    ops = table.ops
    n = len(ops)
    ends = np.stack([np.arange(n), np.arange(n)])  # along rows, along groups
    for k in range(n - 2, -1, -1):
        a, b = ops[k], ops[k + 1]
        both = int(a[O_AXES] & b[O_AXES])
        tall = b[O_KERNEL_H] != 1 or b[O_STRIDE] != 1 or b[O_IN_H] != b[O_ROWS_H]
        if both & AXIS_ROWS and a[O_ROWS_H] == b[O_ROWS_H] and not tall:
            ends[0, k] = ends[0, k + 1]
        convolution = KIND_CONV in (a[O_KIND], b[O_KIND])
        if both & AXIS_GROUPS and a[O_GROUP_EXTENT] == b[O_GROUP_EXTENT] and not convolution:
            ends[1, k] = ends[1, k + 1]
    needed = table.tensors[ops[:, O_OUT], T_LAST]
    kept = table.tensors[ops[:, O_OUT], T_OUTPUT] > 0
    end = ends.max(axis=0)
    while True:
        nearest = np.where((needed > end) | kept, np.arange(n), n)
        shorter = np.minimum(end, np.minimum.accumulate(nearest[::-1])[::-1])
        if (shorter == end).all():
            return np.asarray(end, np.int64)
        end = shorter


def _writers(table: OpTable) -> Int64:
    """Op that writes each tensor, -1 for graph inputs and streamed parameters."""
    writers = np.full(len(table.tensors), -1, np.int64)
    writers[table.ops[:, O_OUT]] = np.arange(len(table.ops))
    return writers


def _reads(table: OpTable, end: Int64, writers: Int64, k: int) -> list[tuple[int, int]]:
    """(tensor, bits at least) of every root that op k waits for: produced in its chain, resident, or loaded.

    Of two tensors read as one, lowering loads both only if the first comes from outside the chain; so both count only
    when neither can come from inside.
    """
    row, item = table.ops[k], table.quantized.ops[k]
    kept, rows = _rows_read(item.op.loop) if item.op.kind is OpKind.CONV and item.op.loop else (1, 1)
    found = []
    for root, other, elements, width in _OPERANDS:
        t, beside = int(row[root]), int(row[other])
        if t < 0:
            continue
        inside = any(writers[x] >= 0 and end[writers[x]] >= k for x in (t, beside) if x >= 0)
        if beside >= 0 and beside != t and inside:
            continue
        read = int(row[elements] * row[width]) - (int(table.tensors[beside, T_BITS]) if beside >= 0 else 0)
        found.append((t, max(0, min(int(table.tensors[t, T_BITS]), read * kept // rows))))
    return found


def _rows_read(loop: Loop) -> tuple[int, int]:
    """Input rows in some window of a convolution (at least), and all of its input rows."""
    if loop.stride > loop.kernel_h:
        return max(0, loop.rows_h * loop.kernel_h - 2 * loop.padding), loop.in_h
    last = (loop.rows_h - 1) * loop.stride - loop.padding + loop.kernel_h
    return max(0, min(last, loop.in_h)), loop.in_h


def _weights_bits(table: OpTable) -> Int64:
    bits = np.zeros(len(table.ops), np.int64)
    for k, op in enumerate(table.ops):
        if op[O_KIND] == KIND_VECTOR:
            bits[k] = op[O_PARAM_BITS]
        elif op[O_UNIT_WEIGHTS]:
            parts = table.slices[k, : op[O_SLICES]]
            if (parts[:, S_UNITS] < 0).any():
                stored = int(op[O_UNITS] * parts[:, S_STORED].min())
            else:
                stored = int((parts[:, S_UNITS] * parts[:, S_STORED]).sum())
            bits[k] = stored + int(op[O_UNITS] * op[O_UNIT_EXTRA])
    return bits


def _input_bits(table: OpTable, reads: _Reads) -> Int64:
    """Bits of graph inputs, each charged to the first op among those that read most of it."""
    bits = np.zeros(len(table.ops), np.int64)
    best: dict[int, tuple[int, int]] = {}
    for k in range(len(table.ops)):
        for t, read in reads[k]:
            if table.tensors[t, T_INPUT] and read > best.get(t, (-1, 0))[0]:
                best[t] = (read, k)
    for read, k in best.values():
        bits[k] += read
    return bits


def _crossings(table: OpTable, end: Int64, reads: _Reads) -> tuple[Crossing, ...]:
    loads: dict[int, list[tuple[int, int]]] = {}
    for k in range(len(table.ops)):
        for t, bits in reads[k]:
            loads.setdefault(t, []).append((k, bits))
    found = []
    for k, op in enumerate(table.ops):
        tensor = table.tensors[op[O_OUT]]
        last = int(tensor[T_LAST])
        if last > end[k] and not tensor[T_INPUT] and not tensor[T_OUTPUT]:
            found.append(Crossing(k, last, int(tensor[T_BITS]), tuple(loads.get(int(op[O_OUT]), ()))))
    return tuple(found)


def spilled_bits(crossings: tuple[Crossing, ...], capacity_bits: int) -> int:
    """Bits that tensors move at least because they cannot all stay in an activation buffer of `capacity_bits`.

    A tensor larger than the buffer counts in full.  Of those live at one op, what does not fit must be spilled; ops
    whose live tensors are disjoint add up, and the best such set is found in op order.
    """
    forced = sum(item.spilled_bits for item in crossings if item.bits > capacity_bits)
    others = [item for item in crossings if item.bits <= capacity_bits]
    best = [0.0]  # best[p]: with the ops in front of op p
    for p in range(max((item.last for item in others), default=-1) + 1):
        live = [item for item in others if item.first <= p <= item.last]
        over = sum(item.bits for item in live) - capacity_bits
        best.append(best[p])
        if over > 0:
            rate = min(item.spilled_bits / item.bits for item in live)
            gain = max(over * rate, min(item.spilled_bits for item in live))
            best[p + 1] = max(best[p], best[min(item.first for item in live)] + gain)
    return forced + int(best[-1])
