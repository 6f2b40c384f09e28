"""A tile on an array engine: its cost from the closed forms, and the same cost plus values from the stepped model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelsim.arch import Engine, EngineKind
from accelsim.engines.composable_array import UNIT_BITS, split
from accelsim.engines.mac_array import multiplier_bits, multiplier_mode
from accelsim.engines.shift_array import shift_mode, term_passes
from accelsim.formats import Format, accumulator_bits_needed
from accelsim.ir import Loop
from accelsim.kernels import arrays, engine_forms
from accelsim.problems import AccelsimError, InfeasibleError, Problem

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class TileCost:
    """Cycles, SRAM reads in bits and event counts of one tile on one engine."""

    occupancy_cycles: int
    latency_cycles: int
    activation_read_bits: int
    weight_read_bits: int
    accumulates: int
    products: int
    outputs: int


def select_mode(engine: Engine, weight: Format, activation: Format) -> int | None:
    """Mode in which an engine executes this pair of formats, None when it cannot.

    Multiplier or composable array: index into `engine.modes`.  Shift array: terms of the weight − 1 (a
    count column, not a mode).
    """
    if engine.kind is EngineKind.SHIFT_ARRAY:
        return shift_mode(engine, weight, activation)
    return multiplier_mode(engine, weight, activation)


def can_execute(engine: Engine, weight: Format, activation: Format, depthwise: bool = False) -> bool:
    """True when the engine has a mode for the formats and, for depthwise work, the reconfigured datapath.

    In depthwise mode every slot accumulates in place, so all terms of a weight must fit one pass.
    """
    if select_mode(engine, weight, activation) is None:
        return False
    return not depthwise or (engine.depthwise and term_passes(engine, weight) == 1)


def require(engine: Engine, tile: Loop, weight: Format, activation: Format) -> int:
    """The mode for this tile; InfeasibleError, with the numbers, when formats or accumulators do not fit."""
    where = f"engine {engine.name}"
    mode = select_mode(engine, weight, activation)
    if mode is None or not can_execute(engine, weight, activation, tile.depthwise):
        what = f"cannot execute {weight.name} weights with {activation.name} activations"
        what += " in depthwise mode" if tile.depthwise else ""
        raise InfeasibleError(Problem(where, what, levers=("another engine", "a mode that holds both widths")))
    needed = accumulator_bits_needed(weight, activation, tile.reduction)
    if needed > engine.accumulator_bits:
        what = f"accumulators too narrow for {tile.reduction} products"
        levers = ("wider accumulators", "narrower formats")
        raise InfeasibleError(
            Problem(where, what, levers=levers, demand=needed, bound=engine.accumulator_bits, unit="bits")
        )
    return mode


def slot_products(engine: Engine, mode: int) -> tuple[int, int]:
    """Products of one slot and cycle in a mode: (output channels or positions, reduction inputs or taps)."""
    if engine.kind is EngineKind.SHIFT_ARRAY:
        return 1, 1
    if engine.kind is EngineKind.COMPOSABLE_ARRAY:
        return split(engine, mode)
    return engine.modes[mode].products, 1


def tile_cost(engine: Engine, tile: Loop, weight: Format, activation: Format) -> TileCost:
    """Closed-form cost of a tile (a loop nest no larger than an op's); raises InfeasibleError like `require`."""
    mode = require(engine, tile, weight, activation)
    (products, inputs), passes = slot_products(engine, mode), term_passes(engine, weight)
    lanes, width, pixels = engine.lanes, engine.lane_width * inputs, engine.pixel_groups
    bits = (activation.bits, weight.bits)
    ports = (engine.activation_port_bits_per_cycle, engine.weight_port_bits_per_cycle)
    tail = (*ports, engine.output_stage.outputs_per_cycle, engine.pipeline_cycles)
    if tile.depthwise:
        g, r, t = tile.groups, tile.rows, tile.taps
        steps, *widths = engine_forms.depthwise_word(t, inputs, *bits)
        cycles = engine_forms.depthwise_cycles(
            g, r, steps, lanes, engine.lane_width, pixels, products, widths[0], widths[1], *tail
        )
        reads = engine_forms.depthwise_reads(g, r, t, lanes, products, pixels, *bits)
        accumulates = engine_forms.depthwise_accumulates(g, r, steps)
    else:
        nest = (tile.groups, tile.rows, tile.cols, tile.taps, tile.depth)
        cycles = engine_forms.dense_cycles(*nest, lanes, width, pixels, products, passes, *bits, *tail)
        reads = engine_forms.dense_reads(*nest, lanes, products, pixels, *bits)
        accumulates = engine_forms.dense_accumulates(*nest, width, passes)
    return TileCost(*cycles, *reads, accumulates, tile.macs, tile.groups * tile.rows * tile.cols)


def _geometry(
    engine: Engine, tile: Loop, weight: Format, activation: Format, mode: int, clamp: tuple[int, int]
) -> Int64:
    """The geometry vector of `arrays.walk_array`."""
    shift, composable = (engine.kind is kind for kind in (EngineKind.SHIFT_ARRAY, EngineKind.COMPOSABLE_ARRAY))
    products, inputs = slot_products(engine, mode)
    row_bits = 0 if shift else UNIT_BITS if composable else multiplier_bits(engine, mode)
    return np.array(
        [
            *(tile.groups, tile.rows, tile.cols, tile.taps, tile.depth),
            *(engine.lanes, engine.lane_width, engine.pixel_groups),
            *(products, term_passes(engine, weight)),
            *(activation.bits, weight.bits),
            *(engine.activation_port_bits_per_cycle, engine.weight_port_bits_per_cycle),
            *(engine.output_stage.outputs_per_cycle, engine.output_stage.latency_cycles),
            tile.depthwise,
            *(row_bits, engine.terms, engine.accumulator_bits),
            *clamp,
            *(inputs, engine.modes[mode].activation_bits if composable else 0),
        ],
        np.int64,
    )


def _check_shapes(tile: Loop, activations: Int64, codes: Int64, requant: Int64) -> None:
    groups, rows, cols, reduction = tile.groups, tile.rows, tile.cols, (tile.taps, tile.depth)
    expected = {
        "activations": (activations.shape, (groups, rows, *reduction)),
        "codes": (codes.shape[:-2], (groups, cols, *reduction)),
        "requant": (requant.shape, (groups, cols, 3)),
    }
    problems = [
        Problem(f"tile operand {name}", f"shape {found}", str(shape))
        for name, (found, shape) in expected.items()
        if found != shape
    ]
    if problems:
        raise AccelsimError(problems)


def walk_tile(
    engine: Engine,
    tile: Loop,
    weight: Format,
    activation: Format,
    activations: Int64,
    codes: Int64,
    requant: Int64,
    clamp: tuple[int, int],
) -> tuple[TileCost, Int64]:
    """Step the engine through a tile cycle by cycle; returns the observed cost and the outputs [groups, rows, cols].

    `activations` [groups, rows, taps, depth] (the operand of every product; padding taps are zeros), `codes` [groups,
    cols, taps, depth, terms, 2] (`mac_array.uniform_codes` or `quant.levels.encode`), `requant` [groups, cols, 3] =
    bias, multiplier, shift.  Raises InfeasibleError like `require`, and AccelsimError when shapes do not match the
    tile or the arithmetic leaves the accumulators.
    """
    mode = require(engine, tile, weight, activation)
    _check_shapes(tile, activations, codes, requant)
    geometry = _geometry(engine, tile, weight, activation, mode, clamp)
    outputs = np.zeros((tile.groups, tile.rows, tile.cols), np.int64)
    result = np.zeros(arrays.RESULT_SIZE, np.int64)
    left, right, scales = (np.ascontiguousarray(array, np.int64) for array in (activations, codes, requant))
    arrays.walk_array(geometry, left, right, scales, outputs, result)
    if result[arrays.STATUS]:
        cause = "an accumulator overflows" if result[arrays.STATUS] == arrays.STATUS_OVERFLOW else "bank hazard"
        raise AccelsimError(Problem(f"engine {engine.name}", cause, f"operands of {weight.name} × {activation.name}"))
    return TileCost(*(int(value) for value in result[arrays.OCCUPANCY :])), outputs
