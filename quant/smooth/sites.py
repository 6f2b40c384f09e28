"""Where channels may be moved and scaled: LayerNorms that only layers with filters read, and the values of attention.

Which channel an input of a layer comes from is found by following channel numbers through the views.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from quant.groups import channel_axis, compares, narrow, operand_values, spread_values
from quant.network import Network, Node
from quant.structure import readers

NO_CHANNEL = -1  # the label of elements that are not followed


@dataclass(frozen=True, eq=False)
class Reader:
    """A linear layer or 1 × 1 convolution; `channels` [inputs] says which channel of the site each input is."""

    name: str
    channels: Tensor


@dataclass(frozen=True, eq=False)
class Site:
    """A LayerNorm, or an attention product: op `name`, its stored `tensor`, and the layers that read its channels.

    `labels` numbers the channel, 0 … channels − 1, of every element of the tensor for one image.
    """

    name: str
    tensor: str
    labels: Tensor
    channels: int
    readers: tuple[Reader, ...]


@dataclass(frozen=True, eq=False)
class ValueSite:
    """An attention product whose value channels are the output channels `rows` [channels] of the layer `maker`.

    The product is `factor` · shares · values; each row of shares sums to one where `shares_sum_to_one`.
    """

    site: Site
    maker: str
    rows: Tensor
    factor: float
    shares_sum_to_one: bool


def norm_sites(network: Network) -> tuple[Site, ...]:
    """LayerNorms whose channels only linear layers and 1 × 1 convolutions read, one by one, in the network's order."""
    return tuple(one for one in _norms(network).values() if isinstance(one, Site))


