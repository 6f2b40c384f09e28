"""Q-ViT (Li et al. 2022, arXiv 2201.07703): widths per head that are learned with scales and weights.

Training is `quant.learned`; a `Method` has what a plan can say of its result.  How parts of different widths are stored
and summed is an interpretation: the authors simulate quantization only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from accelsim.channels import Channels
from accelsim.formats import Format
from accelsim.head_widths import HeadWidths
from accelsim.plan import QuantPlan, Rule, WeightShare
from accelsim.problems import AccelsimError, Problem
from quant.collect import Moments, Statistics
from quant.methods.base import Method, method
from quant.network import Network, Node

NAME = "qvit"


@method(NAME)
@dataclass(frozen=True)
class QVit(Method):
    """Learned widths of the tensors (`stored`, by tensor) and filters (`weights`, by op) of a vision transformer.

    Widths are those of equal parts, one part for a whole tensor.  Parts of filters without shifts are runs of output
    channels, those with shifts are runs of inputs.  `pointed` are the tensors whose codes have a zero point.  Every
    other tensor has `activation_bits`, every other filter 8 bits.
    """

    stored: Mapping[str, HeadWidths] = field(default_factory=dict)
    weights: Mapping[str, HeadWidths] = field(default_factory=dict)
    pointed: tuple[str, ...] = ()

    def prepare(self, network: Network, batches: Sequence[Tensor]) -> Network:
        """Raises AccelsimError where no widths were learned: this method trains."""
        if not self.stored and not self.weights:
            what, expected = "has no learned widths: it trains them", "learn_bits, then export (quant.learned)"
            levers = ("accelsim quantize --method qvit", "pmq for widths without training")
            raise AccelsimError(Problem(f"method {NAME}", what, expected, levers))
        return network

    def zero_point(self, network: Network, name: str) -> bool:
        """Of learned tensors those named; of all others where their readers can bear one."""
        return name in self.pointed if name in self.stored else self.zero_points

    def outputs(self, network: Network, statistics: Statistics) -> dict[str, Format]:
        """The widest format of every learned tensor."""
        return {name: _widest(one) for name, one in self.stored.items()}

    def shares(self, node: Node, moments: Moments | None) -> tuple[WeightShare, ...]:
        """One format, or one for every width of the runs of output channels."""
        found = self.weights.get(node.name)
        if found is None:
            return (WeightShare(Format.parse("u8")),)
        if found.shifts or len(set(found.bits)) == 1:
            return (WeightShare(_widest(found)),)
        assert node.weight is not None
        size = len(node.weight) // len(found.bits)
        channels: dict[int, list[int]] = {}
        for part, bits in enumerate(found.bits):
            channels.setdefault(bits, []).extend(range(part * size, (part + 1) * size))
        return tuple(
            WeightShare(Format.parse(f"u{bits}"), channels=Channels.of(channels[bits]))
            for bits in sorted(channels, reverse=True)
        )

    def grouped(self, network: Network, plan: QuantPlan) -> QuantPlan:
        """The plan with the widths of the parts and of the image."""
        ops = network.workload.op_by_name
        rules = [self._with_parts(rule, ops[rule.match].output) if rule.match in ops else rule for rule in plan.rules]
        image = network.workload.input
        if image in self.stored:
            first = network.workload.ops[0].name
            width = _widest(self.stored[image])
            rules = [replace(rule, activation=width) if rule.match == first else rule for rule in rules]
            plan = replace(plan, input_zero_point=image in self.pointed)
        return replace(plan, rules=tuple(rules))

    def _with_parts(self, rule: Rule, output: str) -> Rule:
        stored, weights = self.stored.get(output), self.weights.get(rule.match)
        heads = stored if stored is not None and len(stored.bits) > 1 else None
        return replace(rule, heads=heads, weight_heads=weights if weights is not None and weights.shifts else None)


def _widest(widths: HeadWidths) -> Format:
    return Format.parse(f"u{max(widths.bits)}")
