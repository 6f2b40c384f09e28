"""One changed choice on top of a calibrated base network: its plan, and a run that differs in nothing else."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from torch import Tensor

from accelsim.formats import Format
from accelsim.plan import QuantPlan, Rule, WeightShare, apply_plan
from quant.calibrate import Calibration, calibrate, correct_biases, corrected, rounded_filters, stored_quantizer
from quant.calibrated import Checkpoint
from quant.collect import Statistics
from quant.fake import FakeQuantized
from quant.groups import scale_groups
from quant.network import Node
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
        """Ops whose numbers the change touches."""
        if change.kind == "division":
            return tuple(node.name for node in self.checkpoint.network.nodes if node.op.op_class == "division")
        return (change.name,) if change.kind == "filters" else self.groups[change.name].ops

    def changed(self, change: Change) -> Checkpoint:
        """The checkpoint with the change, calibrated as the base was; all other numbers are the base's."""
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


class Changed(FakeQuantized):
    """Numerics of a changed checkpoint that take the unchanged layers' real weights from the base's numerics."""

    def __init__(self, checkpoint: Checkpoint, base: FakeQuantized, ops: Collection[str]) -> None:
        super().__init__(checkpoint)
        self._base, self._ops = base, frozenset(ops)

    def parameters(self, node: Node) -> tuple[Tensor | None, Tensor | None]:
        """The base's weights but for the changed ops."""
        return super().parameters(node) if node.name in self._ops else self._base.parameters(node)
