"""Token groups as arrays: which rows of an op are full, and the op's forms for every pair of groups of its operands.

docs/decisions/0019-token-groups.md is the contract, an interpretation of PMQ's patch-wise bits (arXiv 2305.06559).  A
*form* is a row of `OpTable.forms`: the op as it were with the widths and the number of columns (or the depth) of one
group, so that the closed forms of the engines price it like any op.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from accelsim.formats import Format
from accelsim.head_forms import has_heads, head_combos
from accelsim.head_widths import without_heads
from accelsim.ir import OpKind
from accelsim.optable import (
    ALL_TOKENS,
    FORMS,
    G_FORM,
    G_LEFT_DROP,
    G_LEFT_HIGH,
    G_OUT_DROP,
    G_OUT_HIGH,
    G_RIGHT_AXIS,
    G_RIGHT_DROP,
    G_RIGHT_HIGH,
    GROUP_COLUMNS,
    H_FORM,
    O_ABITS,
    O_COLS,
    O_DEPTH,
    O_IN0_ROOT1,
    O_IN1_ROOT1,
    O_RBITS,
    O_ROWS_H,
    O_ROWS_W,
    OP_COLUMNS,
    RIGHT_COLS,
    RIGHT_DEPTH,
    RIGHT_WHOLE,
    S_BITS,
    S_COMBO,
    S_FULL,
    S_NARROW,
    S_WHOLE,
    SLICE_COLUMNS,
    Combos,
    OpTable,
    op_table,
)  # fmt: skip
from accelsim.plan import QuantizedOp, QuantizedWorkload
from accelsim.problems import AccelsimError, Problem
from accelsim.program import Int64
from accelsim.token_groups import TokenGroups, with_counts, without_groups
from accelsim.token_rules import COLS, DEPTH

_AXES = {"": RIGHT_WHOLE, COLS: RIGHT_COLS, DEPTH: RIGHT_DEPTH}
_LEVERS = ("no `tokens` in this rule",)


def add_forms(quantized: QuantizedWorkload, ops: Int64, slices: Int64, combos: Combos) -> tuple[Int64, Int64, Int64]:
    """(groups [n, G_ columns], forms [f, O_ columns], slices of the forms [f, 3, S_ columns]) of a quantized workload.

    Format pairs of narrow groups are added to `combos`, whatever the counts.  Raises AccelsimError for groups of a
    tensor whose tokens are not the rows of the ops that make and read it.
    """
    groups = _ungrouped(len(ops))
    grouped = [k for k, item in enumerate(quantized.ops) if item.tokens or item.left_tokens or item.right_tokens]
    _check_rows(quantized, ops, grouped)
    pairs: dict[int, tuple[list[Format], list[Format]]] = {}
    for k in grouped:
        item = quantized.ops[k]
        if _left(item, ops[k]) or _right(item):
            groups[k, G_FORM] = FORMS * len(pairs)
            pairs[k] = _pairs(item, int(ops[k, O_ROWS_H]))
    for k, formats in pairs.items():
        loop = quantized.ops[k].op.loop
        assert loop is not None
        for left in formats[0]:
            for right in formats[1]:
                combos.setdefault((right, left, loop.depthwise, loop.reduction), len(combos))
    forms = np.zeros((FORMS * len(pairs), len(OP_COLUMNS)), np.int64)
    form_slices = np.zeros((FORMS * len(pairs), slices.shape[1], len(SLICE_COLUMNS)), np.int64)
    for k in pairs:
        first = int(groups[k, G_FORM])
        forms[first : first + FORMS], form_slices[first : first + FORMS] = ops[k], slices[k]
        _set_formats(quantized.ops[k], pairs[k], combos, forms[first:], form_slices[first:])
    _set_counts(quantized, ops, groups, forms)
    return groups, forms, form_slices


def recount(table: OpTable, high: Mapping[str, int]) -> OpTable:
    """The table with other numbers of full tokens, by layer; what does not depend on them is shared.

    The mapping and the engine table of one are those of the other.  Raises AccelsimError for a count that is not
    between 1 and the tokens of its layer.
    """
    quantized = table.quantized
    ops = tuple(
        replace(
            item,
            tokens=_with(item.tokens, high),
            left_tokens=_with(item.left_tokens, high),
            right_tokens=_with(item.right_tokens, high),
        )
        if item.tokens or item.left_tokens or item.right_tokens
        else item
        for item in quantized.ops
    )
    counted = replace(quantized, plan=with_counts(quantized.plan, high), ops=ops)
    for item, row in zip(ops, table.ops, strict=True):
        if item.tokens is not None and not 1 <= item.tokens.high <= row[O_ROWS_H]:
            what = f"{item.tokens.high} full tokens in op {item.op.name}"
            raise AccelsimError(Problem(f"layer {item.tokens.layer}", what, f"1 … {row[O_ROWS_H]}"))
    groups, forms = table.groups.copy(), table.forms.copy()
    _set_counts(counted, table.ops, groups, forms)
    return replace(table, quantized=counted, groups=groups, forms=forms)


def worst_case(table: OpTable) -> OpTable:
    """The table with all tokens full and all parts in their widest width: that of the plan without token groups and
    head widths.  Mappings are chosen for it.
    """
    if not varies(table):
        return table
    return op_table(table.quantized.workload, without_heads(without_groups(table.quantized.plan)))


def varies(table: OpTable) -> bool:
    """True when the table is not that of its worst case."""
    return has_groups(table) or has_heads(table)


def combos_of(table: OpTable, k: int) -> Int64:
    """Format pairs [forms, slices] in which op k is executed; one form where its operands have one width."""
    if table.heads[k, H_FORM] >= 0:
        return head_combos(table, k)
    if not table.groups[k, G_LEFT_DROP] + table.groups[k, G_RIGHT_DROP]:
        return np.asarray(table.slices[k : k + 1, :, S_COMBO], np.int64)
    first = int(table.groups[k, G_FORM])
    return np.asarray(table.form_slices[first : first + FORMS, :, S_COMBO], np.int64)


def has_groups(table: OpTable) -> bool:
    """True when some op of the table makes or reads token groups."""
    return bool((table.groups[:, G_LEFT_DROP] + table.groups[:, G_RIGHT_DROP] + table.groups[:, G_OUT_DROP]).any())


def _ungrouped(n: int) -> Int64:
    groups = np.zeros((n, len(GROUP_COLUMNS)), np.int64)
    groups[:, [G_LEFT_HIGH, G_RIGHT_HIGH, G_OUT_HIGH]] = ALL_TOKENS
    return groups


def _with(tokens: TokenGroups | None, high: Mapping[str, int]) -> TokenGroups | None:
    return None if tokens is None else replace(tokens, high=high.get(tokens.layer, tokens.high))


def _left(item: QuantizedOp, row: Int64) -> TokenGroups | None:
    """Groups of the rows.  The only row of an op with one is that of the class token, which is always full."""
    return item.left_tokens if item.op.loop is not None and row[O_ROWS_H] > 1 else None


def _right(item: QuantizedOp) -> TokenGroups | None:
    return item.right_tokens if item.right_axis else None


def _pairs(item: QuantizedOp, rows: int) -> tuple[list[Format], list[Format]]:
    """Formats of the left operand and of the right one (or of the weights), full before narrow."""
    left, right = [item.activation], [share.format for share in item.weights] or [item.right]
    if item.left_tokens is not None and rows > 1:
        left.append(item.left_tokens.narrow(item.activation))
    if item.right_tokens is not None and item.right_axis:
        right.append(item.right_tokens.narrow(item.right))
    return left, right


def _set_formats(
    item: QuantizedOp, pairs: tuple[list[Format], list[Format]], combos: Combos, forms: Int64, form_slices: Int64
) -> None:
    """Widths and format pairs of the six forms of an op, in place."""
    assert item.op.loop is not None
    left, right = pairs
    several = len(item.weights)
    for form in range(FORMS):
        activation = left[-1] if form >= FORMS // 2 else left[0]
        forms[form, O_ABITS] = activation.bits
        narrow = form % (FORMS // 2) == S_NARROW and several == 0
        formats = right if several else [right[-1] if narrow else right[0]]
        if narrow:
            forms[form, O_RBITS] = formats[0].bits
        for s, weight in enumerate(formats):
            form_slices[form, s, S_BITS] = weight.bits
            key = (weight, activation, item.op.loop.depthwise, item.op.loop.reduction)
            form_slices[form, s, S_COMBO] = combos[key]


def _set_counts(quantized: QuantizedWorkload, ops: Int64, groups: Int64, forms: Int64) -> None:
    """Write the numbers of full tokens, and the columns or depths of the forms of right operands."""
    for k, item in enumerate(quantized.ops):
        for tokens, high, drop in (
            (_left(item, ops[k]), G_LEFT_HIGH, G_LEFT_DROP),
            (_right(item), G_RIGHT_HIGH, G_RIGHT_DROP),
            (item.tokens, G_OUT_HIGH, G_OUT_DROP),
        ):
            if tokens is not None:
                groups[k, high], groups[k, drop] = tokens.high, tokens.drop_bits
        if _right(item) is not None:
            groups[k, G_RIGHT_AXIS] = _AXES[item.right_axis]
            column = O_COLS if item.right_axis == COLS else O_DEPTH
            first, full = int(groups[k, G_FORM]), min(int(groups[k, G_RIGHT_HIGH]), int(ops[k, column]))
            for rows in (first, first + FORMS // 2):
                forms[rows + S_WHOLE, column] = ops[k, column]
                forms[rows + S_FULL, column], forms[rows + S_NARROW, column] = full, ops[k, column] - full


def _check_rows(quantized: QuantizedWorkload, ops: Int64, grouped: list[int]) -> None:
    """Raise AccelsimError unless the tokens of every grouped operand and output are the rows of the ops, one by one."""
    problems = []
    for k in grouped:
        item, row = quantized.ops[k], ops[k]
        where, what = f"op {item.op.name}: tokens", ""
        tokens = [quantized.workload.tensor_by_name[item.op.output].h] if item.tokens is not None else []
        if _left(item, row):
            tokens.append(quantized.workload.tensor_by_name[item.op.inputs[0]].h)
        if any(count != row[O_ROWS_H] for count in tokens) or row[O_ROWS_W] != 1:
            what = f"{row[O_ROWS_H]} × {row[O_ROWS_W]} rows for {tokens} tokens"
        elif (item.left_tokens and row[O_IN0_ROOT1] >= 0) or (item.right_tokens and row[O_IN1_ROOT1] >= 0):
            what = "two tensors that are read as one have token groups"
        elif item.op.kind is OpKind.MATMUL and item.right_tokens and not item.right_axis:
            what = "tokens of the right operand along no axis"
        elif item.op.loop is not None and item.op.loop.right_implicit_cols and item.right_tokens:
            what = "a right operand with constant columns has token groups"
        if what:
            problems.append(Problem(where, what, "one row per token, of one tensor", _LEVERS))
    if problems:
        raise AccelsimError(problems[:8])
