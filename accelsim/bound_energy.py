"""Least dynamic energy of every op under any mapping, by component.

Every number is at most what a simulation of any legal mapping counts for that op (docs/decisions/0015-plan-bound.md has
the proofs): products at the cheapest able engine, operands read in blocks of whole engines, weights, graph inputs and
graph outputs over the bus once, in whole bursts.  Tensors that must be spilled are not in here: which ones are spilled
is the mapping's choice (`accelsim.bound_graph.spilled_bits`).
"""

from __future__ import annotations

import numpy as np

from accelsim.arch import Accelerator
from accelsim.bound_compute import (
    I_ABITS,
    I_C,
    I_COMBO,
    I_DEPTH,
    I_DEPTHWISE,
    I_G,
    I_GROUP,
    I_OP,
    I_R,
    I_TAPS,
    I_WBITS,
    items_of,
)
from accelsim.bound_graph import graph_of
from accelsim.counts import ENGINE_COUNTS, MAX_MODES
from accelsim.energy import unit_energies
from accelsim.ir import VECTOR_KINDS
from accelsim.kernels.systolic_forms import FORM_IS, FORM_OS, FORM_TREE, SCALESIM
from accelsim.optable import (
    E_ACCUMULATORS,
    E_FORM,
    E_LANES,
    E_PIXELS,
    E_WIDTH,
    KIND_MATMUL,
    KIND_VECTOR,
    M_INPUTS,
    M_MODE,
    M_PASSES,
    M_PRODUCTS,
    O_ABITS,
    O_COLS,
    O_GROUPS,
    O_IMPLICIT,
    O_IN0,
    O_IN1,
    O_KIND,
    O_OBITS,
    O_OUT,
    O_PARAM_BITS,
    O_PASSES,
    O_RBITS,
    O_REQUANTIZATIONS,
    O_ROWS_H,
    O_ROWS_W,
    O_TABLE,
    O_UNIT_EXTRA,
    O_UNITS,
    T_BITS,
    EngineTable,
    OpTable,
)  # fmt: skip
from accelsim.program import Int64

Float = np.ndarray
COMPONENTS = (
    "array", "vector", "activation_read", "activation_write", "weight_read", "weight_write", "dram_read", "dram_write",
)  # fmt: skip
(
    ARRAY, VECTOR, ACTIVATION_READ, ACTIVATION_WRITE, WEIGHT_READ, WEIGHT_WRITE, DRAM_READ, DRAM_WRITE,
) = range(len(COMPONENTS))  # fmt: skip
_PER_ENGINE = len(ENGINE_COUNTS)
_OUTPUTS, _TABLES, _ACCUMULATES = range(MAX_MODES, _PER_ENGINE)
_ANY = 1 << 60  # a block that holds everything


def least_energies_pj(table: OpTable, engines: EngineTable, accelerator: Accelerator) -> tuple[Float, Float]:
    """[n, COMPONENTS] least dynamic energy of every op in pJ, and the part [n] of it that reads second operands.

    Arithmetic convention; second operands that are activations.  An op with a slice that no engine executes has
    infinite array energy.  Raises AccelsimError as `price` does.
    """
    prices = unit_energies(accelerator)
    first = _PER_ENGINE * len(accelerator.engines)
    memory = prices[first + len(VECTOR_KINDS) :]
    bits = _memory_bits(table, accelerator)
    result = np.zeros((len(table.ops), len(COMPONENTS)))
    second = np.where(table.ops[:, O_KIND] == KIND_VECTOR, table.ops[:, O_IN1] * table.ops[:, O_RBITS], 0.0)
    second += _add_arrays(result, bits, table, engines, prices)
    result[:, VECTOR] = table.vector.sum(axis=1) @ prices[first : first + len(VECTOR_KINDS)]
    result[:, ACTIVATION_READ:] = bits * memory
    return result, second * memory[0]


def spill_pj_per_bit(accelerator: Accelerator) -> float:
    """Least energy of a bit of a spilled tensor over the bus: the bus, and the activation buffer at the other end."""
    memory = unit_energies(accelerator)[-6:]
    return float(min(memory[:2]) + min(memory[4:]))


def _add_arrays(result: Float, bits: Float, table: OpTable, engines: EngineTable, prices: Float) -> Float:
    """Add what array ops do on engines to `result`, and what they read through their ports to `bits`.

    Returns the bits [n] of second operands that are activations.

    Of slices that share an op's work ("balanced") the cheapest could do all of it.
    """
    items = items_of(table)
    if not len(items):
        return np.zeros(len(result))
    n_engines = len(engines.engines)
    array = np.full((len(items), n_engines), np.inf)
    left, right = array.copy(), array.copy()
    for e in range(n_engines):
        there = np.flatnonzero(engines.modes[items[:, I_COMBO], e, M_MODE] >= 0)
        own = prices[e * _PER_ENGINE : (e + 1) * _PER_ENGINE]
        part, modes = items[there], engines.modes[items[there, I_COMBO], e]
        array[there, e] = _engine_pj(table, part, modes, engines.engines[e], own)
        left[there, e], right[there, e] = _operand_bits(table, part, modes, engines.engines[e])
    owner = np.zeros(int(items[:, I_GROUP].max()) + 1, np.int64)
    owner[items[:, I_GROUP]] = items[:, I_OP]
    totals = []
    for values in (array, left, right):
        least = np.full(len(owner), np.inf)
        np.minimum.at(least, items[:, I_GROUP], values.min(axis=1))
        totals.append(np.bincount(owner, weights=least, minlength=len(result)))
    result[:, ARRAY] += totals[0]
    matmul = table.ops[:, O_KIND] == KIND_MATMUL
    reads = np.where(np.isfinite(totals), totals, 0.0)
    second = np.where(matmul, reads[2], 0.0)
    bits[:, 0] += reads[1] + second
    bits[:, 2] += reads[2] - second
    return second


