"""Rows of the program on array engines: of one form of an op, or of a reduction in segments."""

from __future__ import annotations

from typing import Any

from accelsim.kernels.emit import new_row, set_reads, set_write
from accelsim.kernels.engine_forms import tile_cycles
from accelsim.kernels.jit import inner
from accelsim.kernels.mapper import P_ENGINE, P_LANES, P_PIXELS, P_SLICE, P_WIDTH
from accelsim.kernels.part_forms import part_lead, sized_part_cycles, used_size
from accelsim.kernels.segments import (
    G_ABITS,
    G_DEPTH,
    G_INPUTS,
    G_PASSES,
    G_PRODUCTS,
    G_SHIFT,
    G_WBITS,
    count_shifts,
    most_products,
    segmented_tile,
)
from accelsim.kernels.tables import (
    SEG_FORM,
    SEG_LEFT_LESS,
    SEG_PARTS,
    SEG_RIGHT_LESS,
    SEG_SHIFT,
    TICKS,
    TIMES,
    Output,
    Tables,
)
from accelsim.kernels.tile_counts import count_alignment, count_outputs, count_products, count_segment
from accelsim.optable import (
    E_APORT,
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
    O_UNITS_ARE_COLS,
    S_BITS,
    S_COMBO,
)  # fmt: skip
from accelsim.program import LEAD


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
def emit_form(
    tables: Tables, out: Output, chain: Any, k: int, part: Any, form: int, units: int, rows: int, narrow_outputs: int,
    left: Any, right: Any, opens: bool, where: Any,
) -> None:  # fmt: skip
    """One row in one form; `left` and `right` are what its operands have less, as `count_products` takes it."""
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
    count_outputs(tables, out.counts[k], k, part, form, units, rows, narrow_outputs, times)
    count_products(tables, out.counts[k], k, part, form, units, rows, left, right, times)


@inner
def span_of(tables: Tables, k: int, part: Any, group: int) -> Any:
    """(first row of `tables.segments`, segments) of a part's reduction for rows of one group; (0, 0) without."""
    span = tables.segment_spans[k, part[P_SLICE], part[P_ENGINE], group]
    return span[0], span[1]


@inner
def _fill_segments(tables: Tables, out: Output, part: Any, first: int, n: int) -> None:
    """Write the numbers of a part's segments where `segmented_tile` reads them."""
    for s in range(n):
        form = tables.segments[first + s, SEG_FORM]
        mode = tables.modes[tables.form_slices[form, part[P_SLICE], S_COMBO], part[P_ENGINE]]
        out.segments[s, G_DEPTH] = tables.forms[form, O_DEPTH]
        out.segments[s, G_PRODUCTS] = mode[M_PRODUCTS]
        out.segments[s, G_PASSES] = mode[M_PASSES]
        out.segments[s, G_INPUTS] = mode[M_INPUTS]
        out.segments[s, G_ABITS] = tables.forms[form, O_ABITS]
        out.segments[s, G_WBITS] = tables.form_slices[form, part[P_SLICE], S_BITS]
        out.segments[s, G_SHIFT] = tables.segments[first + s, SEG_SHIFT]


@inner
def emit_segments(
    tables: Tables, out: Output, chain: Any, k: int, part: Any, units: int, rows: int, narrow_outputs: int, group: int,
    left: Any, opens: bool, where: Any,
) -> None:  # fmt: skip
    """One row whose reduction runs in segments, on an adder-tree array; `left` is what narrow rows have less."""
    first, n = span_of(tables, k, part, group)
    _fill_segments(tables, out, part, first, n)
    engine, by_cols = tables.engines[part[P_ENGINE]], tables.ops[k, O_UNITS_ARE_COLS] == 1
    pace, blocks, compute, drain = segmented_tile(
        1 if by_cols else units, rows, units if by_cols else tables.ops[k, O_COLS],
        used_size(part[P_LANES], engine[E_LANES]), used_size(part[P_PIXELS], engine[E_PIXELS]),
        used_size(part[P_WIDTH], engine[E_WIDTH]), out.segments, n,
        (engine[E_APORT], engine[E_WPORT], engine[E_OUTPUTS]),
    )  # fmt: skip
    occupancy, latency = tile_cycles(pace, blocks, compute, drain, engine[E_PIPELINE])
    lead = compute + engine[E_PIPELINE]
    _place_row(tables, out, chain, k, part[P_ENGINE], (occupancy, latency, lead), opens, where)
    times = out.cursor[TIMES]
    count_outputs(tables, out.counts[k], k, part, k, units, rows, narrow_outputs, times)
    products = most_products(out.segments, n)
    for s in range(n):
        one = tables.segments[first + s]
        less = left if left[1] > 0 else (one[SEG_PARTS], one[SEG_LEFT_LESS])
        right = (one[SEG_PARTS], one[SEG_RIGHT_LESS])
        count_segment(tables, out.counts[k], k, part, one[SEG_FORM], units, rows, less, right, products, times)
    count_alignment(tables, out.counts[k], k, part, units, rows, times * count_shifts(out.segments, n))


@inner
def emit_one_segment(
    tables: Tables, out: Output, chain: Any, k: int, part: Any, units: int, rows: int, opens: bool, where: Any
) -> None:
    """One row of a reduction over parts that all run in one mode with one shift: nothing is split."""
    one = tables.segments[span_of(tables, k, part, 0)[0]]
    left, right = (one[SEG_PARTS], one[SEG_LEFT_LESS]), (one[SEG_PARTS], one[SEG_RIGHT_LESS])
    emit_form(tables, out, chain, k, part, one[SEG_FORM], units, rows, 0, left, right, opens, where)
