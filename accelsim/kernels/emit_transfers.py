"""Emission of transfers: loads of input tiles and weights, stores of output tiles.

Tokens of a tensor with token groups lie in DRAM without gaps, each in its own bits, from the tensor's address on; room
and address of the tensor are those of full tokens.  So do positions of a tensor whose parts have widths of their own,
in the room of the widest.
"""

from __future__ import annotations

from typing import Any

from accelsim.kernels.emit import new_row, set_region, tile_shift
from accelsim.kernels.engine_forms import ceil_div
from accelsim.kernels.head_parts import channel_bits, has_parts, part_bits
from accelsim.kernels.jit import inner
from accelsim.kernels.mapper import C_AXIS, C_TILE, keeps_halo, load_bits, load_runs, output_tile_bits
from accelsim.kernels.tables import (
    BURST_BITS,
    BURST_TICKS,
    R_DRAM,
    R_IN0,
    R_IN0_N,
    R_OUT,
    R_OUT_N,
    READ_LATENCY,
    TIMES,
    WRITE_LATENCY,
    Output,
    Tables,
)  # fmt: skip
from accelsim.kernels.tile_counts import ACT_READ, ACT_WRITE, DRAM_READ, DRAM_WRITE, PER_ENGINE, WEIGHT_WRITE
from accelsim.kernels.token_rows import narrow_rows, tile_rows, token_place
from accelsim.optable import (
    AXIS_ROWS,
    G_LEFT_DROP,
    G_LEFT_HIGH,
    G_OUT_DROP,
    G_OUT_HIGH,
    G_RIGHT_DROP,
    G_RIGHT_HIGH,
    H_LEFT,
    H_OUT,
    H_POSITION,
    H_RIGHT,
    H_SIZE,
    O_ABITS,
    O_IN0_ROOT0,
    O_IN_H,
    O_KERNEL_H,
    O_OBITS,
    O_OUT,
    O_PADDING,
    O_RBITS,
    O_ROWS_H,
    O_ROWS_W,
    O_STRIDE,
    T_BITS,
    T_POSITIONS,
)  # fmt: skip
from accelsim.program import DRAM_BASE, DRAM_STEP, OPENS, READ0, RUN_BITS, RUNS, STRIDE, WRITE


@inner
def _transfer(tables: Tables, out: Output, op: int, bits: int, runs: int, write: bool) -> int:
    """A DMA row of `bits` in `runs` equal runs, whole bursts each; counts what moves on the bus."""
    run_bits = ceil_div(bits, runs)
    bursts = runs * ceil_div(run_bits, tables.scalars[BURST_BITS])
    ticks = bursts * tables.scalars[BURST_TICKS]
    latency = tables.scalars[WRITE_LATENCY] if write else tables.scalars[READ_LATENCY]
    t = new_row(out, tables.engines.shape[0] + 1, op, ticks, ticks + latency)
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
def _move_runs(
    tables: Tables, out: Output, k: int, place: Any, runs: int, run_bits: int, address: int, stride: int, step: int,
    opens: bool,
) -> int:  # fmt: skip
    """A transfer of equal runs of tokens of one width, from `address` on in this iteration; returns bits moved.

    `place` is (iteration, first region, slots, shift, write to DRAM).
    """
    iteration, region, ring, shift, write = place
    t = _transfer(tables, out, k, runs * run_bits, runs, write)
    set_region(out, t, READ0 if write else WRITE, region, ring, shift)
    if not write and opens:
        out.templates[t, OPENS] = 1
    out.templates[t, DRAM_BASE] = address - step * iteration
    out.templates[t, DRAM_STEP] = step
    out.templates[t, STRIDE] = 0 if runs == 1 else stride
    return runs * run_bits


@inner
def _move_tokens(
    tables: Tables, out: Output, chain: Any, k: int, tile: Any, tensor: Any, run_bits: int, offset: int,
    whole: bool, place: Any,
) -> int:  # fmt: skip
    """Move the tokens of a tile of which some are narrow; returns the bits moved.

    `tile` is (its number, first row, rows), `tensor` (address, bits of a full token, tokens in full, width, bits that
    narrow tokens have less), `run_bits` what the tile has of a full token, `offset` bits behind its start.  A tile of
    whole tokens is one run; of parts of tokens every token is a run, first the full ones, then the narrow ones.
    """
    number, first, rows = tile
    address, token_bits, high, width, drop = tensor
    narrow_token, narrow_run = token_bits // width * (width - drop), run_bits // width * (width - drop)
    narrow = narrow_rows(high, first, rows)
    along_rows = chain[C_AXIS] == AXIS_ROWS
    start = address + token_place(high, first, token_bits, narrow_token) + offset
    if whole:
        bits = (rows - narrow) * run_bits + narrow * narrow_run
        step = chain[C_TILE] * (token_bits if narrow < rows else narrow_token)
        return _move_runs(tables, out, k, place, 1, bits, start, 0, step, True)
    moved = 0
    if narrow < rows:
        step = chain[C_TILE] * token_bits if along_rows else run_bits
        if not along_rows:
            start += number * run_bits
        moved += _move_runs(tables, out, k, place, rows - narrow, run_bits, start, token_bits, step, True)
    start = address + token_place(high, max(first, high), token_bits, narrow_token) + offset // width * (width - drop)
    step = chain[C_TILE] * narrow_token if along_rows else narrow_run
    if not along_rows:
        start += number * narrow_run
    return moved + _move_runs(tables, out, k, place, narrow, narrow_run, start, narrow_token, step, narrow == rows)


