"""Emission of rows: regions, bodies of phases, vector tiles.  Transfers and array tiles have files of their own."""

from __future__ import annotations

from typing import Any

from accelsim.kernels.head_parts import all_saved_bits, saved_head_bits
from accelsim.kernels.jit import inner
from accelsim.kernels.mapper import (
    C_AXIS,
    C_FIRST,
    keeps_halo,
    narrowed_tile_cycles,
)  # fmt: skip
from accelsim.kernels.tables import (
    BODY,
    N_PHASES,
    N_REGIONS,
    N_TEMPLATES,
    OVERFLOW,
    OVERFLOW_READS,
    OVERFLOW_SPACE,
    R_IN0,
    R_IN0_N,
    R_OUT,
    R_OUT_N,
    R_WEIGHT,
    TICKS,
    TIMES,
    VECTOR_LATENCY,
    VECTOR_PORT,
    Output,
    Tables,
)  # fmt: skip
from accelsim.kernels.tile_counts import (
    ACT_READ,
    ACT_WRITE,
    PER_ENGINE,
    WEIGHT_READ,
)
from accelsim.kernels.token_rows import narrow_rows, saved_output_bits
from accelsim.optable import (
    G_OUT_DROP,
    G_OUT_HIGH,
    KIND_VECTOR,
    O_ABITS,
    O_IN0,
    O_IN0_ROOT0,
    O_IN1,
    O_KIND,
    O_OBITS,
    O_OUT,
    O_PARAM_BITS,
    O_PASSES,
    O_RBITS,
    O_ROWS_H,
    T_BITS,
)  # fmt: skip
from accelsim.program import (
    LATENCY,
    OCCUPANCY,
    OP,
    OPENS,
    READ0,
    UNIT,
    WRITE,
)  # fmt: skip


@inner
def new_region(out: Output, buffer: int, bits: int, slots: int, first: int, last: int) -> int:
    """Declare a ring of `slots` regions of `bits`; returns the first.  Offsets are set later, or by the caller."""
    base = out.cursor[N_REGIONS]
    if base + slots > out.regions.shape[0]:
        out.cursor[OVERFLOW] = OVERFLOW_SPACE
        return 0
    for slot in range(slots):
        out.regions[base + slot, 0] = buffer
        out.regions[base + slot, 1] = 0
        out.regions[base + slot, 2] = bits
        out.region_life[base + slot, 0] = first
        out.region_life[base + slot, 1] = last
    out.cursor[N_REGIONS] = base + slots
    return base


@inner
def begin_body(out: Output, times: int) -> None:
    """Rows emitted from here on form the body of one phase that runs `times` iterations."""
    out.cursor[BODY] = out.cursor[N_TEMPLATES]
    out.cursor[TIMES] = times


@inner
def end_body(out: Output, iteration: int) -> None:
    """Close the body begun last; its iterations are numbered from `iteration`."""
    rows = out.cursor[N_TEMPLATES] - out.cursor[BODY]
    if rows == 0:
        return
    p = out.cursor[N_PHASES]
    if p >= out.phases.shape[0]:
        out.cursor[OVERFLOW] = OVERFLOW_SPACE
        return
    out.phases[p, 0], out.phases[p, 1] = out.cursor[BODY], rows
    out.phases[p, 2], out.phases[p, 3] = out.cursor[TIMES], iteration
    out.cursor[N_PHASES] = p + 1


@inner
def new_row(out: Output, unit: int, op: int, occupancy_ticks: int, latency_ticks: int) -> int:
    """Add a row without regions to the body; returns its number."""
    t = out.cursor[N_TEMPLATES]
    if t >= out.templates.shape[0]:
        out.cursor[OVERFLOW] = OVERFLOW_SPACE
        return 0
    out.templates[t, :] = 0
    for k in range(4):
        out.templates[t, READ0 + 3 * k] = -1
    out.templates[t, UNIT] = unit
    out.templates[t, OP] = op
    out.templates[t, OCCUPANCY] = occupancy_ticks
    out.templates[t, LATENCY] = latency_ticks
    out.cursor[N_TEMPLATES] = t + 1
    return t


@inner
def set_region(out: Output, t: int, column: int, base: int, ring: int, shift: int) -> None:
    """Write a reference to a ring of regions into a row, from `column` on."""
    out.templates[t, column] = base
    out.templates[t, column + 1] = ring
    out.templates[t, column + 2] = shift


@inner
def tile_shift(ring: int, stage: int) -> int:
    """Shift that selects slot (tile mod ring) in the iteration `tile + stage`."""
    return (ring - stage % ring) % ring


