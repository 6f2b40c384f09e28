"""Quantization plan: what the hardware must know.  `apply_plan` gives every op of a Workload its formats."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from accelsim.formats import Format
from accelsim.ir import Op, OpKind, Workload, digest
from accelsim.problems import AccelsimError, Problem

UNIFORM8 = Format.parse("u8")


@dataclass(frozen=True)
class WeightShare:
    """A part of an op's output channels and the weight format they have.

    `share` is the fraction of channels, or None for "balanced": the accelerator's engines decide, so that the slices
    of the op finish together.
    """

    format: Format
    share: float | None = 1.0


@dataclass(frozen=True)
class Rule:
    """Formats of all ops that match: `match` is a glob on the op name or, with the prefix ``class:``, on its class.

    The first matching rule wins.  `right` is the format of a MATMUL's second operand.
    """

    match: str
    weights: tuple[WeightShare, ...] = (WeightShare(UNIFORM8),)
    activation: Format = UNIFORM8
    output: Format = UNIFORM8
    right: Format = UNIFORM8

    def matches(self, op: Op) -> bool:
        """True when this rule covers `op`."""
        if self.match.startswith("class:"):
            return fnmatch.fnmatchcase(op.op_class, self.match[6:])
        return fnmatch.fnmatchcase(op.name, self.match)


@dataclass(frozen=True)
class QuantPlan:
    """Ordered rules plus widths that hold for the whole network.

    `division` is the method of the linear-attention divider: "log2_shift" (leading-one, 4-bit exponent) or "divide".
    """

    name: str
    rules: tuple[Rule, ...]
    division: str = "log2_shift"
    bias_bits: int = 32
    scale_bits: int = 32

    def rule_for(self, op: Op) -> Rule:
        """First matching rule; plans end with a catch-all, checked when a plan is read."""
        return next(rule for rule in self.rules if rule.matches(op))

    def to_json(self) -> dict[str, Any]:
        """Plain data in the plan file's format."""
        return {
            "format": "accelsim.plan/1",
            "name": self.name,
            "division": self.division,
            "bias_bits": self.bias_bits,
            "scale_bits": self.scale_bits,
            "rules": [
                {
                    "match": rule.match,
                    "weights": [
                        {"format": part.format.name, "share": "balanced" if part.share is None else part.share}
                        for part in rule.weights
                    ],
                    "activation": rule.activation.name,
                    "output": rule.output.name,
                    "right": rule.right.name,
                }
                for rule in self.rules
            ],
        }

    def fingerprint(self) -> str:
        """Hash of everything but the name."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return digest({**self.to_json(), "name": ""})


@dataclass(frozen=True)
class QuantizedOp:
    """An op with its formats.  `weight_formats` has one entry per slice of output channels, shares as in the plan."""

    op: Op
    weights: tuple[WeightShare, ...]
    activation: Format
    right: Format
    output: Format

    @property
    def mixed(self) -> bool:
        """True when output channels have more than one format (an index table is stored)."""
        return len(self.weights) > 1


@dataclass(frozen=True)
class QuantizedWorkload:
    """A workload and the formats of every op; `activation_bits` gives the stored bits of every tensor."""

    workload: Workload
    plan: QuantPlan
    ops: tuple[QuantizedOp, ...]
    activation_bits: dict[str, int]

    def fingerprint(self) -> str:
        """Hash of workload and plan."""
        return digest([self.workload.fingerprint(), self.plan.fingerprint()])


def apply_plan(workload: Workload, plan: QuantPlan) -> QuantizedWorkload:
    """Formats of every op and tensor.

    A tensor is stored in its producer's output format; the graph input in the format that its first consumer reads.
    Consumers read what is stored: the activation format of an op is the stored format of its first input.  The plan's
    division method replaces the recipe of `division` ops.  Raises AccelsimError when a view joins tensors of different
    formats: its readers have one width.
    """
    problems: list[Problem] = []
    stored: dict[str, Format] = {}
    first_rule = plan.rule_for(workload.ops[0])
    stored[workload.input] = first_rule.activation
    ops = []
    bits: dict[str, int] = {workload.input: first_rule.activation.bits}
    for op in workload.ops:
        rule = plan.rule_for(op)
        if op.kind is OpKind.VIEW:
            stored[op.output] = stored[op.inputs[0]]
            if any(stored[name] != stored[op.inputs[0]] for name in op.inputs):
                parts = ", ".join(f"{name} ({stored[name].name})" for name in op.inputs)
                levers = (f"the same `output` for {' and '.join(op.inputs)}",)
                problems.append(
                    Problem(f"plan {plan.name}: {op.name}", f"joins {parts}", "tensors of one format", levers)
                )
            bits[op.output] = stored[op.output].bits
            continue
        activation = stored[op.inputs[0]]
        right = stored[op.inputs[1]] if op.kind is OpKind.MATMUL and len(op.inputs) > 1 else rule.right
        if op.op_class == "division":
            op = replace(op, recipe=_division_recipe(op, plan.division))
        weights = rule.weights if op.weights else ()
        ops.append(QuantizedOp(op, weights, activation, right, rule.output))
        stored[op.output] = rule.output
        bits[op.output] = rule.output.bits
    if problems:
        raise AccelsimError(problems[:8])
    return QuantizedWorkload(workload, plan, tuple(ops), bits)


def _division_recipe(op: Op, method: str) -> Any:
    from accelsim.workloads.recipes import division_recipe

    assert op.recipe is not None
    return division_recipe(op.recipe, method)
