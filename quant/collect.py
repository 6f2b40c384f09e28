"""Statistics of a float network on calibration images: what observers, rankings and bias correction need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from accelsim.ir import OpKind
from quant.groups import Groups, channel_axis, keeps_scale
from quant.network import Network, Node, Numerics, run
from quant.observers import Observed, per_channel

SAMPLE = 1 << 15  # values kept of every scale group
CHANNEL_SAMPLE = 1 << 11  # values kept of every channel


@dataclass(eq=False)
class Moments:
    """Input of a convolution or linear layer: mean over the images, [1, ..], and E[x²] of every channel."""

    mean: Tensor
    square: Tensor
    images: int = 0


@dataclass(frozen=True, eq=False)
class WeightedSample:
    """Values of a stored tensor, [n], and what an error of each costs: the square of the loss's slope there, [n]."""

    values: Tensor
    weights: Tensor


@dataclass(eq=False)
class Statistics:
    """Of every stored tensor the observations of its groups, or of its channels; of every layer the input moments.

    `preactivation` holds what the accumulators held before a table activation, `norms` what LayerNorms read, channel
    by channel.  `slopes` (`quant.regions.slopes`) is empty unless two-region formats are to weigh their errors.
    """

    groups: dict[str, list[Observed]] = field(default_factory=dict)
    channels: dict[str, Observed] = field(default_factory=dict)
    preactivation: dict[str, Observed] = field(default_factory=dict)
    inputs: dict[str, Moments] = field(default_factory=dict)
    norms: dict[str, Observed] = field(default_factory=dict)
    slopes: dict[str, WeightedSample] = field(default_factory=dict)


class _Collect(Numerics):
    def __init__(self, labels: dict[str, Groups], by_channel: Iterable[str], image: str, rules: Numerics) -> None:
        self.labels, self.by_channel, self.name, self.rules = labels, set(by_channel), image, rules
        self.statistics = Statistics()

    def image(self, value: Tensor) -> Tensor:
        self._see(self.name, value)
        return self.rules.image(value)

    def parameters(self, node: Node) -> tuple[Tensor | None, Tensor | None]:
        return self.rules.parameters(node)

    def operand(self, node: Node, position: int, value: Tensor) -> Tensor:
        if position:
            return value
        if node.has_filters:
            self._moments(node, value)
        elif node.function == "layernorm":
            fresh = Observed(per_channel(value.dim() - 1), capacity=CHANNEL_SAMPLE)
            self.statistics.norms.setdefault(node.name, fresh).update(value)
        return value

    def accumulator(self, node: Node, value: Tensor) -> Tensor:
        if uses_table(node):
            self.statistics.preactivation.setdefault(node.name, Observed(capacity=SAMPLE)).update(value)
        return value

    def stored(self, node: Node, value: Tensor) -> Tensor:
        name = node.op.output
        if name in self.by_channel:
            fresh = Observed(per_channel(channel_axis(node) % value.dim()), capacity=CHANNEL_SAMPLE)
            self.statistics.channels.setdefault(name, fresh).update(value)
        elif not keeps_scale(node):
            self._see(name, value)
        return self.rules.stored(node, value)

    def _see(self, name: str, value: Tensor) -> None:
        groups = self.labels[name]
        seen = self.statistics.groups.setdefault(name, [Observed(capacity=SAMPLE, seed=k) for k in range(groups.count)])
        if groups.count == 1:
            seen[0].update(value)
            return
        flat, labels = value.reshape(value.shape[0], -1), groups.labels.reshape(-1)
        for k, one in enumerate(seen):
            one.update(flat[:, labels == k])

    def _moments(self, node: Node, value: Tensor) -> None:
        axis = channel_axis(node) % value.dim()
        total, square = value.sum(0, keepdim=True), (value**2).mean(tuple(k for k in range(value.dim()) if k != axis))
        seen = self.statistics.inputs.get(node.name)
        if seen is None:
            seen = self.statistics.inputs[node.name] = Moments(torch.zeros_like(total), torch.zeros_like(square))
        share = value.shape[0] / (seen.images + value.shape[0])
        seen.mean += share * (total / value.shape[0] - seen.mean)
        seen.square += share * (square - seen.square)
        seen.images += value.shape[0]


def uses_table(node: Node) -> bool:
    """True when the output stage looks the activation up in a table (ReLU is a clamp)."""
    return node.op.kind in (OpKind.CONV, OpKind.MATMUL) and node.op.activation not in ("", "relu")


def collect(
    network: Network,
    batches: Iterable[Tensor],
    labels: dict[str, Groups],
    by_channel: Iterable[str] = (),
    rules: Numerics | None = None,
) -> Statistics:
    """Statistics of the float network over batches [n, channels, h, w].

    `labels` are its scale groups; outputs named in `by_channel` are observed channel by channel instead.  `rules` are
    the parameters and roundings that the network was trained with, if any; tensors are observed before they round.
    """
    numerics = _Collect(labels, by_channel, network.workload.input, Numerics() if rules is None else rules)
    with torch.no_grad():
        for images in batches:
            run(network, images, numerics)
    return numerics.statistics
