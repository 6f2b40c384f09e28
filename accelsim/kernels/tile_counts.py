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
from accelsim.kernels.segments import column_passes
from accelsim.kernels.systolic_forms import FORM_TREE, systolic_accumulates, systolic_reads
from accelsim.kernels.tables import Tables
from accelsim.optable import (
    E_ACCUMULATORS,
    E_FORM,
    E_LANES,
    E_PIXELS,
    E_WIDTH,
    G_OUT_DROP,
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
def _count_systolic(ops: Any, engine: Any, v: int, products: int, weight_bits: int, units: int, rows: int) -> Any:
    """(activation bits, weight bits, accumulator updates, outputs) of a tile on a systolic array."""
    groups = 1 if ops[v, O_UNITS_ARE_COLS] == 1 else units
    cols = units if ops[v, O_UNITS_ARE_COLS] == 1 else ops[v, O_COLS]
    reduction = ops[v, O_TAPS] * ops[v, O_DEPTH]
    activation, weight = systolic_reads(
        engine[E_FORM], groups, rows, cols, reduction, engine[E_WIDTH], engine[E_LANES], products,
        engine[E_ACCUMULATORS], ops[v, O_ABITS], weight_bits,
    )  # fmt: skip
    accumulates = systolic_accumulates(engine[E_FORM], groups, rows, cols, reduction, engine[E_WIDTH])
    return activation, weight, accumulates, groups * rows * cols


@inner
def count_part(tables: Tables, counts: Any, k: int, part: Any, units: int, rows: int, times: int) -> None:
    """Add products, outputs, accumulator updates and SRAM traffic of `times` array tiles to the counts of op k."""
    count_outputs(tables, counts, k, part, k, units, rows, 0, times)
    count_products(tables, counts, k, part, k, units, rows, (1, 0), (1, 0), times)


@inner
def count_outputs(
    tables: Tables, counts: Any, k: int, part: Any, v: int, units: int, rows: int, narrow: int, times: int
) -> None:
    """Add outputs and what the output stage reads and writes; `v` is the form, `narrow` rows are stored narrow."""
    ops = tables.forms
    own, shared = part[P_ENGINE] * PER_ENGINE, tables.engines.shape[0] * PER_ENGINE
    outputs = units * rows
    if ops[v, O_DEPTHWISE] == 0 and ops[v, O_UNITS_ARE_COLS] == 0:
        outputs *= ops[v, O_COLS]
    counts[own + _OUTPUTS] += outputs * times * ops[v, O_REQUANTIZATIONS]
    counts[own + _TABLES] += outputs * times * ops[v, O_TABLE]
    # The output stage reads bias, scale and index of every channel of the tile; constant columns are not read.
    counts[shared + WEIGHT_READ] += units * ops[v, O_UNIT_EXTRA] * times
    written = outputs * ops[v, O_OBITS] - outputs // rows * narrow * tables.groups[k, G_OUT_DROP]
    counts[shared + ACT_WRITE] += written * times


@inner
def count_products(
    tables: Tables, counts: Any, k: int, part: Any, v: int, units: int, rows: int, left: Any, right: Any, times: int
) -> None:
    """Add products, accumulator updates and operands of `times` array tiles of form v of op k.

    Of a tile in one form operands are read at their own widths.  `left` and `right` are (runs, bits): an operand
    consists of so many equal runs (tokens, heads), of which one element each together has so many bits less than the
    form says.
    """
    ops = tables.forms
    e, s = part[P_ENGINE], part[P_SLICE]
    combo = tables.form_slices[v, s, S_COMBO]
    mode, products = tables.modes[combo, e, M_MODE], tables.modes[combo, e, M_PRODUCTS]
    passes, inputs = tables.modes[combo, e, M_PASSES], tables.modes[combo, e, M_INPUTS]
    lanes = used_size(part[P_LANES], tables.engines[e, E_LANES])
    pixels = used_size(part[P_PIXELS], tables.engines[e, E_PIXELS])
    width = used_size(part[P_WIDTH], tables.engines[e, E_WIDTH]) * inputs
    weight_bits = tables.form_slices[v, s, S_BITS]
    form, reads_of_weights = tables.engines[e, E_FORM], ceil_div(rows, pixels)
    if form != FORM_TREE:
        activation, weight, accumulates, outputs = _count_systolic(
            ops, tables.engines[e], v, products, weight_bits, units, rows
        )
        macs = outputs * ops[v, O_TAPS] * ops[v, O_DEPTH]
        reads_of_weights = weight * rows // (macs * weight_bits)
    elif ops[v, O_DEPTHWISE] == 1:
        outputs = units * rows
        activation, weight = depthwise_reads(
            units, rows, ops[v, O_TAPS], lanes, products, pixels, ops[v, O_ABITS], weight_bits
        )
        steps = depthwise_word(ops[v, O_TAPS], inputs, ops[v, O_ABITS], weight_bits)[0]
        accumulates = depthwise_accumulates(units, rows, steps)
        macs = outputs * ops[v, O_TAPS]
    else:
        groups = 1 if ops[v, O_UNITS_ARE_COLS] == 1 else units
        cols = units if ops[v, O_UNITS_ARE_COLS] == 1 else ops[v, O_COLS]
        outputs = groups * rows * cols
        activation, weight = dense_reads(
            groups, rows, cols, ops[v, O_TAPS], ops[v, O_DEPTH], lanes, products, pixels, ops[v, O_ABITS], weight_bits
        )
        accumulates = dense_accumulates(groups, rows, cols, ops[v, O_TAPS], ops[v, O_DEPTH], width, passes)
        macs = outputs * ops[v, O_TAPS] * ops[v, O_DEPTH]
    own, shared = e * PER_ENGINE, tables.engines.shape[0] * PER_ENGINE
    counts[own + mode] += macs * times
    counts[own + _ACCUMULATES] += accumulates * times
    if left[1] > 0:
        activation -= activation // (left[0] * ops[v, O_ABITS]) * left[1]
    counts[shared + ACT_READ] += activation * times
    if right[1] > 0:
        weight -= weight // (right[0] * weight_bits) * right[1]
    weight -= reads_of_weights * units * ops[v, O_IMPLICIT] * ops[v, O_DEPTH] * ops[v, O_RBITS]
    right = ACT_READ if ops[v, O_KIND] == KIND_MATMUL else WEIGHT_READ
    counts[shared + right] += weight * times


@inner
def count_segment(
    tables: Tables, counts: Any, k: int, part: Any, v: int, units: int, rows: int, left: Any, right: Any,
    block_products: int, times: int,
) -> None:  # fmt: skip
    """As `count_products`, of a segment of a reduction whose blocks have the channels of `block_products` products.

    Where the products of the segment's mode do not divide them, a block takes a pass more, which reads the activations
    once more.
    """
    count_products(tables, counts, k, part, v, units, rows, left, right, times)
    ops, e = tables.forms, part[P_ENGINE]
    by_cols = ops[v, O_UNITS_ARE_COLS] == 1
    groups, cols = (1, units) if by_cols else (units, ops[v, O_COLS])
    lanes = used_size(part[P_LANES], tables.engines[e, E_LANES])
    products = tables.modes[tables.form_slices[v, part[P_SLICE], S_COMBO], e, M_PRODUCTS]
    passes = column_passes(cols, lanes, products, block_products) - ceil_div(cols, lanes * products)
    activation = passes * groups * rows * ops[v, O_DEPTH] * ops[v, O_ABITS]
    if left[1] > 0:
        activation -= activation // (left[0] * ops[v, O_ABITS]) * left[1]
    counts[tables.engines.shape[0] * PER_ENGINE + ACT_READ] += activation * times


@inner
def count_alignment(tables: Tables, counts: Any, k: int, part: Any, units: int, rows: int, times: int) -> None:
    """Add the accumulator updates of a tile that are `times` shifts of every output."""
    outputs = units * rows * (1 if tables.ops[k, O_UNITS_ARE_COLS] == 1 else tables.ops[k, O_COLS])
    counts[part[P_ENGINE] * PER_ENGINE + _ACCUMULATES] += outputs * times
