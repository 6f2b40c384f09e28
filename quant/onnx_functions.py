"""Every function of a node as ONNX ops in floating point, between the quantizers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from accelsim.problems import AccelsimError, Problem
from quant.network import Node
from quant.onnx_graph import LAST, Graph, slice_op

ACTIVATIONS = {"relu": "Relu", "hardswish": "HardSwish", "sigmoid": "Sigmoid"}


@dataclass(frozen=True, eq=False)
class Context:
    """What a function needs: the graph, filters and constants by node, and how accumulators are rounded.

    `filters` gives the names of dequantized filters and bias; `matrices` the same, filters transposed; `constant` is
    the node's weight as it is used; `accumulator` rounds what a table activation reads.
    """

    graph: Graph
    filters: Callable[[Node], tuple[str, str | None]]
    matrices: Callable[[Node], tuple[str, str | None]]
    constant: Callable[[Node], Tensor]
    accumulator: Callable[[Node, str], str]


Emit = Callable[[Context, Node, list[str]], str]
EMITTERS: dict[str, Emit] = {}


def emits(name: str) -> Callable[[Emit], Emit]:
    """Decorator: the ONNX form of nodes with `function == name`."""

    def add(one: Emit) -> Emit:
        EMITTERS[name] = one
        return one

    return add


def activate(graph: Graph, value: str, name: str) -> str:
    """An activation function by name.  Raises AccelsimError for one without an ONNX form."""
    if not name:
        return value
    if name in ("gelu", "gelu_tanh"):
        return graph.op("Gelu", [value], approximate="tanh" if name.endswith("tanh") else "none")
    if name == "silu":
        return graph.op("Mul", [value, graph.op("Sigmoid", [value])])
    if name not in ACTIVATIONS:
        raise AccelsimError(Problem(f"onnx: {graph.scope}", f"the activation {name!r} has no ONNX form"))
    return graph.op(ACTIVATIONS[name], [value])


def _scaled(graph: Graph, value: str, node: Node) -> str:
    scale = float(node.settings.get("scale", 1.0))
    return value if scale == 1.0 else graph.op("Mul", [value, graph.floats(scale)])


def _finish(context: Context, node: Node, value: str) -> str:
    return activate(context.graph, context.accumulator(node, value), node.activation)


@emits("conv")
def conv(context: Context, node: Node, operands: list[str]) -> str:
    """Conv."""
    weight, bias = context.filters(node)
    given = [operands[0], weight] if bias is None else [operands[0], weight, bias]
    padding = list(node.settings["padding"])
    value = context.graph.op(
        "Conv", given, strides=list(node.settings["stride"]), pads=padding * 2, group=int(node.settings["groups"])
    )
    return _finish(context, node, value)


@emits("linear")
def linear(context: Context, node: Node, operands: list[str]) -> str:
    """MatMul and Add."""
    weight, bias = context.matrices(node)
    value = context.graph.op("MatMul", [operands[0], weight])
    return _finish(context, node, value if bias is None else context.graph.op("Add", [value, bias]))


@emits("matmul")
def matmul(context: Context, node: Node, operands: list[str]) -> str:
    """MatMul and Mul."""
    return _finish(context, node, _scaled(context.graph, context.graph.op("MatMul", operands), node))


@emits("add")
def add(context: Context, node: Node, operands: list[str]) -> str:
    """Mul (layer scale) and Add."""
    graph, branch = context.graph, operands[0]
    if node.weight is not None:
        branch = graph.op("Mul", [branch, graph.floats(context.constant(node))])
    return _scaled(graph, graph.op("Add", [branch, operands[1]]), node)


@emits("softmax")
def softmax(context: Context, node: Node, operands: list[str]) -> str:
    """Softmax over the last axis."""
    return context.graph.op("Softmax", operands, axis=-1)


@emits("layernorm")
def layernorm(context: Context, node: Node, operands: list[str]) -> str:
    """LayerNormalization."""
    graph = context.graph
    given = [operands[0], graph.floats(torch.ones(1) if node.weight is None else node.weight)]
    if node.bias is not None:
        given.append(graph.floats(node.bias))
    value = graph.op("LayerNormalization", given, axis=-1, epsilon=float(node.settings["eps"]))
    return activate(graph, value, node.activation)


@emits("activation")
def activation(context: Context, node: Node, operands: list[str]) -> str:
    """An activation that is an op of its own."""
    return activate(context.graph, operands[0], node.activation)


@emits("embed")
def embed(context: Context, node: Node, operands: list[str]) -> str:
    """Pad and Add."""
    graph, rows, value = context.graph, int(node.settings.get("rows", 0)), operands[0]
    if rows:
        value = graph.op("Pad", [value, graph.longs([rows, 0]), "", graph.longs([-2])], mode="constant")
    return graph.op("Add", [value, graph.floats(context.constant(node))])


@emits("bias_add")
def bias_add(context: Context, node: Node, operands: list[str]) -> str:
    """Add."""
    return context.graph.op("Add", [operands[0], context.graph.floats(context.constant(node))])


@emits("divide")
def divide(context: Context, node: Node, operands: list[str]) -> str:
    """Slices and Div; Where gives 0 for a zero divisor."""
    graph = context.graph
    numerators, divisors = slice_op(graph, operands[0], -2, 0, -1), slice_op(graph, operands[0], -2, -1, LAST)
    zero = graph.floats(0.0)
    quotient = graph.op("Div", [numerators, graph.op("Add", [divisors, graph.floats(float(node.settings["eps"]))])])
    return graph.op("Where", [graph.op("Equal", [divisors, zero]), zero, quotient])


@emits("normalize")
def normalize(context: Context, node: Node, operands: list[str]) -> str:
    """ReduceSum, Add and Div."""
    graph = context.graph
    total = graph.op("ReduceSum", [operands[0], graph.longs([int(node.settings["dim"])])], keepdims=1)
    return graph.op("Div", [operands[0], graph.op("Add", [total, graph.floats(float(node.settings["eps"]))])])


@emits("mean")
def mean(context: Context, node: Node, operands: list[str]) -> str:
    """ReduceMean."""
    axes = context.graph.longs([int(dim) for dim in node.settings["dims"]])
    return context.graph.op("ReduceMean", [operands[0], axes], keepdims=int(bool(node.settings.get("keep", False))))


@emits("gate")
def gate(context: Context, node: Node, operands: list[str]) -> str:
    """Mul."""
    return activate(context.graph, context.graph.op("Mul", operands), node.activation)


@emits("pool_mixer")
def pool_mixer(context: Context, node: Node, operands: list[str]) -> str:
    """AveragePool (padding not counted), Sub, Mul, Add."""
    graph = context.graph
    window = graph.op("AveragePool", operands, kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4, count_include_pad=0)
    change = graph.op("Mul", [graph.op("Sub", [window, operands[0]]), graph.floats(context.constant(node))])
    return graph.op("Add", [operands[0], change])


@emits("concat")
def concat(context: Context, node: Node, operands: list[str]) -> str:
    """Concat."""
    return context.graph.op("Concat", operands, axis=int(node.settings["dim"]))


@emits("identity")
def identity(context: Context, node: Node, operands: list[str]) -> str:
    """Identity: the operand after its view steps."""
    return context.graph.op("Identity", operands)
