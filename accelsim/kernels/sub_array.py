"""The part of an engine on which a share of an op takes least: with fixed ports a wider array can be slower."""

from __future__ import annotations

from typing import Any

from accelsim.kernels.engine_forms import ceil_div
from accelsim.kernels.jit import inner
from accelsim.kernels.part_forms import sized_part_cycles, used_size
from accelsim.kernels.systolic_forms import FORM_TREE
from accelsim.kernels.tables import Tables
from accelsim.optable import (
    E_FORM,
    E_LANES,
    E_PIXELS,
    E_WIDTH,
    M_INPUTS,
    M_PASSES,
    M_PRODUCTS,
    O_COLS,
    O_DEPTH,
    O_DEPTHWISE,
    O_TAPS,
    O_UNITS_ARE_COLS,
    S_COMBO,
)

# Rows of the list of tiles that a share is executed as: units, output positions, how often.
I_UNITS, I_ROWS, I_TIMES = range(3)
MAX_ITEMS = 4


@inner
def load_cycles(
    tables: Tables, k: int, e: int, part: int, items: Any, n_items: int, lanes: int, width: int, pixels: int
) -> int:
    """Occupancy of all tiles of a share of op k on a sub-array of engine e (0: all of it)."""
    total = 0
    for n in range(n_items):
        if items[n, I_UNITS] > 0 and items[n, I_ROWS] > 0:
            total += items[n, I_TIMES] * (
                sized_part_cycles(
                    tables.ops, tables.slices, tables.engines, tables.modes, k, e, part, items[n, I_UNITS],
                    items[n, I_ROWS], lanes, width, pixels,
                )[0]
            )  # fmt: skip
    return total


@inner
def _ideal_cycles(
    tables: Tables, k: int, e: int, part: int, items: Any, n_items: int, lanes: int, width: int, pixels: int
) -> int:
    """The same if ports and output stage were never the limit: never more, and never less on a smaller sub-array."""
    ops, combo = tables.ops, tables.slices[k, part, S_COMBO]
    products, inputs = tables.modes[combo, e, M_PRODUCTS], tables.modes[combo, e, M_INPUTS]
    total = 0
    for n in range(n_items):
        units, rows = items[n, I_UNITS], items[n, I_ROWS]
        if units == 0 or rows == 0:
            continue
        if ops[k, O_DEPTHWISE] == 1:
            blocks = ceil_div(units, width) * ceil_div(rows, lanes * pixels * products)
            steps = ceil_div(ops[k, O_TAPS], inputs)
        else:
            groups = 1 if ops[k, O_UNITS_ARE_COLS] == 1 else units
            cols = units if ops[k, O_UNITS_ARE_COLS] == 1 else ops[k, O_COLS]
            blocks = groups * ceil_div(rows, pixels) * ceil_div(cols, lanes * products)
            steps = ops[k, O_TAPS] * ceil_div(ops[k, O_DEPTH], width * inputs) * tables.modes[combo, e, M_PASSES]
        total += items[n, I_TIMES] * blocks * steps
    return total


@inner
def whole_is_best(tables: Tables, k: int, e: int, part: int, items: Any, n_items: int) -> bool:
    """True when ports and output stage keep up with the whole array, so that no sub-array is faster."""
    engine = tables.engines[e]
    if engine[E_FORM] != FORM_TREE:
        return True
    ideal = _ideal_cycles(
        tables, k, e, part, items, n_items, engine[E_LANES], engine[E_WIDTH], engine[E_PIXELS]
    )  # fmt: skip
    return load_cycles(tables, k, e, part, items, n_items, 0, 0, 0) == ideal


@inner
def least_load(tables: Tables, k: int, e: int, part: int, items: Any, n_items: int, lanes: int, width: int) -> Any:
    """(cycles, lanes, width, pixels) of the fastest sub-array of engine e; sizes are 0 where that is the whole array.

    `lanes` and `width` are given sizes, 0 for any.  Systolic arrays are used whole.
    """
    engine = tables.engines[e]
    if engine[E_FORM] != FORM_TREE:
        return load_cycles(tables, k, e, part, items, n_items, 0, 0, 0), 0, 0, 0
    best = load_cycles(tables, k, e, part, items, n_items, lanes, width, 0)
    best_lanes, best_width, best_pixels = lanes, width, 0
    most_lanes, fewest_lanes = used_size(lanes, engine[E_LANES]), used_size(lanes, 1)
    for w in range(used_size(width, engine[E_WIDTH]), used_size(width, 1) - 1, -1):
        if _ideal_cycles(tables, k, e, part, items, n_items, most_lanes, w, engine[E_PIXELS]) >= best:
            break
        for n in range(most_lanes, fewest_lanes - 1, -1):
            if _ideal_cycles(tables, k, e, part, items, n_items, n, w, engine[E_PIXELS]) >= best:
                break
            for pixels in range(engine[E_PIXELS], 0, -1):
                if _ideal_cycles(tables, k, e, part, items, n_items, n, w, pixels) >= best:
                    break
                cycles = load_cycles(tables, k, e, part, items, n_items, n, w, pixels)
                if cycles < best:
                    best, best_lanes, best_width, best_pixels = cycles, n, w, pixels
    return best, best_lanes, best_width, best_pixels