@inner
def set_reads(
    tables: Tables, out: Output, chain: Any, t: int, k: int, stage: int, first_tile: bool, weight: Any
) -> None:
    """Regions that op k reads: its inputs, wherever they are, and its weights (base, ring, shift)."""
    column = READ0
    limit = READ0 + 9
    for operand in range(2):
        root = tables.ops[k, O_IN0_ROOT0 + 2 * operand]
        if root < 0:
            continue
        producer = -1
        for other in range(chain[C_FIRST], k):
            if tables.ops[other, O_OUT] == root:
                producer = other
        if producer >= 0:
            base, ring = out.ring[producer, R_OUT], out.ring[producer, R_OUT_N]
        elif tables.resident[root] == 1:
            base, ring = out.tensor_region[root], 1
        else:
            base, ring = out.ring[k, R_IN0 + 2 * operand], out.ring[k, R_IN0_N + 2 * operand]
        if column < limit:
            set_region(out, t, column, base, ring, tile_shift(ring, stage))
        column += 3
        if keeps_halo(chain, k, operand) and not first_tile:
            # The rows above lie where the tile before was loaded.
            if column < limit:
                set_region(out, t, column, base, ring, tile_shift(ring, stage + 1))
            column += 3
        second = tables.ops[k, O_IN0_ROOT0 + 2 * operand + 1]
        if second >= 0 and producer < 0 and tables.resident[root] == 1:
            if column < limit:
                set_region(out, t, column, out.tensor_region[second], 1, 0)
            column += 3
    if weight[0] >= 0:
        if column < limit:
            set_region(out, t, column, weight[0], weight[1], weight[2])
        column += 3
    if column > limit:
        out.cursor[OVERFLOW] = OVERFLOW_READS


@inner
def set_write(tables: Tables, out: Output, t: int, k: int, stage: int, resident_output: bool, opens: bool) -> None:
    """The region that a row of op k writes: its resident tensor, or the ring of its tiles."""
    if resident_output:
        set_region(out, t, WRITE, out.tensor_region[tables.ops[k, O_OUT]], 1, 0)
    else:
        ring = out.ring[k, R_OUT_N]
        set_region(out, t, WRITE, out.ring[k, R_OUT], ring, tile_shift(ring, stage))
    out.templates[t, OPENS] = 1 if opens else 0


@inner
def emit_vector(
    tables: Tables, out: Output, chain: Any, k: int, stage: int, tile: int, size: int, resident_output: bool,
    weight: Any,
) -> None:  # fmt: skip
    """One tile of a vector op.  Operations and traffic are counted once, with the first tile, to be exact."""
    first_tile = tile == 0
    occupancy, latency = narrowed_tile_cycles(
        tables.ops, tables.tensors, tables.vector, tables.throughput, tables.scalars[VECTOR_PORT],
        tables.scalars[VECTOR_LATENCY], k, chain[C_AXIS], size,
        saved_output_bits(tables, chain, k, tile, size) + saved_head_bits(tables, chain, k, tile, size),
    )  # fmt: skip
    ticks = tables.scalars[TICKS]
    unit = tables.engines.shape[0]
    t = new_row(out, unit, k, occupancy * ticks, latency * ticks)
    set_reads(tables, out, chain, t, k, stage, first_tile, weight)
    set_write(tables, out, t, k, stage, resident_output, first_tile or not resident_output)
    base = unit * PER_ENGINE
    out.counts[k, base + WEIGHT_READ] += tables.ops[k, O_PARAM_BITS] * out.cursor[TIMES]
    if first_tile:
        passes = tables.ops[k, O_PASSES]
        for p in range(passes):
            for kind in range(tables.vector.shape[2]):
                out.counts[k, base + kind] += tables.vector[k, p, kind]
        out.counts[k, base + ACT_READ] += passes * tables.ops[k, O_IN0] * tables.ops[k, O_ABITS]
        out.counts[k, base + ACT_READ] += tables.ops[k, O_IN1] * tables.ops[k, O_RBITS]
        written, rows = tables.tensors[tables.ops[k, O_OUT], T_BITS], tables.ops[k, O_ROWS_H]
        narrow = narrow_rows(tables.groups[k, G_OUT_HIGH], 0, rows)
        if narrow > 0:
            written -= written // rows // tables.ops[k, O_OBITS] * tables.groups[k, G_OUT_DROP] * narrow
        out.counts[k, base + ACT_WRITE] += written - all_saved_bits(tables, k)


@inner
def weight_reference(out: Output, k: int, slot: int, ring: int, shift: int) -> Any:
    """Region reference (base, ring, shift) of the weights of op k; the base is −1 when it has none."""
    base = out.ring[k, R_WEIGHT]
    return (base + slot if base >= 0 else base), ring, shift


@inner
def is_vector(tables: Tables, k: int) -> bool:
    """True when op k runs on the vector unit."""
    return tables.ops[k, O_KIND] == KIND_VECTOR
