"""Two-region codes in a plan: which ops may store them, which may read them, and what making them costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from accelsim.formats import Format, Scheme
from accelsim.ir import OpKind, Recipe, VectorKind, VectorPass, Workload
from accelsim.problems import Problem

if TYPE_CHECKING:
    from accelsim.plan import QuantizedOp, QuantPlan

LOG2_SOFTMAX = "fqvit"  # its Log-Int-Softmax has log2 codes as its only result
NEVER_NEGATIVE = ("softmax", "sigmoid")


@cache
def region_pass(fmt: Format) -> VectorPass:
    """Issue slots per element that store the nearest two-region code of a number of fine steps."""
    from accelsim.nonlinear.program import Builder

    build = Builder()
    steps = build.operand("x")
    code = build.region_code(steps, fmt)
    return build.finish(code, steps).passes[0]


def region_recipe(recipe: Recipe, output: Format) -> Recipe:
    """A recipe whose last pass stores codes of this format; itself unless they have two regions.

    The entries of a table are the codes, so that a pass that ends in a table has no more work.
    """
    from accelsim.workloads.recipes import merged

    last = recipe.passes[-1]
    if output.scheme is not Scheme.TWO_REGION or any(kind is VectorKind.TABLE for kind, _ in last.per_element):
        return recipe
    longer = replace(last, per_element=merged(last.per_element, region_pass(output).per_element))
    return replace(recipe, passes=(*recipe.passes[:-1], longer))


def region_problems(workload: Workload, plan: QuantPlan, ops: Sequence[QuantizedOp]) -> Iterator[Problem]:
    """Two-region codes where nothing makes them, with a zero point or per-channel scales, or where none can read them.

    Array engines read them as their streamed operand; everything else would need them decoded.
    """
    coded = set()
    for item in ops:
        if item.output.scheme is Scheme.TWO_REGION:
            coded.add(item.op.output)
            for what, expected, levers in _maker_faults(item):
                yield Problem(f"plan {plan.name}: {item.op.name}", what, expected, levers)
    if not coded:
        return
    formats = {item.op.output: f"u{item.output.bits}" for item in ops}
    for name in sorted(coded & {*workload.storage_of(workload.output)}):
        what, levers = f"the network's output is two-region codes ({name})", (f"output: {formats[name]}",)
        yield Problem(f"plan {plan.name}: {workload.output}", what, "integers with one scale", levers)
    for op in workload.ops:
        for place, name in enumerate(op.inputs if op.kind is not OpKind.VIEW else ()):
            codes = coded & {*workload.storage_of(name)}
            if codes and (op.kind is OpKind.VECTOR or place > 0):
                unit = "in the vector unit" if op.kind is OpKind.VECTOR else "as its right operand"
                what = f"reads the two-region codes of {min(codes)} {unit}"
                expected = "matmuls with them as their left operand, and convolutions"
                levers = (f"output: {formats[min(codes)]} of its producer",)
                yield Problem(f"plan {plan.name}: {op.name}", what, expected, levers)


def _maker_faults(item: QuantizedOp) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """What is wrong with two-region codes as the result of an op."""
    function, name = _last_function(item), item.output.name
    plain = f"output: u{item.output.bits}"
    if not function:
        what = f"output {name} of an op that ends in no softmax and in no table"
        yield what, "a softmax, or an op with hardswish, gelu, silu or sigmoid behind it", (plain,)
        return
    if item.function == "softmax" and item.nonlinear == LOG2_SOFTMAX:
        return  # stores log2 codes only, which its own rule says
    if item.output.low_negative == (function in NEVER_NEGATIVE):
        right = replace(item.output, low_negative=not item.output.low_negative).name
        signs = "is never negative" if item.output.low_negative else "has negative values"
        yield f"output {name} of {function}, which {signs}", right, (f"output: {right}",)
    if item.zero_point:
        yield f"output {name} and a zero point", "no zero point: both regions begin at zero", ("zero_point: false",)
    grouped = item.function == "softmax" and item.granularity == "group"
    if item.granularity != "tensor" and not grouped:
        allowed = "tensor or group" if item.function == "softmax" else "tensor"
        yield f"output {name} and granularity {item.granularity}", allowed, ("granularity: tensor",)


def _last_function(item: QuantizedOp) -> str:
    """The function whose results an op stores, "" for none that can have regions."""
    from accelsim.plan import TABLE_ACTIVATIONS

    if item.op.loop is not None:
        return item.op.activation if item.op.activation in TABLE_ACTIVATIONS else ""
    if item.function in ("softmax", "gelu"):
        return item.function
    name = item.op.recipe.name if item.op.recipe else ""
    return name if name in TABLE_ACTIVATIONS else ""
