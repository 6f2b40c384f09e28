"""Quantization plan: what the hardware must know.  `apply_plan` gives every op of a Workload its formats."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from accelsim.channels import Channels
from accelsim.formats import Format
from accelsim.head_widths import HeadWidths
from accelsim.ir import Op, OpKind, Recipe, Workload, digest
from accelsim.nonlinear.methods import FUNCTIONS, function_of, method_recipe
from accelsim.problems import AccelsimError, Problem
from accelsim.token_groups import TokenGroups

UNIFORM8 = Format.parse("u8")
PLAN_FORMAT, OLD_PLAN_FORMAT = "accelsim.plan/2", "accelsim.plan/1"
# Which channels of an output share a scale and an offset.
PER_TENSOR = "tensor"
GRANULARITIES = (PER_TENSOR, "group", "channel_scale", "channel_offset")
# Functions that the output stage looks up after its requantization; ReLU is its clamp.
TABLE_ACTIVATIONS = ("hardswish", "gelu", "silu", "sigmoid")
MAX_PROBLEMS = 20
CLASS_PREFIX = "class:"


@dataclass(frozen=True)
class WeightShare:
    """A part of an op's output channels and the weight format they have.

    `share` is the fraction of channels, or None for "balanced": the accelerator's engines decide, so that the slices
    of the op finish together.  `channels` says which channels have the format instead: the op's index table.  Either
    every share of a rule has them or none; they cover the op's output channels exactly.
    """

    format: Format
    share: float | None = 1.0
    channels: Channels | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data: the format, and the channels or the share."""
        if self.channels is not None:
            return {"format": self.format.name, "channels": self.channels.text}
        return {"format": self.format.name, "share": "balanced" if self.share is None else self.share}


@dataclass(frozen=True)
class Rule:
    """Formats of all ops that match: `match` is a glob on the op name or, with the prefix ``class:``, on its class.

    The first matching rule wins.  `right` is the format of a MATMUL's second operand.  `zero_point` says that the op's
    output is stored with a zero point, `granularity` which of its channels share a scale: all ("tensor"), a group of
    them such as a head ("group"), none ("channel_scale"), or that all share a scale and none an offset
    ("channel_offset").  `nonlinear` names the method of those matched ops that compute a softmax, a GELU or a LayerNorm
    (`accelsim.nonlinear.methods`); "" leaves them the recipe of the workload.  `tokens` stores some tokens of the
    output in fewer bits, `heads` some parts of its channels; `weight_heads` are the widths of the parts of the filters
    along their inputs.  The widest of `heads` is that of `output`, the widest of `weight_heads` that of the only format
    in `weights`.  `accelsim.plan_rules`, `accelsim.token_rules` and `accelsim.head_rules` have what is legal.
    """

    match: str
    weights: tuple[WeightShare, ...] = (WeightShare(UNIFORM8),)
    activation: Format = UNIFORM8
    output: Format = UNIFORM8
    right: Format = UNIFORM8
    zero_point: bool = False
    granularity: str = PER_TENSOR
    nonlinear: str = ""
    tokens: TokenGroups | None = None
    heads: HeadWidths | None = None
    weight_heads: HeadWidths | None = None

    @property
    def names_one_op(self) -> bool:
        """True when `match` is the name of an op, not a pattern."""
        return not self.match.startswith(CLASS_PREFIX) and not any(mark in self.match for mark in "*?[")

    def matches(self, op: Op) -> bool:
        """True when this rule covers `op`."""
        if self.match.startswith(CLASS_PREFIX):
            return fnmatch.fnmatchcase(op.op_class, self.match.removeprefix(CLASS_PREFIX))
        return fnmatch.fnmatchcase(op.name, self.match)

    def to_json(self) -> dict[str, Any]:
        """Plain data; the fields that `accelsim.plan/1` did not have only where they say something."""
        return {
            "match": self.match,
            "weights": [part.to_json() for part in self.weights],
            "activation": self.activation.name,
            "output": self.output.name,
            "right": self.right.name,
            **({"zero_point": True} if self.zero_point else {}),
            **({"granularity": self.granularity} if self.granularity != PER_TENSOR else {}),
            **({"nonlinear": self.nonlinear} if self.nonlinear else {}),
            **({"tokens": self.tokens.to_json()} if self.tokens is not None else {}),
            **({"heads": self.heads.to_json()} if self.heads is not None else {}),
            **({"weight_heads": self.weight_heads.to_json()} if self.weight_heads is not None else {}),
        }


