"""Which components a network has: layers, stored activations, attention heads, products."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import Tensor

from accelsim.ir import OpKind
from accelsim.problems import AccelsimError, Problem
from accelsim.workloads.rank import RANK
from quant.groups import channel_axis, keeps_scale, operand_values, passed_on, stored_shapes
from quant.network import Network, Node
from quant.sensitivity.table import ALL_KINDS, KINDS, PRODUCT, Component, Ranges
from quant.structure import MULTIPLYING, readers

NOTHING = -1  # the label of a value that is not a channel of a layer


def components(network: Network, kinds: Collection[str] = KINDS) -> tuple[Component, ...]:
    """All components of the given kinds, in order of execution.

    Activations are the stored tensors but the image and the logits (they keep 8 bits in every plan), rank words (whole
    numbers) and what ReLU on its own, a gather or a view passes on.  Raises AccelsimError for an unknown kind.
    """
    unknown = [kind for kind in kinds if kind not in ALL_KINDS]
    if unknown:
        raise AccelsimError(Problem("kinds", f"unknown kind {unknown[0]!r}", f"of {', '.join(ALL_KINDS)}"))
    products = {one.name: one for one in _products(network)} if PRODUCT in kinds else {}
    heads = attention_heads(network) if any(kind.startswith("head") for kind in kinds) else ()
    found: list[Component] = []
    for node in network.nodes:
        if "weight" in kinds and node.has_filters:
            found.append(Component("weight", ((node.name, ()),)))
        if "activation" in kinds and _is_stored(network, node):
            found.append(Component("activation", ((node.name, ()),)))
        if node.name in products:
            found.append(products[node.name])
        for number, parts in heads:
            if parts[-1][0] == node.name:
                found += [Component(kind, parts, number) for kind in KINDS[2:] if kind in kinds]
    return tuple(found)


def _products(network: Network) -> tuple[Component, ...]:
    """Every op of an array engine with what it multiplies: its filters and the stored tensors that it reads.

    A tensor that several ops read belongs to the first of them in order of execution, so that every width is decided
    once: the qkv output to Q·Kᵀ, and A·V keeps the softmax output alone.  The image keeps its 8 bits.  A product that
    is left with nothing is no component.  These are the components of PMQ as read here (interpretation).
    """
    made = {node.op.output: node.name for node in network.nodes}
    reads: dict[str, list[str]] = {}
    for name, users in readers(network).items():
        first = next((node.name for node, _ in users if node.function in MULTIPLYING), None)
        if first is not None and name in made:
            reads.setdefault(first, []).append(made[name])
    return tuple(
        Component(PRODUCT, ((node.name, ()),), reads=tuple(reads.get(node.name, ())))
        for node in network.nodes
        if node.has_filters or node.name in reads
    )


def _is_stored(network: Network, node: Node) -> bool:
    passes_on = node.op.kind is OpKind.VIEW or keeps_scale(node)
    return not passes_on and node.function != RANK and node.op.output != network.workload.output


def attention_heads(network: Network) -> tuple[tuple[int, tuple[tuple[str, Ranges], ...]], ...]:
    """Heads of all attentions: (number, ((op, channel ranges), …)).

    A head is one of the independent products (groups) of an attention's matrix products; its channels are the output
    channels of the layers whose values, through views and ReLU only, become operands of that product.  Products that
    feed each other (scores and values; Kᵀ[V|1] and Q·KᵀV of linear attention) are one attention, windows of one head
    are one head.  In multi-scale linear attention the first heads lie in the qkv convolution, the others in the
    aggregation convolution, each with its own queries, keys and values.  An attention with one head is left out: it is
    the layer.
    """
    labels, owner = _channel_labels(network)
    found = []
    for products in _attentions(network):
        groups: list[set[int]] = []
        for node in products:
            for position in range(2):
                _gather(groups, operand_values(labels, node, position, NOTHING))
        distinct = list(dict.fromkeys(frozenset(one) for one in groups if one))
        if len(distinct) > 1:
            found += [(number, _parts(head, owner)) for number, head in enumerate(distinct)]
    return tuple(found)


def _channel_labels(network: Network) -> tuple[dict[str, Tensor], list[tuple[str, int]]]:
    """A number for every output channel of every layer in all tensors that carry it; and (op, channel) of a number."""
    shapes = stored_shapes(network)
    labels = {network.workload.input: torch.full(shapes[network.workload.input], NOTHING)}
    owner: list[tuple[str, int]] = []
    for node in network.nodes:
        name = node.op.output
        if node.op.kind is OpKind.VIEW or keeps_scale(node):
            parts = [operand_values(labels, node, k, NOTHING) for k in passed_on(node)]
            labels[name] = parts[0] if len(parts) == 1 else torch.cat(parts, dim=int(node.settings["dim"]))
        elif node.has_filters:
            axis = channel_axis(node) % len(shapes[name])
            ramp = len(owner) + torch.arange(shapes[name][axis])
            labels[name] = ramp.reshape([-1 if k == axis else 1 for k in range(len(shapes[name]))]).expand(shapes[name])
            owner += [(node.name, channel) for channel in range(shapes[name][axis])]
        else:
            labels[name] = torch.full(shapes[name], NOTHING)
    return labels, owner


def _attentions(network: Network) -> list[list[Node]]:
    """Matrix products that feed each other without a layer between them."""
    above: dict[str, frozenset[str]] = {network.workload.input: frozenset()}
    member: dict[str, list[Node]] = {}
    for node in network.nodes:
        before = frozenset().union(*(above[operand.source] for operand in node.operands))
        if node.function == "matmul":
            joined = [node]
            for other in {id(member[name]): member[name] for name in before}.values():
                joined = [*other, *joined]
            for one in joined:
                member[one.name] = joined
            before |= {node.name}
        above[node.op.output] = frozenset() if node.has_filters else before
    return list({id(one): one for one in member.values()}.values())


def _gather(groups: list[set[int]], value: Tensor) -> None:
    """Add the channels of every product's operand; `value` has one matrix per product (all axes but the last two)."""
    rows = value.reshape(-1, value.shape[-2] * value.shape[-1])
    while len(groups) < len(rows):
        groups.append(set())
    for group, row in zip(groups, rows, strict=False):
        group |= {label for label in row.unique().tolist() if label != NOTHING}


def _parts(head: Iterable[int], owner: list[tuple[str, int]]) -> tuple[tuple[str, Ranges], ...]:
    by_op: dict[str, list[int]] = {}
    for label in sorted(head):
        op, channel = owner[label]
        by_op.setdefault(op, []).append(channel)
    return tuple((op, _ranges(channels)) for op, channels in by_op.items())


def _ranges(channels: list[int]) -> Ranges:
    """Neighbouring channels as (first, stop)."""
    found: list[tuple[int, int]] = []
    for channel in channels:
        if found and found[-1][1] == channel:
            found[-1] = (found[-1][0], channel + 1)
        else:
            found.append((channel, channel + 1))
    return tuple(found)


def channel_mask(ranges: Ranges, count: int) -> Tensor:
    """True at the channels of the ranges (everywhere when there are none), [count]."""
    mask = torch.zeros(count, dtype=torch.bool)
    for first, stop in ranges:
        mask[first:stop] = True
    return mask if ranges else ~mask
