"""EfficientFormer-L1 (average pooling as token mixer, one attention block), counted as timm@aa4b585 builds it."""

from __future__ import annotations

from functools import partial

from accelsim.ir import Tensor, Workload
from accelsim.workloads import blocks, recipes
from accelsim.workloads.builder import WorkloadBuilder
from accelsim.workloads.registry import register

ACTIVATION = "gelu"
WIDTHS = (48, 96, 224, 448)
DEPTHS = (3, 2, 6, 4)
ATTENTION_BLOCKS = 1
HEADS = 8
KEY_DIM = 32
VALUE_DIM = 4 * KEY_DIM
MLP_RATIO = 4
SOURCE = "huggingface/pytorch-image-models@aa4b585 timm/models/efficientformer.py"


def build_efficientformer(name: str, resolution: int) -> Workload:
    """EfficientFormer-L1 at a resolution in pixels, a multiple of 32."""
    net = WorkloadBuilder(name, resolution)
    x = net.conv("stem.conv1", "stem", net.input, WIDTHS[0] // 2, kernel=3, stride=2, bias=True, norm=True,
                 activation="relu")  # fmt: skip
    x = net.conv("stem.conv2", "stem", x, WIDTHS[0], kernel=3, stride=2, bias=True, norm=True, activation="relu")
    for stage, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
        if stage:
            x = net.conv(f"s{stage}.down", "conv", x, width, kernel=3, stride=2, bias=True, norm=True)
        attending = ATTENTION_BLOCKS if stage == len(WIDTHS) - 1 else 0
        for k in range(depth - attending):
            x = _pool_block(net, f"s{stage}.b{k}", x)
    shape = net.tensor(x)
    x = net.view("tokens", (x,), shape.h * shape.w, 1, shape.channels)
    for k in range(DEPTHS[-1] - ATTENTION_BLOCKS, DEPTHS[-1]):
        x = _attention_block(net, f"s{len(WIDTHS) - 1}.b{k}", x)
    x = blocks.pool(net, "pool", blocks.layernorm(net, "norm", x))
    output = blocks.two_heads(net, x, input_norm=False)
    return net.build(output, (("family", "efficientformer"), ("source", SOURCE)))


def _pool_block(net: WorkloadBuilder, name: str, source: str) -> str:
    """3 × 3 average minus input, scaled and added; then a pointwise MLP with BatchNorm, scaled and added."""
    shape = net.tensor(source)
    channels = shape.channels
    x = net.vector(
        f"{name}.mixer", "pool_mixer", (source,), recipes.pool_mixer(channels, shape.h, shape.w),
        Tensor(f"{name}.mixer", shape.h, shape.w, channels), params_extra=channels,
    )  # fmt: skip
    y = net.conv(f"{name}.fc1", "pw", x, MLP_RATIO * channels, bias=True, norm=True, activation=ACTIVATION)
    y = net.conv(f"{name}.fc2", "pw", y, channels, bias=True, norm=True)
    return blocks.residual(net, f"{name}.mlp_add", y, x, layer_scale=True)


def _attention_block(net: WorkloadBuilder, name: str, source: str) -> str:
    shape = net.tensor(source)
    x = blocks.layernorm(net, f"{name}.norm1", source)
    qkv = net.conv(f"{name}.qkv", "qkv", x, HEADS * (2 * KEY_DIM + VALUE_DIM), bias=True)
    x = blocks.attention(
        net, name, qkv, qkv, blocks.Heads(HEADS, shape.h, shape.h, KEY_DIM, VALUE_DIM, HEADS * shape.h)
    )
    x = net.conv(f"{name}.proj", "proj", x, shape.channels, bias=True)
    x = blocks.residual(net, f"{name}.attn_add", x, source, layer_scale=True)
    return blocks.mlp(net, name, x, MLP_RATIO, ACTIVATION, layer_scale=True)


register("efficientformer_l1", 224, multiple=32)(partial(build_efficientformer, "efficientformer_l1"))
