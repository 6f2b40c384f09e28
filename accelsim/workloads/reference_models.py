"""Small networks for 62 classes of 32 × 32 grey images (and one for ten digits), trained in `quant.models`.

Hybrids built of EfficientViT's blocks (narrower, attention at 8 × 8 positions) and one plain
vision transformer.  The attention of the hybrids is always linear: 64 positions, 8 channels per head.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from accelsim.ir import Tensor, Workload
from accelsim.workloads import recipes
from accelsim.workloads.builder import WorkloadBuilder
from accelsim.workloads.efficientvit import ACTIVATION, ds_conv, lite_mla, mb_conv
from accelsim.workloads.registry import register
from accelsim.workloads.vit import Variant as VitVariant
from accelsim.workloads.vit import build_variant

RESOLUTION = 32
CLASSES = 62
IN_CHANNELS = 1
SOURCE = "this project: quant/models/hybrid.py, quant/models/vit.py"


@dataclass(frozen=True)
class HybridVariant:
    """Widths of the stem and stages 1, 2 and 4 (stage 3 keeps stage 2's), channels of a head, width of the head."""

    widths: tuple[int, int, int, int]
    head_dim: int
    head_width: int
    classes: int = CLASSES


HYBRIDS: dict[str, HybridVariant] = {
    "glyph_hybrid_wide": HybridVariant((16, 24, 48, 96), 8, 384),
    "glyph_hybrid_narrow": HybridVariant((8, 12, 16, 32), 8, 256),
    "digits_hybrid": HybridVariant((8, 8, 16, 16), 8, 64, 10),
}
_VIT = VitVariant(192, 4, 6, patch=4, classes=CLASSES, in_channels=IN_CHANNELS)
# `_outlier`: trained with large fixed biases of the patch embedding (a positive control); `_small`: a quarter of the
# tokens and half the width, for studies that train many times.
VITS: dict[str, VitVariant] = {
    "glyph_vit": _VIT,
    "glyph_vit_outlier": _VIT,
    "glyph_vit_small": replace(_VIT, dim=96, patch=8),
}
NAMES: tuple[str, ...] = (*HYBRIDS, *VITS)


def build_hybrid(name: str, resolution: int) -> Workload:
    """The hybrid `name` (a key of `HYBRIDS`) at a resolution in pixels, a multiple of 32.

    Stem to a half and stage 1 there, stage 2 to a quarter, one block of linear attention there, stage 4 to an eighth.
    """
    variant = HYBRIDS[name]
    net = WorkloadBuilder(name, resolution, IN_CHANNELS)
    first, second, third, fourth = variant.widths
    x = net.conv("stem.conv", "stem", net.input, first, kernel=3, stride=2, norm=True, activation=ACTIVATION)
    x = ds_conv(net, "stem.ds0", x)
    x = mb_conv(net, "s1.mb0", x, second, stride=1, norm=True)
    x = mb_conv(net, "s2.mb0", x, third, stride=2, norm=True)
    x = lite_mla(net, "s3.b0", x, variant.head_dim)
    x = mb_conv(net, "s3.b0.mb", x, third, stride=1, norm=True)
    x = mb_conv(net, "s4.mb0", x, fourth, stride=2, norm=True)
    x = mb_conv(net, "s4.mb1", x, fourth, stride=1, norm=True)
    x = net.conv("head.conv", "head_conv", x, variant.head_width, norm=True, activation=ACTIVATION)
    shape = net.tensor(x)
    pool = recipes.average_pool(shape.channels, shape.h * shape.w)
    x = net.vector("head.pool", "pool", (x,), pool, Tensor("head.pool", 1, 1, shape.channels))
    output = net.conv("head.fc", "fc", x, variant.classes, bias=True)
    return net.build(output, (("family", "reference_hybrid"), ("source", SOURCE)))


def build_reference_vit(name: str, resolution: int) -> Workload:
    """The vision transformer `name` (a key of `VITS`) at a resolution in pixels, a multiple of its patch size."""
    return build_variant(name, VITS[name], resolution)


for _name in HYBRIDS:
    register(_name, RESOLUTION, multiple=32)(partial(build_hybrid, _name))
for _name, _variant in VITS.items():
    register(_name, RESOLUTION, multiple=_variant.patch)(partial(build_reference_vit, _name))