def smoothable(network: Network) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Names of the LayerNorms that can be smoothed, each with the names of the layers that read it."""
    return tuple((site.name, tuple(reader.name for reader in site.readers)) for site in norm_sites(network))


def not_smoothable(network: Network) -> dict[str, str]:
    """The other LayerNorms by name, each with the reason."""
    return {name: one for name, one in _norms(network).items() if isinstance(one, str)}


def layernorm_outputs(network: Network) -> tuple[str, ...]:
    """Outputs of the LayerNorms of `smoothable`: tensors that may have an offset for every channel."""
    return tuple(site.tensor for site in norm_sites(network))


def value_products(network: Network) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """Attention products that can be smoothed: (product, layer that makes the values, layers that read the product)."""
    return tuple(
        (one.site.name, one.maker, tuple(reader.name for reader in one.site.readers)) for one in value_sites(network)
    )


def _norms(network: Network) -> dict[str, Site | str]:
    """Of every LayerNorm its site, or why it has none."""
    norms = [node for node in network.nodes if node.function == "layernorm"]
    if not norms:
        return {}
    ramps, first = {}, 0
    for node in norms:
        count = 0 if node.weight is None else len(node.weight)
        ramps[node.op.output] = torch.arange(first, first + count) if count else torch.tensor(NO_CHANNEL)
        first += count
    labels = _followed(network, ramps)
    users, held = readers(network), _compared_or_given(network)
    return {node.name: _norm_site(node, labels, users[node.op.output], held) for node in norms}


def _norm_site(
    node: Node, labels: Mapping[str, Tensor], users: Iterable[tuple[Node, int]], held: frozenset[str]
) -> Site | str:
    if node.activation:
        return "an activation follows it"
    if node.weight is None or node.bias is None:
        return "it has no gain and offset to change"
    if node.op.output in held:
        return "its output is the network's, or a ReLU of its own compares it"
    own = labels[node.op.output]
    first, found = int(own.min()), []
    for user, position in users:
        channels = _read_channels(user, position, labels)
        if isinstance(channels, str):
            return channels
        if bool(((channels < first) | (channels >= first + len(node.weight))).any()):
            return f"{user.name} reads other tensors beside it"
        found.append(Reader(user.name, channels - first))
    if not found:
        return "nothing reads it"
    return Site(node.name, node.op.output, own - first, len(node.weight), tuple(found))


def value_sites(network: Network) -> tuple[ValueSite, ...]:
    """Products of activations whose right operand is a layer's output and which only layers read, channel by channel.

    No other reader of that output may see the channels.  In attention: shares · values, behind it the projection.
    """
    makers, ramps, first = {}, {}, 0
    for node in network.nodes:
        if node.has_filters and not node.activation:
            assert node.weight is not None
            count = len(node.weight)
            ramp = torch.arange(first, first + count)
            ramps[node.op.output] = ramp if channel_axis(node) == -1 else ramp[:, None, None]
            makers[node.op.output] = (node, first)
            first += count
    products = [node for node in network.nodes if node.function == "matmul" and not node.activation]
    if not products or not makers:
        return ()
    labels = _followed(network, ramps)
    columns = {}
    for node in products:
        right = operand_values(labels, node, 1, NO_CHANNEL)[..., :1, :]
        columns[node.op.output] = right.expand(labels[node.op.output].shape)
    behind = _followed(network, columns)
    found = (_value_site(network, node, labels, behind, makers) for node in products)
    return tuple(one for one in found if one is not None)


def _value_site(
    network: Network,
    node: Node,
    labels: Mapping[str, Tensor],
    behind: Mapping[str, Tensor],
    makers: Mapping[str, tuple[Node, int]],
) -> ValueSite | None:
    """The site of a product, None where it has none.  `labels` follow the makers' channels, `behind` the products'."""
    right, users = operand_values(labels, node, 1, NO_CHANNEL), readers(network)
    held = _compared_or_given(network)
    sources = [name for name, of in users.items() if (node, 1) in of]
    if len(sources) != 1 or sources[0] not in makers or {sources[0], node.op.output} & held:
        return None
    maker, first = makers[sources[0]]
    members, own = torch.unique(right), behind[node.op.output]
    if int(members[0]) == NO_CHANNEL or not bool((right == right[..., :1, :]).all()):
        return None
    for user, position in users[sources[0]]:
        seen = operand_values(labels, user, position, NO_CHANNEL)
        if (user, position) != (node, 1) and bool(torch.isin(seen, members).any()):
            return None
    found = []
    for user, position in users[node.op.output]:
        channels = _read_channels(user, position, behind)
        if isinstance(channels, str) or not bool(torch.isin(channels, members).all()):
            return None
        found.append(Reader(user.name, torch.searchsorted(members, channels)))
    if not found:
        return None
    site = Site(node.name, node.op.output, torch.searchsorted(members, own.contiguous()), len(members), tuple(found))
    shares = node.operands[0]
    whole = not shares.views and any(
        one.function == "softmax" and one.op.output == shares.source for one in network.nodes
    )
    return ValueSite(site, maker.name, members - first, float(node.settings.get("scale", 1.0)), whole)


def _followed(network: Network, ramps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Channel numbers of some stored tensors, followed through views; everything else is `NO_CHANNEL`."""
    names = [network.workload.input, *(node.op.output for node in network.nodes)]
    other = torch.tensor(NO_CHANNEL)
    return spread_values(network, {name: ramps.get(name, other) for name in names}, NO_CHANNEL)


def _read_channels(node: Node, position: int, labels: Mapping[str, Tensor]) -> Tensor | str:
    """The label of every input channel of a layer, [inputs]; or why it does not read channels one by one."""
    if node.function not in ("linear", "conv"):
        return f"{node.name}, which is no layer with filters, reads it"
    assert node.weight is not None
    if node.function == "conv":
        settings = node.settings
        if tuple(node.weight.shape[2:]) != (1, 1) or any(settings["padding"]) or settings["groups"] != 1:
            return f"{node.name} is no dense 1 × 1 convolution without padding"
    inputs, axis = node.weight.shape[1], channel_axis(node)
    seen = narrow(operand_values(labels, node, position, NO_CHANNEL))
    if seen.numel() not in (1, seen.shape[axis]):
        return f"{node.name} reads several channels as one"
    return seen.reshape(-1).expand(inputs)


def _compared_or_given(network: Network) -> frozenset[str]:
    """Stored tensors behind the network's output and behind ReLUs of their own, max(code, zero point)."""
    names = {network.workload.output}
    names |= {operand.source for node in network.nodes if compares(node) for operand in node.operands}
    return frozenset(root for name in names for root in network.workload.storage_of(name))
