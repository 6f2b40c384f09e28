"""One choice: its plan, its calibrated numbers, and a run of the float network in which only it is quantized."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from accelsim.formats import Format
from accelsim.plan import QuantPlan, Rule, WeightShare, apply_plan
from quant.calibrate import Calibration, calibrate, correct_biases, corrected, rounded_filters, stored_quantizer
from quant.calibrated import Checkpoint
from quant.collect import Statistics
from quant.fake import ADDED_CONSTANT, FakeQuantized
from quant.groups import scale_groups
from quant.network import Node, Numerics
from quant.penalties.activation_groups import ActivationGroup


@dataclass(frozen=True)
class Change:
    """What differs from the base: `kind` is "filters" (of an op), "outputs" (of a group) or "division".

    `name` is the op or the group (division: ""), `choice` the format or the method.
    """

    kind: str
    name: str
    choice: str

    @property
    def text(self) -> str:
        """Its key in a cache."""
        return f"{self.kind}|{self.name}|{self.choice}"


@dataclass(frozen=True, eq=False)
class Base:
    """The calibrated base network with what it was calibrated from."""

    checkpoint: Checkpoint
    statistics: Statistics
    options: Calibration
    groups: dict[str, ActivationGroup]
    _made: dict[Change, Checkpoint] = field(default_factory=dict)

    def plan(self, change: Change) -> QuantPlan:
        """The base plan with the change."""
        plan = self.checkpoint.plan
        if change.kind == "division":
            return replace(plan, division=change.choice)
        fmt = Format.parse(change.choice)
        if change.kind == "filters":
            return replace(plan, rules=tuple(_with_filters(rule, change.name, fmt) for rule in plan.rules))
        members = self.groups[change.name].ops
        changed = (replace(rule, output=fmt, right=fmt) if rule.match in members else rule for rule in plan.rules)
        return replace(plan, rules=tuple(changed))

    def ops(self, change: Change) -> tuple[str, ...]:
        """Ops whose numbers the change touches: of a division those that make the divisors."""
        if change.kind == "division":
            nodes = [node for node in self.checkpoint.network.nodes if node.op.op_class == "division"]
            roots = {root for node in nodes for root in self.checkpoint.network.workload.storage_of(node.op.inputs[0])}
            return tuple(node.name for node in self.checkpoint.network.nodes if node.op.output in roots)
        return (change.name,) if change.kind == "filters" else self.groups[change.name].ops

    def changed(self, change: Change) -> Checkpoint:
        """The checkpoint with the change, calibrated as the base was; all other numbers are the base's.  It is kept."""
        if change not in self._made:
            self._made[change] = self._make(change)
        return self._made[change]

    def _make(self, change: Change) -> Checkpoint:
        network, plan = self.checkpoint.network, self.plan(change)
        base = replace(self.checkpoint, plan=plan)
        if change.kind == "filters":
            node = network.node(change.name)
            filters = rounded_filters(node, plan, self.options)
            if self.options.bias_correction:
                filters = corrected(node, filters, self.statistics)
            return replace(base, filters={**base.filters, node.name: filters})
        labels = scale_groups(network, ())
        if change.kind == "outputs":
            quantized = apply_plan(network.workload, plan)
            outputs = (network.node(op).op.output for op in self.ops(change))
            stored = {
                name: stored_quantizer(name, quantized, self.statistics, labels[name], self.options)
                for name in outputs
                if name in self.statistics.groups
            }
            return replace(base, stored={**base.stored, **stored})
        made = calibrate(network, plan, self.statistics, labels, self.options)
        return correct_biases(network, made, self.statistics) if self.options.bias_correction else made


def _with_filters(rule: Rule, op: str, fmt: Format) -> Rule:
    return replace(rule, weights=(WeightShare(fmt),)) if rule.match == op else rule


class Alone(Numerics):
    """Floating point but for what a change touches: the filters of its op, or the stored outputs of its ops."""

    def __init__(self, base: Base, change: Change) -> None:
        self._quantized = FakeQuantized(base.changed(change))
        self._ops, self._filters = frozenset(base.ops(change)), change.kind == "filters"

    def parameters(self, node: Node) -> tuple[Tensor | None, Tensor | None]:
        """Quantized filters; constants that are added to changed outputs in steps of their scale."""
        rounded = self._filters or node.function in ADDED_CONSTANT
        return self._quantized.parameters(node) if rounded and node.name in self._ops else (node.weight, node.bias)

    def stored(self, node: Node, value: Tensor) -> Tensor:
        """The changed outputs as they are stored."""
        return value if self._filters or node.name not in self._ops else self._quantized.stored(node, value)
