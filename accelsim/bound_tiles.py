"""Least time of a single row of an op: what stands between the last row of one op and the last row of the next.

The proofs are in docs/decisions/0009-design-bound.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from accelsim.arch import Accelerator, VectorUnit
from accelsim.bound_compute import (
    I_BY_COLS,
    I_C,
    I_COMBO,
    I_DEPTH,
    I_DEPTHWISE,
    I_G,
    I_GROUP,
    I_OP,
    I_R,
    I_TAPS,
    item_cycles,
    items_of,
    slice_costs,
    work_cycles,
)
from accelsim.kernels.systolic_forms import FORM_TREE
from accelsim.optable import (
    AXIS_GROUPS,
    AXIS_ROWS,
    E_FORM,
    E_PIPELINE,
    E_WIDTH,
    KIND_CONV,
    KIND_VECTOR,
    M_INPUTS,
    M_MODE,
    M_PASSES,
    O_ABITS,
    O_AXES,
    O_GROUP_EXTENT,
    O_IN0,
    O_IN1,
    O_KIND,
    O_OUT,
    O_PASSES,
    O_RBITS,
    O_ROWS_H,
    O_ROWS_W,
    T_BITS,
    EngineTable,
    OpTable,
)  # fmt: skip
from accelsim.program import Int64

Float = np.ndarray
MOST_SHARES = 512  # of an op between two engines that are looked at


@dataclass(frozen=True, eq=False)
class RowTimes:
    """Of every op, in cycles, at least: `own` is its work shared among engines in whole channels or groups; `drain`
    from the end of a row's occupancy to its result; `tile` from the start of the smallest tile (one row or head, all
    channels) in a chain of several ops to its result.
    """

    own: Float
    drain: Float
    tile: Float


def row_times(table: OpTable, engines: EngineTable, accelerator: Accelerator) -> RowTimes:
    """Least times of rows under any mapping.

    A tile on an adder tree has its result min(compute, drain) + pipeline ≥ 1 + pipeline cycles behind its occupancy.
    Engines that share a tile with each other take at least 1 / Σ 1/c cycles.
    """
    n = len(table.ops)
    vector = table.ops[:, O_KIND] == KIND_VECTOR
    drain, first = np.full(n, np.inf), np.full(n, np.inf)
    items = items_of(table)
    tile_items = _smallest_tiles(table, items)
    for e, engine in enumerate(engines.engines):
        modes = engines.modes[items[:, I_COMBO], e]
        there = modes[:, M_MODE] >= 0
        part, mode = items[there], modes[there]
        if engine[E_FORM] == FORM_TREE:
            behind = 1 + int(engine[E_PIPELINE])
            dense = -(-part[:, I_DEPTH] // (int(engine[E_WIDTH]) * mode[:, M_INPUTS])) * mode[:, M_PASSES]
            taps = part[:, I_TAPS]
            steps = np.where(part[:, I_DEPTHWISE] == 1, -(-taps // mode[:, M_INPUTS]), taps * dense)
        else:
            behind, steps = 0, np.zeros(len(part), np.int64)
        np.minimum.at(drain, part[:, I_OP], float(behind))
        np.minimum.at(first, part[:, I_OP], (steps + behind).astype(np.float64))
    costs = slice_costs(table, engines, tile_items)
    shared = 1.0 / (1.0 / np.maximum(costs.cycles, 1e-9)).sum(axis=1)
    work = np.zeros(n)
    np.maximum.at(work, costs.owner, shared)
    drain[vector] = first[vector] = float(accelerator.vector.latency_cycles)
    work[vector] = _vector_tiles(table, accelerator.vector)[0][vector]
    own = np.maximum(work_cycles(table, engines, accelerator).max(axis=1), _whole_shares(items, engines, n))
    return RowTimes(own, drain, np.maximum(first, work + drain))


def _whole_shares(items: Int64, engines: EngineTable, n: int) -> Float:
    """[n] least makespan of ops that two engines share, each with whole channels or groups; 0 of other ops.

    Of many channels every `step`-th share is looked at, and charged what both ends of a step have in common.
    """
    result = np.zeros(n)
    able = engines.modes[items[:, I_COMBO], :, M_MODE] >= 0
    for group in range(int(items[:, I_GROUP].max(initial=-1)) + 1):
        members = items[:, I_GROUP] == group
        there = np.flatnonzero(able[members].any(axis=0))
        if len(there) != 2:
            continue
        part = items[members]
        column = I_C if part[0, I_BY_COLS] else I_G
        units = int(part[0, column])
        edges = np.unique(np.append(np.arange(0, units, -(-units // MOST_SHARES)), units))
        first = _cycles_of_units(part, column, edges, engines, int(there[0]))
        second = _cycles_of_units(part, column, units - edges, engines, int(there[1]))
        every = len(edges) == units + 1
        least = np.maximum(first, second).min() if every else np.maximum(first[:-1], second[1:]).min()
        result[part[0, I_OP]] = max(result[part[0, I_OP]], least)
    return result


def _cycles_of_units(part: Int64, column: int, counts: np.ndarray, engines: EngineTable, e: int) -> Float:
    """Cycles of `counts` units on an engine, in the format of `part` that is fastest there."""
    least = np.full(len(counts), np.inf)
    for item in part:
        mode = engines.modes[item[I_COMBO], e]
        if mode[M_MODE] >= 0:
            several = np.repeat(item[None], len(counts), axis=0)
            several[:, column] = np.maximum(counts, 1)
            modes = np.repeat(mode[None], len(counts), axis=0)
            cycles = item_cycles(several, modes, engines.engines[e], np.ones(len(counts), np.bool_))
            least = np.minimum(least, cycles)
    return np.where(counts == 0, 0.0, least)


def _smallest_tiles(table: OpTable, items: Int64) -> Int64:
    """Items cut down to one unit of the axis along which their op can be in a chain with others."""
    ops = table.ops[items[:, I_OP]]
    rows = ops[:, O_AXES] & AXIS_ROWS > 0
    groups = (ops[:, O_AXES] & AXIS_GROUPS > 0) & (ops[:, O_KIND] != KIND_CONV)
    tiles = items.copy()
    tiles[rows, I_R] = ops[rows, O_ROWS_W]
    tiles[groups, I_G] = 1
    return tiles


@lru_cache(maxsize=256)
def _vector_tiles(table: OpTable, unit: VectorUnit) -> tuple[Int64, Int64]:
    """Of every vector op: occupancy of one unit of its axis, and of all its units one by one; 0 of array ops.

    Of two axes the cheaper unit, and the dearer sum.
    """
    ops = table.ops
    throughput = np.maximum(1, np.array(unit.throughput(), np.int64))
    there = np.arange(table.vector.shape[1])[None, :] < ops[:, O_PASSES, None]
    least, most = np.full(len(ops), np.iinfo(np.int64).max), np.zeros(len(ops), np.int64)
    for axis, column in ((AXIS_ROWS, O_ROWS_H), (AXIS_GROUPS, O_GROUP_EXTENT)):
        extent = np.maximum(1, ops[:, column])
        count = _up(_up(table.vector, extent[:, None, None]), throughput).max(axis=2)
        bits = np.repeat((_up(ops[:, O_IN0], extent) * ops[:, O_ABITS])[:, None], count.shape[1], axis=1)
        bits[:, 0] += _up(ops[:, O_IN1], extent) * ops[:, O_RBITS]
        last = np.maximum(ops[:, O_PASSES] - 1, 0)
        bits[np.arange(len(ops)), last] += _up(table.tensors[ops[:, O_OUT], T_BITS], extent)
        cycles = np.where(there, np.maximum(np.maximum(count, _up(bits, unit.port_bits_per_cycle)), 1), 0).sum(axis=1)
        allowed = ops[:, O_AXES] & axis > 0
        least = np.where(allowed, np.minimum(least, cycles), least)
        most = np.where(allowed, np.maximum(most, extent * cycles), most)
    vector = ops[:, O_KIND] == KIND_VECTOR
    return np.where(vector, least, 0), np.where(vector, most, 0)


def most_vector_cycles(table: OpTable, unit: VectorUnit) -> Int64:
    """[n] cycles for which an op keeps the vector unit busy at most: tiles of one unit round up most."""
    return _vector_tiles(table, unit)[1]


def _up(numerator: np.ndarray, denominator: np.ndarray | int) -> np.ndarray:
    return -(-numerator // denominator)
