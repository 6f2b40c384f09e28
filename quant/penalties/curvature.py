"""Second-order loss of single filters: what splits an op's measured loss among them.

For a small change Δ of a filter (and its bias) the KL divergence of the outputs is ½·Δᵀ G Δ with the Gauss-Newton
matrix G = E[Jᵀ (diag p − p pᵀ) J], J the slopes of the logits z.  With ξ normal and v = √p∘ξ − p·(√p·ξ) the mean of
v vᵀ is diag p − p pᵀ, so the mean over images and draws of ½·(Δ·∂(v·z)/∂w)² is that loss, exact within a filter.  One
backward pass per image, no labels.  Source: Schraudolph 2002 (Gauss-Newton for softmax outputs); Martens 2020, section
9.2 (equal to the Fisher matrix of the model's own predictions).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from quant.calibrated import Filters
from quant.network import Network, Node, Numerics, forward


class _Leaves(Numerics):
    """Floating point, with filters and biases that ask for gradients."""

    def __init__(self, network: Network) -> None:
        self.weights: dict[str, Tensor] = {}
        self.biases: dict[str, Tensor] = {}
        for node in network.nodes:
            if node.has_filters and node.weight is not None:
                bias = torch.zeros(len(node.weight)) if node.bias is None else node.bias
                self.weights[node.name] = node.weight.detach().clone().requires_grad_()
                self.biases[node.name] = bias.detach().clone().requires_grad_()

    def parameters(self, node: Node) -> tuple[Tensor | None, Tensor | None]:
        if node.name in self.weights:
            return self.weights[node.name], self.biases[node.name]
        return node.weight, node.bias


def filter_losses(
    network: Network, images: Tensor, changes: Mapping[tuple[str, str], Filters], seed: int
) -> dict[tuple[str, str], Tensor]:
    """½·Δᵀ G Δ of every filter alone, nats, mean over images [n, channels, h, w]: float64 [filters] per change.

    `changes` gives an op's filters by (op, format); `seed` that of the draws, one per image.
    """
    leaves = _Leaves(network)
    random = torch.Generator().manual_seed(seed)
    steps = {key: _step(network.node(key[0]), one) for key, one in changes.items()}
    sums = {key: torch.zeros(len(bias), dtype=torch.float64) for key, (_, bias) in steps.items()}
    for k in range(len(images)):
        logits = forward(network, images[k : k + 1], leaves)[0]
        probability = logits.detach().softmax(0)
        root = probability.sqrt()
        draw = torch.randn(len(root), generator=random)
        direction = root * draw - probability * (root @ draw)
        given = [*leaves.weights.values(), *leaves.biases.values()]
        slopes = torch.autograd.grad(direction @ logits, given, allow_unused=True, materialize_grads=True)
        of_weights = dict(zip(leaves.weights, slopes, strict=False))
        of_biases = dict(zip(leaves.biases, slopes[len(of_weights) :], strict=True))
        for key, (weight, bias) in steps.items():
            slope = of_weights[key[0]].reshape(weight.shape)
            sums[key] += 0.5 * ((slope * weight).sum(1) + of_biases[key[0]] * bias).double() ** 2
    return {key: value / len(images) for key, value in sums.items()}


def _step(node: Node, one: Filters) -> tuple[Tensor, Tensor]:
    """Change of the filters, [filters, weights of one], and of their biases, [filters]."""
    assert node.weight is not None
    step = (one.values() - node.weight.detach()).reshape(len(node.weight), -1)
    bias = torch.zeros(len(step)) if one.bias is None else one.bias
    return step, bias if node.bias is None else bias - node.bias.detach()
