"""Head widths of a tile: bits of its parts, runs of heads in one mode, where they lie in DRAM.

Parts of a position lie side by side in DRAM, each element in the width of its part, positions without gaps.
"""

from __future__ import annotations

from typing import Any

from accelsim.kernels.jit import inner
from accelsim.kernels.mapper import C_AXIS, C_FIRST, C_N, C_TILE
from accelsim.kernels.tables import Tables
from accelsim.optable import (
    AXIS_ROWS,
    H_AT,
    H_FORM,
    H_LEFT,
    H_OUT,
    H_PARTS,
    H_POSITION,
    H_RIGHT,
    H_RIGHT_WIDTHS,
    H_SIZE,
    O_OBITS,
    O_ROWS_H,
    O_ROWS_W,
    P_BEFORE,
    P_WIDTH_INDEX,
)


@inner
def has_parts(tables: Tables, k: int, operand: int) -> bool:
    """True when an operand (H_LEFT, H_RIGHT) or the output (H_OUT) of op k has parts of widths of their own."""
    return tables.heads[k, operand + H_AT] >= 0


@inner
def part_bits(tables: Tables, k: int, operand: int, first: int, parts: int) -> int:
    """Bits of one element of each of `parts` parts from `first` on."""
    at = tables.heads[k, operand + H_AT] + first
    return tables.head_parts[at + parts, P_BEFORE] - tables.head_parts[at, P_BEFORE]


@inner
def channel_bits(tables: Tables, k: int, first: int, channels: int) -> int:
    """Bits at one position of `channels` output channels from `first` on."""
    size = tables.heads[k, H_OUT + H_SIZE]
    bits = 0
    channel = first
    while channel < first + channels:
        part = channel // size
        stop = min(first + channels, (part + 1) * size)
        bits += (stop - channel) * part_bits(tables, k, H_OUT, part, 1)
        channel = stop
    return bits


@inner
def saved_head_bits(tables: Tables, chain: Any, k: int, tile: int, size: int) -> int:
    """Bits that the parts of an output tile have less than in the widest width."""
    if not has_parts(tables, k, H_OUT):
        return 0
    own = tables.heads[k]
    first, parts, rows = tile * chain[C_TILE], size, tables.ops[k, O_ROWS_H]
    if chain[C_AXIS] == AXIS_ROWS:
        first, parts, rows = 0, own[H_OUT + H_PARTS], size
    less = parts * tables.ops[k, O_OBITS] - part_bits(tables, k, H_OUT, first, parts)
    return rows * tables.ops[k, O_ROWS_W] * own[H_OUT + H_SIZE] * less


@inner
def all_saved_bits(tables: Tables, k: int) -> int:
    """As `saved_head_bits`, of the whole output."""
    if not has_parts(tables, k, H_OUT):
        return 0
    own = tables.heads[k]
    plain = own[H_OUT + H_PARTS] * own[H_OUT + H_SIZE] * tables.ops[k, O_OBITS]
    return tables.ops[k, O_ROWS_H] * tables.ops[k, O_ROWS_W] * (plain - own[H_OUT + H_POSITION])


@inner
def width_of(tables: Tables, k: int, operand: int, head: int) -> int:
    """Number of a head's width among those of an operand, ascending; 0 of an operand with one width."""
    if not has_parts(tables, k, operand):
        return 0
    return tables.head_parts[tables.heads[k, operand + H_AT] + head, P_WIDTH_INDEX]


@inner
def head_form(tables: Tables, k: int, left: int, right: int) -> int:
    """Row of `tables.forms`: op k with these widths, by their numbers."""
    return tables.ops.shape[0] + tables.heads[k, H_FORM] + left * tables.heads[k, H_RIGHT_WIDTHS] + right


@inner
def _alike(tables: Tables, k: int, a: int, b: int, size: int) -> bool:
    """True when op k has the same widths in the `size` heads from a on and from b on."""
    for operand in (H_LEFT, H_RIGHT, H_OUT):
        if has_parts(tables, k, operand):
            for head in range(size):
                if part_bits(tables, k, operand, a + head, 1) != part_bits(tables, k, operand, b + head, 1):
                    return False
    return True


@inner
def cuts_heads(tables: Tables, chain: Any) -> bool:
    """True when the tiles of a chain have heads of their own and some of its ops have parts."""
    if chain[C_AXIS] == AXIS_ROWS:
        return False
    for k in range(chain[C_FIRST], chain[C_FIRST] + chain[C_N]):
        if has_parts(tables, k, H_LEFT) or has_parts(tables, k, H_RIGHT) or has_parts(tables, k, H_OUT):
            return True
    return False


@inner
def equal_head_tiles(tables: Tables, chain: Any, tile: int) -> bool:
    """True when every op of a chain along groups has the same widths in a whole tile and in the next, whole one."""
    for k in range(chain[C_FIRST], chain[C_FIRST] + chain[C_N]):
        if not _alike(tables, k, tile * chain[C_TILE], (tile + 1) * chain[C_TILE], chain[C_TILE]):
            return False
    return True
