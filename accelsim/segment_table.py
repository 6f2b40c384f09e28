"""Reductions in segments as arrays: what of a sum runs in which form, and how far the accumulators shift between.

The values of token groups have a narrow and a full segment (docs/decisions/0019-token-groups.md).  A linear layer over
parts of several widths has one segment for every mode and shift (docs/decisions/0020-head-widths.md).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from accelsim.formats import Format, Scheme
from accelsim.ir import OpKind
from accelsim.kernels.mapper import P_ENGINE, P_SLICE
from accelsim.kernels.tables import SEG_COLUMNS
from accelsim.mapping import MappingArrays
from accelsim.optable import (
    FORMS,
    G_FORM,
    G_RIGHT_AXIS,
    G_RIGHT_DROP,
    H_FORM,
    O_ABITS,
    O_DEPTH,
    RIGHT_DEPTH,
    S_BITS,
    S_COMBO,
    S_FULL,
    S_NARROW,
    EngineTable,
    OpTable,
)  # fmt: skip
from accelsim.plan import QuantizedOp
from accelsim.program import Int64


class Segments(NamedTuple):
    """What lowering reads: `rows` [segments, SEG_ columns], highest shift first.

    `spans` [ops, slices, engines, groups of rows, 2] has the first segment and the number of segments, 0 without.
    `forms` and `form_slices` are the ops, the forms of the table and those of the segments of linear layers.
    """

    rows: Int64
    spans: Int64
    forms: Int64
    form_slices: Int64


class Part(NamedTuple):
    """A part of a linear layer's reduction: formats of activations and weights, shift of its products, place."""

    activation: Format
    weight: Format
    shift: int
    place: int


def sums_parts(item: QuantizedOp) -> bool:
    """True for a linear layer whose reduction has parts of several widths."""
    return item.op.kind is OpKind.CONV and (item.left_heads is not None or item.weight_heads is not None)


def reduction_parts(item: QuantizedOp, s: int) -> list[Part]:
    """Parts of the reduction of a linear layer's slice; the finest step has shift 0."""
    left, right = item.left_heads, item.weight_heads
    widths = left or right
    assert widths is not None
    count = len(widths.bits)
    a = [Format(Scheme.UNIFORM, bits) for bits in left.bits] if left else [item.activation] * count
    w = [Format(Scheme.UNIFORM, bits) for bits in right.bits] if right else [item.weights[s].format] * count
    shifts = np.zeros(count, np.int64)
    for one in (left, right):
        if one is not None and one.shifts:
            shifts += one.shifts
    return [Part(*part) for part in zip(a, w, (shifts - shifts.min()).tolist(), range(count), strict=True)]


def grouped_parts(table: OpTable, engines: EngineTable, k: int, s: int, e: int) -> list[tuple[int, list[Part]]]:
    """(shift, parts) of every segment of a linear layer on an engine, highest shift first: one per mode and shift."""
    item = table.quantized.ops[k]
    assert item.op.loop is not None
    number = {key: c for c, key in enumerate(table.combos)}
    found: dict[tuple[int, ...], list[Part]] = {}
    for part in reduction_parts(item, s):
        key = (part.weight, part.activation, item.op.loop.depthwise, item.op.loop.reduction)
        mode = engines.modes[number[key], e].tolist()
        found.setdefault((-part.shift, *mode), []).append(part)
    return [(-key[0], found[key]) for key in sorted(found)]


def segment_table(table: OpTable, engines: EngineTable, arrays: MappingArrays) -> Segments:
    """Segments of every reduction that has some, on the engines that a mapping gave its parts."""
    forms, form_slices = [table.ops, table.forms], [table.slices, table.form_slices]
    n, count = len(table.ops), len(table.ops) + len(table.forms)
    spans = np.zeros((n, table.slices.shape[1], len(engines.engines), 2, 2), np.int64)
    rows: list[tuple[int, ...]] = []
    for k in np.flatnonzero(table.groups[:, G_RIGHT_AXIS] == RIGHT_DEPTH):
        first, drop = n + int(table.groups[k, G_FORM]), int(table.groups[k, G_RIGHT_DROP])
        for left in range(2):
            spans[k, :, :, left] = (len(rows), 2)
            form = first + left * (FORMS // 2)
            rows += [(form + S_NARROW, drop, 1, 0, 0), (form + S_FULL, 0, 1, 0, 0)]
    for k in np.flatnonzero(table.heads[:, H_FORM] >= 0):
        if not sums_parts(table.quantized.ops[k]):
            continue
        for e, s in sorted(
            {(int(part[P_ENGINE]), int(part[P_SLICE])) for part in arrays.parts[k, : arrays.n_parts[k]]}
        ):
            segments = grouped_parts(table, engines, int(k), s, e)
            spans[k, s, e, 0] = (len(rows), len(segments))
            for shift, parts in segments:
                op, own = _form(table, int(k), s, parts)
                forms.append(op[None])
                form_slices.append(own[None])
                rows.append((count, shift, *_less(parts)))
                count += 1
    return Segments(
        np.array(rows, np.int64).reshape(-1, SEG_COLUMNS), spans, np.concatenate(forms),
        np.concatenate(form_slices),
    )  # fmt: skip


def _form(table: OpTable, k: int, s: int, parts: list[Part]) -> tuple[Int64, Int64]:
    """Row and slices of an op that sums these parts only, each in the widest of their widths."""
    item, op, own = table.quantized.ops[k], table.ops[k].copy(), table.slices[k].copy()
    assert item.op.loop is not None
    activation = max((part.activation for part in parts), key=lambda one: one.bits)
    weight = max((part.weight for part in parts), key=lambda one: one.bits)
    op[O_DEPTH] = op[O_DEPTH] // len(reduction_parts(item, s)) * len(parts)
    op[O_ABITS], own[s, S_BITS] = activation.bits, weight.bits
    key = (weight, activation, item.op.loop.depthwise, item.op.loop.reduction)
    own[s, S_COMBO] = table.combos.index(key)
    return op, own


def _less(parts: list[Part]) -> tuple[int, int, int]:
    left = [part.activation.bits for part in parts]
    right = [part.weight.bits for part in parts]
    return len(parts), len(parts) * max(left) - sum(left), len(parts) * max(right) - sum(right)
