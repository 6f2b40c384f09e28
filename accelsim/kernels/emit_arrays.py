"""Emission of array tiles: a row per engine that has a part, or one per group of tokens where their modes differ."""

from __future__ import annotations

from typing import Any

from accelsim.kernels.emit import new_row, set_reads, set_write
from accelsim.kernels.engine_forms import ceil_div, tile_cycles
from accelsim.kernels.jit import inner
from accelsim.kernels.mapper import (
    C_AXIS,
    C_BLOCKS,
    C_TILE,
    P_ENGINE,
    P_LANES,
    P_PIXELS,
    P_SLICE,
    P_UNITS,
    P_WIDTH,
)  # fmt: skip
from accelsim.kernels.part_forms import part_lead, sized_part_cycles, used_size
from accelsim.kernels.segments import segmented_tile
from accelsim.kernels.tables import TICKS, TIMES, Output, Tables
from accelsim.kernels.tile_counts import count_alignment, count_outputs, count_products
from accelsim.kernels.tiling import block_units
from accelsim.kernels.token_rows import narrow_rows
from accelsim.optable import (
    AXIS_GROUPS,
    E_APORT,
    E_LANES,
    E_OUTPUTS,
    E_PIPELINE,
    E_PIXELS,
    E_WIDTH,
    E_WPORT,
    FORMS,
    G_FORM,
    G_LEFT_DROP,
    G_LEFT_HIGH,
    G_OUT_HIGH,
    G_RIGHT_AXIS,
    G_RIGHT_DROP,
    G_RIGHT_HIGH,
    M_INPUTS,
    M_PASSES,
    M_PRODUCTS,
    O_ABITS,
    O_COLS,
    O_DEPTH,
    O_ROWS_H,
    O_ROWS_W,
    RIGHT_COLS,
    RIGHT_WHOLE,
    S_BITS,
    S_COMBO,
    S_FULL,
    S_NARROW,
    S_WHOLE,
)  # fmt: skip
from accelsim.program import LEAD


@inner
def emit_array(
    tables: Tables, out: Output, chain: Any, k: int, stage: int, tile: int, size: int, block: int, opens: bool,
    resident_output: bool, weight: Any,
) -> None:  # fmt: skip
    """One tile (and weight block) of an array op: the units of every part, in the groups of its tokens."""
    grouped = chain[C_AXIS] == AXIS_GROUPS
    rows = (tables.ops[k, O_ROWS_H] if grouped else size) * tables.ops[k, O_ROWS_W]
    first_row = 0 if grouped else tile * chain[C_TILE]
    left = size
    for p in range(tables.n_parts[k]):
        part = tables.parts[k, p]
        if grouped:
            # A shorter last tile gives every part its share, rounded up, until nothing is left.
            units = min(left, ceil_div(part[P_UNITS] * size, chain[C_TILE]))
            left -= units
        else:
            share = block_units(tables.ops, tables.engines, tables.modes, tables.slices, k, part, chain[C_BLOCKS])
            units = max(0, min(share, part[P_UNITS] - block * share))
        if units == 0:
            continue
        where = (stage, tile == 0, resident_output, weight)
        _emit_part(tables, out, chain, k, part, units, first_row, rows, opens, where)
        opens = False


