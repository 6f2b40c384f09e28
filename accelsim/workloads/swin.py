"""Swin-T and Swin-S (attention in shifted 7 × 7 windows), counted as timm@aa4b585 builds them.

Windows, their shift and the merging of 2 × 2 positions only change addresses.  The mask of a shifted block is part of
the relative bias that its table delivers.
"""

from __future__ import annotations

from functools import partial

from accelsim.ir import Workload
from accelsim.workloads import blocks
from accelsim.workloads.builder import WorkloadBuilder
from accelsim.workloads.registry import register

PATCH = 4
WINDOW = 7
WIDTH = 96
HEADS = (3, 6, 12, 24)
MLP_RATIO = 4
ACTIVATION = "gelu"
VARIANTS: dict[str, tuple[int, int, int, int]] = {"swin_tiny": (2, 2, 6, 2), "swin_small": (2, 2, 18, 2)}
SOURCE = "huggingface/pytorch-image-models@aa4b585 timm/models/swin_transformer.py"


def build_swin(name: str, resolution: int) -> Workload:
    """The network `name` (a key of `VARIANTS`) at a resolution in pixels, a multiple of 224 (whole windows)."""
    net = WorkloadBuilder(name, resolution)
    x = net.conv("patch_embed", "patch_embed", net.input, WIDTH, kernel=PATCH, stride=PATCH, padding=0, bias=True)
    x = net.view("tokens", (x,), (resolution // PATCH) ** 2, 1, WIDTH)
    x = blocks.layernorm(net, "patch_norm", x)
    for stage, depth in enumerate(VARIANTS[name]):
        if stage:
            x = _merge(net, f"s{stage}.merge", x)
        for k in range(depth):
            x = _attention(net, f"s{stage}.b{k}", x, HEADS[stage])
            x = blocks.mlp(net, f"s{stage}.b{k}", x, MLP_RATIO, ACTIVATION)
    x = blocks.pool(net, "pool", blocks.layernorm(net, "norm", x))
    output = net.conv("head", "fc", x, blocks.CLASSES, bias=True)
    return net.build(output, (("family", "swin"), ("source", SOURCE)))


def _merge(net: WorkloadBuilder, name: str, source: str) -> str:
    """Four neighbouring positions become one of four times the channels; LayerNorm; half the channels."""
    shape = net.tensor(source)
    x = net.view(f"{name}.gather", (source,), shape.h // 4, 1, 4 * shape.channels)
    x = blocks.layernorm(net, f"{name}.norm", x)
    return net.conv(f"{name}.reduction", "pw", x, 2 * shape.channels)


def _attention(net: WorkloadBuilder, name: str, source: str, heads: int) -> str:
    """Every window and head is a group of its own; q, k and v are stored with the windows side by side."""
    shape = net.tensor(source)
    width, area = shape.channels, WINDOW * WINDOW
    windows = shape.h // area
    x = blocks.layernorm(net, f"{name}.norm1", source)
    qkv = net.conv(f"{name}.qkv", "qkv", x, 3 * width, bias=True, layout=(area, 1, windows * 3 * width))
    table = (2 * WINDOW - 1) ** 2 * heads
    geometry = blocks.Heads(windows * heads, area, area, width // heads, width // heads, table)
    x = blocks.attention(net, name, qkv, qkv, geometry)
    x = net.view(f"{name}.tokens", (x,), shape.h, 1, width)
    x = net.conv(f"{name}.proj", "proj", x, width, bias=True)
    return blocks.residual(net, f"{name}.attn_add", x, source)


for _name in VARIANTS:
    register(_name, 224, multiple=224)(partial(build_swin, _name))
