"""Which elements of a stored tensor share a scale: labels that flow through the network as its values do.

A convolution's output has one scale, or one per channel where that is legal.  A product of activations gets one scale
per pair of operand scales, and per head where only products and divisions read it: attention branches, heads and the
row-sum row of linear attention keep scales of their own.  The output stage has a multiplier per output channel, so this
costs nothing.  Scales that meet in one reduction must be
equal: `scale_groups` refuses what the integers could not add up.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from accelsim.head_widths import HeadWidths
from accelsim.ir import OpKind
from accelsim.problems import AccelsimError, Problem
from quant.head_parts import part_places
from quant.network import Network, Node, Numerics, run
from quant.views import View, rearrange

ONES = -1  # the label of a row of ones: its value is exact


@dataclass(frozen=True, eq=False)
class Groups:
    """Labels 0 … count − 1 of the elements of a tensor for one image; `channel_axis` numbers its channel axis.

    `labels` has the tensor's shape with batch size 1.
    """

    labels: Tensor
    count: int

    def spread(self, values: Tensor) -> Tensor:
        """One value per group, [count], as a tensor that broadcasts against the stored tensor.

        Axes along which the labels do not change have size 1.
        """
        return values[narrow(self.labels)]


def narrow(labels: Tensor) -> Tensor:
    """Labels with size 1 along every axis on which they are constant."""
    for axis in range(labels.dim()):
        first = labels.narrow(axis, 0, 1)
        if bool((labels == first).all()):
            labels = first
    return labels


def channel_axis(node: Node) -> int:
    """Axis of the output channels: 1 for a convolution, the last one for a linear layer."""
    return 1 if node.function == "conv" else -1


def keeps_scale(node: Node) -> bool:
    """True for an op that passes codes on: ReLU on its own is max(code, 0), a gather copies."""
    return node.function == "gather" or compares(node)


def compares(node: Node) -> bool:
    """True for a ReLU that is an op of its own."""
    return node.function == "activation" and node.activation == "relu"


def passed_on(node: Node) -> range:
    """Positions of the operands whose codes an op passes on: all of a view, the first of an op that keeps scales."""
    return range(1 if keeps_scale(node) else len(node.operands))


def stored_shapes(network: Network) -> dict[str, torch.Size]:
    """Shape of every tensor for one image, as torch lays it out."""
    names = [network.workload.input, *(node.op.output for node in network.nodes)]
    dtype = next((node.weight.dtype for node in network.nodes if node.weight is not None), torch.float32)
    image = torch.zeros(1, *network.image_shape, dtype=dtype)
    with torch.no_grad():
        return {name: value.shape for name, value in run(network, image, Numerics(), keep=names).items()}


def scale_groups(
    network: Network, per_channel: Collection[str] = (), heads: Mapping[str, HeadWidths] | None = None
) -> dict[str, Groups]:
    """Groups of every tensor, views included.  `per_channel` names outputs with a scale for each channel.

    `heads` are outputs whose parts have scales of their own; a linear layer may sum them where they have shifts.  A
    product that reads parts has one scale, if it has no parts itself: its output stage has a multiplier per head.
    Raises AccelsimError when scales that differ would meet in one reduction.
    """
    shapes = stored_shapes(network)
    labels = {network.workload.input: torch.zeros(shapes[network.workload.input], dtype=torch.long)}
    by_head, parts = _head_by_head(network), {} if heads is None else heads
    tied = {name for name, one in parts.items() if one.shifts}
    for node in network.nodes:
        operands = [operand_values(labels, node, k, ONES) for k in passed_on(node)]
        name = node.op.output
        roots = {root for operand in node.operands for root in network.workload.storage_of(operand.source)}
        if node.function == "linear" and roots <= tied:
            operands = [torch.zeros_like(operands[0])]
        labels[name] = _output_labels(node, operands, shapes[name], name in per_channel)
        if name in parts:
            channels = network.workload.tensor_by_name[name].channels
            labels[name] = part_places(node, channels, len(parts[name].bits)).expand(shapes[name]).clone()
        elif node.function == "matmul" and not roots.isdisjoint(parts):
            labels[name] = torch.zeros_like(labels[name])
        elif name in by_head:
            labels[name] = _with_heads(labels[name])
    return {name: _compact(one) for name, one in labels.items()}


def _with_row(value: Tensor, view: View, content: float) -> Tensor:
    axis = view.args[0]
    return torch.cat([value, torch.full_like(value.narrow(axis, 0, 1), content)], dim=axis)


def _output_labels(node: Node, operands: list[Tensor], shape: torch.Size, per_channel: bool) -> Tensor:
    if node.function == "gather" and not bool((operands[0] == operands[0][:, :1]).all()):
        _refuse(node, "the new order of tokens", "move values between places of different scales")
    if node.op.kind is OpKind.VIEW or keeps_scale(node):
        return _joined(node, operands)
    if node.function == "matmul":
        return _product_labels(node, operands[0], operands[1])
    if node.function in ("conv", "linear"):
        _check_reduction(node, operands[0])
        if per_channel:
            axis = channel_axis(node) % len(shape)
            ramp = torch.arange(shape[axis]).reshape([-1 if k == axis else 1 for k in range(len(shape))])
            return ramp.expand(shape).clone()
    return torch.zeros(shape, dtype=torch.long)


def _head_by_head(network: Network) -> set[str]:
    """Products that only products and divisions read, head by head: each head may have scales of its own."""
    able = {node.op.output for node in network.nodes if node.function == "matmul"}
    for node in network.nodes:
        if node.function not in ("matmul", "divide"):
            able -= {operand.source for operand in node.operands}
    return able - {network.workload.output}


def _with_heads(labels: Tensor) -> Tensor:
    """Labels [1, .., n, m] told apart along the axes between batch and matrix."""
    heads = int(torch.tensor(labels.shape[1:-2]).prod())
    index = torch.arange(heads).reshape(1, *labels.shape[1:-2], 1, 1)
    return labels + index * (int(labels.max()) + 1)


def _joined(node: Node, operands: list[Tensor]) -> Tensor:
    """Labels of a view: those of its operands, kept apart."""
    if len(operands) == 1:
        return operands[0]
    shifted, first = [], 0
    for value in operands:
        shifted.append(value + first)
        first += int(value.max()) + 1
    return torch.cat(shifted, dim=int(node.settings["dim"]))


def _product_labels(node: Node, left: Tensor, right: Tensor) -> Tensor:
    """One label per pair of labels of the left row and the right column, [.., n, m]."""
    for value, axis in ((left, -1), (right, -2)):
        if not bool((value == value.narrow(axis, 0, 1)).all()):
            _refuse(node, "a product of activations")
    size = int(right.max()) + 2
    return (left[..., :, :1] + 1) * size + right[..., :1, :] + 1


def _check_reduction(node: Node, labels: Tensor) -> None:
    """All input channels that one output channel sums must have one scale."""
    if node.function == "linear":
        same = bool((labels == labels[..., :1]).all())
    else:
        groups = int(node.settings["groups"])
        parts = labels.reshape(labels.shape[0], groups, -1)
        same = bool((parts == parts[:, :, :1]).all())
    if not same:
        _refuse(node, "a convolution or linear layer")


def _refuse(node: Node, what: str, fault: str = "add values of different scales") -> None:
    raise AccelsimError(
        Problem(
            f"op {node.name}", f"{what} would {fault}", "one scale along the reduction",
            ("tensor granularity for its input",),
        )
    )  # fmt: skip


def _compact(labels: Tensor) -> Groups:
    members, inverse = torch.unique(labels, return_inverse=True)
    return Groups(inverse.reshape(labels.shape), len(members))


def spread_values(network: Network, given: Mapping[str, Tensor], ones: float) -> dict[str, Tensor]:
    """A number per stored tensor (a scale, a zero point), in the shape of every tensor for one image, views included.

    `given` broadcasts against the stored tensors; ReLU and views pass on what they read; rows of ones get `ones`.
    """
    shapes = stored_shapes(network)
    image = network.workload.input
    values = {image: given[image].expand(shapes[image])}
    for node in network.nodes:
        name = node.op.output
        if node.op.kind is OpKind.VIEW or keeps_scale(node):
            parts = [operand_values(values, node, k, ones) for k in passed_on(node)]
            values[name] = parts[0] if len(parts) == 1 else torch.cat(parts, dim=int(node.settings["dim"]))
        elif name in given:
            values[name] = given[name].expand(shapes[name])
    return values


def operand_values(values: Mapping[str, Tensor], node: Node, position: int, ones: float) -> Tensor:
    """The numbers of `spread_values` as an op reads them: through the view steps of its operand."""
    operand = node.operands[position]
    value = values[operand.source]
    for view in operand.views:
        value = _with_row(value, view, ones) if view.name == "ones_row" else rearrange(value, (view,), 1)
    return value
