"""PMQ (Xiao, Li, Yang and Gu 2023, arXiv 2305.06559): uniform formats with a width per product.

The ideas are the abstract's: a global metric of sensitivity, a Pareto frontier that gives every component its width,
and patches whose widths change at inference.  Formulas and components are interpretations (no code of the authors is
public).  `codesign.frontier` chooses widths, `quant.patchwise` has the arithmetic of patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from accelsim.formats import Format
from accelsim.plan import QuantPlan, WeightShare
from accelsim.token_groups import CLASS_TOKEN
from quant.collect import Moments, Statistics
from quant.methods.base import Method, method
from quant.network import Network, Node
from quant.patchwise.network import ranked
from quant.patchwise.order import IMPORTANT, Fixed, Threshold
from quant.patchwise.plans import with_groups
from quant.structure import readers


@dataclass(frozen=True)
class Patchwise:
    """Token groups: `high` full tokens by layer (the class token included), the others in `drop_bits` bits fewer.

    With `share_256` the number is found for every image: the most important tokens that hold that many 256ths of the
    summed importance; `high` is then the number for which a plan is simulated.  `importance` is the class token's
    attention or that received from all; `order` and `seed` are controls of studies.
    """

    high: Mapping[str, int]
    drop_bits: int = 2
    share_256: int = 0
    importance: str = CLASS_TOKEN
    order: str = IMPORTANT
    seed: int = 0

    def ranked(self, network: Network) -> Network:
        """The network that ranks its tokens before the layers."""
        rule = Threshold(self.share_256) if self.share_256 else Fixed()
        return ranked(network, tuple(self.high), self.importance, rule, self.order, self.seed)


@method("pmq")
@dataclass(frozen=True)
class PMQ(Method):
    """Symmetric uniform weights with a scale per filter, uniform activations.

    `weight_widths` gives the bits of some layers' filters (`weight_bits` for the rest), `widths` those of some stored
    tensors (`activation_bits`), `patchwise` the layers with token groups (None: no tokens are ranked).
    """

    weight_bits: int = 8
    widths: Mapping[str, int] = field(default_factory=dict)
    weight_widths: Mapping[str, int] = field(default_factory=dict)
    patchwise: Patchwise | None = None

    def prepare(self, network: Network, batches: Sequence[Tensor]) -> Network:
        """The network, ranking its tokens where some are to have fewer bits."""
        return network if self.patchwise is None else self.patchwise.ranked(network)

    def grouped(self, network: Network, plan: QuantPlan) -> QuantPlan:
        """The plan with the token groups."""
        if self.patchwise is None:
            return plan
        return with_groups(network, plan, self.patchwise.high, self.patchwise.drop_bits)

    def shares(self, node: Node, moments: Moments | None) -> tuple[WeightShare, ...]:
        """One format for all filters of a layer."""
        bits = self.weight_widths.get(node.name, self.weight_bits)
        return (WeightShare(Format.parse(f"u{bits}", "weight_bits")),)

    def outputs(self, network: Network, statistics: Statistics) -> dict[str, Format]:
        """Formats of the tensors that have a width of their own."""
        return {
            name: Format.parse(f"u{self.widths[name]}", f"bits of {name}")
            for name in readers(network)
            if name in self.widths
        }
