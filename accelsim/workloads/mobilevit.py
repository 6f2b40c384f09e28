"""MobileViT-S (convolutions with transformers over 2 × 2 patches), counted as timm@aa4b585 builds it."""

from __future__ import annotations

from functools import partial

from accelsim.ir import Workload
from accelsim.workloads import blocks
from accelsim.workloads.builder import WorkloadBuilder
from accelsim.workloads.registry import register

ACTIVATION = "silu"
STEM = 16
# Convolution stages (channels, blocks, stride), then stages with a transformer (channels, its width, its depth).
LOCAL_STAGES = ((32, 1, 1), (64, 3, 2))
GLOBAL_STAGES = ((96, 144, 2), (128, 192, 4), (160, 240, 3))
EXPAND = 4
HEADS = 4
PATCH = 2
MLP_RATIO = 2
FEATURES = 640
SOURCE = "huggingface/pytorch-image-models@aa4b585 timm/models/mobilevit.py, byobnet.py"


def build_mobilevit(name: str, resolution: int) -> Workload:
    """MobileViT-S at a resolution in pixels, a multiple of 64 (2 × 2 patches at stride 32)."""
    net = WorkloadBuilder(name, resolution)
    x = net.conv("stem", "stem", net.input, STEM, kernel=3, stride=2, norm=True, activation=ACTIVATION)
    local = partial(blocks.inverted_residual, net, expand=EXPAND, activation=ACTIVATION)
    for stage, (channels, depth, stride) in enumerate(LOCAL_STAGES, 1):
        for k in range(depth):
            x = local(f"s{stage}.b{k}", x, channels, stride=stride if k == 0 else 1)
    for stage, (channels, width, depth) in enumerate(GLOBAL_STAGES, len(LOCAL_STAGES) + 1):
        x = local(f"s{stage}.down", x, channels, stride=2)
        x = _mobilevit_block(net, f"s{stage}", x, width, depth)
    x = net.conv("final_conv", "head_conv", x, FEATURES, norm=True, activation=ACTIVATION)
    output = net.conv("head", "fc", blocks.pool(net, "pool", x), blocks.CLASSES, bias=True)
    return net.build(output, (("family", "mobilevit"), ("source", SOURCE)))


def _mobilevit_block(net: WorkloadBuilder, name: str, source: str, width: int, depth: int) -> str:
    """3 × 3 convolution, 1 × 1 to the transformer's width, transformer, 1 × 1 back, 3 × 3 over both."""
    shape = net.tensor(source)
    h, w, channels = shape.h, shape.w, shape.channels
    x = net.conv(f"{name}.local", "conv", source, channels, kernel=3, norm=True, activation=ACTIVATION)
    x = net.conv(f"{name}.widen", "pw", x, width)
    x = net.view(f"{name}.unfold", (x,), h * w, 1, width)
    for k in range(depth):
        x = _transformer(net, f"{name}.t{k}", x)
    x = blocks.layernorm(net, f"{name}.norm", x)
    x = net.view(f"{name}.fold", (x,), h, w, width)
    x = net.conv(f"{name}.narrow", "pw", x, channels, norm=True, activation=ACTIVATION)
    x = net.view(f"{name}.concat", (source, x), h, w, 2 * channels)
    return net.conv(f"{name}.fusion", "conv", x, channels, kernel=3, norm=True, activation=ACTIVATION)


def _transformer(net: WorkloadBuilder, name: str, source: str) -> str:
    """One block; a position attends to those at the same place of their patches, so each place has its own heads."""
    shape = net.tensor(source)
    width = shape.channels
    places = PATCH * PATCH
    patches = shape.h // places
    x = blocks.layernorm(net, f"{name}.norm1", source)
    qkv = net.conv(f"{name}.qkv", "qkv", x, 3 * width, bias=True, layout=(patches, 1, places * 3 * width))
    heads = blocks.Heads(places * HEADS, patches, patches, width // HEADS, width // HEADS)
    x = blocks.attention(net, name, qkv, qkv, heads)
    x = net.view(f"{name}.tokens", (x,), shape.h, 1, width)
    x = net.conv(f"{name}.proj", "proj", x, width, bias=True)
    x = blocks.residual(net, f"{name}.attn_add", x, source)
    return blocks.mlp(net, name, x, MLP_RATIO, ACTIVATION)


register("mobilevit_s", 256, multiple=64)(partial(build_mobilevit, "mobilevit_s"))