def _results(items: Int64) -> Int64:
    return np.asarray(items[:, I_G] * items[:, I_R] * items[:, I_C], np.int64)


def _engine_pj(table: OpTable, items: Int64, modes: Int64, engine: Int64, prices: Float) -> Float:
    """Products, accumulator updates and output stage of items on an engine: each at least that of the whole engine."""
    ops = table.ops[items[:, I_OP]]
    taps, depth, results = items[:, I_TAPS], items[:, I_DEPTH], _results(items)
    width = int(engine[E_WIDTH])
    if engine[E_FORM] != FORM_TREE:
        serial = int(engine[E_FORM]) & (SCALESIM - 1) == FORM_OS
        updates = taps * depth if serial else -(-taps * depth // width)
    else:
        inputs = modes[:, M_INPUTS]
        dense = taps * -(-depth // (width * inputs)) * modes[:, M_PASSES]
        updates = np.where(items[:, I_DEPTHWISE] == 1, -(-taps // inputs), dense)
    products = np.asarray(prices)[modes[:, M_MODE]] * (taps * depth)
    stage = prices[_OUTPUTS] * ops[:, O_REQUANTIZATIONS] + prices[_TABLES] * ops[:, O_TABLE]
    return np.asarray(results * (products + updates * prices[_ACCUMULATES] + stage), np.float64)


def _operand_bits(table: OpTable, items: Int64, modes: Int64, engine: Int64) -> tuple[Float, Float]:
    """(left, right) operand bits that items read: left once per channel block, right once per position block."""
    ops = table.ops[items[:, I_OP]]
    lanes, width, pixels = (int(engine[k]) for k in (E_LANES, E_WIDTH, E_PIXELS))
    products, depthwise = modes[:, M_PRODUCTS], items[:, I_DEPTHWISE] == 1
    form = int(engine[E_FORM])
    held = _ANY if form >= SCALESIM else int(engine[E_ACCUMULATORS])
    channels: np.ndarray | int
    positions: np.ndarray | int
    if form == FORM_TREE:
        channels = np.where(depthwise, _ANY, lanes * products)
        positions = np.where(depthwise, lanes * pixels * products, pixels)
    elif form & (SCALESIM - 1) == FORM_OS:
        channels, positions = lanes * products, width
    elif form & (SCALESIM - 1) == FORM_IS:
        channels, positions = np.minimum(_ANY, products * held), lanes
    else:
        channels, positions = lanes * products, held
    reduction = items[:, I_G] * items[:, I_TAPS] * items[:, I_DEPTH]
    left = reduction * items[:, I_R] * -(-items[:, I_C] // channels) * items[:, I_ABITS]
    stored = items[:, I_C] - ops[:, O_IMPLICIT]
    right = reduction * -(-items[:, I_R] // positions) * stored * items[:, I_WBITS]
    return np.asarray(left, np.float64), np.asarray(right, np.float64)


def _memory_bits(table: OpTable, accelerator: Accelerator) -> Float:
    """[n, 6] bits of every op from activation reads to DRAM writes, without the operands of arrays."""
    ops, graph = table.ops, graph_of(table)
    burst = accelerator.dram.burst_bits
    vector = ops[:, O_KIND] == KIND_VECTOR
    results = ops[:, O_GROUPS] * ops[:, O_ROWS_H] * ops[:, O_ROWS_W] * ops[:, O_COLS] * ops[:, O_OBITS]
    written = np.where(vector, table.tensors[ops[:, O_OUT], T_BITS], results)
    bits = np.zeros((len(ops), len(COMPONENTS) - ACTIVATION_READ))
    streamed = ops[:, O_PASSES] * ops[:, O_IN0] * ops[:, O_ABITS] + ops[:, O_IN1] * ops[:, O_RBITS]
    bits[:, 0] = np.where(vector, streamed, 0) + graph.output_bits
    bits[:, 1] = written + graph.input_bits
    bits[:, 2] = np.where(vector, ops[:, O_PARAM_BITS], ops[:, O_UNITS] * ops[:, O_UNIT_EXTRA])
    bits[:, 3] = graph.weights_bits
    whole = [-(-part // burst) * burst for part in (graph.weights_bits, graph.input_bits, graph.output_bits)]
    bits[:, 4], bits[:, 5] = whole[0] + whole[1], whole[2]
    return bits
