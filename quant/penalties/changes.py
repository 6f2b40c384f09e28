"""One choice: its plan, its calibrated numbers, and a run of the float network in which only it is quantized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from accelsim.formats import Format
from accelsim.head_widths import HeadWidths
from accelsim.plan import QuantizedWorkload, QuantPlan, Rule, WeightShare, apply_plan
from accelsim.token_rules import sliced_ops
from quant.calibrate import (
    Calibration,
    calibrate,
    correct_biases,
    corrected,
    finest_scale,
    norm_factors,
    rounded_filters,
    stored_quantizer,
)
from quant.calibrated import Checkpoint
from quant.collect import Statistics, collect
from quant.fake import ADDED_CONSTANT, FakeQuantized
from quant.functional import Affine, fake_quantize
from quant.groups import Groups, scale_groups
from quant.head_parts import part_places
from quant.integer.graph import Compiler
from quant.network import Node, Numerics
from quant.patchwise.plans import with_groups
from quant.penalties.activation_groups import ActivationGroup
from quant.penalties.choices import StoredChoice
from quant.structure import readers

FILTERS, OUTPUTS, CODED, PARTS, TOKENS, DIVISION = "filters", "outputs", "coded", "parts", "tokens", "division"
FULL = "full"  # the choice of a layer without token groups


@dataclass(frozen=True)
class Change:
    """What differs from the base.

    `kind` is "filters" (of an op), "outputs" (of a group, in a choice of `quant.penalties.choices`), "coded" (as
    "outputs", of ops that compute a float function of inputs in codes), "parts" (one part of a group's only output),
    "tokens" (of a ranked layer; the number of full tokens, or "full") or "division".  `name` is the op, the group or
    the layer (division: ""), `choice` the format, the choice, the count or the method, `part` the number of the part.
    """

    kind: str
    name: str
    choice: str
    part: int | None = None

    @property
    def text(self) -> str:
        """Its key in a cache."""
        return f"{self.kind}|{self.name}|{self.choice}" + ("" if self.part is None else f"|{self.part}")


@dataclass(frozen=True, eq=False)
class Base:
    """The calibrated base network with what it was calibrated from.

    `images` are the calibration images; `parts` the numbers of parts of outputs that may have some, by group;
    `drop_bits` what the other tokens of a layer with token groups lose.
    """

    checkpoint: Checkpoint
    statistics: Statistics
    options: Calibration
    groups: dict[str, ActivationGroup]
    images: Sequence[Tensor] = ()
    parts: Mapping[str, int] = field(default_factory=dict)
    drop_bits: int = 0
    _made: dict[Change, Checkpoint] = field(default_factory=dict)
    _quantizers: dict[tuple[object, ...], Affine] = field(default_factory=dict)

    def plan(self, change: Change) -> QuantPlan:
        """The base plan with the change; of parts all of them have the format."""
        plan = self.checkpoint.plan
        if change.kind == DIVISION:
            return replace(plan, division=change.choice)
        if change.kind == TOKENS:
            if change.choice == FULL:
                return plan
            return with_groups(self.checkpoint.network, plan, {change.name: int(change.choice)}, self.drop_bits)
        if change.kind == FILTERS:
            fmt = Format.parse(change.choice)
            return replace(plan, rules=tuple(_with_filters(rule, change.name, fmt) for rule in plan.rules))
        chosen = StoredChoice.parse(change.choice)
        if change.kind == PARTS:
            chosen = replace(chosen, heads=HeadWidths((chosen.format.bits,) * self.parts[change.name]))
        members = self.groups[change.name].ops
        return replace(plan, rules=tuple(chosen.applied(r) if r.match in members else r for r in plan.rules))

    def ops(self, change: Change) -> tuple[str, ...]:
        """Ops whose numbers the change touches: of a division those that make the divisors."""
        if change.kind == DIVISION:
            nodes = [node for node in self.checkpoint.network.nodes if node.op.op_class == "division"]
            roots = {root for node in nodes for root in self.checkpoint.network.workload.storage_of(node.op.inputs[0])}
            return tuple(node.name for node in self.checkpoint.network.nodes if node.op.output in roots)
        if change.kind == TOKENS:
            return sliced_ops(self.checkpoint.network.workload, change.name)
        return (change.name,) if change.kind == FILTERS else self.groups[change.name].ops

    def changed(self, change: Change) -> Checkpoint:
        """The checkpoint with the change, calibrated as the base was; all other numbers are the base's.  It is kept."""
        key = replace(change, part=None)
        if key not in self._made:
            self._made[key] = self._make(key)
        return self._made[key]

    @cached_property
    def compiler(self) -> Compiler:
        """The base's scales as ops read them."""
        return Compiler(self.checkpoint)

    @cached_property
    def labels(self) -> dict[str, Groups]:
        """Scale groups of the base."""
        return scale_groups(self.checkpoint.network, ())

    @cached_property
    def part_labels(self) -> dict[str, Groups]:
        """Scale groups where every part has a scale of its own."""
        network = self.checkpoint.network
        outputs = {network.node(name).op.output: HeadWidths((8,) * count) for name, count in self.parts.items()}
        return scale_groups(network, (), outputs)

    @cached_property
    def part_statistics(self) -> Statistics:
        """Statistics by `part_labels`."""
        return collect(self.checkpoint.network, self.images, self.part_labels)

    def _make(self, change: Change) -> Checkpoint:
        network, plan = self.checkpoint.network, self.plan(change)
        base = replace(self.checkpoint, plan=plan)
        if change.kind == FILTERS:
            node = network.node(change.name)
            filters = rounded_filters(node, plan, self.options)
            if self.options.bias_correction:
                filters = corrected(node, filters, self.statistics)
            return replace(base, filters={**base.filters, node.name: filters})
        if change.kind == DIVISION:
            made = calibrate(network, plan, self.statistics, self.labels, self.options)
            return correct_biases(network, made, self.statistics) if self.options.bias_correction else made
        if change.kind == CODED or (change.kind == TOKENS and change.choice == FULL):
            return base
        quantized, parts = apply_plan(network.workload, plan), change.kind == PARTS
        names = (name for name in self._recalibrated(change) if name in self.statistics.groups)
        stored = {name: self._quantizer(name, quantized, parts) for name in names}
        factors = norm_factors(network, plan, self.statistics)
        return replace(base, stored={**base.stored, **stored}, factors=factors)

    def _quantizer(self, name: str, quantized: QuantizedWorkload, parts: bool) -> Affine:
        """`stored_quantizer`, sought once for everything that it depends on: methods of an output share it."""
        op = quantized.workload.op_by_name.get(name)
        rule = None if op is None else replace(quantized.plan.rule_for(op), weights=(), nonlinear="")
        key = (name, rule, finest_scale(name, quantized), parts)
        if key not in self._quantizers:
            statistics, labels = self.statistics, self.labels
            if parts:
                statistics, labels = self.part_statistics, self.part_labels
            self._quantizers[key] = stored_quantizer(name, quantized, statistics, labels[name], self.options)
        return self._quantizers[key]

    def _recalibrated(self, change: Change) -> tuple[str, ...]:
        """Tensors whose quantizers the change can move: what its ops store, and what its methods read."""
        network, ops = self.checkpoint.network, self.ops(change)
        outputs = tuple(network.node(op).op.output for op in ops)
        if change.kind != OUTPUTS or not StoredChoice.parse(change.choice).method:
            return outputs
        return (*outputs, *(name for name, by in readers(network).items() if any(one.name in ops for one, _ in by)))


def _with_filters(rule: Rule, op: str, fmt: Format) -> Rule:
    return replace(rule, weights=(WeightShare(fmt),)) if rule.match == op else rule


class Alone(Numerics):
    """Floating point but for what a change touches: the filters of its op, or the stored outputs of its ops.

    Ops with a method compute with the codes that the base stores of their inputs; so do the ops of a "coded" change,
    in floating point.  Nothing else reads those codes.
    """

    def __init__(self, base: Base, change: Change) -> None:
        self._base, self._kind, self._ops = base, change.kind, frozenset(base.ops(change))
        self._quantized = FakeQuantized(base.changed(change))
        self._part: tuple[Tensor, int] | None = None
        if change.part is not None:
            network = base.checkpoint.network
            node = network.node(base.ops(change)[0])
            channels = network.workload.tensor_by_name[node.op.output].channels
            self._part = part_places(node, channels, base.parts[change.name]), change.part

    def parameters(self, node: Node) -> tuple[Tensor | None, Tensor | None]:
        """Quantized filters; constants that are added to changed outputs in steps of their scale."""
        rounded = self._kind == FILTERS or node.function in ADDED_CONSTANT
        return self._quantized.parameters(node) if rounded and node.name in self._ops else (node.weight, node.bias)

    def operand(self, node: Node, position: int, value: Tensor) -> Tensor:
        """What a "coded" op reads: the values of the base's codes."""
        if self._kind != CODED or node.name not in self._ops:
            return value
        scale, zero = self._base.compiler.single(node, position)
        low, high = self._base.compiler.range(node, position)
        return fake_quantize(value, Affine(scale.to(value.dtype), zero.to(value.dtype), low, high))

    def nonlinear(self, node: Node, operands: list[Tensor]) -> Tensor | None:
        """The method's integers, where the changed op has a method."""
        asked = self._kind == OUTPUTS and node.name in self._ops
        return self._quantized.nonlinear(node, operands) if asked else None

    def stored(self, node: Node, value: Tensor) -> Tensor:
        """The changed outputs as they are stored."""
        if self._kind == FILTERS or node.name not in self._ops:
            return value
        result = self._quantized.stored(node, value)
        return result if self._part is None else torch.where(self._part[0] == self._part[1], result, value)

    def narrowed(self, node: Node, value: Tensor, operands: list[Tensor]) -> Tensor:
        """Narrow rows where the change has token groups."""
        asked = self._kind == TOKENS and node.name in self._ops
        return self._quantized.narrowed(node, value, operands) if asked else value