@inner
def form_of(tables: Tables, k: int, narrow_left: int, right: int) -> int:
    """Row of `tables.forms`: op k with rows of one group (0: full, 1: narrow) and the right operand's S_ form."""
    if narrow_left == 0 and right == S_WHOLE:
        return k
    return tables.ops.shape[0] + tables.groups[k, G_FORM] + narrow_left * (FORMS // 2) + right


@inner
def _same_mode(tables: Tables, part: Any, a: int, b: int) -> bool:
    """True when a part's engine executes two forms alike: narrow operands are decoded, nothing is gained."""
    one, other = tables.form_slices[a, part[P_SLICE], S_COMBO], tables.form_slices[b, part[P_SLICE], S_COMBO]
    for column in range(tables.modes.shape[2]):
        if tables.modes[one, part[P_ENGINE], column] != tables.modes[other, part[P_ENGINE], column]:
            return False
    return True


@inner
def _narrow_right(tables: Tables, k: int) -> int:
    """Narrow tokens of the right operand."""
    axis = tables.groups[k, G_RIGHT_AXIS]
    if axis == RIGHT_WHOLE:
        return 0
    return max(0, tables.ops[k, O_COLS if axis == RIGHT_COLS else O_DEPTH] - tables.groups[k, G_RIGHT_HIGH])


@inner
def _emit_part(
    tables: Tables, out: Output, chain: Any, k: int, part: Any, units: int, first_row: int, rows: int, opens: bool,
    where: Any,
) -> None:  # fmt: skip
    """The rows of a part in one row of the program, or full and narrow ones apart where their modes differ."""
    narrow = narrow_rows(tables.groups[k, G_LEFT_HIGH], first_row, rows)
    apart = False
    if narrow > 0:
        last = S_WHOLE if _narrow_right(tables, k) == 0 else S_NARROW
        for right in range(S_WHOLE, last + 1):
            if not _same_mode(tables, part, form_of(tables, k, 0, right), form_of(tables, k, 1, right)):
                apart = True
    if not apart:
        _emit_rows(tables, out, chain, k, part, units, (first_row, rows, narrow, 0), opens, where)
        return
    full = rows - narrow
    if full > 0:
        _emit_rows(tables, out, chain, k, part, units, (first_row, full, 0, 0), opens, where)
    _emit_rows(
        tables, out, chain, k, part, units, (first_row + full, narrow, 0, 1), opens and full == 0, where
    )  # fmt: skip


@inner
def _emit_rows(
    tables: Tables, out: Output, chain: Any, k: int, part: Any, units: int, span: Any, opens: bool, where: Any
) -> None:
    """Rows that run in one form of the left operand, with all of the right operand.

    `span` is (first row, rows, narrow ones that are decoded, 1 for the form of narrow rows).
    """
    narrow = _narrow_right(tables, k)
    axis = tables.groups[k, G_RIGHT_AXIS]
    whole = form_of(tables, k, span[3], S_WHOLE)
    if narrow == 0 or _same_mode(
        tables, part, form_of(tables, k, span[3], S_FULL), form_of(tables, k, span[3], S_NARROW)
    ):
        _emit_form(tables, out, chain, k, part, whole, units, span, narrow, opens, where)
    elif axis == RIGHT_COLS:
        for right in (S_FULL, S_NARROW):
            form = form_of(tables, k, span[3], right)
            _emit_form(tables, out, chain, k, part, form, units, span, 0, opens and right == S_FULL, where)
    else:
        _emit_segments(tables, out, chain, k, part, units, span, opens, where)


@inner
def _narrow_outputs(tables: Tables, k: int, span: Any) -> int:
    return narrow_rows(tables.groups[k, G_OUT_HIGH], span[0], span[1])


@inner
def _place_row(
    tables: Tables, out: Output, chain: Any, k: int, engine: int, cycles: Any, opens: bool, where: Any
) -> None:
    """A row of an engine: `cycles` are (occupancy, latency, lead)."""
    ticks = tables.scalars[TICKS]
    stage, first_tile, resident_output, weight = where
    t = new_row(out, engine, k, cycles[0] * ticks, cycles[1] * ticks)
    out.templates[t, LEAD] = ticks * cycles[2]
    set_reads(tables, out, chain, t, k, stage, first_tile, weight)
    set_write(tables, out, t, k, stage, resident_output, opens)


@inner
def _emit_form(
    tables: Tables, out: Output, chain: Any, k: int, part: Any, form: int, units: int, span: Any, narrow_right: int,
    opens: bool, where: Any,
) -> None:  # fmt: skip
    """One row in one form; `narrow_right` tokens of the right operand are decoded."""
    rows = span[1]
    occupancy, latency = sized_part_cycles(
        tables.forms, tables.form_slices, tables.engines, tables.modes, form, part[P_ENGINE], part[P_SLICE], units,
        rows, part[P_LANES], part[P_WIDTH], part[P_PIXELS],
    )  # fmt: skip
    lead = part_lead(
        tables.forms, tables.form_slices, tables.engines, tables.modes, form, part[P_ENGINE], part[P_SLICE], units,
        rows, part[P_LANES], part[P_WIDTH], part[P_PIXELS],
    )  # fmt: skip
    _place_row(tables, out, chain, k, part[P_ENGINE], (occupancy, latency, lead), opens, where)
    times = out.cursor[TIMES]
    count_outputs(tables, out.counts[k], k, part, form, units, rows, _narrow_outputs(tables, k, span), times)
    count_products(
        tables, out.counts[k], k, part, form, units, rows, span[2] * tables.groups[k, G_LEFT_DROP],
        narrow_right * tables.groups[k, G_RIGHT_DROP], times,
    )  # fmt: skip


@inner
def _segment(tables: Tables, part: Any, form: int) -> Any:
    """(depth, products, passes, inputs, activation bits, weight bits) of a form."""
    mode = tables.modes[tables.form_slices[form, part[P_SLICE], S_COMBO], part[P_ENGINE]]
    weight_bits = tables.form_slices[form, part[P_SLICE], S_BITS]
    op = tables.forms[form]
    return op[O_DEPTH], mode[M_PRODUCTS], mode[M_PASSES], mode[M_INPUTS], op[O_ABITS], weight_bits


@inner
def _emit_segments(
    tables: Tables, out: Output, chain: Any, k: int, part: Any, units: int, span: Any, opens: bool, where: Any
) -> None:
    """One row whose reduction has a narrow and a full segment, on an adder-tree array."""
    full, narrow = form_of(tables, k, span[3], S_FULL), form_of(tables, k, span[3], S_NARROW)
    rows, engine = span[1], tables.engines[part[P_ENGINE]]
    pace, blocks, compute, drain = segmented_tile(
        units, rows, tables.ops[k, O_COLS], used_size(part[P_LANES], engine[E_LANES]),
        used_size(part[P_PIXELS], engine[E_PIXELS]), used_size(part[P_WIDTH], engine[E_WIDTH]),
        _segment(tables, part, full), _segment(tables, part, narrow),
        (engine[E_APORT], engine[E_WPORT], engine[E_OUTPUTS]),
    )  # fmt: skip
    occupancy, latency = tile_cycles(pace, blocks, compute, drain, engine[E_PIPELINE])
    lead = compute + engine[E_PIPELINE]
    _place_row(tables, out, chain, k, part[P_ENGINE], (occupancy, latency, lead), opens, where)
    times = out.cursor[TIMES]
    count_outputs(tables, out.counts[k], k, part, k, units, rows, _narrow_outputs(tables, k, span), times)
    less = span[2] * tables.groups[k, G_LEFT_DROP]
    for form in (narrow, full):
        count_products(tables, out.counts[k], k, part, form, units, rows, less, 0, times)
    count_alignment(tables, out.counts[k], k, part, units, rows, times)
