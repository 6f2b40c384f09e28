"""Emission of array tiles: a row per engine that has a part, or one per group of tokens or run of heads where their
modes differ.
"""

from __future__ import annotations

from typing import Any

from accelsim.kernels.emit_rows import emit_form, emit_one_segment, emit_segments, span_of
from accelsim.kernels.engine_forms import ceil_div
from accelsim.kernels.head_parts import has_parts, head_form, part_bits, saved_head_bits, width_of
from accelsim.kernels.jit import inner
from accelsim.kernels.mapper import C_AXIS, C_BLOCKS, C_TILE, P_ENGINE, P_SLICE, P_UNITS
from accelsim.kernels.tables import TIMES, Output, Tables
from accelsim.kernels.tile_counts import ACT_WRITE, PER_ENGINE
from accelsim.kernels.tiling import block_units
from accelsim.kernels.token_rows import narrow_rows
from accelsim.optable import (
    AXIS_GROUPS,
    FORMS,
    G_FORM,
    G_LEFT_DROP,
    G_LEFT_HIGH,
    G_OUT_HIGH,
    G_RIGHT_AXIS,
    G_RIGHT_DROP,
    G_RIGHT_HIGH,
    H_FORM,
    H_LEFT,
    H_RIGHT,
    O_ABITS,
    O_COLS,
    O_DEPTH,
    O_ROWS_H,
    O_ROWS_W,
    O_UNITS_ARE_COLS,
    RIGHT_COLS,
    RIGHT_WHOLE,
    S_BITS,
    S_COMBO,
    S_FULL,
    S_NARROW,
    S_WHOLE,
)  # fmt: skip


@inner
def emit_array(
    tables: Tables, out: Output, chain: Any, k: int, stage: int, tile: int, size: int, block: int, opens: bool,
    resident_output: bool, weight: Any,
) -> None:  # fmt: skip
    """One tile (and weight block) of an array op: the units of every part, in the groups of its tokens, by heads."""
    grouped = chain[C_AXIS] == AXIS_GROUPS
    rows = (tables.ops[k, O_ROWS_H] if grouped else size) * tables.ops[k, O_ROWS_W]
    first_row = 0 if grouped else tile * chain[C_TILE]
    left, first_head = size, 0
    if block == 0:
        # The blocks of a tile write its channels once, whichever engines have them.
        saved = saved_head_bits(tables, chain, k, tile, size) * out.cursor[TIMES]
        out.counts[k, tables.engines.shape[0] * PER_ENGINE + ACT_WRITE] -= saved
    for p in range(tables.n_parts[k]):
        part = tables.parts[k, p]
        if grouped:
            # A shorter last tile gives every part its share, rounded up, until nothing is left.
            units = min(left, ceil_div(part[P_UNITS] * size, chain[C_TILE]))
            first_head = tile * chain[C_TILE] + size - left
            left -= units
        else:
            share = block_units(tables.ops, tables.engines, tables.modes, tables.slices, k, part, chain[C_BLOCKS])
            units = max(0, min(share, part[P_UNITS] - block * share))
        if units == 0:
            continue
        where = (stage, tile == 0, resident_output, weight)
        if tables.heads[k, H_FORM] < 0:
            _emit_part(tables, out, chain, k, part, units, first_row, rows, opens, where)
        elif tables.ops[k, O_UNITS_ARE_COLS] == 0:
            _emit_heads(tables, out, chain, k, part, first_head, units, rows, opens, where)
        elif span_of(tables, k, part, 0)[1] == 1:
            emit_one_segment(tables, out, chain, k, part, units, rows, opens, where)
        else:
            emit_segments(tables, out, chain, k, part, units, rows, 0, 0, (1, 0), opens, where)
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
    first_row, rows, decoded, group = span
    narrow, axis = _narrow_right(tables, k), tables.groups[k, G_RIGHT_AXIS]
    outputs = narrow_rows(tables.groups[k, G_OUT_HIGH], first_row, rows)
    left = (rows, decoded * tables.groups[k, G_LEFT_DROP])
    full, other = form_of(tables, k, group, S_FULL), form_of(tables, k, group, S_NARROW)
    if narrow == 0 or _same_mode(tables, part, full, other):
        form = form_of(tables, k, group, S_WHOLE)
        words = tables.forms[form, O_COLS if axis == RIGHT_COLS else O_DEPTH]
        right = (words, narrow * tables.groups[k, G_RIGHT_DROP])
        emit_form(tables, out, chain, k, part, form, units, rows, outputs, left, right, opens, where)
    elif axis == RIGHT_COLS:
        emit_form(tables, out, chain, k, part, full, units, rows, outputs, left, (1, 0), opens, where)
        emit_form(tables, out, chain, k, part, other, units, rows, outputs, left, (1, 0), False, where)
    else:
        emit_segments(tables, out, chain, k, part, units, rows, outputs, group, left, opens, where)


@inner
def _emit_heads(
    tables: Tables, out: Output, chain: Any, k: int, part: Any, first: int, heads: int, rows: int, opens: bool,
    where: Any,
) -> None:  # fmt: skip
    """A product of `heads` heads from `first` on: a row for every run of neighbours that one mode executes.

    A run takes the time of its widest widths; its operands are read at their own.
    """
    head, stop = first, first + heads
    while head < stop:
        start = head
        left, right = width_of(tables, k, H_LEFT, head), width_of(tables, k, H_RIGHT, head)
        alike = head_form(tables, k, left, right)
        head += 1
        while head < stop:
            own_left, own_right = width_of(tables, k, H_LEFT, head), width_of(tables, k, H_RIGHT, head)
            if not _same_mode(tables, part, alike, head_form(tables, k, own_left, own_right)):
                break
            left, right = max(left, own_left), max(right, own_right)
            head += 1
        form, count = head_form(tables, k, left, right), head - start
        left_less = right_less = 0
        if has_parts(tables, k, H_LEFT):
            left_less = count * tables.forms[form, O_ABITS] - part_bits(tables, k, H_LEFT, start, count)
        if has_parts(tables, k, H_RIGHT):
            wide = tables.form_slices[form, part[P_SLICE], S_BITS]
            right_less = count * wide - part_bits(tables, k, H_RIGHT, start, count)
        emit_form(
            tables, out, chain, k, part, form, count, rows, 0, (count, left_less), (count, right_less),
            opens and start == first, where,
        )  # fmt: skip
