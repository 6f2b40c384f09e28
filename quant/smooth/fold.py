"""The folding: the same function with other gains, offsets, weights and biases.

Source: SmoothQuant is Xiao et al. 2023 (arXiv 2211.10438), eq. 3 and 4; SQ-b is MPTQ-ViT (arXiv 2401.14895), whose
abstract says that a bias is added.  That the bias is the middle of the channel's range and the scale comes from the
centred range is an interpretation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from accelsim.problems import AccelsimError, Problem
from quant.network import Network, Node
from quant.smooth.ranges import channel_ranges
from quant.smooth.sites import Site, ValueSite, norm_sites, value_sites

METHODS = ("sq_b", "smoothquant", "none")
VALUES = ("no", "scale", "shift")
FLOOR = 1e-5  # least magnitude of activations, of weights and of a scale (released code of SmoothQuant)


@dataclass(frozen=True)
class Smooth:
    """What is folded into LayerNorms and the layers behind them.

    `method` is "sq_b" (channels are moved and scaled), "smoothquant" (scaled) or "none"; `alpha`, 0 … 1, is how much of
    the spread of the activations goes into the weights.  `values` does the same for the values of attention and the
    projection: "scale" is exact whatever the shares are, "shift" (what `method` does) only while their rows sum to one.
    """

    method: str = "sq_b"
    alpha: float = 0.5
    values: str = "no"

    def __post_init__(self) -> None:
        for name, value, known in (("method", self.method, METHODS), ("values", self.values, VALUES)):
            if value not in known:
                raise AccelsimError(Problem("smoothing", f"{name} is {value!r}", f"one of {', '.join(known)}"))
        if not 0 <= self.alpha <= 1:
            raise AccelsimError(Problem("smoothing", f"alpha is {self.alpha}", "0 to 1"))


def offset_and_scale(
    low: Tensor, high: Tensor, weight_max: Tensor, alpha: float, centred: bool
) -> tuple[Tensor, Tensor]:
    """Offset b and scale s of every channel, all [channels].

    b = (high + low) / 2 if `centred`, else 0; s = max|x − b|^alpha / max|w|^(1 − alpha) over low … high, each factor
    and s at least 1e-5.  `weight_max` is max|w| over all layers that read the channel.
    """
    offset = (high + low) / 2 if centred else torch.zeros_like(low)
    magnitude = torch.maximum((low - offset).abs(), (high - offset).abs()).clamp(min=FLOOR)
    return offset, (magnitude**alpha / weight_max.clamp(min=FLOOR) ** (1 - alpha)).clamp(min=FLOOR)


def smooth(network: Network, batches: Sequence[Tensor], options: Smooth) -> Network:
    """The same function with channels moved and scaled where that costs nothing; the same ops and workload.

    With x' = (x − b) / s the LayerNorm has gain / s and (offset − b) / s, every layer behind it W · diag(s) and
    bias + W·b.  `batches` are calibration images [n, channels, h, w] in the network's dtype; the folding is computed in
    float64.  A network where nothing can be smoothed is returned as it is.  Source: see the file.
    """
    if options.method == "none":
        return network
    norms = norm_sites(network)
    values = () if options.values == "no" else value_sites(network)
    sites = [*norms, *(one.site for one in values)]
    if not sites:
        return network
    ranges = channel_ranges(network, batches, {site.tensor: site.labels for site in sites})
    work = _Parameters(network)
    centred = options.method == "sq_b"
    for one in values:  # first: they change rows of the layers whose weight maxima the LayerNorms look at
        moved = centred and options.values == "shift" and one.shares_sum_to_one
        work.fold_values(one, *_found(one.site, ranges, work, options.alpha, moved))
    for site in norms:
        work.fold_norm(site, *_found(site, ranges, work, options.alpha, centred))
    return replace(network, nodes=tuple(work.node(node) for node in network.nodes))


def _found(
    site: Site, ranges: Mapping[str, tuple[Tensor, Tensor]], work: _Parameters, alpha: float, centred: bool
) -> tuple[Tensor, Tensor]:
    """Offset and scale of a site's channels."""
    weight_max = torch.zeros(site.channels, dtype=torch.float64)
    for reader in site.readers:
        largest = work.weight[reader.name].abs().flatten(1).amax(0)
        weight_max = weight_max.scatter_reduce(0, reader.channels, largest, "amax")
    return offset_and_scale(*ranges[site.tensor], weight_max, alpha, centred)


class _Parameters:
    """Weights and biases in float64 while they are changed, by op."""

    def __init__(self, network: Network) -> None:
        self.weight: dict[str, Tensor] = {}
        self.bias: dict[str, Tensor | None] = {}
        for node in network.nodes:
            if node.weight is not None:
                self.weight[node.name] = node.weight.detach().double()
                self.bias[node.name] = None if node.bias is None else node.bias.detach().double()
        self.changed: set[str] = set()

    def fold_norm(self, site: Site, offset: Tensor, scale: Tensor) -> None:
        """Let a LayerNorm give (x − offset) / scale."""
        self._divide(site.name, torch.arange(site.channels), offset, scale)
        self._undo(site, offset, scale)

    def fold_values(self, one: ValueSite, offset: Tensor, scale: Tensor) -> None:
        """Let x = factor · shares · values be (x − offset) / scale: the values move by offset / factor."""
        self._divide(one.maker, one.rows, offset / one.factor, scale)
        self._undo(one.site, offset, scale)

    def _divide(self, name: str, rows: Tensor, offset: Tensor, scale: Tensor) -> None:
        """Output channels `rows` of a LayerNorm or a layer: (y − offset) / scale."""
        weight, bias = self.weight[name].clone(), self.bias[name]
        weight[rows] = weight[rows] / scale.reshape(-1, *[1] * (weight.dim() - 1))
        if bias is not None or bool(offset.any()):
            moved = torch.zeros(len(weight), dtype=torch.float64) if bias is None else bias.clone()
            moved[rows] = (moved[rows] - offset) / scale
            self.bias[name] = moved
        self.weight[name] = weight
        self.changed.add(name)

    def _undo(self, site: Site, offset: Tensor, scale: Tensor) -> None:
        """The readers of a site take scale · x' + offset."""
        for reader in site.readers:
            weight, bias = self.weight[reader.name], self.bias[reader.name]
            if bool(offset.any()):
                added = weight.flatten(1) @ offset[reader.channels]
                self.bias[reader.name] = added if bias is None else bias + added
            factor = scale[reader.channels].reshape(1, -1, *[1] * (weight.dim() - 2))
            self.weight[reader.name] = weight * factor
            self.changed.add(reader.name)

    def node(self, node: Node) -> Node:
        """The node with its parameters, in the dtype that they had."""
        if node.name not in self.changed:
            return node
        assert node.weight is not None
        bias, dtype = self.bias[node.name], node.weight.dtype
        return replace(node, weight=self.weight[node.name].to(dtype), bias=None if bias is None else bias.to(dtype))
