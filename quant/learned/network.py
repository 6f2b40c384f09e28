"""A network whose quantizers are trained with it: Q-ViT's forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from quant.learned.quantizer import Quantizer
from quant.network import Network, Node, Numerics, forward


class LearnedNetwork(Numerics):
    """Numerics of a network in training; what no site names stays in floating point, as in the paper.

    Filters, biases, LayerNorms and embeddings are trained with the quantizers.
    """

    def __init__(self, network: Network, quantizers: Mapping[str, Quantizer]) -> None:
        self.quantizers = dict(quantizers)
        self.network = replace(network, nodes=tuple(_trained(node) for node in network.nodes))

    def parameters_by_name(self) -> dict[str, Tensor]:
        """Everything that is trained, by a unique name."""
        found = {
            f"{'filters' if node.has_filters else 'node'}/{node.name}/{part}": value
            for node in self.network.nodes
            for part, value in (("weight", node.weight), ("bias", node.bias))
            if value is not None and value.requires_grad
        }
        for name, one in self.quantizers.items():
            found |= {f"{part}/{name}": value for part, value in one.parameters().items()}
        return found

    def logits(self, images: Tensor) -> Tensor:
        """Logits [n, classes] of images [n, channels, h, w]."""
        return forward(self.network, images, self)

    def image(self, value: Tensor) -> Tensor:
        """The image as it is stored."""
        return self._as_stored(self.network.workload.input, value)

    def parameters(self, node: Node) -> tuple[Tensor | None, Tensor | None]:
        """Quantized filters."""
        found = self.quantizers.get(f"weights/{node.name}")
        return (node.weight if found is None or node.weight is None else found(node.weight)), node.bias

    def stored(self, node: Node, value: Tensor) -> Tensor:
        """The output as it is stored."""
        return self._as_stored(node.op.output, value)

    def _as_stored(self, name: str, value: Tensor) -> Tensor:
        found = self.quantizers.get(f"stored/{name}")
        return value if found is None else found(value)


def _trained(node: Node) -> Node:
    """The node with float parameters of its own that ask for gradients."""
    weight, bias = (
        None if value is None else value.detach().clone().requires_grad_(value.is_floating_point())
        for value in (node.weight, node.bias)
    )
    return replace(node, weight=weight, bias=bias)
