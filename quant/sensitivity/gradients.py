"""Gradients of single images: of the cross-entropy by all filters and all stored values."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from quant.network import Network, Node, Numerics, forward


@dataclass(frozen=True, eq=False)
class Gradients:
    """Keyed by op: (mean gradient, mean of its square) of the filters, [1, ..] each; gradients of stored outputs.

    `stored` has the images in front, as the tensor itself.
    """

    weights: dict[str, tuple[Tensor, Tensor]]
    stored: dict[str, Tensor]


class _Leaves(Numerics):
    """Floating point, with filters that ask for gradients and stored values that are remembered."""

    def __init__(self, network: Network, outputs: Collection[str]) -> None:
        self.outputs = set(outputs)
        self.weights = {
            node.name: node.weight.detach().requires_grad_()
            for node in network.nodes
            if node.has_filters and node.weight is not None
        }
        self.values: dict[str, Tensor] = {}

    def parameters(self, node: Node) -> tuple[Tensor | None, Tensor | None]:
        return self.weights.get(node.name, node.weight), node.bias

    def stored(self, node: Node, value: Tensor) -> Tensor:
        if node.name in self.outputs:
            self.values[node.name] = value
        return value


def gradients(network: Network, images: Tensor, labels: Tensor, outputs: Collection[str]) -> Gradients:
    """Gradients of each image's cross-entropy, [n, channels, h, w] and [n]; stored values of the ops in `outputs`.

    One backward pass per image, because the mean of squares is not the square of the mean.
    """
    rules = _Leaves(network, outputs)
    sums = {name: torch.zeros_like(weight) for name, weight in rules.weights.items()}
    squares = {name: torch.zeros_like(weight) for name, weight in rules.weights.items()}
    stored: dict[str, list[Tensor]] = {name: [] for name in outputs}
    for k in range(len(images)):
        loss = F.cross_entropy(forward(network, images[k : k + 1], rules), labels[k : k + 1])
        leaves = [*rules.weights.values(), *(rules.values[name] for name in stored)]
        found = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        for name, slope in zip(sums, found, strict=False):
            sums[name] += slope
            squares[name] += slope**2
        for name, slope in zip(stored, found[len(sums) :], strict=True):
            stored[name].append(slope)
    count = len(images)
    return Gradients(
        {name: ((sums[name] / count)[None], (squares[name] / count)[None]) for name in sums},
        {name: torch.cat(parts) for name, parts in stored.items()},
    )
