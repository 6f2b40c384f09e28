"""How much an error of a stored value costs: squared slopes of the loss, on calibration images, without labels."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from quant.collect import SAMPLE, WeightedSample
from quant.network import Network, Node, Numerics, forward


class _Remember(Numerics):
    """Floating point; keeps the stored tensors of the given names."""

    def __init__(self, names: Collection[str]) -> None:
        self.names, self.values = set(names), dict[str, Tensor]()

    def stored(self, node: Node, value: Tensor) -> Tensor:
        if node.op.output in self.names:
            self.values[node.op.output] = value
        return value


def slopes(
    network: Network, batches: Sequence[Tensor], names: Collection[str], seed: int = 0
) -> dict[str, WeightedSample]:
    """Samples of stored tensors with (∂L/∂x)², L the cross-entropy of an image against the network's own first choice.

    `batches` are images [n, channels, h, w]; 2^15 values of every tensor are drawn, as many of each batch.  The squares
    are so unequal that a uniform sample would leave a few values to decide: half of the draws are made in proportion
    to them, half evenly, and a value's weight is its square over its chance, so that sums stay unbiased; weights are
    divided by their mean.  One backward pass per batch: an image's values change the loss of no other image.  Source:
    the diagonal of the empirical Fisher information, without labels (an interpretation).
    """
    share = SAMPLE // max(1, len(batches))
    random = torch.Generator().manual_seed(seed)
    found: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in names}
    for images in batches:
        rules = _Remember(names)
        logits = forward(network, images.detach().requires_grad_(), rules)
        loss = F.cross_entropy(logits, logits.detach().argmax(1), reduction="sum")
        seen = [rules.values[name] for name in found]
        for name, value, slope in zip(found, seen, torch.autograd.grad(loss, seen), strict=True):
            found[name].append(_drawn(value.detach().reshape(-1), slope.reshape(-1), share, random))
    return {name: _sample(parts) for name, parts in found.items()}


def _drawn(values: Tensor, slope: Tensor, count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """`count` values and their weights, with replacement."""
    square = slope.double() ** 2
    chance = (square / square.sum().clamp(min=torch.finfo(torch.float64).tiny) + 1 / len(square)) / 2
    ends = chance.cumsum(0)
    place = torch.searchsorted(ends, torch.rand(count, generator=random, dtype=torch.float64) * ends[-1])
    place = place.clamp(max=len(square) - 1)
    return values[place], square[place] / chance[place]


def _sample(parts: list[tuple[Tensor, Tensor]]) -> WeightedSample:
    values, weights = (torch.cat(one) for one in zip(*parts, strict=True))
    mean = weights.mean()
    return WeightedSample(values, (weights / mean).to(values) if mean > 0 else torch.ones_like(values))
