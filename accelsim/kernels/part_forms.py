"""Cycles of a part of an op on an engine, or on a sub-array of an adder-tree engine, from the tables of `optable.py`.

A sub-array is the first `lanes`, `width` lane inputs and `pixels` pixel groups of an engine; 0 stands for all of them.
Blocks, steps and drain follow from these sizes; ports, pipeline and output stage are the engine's.  A part is the index
of a slice of op k.  Units are output channels of an ungrouped op, groups otherwise (depthwise: channels).
"""

from __future__ import annotations

from typing import Any

from accelsim.kernels.engine_forms import dense_tile, depthwise_tile, depthwise_word, tile_cycles
from accelsim.kernels.jit import inner
from accelsim.kernels.systolic_forms import FORM_TREE, systolic_cycles
from accelsim.optable import (
    E_ACCUMULATORS,
    E_APORT,
    E_DOUBLE,
    E_FORM,
    E_LANES,
    E_OUTPUTS,
    E_PIPELINE,
    E_PIXELS,
    E_WIDTH,
    E_WPORT,
    M_INPUTS,
    M_PASSES,
    M_PRODUCTS,
    O_ABITS,
    O_COLS,
    O_DEPTH,
    O_DEPTHWISE,
    O_TAPS,
    O_UNITS_ARE_COLS,
    S_BITS,
    S_COMBO,
)  # fmt: skip


@inner
def used_size(chosen: int, whole: int) -> int:
    """A size of a sub-array: what the part chose, or the whole engine's."""
    return chosen if chosen > 0 else whole


@inner
def _tree_form(
    ops: Any, slices: Any, engines: Any, modes: Any, k: int, engine: int, part: int, units: int, rows: int,
    lanes: int, width: int, pixels: int,
) -> Any:  # fmt: skip
    """(pace, blocks, compute, drain) of a tile on an adder-tree array; arguments as in `sized_part_cycles`."""
    combo = slices[k, part, S_COMBO]
    products, inputs = modes[combo, engine, M_PRODUCTS], modes[combo, engine, M_INPUTS]
    e = engines[engine]
    lanes, width = used_size(lanes, e[E_LANES]), used_size(width, e[E_WIDTH])
    pixels = used_size(pixels, e[E_PIXELS])
    weight_bits = slices[k, part, S_BITS]
    if ops[k, O_DEPTHWISE] == 1:
        steps, word_a, word_w = depthwise_word(ops[k, O_TAPS], inputs, ops[k, O_ABITS], weight_bits)
        pace, blocks, _, compute, drain = depthwise_tile(
            units, rows, steps, lanes, width, pixels, products, word_a, word_w, e[E_APORT], e[E_WPORT], e[E_OUTPUTS]
        )
        return pace, blocks, compute, drain
    groups = 1 if ops[k, O_UNITS_ARE_COLS] == 1 else units
    cols = units if ops[k, O_UNITS_ARE_COLS] == 1 else ops[k, O_COLS]
    pace, blocks, _, compute, drain = dense_tile(
        groups, rows, cols, ops[k, O_TAPS], ops[k, O_DEPTH], lanes, width * inputs, pixels, products,
        modes[combo, engine, M_PASSES], ops[k, O_ABITS], weight_bits, e[E_APORT], e[E_WPORT], e[E_OUTPUTS],
    )  # fmt: skip
    return pace, blocks, compute, drain


@inner
def sized_part_cycles(
    ops: Any, slices: Any, engines: Any, modes: Any, k: int, engine: int, part: int, units: int, rows: int,
    lanes: int, width: int, pixels: int,
) -> Any:  # fmt: skip
    """(occupancy, latency) of `units` units of a slice of op k over `rows` output positions on a sub-array.

    A systolic array is always whole: its form does not read the three sizes.
    """
    e = engines[engine]
    if e[E_FORM] == FORM_TREE:
        pace, blocks, compute, drain = _tree_form(
            ops, slices, engines, modes, k, engine, part, units, rows, lanes, width, pixels
        )
        return tile_cycles(pace, blocks, compute, drain, e[E_PIPELINE])
    groups = 1 if ops[k, O_UNITS_ARE_COLS] == 1 else units
    cols = units if ops[k, O_UNITS_ARE_COLS] == 1 else ops[k, O_COLS]
    return systolic_cycles(
        e[E_FORM], groups, rows, cols, ops[k, O_TAPS] * ops[k, O_DEPTH], e[E_WIDTH], e[E_LANES],
        modes[slices[k, part, S_COMBO], engine, M_PRODUCTS], e[E_DOUBLE], e[E_ACCUMULATORS], ops[k, O_ABITS],
        slices[k, part, S_BITS], e[E_APORT], e[E_WPORT], e[E_OUTPUTS], e[E_PIPELINE],
    )  # fmt: skip


@inner
def part_cycles(
    ops: Any, slices: Any, engines: Any, modes: Any, k: int, engine: int, part: int, units: int, rows: int
) -> Any:
    """(occupancy, latency) of such a tile on the whole engine."""
    return sized_part_cycles(ops, slices, engines, modes, k, engine, part, units, rows, 0, 0, 0)


@inner
def part_lead(
    ops: Any, slices: Any, engines: Any, modes: Any, k: int, engine: int, part: int, units: int, rows: int,
    lanes: int, width: int, pixels: int,
) -> int:  # fmt: skip
    """Cycles from the start of such a tile to its first result at the output stage: one block and the pipeline.

    0 for a systolic array, whose form has no such term.
    """
    if engines[engine, E_FORM] != FORM_TREE:
        return 0
    compute = _tree_form(ops, slices, engines, modes, k, engine, part, units, rows, lanes, width, pixels)[2]
    return compute + engines[engine, E_PIPELINE]


@inner
def unit_granule(ops: Any, engines: Any, modes: Any, k: int, combo: int, engine: int, lanes: int, width: int) -> int:
    """Units of op k that one pass of a sub-array of an engine holds: the granule of splitting."""
    if ops[k, O_DEPTHWISE] == 1:
        return used_size(width, engines[engine, E_WIDTH]) if engines[engine, E_FORM] == FORM_TREE else 1
    if ops[k, O_UNITS_ARE_COLS] == 0:
        return 1
    return used_size(lanes, engines[engine, E_LANES]) * modes[combo, engine, M_PRODUCTS]
