"""The distinct tiles that a lowered design runs on its array engines, and random operands for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from accelsim.api import Report
from accelsim.engines import requantize, uniform_codes
from accelsim.formats import Format
from accelsim.head_forms import has_heads
from accelsim.ir import Loop
from accelsim.kernels.engine_forms import ceil_div
from accelsim.kernels.mapper import C_AXIS, C_BLOCKS, C_FIRST, C_N, C_TILE
from accelsim.optable import (
    AXIS_ROWS,
    KIND_VECTOR,
    M_PRODUCTS,
    O_COLS,
    O_DEPTH,
    O_DEPTHWISE,
    O_GROUP_EXTENT,
    O_KIND,
    O_ROWS_H,
    O_ROWS_W,
    O_TAPS,
    O_UNITS_ARE_COLS,
    S_COMBO,
)
from accelsim.problems import AccelsimError, Problem
from accelsim.program import Int64
from accelsim.rtl.engine import TileJob
from accelsim.token_forms import has_groups


@dataclass(frozen=True)
class LoweredTile:
    """A tile as lowering prices it; `op` is an index of the program's op names."""

    unit: int
    op: int
    tile: Loop
    weight: Format
    activation: Format


def lowered_tiles(report: Report) -> list[LoweredTile]:
    """Distinct (unit, op, tile, formats) of a design's program, in program order.

    Raises AccelsimError for a mapping with sub-arrays, for token groups and for head widths, which the RTL cannot run.
    """
    if has_heads(report.table):
        what, levers = "some heads have fewer bits than others", ("accelsim.head_widths.without_heads",)
        raise AccelsimError(Problem("rtl", what, "tensors of one width: the RTL has no other", levers))
    if has_groups(report.table):
        what = "some tokens have fewer bits than others"
        levers = ("accelsim.token_groups.without_groups",)
        raise AccelsimError(Problem("rtl", what, "tokens of one width: the RTL has no other", levers))
    found: dict[LoweredTile, None] = {}
    for chain in report.arrays.chains:
        first, size = int(chain[C_FIRST]), int(chain[C_TILE])
        extent = report.table.ops[first, O_ROWS_H if chain[C_AXIS] == AXIS_ROWS else O_GROUP_EXTENT]
        rest = int(extent) % size
        for k in range(first, first + int(chain[C_N])):
            if report.table.ops[k, O_KIND] == KIND_VECTOR:
                continue
            for tile in (size, rest) if rest else (size,):
                found.update(dict.fromkeys(_op_tiles(report, k, int(chain[C_AXIS]), tile, size, int(chain[C_BLOCKS]))))
    return list(found)


def _op_tiles(report: Report, k: int, axis: int, size: int, full: int, blocks: int) -> list[LoweredTile]:
    """Tiles of op k when its chain runs `size` of `full` units of the axis."""
    table, arrays = report.table, report.arrays
    op = table.ops[k]
    grouped = axis != AXIS_ROWS
    rows = int((op[O_ROWS_H] if grouped else size) * op[O_ROWS_W])
    left, tiles = size, []
    for part in arrays.parts[k, : arrays.n_parts[k]]:
        unit, piece, total, *sub_array = (int(x) for x in part)
        if any(sub_array):
            raise AccelsimError(
                Problem(table.op_names[k], "runs on a sub-array", "whole engines: the RTL has no other")
            )
        if grouped:
            shares = [min(left, ceil_div(total * size, full))]
            left -= shares[0]
        else:
            granule = _granule(report, k, unit, piece)
            share = ceil_div(ceil_div(total, blocks), granule) * granule
            shares = [max(0, min(share, total - block * share)) for block in range(blocks)]
        weight, activation, _, _ = table.combos[int(table.slices[k, piece, S_COMBO])]
        tiles += [LoweredTile(unit, k, _loop(op, units, rows), weight, activation) for units in shares if units]
    return tiles


def _granule(report: Report, k: int, unit: int, piece: int) -> int:
    """Units that an engine holds at once: weight blocks are multiples of it."""
    op, engine = report.table.ops[k], report.accelerator.engines[unit]
    if op[O_DEPTHWISE]:
        return engine.lane_width
    products = int(report.engines.modes[int(report.table.slices[k, piece, S_COMBO]), unit, M_PRODUCTS])
    return engine.lanes * products if op[O_UNITS_ARE_COLS] else 1


def _loop(op: Int64, units: int, rows: int) -> Loop:
    taps, depth, cols = int(op[O_TAPS]), int(op[O_DEPTH]), int(op[O_COLS])
    if op[O_DEPTHWISE]:
        return Loop(units, rows, 1, 1, 1, taps, 1)
    if op[O_UNITS_ARE_COLS]:
        return Loop(1, rows, 1, units, depth, taps, 1)
    return Loop(units, rows, 1, cols, depth, taps, 1)


def random_job(tile: Loop, weight: Format, seed: int, clamp: tuple[int, int] = (-128, 127)) -> tuple[TileJob, Int64]:
    """A tile with random 8-bit activations, weights and requantization, and its outputs by plain integer arithmetic."""
    rng = np.random.default_rng(seed)
    acts = rng.integers(-128, 128, (tile.groups, tile.rows, tile.taps, tile.depth))
    shape = (tile.groups, tile.cols, tile.taps, tile.depth)
    if weight.is_shift:
        exponents = rng.integers(0, weight.max_exponent + 1, (*shape, weight.terms))
        signs = rng.choice([-1, 1] if weight.terms > 1 else [-1, 0, 1], exponents.shape)
        codes = np.stack([signs, np.where(signs == 0, 0, exponents)], axis=-1)
        values = (signs << exponents).sum(axis=-1)
    else:
        values = rng.integers(-(1 << (weight.bits - 1)), 1 << (weight.bits - 1), shape)
        codes = uniform_codes(values, weight)
    parts = (rng.integers(-999, 999, shape[:2]), rng.integers(0, 1 << 20, shape[:2]), rng.integers(1, 31, shape[:2]))
    # Doubles hold every sum of 8-bit products exactly, and their matrix product is fast.
    left = acts.reshape(tile.groups, tile.rows, -1).astype(np.float64)
    right = values.reshape(tile.groups, tile.cols, -1).astype(np.float64)
    total = (left @ right.transpose(0, 2, 1)).astype(np.int64)
    bias, multiplier, shift = (part[:, None] for part in parts)
    outputs = requantize(total, bias, multiplier, shift, *clamp)
    return TileJob(tile, weight, acts, codes, np.stack(parts, axis=-1), clamp), outputs
