"""Least time that ops take on engines and vector unit under any mapping, as columns that can be summed over ops.

Every column of `work_cycles` is a valid bound of its own: for any set of ops its sum over the set is not more than the
time in which some mapping executes them.  The proofs are in docs/decisions/0009-design-bound.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np

from accelsim.arch import Accelerator, VectorUnit
from accelsim.kernels.systolic_forms import FORM_IS, FORM_OS, FORM_TREE, SCALESIM
from accelsim.optable import (
    E_APORT,
    E_FORM,
    E_LANES,
    E_OUTPUTS,
    E_PIXELS,
    E_WIDTH,
    E_WPORT,
    KIND_VECTOR,
    M_INPUTS,
    M_MODE,
    M_PASSES,
    M_PRODUCTS,
    O_ABITS,
    O_COLS,
    O_DEPTH,
    O_DEPTHWISE,
    O_GROUPS,
    O_IN0,
    O_IN1,
    O_KIND,
    O_OUT,
    O_PASSES,
    O_RBITS,
    O_ROWS_H,
    O_ROWS_W,
    O_SLICES,
    O_TAPS,
    O_UNITS,
    O_UNITS_ARE_COLS,
    S_BITS,
    S_COMBO,
    S_UNITS,
    T_BITS,
    EngineTable,
    OpTable,
)  # fmt: skip
from accelsim.program import Int64

Float = np.ndarray
# Columns of an item: a slice of an op, or one of the slices that share the op's work (`group` tells which are one).
I_GROUP, I_OP, I_COMBO, I_G, I_R, I_C, I_TAPS, I_DEPTH, I_DEPTHWISE, I_ABITS, I_WBITS, I_BY_COLS, I_MACS = range(13)


def work_cycles(table: OpTable, engines: EngineTable, accelerator: Accelerator) -> Float:
    """[n, columns] cycles: the last column is the vector unit, the others are prices of the dual program.

    If all of an item takes c_e cycles on engine e, then for weights y ≥ 0 of sum 1 the engines need at least
    Σ min_e y_e c_e.  Single engines and, for a pair, all break points (which make it exact) are with the rounding of
    lanes, pixel groups and ports; larger sets of engines share their slots in proportion, without rounding.
    """
    costs, n, n_engines = slice_costs(table, engines), len(table.ops), len(accelerator.engines)
    owner, able, cost, plain = costs.owner, costs.able, costs.cycles, costs.plain
    columns = [np.where(able[:, e] & (able.sum(axis=1) == 1), cost[:, e], 0.0) for e in range(n_engines)]
    for a, b in combinations(range(n_engines), 2):
        columns += _pair(cost, able, a, b)
    slots = [engine.slots for engine in accelerator.engines]
    for size in range(3, n_engines + 1):
        for chosen in combinations(range(n_engines), size):
            inside = ~np.delete(able, chosen, axis=1).any(axis=1)
            least = plain[:, chosen].min(axis=1)
            columns.append(np.where(inside, least, 0.0) / sum(slots[e] for e in chosen))
    result = np.zeros((n, len(columns) + 1))
    for number, column in enumerate(columns):
        result[:, number] = np.bincount(owner, weights=column, minlength=n)
    result[:, -1] = vector_unit_cycles(table, accelerator.vector)
    return result


@dataclass(frozen=True, eq=False)
class SliceCosts:
    """Slices of ops (slices that share an op's work are one) on every engine, [slices, engines].

    `owner` [slices] are their ops.  `cycles` is the least occupancy if all of a slice is there, with the rounding of
    lanes, pixel groups and ports, `plain` without; infinite where the engine is not `able`.
    """

    owner: Int64
    able: np.ndarray
    cycles: Float
    plain: Float


def slice_costs(table: OpTable, engines: EngineTable, items: Int64 | None = None) -> SliceCosts:
    """Costs of a table's slices, or of given `items` of it (such as a single tile of every op)."""
    items = items_of(table) if items is None else items
    n_engines = len(engines.engines)
    groups = int(items[:, I_GROUP].max(initial=-1)) + 1
    owner = np.zeros(groups, np.int64)
    owner[items[:, I_GROUP]] = items[:, I_OP]
    modes = engines.modes[items[:, I_COMBO]]
    able = np.zeros((groups, n_engines), np.bool_)
    np.logical_or.at(able, items[:, I_GROUP], modes[:, :, M_MODE] >= 0)
    alone = (able.sum(axis=1) == 1) & (np.bincount(items[:, I_GROUP], minlength=groups) == 1)
    cost, plain = np.full((groups, n_engines), np.inf), np.full((groups, n_engines), np.inf)
    for e in range(n_engines):
        there = np.flatnonzero(modes[:, e, M_MODE] >= 0)
        part, mode = items[there], modes[there, e]
        cycles = item_cycles(part, mode, engines.engines[e], alone[part[:, I_GROUP]])
        np.minimum.at(cost[:, e], part[:, I_GROUP], cycles)
        slot_cycles = part[:, I_MACS] * mode[:, M_PASSES] / (mode[:, M_PRODUCTS] * mode[:, M_INPUTS])
        np.minimum.at(plain[:, e], part[:, I_GROUP], slot_cycles)
    return SliceCosts(owner, able, cost, plain)


def _pair(cost: Float, able: np.ndarray, a: int, b: int) -> list[Float]:
    """Columns of engines a and b together at every break point y of Σ min(y c_a, (1 − y) c_b)."""
    inside = ~np.delete(able, (a, b), axis=1).any(axis=1)
    on_a, on_b = np.where(inside, cost[:, a], 0.0), np.where(inside, cost[:, b], 0.0)
    both = inside & able[:, a] & able[:, b] & (on_a + on_b > 0)
    points = np.unique(on_b[both] / (on_a[both] + on_b[both]))
    left = np.where(able[:, a], on_a, np.inf)
    right = np.where(able[:, b], on_b, np.inf)
    columns = []
    for y in points:
        if 0 < y < 1:
            columns.append(np.where(inside, np.minimum(left * y, right * (1 - y)), 0.0))
    return columns


@lru_cache(maxsize=64)
def items_of(table: OpTable) -> Int64:
    """Items of a table, columns `I_GROUP` … `I_MACS` (read-only)."""
    found = []
    group = 0
    for k, op in enumerate(table.ops):
        if op[O_KIND] == KIND_VECTOR:
            continue
        rows = table.slices[k, : op[O_SLICES]]
        balanced = any(part[S_UNITS] < 0 for part in rows)
        macs = int(op[O_GROUPS] * op[O_ROWS_H] * op[O_ROWS_W] * op[O_COLS] * op[O_TAPS] * op[O_DEPTH])
        for part in rows:
            units = int(op[O_UNITS]) if balanced else int(part[S_UNITS])
            units = int(op[O_UNITS]) if len(rows) == 1 else units
            if units:
                by_cols = bool(op[O_UNITS_ARE_COLS])
                found.append(
                    (group, k, part[S_COMBO], 1 if by_cols else units, op[O_ROWS_H] * op[O_ROWS_W],
                     units if by_cols else op[O_COLS], op[O_TAPS], op[O_DEPTH], op[O_DEPTHWISE], op[O_ABITS],
                     part[S_BITS], by_cols, macs * units // int(op[O_UNITS]))
                )  # fmt: skip
                group += not balanced
        group += balanced
    return np.array(found, np.int64).reshape(-1, I_MACS + 1)


def _up(numerator: np.ndarray, denominator: np.ndarray | int) -> np.ndarray:
    return -(-numerator // denominator)


def item_cycles(items: Int64, modes: Int64, engine: Int64, alone: np.ndarray) -> Float:
    """Least occupancy of items on one engine, tiles and sub-arrays of any size; `alone`: no other engine can share."""
    if engine[E_FORM] != FORM_TREE:
        return _systolic_items(items, modes, engine, alone)
    g, r, c = items[:, I_G], items[:, I_R], items[:, I_C]
    taps, depth, a_bits, w_bits = items[:, I_TAPS], items[:, I_DEPTH], items[:, I_ABITS], items[:, I_WBITS]
    lanes, width, pixels = (int(engine[k]) for k in (E_LANES, E_WIDTH, E_PIXELS))
    products, passes, inputs = modes[:, M_PRODUCTS], modes[:, M_PASSES], modes[:, M_INPUTS]
    a_port, w_port, outputs = (float(engine[k]) for k in (E_APORT, E_WPORT, E_OUTPUTS))
    whole = alone | (items[:, I_BY_COLS] == 0)
    col_blocks = _blocks(c, lanes * products, whole)
    row_blocks = _up(r, pixels)
    words = taps * _up(depth, width * inputs) * passes
    reduction = taps * depth * passes
    dense = g * np.maximum.reduce(
        [words * row_blocks * col_blocks, reduction * r * col_blocks * a_bits / a_port,
         reduction * row_blocks * c * w_bits / w_port, r * c / outputs]
    )  # fmt: skip
    row_blocks = _up(r, lanes * pixels * products)
    depthwise = np.maximum.reduce(
        [_up(taps, inputs) * _blocks(g, np.full_like(g, width), alone) * row_blocks, taps * g * r * a_bits / a_port,
         taps * g * row_blocks * w_bits / w_port, g * r / outputs]
    )  # fmt: skip
    return np.asarray(np.where(items[:, I_DEPTHWISE] == 1, depthwise, dense), np.float64)


def _blocks(units: Int64, size: np.ndarray, whole: np.ndarray) -> Float:
    """Blocks of `size` units, at least: rounded up if one engine has all units, else a block holds what there is."""
    return np.where(whole, _up(units, size), units / np.minimum(units, size))


def _systolic_items(items: Int64, modes: Int64, engine: Int64, alone: np.ndarray) -> Float:
    """As `item_cycles`, of a systolic array: the streams, the ports and the outputs; no preload, fill or drain."""
    form = int(engine[E_FORM])
    scalesim, flow = form >= SCALESIM, form & (SCALESIM - 1)
    g, r, c = items[:, I_G], items[:, I_R], items[:, I_C]
    reduction, a_bits, w_bits = items[:, I_TAPS] * items[:, I_DEPTH], items[:, I_ABITS], items[:, I_WBITS]
    rows, cols, products = int(engine[E_WIDTH]), int(engine[E_LANES]), modes[:, M_PRODUCTS]
    whole = alone | (items[:, I_BY_COLS] == 0)
    col_blocks = _blocks(c, products if flow == FORM_IS else cols * products, whole)
    a_load = reduction * r * col_blocks * a_bits / float(engine[E_APORT])
    w_load = reduction * c * w_bits / float(engine[E_WPORT])
    if flow == FORM_OS:
        # SCALE-Sim's count of a layer is one cycle less than its folds take.
        stream = (reduction - scalesim) * _up(r, rows) * col_blocks
        loads = [a_load, w_load * _up(r, rows)]
    elif flow == FORM_IS:
        stream = _up(reduction, rows) * _up(r, cols) * col_blocks
        loads = [w_load * _up(r, cols)]
    else:
        stream = _up(reduction, rows) * r * col_blocks
        loads = [a_load]
    if scalesim:
        return np.asarray(g * stream, np.float64)
    return np.asarray(g * np.maximum.reduce([stream, *loads, r * c / float(engine[E_OUTPUTS])]), np.float64)


@lru_cache(maxsize=256)
def vector_unit_cycles(table: OpTable, unit: VectorUnit) -> Int64:
    """Cycles of every vector op as one tile; more tiles only round up more often."""
    throughput = np.maximum(1, np.array(unit.throughput(), np.int64))
    ops = table.ops
    count = np.where(table.vector > 0, _up(table.vector, throughput), 0).max(axis=2)
    bits = np.repeat((ops[:, O_IN0] * ops[:, O_ABITS])[:, None], count.shape[1], axis=1)
    bits[:, 0] += ops[:, O_IN1] * ops[:, O_RBITS]
    last = np.maximum(ops[:, O_PASSES] - 1, 0)
    bits[np.arange(len(ops)), last] += table.tensors[ops[:, O_OUT], T_BITS]
    cycles = np.maximum(np.maximum(count, _up(bits, unit.port_bits_per_cycle)), 1)
    there = np.arange(count.shape[1])[None, :] < ops[:, O_PASSES, None]
    result = np.where(there & (ops[:, O_KIND] == KIND_VECTOR)[:, None], cycles, 0).sum(axis=1)
    return np.asarray(result, np.int64)
