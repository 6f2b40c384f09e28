"""How every kind of node is computed: one function per kind, in real numbers.  Integers: `quant.integer`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from quant.models.blocks import activate
from quant.network import Node, Numerics
from quant.patchwise.order import importances, places, rank_words

Function = Callable[[Node, list[Tensor], Numerics], Tensor]
FUNCTIONS: dict[str, Function] = {}


def function(name: str) -> Callable[[Function], Function]:
    """Decorator: the function of nodes with `function == name`."""

    def add(one: Function) -> Function:
        FUNCTIONS[name] = one
        return one

    return add


def _finish(node: Node, value: Tensor, rules: Numerics) -> Tensor:
    """The output stage: what the accumulators hold, then the activation function."""
    return activate(rules.accumulator(node, value), node.activation)


@function("conv")
def conv(node: Node, operands: list[Tensor], rules: Numerics) -> Tensor:
    """Convolution [n, c, h, w]; settings stride, padding (pairs) and groups."""
    weight, bias = rules.parameters(node)
    assert weight is not None
    value = F.conv2d(
        operands[0], weight, bias, node.settings["stride"], node.settings["padding"], groups=node.settings["groups"]
    )
    return _finish(node, value, rules)


@function("linear")
def linear(node: Node, operands: list[Tensor], rules: Numerics) -> Tensor:
    """Linear layer over the last axis."""
    weight, bias = rules.parameters(node)
    assert weight is not None
    return _finish(node, F.linear(operands[0], weight, bias), rules)


@function("matmul")
def matmul(node: Node, operands: list[Tensor], rules: Numerics) -> Tensor:
    """Product of two activations; settings scale (a constant factor, part of the requantization)."""
    value = operands[0] @ operands[1]
    scale = float(node.settings.get("scale", 1.0))
    return _finish(node, value if scale == 1.0 else value * scale, rules)


@function("add")
def add(node: Node, operands: list[Tensor], rules: Numerics) -> Tensor:
    """Sum of two tensors; `weight`, if any, scales the first (broadcast); settings scale the sum."""
    branch = operands[0] if node.weight is None else operands[0] * node.weight
    value = branch + operands[1]
    scale = float(node.settings.get("scale", 1.0))
    return value if scale == 1.0 else value * scale


@function("softmax")
def softmax(node: Node, operands: list[Tensor], rules: Numerics) -> Tensor:
    """Softmax over the last axis."""
    found = rules.nonlinear(node, operands)
    return torch.softmax(operands[0], dim=-1) if found is None else found


@function("layernorm")
def layernorm(node: Node, operands: list[Tensor], rules: Numerics) -> Tensor:
    """LayerNorm over the last axis with weight and bias; settings eps and, if any, activation."""
    found = rules.nonlinear(node, operands)
    if found is not None:
        return found
    value = operands[0]
    normal = F.layer_norm(value, value.shape[-1:], node.weight, node.bias, float(node.settings["eps"]))
    return activate(normal, node.activation)


@function("activation")
def activation(node: Node, operands: list[Tensor], rules: Numerics) -> Tensor:
    """An activation that is an op of its own; settings activation."""
    found = rules.nonlinear(node, operands)
    return activate(operands[0], node.activation) if found is None else found


@function("embed")
def embed(node: Node, operands: list[Tensor], rules: Numerics) -> Tensor:
    """Rows of tokens [n, tokens, c] after `settings["rows"]` learned rows (0 or 1), plus `weight` [rows + tokens, c].

    The learned rows (class token) are already added into the first rows of `weight`.
    """
    weight, _ = rules.parameters(node)
    assert weight is not None
    rows = int(node.settings.get("rows", 0))
    value = F.pad(operands[0], (0, 0, rows, 0)) if rows else operands[0]
    return value + weight


@function("bias_add")
def bias_add(node: Node, operands: list[Tensor], rules: Numerics) -> Tensor:
    """Add a learned constant, `weight`, broadcast over the images (relative-position bias, mask included)."""
    weight, _ = rules.parameters(node)
    assert weight is not None
    return operands[0] + weight


@function("divide")
def divide(node: Node, operands: list[Tensor], rules: Numerics) -> Tensor:
    """Rows 0 … d − 1 of axis −2 divided by its last row d (linear attention); settings eps.  A zero divisor gives 0."""
    numerators, divisors = operands[0][..., :-1, :], operands[0][..., -1:, :]
    return torch.where(divisors == 0, 0.0, numerators / (divisors + float(node.settings["eps"])))


@function("normalize")
def normalize(node: Node, operands: list[Tensor], rules: Numerics) -> Tensor:
    """Divide by the sum over axis `settings["dim"]` (quadratic ReLU attention); settings eps."""
    value = operands[0]
    total = value.sum(dim=int(node.settings["dim"]), keepdim=True)
    return value / (total + float(node.settings["eps"]))


@function("mean")
def mean(node: Node, operands: list[Tensor], rules: Numerics) -> Tensor:
    """Mean over the axes `settings["dims"]`, which stay with size 1 when `settings["keep"]`."""
    return operands[0].mean(dim=tuple(node.settings["dims"]), keepdim=bool(node.settings.get("keep", False)))


@function("gate")
def gate(node: Node, operands: list[Tensor], rules: Numerics) -> Tensor:
    """Product with one factor per channel; settings activation, if any, follows."""
    return activate(operands[0] * operands[1], node.activation)


@function("pool_mixer")
def pool_mixer(node: Node, operands: list[Tensor], rules: Numerics) -> Tensor:
    """Sum of x and γ·(mean of the 3 × 3 window − x), windows at the border smaller; `weight` is γ, broadcast."""
    assert node.weight is not None
    value = operands[0]
    window = F.avg_pool2d(value, 3, stride=1, padding=1, count_include_pad=False)
    return value + node.weight * (window - value)


@function("concat")
def concat(node: Node, operands: list[Tensor], rules: Numerics) -> Tensor:
    """Tensors side by side along `settings["dim"]`."""
    return torch.cat(operands, dim=int(node.settings["dim"]))


@function("rank")
def rank(node: Node, operands: list[Tensor], rules: Numerics) -> Tensor:
    """Rank words [n, tokens] of shares of attention [n, heads, rows, tokens]: `quant.patchwise.order` has them."""
    return rank_words(importances(operands[0].detach()), node.settings).to(operands[0].dtype)


@function("gather")
def gather(node: Node, operands: list[Tensor], rules: Numerics) -> Tensor:
    """Rows of [n, tokens, c] in the order of rank words [n, tokens]."""
    return operands[0].gather(1, places(operands[1])[..., None].expand(operands[0].shape))


@function("identity")
def identity(node: Node, operands: list[Tensor], rules: Numerics) -> Tensor:
    """The operand after its view steps."""
    return operands[0]