@inner
def _load_heads(
    tables: Tables, out: Output, chain: Any, k: int, operand: int, tile: int, size: int, stage: int
) -> None:
    """Load a tile of an input whose parts have widths of their own: rows of whole positions, or heads of each."""
    side = H_LEFT if operand == 0 else H_RIGHT
    root = tables.ops[k, O_IN0_ROOT0 + 2 * operand]
    position_bits = tables.heads[k, side + H_POSITION]
    ring = out.ring[k, R_IN0_N + 2 * operand]
    place = (tile + stage - 1, out.ring[k, R_IN0 + 2 * operand], ring, tile_shift(ring, stage - 1), False)
    start, runs = out.dram_base[root], 1
    if chain[C_AXIS] == AXIS_ROWS:
        run_bits = size * tables.ops[k, O_ROWS_W] * position_bits
        step = chain[C_TILE] * tables.ops[k, O_ROWS_W] * position_bits
        start += tile * step
    else:
        runs = load_runs(tables.ops, tables.tensors, k, operand, chain[C_AXIS])
        elements, first = tables.heads[k, side + H_SIZE], tile * chain[C_TILE]
        run_bits = step = elements * part_bits(tables, k, side, first, size)
        start += elements * part_bits(tables, k, side, 0, first)
    moved = _move_runs(tables, out, k, place, runs, run_bits, start, position_bits, step, True)
    out.counts[k, tables.engines.shape[0] * PER_ENGINE + ACT_WRITE] += moved * out.cursor[TIMES]


@inner
def _load_tokens(tables: Tables, out: Output, chain: Any, k: int, operand: int, tile: Any, stage: int) -> None:
    """Load a tile of an input of which some tokens are narrow; `tile` is (its number, size, first row, rows)."""
    number, size, first, rows = tile
    root = tables.ops[k, O_IN0_ROOT0 + 2 * operand]
    high = tables.groups[k, G_LEFT_HIGH if operand == 0 else G_RIGHT_HIGH]
    drop = tables.groups[k, G_LEFT_DROP if operand == 0 else G_RIGHT_DROP]
    width = tables.ops[k, O_ABITS if operand == 0 else O_RBITS]
    run_bits = load_bits(tables.ops, chain, k, operand, size, number == 0) // rows
    token_bits = tables.tensors[root, T_BITS] // max(1, tables.tensors[root, T_POSITIONS])
    ring = out.ring[k, R_IN0_N + 2 * operand]
    place = (number + stage - 1, out.ring[k, R_IN0 + 2 * operand], ring, tile_shift(ring, stage - 1), False)
    tensor = (out.dram_base[root], token_bits, high, width, drop)
    whole = chain[C_AXIS] == AXIS_ROWS
    moved = _move_tokens(tables, out, chain, k, (number, first, rows), tensor, run_bits, 0, whole, place)
    out.counts[k, tables.engines.shape[0] * PER_ENGINE + ACT_WRITE] += moved * out.cursor[TIMES]


