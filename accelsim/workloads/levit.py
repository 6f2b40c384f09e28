"""LeViT-128 (convolutional stem, attention with relative biases, BatchNorm everywhere), counted as timm@aa4b585.

Parameters are those of the published form: two per BatchNorm channel, both classifiers.  Every BatchNorm follows or
precedes a linear layer and is folded into it, so the ops are those of the folded network.
"""

from __future__ import annotations

from functools import partial

from accelsim.ir import Workload
from accelsim.workloads import blocks
from accelsim.workloads.builder import WorkloadBuilder
from accelsim.workloads.registry import register

ACTIVATION = "hardswish"
WIDTHS = (128, 256, 384)
HEADS = (4, 8, 12)
DEPTH = 4
KEY_DIM = 16
VALUE_DIM = 2 * KEY_DIM
DOWN_VALUE_DIM = 4 * KEY_DIM
MLP_RATIO = 2
STRIDE = 16
SOURCE = "huggingface/pytorch-image-models@aa4b585 timm/models/levit.py"


def build_levit(name: str, resolution: int) -> Workload:
    """LeViT-128 at a resolution in pixels, a multiple of 16."""
    net = WorkloadBuilder(name, resolution)
    x = net.input
    for k, divisor in enumerate((8, 4, 2, 1), 1):
        x = net.conv(f"stem.conv{k}", "stem", x, WIDTHS[0] // divisor, kernel=3, stride=2, norm=True,
                     activation=ACTIVATION if divisor > 1 else "")  # fmt: skip
    side = resolution // STRIDE
    x = net.view("tokens", (x,), side * side, 1, WIDTHS[0])
    for stage, (width, heads) in enumerate(zip(WIDTHS, HEADS, strict=True)):
        if stage:
            x = _down(net, f"s{stage}.down", x, side, width)
            side = (side - 1) // 2 + 1
        for k in range(DEPTH):
            x = _mlp(net, f"s{stage}.b{k}", _attention(net, f"s{stage}.b{k}", x, heads))
    output = blocks.two_heads(net, blocks.pool(net, "pool", x), input_norm=True)
    return net.build(output, (("family", "levit"), ("source", SOURCE)))


def _attention(net: WorkloadBuilder, name: str, source: str, heads: int) -> str:
    shape = net.tensor(source)
    tokens = shape.h
    qkv = net.conv(f"{name}.qkv", "qkv", source, heads * (2 * KEY_DIM + VALUE_DIM), norm=True)
    geometry = blocks.Heads(heads, tokens, tokens, KEY_DIM, VALUE_DIM, heads * tokens, ACTIVATION)
    x = blocks.attention(net, name, qkv, qkv, geometry)
    x = net.conv(f"{name}.proj", "proj", x, shape.channels, norm=True)
    return blocks.residual(net, f"{name}.attn_add", x, source)


def _mlp(net: WorkloadBuilder, name: str, source: str) -> str:
    channels = net.tensor(source).channels
    x = net.conv(f"{name}.fc1", "mlp", source, MLP_RATIO * channels, norm=True, activation=ACTIVATION)
    x = net.conv(f"{name}.fc2", "mlp", x, channels, norm=True)
    return blocks.residual(net, f"{name}.mlp_add", x, source)


def _down(net: WorkloadBuilder, name: str, source: str, side: int, width: int) -> str:
    """Attention whose queries are every second row and column, then an MLP; no residual around the attention."""
    given = net.tensor(source).channels
    heads = given // KEY_DIM
    keys, queries = side * side, ((side - 1) // 2 + 1) ** 2
    kv = net.conv(f"{name}.kv", "qkv", source, heads * (KEY_DIM + DOWN_VALUE_DIM), norm=True)
    subset = net.view(f"{name}.subsample", (source,), queries, 1, given)
    q = net.conv(f"{name}.q", "qkv", subset, heads * KEY_DIM, norm=True)
    geometry = blocks.Heads(heads, queries, keys, KEY_DIM, DOWN_VALUE_DIM, heads * keys, ACTIVATION)
    x = blocks.attention(net, name, q, kv, geometry)
    return _mlp(net, name, net.conv(f"{name}.proj", "proj", x, width, norm=True))


register("levit_128", 224, multiple=STRIDE)(partial(build_levit, "levit_128"))
