"""MNQ, mixed non-linear quantization (arXiv 2407.18437): every softmax, GELU and LayerNorm by a method that fits it.

The linear part is I-ViT's: symmetric weights with a scale per filter, symmetric activations with one scale per tensor,
a residual stream of 16 bits.  What is quantized to which width follows released code of I-ViT and notes on MNQ's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from accelsim.formats import Format
from accelsim.ir import OpKind
from accelsim.nonlinear.methods import TABLE, function_of
from accelsim.plan import WeightShare
from quant.collect import Moments, Statistics
from quant.methods.base import Method, method
from quant.network import Network, Node
from quant.separate import separate
from quant.structure import MULTIPLYING, readers

# Methods of every function that MNQ chooses among.
CANDIDATES: dict[str, tuple[str, ...]] = {
    "softmax": ("ibert", "ivit", "fqvit"),
    "gelu": ("ibert", "ivit"),
    "layernorm": ("ibert", "ivit", "fqvit"),
}
METHODS = ("ibert", "ivit", "fqvit")
# What a function has where a method lacks it: FQ-ViT's GELU, a float function between two codes, is a table.
INSTEAD = {("gelu", "fqvit"): TABLE}
# The candidates and, beyond the paper, a GELU from a table.
WITH_TABLE = {**CANDIDATES, "gelu": (*CANDIDATES["gelu"], TABLE)}
LOG2_SOFTMAX = Format.parse("log4")


@method("mnq")
@dataclass(frozen=True)
class MNQ(Method):
    """Uniform weights and activations of one width, and a method for every non-linear op.

    `methods` names the method of an op; an op that is not named computes in real numbers.  Tensors that a product, a
    softmax or a computed GELU reads have `activation_bits`, all others (the residual stream, what LayerNorms read)
    `residual_bits`.  The input of an i-GELU has `residual_bits`, too: it stands for the accumulator that I-BERT reads,
    and an i-GELU of coarse codes fails.
    """

    weight_bits: int = 8
    residual_bits: int = 16
    methods: Mapping[str, str] = field(default_factory=dict)
    zero_points: bool = False

    def prepare(self, network: Network, batches: Sequence[Tensor]) -> Network:
        """GELUs as ops of their own."""
        return separate(network)

    def shares(self, node: Node, moments: Moments | None) -> tuple[WeightShare, ...]:
        """One format for all filters."""
        return (WeightShare(Format.parse(f"u{self.weight_bits}", "weight_bits")),)

    def nonlinear(self, node: Node) -> str:
        """The method of an op."""
        return self.methods.get(node.name, "")

    def outputs(self, network: Network, statistics: Statistics) -> dict[str, Format]:
        """Formats of stored tensors: see the class."""
        wide = Format.parse(f"u{self.residual_bits}", "residual_bits")
        found = {}
        for name, users in readers(network).items():
            narrow = any(self._narrow(node) for node, _ in users) or not users
            found[name] = self.activation if narrow else wide
        for node in network.nodes:
            if node.op.kind is OpKind.VECTOR and self._log2(node):
                found[node.op.output] = LOG2_SOFTMAX
        return found

    def _narrow(self, node: Node) -> bool:
        kind = function_of(node.op.recipe)
        if kind == "gelu":
            return self.methods.get(node.name, "") != "ibert"
        return node.function in MULTIPLYING or kind == "softmax"

    def _log2(self, node: Node) -> bool:
        return function_of(node.op.recipe) == "softmax" and self.methods.get(node.name, "") == "fqvit"
