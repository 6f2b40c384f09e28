"""Token groups of a tile: how many of its rows are narrow, what they have less, where they lie in DRAM.

The tokens of an op lie in the order of their groups: the first `high` rows are full, all behind them narrow.
"""

from __future__ import annotations

from typing import Any

from accelsim.kernels.engine_forms import ceil_div
from accelsim.kernels.head_parts import cuts_heads, equal_head_tiles
from accelsim.kernels.jit import inner
from accelsim.kernels.mapper import C_AXIS, C_FIRST, C_N, C_TILE, output_tile_bits
from accelsim.kernels.tables import Tables
from accelsim.optable import (
    AXIS_ROWS,
    G_LEFT_HIGH,
    G_OUT_DROP,
    G_OUT_HIGH,
    O_OBITS,
    O_ROWS_H,
)


@inner
def narrow_rows(high: int, first: int, rows: int) -> int:
    """Narrow tokens among `rows` from `first` on."""
    return max(0, first + rows - max(first, high))


@inner
def tile_rows(tables: Tables, chain: Any, k: int, tile: int, size: int) -> Any:
    """(first row, rows) of op k that a tile of `size` units covers: its own along rows, all of them along groups."""
    if chain[C_AXIS] == AXIS_ROWS:
        return tile * chain[C_TILE], size
    return 0, tables.ops[k, O_ROWS_H]


@inner
def saved_output_bits(tables: Tables, chain: Any, k: int, tile: int, size: int) -> int:
    """Bits that the narrow tokens of an output tile have less than full ones."""
    first, rows = tile_rows(tables, chain, k, tile, size)
    narrow = narrow_rows(tables.groups[k, G_OUT_HIGH], first, rows)
    if narrow == 0:
        return 0
    bits = output_tile_bits(tables.ops, tables.tensors, k, chain[C_AXIS], size)
    return bits // rows // tables.ops[k, O_OBITS] * tables.groups[k, G_OUT_DROP] * narrow


@inner
def token_place(high: int, row: int, full_bits: int, narrow_bits: int) -> int:
    """Bits in front of a token in DRAM, where tokens lie without gaps."""
    return min(row, high) * full_bits + max(0, row - high) * narrow_bits


@inner
def equal_iterations(tables: Tables, chain: Any, iteration: int, full: int) -> int:
    """Iterations, 1 at least, from this one on in which every stage of a chain has a tile of the same size and widths.

    `full` is the number of tiles of the whole size.  The stages of an iteration i have the tiles i − n − 1 … i, so that
    none of these may be on the two sides of where full, mixed and narrow tiles meet.
    """
    behind = iteration - chain[C_N] - 1
    if behind < 0:
        return 1
    times = full - iteration
    if chain[C_AXIS] == AXIS_ROWS:
        for k in range(chain[C_FIRST], chain[C_FIRST] + chain[C_N]):
            for column in (G_LEFT_HIGH, G_OUT_HIGH):
                high = tables.groups[k, column]
                for edge in (high // chain[C_TILE], ceil_div(high, chain[C_TILE])):
                    if behind < edge <= iteration:
                        times = 1
                    elif edge > iteration:
                        times = min(times, edge - iteration)
    if cuts_heads(tables, chain):
        for tile in range(behind, iteration + times - 1):
            if not equal_head_tiles(tables, chain, tile):
                return max(1, tile + 1 - iteration)
    return max(1, times)
