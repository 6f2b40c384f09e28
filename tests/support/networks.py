"""Tiny Networks built by hand, with random weights: a hybrid with linear attention and a vision transformer.

They have the ops, views and operand order that `capture` gives for the reference models, at a size for tests.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from accelsim.ir import Loop
from accelsim.ir import Tensor as Stored
from accelsim.workloads import recipes
from accelsim.workloads.builder import WorkloadBuilder
from quant.network import Network, Node, Operand, forward
from quant.views import Batch, View

CLASSES = 10
HEAD_DIM = 4


class NetBuilder:
    """A WorkloadBuilder that also makes the nodes; methods return the name of the output tensor."""

    def __init__(self, name: str, resolution: int, seed: int, image_channels: int = 1) -> None:
        self.net = WorkloadBuilder(name, resolution, image_channels)
        self.image_shape = (image_channels, resolution, resolution)
        self.nodes: dict[str, dict[str, Any]] = {}
        self.random = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, spread: float = 1.0) -> Tensor:
        """Random normal values."""
        return torch.randn(shape, generator=self.random) * spread

    def node(
        self,
        name: str,
        function: str,
        operands: list[Operand],
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        **settings: Any,
    ) -> str:
        """What the op of that name computes."""
        self.nodes[name] = {
            "function": function, "operands": tuple(operands), "weight": weight, "bias": bias, "settings": settings
        }  # fmt: skip
        return name

    def conv(
        self, name: str, op_class: str, source: str, channels: int, kernel: int = 1, *, stride: int = 1,
        padding: int | None = None, groups: int = 1, activation: str = "", views: tuple[View, ...] = (),
    ) -> str:  # fmt: skip
        """Convolution of [n, c, h, w] with a bias."""
        given = self.net.tensor(source).channels
        pad = kernel // 2 if padding is None else padding
        self.net.conv(name, op_class, source, channels, kernel=kernel, stride=stride, padding=pad, groups=groups,
                      bias=True, activation=activation)  # fmt: skip
        fan = given // groups * kernel * kernel
        return self.node(
            name, "conv", [Operand(source, views)],
            self.normal(channels, given // groups, kernel, kernel, spread=1.5 / math.sqrt(fan)),
            self.normal(channels, spread=0.1),
            stride=(stride, stride), padding=(pad, pad), groups=groups,
        )  # fmt: skip

    def linear(
        self, name: str, op_class: str, source: str, channels: int, activation: str = "", views: tuple[View, ...] = ()
    ) -> str:
        """Linear layer over the last axis with a bias."""
        given = self.net.tensor(source).channels
        self.net.conv(name, op_class, source, channels, bias=True, activation=activation)
        weight = self.normal(channels, given, spread=1.5 / math.sqrt(given))
        return self.node(name, "linear", [Operand(source, views)], weight, self.normal(channels, spread=0.1))

    def add(self, name: str, branch: str, skip: str) -> str:
        """Residual sum."""
        shape = self.net.tensor(skip)
        self.net.vector(name, "add", (branch, skip), recipes.residual_add(1, shape.h, shape.w, shape.channels),
                        Stored(name, shape.h, shape.w, shape.channels))  # fmt: skip
        return self.node(name, "add", [Operand(branch), Operand(skip)])

    def layernorm(self, name: str, source: str) -> str:
        """LayerNorm over the last axis."""
        shape = self.net.tensor(source)
        self.net.vector(name, "layernorm", (source,), recipes.layernorm(shape.h, shape.channels),
                        Stored(name, shape.h, 1, shape.channels), 2 * shape.channels)  # fmt: skip
        weight, bias = 1 + self.normal(shape.channels, spread=0.2), self.normal(shape.channels, spread=0.2)
        return self.node(name, "layernorm", [Operand(source)], weight, bias, eps=1e-6)

    def matmul(self, name: str, op_class: str, left: Operand, right: Operand, loop: Loop, **settings: Any) -> str:
        """Product of two activations."""
        self.net.matmul(name, op_class, left.source, right.source, loop)
        return self.node(name, "matmul", [left, right], **settings)

    def build(self, output: str) -> Network:
        """The finished Network."""
        workload = self.net.build(output)
        nodes = tuple(Node(op, **self.nodes[op.name]) for op in workload.ops)
        return Network(workload, nodes, self.image_shape)


def _transposed(dims: tuple[int, ...] = (0, 1, 3, 2)) -> View:
    return View("permute", (dims,))


def _mb_conv(b: NetBuilder, name: str, source: str, channels: int, stride: int) -> str:
    given = b.net.tensor(source).channels
    x = b.conv(f"{name}.expand", "pw", source, 2 * given, activation="hardswish")
    x = b.conv(f"{name}.dw", "dw", x, 2 * given, 3, stride=stride, groups=2 * given, activation="hardswish")
    x = b.conv(f"{name}.proj", "pw", x, channels)
    return b.add(f"{name}.add", x, source) if stride == 1 and given == channels else x


def _linear_attention(b: NetBuilder, name: str, source: str) -> str:
    """Multi-scale ReLU linear attention with projection and residual; heads of q, k, v (HEAD_DIM channels each)."""
    shape = b.net.tensor(source)
    h, w, channels, dim = shape.h, shape.w, shape.channels, HEAD_DIM
    heads, pixels = 2 * channels // dim, h * w
    qkv = b.conv(f"{name}.qkv", "pw", source, 3 * channels)
    x = b.conv(f"{name}.aggr.dw5", "dw", qkv, 3 * channels, 5, groups=3 * channels)
    x = b.conv(f"{name}.aggr.pwg", "gconv", x, 3 * channels, groups=3 * channels // dim)
    concat = b.net.view(f"{name}.concat", (qkv, x), h, w, 6 * channels)
    b.node(concat, "concat", [Operand(qkv), Operand(x)], dim=1)
    cut = View("reshape", ((Batch(), heads, 3 * dim, pixels),))
    relu = b.net.vector(f"{name}.relu", "relu", (concat,), recipes.relu(heads, h, w, 2 * dim),
                        Stored(f"{name}.relu", h, w, heads * 2 * dim))  # fmt: skip
    b.node(relu, "activation", [Operand(concat, (cut, View("slice", (2, 0, 2 * dim, 1))))], activation="relu")
    queries = Operand(relu, (View("slice", (2, 0, dim, 1)), _transposed()))
    keys = Operand(relu, (View("slice", (2, dim, 2 * dim, 1)),))
    values = Operand(concat, (cut, View("slice", (2, 2 * dim, 3 * dim, 1)), _transposed(), View("ones_row", (3,))))
    ktv = b.matmul(f"{name}.KtV", "ktv", keys, values, Loop(heads, dim, 1, dim + 1, pixels, right_implicit_cols=1))
    sums = b.matmul(f"{name}.QKV", "q_ktv", queries, Operand(ktv), Loop(heads, h, w, dim + 1, dim))
    quotient = b.net.vector(f"{name}.division", "division", (sums,), recipes.division(heads, h, w, dim),
                            Stored(f"{name}.division", h, w, heads * dim))  # fmt: skip
    b.node(quotient, "divide", [Operand(sums, (_transposed(),))], eps=1e-15)
    back = View("reshape", ((Batch(), heads * dim, h, w),))
    x = b.conv(f"{name}.attn_proj", "proj", quotient, channels, views=(back,))
    return b.add(f"{name}.attn_add", x, source)


def tiny_hybrid(seed: int = 0) -> Network:
    """Stem, separable block, linear attention at 8 × 8, two MBConvs, head: 16 × 16 grey images, 10 classes."""
    b = NetBuilder("tiny_hybrid", 16, seed)
    x = b.conv("stem.conv", "stem", "image", 8, 3, stride=2, activation="hardswish")
    y = b.conv("stem.ds0.dw", "dw", x, 8, 3, groups=8, activation="hardswish")
    x = b.add("stem.ds0.add", b.conv("stem.ds0.pw", "pw", y, 8), x)
    x = _linear_attention(b, "s1.b0", x)
    x = _mb_conv(b, "s1.b0.mb", x, 8, 1)
    x = _mb_conv(b, "s2.mb0", x, 12, 2)
    x = b.conv("head.conv", "head_conv", x, 16, activation="hardswish")
    shape = b.net.tensor(x)
    pool = b.net.vector("head.pool", "pool", (x,), recipes.average_pool(16, shape.h * shape.w),
                        Stored("head.pool", 1, 1, 16))  # fmt: skip
    b.node(pool, "mean", [Operand(x)], dims=(2, 3), keep=False)
    return b.build(b.linear("head.fc", "fc", pool, CLASSES))


def _block(b: NetBuilder, name: str, source: str, heads: int) -> str:
    tokens, dim = b.net.tensor(source).h, b.net.tensor(source).channels
    width = dim // heads
    qkv = b.linear(f"{name}.qkv", "qkv", b.layernorm(f"{name}.norm1", source), 3 * dim)
    cut = (View("reshape", ((Batch(), tokens, 3, heads, width),)), View("permute", ((2, 0, 3, 1, 4),)))
    queries, keys, values = (Operand(qkv, (*cut, View("select", (0, k)))) for k in range(3))
    keys = Operand(qkv, (*keys.views, _transposed()))
    scores = b.matmul(f"{name}.scores", "attn_scores", queries, keys, Loop(heads, tokens, 1, tokens, width),
                      scale=width**-0.5)  # fmt: skip
    shares = b.net.vector(f"{name}.softmax", "softmax", (scores,), recipes.softmax(heads, tokens, 1, tokens),
                          Stored(f"{name}.softmax", tokens, 1, heads * tokens))  # fmt: skip
    b.node(shares, "softmax", [Operand(scores)])
    mixed = b.matmul(f"{name}.values", "attn_values", Operand(shares), values, Loop(heads, tokens, 1, width, tokens))
    back = (View("permute", ((0, 2, 1, 3),)), View("reshape", ((Batch(), tokens, dim),)))
    x = b.add(f"{name}.attn_add", b.linear(f"{name}.proj", "proj", mixed, dim, views=back), source)
    y = b.linear(f"{name}.fc1", "mlp", b.layernorm(f"{name}.norm2", x), 2 * dim, activation="gelu")
    return b.add(f"{name}.mlp_add", b.linear(f"{name}.fc2", "mlp", y, dim), x)


def tiny_vit(seed: int = 0, depth: int = 2, dim: int = 12, heads: int = 2) -> Network:
    """Patches of 4 × 4, class token, blocks with softmax attention: 8 × 8 grey images, 10 classes."""
    b = NetBuilder("tiny_vit", 8, seed)
    patches = b.conv("patch_embed", "patch_embed", "image", dim, 4, stride=4, padding=0)
    x = b.net.vector("embed", "embed", (patches,), recipes.elementwise_add(1, 5, 1, dim), Stored("embed", 5, 1, dim),
                     params_extra=6 * dim)  # fmt: skip
    rows = (View("reshape", ((Batch(), dim, 4),)), View("permute", ((0, 2, 1),)))
    b.node(x, "embed", [Operand(patches, rows)], b.normal(5, dim, spread=0.3), rows=1)
    for k in range(depth):
        x = _block(b, f"b{k}", x, heads)
    token = b.net.view("class_token", (x,), 1, 1, dim)
    b.node(token, "identity", [Operand(x, (View("select", (1, 0)),))])
    return b.build(b.linear("head", "fc", b.layernorm("norm", token), CLASSES))


def in_float64(network: Network) -> Network:
    """The same network with float64 parameters."""

    def cast(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.double()

    nodes = tuple(replace(node, weight=cast(node.weight), bias=cast(node.bias)) for node in network.nodes)
    return replace(network, nodes=nodes)


def images_of(network: Network, count: int, seed: int = 1) -> Tensor:
    """Random images [count, channels, h, w] with smooth structure (neighbouring pixels are alike)."""
    random = torch.Generator().manual_seed(seed)
    channels, height, width = network.image_shape
    coarse = torch.randn(count, channels, height // 2, width // 2, generator=random)
    fine = torch.randn(count, *network.image_shape, generator=random)
    return torch.nn.functional.interpolate(coarse, scale_factor=2.0, mode="bilinear") + 0.3 * fine


def labelled_images(network: Network, count: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Random images and the class that the float network gives them: its accuracy on them is 1."""
    images = images_of(network, count, seed)
    with torch.no_grad():
        return images, forward(network, images).argmax(1)
