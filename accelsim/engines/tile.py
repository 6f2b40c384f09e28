"""A tile on an array engine: its cost from the closed forms, and the same cost plus values from the stepped model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelsim.arch import Engine
from accelsim.engines.registry import rules_of
from accelsim.engines.rules import Stepped, operand_levers
from accelsim.formats import Format, Scheme, accumulator_bits_needed
from accelsim.ir import Loop
from accelsim.kernels import arrays, engine_forms, products, systolic_forms, systolic_outputs, systolic_stationary
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
    """Mode in which an engine executes this pair of formats (its count column), None when it cannot.

    Arrays of modes: index into `engine.modes`, after those the same of products that are aligned.  Shift array:
    terms of the weight − 1, or its last column for products with a log2 activation.
    """
    return rules_of(engine).column(engine, weight, activation)


def can_execute(engine: Engine, weight: Format, activation: Format, depthwise: bool = False) -> bool:
    """True when the engine has a mode for the formats and, for depthwise work, can run it."""
    mode = select_mode(engine, weight, activation)
    if mode is None:
        return False
    return not depthwise or rules_of(engine).runs_depthwise(engine, mode)


def require(engine: Engine, tile: Loop, weight: Format, activation: Format) -> int:
    """The mode for this tile; InfeasibleError, with the numbers, when formats or accumulators do not fit."""
    where = f"engine {engine.name}"
    mode = select_mode(engine, weight, activation)
    if mode is None or not can_execute(engine, weight, activation, tile.depthwise):
        what = f"cannot execute {weight.name} weights with {activation.name} activations"
        what += " in depthwise mode" if tile.depthwise else ""
        levers = operand_levers(activation) or ("another engine", "a mode that holds both widths")
        raise InfeasibleError(Problem(where, what, levers=levers))
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
    rate = rules_of(engine).rate(engine, mode)
    return rate.products, rate.inputs


def tile_cost(engine: Engine, tile: Loop, weight: Format, activation: Format) -> TileCost:
    """Closed-form cost of a tile (a loop nest no larger than an op's); raises InfeasibleError like `require`."""
    mode = require(engine, tile, weight, activation)
    rules = rules_of(engine)
    form, (products, passes, inputs) = rules.form(engine), rules.rate(engine, mode)
    if form != systolic_forms.FORM_TREE:
        return _systolic_cost(engine, tile, weight, activation, form, products)
    lanes, width, pixels = engine.lanes, engine.lane_width * inputs, engine.pixel_groups
    bits = (activation.bits, weight.bits)
    ports = (engine.activation_port_bits_per_cycle, engine.weight_port_bits_per_cycle)
    tail = (*ports, engine.output_stage.outputs_per_cycle, rules.pipeline_cycles(engine))
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


def _systolic_cost(
    engine: Engine, tile: Loop, weight: Format, activation: Format, form: int, products: int
) -> TileCost:
    nest = (form, tile.groups, tile.rows, tile.cols, tile.reduction)
    array, bits = (engine.lane_width, engine.lanes, products), (activation.bits, weight.bits)
    cycles = systolic_forms.systolic_cycles(
        *nest, *array, engine.double_buffered, engine.accumulator_rows, *bits, engine.activation_port_bits_per_cycle,
        engine.weight_port_bits_per_cycle, engine.output_stage.outputs_per_cycle,
        rules_of(engine).pipeline_cycles(engine),
    )  # fmt: skip
    reads = systolic_forms.systolic_reads(*nest, *array, engine.accumulator_rows, *bits)
    accumulates = systolic_forms.systolic_accumulates(*nest, engine.lane_width)
    return TileCost(*cycles, *reads, accumulates, tile.macs, tile.groups * tile.rows * tile.cols)


def _geometry(
    engine: Engine, tile: Loop, weight: Format, activation: Format, mode: int, clamp: tuple[int, int]
) -> Int64:
    """The geometry vector of `arrays.walk_array`."""
    products, passes, inputs = rules_of(engine).rate(engine, mode)
    stepped = _stepped(engine, mode)
    return np.array(
        [
            *(tile.groups, tile.rows, tile.cols, tile.taps, tile.depth),
            *(engine.lanes, engine.lane_width, engine.pixel_groups),
            *(products, passes),
            *(activation.bits, weight.bits),
            *(engine.activation_port_bits_per_cycle, engine.weight_port_bits_per_cycle),
            *(engine.output_stage.outputs_per_cycle, engine.output_stage.latency_cycles),
            tile.depthwise,
            *(stepped.row_bits, stepped.terms, engine.accumulator_bits),
            *clamp,
            *(inputs, stepped.brick_bits),
            *(stepped.part_bits, (1 << activation.bits) - 1 if stepped.dynamic else 0),
            *((_region_flag(activation), activation.region_shift) if stepped.aligned else (0, 0)),
        ],
        np.int64,
    )


def _region_flag(activation: Format) -> int:
    return products.SIGN_FLAG if activation.low_negative else activation.low_codes


def _stepped(engine: Engine, mode: int) -> Stepped:
    stepped = rules_of(engine).stepped(engine, mode)
    if stepped is None:
        raise AccelsimError(Problem(f"engine {engine.name}", f"no stepped model of kind {engine.kind}"))
    return stepped


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


def decoded(codes: Int64, fmt: Format) -> Int64:
    """Integers behind coded activations of any shape.

    Log2: 2^(max_exponent − q), 0 for the last code, in units of the smallest power.  Two regions, in fine steps: the
    payload p or, with the flag, p << m; of a format with a negative region the code c < 0 or c << m.
    """
    stored = np.asarray(codes, np.int64)
    if fmt.scheme is Scheme.TWO_REGION:
        if fmt.low_negative:
            return np.where(stored < 0, stored, np.maximum(stored, 0) << fmt.region_shift)
        payload = stored & (fmt.low_codes - 1)
        return np.where(stored & fmt.low_codes, payload << fmt.region_shift, payload)
    exponents = fmt.max_exponent - stored
    return np.where(exponents < 0, 0, 1 << np.maximum(exponents, 0))


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

    `activations` [groups, rows, taps, depth] (the operand of every product, as it is stored: log2 and
    two-region as codes, the latter two's complement or, without a negative region, the unsigned flag and payload;
    padding taps are zeros), `codes` [groups, cols, taps, depth, terms, 2] (`mac_array.uniform_codes` or
    `quant.levels.encode`), `requant` [groups, cols, 3] = bias, multiplier, shift.  Raises InfeasibleError like
    `require`, and AccelsimError when shapes do not match the tile or the arithmetic leaves the accumulators.
    """
    mode = require(engine, tile, weight, activation)
    _check_shapes(tile, activations, codes, requant)
    stepped = _stepped(engine, mode) if operand_levers(activation) else Stepped()
    if operand_levers(activation) and not (stepped.dynamic or stepped.aligned):
        activations = decoded(activations, activation)
    left, right, scales = (np.ascontiguousarray(array, np.int64) for array in (activations, codes, requant))
    if rules_of(engine).form(engine) != systolic_forms.FORM_TREE:
        return _walk_systolic(engine, tile, weight, activation, left, right, scales, mode, clamp)
    geometry = _geometry(engine, tile, weight, activation, mode, clamp)
    outputs = np.zeros((tile.groups, tile.rows, tile.cols), np.int64)
    result = np.zeros(arrays.RESULT_SIZE, np.int64)
    arrays.walk_array(geometry, left, right, scales, outputs, result)
    _check_status(engine, int(result[arrays.STATUS]), weight, activation)
    return TileCost(*(int(value) for value in result[arrays.OCCUPANCY :])), outputs


def _check_status(engine: Engine, status: int, weight: Format, activation: Format) -> None:
    if status:
        cause = "an accumulator overflows" if status == arrays.STATUS_OVERFLOW else "bank hazard"
        raise AccelsimError(Problem(f"engine {engine.name}", cause, f"operands of {weight.name} × {activation.name}"))


def _walk_systolic(
    engine: Engine, tile: Loop, weight: Format, activation: Format, activations: Int64, codes: Int64, requant: Int64,
    mode: int, clamp: tuple[int, int],
) -> tuple[TileCost, Int64]:  # fmt: skip
    """As `walk_tile`.  The occupancy is what two such tiles back to back take longer than one."""
    rules = rules_of(engine)
    form, products = rules.form(engine), rules.rate(engine, mode).products
    if form >= systolic_forms.SCALESIM:
        raise AccelsimError(Problem(f"engine {engine.name}", "SCALE-Sim's count has no stepped model", "pipelined"))
    stationary = form != systolic_forms.FORM_OS
    kernel = systolic_stationary.walk_stationary if stationary else systolic_outputs.walk_outputs
    left = activations.reshape(tile.groups, tile.rows, tile.reduction)
    right = np.ascontiguousarray(codes[..., 0, 0]).reshape(tile.groups, tile.cols, tile.reduction)
    found = []
    for times in (1, 2):
        geometry = np.array(
            [
                *(form, tile.groups * times, tile.rows, tile.cols, tile.reduction),
                *(engine.lane_width, engine.lanes, products, engine.double_buffered, engine.accumulator_rows),
                *(activation.bits, weight.bits, engine.activation_port_bits_per_cycle),
                *(engine.weight_port_bits_per_cycle, engine.output_stage.outputs_per_cycle),
                *(engine.output_stage.latency_cycles, _stepped(engine, mode).row_bits // products),
                *(engine.accumulator_bits, *clamp, form == systolic_forms.FORM_WS),
            ],
            np.int64,
        )
        outputs = np.zeros((tile.groups * times, tile.rows, tile.cols), np.int64)
        result = np.zeros(systolic_stationary.RESULT_SIZE, np.int64)
        twice = [np.concatenate([array] * times) for array in (left, right, requant)]
        kernel(geometry, twice[0], twice[1], twice[2], outputs, result)
        _check_status(engine, int(result[systolic_stationary.STATUS]), weight, activation)
        found.append((outputs, [int(value) for value in result[systolic_stationary.LATENCY :]]))
    (outputs, (latency, *counts)), (_, (later, *_)) = found
    return TileCost(later - latency, latency, *counts), outputs
