"""What single heads do on the engines that they were mapped on: array cycles and counts from the closed forms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from accelsim.api import Report
from accelsim.counts import ENGINE_COUNTS
from accelsim.energy import unit_energies
from accelsim.formats import Format, Scheme
from accelsim.head_widths import HeadWidths
from accelsim.ir import VECTOR_KINDS
from accelsim.kernels.engine_forms import dense_accumulates, dense_cycles, dense_reads
from accelsim.kernels.mapper import C_FIRST, C_TILE, P_ENGINE, P_LANES, P_PIXELS, P_SLICE, P_UNITS, P_WIDTH
from accelsim.kernels.segments import segment_cycles
from accelsim.kernels.systolic_forms import FORM_TREE, systolic_accumulates, systolic_cycles, systolic_reads
from accelsim.optable import (
    E_ACCUMULATORS,
    E_APORT,
    E_DOUBLE,
    E_FORM,
    E_LANES,
    E_OUTPUTS,
    E_PIPELINE,
    E_PIXELS,
    E_WIDTH,
    E_WPORT,
    M_INPUTS,
    M_MODE,
    M_PASSES,
    M_PRODUCTS,
    O_COLS,
    O_DEPTH,
    O_GROUPS,
    O_REQUANTIZATIONS,
    O_ROWS_H,
    O_ROWS_W,
    S_COMBO,
)
from accelsim.plan import QuantizedOp
from accelsim.program import OCCUPANCY, OP, UNIT, Int64
from accelsim.segment_table import grouped_parts, reduction_parts, sums_parts

_ACCUMULATES, _OUTPUTS = (ENGINE_COUNTS.index(name) for name in ("accumulates", "outputs"))
_ACT_READ, _ACT_WRITE = range(len(VECTOR_KINDS), len(VECTOR_KINDS) + 2)
Float = np.ndarray


@dataclass(frozen=True)
class ProductWork:
    """A head of a product of activations: cycles of its row, counts in `count_columns` order."""

    cycles: int
    counts: Int64


def array_cycles(report: Report, k: int) -> Float:
    """[engines] cycles for which op k keeps every array engine busy, one image."""
    program = report.lowered.program
    found = np.zeros(len(report.accelerator.engines))
    for first, rows, times, _ in program.phases.tolist():
        for row in program.templates[first : first + rows]:
            if row[OP] == k and row[UNIT] < len(found):
                found[row[UNIT]] += int(row[OCCUPANCY]) * times
    return found / program.ticks_per_cycle


def part_of_head(report: Report, k: int, head: int) -> Int64:
    """The part of a mapping that executes a head of op k: the heads of a tile go to its parts in turn."""
    chains = report.arrays.chains
    chain = chains[np.searchsorted(chains[:, C_FIRST], k, side="right") - 1]
    full, heads = int(chain[C_TILE]), int(report.table.ops[k, O_GROUPS])
    start = head // full * full
    size = min(full, heads - start)
    left, place = size, head - start
    parts = report.arrays.parts[k, : report.arrays.n_parts[k]]
    for part in parts:
        units = min(left, -(-int(part[P_UNITS]) * size // full))
        if place < units:
            return np.asarray(part)
        place, left = place - units, left - units
    return np.asarray(parts[-1])


def product_work(report: Report, k: int, head: int) -> ProductWork:
    """Cycles and counts of one head of a product of activations, as a row of its own, in its own widths."""
    table, engines = report.table, report.engines
    item, op, part = table.quantized.ops[k], table.ops[k], part_of_head(report, k, head)
    e = int(part[P_ENGINE])
    engine = engines.engines[e]
    left = _own(item.left_heads, item.activation, head)
    right = _own(item.right_heads, item.right, head)
    mode = _mode(report, item, e, right, left)
    lanes, width, pixels = _sizes(part, engine)
    rows, cols, depth = int(op[O_ROWS_H] * op[O_ROWS_W]), int(op[O_COLS]), int(op[O_DEPTH])
    products, form, held = int(mode[M_PRODUCTS]), int(engine[E_FORM]), int(engine[E_ACCUMULATORS])
    ports = tuple(int(engine[column]) for column in (E_APORT, E_WPORT, E_OUTPUTS, E_PIPELINE))
    if form == FORM_TREE:
        word, passes = width * int(mode[M_INPUTS]), int(mode[M_PASSES])
        cycles, _ = dense_cycles(
            1, rows, cols, 1, depth, lanes, word, pixels, products, passes, left.bits, right.bits, *ports
        )
        reads = dense_reads(1, rows, cols, 1, depth, lanes, products, pixels, left.bits, right.bits)
        updates = dense_accumulates(1, rows, cols, 1, depth, word, passes)
    else:
        cycles, _ = systolic_cycles(
            form, 1, rows, cols, depth, width, lanes, products, int(engine[E_DOUBLE]), held, left.bits, right.bits,
            *ports,
        )  # fmt: skip
        reads = systolic_reads(form, 1, rows, cols, depth, width, lanes, products, held, left.bits, right.bits)
        updates = systolic_accumulates(form, 1, rows, cols, depth, width)
    counts = np.zeros(report.result.counts.shape[1], np.int64)
    own, shared = e * len(ENGINE_COUNTS), len(engines.engines) * len(ENGINE_COUNTS)
    counts[own + int(mode[M_MODE])] = rows * cols * depth
    counts[own + _ACCUMULATES] = updates
    counts[own + _OUTPUTS] = rows * cols * int(op[O_REQUANTIZATIONS])
    counts[shared + _ACT_READ] = sum(reads)
    counts[shared + _ACT_WRITE] = rows * cols * _own(item.heads, item.output, head).bits
    return ProductWork(int(cycles), counts)


def segment_shares(report: Report, k: int, heads: int) -> Float:
    """[engines, heads] shares of a linear layer's array cycles: those of a head's segment, divided by its heads.

    Cycles of no segment (a shift, a drain that is longer than the block) follow these shares.
    """
    table, engines = report.table, report.engines
    item, op = table.quantized.ops[k], table.ops[k]
    shares = np.zeros((len(engines.engines), heads))
    for part in report.arrays.parts[k, : report.arrays.n_parts[k]]:
        e, s, units = (int(part[column]) for column in (P_ENGINE, P_SLICE, P_UNITS))
        engine = engines.engines[e]
        if not sums_parts(item) or engine[E_FORM] != FORM_TREE:
            shares[e] += units
            continue
        lanes, width, pixels = _sizes(part, engine)
        segments = [one for _, one in grouped_parts(table, engines, k, s, e)]
        modes = [_mode(report, item, e, one[0].weight, one[0].activation) for one in segments]
        block = min(units, lanes * max(int(mode[M_PRODUCTS]) for mode in modes))
        for one, mode in zip(segments, modes, strict=True):
            cycles = segment_cycles(
                int(op[O_DEPTH]) // heads * len(one), min(pixels, int(op[O_ROWS_H] * op[O_ROWS_W])), block, lanes,
                width * int(mode[M_INPUTS]), int(mode[M_PRODUCTS]), int(mode[M_PASSES]),
                max(head.activation.bits for head in one), max(head.weight.bits for head in one),
                int(engine[E_APORT]), int(engine[E_WPORT]),
            )  # fmt: skip
            shares[e, [head.place for head in one]] += units * cycles / len(one)
    return np.asarray(shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12))


def filter_shares(report: Report, k: int, channels: list[list[int]]) -> Float:
    """[engines, heads] shares of a linear layer's array cycles: products of a head's `channels`, by their speed."""
    table, engines = report.table, report.engines
    item = table.quantized.ops[k]
    shares = np.zeros((len(engines.engines), len(channels)))
    for part in report.arrays.parts[k, : report.arrays.n_parts[k]]:
        e, s = int(part[P_ENGINE]), int(part[P_SLICE])
        mode = engines.modes[int(table.slices[k, s, S_COMBO]), e]
        speed = int(mode[M_PRODUCTS]) * int(mode[M_INPUTS]) / int(mode[M_PASSES])
        own = np.array([_members(item, s, places) for places in channels])
        shares[e] += own / max(1, own.sum()) * int(part[P_UNITS]) / speed
    return np.asarray(shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12))


def part_products_pj(report: Report, k: int, head: int, heads: int) -> float:
    """Energy of the products of a head's part of a linear layer's reduction, each in the mode of its widths."""
    item, op = report.table.quantized.ops[k], report.table.ops[k]
    total, outputs = 0.0, int(op[O_ROWS_H] * op[O_ROWS_W])
    for part in report.arrays.parts[k, : report.arrays.n_parts[k]]:
        e, s = int(part[P_ENGINE]), int(part[P_SLICE])
        left, right = item.activation, item.weights[s].format
        if sums_parts(item):
            own = reduction_parts(item, s)[head]
            left, right = own.activation, own.weight
        mode = _mode(report, item, e, right, left)
        total += int(part[P_UNITS]) * outputs * int(op[O_DEPTH]) / heads * _price(report, e, mode)
    return total


def column_products_pj(report: Report, k: int, channels: list[int]) -> float:
    """Energy of the products of some output channels of a linear layer, each in the mode of its format."""
    item, op = report.table.quantized.ops[k], report.table.ops[k]
    total, outputs = 0.0, int(op[O_ROWS_H] * op[O_ROWS_W])
    for part in report.arrays.parts[k, : report.arrays.n_parts[k]]:
        e, s = int(part[P_ENGINE]), int(part[P_SLICE])
        mode = report.engines.modes[int(report.table.slices[k, s, S_COMBO]), e]
        every = _members(item, s, list(range(int(op[O_COLS]))))
        share = _members(item, s, channels) / max(1, every)
        total += share * int(part[P_UNITS]) * outputs * int(op[O_DEPTH]) * _price(report, e, mode)
    return total


def _price(report: Report, e: int, mode: Int64) -> float:
    return float(unit_energies(report.accelerator)[e * len(ENGINE_COUNTS) + int(mode[M_MODE])])


def _members(item: QuantizedOp, s: int, places: list[int]) -> int:
    """Channels among `places` that have the format of slice s; all where the plan does not name them."""
    named = item.weights[s].channels
    return len(places) if named is None else int(np.isin(places, named.indices).sum())


def _own(widths: HeadWidths | None, plain: Format, head: int) -> Format:
    return plain if widths is None else Format(Scheme.UNIFORM, widths.bits[head])


def _mode(report: Report, item: QuantizedOp, e: int, right: Format, left: Format) -> Int64:
    assert item.op.loop is not None
    key = (right, left, item.op.loop.depthwise, item.op.loop.reduction)
    return np.asarray(report.engines.modes[report.table.combos.index(key), e])


def _sizes(part: Int64, engine: Int64) -> tuple[int, int, int]:
    """(lanes, lane inputs, pixel groups) that a part uses."""
    columns = ((P_LANES, E_LANES), (P_WIDTH, E_WIDTH), (P_PIXELS, E_PIXELS))
    return tuple(int(part[own]) or int(engine[whole]) for own, whole in columns)  # type: ignore[return-value]
