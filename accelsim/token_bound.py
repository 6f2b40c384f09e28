"""A design that no counts of full tokens can beat: all tokens narrow, on engines that have the best of every mode."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from accelsim.arch import Accelerator
from accelsim.optable import (
    M_INPUTS,
    M_MODE,
    M_PASSES,
    M_PRODUCTS,
    O_ROWS_H,
    O_SLICES,
    S_COMBO,
    EngineTable,
    OpTable,
    build_op_table,
    engine_arrays,
)
from accelsim.plan import QuantizedOp
from accelsim.token_forms import combos_of, has_groups


def least_design(table: OpTable, engines: EngineTable, accelerator: Accelerator) -> tuple[OpTable, EngineTable]:
    """(table, engines) whose bound holds for a design with token groups, whatever the counts; others as they are.

    Every stored token has its narrow width, so no tensor, transfer or port takes more than in a run.  A product runs
    with the most channels and inputs and the fewest passes of all modes in which its engine executes some group, so
    that rows, columns and segments in several rows of a program never take less than all of them in one.
    """
    if not has_groups(table):
        return table, engines
    quantized = table.quantized
    bits = dict(quantized.activation_bits)
    for item in quantized.ops:
        if item.tokens is not None:
            bits[item.op.output] = item.tokens.narrow(item.output).bits
    narrowed = tuple(_narrowed(item, int(row[O_ROWS_H])) for item, row in zip(quantized.ops, table.ops, strict=True))
    least = build_op_table(replace(quantized, ops=narrowed, activation_bits=bits))
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


def _narrowed(item: QuantizedOp, rows: int) -> QuantizedOp:
    """The op with all tokens narrow and no groups; the only row of an op with one is full."""
    activation, right, output = item.activation, item.right, item.output
    if item.left_tokens is not None and rows > 1:
        activation = item.left_tokens.narrow(activation)
    if item.right_tokens is not None and item.right_axis:
        right = item.right_tokens.narrow(right)
    if item.tokens is not None:
        output = item.tokens.narrow(output)
    return replace(
        item, activation=activation, right=right, output=output, tokens=None, left_tokens=None, right_tokens=None,
        right_axis="",
    )  # fmt: skip
