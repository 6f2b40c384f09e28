"""Lower bounds: of a program whatever the timing between its rows, and of a design whatever the mapping."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from accelsim.arch import Accelerator
from accelsim.ir import Loop, OpKind
from accelsim.optable import (
    KIND_VECTOR,
    M_INPUTS,
    M_MODE,
    M_PASSES,
    M_PRODUCTS,
    O_ABITS,
    O_COLS,
    O_DEPTH,
    O_GROUPS,
    O_IN0,
    O_IN0_ROOT0,
    O_IN0_ROOT1,
    O_IN1,
    O_IN1_ROOT0,
    O_IN1_ROOT1,
    O_KIND,
    O_PARAM_BITS,
    O_RBITS,
    O_ROWS_H,
    O_ROWS_W,
    O_SLICES,
    O_TAPS,
    O_UNIT_EXTRA,
    O_UNIT_WEIGHTS,
    O_UNITS,
    S_BITS,
    S_COMBO,
    S_UNITS,
    T_BITS,
    T_INPUT,
    T_OUTPUT,
    EngineTable,
    OpTable,
)  # fmt: skip
from accelsim.program import Program


@dataclass(frozen=True)
class DesignBound:
    """No mapping of this workload and plan on this accelerator is faster: the larger of the two, in cycles.

    `compute_cycles`: every multiplier busy in its best mode, work shared perfectly among compatible engines.
    `traffic_cycles`: all weights, the input rows that are read and the output cross the bus once, without latency or
    burst rounding.
    """

    compute_cycles: int
    traffic_cycles: int

    @property
    def cycles(self) -> int:
        """The larger bound."""
        return max(self.compute_cycles, self.traffic_cycles)


def design_bound(table: OpTable, engines: EngineTable, accelerator: Accelerator) -> DesignBound:
    """Bound of any mapping (DESIGN §6 without the chain cut)."""
    return DesignBound(_compute_cycles(table, engines, accelerator), _traffic_cycles(table, accelerator))


def _compute_cycles(table: OpTable, engines: EngineTable, accelerator: Accelerator) -> int:
    """Hall-type makespan bound: for every set of engines, the work that only they can do over their joint speed.

    Work is in slot-cycles: a product in a mode with two products per multiplier takes half a slot-cycle.
    """
    slots = [engine.slots for engine in accelerator.engines]
    best = 0
    n = len(slots)
    work: dict[frozenset[int], float] = {}
    for k, op in enumerate(table.ops):
        if op[O_KIND] == KIND_VECTOR:
            continue
        macs = int(op[O_GROUPS] * op[O_ROWS_H] * op[O_ROWS_W] * op[O_COLS] * op[O_TAPS] * op[O_DEPTH])
        rows = table.slices[k, : op[O_SLICES]]
        balanced = any(part[S_UNITS] < 0 for part in rows)
        for group in [rows] if balanced else [rows[s : s + 1] for s in range(len(rows))]:
            able: dict[int, float] = {}
            for part in group:
                for e in range(n):
                    mode = engines.modes[int(part[S_COMBO]), e]
                    if mode[M_MODE] >= 0:
                        cost = float(mode[M_PASSES]) / float(mode[M_PRODUCTS] * mode[M_INPUTS])
                        able[e] = min(able.get(e, cost), cost)
            share = 1.0 if balanced else int(group[0][S_UNITS]) / int(op[O_UNITS])
            key = frozenset(able)
            work[key] = work.get(key, 0.0) + macs * share * min(able.values(), default=0.0)
    for size in range(1, n + 1):
        for chosen in combinations(range(n), size):
            inside = sum(amount for key, amount in work.items() if key <= set(chosen))
            best = max(best, int(inside / sum(slots[e] for e in chosen)))
    return best


def _traffic_cycles(table: OpTable, accelerator: Accelerator) -> int:
    bits = 0
    for k, op in enumerate(table.ops):
        if op[O_KIND] == KIND_VECTOR:
            bits += int(op[O_PARAM_BITS])
        elif op[O_UNIT_WEIGHTS]:
            least = min(int(part[S_BITS]) for part in table.slices[k, : op[O_SLICES]])
            bits += int(op[O_UNITS]) * (int(op[O_UNIT_WEIGHTS]) * least + int(op[O_UNIT_EXTRA]))
    bits += int(table.tensors[(table.tensors[:, T_OUTPUT] > 0) & (table.tensors[:, T_INPUT] == 0), T_BITS].sum())
    bits += sum(_least_read_bits(table, int(t)) for t in np.flatnonzero(table.tensors[:, T_INPUT]))
    return bits * accelerator.clock_hz // accelerator.dram.bandwidth_bits_per_s


def _least_read_bits(table: OpTable, tensor: int) -> int:
    """Bits of a graph input that some op needs; strides beyond the kernel, short windows and slices leave rows out."""
    stored = int(table.tensors[tensor, T_BITS])
    most = 0
    for item, row in zip(table.quantized.ops, table.ops, strict=True):
        for root, other, elements, width in (
            (O_IN0_ROOT0, O_IN0_ROOT1, O_IN0, O_ABITS), (O_IN0_ROOT1, O_IN0_ROOT0, O_IN0, O_ABITS),
            (O_IN1_ROOT0, O_IN1_ROOT1, O_IN1, O_RBITS), (O_IN1_ROOT1, O_IN1_ROOT0, O_IN1, O_RBITS),
        ):  # fmt: skip
            if row[root] == tensor:
                read = int(row[elements] * row[width])
                read -= int(table.tensors[row[other], T_BITS]) if row[other] >= 0 else 0
                kept, rows = _rows_read(item.op.loop) if item.op.kind is OpKind.CONV and item.op.loop else (1, 1)
                most = max(most, read * kept // rows)
    return min(stored, most)


def _rows_read(loop: Loop) -> tuple[int, int]:
    """Input rows in some window of a convolution (at least), and all of its input rows."""
    if loop.stride > loop.kernel_h:
        return max(0, loop.rows_h * loop.kernel_h - 2 * loop.padding), loop.in_h
    last = (loop.rows_h - 1) * loop.stride - loop.padding + loop.kernel_h
    return max(0, min(last, loop.in_h)), loop.in_h


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
