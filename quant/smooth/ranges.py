"""Ranges of the channels of stored tensors of the float network over calibration images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from quant.network import Network, Node, Numerics, run


class _Extremes(Numerics):
    def __init__(self, labels: Mapping[str, Tensor]) -> None:
        self.labels = labels
        self.low: dict[str, Tensor] = {}
        self.high: dict[str, Tensor] = {}

    def stored(self, node: Node, value: Tensor) -> Tensor:
        name = node.op.output
        if name in self.labels:
            images = value.reshape(-1, *self.labels[name].shape)
            low, high = images.amin(0), images.amax(0)
            self.low[name] = torch.minimum(self.low.get(name, low), low)
            self.high[name] = torch.maximum(self.high.get(name, high), high)
        return value


def channel_ranges(
    network: Network, batches: Iterable[Tensor], labels: Mapping[str, Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Smallest and largest value of every channel, [channels] in float64, of the tensors in `labels`.

    `labels` numbers the channel, 0 … channels − 1, of every element of a tensor for one image; `batches` are images
    [n, channels, h, w].
    """
    seen = _Extremes(labels)
    with torch.no_grad():
        for images in batches:
            run(network, images, seen)
    found = {}
    for name, one in labels.items():
        index, count = one.reshape(-1), int(one.max()) + 1
        start = torch.full((count,), torch.inf, dtype=torch.float64)
        low = start.scatter_reduce(0, index, seen.low[name].reshape(-1).double(), "amin")
        high = (-start).scatter_reduce(0, index, seen.high[name].reshape(-1).double(), "amax")
        found[name] = (low, high)
    return found
