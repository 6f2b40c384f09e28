"""Head widths as arrays: the parts of every operand and output, and an op's forms for pairs of their widths.

docs/decisions/0020-head-widths.md is the contract, an interpretation of Q-ViT's head-wise bits (arXiv 2201.07703).  A
*form* is a row of `OpTable.forms`: the op as it were with one pair of widths, so that the closed forms of the engines
price it like any op.
"""

from __future__ import annotations

import numpy as np

from accelsim.formats import Format, Scheme
from accelsim.head_widths import HeadWidths
from accelsim.ir import OpKind
from accelsim.optable import (
    H_AT,
    H_FORM,
    H_LEFT,
    H_OUT,
    H_RIGHT,
    H_RIGHT_WIDTHS,
    HEAD_COLUMNS,
    O_ABITS,
    O_RBITS,
    PART_COLUMNS,
    S_BITS,
    S_COMBO,
    Combos,
    OpTable,
)  # fmt: skip
from accelsim.plan import QuantizedOp, QuantizedWorkload
from accelsim.program import Int64


def add_head_forms(
    quantized: QuantizedWorkload, ops: Int64, slices: Int64, combos: Combos, forms: Int64, form_slices: Int64
) -> tuple[Int64, Int64, Int64, Int64]:
    """(heads [n, H_ columns], parts [p, PART_COLUMNS], forms, slices of the forms) of a quantized workload.

    The forms of head widths come behind `forms`; their format pairs are added to `combos`.
    """
    heads = np.zeros((len(ops), len(HEAD_COLUMNS)), np.int64)
    heads[:, [H_LEFT + H_AT, H_RIGHT + H_AT, H_OUT + H_AT, H_FORM]] = -1
    if not any(_headed(item) for item in quantized.ops):
        return heads, np.zeros((1, len(PART_COLUMNS)), np.int64), forms, form_slices
    stored = {item.op.output: item.heads for item in quantized.ops if item.heads is not None}
    parts: list[tuple[int, int]] = []
    new_forms, new_slices = [forms], [form_slices]
    count = len(forms)
    for k, item in enumerate(quantized.ops):
        names = (item.op.inputs[0], item.op.inputs[1] if len(item.op.inputs) > 1 else "", item.op.output)
        widths = (item.left_heads, item.right_heads, item.heads)
        for operand, name, own in zip((H_LEFT, H_RIGHT, H_OUT), names, widths, strict=True):
            if own is not None:
                elements = quantized.workload.tensor_by_name[name].channels // len(stored[name].bits)
                position_bits = elements * sum(stored[name].bits)
                heads[k, operand : operand + 4] = (len(parts), len(own.bits), elements, position_bits)
                parts += _part_rows(own)
        if item.op.loop is not None and (item.left_heads or item.right_heads or item.weight_heads):
            left, right = pair_widths(item)
            heads[k, H_FORM], heads[k, H_RIGHT_WIDTHS] = count, len(right[0])
            rows, row_slices = _pair_forms(item, ops[k], slices[k], combos, left, right)
            new_forms.append(rows)
            new_slices.append(row_slices)
            count += len(rows)
    return heads, np.array(parts or [(0, 0)], np.int64), np.concatenate(new_forms), np.concatenate(new_slices)


def has_heads(table: OpTable) -> bool:
    """True when some op of the table makes or reads parts of several widths."""
    return bool((table.heads[:, [H_OUT + H_AT, H_FORM]] >= 0).any())


def pair_widths(item: QuantizedOp) -> tuple[list[Format], list[tuple[Format, ...]]]:
    """Formats of the left operand, and those of the right one or of the filters by slice, narrowest first."""
    assert item.op.loop is not None
    left = _formats(item.left_heads, item.activation)
    if item.op.kind is OpKind.MATMUL or not item.weights:
        return left, [tuple(_formats(item.right_heads, item.right))]
    return left, [tuple(_formats(item.weight_heads, share.format)) for share in item.weights]


def head_combos(table: OpTable, k: int) -> Int64:
    """Format pairs [forms, slices] of the widths of op k, which has forms of head widths."""
    first = int(table.heads[k, H_FORM])
    left, right = pair_widths(table.quantized.ops[k])
    return np.asarray(table.form_slices[first : first + len(left) * len(right[0]), :, S_COMBO], np.int64)


def _headed(item: QuantizedOp) -> bool:
    return item.heads is not None or item.weight_heads is not None


def _formats(widths: HeadWidths | None, plain: Format) -> list[Format]:
    return [plain] if widths is None else [Format(Scheme.UNIFORM, bits) for bits in sorted(set(widths.bits))]


def _part_rows(widths: HeadWidths) -> list[tuple[int, int]]:
    """A row for every part and one behind them, whose first column is the sum of all."""
    distinct = sorted(set(widths.bits))
    before = np.concatenate([[0], np.cumsum(widths.bits)])
    numbers = [*(distinct.index(bits) for bits in widths.bits), 0]
    return [(int(bits), number) for bits, number in zip(before, numbers, strict=True)]


def _pair_forms(
    item: QuantizedOp, op: Int64, own: Int64, combos: Combos, left: list[Format], right: list[tuple[Format, ...]]
) -> tuple[Int64, Int64]:
    """Rows and slices of an op for every left width × right width."""
    assert item.op.loop is not None
    n = len(right[0])
    rows = np.repeat(op[None], len(left) * n, axis=0)
    row_slices = np.repeat(own[None], len(left) * n, axis=0)
    for number, activation in enumerate(left):
        for s, formats in enumerate(right):
            for other, weight in enumerate(formats):
                form = number * n + other
                rows[form, O_ABITS] = activation.bits
                if not item.weights:
                    rows[form, O_RBITS] = weight.bits
                row_slices[form, s, S_BITS] = weight.bits
                key = (weight, activation, item.op.loop.depthwise, item.op.loop.reduction)
                row_slices[form, s, S_COMBO] = combos.setdefault(key, len(combos))
    return rows, row_slices
