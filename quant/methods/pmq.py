"""PMQ (Xiao, Li, Yang and Gu 2023, arXiv 2305.06559): uniform formats with a width per product.

The ideas are the abstract's: a global metric of sensitivity, a Pareto frontier that gives every component its width.
Formulas and components are interpretations (no code of the authors is public).  `codesign.frontier` chooses widths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from accelsim.formats import Format
from accelsim.plan import WeightShare
from quant.collect import Moments, Statistics
from quant.methods.base import Method, method
from quant.network import Network, Node
from quant.structure import readers


@method("pmq")
@dataclass(frozen=True)
class PMQ(Method):
    """Symmetric uniform weights with a scale per filter, uniform activations.

    `weight_widths` gives the bits of some layers' filters (`weight_bits` for the rest), `widths` those of some stored
    tensors (`activation_bits`).
    """

    weight_bits: int = 8
    widths: Mapping[str, int] = field(default_factory=dict)
    weight_widths: Mapping[str, int] = field(default_factory=dict)

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
