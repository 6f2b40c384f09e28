"""What a plan may ask of an op: index tables that fit it; zero points, scales and offsets that its readers can bear.

A reader's sum is Σ w·(a − z)·s over its inputs.  One z and one s for all of a leave the sum (z as a constant of the
bias); what differs between the terms of a sum does not, and a product of two activations with a zero point has sums
that change with the image.  docs/decisions/0011-plan-fields.md has the reasons, rule by rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from accelsim.ir import Op, OpKind, VectorKind, Workload
from accelsim.problems import Problem

if TYPE_CHECKING:
    from accelsim.plan import QuantizedOp, QuantPlan, WeightShare

# Recipes that multiply or divide two activations: a zero point of an operand does not become a constant.
_PRODUCT_RECIPES = ("division", "gate", "attention_normalize")
Fault = tuple[str, str, tuple[str, ...]]


def table_problems(plan: str, op: Op, weights: Sequence[WeightShare]) -> list[Problem]:
    """What is wrong with the index table of an op: shares that do not cover its output channels exactly, once each."""
    if op.loop is None or all(part.channels is None for part in weights):
        return []
    where, outputs = f"plan {plan}: {op.name}", op.loop.groups * op.loop.cols
    every = f"each of the channels 0 … {outputs - 1} in one share"
    if any(part.channels is None for part in weights):
        return [Problem(where, "one share has `channels`, another has not", "all shares with `channels`, or none")]
    found = [
        Problem(where, f"the share {part.format.name} has channel {part.channels.last}", every)
        for part in weights
        if part.channels is not None and part.channels.last >= outputs
    ]
    if found:
        return found
    owner = np.full(outputs, -1, np.int64)
    for number, part in enumerate(weights):
        assert part.channels is not None
        taken = part.channels.indices
        twice = taken[owner[taken] >= 0]
        if twice.size:
            other, more = weights[owner[twice[0]]].format.name, f" and {twice.size - 1:,} more" * (twice.size > 1)
            what = f"channel {twice[0]}{more} of the share {part.format.name} is in the share {other}, too"
            found.append(Problem(where, what, every))
        owner[taken] = number
    missing = np.flatnonzero(owner < 0)
    if missing.size:
        more = f" and {missing.size - 1:,} more" * (missing.size > 1)
        found.append(Problem(where, f"channel {missing[0]}{more} is in no share", every))
    return found or _group_problems(where, op, weights, owner)


def _group_problems(
    where: str, op: Op, weights: Sequence[WeightShare], owner: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> list[Problem]:
    """The first group of a grouped convolution whose channels have two formats: a group is what an engine gets."""
    assert op.loop is not None
    groups, cols = op.loop.groups, op.loop.cols
    if groups == 1:
        return []
    by_group = owner.reshape(groups, cols)
    split = np.flatnonzero((by_group != by_group[:, :1]).any(axis=1))
    if not split.size:
        return []
    g = int(split[0])
    names = " and ".join(weights[k].format.name for k in dict.fromkeys(by_group[g].tolist()))
    more = f" (so have {split.size - 1:,} more groups)" * (split.size > 1)
    what = f"channels {g * cols}-{g * cols + cols - 1} are one group and have {names}{more}"
    return [Problem(where, what, f"whole groups of {cols} channels")]


def storage_problems(workload: Workload, plan: QuantPlan, ops: Sequence[QuantizedOp]) -> list[Problem]:
    """Zero points and granularities of stored tensors that their producer cannot make or a reader cannot bear."""
    asked = [item for item in ops if item.zero_point or item.granularity != "tensor"]
    if not asked and not plan.input_zero_point:
        return []
    found = []
    pointed = {item.op.name for item in asked if item.zero_point}
    if plan.input_zero_point:
        of_input = _zero_point_faults("input_zero_point: false", workload.readers[workload.input], pointed)
        found += [Problem(f"plan {plan.name}: {workload.input}", *fault) for fault in of_input]
    for item in asked:
        of_it = workload.readers[item.op.output]
        faults = [*_producer_faults(item), *_granularity_faults(item.granularity, of_it)]
        if item.zero_point:
            faults += _zero_point_faults("zero_point: false", of_it, pointed)
        found += [Problem(f"plan {plan.name}: {item.op.name}", *fault) for fault in faults]
    return found


def _multiplies_activations(op: Op) -> bool:
    return op.kind is OpKind.MATMUL or (op.recipe is not None and op.recipe.name.startswith(_PRODUCT_RECIPES))


def _outputs(op: Op) -> int:
    return op.loop.groups * op.loop.rows * op.loop.cols if op.loop else op.recipe.elements if op.recipe else 0


def _zero_point_faults(lever: str, readers: Sequence[Op], pointed: set[str]) -> Iterator[Fault]:
    for op in readers:
        if op.recipe is not None and op.recipe.name == "relu" and op.name not in pointed:
            what = (
                f"has a zero point, and {op.name} only compares, so its output has the same, but it is declared without"
            )
            yield what, "a relu with the zero point of its input", (lever, f"zero_point: true for {op.name}")
        if _multiplies_activations(op):
            what = f"has a zero point, and {op.name} multiplies it by activations: {_outputs(op):,} outputs to correct"
            yield what, "no zero point on an operand of a product of activations", (lever,)


def _producer_faults(item: QuantizedOp) -> Iterator[Fault]:
    """Per-channel parameters exist in the output stage behind a convolution and in the gain and offset of LayerNorm."""
    op, asked = item.op, item.granularity
    per_channel = asked.startswith("channel")
    if op.kind is OpKind.MATMUL and per_channel:
        what = f"{asked} on the output of a matmul, which has no parameters for its channels"
        yield what, "tensor or group", ("granularity: group",)
    if op.recipe is None or asked == "tensor" or (item.function == "layernorm" and asked != "group"):
        return
    after_table = any(kind is VectorKind.TABLE for kind, _ in op.recipe.passes[-1].per_element)
    if per_channel or op.recipe.groups == 1 or after_table:
        what = f"{asked} on the output of the vector op {op.recipe.name}, which has one multiplier"
        yield what, "tensor" if op.recipe.groups == 1 or after_table else "tensor or group", ("granularity: tensor",)


def _granularity_faults(asked: str, readers: Sequence[Op]) -> Iterator[Fault]:
    for op in readers:
        loop = op.loop if op.kind is OpKind.CONV else None
        if asked == "channel_scale" and (loop is None or loop.depth > 1):
            terms = f"sums {loop.depth:,} channels" if loop else f"is a {op.recipe.name if op.recipe else op.kind}"
            what = f"channel_scale, but its reader {op.name} {terms}"
            yield what, "depthwise convolutions as the only readers", ("granularity: tensor",)
        elif asked == "group" and loop is not None and loop.groups == 1 and loop.depth > 1:
            what = f"group, but its reader {op.name} sums {loop.depth:,} channels of all groups"
            yield what, "readers that keep groups apart", ("granularity: tensor",)
        elif asked == "channel_offset" and _multiplies_activations(op):
            what = f"channel_offset, and {op.name} multiplies it by activations: {_outputs(op):,} outputs to correct"
            yield what, "convolutions as the only readers", ("granularity: tensor",)
        elif asked == "channel_offset" and (loop is None or loop.padding):
            reason = f"pads with one value ({loop.padding} wide)" if loop else "has one constant for a tensor"
            what = f"channel_offset, but its reader {op.name} {reason}"
            yield what, "convolutions without padding as the only readers", ("granularity: tensor", "zero_point: true")
