"""Uniform weights of one width everywhere: the baseline of every mixed scheme."""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.formats import Format
from accelsim.plan import WeightShare
from quant.collect import Moments
from quant.methods.base import Method, method
from quant.network import Node


@method("uniform")
@dataclass(frozen=True)
class Uniform(Method):
    """Symmetric uniform weights with a scale per filter."""

    weight_bits: int = 8

    def shares(self, node: Node, moments: Moments | None) -> tuple[WeightShare, ...]:
        """One format for all filters."""
        return (WeightShare(Format.parse(f"u{self.weight_bits}", "weight_bits")),)
