"""Emission of single rows: transfers, array tiles, vector tiles, with their regions and counts."""

from __future__ import annotations

from typing import Any

from accelsim.kernels.engine_forms import ceil_div
from accelsim.kernels.jit import inner
from accelsim.kernels.mapper import (
    C_AXIS,
    C_BLOCKS,
    C_FIRST,
    C_TILE,
    P_ENGINE,
    P_LANES,
    P_PIXELS,
    P_SLICE,
    P_UNITS,
    P_WIDTH,
    keeps_halo,
    load_bits,
    output_tile_bits,
    vector_tile_cycles,
)  # fmt: skip
from accelsim.kernels.part_forms import part_lead, sized_part_cycles
from accelsim.kernels.tables import (
    BODY,
    BURST_BITS,
    BURST_TICKS,
    N_PHASES,
    N_REGIONS,
    N_TEMPLATES,
    OVERFLOW,
    OVERFLOW_READS,
    OVERFLOW_SPACE,
    R_DRAM,
    R_IN0,
    R_IN0_N,
    R_OUT,
    R_OUT_N,
    R_WEIGHT,
    READ_LATENCY,
    TICKS,
    TIMES,
    VECTOR_LATENCY,
    VECTOR_PORT,
    WRITE_LATENCY,
    Output,
    Tables,
)  # fmt: skip
from accelsim.kernels.tile_counts import (
    ACT_READ,
    ACT_WRITE,
    DRAM_READ,
    DRAM_WRITE,
    PER_ENGINE,
    WEIGHT_READ,
    WEIGHT_WRITE,
    count_part,
)
from accelsim.kernels.tiling import block_units
from accelsim.optable import (
    AXIS_GROUPS,
    AXIS_ROWS,
    KIND_VECTOR,
    O_ABITS,
    O_IN0,
    O_IN0_ROOT0,
    O_IN1,
    O_IN_H,
    O_KERNEL_H,
    O_KIND,
    O_OUT,
    O_PADDING,
    O_PARAM_BITS,
    O_PASSES,
    O_RBITS,
    O_ROWS_H,
    O_ROWS_W,
    O_STRIDE,
    T_BITS,
    T_POSITIONS,
)  # fmt: skip
from accelsim.program import (
    DRAM_BASE,
    DRAM_STEP,
    LATENCY,
    LEAD,
    OCCUPANCY,
    OP,
    OPENS,
    READ0,
    RUN_BITS,
    RUNS,
    STRIDE,
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
def _new_row(out: Output, unit: int, op: int, occupancy_ticks: int, latency_ticks: int) -> int:
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
def _set_region(out: Output, t: int, column: int, base: int, ring: int, shift: int) -> None:
    out.templates[t, column] = base
    out.templates[t, column + 1] = ring
    out.templates[t, column + 2] = shift


@inner
def _tile_shift(ring: int, stage: int) -> int:
    """Shift that selects slot (tile mod ring) in the iteration `tile + stage`."""
    return (ring - stage % ring) % ring


@inner
def _transfer(tables: Tables, out: Output, op: int, bits: int, runs: int, write: bool) -> int:
    """A DMA row of `bits` in `runs` equal runs, whole bursts each; counts what moves on the bus."""
    run_bits = ceil_div(bits, runs)
    bursts = runs * ceil_div(run_bits, tables.scalars[BURST_BITS])
    ticks = bursts * tables.scalars[BURST_TICKS]
    latency = tables.scalars[WRITE_LATENCY] if write else tables.scalars[READ_LATENCY]
    t = _new_row(out, tables.engines.shape[0] + 1, op, ticks, ticks + latency)
    out.templates[t, RUN_BITS], out.templates[t, RUNS] = run_bits, runs
    base = tables.engines.shape[0] * PER_ENGINE
    moved = bursts * tables.scalars[BURST_BITS] * out.cursor[TIMES]
    out.counts[op, base + (DRAM_WRITE if write else DRAM_READ)] += moved
    return t


@inner
def dram_row_bits(tables: Tables, k: int, operand: int) -> int:
    """Bits in DRAM from one row of an input of op k to the next; two tensors read as one lie in turns, row by row."""
    bits = tables.tensors[tables.ops[k, O_IN0_ROOT0 + 2 * operand], T_BITS]
    second = tables.ops[k, O_IN0_ROOT0 + 2 * operand + 1]
    if second >= 0:
        bits += tables.tensors[second, T_BITS]
    return bits // max(1, tables.ops[k, O_IN_H])


@inner
def emit_load(
    tables: Tables, out: Output, chain: Any, k: int, operand: int, size: int, stage: int, first_tile: bool
) -> None:
    """Load one tile of an input of op k from DRAM into its ring; of a kept halo, the rows that are not yet there."""
    axis = chain[C_AXIS]
    bits = load_bits(tables.ops, chain, k, operand, size, first_tile)
    root = tables.ops[k, O_IN0_ROOT0 + 2 * operand]
    runs = 1 if axis == AXIS_ROWS else max(1, tables.tensors[root, T_POSITIONS])
    t = _transfer(tables, out, k, bits, runs, False)
    ring = out.ring[k, R_IN0_N + 2 * operand]
    _set_region(out, t, WRITE, out.ring[k, R_IN0 + 2 * operand], ring, _tile_shift(ring, stage - 1))
    out.templates[t, OPENS] = 1
    step = out.templates[t, RUN_BITS]
    first = out.dram_base[root]
    second = tables.ops[k, O_IN0_ROOT0 + 2 * operand + 1]
    if second >= 0:
        first = min(first, out.dram_base[second])
    if axis == AXIS_ROWS:
        row_bits = dram_row_bits(tables, k, operand)
        step = row_bits * chain[C_TILE] * max(1, tables.ops[k, O_STRIDE])
        if operand == 0:
            first -= tables.ops[k, O_PADDING] * row_bits
        if keeps_halo(chain, k, operand) and not first_tile:
            first += (tables.ops[k, O_KERNEL_H] - tables.ops[k, O_STRIDE]) * row_bits
    # Tile 0 is loaded in iteration stage − 1.
    out.templates[t, DRAM_BASE] = first - step * (stage - 1)
    out.templates[t, DRAM_STEP] = step
    out.templates[t, STRIDE] = 0 if runs == 1 else tables.tensors[root, T_BITS] // runs
    out.counts[k, tables.engines.shape[0] * PER_ENGINE + ACT_WRITE] += bits * out.cursor[TIMES]


@inner
def emit_store(tables: Tables, out: Output, chain: Any, k: int, size: int, bits: int, offset: int, stage: int) -> None:
    """Store one output tile of op k (all of it, or the channels of one weight block at `offset`) to DRAM."""
    tensor = tables.ops[k, O_OUT]
    runs, positions = 1, tables.ops[k, O_ROWS_H] * tables.ops[k, O_ROWS_W]
    if chain[C_AXIS] != AXIS_ROWS:
        runs = positions = max(1, tables.tensors[tensor, T_POSITIONS])
    elif bits < output_tile_bits(tables.ops, tables.tensors, k, chain[C_AXIS], size):
        runs = size * tables.ops[k, O_ROWS_W]
    t = _transfer(tables, out, k, bits, runs, True)
    ring = out.ring[k, R_OUT_N]
    _set_region(out, t, READ0, out.ring[k, R_OUT], ring, _tile_shift(ring, stage - 1))
    step = output_tile_bits(tables.ops, tables.tensors, k, chain[C_AXIS], chain[C_TILE])
    if chain[C_AXIS] != AXIS_ROWS:
        step = step // runs
    out.templates[t, DRAM_BASE] = out.dram_base[tensor] + offset - step * (stage - 1)
    out.templates[t, DRAM_STEP] = step
    out.templates[t, STRIDE] = 0 if runs == 1 else tables.tensors[tensor, T_BITS] // positions
    out.counts[k, tables.engines.shape[0] * PER_ENGINE + ACT_READ] += bits * out.cursor[TIMES]


@inner
def emit_weight_load(
    tables: Tables, out: Output, k: int, offset: int, bits: int, base: int, ring: int, shift: int
) -> None:
    """Load weights, biases, scales and index entries of (a block of) op k, `offset` bits behind its first."""
    t = _transfer(tables, out, k, bits, 1, False)
    _set_region(out, t, WRITE, base, ring, shift)
    out.templates[t, OPENS] = 1
    out.templates[t, DRAM_BASE] = out.ring[k, R_DRAM] + offset
    out.counts[k, tables.engines.shape[0] * PER_ENGINE + WEIGHT_WRITE] += bits * out.cursor[TIMES]


@inner
def _set_reads(
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
            _set_region(out, t, column, base, ring, _tile_shift(ring, stage))
        column += 3
        if keeps_halo(chain, k, operand) and not first_tile:
            # The rows above lie where the tile before was loaded.
            if column < limit:
                _set_region(out, t, column, base, ring, _tile_shift(ring, stage + 1))
            column += 3
        second = tables.ops[k, O_IN0_ROOT0 + 2 * operand + 1]
        if second >= 0 and producer < 0 and tables.resident[root] == 1:
            if column < limit:
                _set_region(out, t, column, out.tensor_region[second], 1, 0)
            column += 3
    if weight[0] >= 0:
        if column < limit:
            _set_region(out, t, column, weight[0], weight[1], weight[2])
        column += 3
    if column > limit:
        out.cursor[OVERFLOW] = OVERFLOW_READS


@inner
def _set_write(tables: Tables, out: Output, t: int, k: int, stage: int, resident_output: bool, opens: bool) -> None:
    if resident_output:
        _set_region(out, t, WRITE, out.tensor_region[tables.ops[k, O_OUT]], 1, 0)
    else:
        ring = out.ring[k, R_OUT_N]
        _set_region(out, t, WRITE, out.ring[k, R_OUT], ring, _tile_shift(ring, stage))
    out.templates[t, OPENS] = 1 if opens else 0


@inner
def emit_vector(
    tables: Tables, out: Output, chain: Any, k: int, stage: int, size: int, first_tile: bool, resident_output: bool,
    weight: Any,
) -> None:  # fmt: skip
    """One tile of a vector op.  Operations and traffic are counted once, with the first tile, to be exact."""
    occupancy, latency = vector_tile_cycles(
        tables.ops, tables.tensors, tables.vector, tables.throughput, tables.scalars[VECTOR_PORT],
        tables.scalars[VECTOR_LATENCY], k, chain[C_AXIS], size,
    )  # fmt: skip
    ticks = tables.scalars[TICKS]
    unit = tables.engines.shape[0]
    t = _new_row(out, unit, k, occupancy * ticks, latency * ticks)
    _set_reads(tables, out, chain, t, k, stage, first_tile, weight)
    _set_write(tables, out, t, k, stage, resident_output, first_tile or not resident_output)
    base = unit * PER_ENGINE
    out.counts[k, base + WEIGHT_READ] += tables.ops[k, O_PARAM_BITS] * out.cursor[TIMES]
    if first_tile:
        passes = tables.ops[k, O_PASSES]
        for p in range(passes):
            for kind in range(tables.vector.shape[2]):
                out.counts[k, base + kind] += tables.vector[k, p, kind]
        out.counts[k, base + ACT_READ] += passes * tables.ops[k, O_IN0] * tables.ops[k, O_ABITS]
        out.counts[k, base + ACT_READ] += tables.ops[k, O_IN1] * tables.ops[k, O_RBITS]
        out.counts[k, base + ACT_WRITE] += tables.tensors[tables.ops[k, O_OUT], T_BITS]


@inner
def emit_array(
    tables: Tables, out: Output, chain: Any, k: int, stage: int, size: int, first_tile: bool, block: int, opens: bool,
    resident_output: bool, weight: Any,
) -> int:  # fmt: skip
    """One tile (and weight block) of an array op, a row per engine that has a part; returns the units computed."""
    ticks = tables.scalars[TICKS]
    done = 0
    grouped = chain[C_AXIS] == AXIS_GROUPS
    rows = (tables.ops[k, O_ROWS_H] if grouped else size) * tables.ops[k, O_ROWS_W]
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
        occupancy, latency = sized_part_cycles(
            tables.ops, tables.slices, tables.engines, tables.modes, k, part[P_ENGINE], part[P_SLICE], units, rows,
            part[P_LANES], part[P_WIDTH], part[P_PIXELS],
        )  # fmt: skip
        t = _new_row(out, part[P_ENGINE], k, occupancy * ticks, latency * ticks)
        out.templates[t, LEAD] = ticks * part_lead(
            tables.ops, tables.slices, tables.engines, tables.modes, k, part[P_ENGINE], part[P_SLICE], units, rows,
            part[P_LANES], part[P_WIDTH], part[P_PIXELS],
        )  # fmt: skip
        _set_reads(tables, out, chain, t, k, stage, first_tile, weight)
        _set_write(tables, out, t, k, stage, resident_output, opens and done == 0)
        count_part(tables, out.counts[k], k, part, units, rows, out.cursor[TIMES])
        done += units
    return done


@inner
def weight_reference(out: Output, k: int, slot: int, ring: int, shift: int) -> Any:
    """Region reference (base, ring, shift) of the weights of op k; the base is −1 when it has none."""
    base = out.ring[k, R_WEIGHT]
    return (base + slot if base >= 0 else base), ring, shift


@inner
def is_vector(tables: Tables, k: int) -> bool:
    """True when op k runs on the vector unit."""
    return tables.ops[k, O_KIND] == KIND_VECTOR
