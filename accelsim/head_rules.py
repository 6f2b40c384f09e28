"""What a plan may ask of head widths: equal parts that engines execute head by head, or that one sum can align.

docs/decisions/0020-head-widths.md has the reasons, an interpretation of Q-ViT (Li et al. 2022, arXiv 2201.07703).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from accelsim.formats import Format, Scheme
from accelsim.head_widths import HeadWidths
from accelsim.ir import Op, OpKind, Workload
from accelsim.problems import Problem

if TYPE_CHECKING:
    from accelsim.plan import QuantizedOp, QuantPlan

_THIRDS = 3  # q | k | v of one linear layer
_NO_HEADS = ("no `heads` in this rule",)
_NO_WEIGHT_HEADS = ("no `weight_heads` in this rule",)
_SHIFTS = ("`shifts`, all 0 where the parts have one step",)
_Fault = tuple[str, str, tuple[str, ...]]


def read_heads(
    workload: Workload, plan: QuantPlan, ops: Sequence[QuantizedOp]
) -> tuple[list[QuantizedOp], list[Problem]]:
    """The ops with the widths of what they read, and what is wrong with the head widths of a plan.

    `left_heads` and `right_heads` of a product have one width per group of its nest, those of a linear layer are the
    parts of its reduction.
    """
    if not any(item.heads is not None or item.weight_heads is not None for item in ops):
        return list(ops), []
    stored = {item.op.output: item.heads for item in ops if item.heads is not None}
    softmaxes = {item.op.output for item in ops if item.op.recipe and item.op.recipe.name.startswith("softmax")}
    found = [_with_operands(item, stored, softmaxes) for item in ops]
    problems = []
    if any(rule.tokens is not None for rule in plan.rules):
        what = "`tokens` and head widths in one plan"
        problems.append(Problem(f"plan {plan.name}", what, "one of them: no operand is cut along two axes"))
    for item in found:
        where = f"plan {plan.name}: {item.op.name}"
        if item.heads is not None:
            faults = [*_own_faults(workload, item), *_width_faults(item.heads, item.output)]
            if not faults:
                faults = list(_reader_faults(workload, item.op.output, item.heads, softmaxes))
            problems += [Problem(f"{where}: heads", *fault) for fault in faults]
        if item.weight_heads is not None:
            problems += [Problem(f"{where}: weight_heads", *fault) for fault in _weight_faults(item, item.weight_heads)]
    return found, problems


def _with_operands(item: QuantizedOp, stored: dict[str, HeadWidths], softmaxes: set[str]) -> QuantizedOp:
    op = item.op
    if op.loop is None:
        return item
    left = stored.get(op.inputs[0])
    right = stored.get(op.inputs[1]) if op.kind is OpKind.MATMUL and len(op.inputs) > 1 else None
    if op.kind is OpKind.MATMUL:
        left = _third(left, op, 0)
        right = _third(right, op, 2 if op.inputs[0] in softmaxes else 1)
    return item if left is right is None else replace(item, left_heads=left, right_heads=right)


def _third(widths: HeadWidths | None, op: Op, third: int) -> HeadWidths | None:
    """One width per group: all of the parts, or the third of them that the operand is."""
    assert op.loop is not None
    groups = op.loop.groups
    if widths is None or len(widths.bits) == groups:
        return widths
    return HeadWidths(widths.bits[third * groups : (third + 1) * groups])


def _width_faults(widths: HeadWidths, widest: Format) -> Iterator[_Fault]:
    if widest.scheme is not Scheme.UNIFORM:
        yield f"parts of {widest.name} codes", "a uniform format", ("u8",)
    elif max(widths.bits) != widest.bits:
        what = f"the widest part has {max(widths.bits)} bits, the format is {widest.name}"
        yield what, "the format of the widest part", (f"u{max(widths.bits)}",)
    if widths.shifts and len(widths.shifts) != len(widths.bits):
        yield f"{len(widths.shifts)} shifts for {len(widths.bits)} parts", "one for every part, or none", _SHIFTS


def _own_faults(workload: Workload, item: QuantizedOp) -> Iterator[_Fault]:
    assert item.heads is not None
    op, parts = item.op, len(item.heads.bits)
    channels = workload.tensor_by_name[op.output].channels
    if channels % parts:
        yield f"{parts} parts of {channels} channels", "a number of parts that divides them", _NO_HEADS
    if item.granularity.startswith("channel"):
        yield f"head widths of an output with {item.granularity}", "granularity: tensor or group", _NO_HEADS
    if op.output in workload.storage_of(workload.output):
        yield "the output of the network has head widths", "widths of tensors that engines read", _NO_HEADS
    if op.loop is None and not (op.recipe is not None and op.recipe.name.startswith("softmax")):
        yield "a vector op makes them", "linear layers, products or a softmax", _NO_HEADS
        return
    nest = op.loop or op.recipe
    assert nest is not None
    if op.kind is OpKind.CONV:
        if nest.groups != 1:
            yield f"a convolution of {nest.groups} groups makes them", "an ungrouped layer", _NO_HEADS
    elif nest.groups != parts:
        yield f"{parts} parts for {nest.groups} heads", f"one part for every head: {nest.groups}", _NO_HEADS


def _reader_faults(workload: Workload, output: str, widths: HeadWidths, softmaxes: set[str]) -> Iterator[_Fault]:
    tensor = workload.tensor_by_name[output]
    size = tensor.channels // len(widths.bits)
    readers = workload.readers[output]
    if not readers:
        yield "nothing reads them", "array engines as readers", _NO_HEADS
    for op in readers:
        if output not in op.inputs:
            yield f"{op.name} reads them through a view", "readers of the tensor itself", _NO_HEADS
        elif op.loop is None:
            yield f"{op.name}, a vector op, reads them", "array engines as the only readers", _NO_HEADS
        elif op.kind is OpKind.MATMUL:
            yield from _product_faults(op, output, widths, size, op.inputs[0] in softmaxes)
        else:
            yield from _sum_faults(op, tensor.h * tensor.w, widths)


def _product_faults(op: Op, output: str, widths: HeadWidths, size: int, of_shares: bool) -> Iterator[_Fault]:
    loop = op.loop
    assert loop is not None
    parts = len(widths.bits)
    if parts not in (loop.groups, _THIRDS * loop.groups):
        expected = f"{loop.groups} parts, or {_THIRDS * loop.groups} of q | k | v"
        yield f"{op.name} has {loop.groups} heads for {parts} parts", expected, _NO_HEADS
        return
    # Values have a column per channel; all others are summed over their channels.
    needed = {loop.depth} if op.inputs[0] == output else set()
    if output in op.inputs[1:]:
        needed.add(loop.cols if of_shares else loop.depth)
    if needed != {size}:
        what = f"{op.name} reads {' and '.join(map(str, sorted(needed)))} channels of a head, a part has {size}"
        yield what, "parts that are the heads of its operand", _NO_HEADS
    if loop.right_implicit_cols:
        yield f"{op.name} has constant columns", "a right operand that is stored whole", _NO_HEADS


def _sum_faults(op: Op, positions: int, widths: HeadWidths) -> Iterator[_Fault]:
    loop = op.loop
    assert loop is not None
    if loop.groups != 1 or loop.taps != 1 or loop.stride != 1 or loop.padding or loop.rows != positions:
        expected = "a linear layer with one output row per position"
        yield f"{op.name} reads windows or groups of them", expected, _NO_HEADS
    elif loop.depth % len(widths.bits):
        yield f"{op.name} sums {loop.depth} channels of {len(widths.bits)} parts", "parts that divide them", _NO_HEADS
    elif not widths.shifts and len(set(widths.bits)) > 1:
        yield f"{op.name} sums parts of {_words(widths)} bits without `shifts`", "steps tied by powers of two", _SHIFTS


def _weight_faults(item: QuantizedOp, widths: HeadWidths) -> Iterator[_Fault]:
    loop = item.op.loop if item.op.kind is OpKind.CONV else None
    if loop is None or loop.groups != 1 or loop.taps != 1:
        yield "not an ungrouped linear layer", "a layer whose filters have one tap", _NO_WEIGHT_HEADS
        return
    if len(item.weights) != 1:
        yield f"filters of {len(item.weights)} formats", "one weight format", ("weights: u8",)
    else:
        yield from _width_faults(widths, item.weights[0].format)
    if loop.depth % len(widths.bits):
        yield f"{len(widths.bits)} parts of {loop.depth} inputs", "parts that divide them", _NO_WEIGHT_HEADS
    if not widths.shifts and len(set(widths.bits)) > 1:
        yield f"a sum over parts of {_words(widths)} bits without `shifts`", "steps tied by powers of two", _SHIFTS
    if item.left_heads is not None and len(item.left_heads.bits) != len(widths.bits):
        what = f"{len(widths.bits)} parts of the filters, {len(item.left_heads.bits)} of the activations"
        yield what, "the same parts", _NO_WEIGHT_HEADS


def _words(widths: HeadWidths) -> str:
    return " and ".join(str(bits) for bits in sorted(set(widths.bits), reverse=True))
