"""A design that no counts of full tokens and no head widths can beat: all narrow, in the best of all modes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from accelsim.arch import Accelerator
from accelsim.formats import Format, Scheme
from accelsim.head_widths import HeadWidths
from accelsim.optable import (
    H_AT,
    H_OUT,
    H_POSITION,
    KIND_VECTOR,
    M_INPUTS,
    M_MODE,
    M_PASSES,
    M_PRODUCTS,
    O_KIND,
    O_OUT,
    O_ROWS_H,
    O_ROWS_W,
    O_SLICES,
    S_COMBO,
    S_STORED,
    T_BITS,
    EngineTable,
    OpTable,
    build_op_table,
    engine_arrays,
)
from accelsim.plan import QuantizedOp
from accelsim.token_forms import combos_of, varies
from accelsim.token_groups import TokenGroups


def least_design(table: OpTable, engines: EngineTable, accelerator: Accelerator) -> tuple[OpTable, EngineTable]:
    """(table, engines) whose bound holds for a design with token groups, whatever the counts, or with head widths;
    others as they are.

    Every stored token and part has its narrow width, so no tensor, transfer or port takes more than in a run; weights,
    and outputs of array engines that have head widths, have their true bits, which are known.  A product runs with the
    most channels and inputs and the fewest passes of all modes in which its engine executes some group, so that rows,
    columns, heads and segments in several rows of a program never take less than all of them in one.
    """
    if not varies(table):
        return table, engines
    quantized = table.quantized
    bits = dict(quantized.activation_bits)
    for item in quantized.ops:
        bits[item.op.output] = _least(_narrow_tokens(item.tokens, item.output), item.heads).bits
    narrowed = tuple(_narrowed(item, int(row[O_ROWS_H])) for item, row in zip(quantized.ops, table.ops, strict=True))
    least = build_op_table(replace(quantized, ops=narrowed, activation_bits=bits))
    least.slices[:, :, S_STORED] = table.slices[:, :, S_STORED]
    for op, heads in zip(table.ops, table.heads, strict=True):
        if heads[H_OUT + H_AT] >= 0 and op[O_KIND] != KIND_VECTOR:
            least.tensors[op[O_OUT], T_BITS] = op[O_ROWS_H] * op[O_ROWS_W] * heads[H_OUT + H_POSITION]
    found = engine_arrays(accelerator, least)
    best = found.modes.copy()
    for k in range(len(table.ops)):
        for s in range(int(table.ops[k, O_SLICES])):
            used = engines.modes[np.unique(combos_of(table, k)[:, s])]
            _improve(best, int(least.slices[k, s, S_COMBO]), used)
    return least, EngineTable(found.engines, best)


def _improve(best: np.ndarray, combo: int, used: np.ndarray) -> None:
    """Give a format pair the best of its modes and of `used` [pairs, engines, M_ columns], in place."""
    for e in range(best.shape[1]):
        modes = [mode for mode in (best[combo, e], *used[:, e]) if mode[M_MODE] >= 0]
        if modes:
            every = np.array(modes)
            best[combo, e, M_MODE] = modes[0][M_MODE]
            best[combo, e, [M_PRODUCTS, M_INPUTS]] = every[:, [M_PRODUCTS, M_INPUTS]].max(axis=0)
            best[combo, e, M_PASSES] = every[:, M_PASSES].min()


def _narrow_tokens(tokens: TokenGroups | None, full: Format) -> Format:
    return full if tokens is None else tokens.narrow(full)


def _least(plain: Format, widths: HeadWidths | None) -> Format:
    return plain if widths is None else Format(Scheme.UNIFORM, min(widths.bits))


def _narrowed(item: QuantizedOp, rows: int) -> QuantizedOp:
    """The op with all tokens and parts narrow and no groups; the only row of an op with one is full."""
    left = item.left_tokens if rows > 1 else None
    right = item.right_tokens if item.right_axis else None
    return replace(
        item,
        activation=_least(_narrow_tokens(left, item.activation), item.left_heads),
        right=_least(_narrow_tokens(right, item.right), item.right_heads),
        output=_least(_narrow_tokens(item.tokens, item.output), item.heads),
        weights=tuple(replace(share, format=_least(share.format, item.weight_heads)) for share in item.weights),
        tokens=None, left_tokens=None, right_tokens=None, right_axis="",
        heads=None, weight_heads=None, left_heads=None, right_heads=None,
    )  # fmt: skip
