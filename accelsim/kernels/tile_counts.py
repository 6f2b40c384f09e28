"""What one array tile counts: products, outputs, accumulator updates and SRAM traffic; columns of the counts."""

from __future__ import annotations

from typing import Any

from accelsim.counts import ENGINE_COUNTS, MAX_MODES
from accelsim.ir import VECTOR_KINDS
from accelsim.kernels.engine_forms import (
    ceil_div,
    dense_accumulates,
    dense_reads,
    depthwise_accumulates,
    depthwise_reads,
    depthwise_word,
)  # fmt: skip
from accelsim.kernels.jit import inner
from accelsim.kernels.mapper import (
    P_ENGINE,
    P_LANES,
    P_PIXELS,
    P_SLICE,
    P_WIDTH,
)  # fmt: skip
from accelsim.kernels.part_forms import used_size
from accelsim.kernels.systolic_forms import FORM_TREE, systolic_accumulates, systolic_reads
from accelsim.kernels.tables import Tables
from accelsim.optable import (
    E_ACCUMULATORS,
    E_FORM,
    E_LANES,
    E_PIXELS,
    E_WIDTH,
    KIND_MATMUL,
    M_INPUTS,
    M_MODE,
    M_PASSES,
    M_PRODUCTS,
    O_ABITS,
    O_COLS,
    O_DEPTH,
    O_DEPTHWISE,
    O_IMPLICIT,
    O_KIND,
    O_OBITS,
    O_RBITS,
    O_REQUANTIZATIONS,
    O_TABLE,
    O_TAPS,
    O_UNIT_EXTRA,
    O_UNITS_ARE_COLS,
    S_BITS,
    S_COMBO,
)  # fmt: skip

PER_ENGINE = len(ENGINE_COUNTS)
_OUTPUTS, _TABLES, _ACCUMULATES = range(MAX_MODES, PER_ENGINE)
_KINDS = len(VECTOR_KINDS)
ACT_READ, ACT_WRITE, WEIGHT_READ, WEIGHT_WRITE, DRAM_READ, DRAM_WRITE = range(_KINDS, _KINDS + 6)


@inner
def _count_systolic(tables: Tables, k: int, e: int, products: int, weight_bits: int, units: int, rows: int) -> Any:
    """(activation bits, weight bits, accumulator updates, outputs) of a tile on systolic array e."""
    ops, engine = tables.ops, tables.engines[e]
    groups = 1 if ops[k, O_UNITS_ARE_COLS] == 1 else units
    cols = units if ops[k, O_UNITS_ARE_COLS] == 1 else ops[k, O_COLS]
    reduction = ops[k, O_TAPS] * ops[k, O_DEPTH]
    activation, weight = systolic_reads(
        engine[E_FORM], groups, rows, cols, reduction, engine[E_WIDTH], engine[E_LANES], products,
        engine[E_ACCUMULATORS], ops[k, O_ABITS], weight_bits,
    )  # fmt: skip
    accumulates = systolic_accumulates(engine[E_FORM], groups, rows, cols, reduction, engine[E_WIDTH])
    return activation, weight, accumulates, groups * rows * cols


@inner
def count_part(tables: Tables, counts: Any, k: int, part: Any, units: int, rows: int, times: int) -> None:
    """Add products, outputs, accumulator updates and SRAM traffic of `times` array tiles to the counts of op k."""
    ops = tables.ops
    e, s = part[P_ENGINE], part[P_SLICE]
    combo = tables.slices[k, s, S_COMBO]
    mode, products = tables.modes[combo, e, M_MODE], tables.modes[combo, e, M_PRODUCTS]
    passes, inputs = tables.modes[combo, e, M_PASSES], tables.modes[combo, e, M_INPUTS]
    lanes = used_size(part[P_LANES], tables.engines[e, E_LANES])
    pixels = used_size(part[P_PIXELS], tables.engines[e, E_PIXELS])
    width = used_size(part[P_WIDTH], tables.engines[e, E_WIDTH]) * inputs
    weight_bits = tables.slices[k, s, S_BITS]
    own = e * PER_ENGINE
    shared = tables.engines.shape[0] * PER_ENGINE
    form, reads_of_weights = tables.engines[e, E_FORM], ceil_div(rows, pixels)
    if form != FORM_TREE:
        activation, weight, accumulates, outputs = _count_systolic(tables, k, e, products, weight_bits, units, rows)
        macs = outputs * ops[k, O_TAPS] * ops[k, O_DEPTH]
        reads_of_weights = weight * rows // (macs * weight_bits)
    elif ops[k, O_DEPTHWISE] == 1:
        outputs = units * rows
        activation, weight = depthwise_reads(
            units, rows, ops[k, O_TAPS], lanes, products, pixels, ops[k, O_ABITS], weight_bits
        )
        steps = depthwise_word(ops[k, O_TAPS], inputs, ops[k, O_ABITS], weight_bits)[0]
        accumulates = depthwise_accumulates(units, rows, steps)
        macs = outputs * ops[k, O_TAPS]
    else:
        groups = 1 if ops[k, O_UNITS_ARE_COLS] == 1 else units
        cols = units if ops[k, O_UNITS_ARE_COLS] == 1 else ops[k, O_COLS]
        outputs = groups * rows * cols
        activation, weight = dense_reads(
            groups, rows, cols, ops[k, O_TAPS], ops[k, O_DEPTH], lanes, products, pixels, ops[k, O_ABITS], weight_bits
        )
        accumulates = dense_accumulates(groups, rows, cols, ops[k, O_TAPS], ops[k, O_DEPTH], width, passes)
        macs = outputs * ops[k, O_TAPS] * ops[k, O_DEPTH]
    counts[own + mode] += macs * times
    counts[own + _OUTPUTS] += outputs * times * ops[k, O_REQUANTIZATIONS]
    counts[own + _TABLES] += outputs * times * ops[k, O_TABLE]
    counts[own + _ACCUMULATES] += accumulates * times
    counts[shared + ACT_READ] += activation * times
    # The output stage reads bias, scale and index of every channel of the tile; constant columns are not read.
    counts[shared + WEIGHT_READ] += units * ops[k, O_UNIT_EXTRA] * times
    weight -= reads_of_weights * units * ops[k, O_IMPLICIT] * ops[k, O_DEPTH] * ops[k, O_RBITS]
    right = ACT_READ if ops[k, O_KIND] == KIND_MATMUL else WEIGHT_READ
    counts[shared + right] += weight * times
    counts[shared + ACT_WRITE] += outputs * ops[k, O_OBITS] * times