@inner
def emit_load(tables: Tables, out: Output, chain: Any, k: int, operand: int, tile: int, size: int, stage: int) -> None:
    """Load one tile of an input of op k from DRAM into its ring; of a kept halo, the rows that are not yet there."""
    if has_parts(tables, k, H_LEFT if operand == 0 else H_RIGHT):
        _load_heads(tables, out, chain, k, operand, tile, size, stage)
        return
    axis, first_tile = chain[C_AXIS], tile == 0
    root = tables.ops[k, O_IN0_ROOT0 + 2 * operand]
    first_row, rows = tile_rows(tables, chain, k, tile, size)
    high = tables.groups[k, G_LEFT_HIGH]
    if operand == 1:
        high, rows = tables.groups[k, G_RIGHT_HIGH], max(1, tables.tensors[root, T_POSITIONS])
    if narrow_rows(high, first_row, rows) > 0:
        _load_tokens(tables, out, chain, k, operand, (tile, size, first_row, rows), stage)
        return
    bits = load_bits(tables.ops, chain, k, operand, size, first_tile)
    runs = load_runs(tables.ops, tables.tensors, k, operand, axis)
    t = _transfer(tables, out, k, bits, runs, False)
    ring = out.ring[k, R_IN0_N + 2 * operand]
    set_region(out, t, WRITE, out.ring[k, R_IN0 + 2 * operand], ring, tile_shift(ring, stage - 1))
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
def _store_tokens(
    tables: Tables, out: Output, chain: Any, k: int, tile: Any, bits: int, offset: int, stage: int
) -> None:
    """Store a tile of which some tokens are narrow; `tile` is (its number, size, first row, rows)."""
    number, size, first, rows = tile
    tensor = tables.ops[k, O_OUT]
    high, drop, width = tables.groups[k, G_OUT_HIGH], tables.groups[k, G_OUT_DROP], tables.ops[k, O_OBITS]
    token_bits = tables.tensors[tensor, T_BITS] // tables.ops[k, O_ROWS_H]
    along_rows = chain[C_AXIS] == AXIS_ROWS
    whole = along_rows and bits == output_tile_bits(tables.ops, tables.tensors, k, chain[C_AXIS], size)
    ring = out.ring[k, R_OUT_N]
    place = (number + stage - 1, out.ring[k, R_OUT], ring, tile_shift(ring, stage - 1), True)
    base = out.dram_base[tensor]
    moved = _move_tokens(
        tables, out, chain, k, (number, first, rows), (base, token_bits, high, width, drop), bits // rows, offset,
        whole, place,
    )  # fmt: skip
    out.counts[k, tables.engines.shape[0] * PER_ENGINE + ACT_READ] += moved * out.cursor[TIMES]


@inner
def _store_heads(
    tables: Tables, out: Output, chain: Any, k: int, tile: int, size: int, bits: int, offset: int, stage: int
) -> None:
    """Store a tile whose parts have widths of their own; `bits` and `offset` are those of the widest width."""
    ring = out.ring[k, R_OUT_N]
    place = (tile + stage - 1, out.ring[k, R_OUT], ring, tile_shift(ring, stage - 1), True)
    position_bits, start, runs = tables.heads[k, H_OUT + H_POSITION], out.dram_base[tables.ops[k, O_OUT]], 1
    if chain[C_AXIS] != AXIS_ROWS:
        runs = max(1, tables.tensors[tables.ops[k, O_OUT], T_POSITIONS])
        elements, first = tables.heads[k, H_OUT + H_SIZE], tile * chain[C_TILE]
        run_bits = step = elements * part_bits(tables, k, H_OUT, first, size)
        start += elements * part_bits(tables, k, H_OUT, 0, first)
    else:
        positions = size * tables.ops[k, O_ROWS_W]
        step = chain[C_TILE] * tables.ops[k, O_ROWS_W] * position_bits
        run_bits = positions * position_bits
        start += tile * step
        if bits < output_tile_bits(tables.ops, tables.tensors, k, chain[C_AXIS], size):
            runs, first = positions, offset // tables.ops[k, O_OBITS]
            run_bits = channel_bits(tables, k, first, bits // positions // tables.ops[k, O_OBITS])
            start += channel_bits(tables, k, 0, first)
    moved = _move_runs(tables, out, k, place, runs, run_bits, start, position_bits, step, False)
    out.counts[k, tables.engines.shape[0] * PER_ENGINE + ACT_READ] += moved * out.cursor[TIMES]


@inner
def emit_store(
    tables: Tables, out: Output, chain: Any, k: int, tile: int, size: int, bits: int, offset: int, stage: int
) -> None:
    """Store one output tile of op k (all of it, or the channels of one weight block at `offset`) to DRAM.

    `bits` and `offset` are those of full tokens and of the widest width.
    """
    if has_parts(tables, k, H_OUT):
        _store_heads(tables, out, chain, k, tile, size, bits, offset, stage)
        return
    first_row, rows = tile_rows(tables, chain, k, tile, size)
    if narrow_rows(tables.groups[k, G_OUT_HIGH], first_row, rows) > 0:
        _store_tokens(tables, out, chain, k, (tile, size, first_row, rows), bits, offset, stage)
        return
    tensor = tables.ops[k, O_OUT]
    runs, positions = 1, tables.ops[k, O_ROWS_H] * tables.ops[k, O_ROWS_W]
    if chain[C_AXIS] != AXIS_ROWS:
        runs = positions = max(1, tables.tensors[tensor, T_POSITIONS])
    elif bits < output_tile_bits(tables.ops, tables.tensors, k, chain[C_AXIS], size):
        runs = size * tables.ops[k, O_ROWS_W]
    t = _transfer(tables, out, k, bits, runs, True)
    ring = out.ring[k, R_OUT_N]
    set_region(out, t, READ0, out.ring[k, R_OUT], ring, tile_shift(ring, stage - 1))
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
    set_region(out, t, WRITE, base, ring, shift)
    out.templates[t, OPENS] = 1
    out.templates[t, DRAM_BASE] = out.ring[k, R_DRAM] + offset
    out.counts[k, tables.engines.shape[0] * PER_ENGINE + WEIGHT_WRITE] += bits * out.cursor[TIMES]
