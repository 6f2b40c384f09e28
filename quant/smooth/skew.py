"""How uneven the channels of LayerNorm outputs are: what smoothing can gain, and why it gains nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from quant.groups import stored_shapes
from quant.network import Network
from quant.smooth.ranges import channel_ranges
from quant.smooth.sites import smoothable


@dataclass(frozen=True)
class Skew:
    """Channels of one LayerNorm's output over calibration images; a channel's range is high − low.

    `range_ratio` is the largest range over the median one.  `offset_median` and `offset_max` are of |high + low| /
    range, over channels that are not constant (there are `constant` others).  `centred_gain` is the largest magnitude
    over the largest half range: by how much centring alone shrinks the step of a symmetric quantizer of the tensor,
    1 … ∞.  `smoothable`: whether SmoothQuant and SQ-b can be folded there.
    """

    norm: str
    channels: int
    constant: int
    range_ratio: float
    offset_median: float
    offset_max: float
    centred_gain: float
    smoothable: bool


def channel_skew(network: Network, batches: Iterable[Tensor]) -> tuple[Skew, ...]:
    """The skew of every LayerNorm's output, in the network's order; `batches` are images [n, channels, h, w]."""
    norms = [node for node in network.nodes if node.function == "layernorm"]
    if not norms:
        return ()
    shapes, able = stored_shapes(network), {name for name, _ in smoothable(network)}
    labels = {node.op.output: torch.arange(shapes[node.op.output][-1]).expand(shapes[node.op.output]) for node in norms}
    ranges = channel_ranges(network, batches, labels)
    return tuple(_skew(node.name, *ranges[node.op.output], node.name in able) for node in norms)


def _skew(name: str, low: Tensor, high: Tensor, able: bool) -> Skew:
    half, middle = (high - low) / 2, (high + low) / 2
    live = half > 0
    ratio = (middle.abs() / half)[live]
    none = not bool(live.any())
    return Skew(
        norm=name,
        channels=len(half),
        constant=int((~live).sum()),
        range_ratio=1.0 if none else float(half.max() / half[live].median()),
        offset_median=0.0 if none else float(ratio.median()),
        offset_max=0.0 if none else float(ratio.max()),
        centred_gain=1.0 if none else float(torch.maximum(low.abs(), high.abs()).max() / half.max()),
        smoothable=able,
    )
