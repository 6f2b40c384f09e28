"""Hutchinson estimates of the Hessian's diagonal: of the cross-entropy by all filters and all stored values.

For v of independent signs (Rademacher) the mean of v∘(H v) is the diagonal of H, and its sum over a tensor the trace of
that tensor's block.  Source: Hutchinson 1990; as a measure of sensitivity HAWQ-V2 (Dong et al. 2020,
arXiv 1911.03852).  All filters are perturbed together, then all stored values: two products serve every component, and
what the blocks off the diagonal add has the mean 0.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from quant.network import Network, Node, Numerics, forward


@dataclass(frozen=True, eq=False)
class Curvatures:
    """v∘(H v), the mean over the probes, float64, keyed by op.

    `weights`: of the mean loss by the filters, [1, ..].  `stored`: of each image's loss by stored outputs, with the
    images in front, everything behind them included.
    """

    weights: dict[str, Tensor]
    stored: dict[str, Tensor]


class _Leaves(Numerics):
    """Floating point, with filters that ask for gradients and a zero that does added to stored values."""

    def __init__(self, network: Network, outputs: Collection[str]) -> None:
        self.outputs = set(outputs)
        self.weights = {
            node.name: node.weight.detach().clone().requires_grad_()
            for node in network.nodes
            if node.has_filters and node.weight is not None
        }
        self.steps: dict[str, Tensor] = {}

    def parameters(self, node: Node) -> tuple[Tensor | None, Tensor | None]:
        return self.weights.get(node.name, node.weight), node.bias

    def stored(self, node: Node, value: Tensor) -> Tensor:
        if node.name not in self.outputs:
            return value
        self.steps[node.name] = torch.zeros_like(value, requires_grad=True)
        return value + self.steps[node.name]


def curvatures(
    network: Network, images: Tensor, labels: Tensor, outputs: Collection[str], probes: int, seed: int
) -> Curvatures:
    """Estimates for images [n, channels, h, w] with labels [n]; stored values of the ops in `outputs`.

    One forward and one backward pass with a graph, then a backward pass through that graph per probe and group: filters
    and stored values are probed apart, which keeps the noise of either out of the other.  The same seed gives the same
    numbers.
    """
    rules = _Leaves(network, outputs)
    # Images do not depend on each other, so the Hessian of the sum has a block for the stored values of each.
    loss = F.cross_entropy(forward(network, images, rules), labels, reduction="sum")
    random = torch.Generator().manual_seed(seed)
    leaves = [*rules.weights.values(), *rules.steps.values()]
    slopes = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True, materialize_grads=True)
    split = len(rules.weights)
    sums = [
        total
        for part in (slice(split), slice(split, None))
        for total in hutchinson(slopes[part], leaves[part], probes, random)
    ]
    means = iter(sums)
    weights = {name: (next(means) / len(images))[None] for name in rules.weights}
    return Curvatures(weights, {name: next(means) for name in rules.steps})


def hutchinson(
    slopes: Sequence[Tensor], leaves: Sequence[Tensor], probes: int, random: torch.Generator
) -> list[Tensor]:
    """Mean of v∘(H v) over the probes, float64, one per leaf; H holds the derivatives of the slopes by the leaves.

    `slopes` are the gradients by the leaves, with their graph; those that no leaf changes have zeros.
    """
    sums = [torch.zeros_like(leaf, dtype=torch.float64) for leaf in leaves]
    moving = [k for k, slope in enumerate(slopes) if slope.requires_grad]
    for _ in range(probes if moving else 0):
        signs = [2.0 * torch.randint(0, 2, leaf.shape, generator=random).to(leaf.dtype) - 1.0 for leaf in leaves]
        found = torch.autograd.grad(
            [slopes[k] for k in moving], leaves, [signs[k] for k in moving],
            retain_graph=True, allow_unused=True, materialize_grads=True,
        )  # fmt: skip
        for total, sign, product in zip(sums, signs, found, strict=True):
            total += (sign * product).double()
    return [total / probes for total in sums]