@dataclass(frozen=True)
class QuantPlan:
    """Ordered rules plus widths that hold for the whole network.

    `division` is the method of the linear-attention divider: "log2_shift" (leading-one, 4-bit exponent) or "divide".
    `input_zero_point` says that the graph input is stored with a zero point, as `Rule.zero_point` does of an output.
    """

    name: str
    rules: tuple[Rule, ...]
    division: str = "log2_shift"
    bias_bits: int = 32
    scale_bits: int = 32
    input_zero_point: bool = False

    def rule_for(self, op: Op) -> Rule:
        """First matching rule; plans end with a catch-all, checked when a plan is read."""
        named, patterns = self._index
        at = named.get(op.name, len(self.rules))
        for place in patterns:
            if place > at:
                break
            if self.rules[place].matches(op):
                return self.rules[place]
        return self.rules[at]

    @cached_property
    def _index(self) -> tuple[dict[str, int], tuple[int, ...]]:
        """Places of the rules that name one op each (the first of a name), and of those that are patterns."""
        named: dict[str, int] = {}
        patterns = []
        for place, rule in enumerate(self.rules):
            if rule.names_one_op:
                named.setdefault(rule.match, place)
            else:
                patterns.append(place)
        return named, tuple(patterns)

    def to_json(self) -> dict[str, Any]:
        """Plain data in the plan file's format."""
        return {
            "format": PLAN_FORMAT,
            "name": self.name,
            "division": self.division,
            "bias_bits": self.bias_bits,
            "scale_bits": self.scale_bits,
            **({"input_zero_point": True} if self.input_zero_point else {}),
            "rules": [rule.to_json() for rule in self.rules],
        }

    def fingerprint(self) -> str:
        """Hash of everything but the name."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        # Under the old format's name: a plan that uses none of the newer fields keeps the fingerprint that it had.
        return digest({**self.to_json(), "name": "", "format": OLD_PLAN_FORMAT})


@dataclass(frozen=True)
class QuantizedOp:
    """An op with its formats.  `weights` has one entry per slice of output channels, shares as in the plan.

    `nonlinear` is the method whose recipe the op has, "" when the plan names none for it.  `tokens` are the groups of
    the output, `left_tokens` and `right_tokens` those of the operands; `right_axis` says along which axis of the nest
    the tokens of the right operand lie: "cols" (keys), "depth" (values), "" when it has no groups.  `heads` are the
    widths of the output's parts, `weight_heads` those of the filters along their inputs; `left_heads` and `right_heads`
    those of the operands: of a product one per group of its nest, of a linear layer the parts of its reduction.
    """

    op: Op
    weights: tuple[WeightShare, ...]
    activation: Format
    right: Format
    output: Format
    zero_point: bool = False
    granularity: str = PER_TENSOR
    nonlinear: str = ""
    tokens: TokenGroups | None = None
    left_tokens: TokenGroups | None = None
    right_tokens: TokenGroups | None = None
    right_axis: str = ""
    heads: HeadWidths | None = None
    weight_heads: HeadWidths | None = None
    left_heads: HeadWidths | None = None
    right_heads: HeadWidths | None = None

    @property
    def function(self) -> str:
        """Softmax, gelu or layernorm where the op computes it, by whatever method; else ""."""
        head = self.op.recipe.name.removesuffix(f"_{self.nonlinear}") if self.op.recipe else ""
        return head if head in FUNCTIONS else ""

    @property
    def requantizes_twice(self) -> bool:
        """True when the output stage has work after its table: scales or offsets of its channels differ there."""
        return self.granularity != PER_TENSOR and self.op.activation in TABLE_ACTIVATIONS

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
    division method replaces the recipe of `division` ops, a rule's non-linear method that of the ops it is for.  Raises
    AccelsimError when a view joins tensors of different formats (its readers have one width), when an index table does
    not fit its op, when a method is unknown or not for its op, and when a zero point, a scale or an offset is where the
    readers' sums cannot bear it, or head widths are.
    """
    from accelsim.head_rules import read_heads
    from accelsim.nonlinear.plan_rules import method_problems, operand_problems
    from accelsim.plan_rules import storage_problems, table_problems
    from accelsim.token_rules import right_axis, token_problems

    problems = method_problems(workload, plan)
    methods_sound = not problems
    stored = {workload.input: plan.rule_for(workload.ops[0]).activation}
    groups: dict[str, TokenGroups | None] = {workload.input: None}
    ops = []
    for op in workload.ops:
        rule = plan.rule_for(op)
        if op.kind is OpKind.VIEW:
            problems += _joined_problems(plan, op, stored)
            stored[op.output], groups[op.output] = stored[op.inputs[0]], groups[op.inputs[0]]
            continue
        activation = stored[op.inputs[0]]
        right = stored[op.inputs[1]] if op.kind is OpKind.MATMUL and len(op.inputs) > 1 else rule.right
        nonlinear = rule.nonlinear if function_of(op.recipe) else ""
        recipe = _recipe(op, plan.division, nonlinear if methods_sound else "", rule.output)
        op = op if recipe is op.recipe else replace(op, recipe=recipe)
        weights = rule.weights if op.weights else ()
        problems += table_problems(plan.name, op, weights)
        left_tokens, right_tokens = groups[op.inputs[0]], groups[op.inputs[1]] if len(op.inputs) > 1 else None
        item = QuantizedOp(
            op, weights, activation, right, rule.output, rule.zero_point, rule.granularity, nonlinear, rule.tokens,
            left_tokens, right_tokens, right_axis(workload, op, right_tokens), rule.heads, rule.weight_heads,
        )  # fmt: skip
        ops.append(item)
        stored[op.output], groups[op.output] = rule.output, rule.tokens
    ops, head_problems = read_heads(workload, plan, ops)
    problems += storage_problems(workload, plan, ops) + token_problems(workload, plan, ops) + head_problems
    if methods_sound:
        problems += operand_problems(workload, plan, ops)
    if problems:
        raise AccelsimError(problems[:MAX_PROBLEMS])
    return QuantizedWorkload(workload, plan, tuple(ops), {name: fmt.bits for name, fmt in stored.items()})


def _joined_problems(plan: QuantPlan, op: Op, stored: Mapping[str, Format]) -> list[Problem]:
    """A problem when a view joins tensors of different formats."""
    if all(stored[name] == stored[op.inputs[0]] for name in op.inputs):
        return []
    parts = ", ".join(f"{name} ({stored[name].name})" for name in op.inputs)
    levers = (f"the same `output` for {' and '.join(op.inputs)}",)
    return [Problem(f"plan {plan.name}: {op.name}", f"joins {parts}", "tensors of one format", levers)]


def _recipe(op: Op, division: str, nonlinear: str, output: Format) -> Recipe | None:
    """The op's recipe with the method of a divider or of a non-linear function ("" is the one that it has) and with
    what storing two-region codes takes.
    """
    from accelsim.nonlinear.regions import region_recipe
    from accelsim.workloads.recipes import division_recipe

    if op.recipe is None:
        return None
    recipe = division_recipe(op.recipe, division) if op.op_class == "division" else op.recipe
    return region_recipe(method_recipe(recipe, nonlinear) if nonlinear else recipe, output)
