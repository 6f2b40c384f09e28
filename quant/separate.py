"""Activation functions of a Network as ops of their own; see `accelsim.workloads.separate`."""

from __future__ import annotations

from dataclasses import replace

from accelsim.workloads.separate import separate_activations, separated_name
from quant.groups import channel_axis
from quant.network import Network, Node, Operand


def separate(network: Network, function: str = "gelu") -> Network:
    """The network with this activation function of its products as ops of their own; it computes the same.

    Ops and tensors are named as `separate_activations` names them; the setting `axis` of a new node is the axis of its
    channels.  The network itself when no product has it.
    """
    workload = separate_activations(network.workload, function)
    if workload is network.workload:
        return network
    ops = workload.op_by_name
    renamed: dict[str, str] = {}
    nodes: list[Node] = []
    for node in network.nodes:
        operands = tuple(replace(one, source=renamed.get(one.source, one.source)) for one in node.operands)
        after = separated_name(node.name, function)
        if after not in ops:
            nodes.append(replace(node, op=ops[node.name], operands=operands))
            continue
        renamed[node.op.output] = after
        settings = {name: value for name, value in node.settings.items() if name != "activation"}
        nodes.append(replace(node, op=ops[node.name], operands=operands, settings=settings))
        exact = {"activation": node.activation, "axis": channel_axis(node)}
        nodes.append(Node(ops[after], "activation", (Operand(node.op.output),), settings=exact))
    return Network(workload, tuple(nodes), network.image_shape)
