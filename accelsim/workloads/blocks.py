"""Pieces that several transformer families share: LayerNorm, residual, attention over groups of heads, MLP, pooling.

Token tensors have h = tokens and w = 1.  `name` is the prefix of the ops, `source` the tensor they read.
"""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.ir import Loop, Tensor
from accelsim.workloads import recipes
from accelsim.workloads.builder import WorkloadBuilder

CLASSES = 1000


@dataclass(frozen=True)
class Heads:
    """Geometry of an attention: `groups` products (heads × windows) of `queries` × `keys` positions.

    `bias_table` counts the learned relative-position biases (0: none), `activation` follows the sum over the values.
    """

    groups: int
    queries: int
    keys: int
    key_dim: int
    value_dim: int
    bias_table: int = 0
    activation: str = ""


def layernorm(net: WorkloadBuilder, name: str, source: str) -> str:
    """LayerNorm over the channels of token rows."""
    shape = net.tensor(source)
    output = Tensor(name, shape.h, 1, shape.channels)
    recipe = recipes.layernorm(shape.h, shape.channels)
    return net.vector(name, "layernorm", (source,), recipe, output, 2 * shape.channels)


def residual(net: WorkloadBuilder, name: str, branch: str, skip: str, layer_scale: bool = False) -> str:
    """Sum of branch and skip; a learned scale per channel of the branch is part of its requantization."""
    shape = net.tensor(skip)
    recipe = recipes.residual_add(1, shape.h, shape.w, shape.channels)
    output = Tensor(name, shape.h, shape.w, shape.channels)
    return net.vector(name, "add", (branch, skip), recipe, output, shape.channels * layer_scale)


def attention(net: WorkloadBuilder, name: str, left: str, right: str, heads: Heads) -> str:
    """Scores, relative-position bias, softmax, sum over the values.

    `left` holds the queries, `right` keys and values; the output has `queries` rows of groups × value_dim channels.
    """
    groups, rows, cols = heads.groups, heads.queries, heads.keys
    x = net.matmul(f"{name}.scores", "attn_scores", left, right, Loop(groups, rows, 1, cols, heads.key_dim))
    if heads.bias_table:
        x = net.vector(f"{name}.bias", "bias_add", (x,), recipes.bias_add(groups, rows, 1, cols),
                       Tensor(f"{name}.bias", rows, 1, groups * cols), heads.bias_table)  # fmt: skip
    x = net.vector(f"{name}.softmax", "softmax", (x,), recipes.softmax(groups, rows, 1, cols),
                   Tensor(f"{name}.softmax", rows, 1, groups * cols))  # fmt: skip
    loop = Loop(groups, rows, 1, heads.value_dim, cols)
    return net.matmul(f"{name}.values", "attn_values", x, right, loop, heads.activation)


def mlp(net: WorkloadBuilder, name: str, source: str, ratio: int, activation: str, layer_scale: bool = False) -> str:
    """LayerNorm, two linear layers with biases, residual."""
    channels = net.tensor(source).channels
    x = layernorm(net, f"{name}.norm2", source)
    x = net.conv(f"{name}.fc1", "mlp", x, ratio * channels, bias=True, activation=activation)
    x = net.conv(f"{name}.fc2", "mlp", x, channels, bias=True)
    return residual(net, f"{name}.mlp_add", x, source, layer_scale)


def pool(net: WorkloadBuilder, name: str, source: str) -> str:
    """Mean over all positions."""
    shape = net.tensor(source)
    recipe = recipes.average_pool(shape.channels, shape.h * shape.w)
    return net.vector(name, "pool", (source,), recipe, Tensor(name, 1, 1, shape.channels))


def two_heads(net: WorkloadBuilder, source: str, input_norm: bool) -> str:
    """Classifier and distillation classifier, and their mean (the half is part of the requantization)."""
    first = net.conv("head", "fc", source, CLASSES, bias=True, input_norm=input_norm)
    second = net.conv("head_dist", "fc", source, CLASSES, bias=True, input_norm=input_norm)
    return residual(net, "head_mean", first, second)


def inverted_residual(
    net: WorkloadBuilder, name: str, source: str, channels: int, *, stride: int, expand: int, activation: str
) -> str:
    """Expand, depthwise 3 × 3, project, all with BatchNorm; a residual when the shape is kept."""
    given = net.tensor(source).channels
    x = net.conv(f"{name}.expand", "pw", source, expand * given, norm=True, activation=activation)
    x = net.conv(f"{name}.dw", "dw", x, expand * given, kernel=3, stride=stride, groups=expand * given, norm=True,
                 activation=activation)  # fmt: skip
    x = net.conv(f"{name}.proj", "pw", x, channels, norm=True)
    return residual(net, f"{name}.add", x, source) if stride == 1 and given == channels else x
