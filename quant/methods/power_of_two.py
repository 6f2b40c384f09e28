"""Power-of-two and additive power-of-two weights wherever a shift-add engine can run the layer."""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.formats import Format
from accelsim.plan import WeightShare
from accelsim.problems import AccelsimError, Problem
from quant.collect import Moments
from quant.methods.base import UNIFORM8, Method, method
from quant.network import Node

BY_TERMS = {1: "pot4", 2: "apot8", 3: "apot12"}


@method("power_of_two")
@dataclass(frozen=True)
class PowerOfTwo(Method):
    """Weights of `terms` signed powers of two (1: plain power of two) in all layers but depthwise convolutions.

    A shift-add engine has no depthwise mode, so those keep uniform 8-bit weights unless `depthwise` is set.
    """

    terms: int = 2
    depthwise: bool = False

    def shares(self, node: Node, moments: Moments | None) -> tuple[WeightShare, ...]:
        """One format for all filters.  Raises AccelsimError for a number of terms without a format."""
        if self.terms not in BY_TERMS:
            raise AccelsimError(Problem("terms", f"found {self.terms}", "1, 2 or 3"))
        loop = node.op.loop
        if loop is not None and loop.depthwise and not self.depthwise:
            return (WeightShare(UNIFORM8),)
        return (WeightShare(Format.parse(BY_TERMS[self.terms])),)
