"""Lowering: chains to templates, phases, regions and counts, in one pass over the mapping.

A chain of n ops runs as a software pipeline over its tiles: in iteration i the DMA loads inputs of tile i, op j (from
0) computes tile i − 1 − j, and the store writes back tile i − 1 − n.  Consecutive iterations with all stages busy and
only equal tiles (whole ones, of one group of tokens) become one phase.  Weights of later chains are loaded behind the
first tile loads of a chain, as far ahead as their place in the weight buffer (a ring) does not hold anything that this
chain or those between still need.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from accelsim.kernels.emit import begin_body, emit_vector, end_body, is_vector, new_region, weight_reference
from accelsim.kernels.emit_arrays import emit_array
from accelsim.kernels.emit_transfers import dram_row_bits, emit_load, emit_store, emit_weight_load
from accelsim.kernels.engine_forms import ceil_div
from accelsim.kernels.jit import inner, jit
from accelsim.kernels.mapper import (
    C_AXIS,
    C_BLOCKS,
    C_FIRST,
    C_N,
    C_TILE,
    C_WEIGHT_OUTER,
    P_SLICE,
    P_UNITS,
    axis_extent,
    external_input,
    load_bits,
    load_slots,
    output_tile_bits,
    part_weight_bits,
    ring_size,
    widest_weight_bits,
)  # fmt: skip
from accelsim.kernels.tables import (
    BURST_BITS,
    NEXT_WEIGHTS,
    PREFETCH,
    R_DRAM,
    R_IN0,
    R_IN0_N,
    R_OUT,
    R_OUT_N,
    R_WEIGHT,
    R_WEIGHT_HIGH,
    R_WEIGHT_LOW,
    WEIGHT_CAPACITY,
    WEIGHT_POINTER,
    Output,
    Tables,
)  # fmt: skip
from accelsim.kernels.tiling import block_units, block_weight_bits, chain_index
from accelsim.kernels.token_rows import equal_iterations
from accelsim.optable import (
    KIND_CONV,
    O_IN0_ROOT0,
    O_IN_H,
    O_KERNEL_H,
    O_KIND,
    O_OBITS,
    O_OUT,
    O_PADDING,
    O_ROWS_H,
    O_ROWS_W,
    O_STRIDE,
    O_UNIT_CHANNELS,
    T_BITS,
    T_LAST,
    T_TWIN,
)


@inner
def _open_chain(tables: Tables, out: Output, c: int, index: Any) -> None:
    """Declare the activation regions of a chain: loaded tiles, rings of intermediates, the output."""
    chain = tables.chains[c]
    axis, size = chain[C_AXIS], chain[C_TILE]
    first, last = chain[C_FIRST], chain[C_FIRST] + chain[C_N] - 1
    many = size < axis_extent(tables.ops, first, axis)
    for k in range(first, last + 1):
        for operand in range(2):
            root = external_input(tables.ops, tables.tensors, chain, k, operand)
            if root >= 0 and tables.resident[root] == 0:
                slots = load_slots(tables.ops, chain, k, operand, size)
                bits = load_bits(tables.ops, chain, k, operand, size, True)
                out.ring[k, R_IN0 + 2 * operand] = new_region(out, 0, bits, slots, c, c)
                out.ring[k, R_IN0_N + 2 * operand] = slots
        if k < last:
            slots = ring_size(tables.ops, chain, k, size)
            bits = output_tile_bits(tables.ops, tables.tensors, k, axis, size)
            out.ring[k, R_OUT] = new_region(out, 0, bits, slots, c, c)
            out.ring[k, R_OUT_N] = slots
    tensor = tables.ops[last, O_OUT]
    if tables.resident[tensor] == 1:
        end = index[tables.tensors[tensor, T_LAST]]
        out.tensor_region[tensor] = new_region(out, 0, tables.tensors[tensor, T_BITS], 1, c, end)
    else:
        slots = 2 if many else 1
        bits = output_tile_bits(tables.ops, tables.tensors, last, axis, size)
        out.ring[last, R_OUT] = new_region(out, 0, bits, slots, c, c)
        out.ring[last, R_OUT_N] = slots


@inner
def _block_bits(tables: Tables, k: int, blocks: int, block: int) -> int:
    return block_weight_bits(
        tables.ops, tables.slices, tables.engines, tables.modes, k, tables.parts[k], tables.n_parts[k], blocks, block
    )


@inner
def _load_block(
    tables: Tables, out: Output, k: int, blocks: int, block: int, region: int, ring: int, shift: int
) -> None:
    """Load one weight block of op k into a ring of regions."""
    offset = 0  # bits of the blocks in front
    for p in range(tables.n_parts[k]):
        part = tables.parts[k, p]
        size = block_units(tables.ops, tables.engines, tables.modes, tables.slices, k, part, blocks)
        offset += part_weight_bits(tables.ops, tables.slices, k, part[P_SLICE], min(part[P_UNITS], block * size))
    emit_weight_load(tables, out, k, offset, _block_bits(tables, k, blocks, block), region, ring, shift)


@inner
def _load_chain_weights(tables: Tables, out: Output, c: int, oldest: int) -> bool:
    """Place and load the weights of chain c (its first block).

    Returns False, and does nothing, when their place holds weights that a chain ≥ `oldest` still needs.
    """
    chain = tables.chains[c]
    slots = 2 if chain[C_BLOCKS] > 1 else 1
    need = 0
    for k in range(chain[C_FIRST], chain[C_FIRST] + chain[C_N]):
        need += _block_bits(tables, k, chain[C_BLOCKS], 0) * slots
    base = out.cursor[WEIGHT_POINTER]
    if base + need > tables.scalars[WEIGHT_CAPACITY]:
        base = 0
    for k in range(tables.chains[oldest, C_FIRST], chain[C_FIRST]):
        if out.ring[k, R_WEIGHT] >= 0 and out.ring[k, R_WEIGHT_LOW] < base + need and base < out.ring[k, R_WEIGHT_HIGH]:
            return False
    for k in range(chain[C_FIRST], chain[C_FIRST] + chain[C_N]):
        bits = _block_bits(tables, k, chain[C_BLOCKS], 0)
        if bits == 0:
            continue
        region = new_region(out, 1, bits, slots, c, c)
        for slot in range(slots):
            out.regions[region + slot, 1] = base + slot * bits
        out.ring[k, R_WEIGHT] = region
        out.ring[k, R_WEIGHT_LOW], out.ring[k, R_WEIGHT_HIGH] = base, base + slots * bits
        base += slots * bits
        emit_weight_load(tables, out, k, 0, bits, region, 1, 0)
    out.cursor[WEIGHT_POINTER] = base
    return True


@inner
def _load_ahead(tables: Tables, out: Output, c: int, n_chains: int) -> None:
    """Load weights of the chains behind c while they fit beside everything still needed."""
    while out.cursor[NEXT_WEIGHTS] < min(n_chains, c + 1 + tables.scalars[PREFETCH]):
        if not _load_chain_weights(tables, out, out.cursor[NEXT_WEIGHTS], c):
            return
        out.cursor[NEXT_WEIGHTS] += 1


@inner
def _op_blocks(tables: Tables, out: Output, c: int, tile: int, tiles: int, size: int, resident_output: bool) -> None:
    """One tile of a single op whose weight blocks pass by for every tile: load block b + 1, compute block b."""
    chain = tables.chains[c]
    k, blocks = chain[C_FIRST], chain[C_BLOCKS]
    odd = blocks % 2
    base = out.ring[k, R_WEIGHT]
    for block in range(blocks):
        following = block + 1 if block + 1 < blocks else 0
        if following > 0 or tile + 1 < tiles:
            # Slot of a block: its number over all tiles, modulo 2; with an odd number of blocks it alternates by tile.
            if odd:
                _load_block(tables, out, k, blocks, following, base, 2, (1 + block + 1) % 2 if following > 0 else 0)
            else:
                _load_block(tables, out, k, blocks, following, base + following % 2, 1, 0)
        weight = weight_reference(out, k, 0 if odd else block % 2, 2 if odd else 1, (1 + block) % 2 if odd else 0)
        opens = block == 0 and (tile == 0 or not resident_output)
        emit_array(tables, out, chain, k, 1, tile, size, block, opens, resident_output, weight)


@inner
def _iteration(
    tables: Tables, out: Output, c: int, n_chains: int, iteration: int, outer_block: int, tiles: int, full: int,
    rest: int,
) -> None:  # fmt: skip
    """All stages of one iteration: loads, weights ahead, ops, store."""
    chain = tables.chains[c]
    first, n, blocks = chain[C_FIRST], chain[C_N], chain[C_BLOCKS]
    last = first + n - 1
    weight_outer = chain[C_WEIGHT_OUTER] == 1 and blocks > 1
    resident_output = tables.resident[tables.ops[last, O_OUT]] == 1
    for k in range(first, last + 1):
        tile = iteration - (k - first)
        if 0 <= tile < tiles:
            for operand in range(2):
                root = external_input(tables.ops, tables.tensors, chain, k, operand)
                if root >= 0 and tables.resident[root] == 0:
                    size = chain[C_TILE] if tile < full else rest
                    emit_load(tables, out, chain, k, operand, tile, size, k - first + 1)
    if iteration == 0:
        if weight_outer and outer_block + 1 < blocks:
            slot = out.ring[first, R_WEIGHT] + (outer_block + 1) % 2
            _load_block(tables, out, first, blocks, outer_block + 1, slot, 1, 0)
        if blocks == 1 or (weight_outer and outer_block == blocks - 1):
            _load_ahead(tables, out, c, n_chains)
    for k in range(first, last + 1):
        tile = iteration - (k - first) - 1
        if not 0 <= tile < tiles:
            continue
        size = chain[C_TILE] if tile < full else rest
        output_on_chip = resident_output and k == last
        if is_vector(tables, k):
            weight = weight_reference(out, k, 0, 1, 0)
            emit_vector(tables, out, chain, k, k - first + 1, tile, size, output_on_chip, weight)
        elif blocks > 1 and not weight_outer:
            _op_blocks(tables, out, c, tile, tiles, size, output_on_chip)
            if tile == tiles - 1:
                _load_ahead(tables, out, c, n_chains)
        else:
            weight = weight_reference(out, k, outer_block % 2, 1, 0)
            opens = (tile == 0 and outer_block == 0) or not output_on_chip
            stage = k - first + 1
            emit_array(tables, out, chain, k, stage, tile, size, outer_block, opens, output_on_chip, weight)
    tile = iteration - n - 1
    if 0 <= tile < tiles and not resident_output:
        size = chain[C_TILE] if tile < full else rest
        bits = output_tile_bits(tables.ops, tables.tensors, last, chain[C_AXIS], size)
        offset = 0
        if weight_outer:
            unit_bits = tables.ops[last, O_UNIT_CHANNELS] * tables.ops[last, O_OBITS]
            units = _units_of_block(tables, last, blocks, outer_block)
            bits = size * tables.ops[last, O_ROWS_W] * units * unit_bits
            for earlier in range(outer_block):
                offset += _units_of_block(tables, last, blocks, earlier) * unit_bits
        emit_store(tables, out, chain, last, tile, size, bits, offset, n + 2)


@inner
def _units_of_block(tables: Tables, k: int, blocks: int, block: int) -> int:
    """Units that one weight block of op k holds over all its parts."""
    total = 0
    for p in range(tables.n_parts[k]):
        share = block_units(tables.ops, tables.engines, tables.modes, tables.slices, k, tables.parts[k, p], blocks)
        total += max(0, min(share, tables.parts[k, p, P_UNITS] - block * share))
    return total


@jit
def lower_program(tables: Tables, out: Output, n_chains: int) -> None:
    """Emit the whole program; `out.cursor` tells how much of each array was used and whether one was too small."""
    index = np.zeros(tables.ops.shape[0], np.int64)
    padding = np.zeros((tables.tensors.shape[0], 2), np.int64)
    _lower_program(tables, out, n_chains, index, padding)


@inner
def _place_in_dram(tables: Tables, out: Output, padding: Any) -> None:
    """Addresses of tensors and weights, each from the start of a burst, with the rows of padding that windows read.

    `padding` is room for the rows above and below every tensor.  Tensors read as one lie side by side.
    """
    for k in range(tables.ops.shape[0]):
        root = tables.ops[k, O_IN0_ROOT0]
        if root >= 0 and tables.ops[k, O_KIND] == KIND_CONV:
            above, height = tables.ops[k, O_PADDING], tables.ops[k, O_IN_H]
            window = (tables.ops[k, O_ROWS_H] - 1) * tables.ops[k, O_STRIDE] + tables.ops[k, O_KERNEL_H]
            row_bits = dram_row_bits(tables, k, 0)
            padding[root, 0] = max(padding[root, 0], above * row_bits)
            padding[root, 1] = max(padding[root, 1], (window - above - height) * row_bits)
    burst = tables.scalars[BURST_BITS]
    address = 0
    for t in range(tables.tensors.shape[0]):
        out.dram_base[t] = -1
    for t in range(tables.tensors.shape[0]):
        if out.dram_base[t] >= 0:
            continue
        above, below = padding[t, 0], padding[t, 1]
        twin = tables.tensors[t, T_TWIN]
        paired = twin >= 0 and out.dram_base[twin] < 0
        if paired:
            above, below = max(above, padding[twin, 0]), max(below, padding[twin, 1])
        address = ceil_div(address + above, burst) * burst
        out.dram_base[t] = address
        address += tables.tensors[t, T_BITS]
        if paired:
            out.dram_base[twin] = address
            address += tables.tensors[twin, T_BITS]
        address += below
    for k in range(tables.ops.shape[0]):
        address = ceil_div(address, burst) * burst
        out.ring[k, R_DRAM] = address
        address += widest_weight_bits(tables.ops, tables.slices, k)


@inner
def _lower_program(tables: Tables, out: Output, n_chains: int, index: Any, padding: Any) -> None:
    chain_index(tables.chains, n_chains, index)
    for k in range(tables.ops.shape[0]):
        out.ring[k, R_WEIGHT] = -1
    _place_in_dram(tables, out, padding)
    for c in range(n_chains):
        chain = tables.chains[c]
        _open_chain(tables, out, c, index)
        if out.cursor[NEXT_WEIGHTS] == c:
            begin_body(out, 1)
            _load_chain_weights(tables, out, c, c)
            out.cursor[NEXT_WEIGHTS] = c + 1
            end_body(out, 0)
        extent = axis_extent(tables.ops, chain[C_FIRST], chain[C_AXIS])
        full = extent // chain[C_TILE]
        rest = extent - full * chain[C_TILE]
        tiles = ceil_div(extent, chain[C_TILE])
        outer_blocks = chain[C_BLOCKS] if chain[C_WEIGHT_OUTER] == 1 else 1
        for outer_block in range(outer_blocks):
            iteration = 0
            while iteration < tiles + chain[C_N] + 1:
                times = equal_iterations(tables, chain, iteration, full)
                begin_body(out, times)
                _iteration(tables, out, c, n_chains, iteration, outer_block, tiles, full, rest)
                end_body(out, iteration)
                iteration += times
