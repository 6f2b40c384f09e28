"""`ranked`: a network that ranks its tokens and gathers them in their order before some layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from accelsim.ir import Workload
from accelsim.problems import AccelsimError, Problem
from accelsim.token_groups import CLASS_TOKEN, IMPORTANCES
from accelsim.token_rules import sliced_ops
from accelsim.workloads.rank import RANK, RankedLayer, rank_tokens, ranked_layers
from quant.groups import stored_shapes
from quant.network import Network, Node, Operand, forward
from quant.patchwise.narrow import FLAGS, ROWS
from quant.patchwise.order import IMPORTANT, Fixed, Rule, Threshold, ranking_settings
from quant.views import View

TOLERANCE = 1e-3  # of the largest logit: what another order of summation may change
FIRST_ROW = View("slice", (ROWS, 0, 1, 1))


def ranked(
    network: Network,
    layers: Collection[str],
    importance: str = CLASS_TOKEN,
    rule: Rule | None = None,
    order: str = IMPORTANT,
    seed: int = 0,
) -> Network:
    """The network with its tokens in the order of their importance before these layers; its logits are the same.

    `layers` are names of `accelsim.workloads.rank.ranked_layers`, whose ops and tensors the new nodes are.
    `importance` is the class token's attention of the layer before ("class"), or that of all tokens ("received"),
    summed over heads.  `rule` says how many tokens are full (`Fixed` unless given: the plan's number).  `order` and
    `seed` are controls of studies.  Raises AccelsimError for a layer that cannot be ranked, a network without a class
    token, or one whose logits depend on the order of its tokens.
    """
    chosen = Fixed() if rule is None else rule
    first = _class_token(network)
    if importance not in IMPORTANCES:
        raise AccelsimError(Problem("importance", f"unknown {importance!r}", f"one of {', '.join(IMPORTANCES)}"))
    if importance == CLASS_TOKEN and not first:
        what = "has no class token whose attention could rank the others"
        raise AccelsimError(
            Problem(f"network {network.workload.name}", what, "a class token", ("--importance received",))
        )
    workload = rank_tokens(network.workload, layers, importance, isinstance(chosen, Threshold))
    able = [one for one in ranked_layers(network.workload) if one.name in layers]
    _check_shapes(network, able)
    settings = ranking_settings(chosen, order, seed, first)
    nodes = _nodes(network, workload, able, settings)
    if isinstance(chosen, Threshold):
        nodes = _flagged(workload, able, nodes)
    made = Network(workload, tuple(nodes), network.image_shape)
    _check_order(network, made)
    return made


def rankings(network: Network) -> dict[str, Node]:
    """The rank node of every layer whose tokens are ranked."""
    return {node.name.removesuffix(f".{RANK}"): node for node in network.nodes if node.function == RANK}


def _class_token(network: Network) -> bool:
    return any(node.function == "embed" and int(node.settings.get("rows", 0)) == 1 for node in network.nodes)


def _check_shapes(network: Network, layers: Collection[RankedLayer]) -> None:
    """Raise AccelsimError unless attentions are [n, heads, tokens, tokens] and the residual stream [n, tokens, c]."""
    shapes = stored_shapes(network)
    for one in layers:
        found, stream = list(shapes[one.softmax]), list(shapes[one.source])
        if found != [1, one.heads, one.tokens, one.tokens] or stream[:-1] != [1, one.tokens]:
            what = f"its attention is {found}, the tensor that it starts from {stream}"
            expected = f"[n, {one.heads}, {one.tokens}, {one.tokens}] and [n, {one.tokens}, channels]"
            raise AccelsimError(Problem(f"ranked layer {one.name}", what, expected))


def _nodes(
    network: Network, workload: Workload, layers: Collection[RankedLayer], settings: Mapping[str, Any]
) -> list[Node]:
    """The nodes in the order of the new workload; what reads the residual stream reads the copy in order."""
    old = {node.name: node for node in network.nodes}
    gathers = {one.gather: one for one in layers}
    ranks = {one.rank: one for one in layers}
    shares = {one.rank_softmax: one for one in layers}
    scores = {one.rank_scores: one for one in layers}
    renamed: dict[str, str] = {}
    nodes: list[Node] = []
    for op in workload.ops:
        if op.name in gathers:
            source = gathers[op.name].source
            nodes.append(Node(op, "gather", (_read(source, renamed), Operand(gathers[op.name].rank))))
            renamed[source] = op.name
        elif op.name in ranks:
            nodes.append(Node(op, RANK, (Operand(op.inputs[0]),), settings=dict(settings)))
        elif op.name in shares:
            softmax = old[shares[op.name].softmax]
            nodes.append(replace(softmax, op=op, operands=(Operand(op.inputs[0]),)))
        else:
            node = old[scores[op.name].scores if op.name in scores else op.name]
            operands = tuple(replace(one, source=renamed.get(one.source, one.source)) for one in node.operands)
            if op.name in scores:
                left = operands[0]
                operands = (replace(left, views=(*left.views, FIRST_ROW)), *operands[1:])
            nodes.append(replace(node, op=op, operands=operands))
    return nodes


def _read(source: str, renamed: Mapping[str, str]) -> Operand:
    return Operand(renamed.get(source, source))


def _flagged(workload: Workload, layers: Collection[RankedLayer], nodes: list[Node]) -> list[Node]:
    """The nodes whose outputs may have narrow rows also read the rank words of their layer, as the last operand."""
    words = {name: Operand(one.rank) for one in layers for name in sliced_ops(workload, one.name)}
    return [
        replace(node, operands=(*node.operands, words[node.name]), settings={**node.settings, FLAGS: True})
        if node.name in words
        else node
        for node in nodes
    ]


def _check_order(network: Network, made: Network) -> None:
    """Raise AccelsimError when the order of tokens changes the logits of a random image."""
    image = torch.randn(1, *network.image_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = forward(network, image), forward(made, image)
    if not _close(expected, found):
        what = f"its logits change by {float((expected - found).abs().max()):.3g} with the order of its tokens"
        raise AccelsimError(Problem(f"network {network.workload.name}", what, "no op that depends on their places"))


def _close(expected: Tensor, found: Tensor) -> bool:
    return float((expected - found).abs().max()) <= TOLERANCE * max(1.0, float(expected.abs().max()))
