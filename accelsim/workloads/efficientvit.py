"""EfficientViT B0-B3, L1, L2 (linear-attention hybrids), counted as mit-han-lab/efficientvit@de7d773 builds them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from accelsim.ir import Loop, Tensor, Workload
from accelsim.workloads import recipes
from accelsim.workloads.builder import WorkloadBuilder
from accelsim.workloads.registry import register

ACTIVATION = "hardswish"
CLASSES = 1000
EXPAND = 4
AGGREGATION_KERNEL = 5
SOURCE = "mit-han-lab/efficientvit@de7d773 efficientvit/models (backbone.py, nn/ops.py, cls.py)"


@dataclass(frozen=True)
class Variant:
    """Widths of stem and stages 1-4, their depths, the channels of an attention head, and the head's two widths."""

    widths: tuple[int, int, int, int, int]
    depths: tuple[int, int, int, int, int]
    head_dim: int
    head_widths: tuple[int, int]


VARIANTS: dict[str, Variant] = {
    "efficientvit_b0": Variant((8, 16, 32, 64, 128), (1, 2, 2, 2, 2), 16, (1024, 1280)),
    "efficientvit_b1": Variant((16, 32, 64, 128, 256), (1, 2, 3, 3, 4), 16, (1536, 1600)),
    "efficientvit_b2": Variant((24, 48, 96, 192, 384), (1, 3, 4, 4, 6), 32, (2304, 2560)),
    "efficientvit_b3": Variant((32, 64, 128, 256, 512), (1, 4, 6, 6, 9), 32, (2304, 2560)),
}

# Stem of full convolutions, fused blocks in stages 1 and 2, GELU; the first block of a stage expands more.
LARGE_ACTIVATION = "gelu"
LARGE_EXPAND_FIRST = (16, 16, 16, 24)
LARGE_EXPAND = (4, 4, 4, 6)
LARGE_VARIANTS: dict[str, Variant] = {
    "efficientvit_l1": Variant((32, 64, 128, 256, 512), (1, 1, 1, 6, 6), 32, (3072, 3200)),
    "efficientvit_l2": Variant((32, 64, 128, 256, 512), (1, 2, 2, 8, 8), 32, (3072, 3200)),
}


def build_efficientvit(name: str, resolution: int) -> Workload:
    """The B-series network `name` (a key of `VARIANTS`) at a resolution in pixels, a multiple of 32."""
    variant = VARIANTS[name]
    net = WorkloadBuilder(name, resolution)
    x = net.conv("stem.conv", "stem", net.input, variant.widths[0], kernel=3, stride=2, norm=True,
                 activation=ACTIVATION)  # fmt: skip
    for k in range(variant.depths[0]):
        x = ds_conv(net, f"stem.ds{k}", x)
    for stage in (1, 2):
        for k in range(variant.depths[stage]):
            x = mb_conv(net, f"s{stage}.mb{k}", x, variant.widths[stage], stride=2 if k == 0 else 1, norm=True)
    for stage in (3, 4):
        x = mb_conv(net, f"s{stage}.down", x, variant.widths[stage], stride=2, norm=False)
        for k in range(variant.depths[stage]):
            x = lite_mla(net, f"s{stage}.b{k}", x, variant.head_dim)
            x = mb_conv(net, f"s{stage}.b{k}.mb", x, variant.widths[stage], stride=1, norm=False)
    output = _head(net, x, variant.head_widths, ACTIVATION)
    return net.build(output, (("family", "efficientvit"), ("source", SOURCE)))


def build_efficientvit_large(name: str, resolution: int) -> Workload:
    """The L-series network `name` (a key of `LARGE_VARIANTS`) at a resolution in pixels, a multiple of 32."""
    variant = LARGE_VARIANTS[name]
    net = WorkloadBuilder(name, resolution)
    x = net.conv("stem.conv", "stem", net.input, variant.widths[0], kernel=3, stride=2, norm=True,
                 activation=LARGE_ACTIVATION)  # fmt: skip
    for k in range(variant.depths[0]):
        x = _res_block(net, f"stem.res{k}", x)
    for stage in (1, 2, 3, 4):
        first, later = LARGE_EXPAND_FIRST[stage - 1], LARGE_EXPAND[stage - 1]
        x = _large_local(net, f"s{stage}.down", x, variant.widths[stage], stage, 2, first)
        for k in range(variant.depths[stage]):
            if stage == 4:
                x = lite_mla(net, f"s4.b{k}", x, variant.head_dim)
            x = _large_local(net, f"s{stage}.b{k}.mb", x, variant.widths[stage], stage, 1, later)
    output = _head(net, x, variant.head_widths, LARGE_ACTIVATION)
    return net.build(output, (("family", "efficientvit"), ("source", SOURCE)))


def _res_block(net: WorkloadBuilder, name: str, source: str) -> str:
    """Two full 3 × 3 convolutions with BatchNorm, and the residual."""
    channels = net.tensor(source).channels
    x = net.conv(f"{name}.conv1", "conv", source, channels, kernel=3, norm=True, activation=LARGE_ACTIVATION)
    x = net.conv(f"{name}.conv2", "conv", x, channels, kernel=3, norm=True)
    return residual(net, f"{name}.add", x, source)


def _large_local(
    net: WorkloadBuilder, name: str, source: str, channels: int, stage: int, stride: int, expand: int
) -> str:
    """Stages 1 and 2: full 3 × 3 expansion and projection, both with BatchNorm; stages 3 and 4: MBConv with biases."""
    if stage >= 3:
        return mb_conv(net, name, source, channels, stride=stride, norm=False, expand=expand,
                        activation=LARGE_ACTIVATION)  # fmt: skip
    x = net.conv(f"{name}.spatial", "conv", source, expand * net.tensor(source).channels, kernel=3, stride=stride,
                 norm=True, activation=LARGE_ACTIVATION)  # fmt: skip
    x = net.conv(f"{name}.proj", "pw", x, channels, norm=True)
    return residual(net, f"{name}.add", x, source) if stride == 1 else x


def residual(net: WorkloadBuilder, name: str, branch: str, skip: str) -> str:
    """Sum of branch and skip."""
    shape = net.tensor(skip)
    recipe = recipes.residual_add(1, shape.h, shape.w, shape.channels)
    return net.vector(name, "add", (branch, skip), recipe, Tensor(name, shape.h, shape.w, shape.channels))


def ds_conv(net: WorkloadBuilder, name: str, source: str) -> str:
    """Depthwise 3 × 3 and pointwise convolution, both with BatchNorm, and the residual."""
    channels = net.tensor(source).channels
    x = net.conv(f"{name}.dw", "dw", source, channels, kernel=3, groups=channels, norm=True, activation=ACTIVATION)
    x = net.conv(f"{name}.pw", "pw", x, channels, norm=True)
    return residual(net, f"{name}.add", x, source)


def mb_conv(
    net: WorkloadBuilder,
    name: str,
    source: str,
    channels: int,
    *,
    stride: int,
    norm: bool,
    expand: int = EXPAND,
    activation: str = ACTIVATION,
) -> str:
    """Expand, depthwise 3 × 3, project; a residual when the shape is kept.

    `norm`: BatchNorm everywhere; otherwise expand and depthwise have a bias instead (stages 3 and 4).
    """
    middle = expand * net.tensor(source).channels
    x = net.conv(f"{name}.expand", "pw", source, middle, bias=not norm, norm=norm, activation=activation)
    x = net.conv(f"{name}.dw", "dw", x, middle, kernel=3, stride=stride, groups=middle, bias=not norm, norm=norm,
                 activation=activation)  # fmt: skip
    x = net.conv(f"{name}.proj", "pw", x, channels, norm=True)
    return residual(net, f"{name}.add", x, source) if stride == 1 and net.tensor(source).channels == channels else x


def lite_mla(net: WorkloadBuilder, name: str, source: str, dim: int) -> str:
    """Multi-scale ReLU attention with its projection and residual.

    Raw and aggregated q|k|v give 2h heads.  With more positions than `dim` the attention is linear, otherwise
    quadratic.
    """
    shape = net.tensor(source)
    h, w, channels = shape.h, shape.w, shape.channels
    heads = 2 * channels // dim
    qkv = net.conv(f"{name}.qkv", "pw", source, 3 * channels)
    x = net.conv(f"{name}.aggr.dw5", "dw", qkv, 3 * channels, kernel=AGGREGATION_KERNEL, groups=3 * channels)
    x = net.conv(f"{name}.aggr.pwg", "gconv", x, 3 * channels, groups=3 * channels // dim)
    concat = net.view(f"{name}.concat", (qkv, x), h, w, 6 * channels)
    positive = net.vector(
        f"{name}.relu", "relu", (concat,), recipes.relu(heads, h, w, 2 * dim),
        Tensor(f"{name}.relu", h, w, heads * 2 * dim),
    )  # fmt: skip
    attend = _linear_attention if h * w > dim else _quadratic_attention
    x = attend(net, name, positive, concat, heads, dim)
    x = net.conv(f"{name}.attn_proj", "pw", x, channels, norm=True)
    return residual(net, f"{name}.attn_add", x, source)


def _linear_attention(net: WorkloadBuilder, name: str, positive: str, concat: str, heads: int, dim: int) -> str:
    """Kᵀ[V|1], then Q times that, then the division by the last column; the ones column is not stored."""
    shape = net.tensor(positive)
    ktv = net.matmul(
        f"{name}.KtV", "ktv", positive, concat,
        Loop(heads, rows_h=dim, rows_w=1, cols=dim + 1, depth=shape.h * shape.w, right_implicit_cols=1),
    )  # fmt: skip
    qkv = net.matmul(
        f"{name}.QKV", "q_ktv", positive, ktv,
        Loop(heads, rows_h=shape.h, rows_w=shape.w, cols=dim + 1, depth=dim),
    )  # fmt: skip
    return net.vector(
        f"{name}.division", "division", (qkv,), recipes.division(heads, shape.h, shape.w, dim),
        Tensor(f"{name}.division", shape.h, shape.w, heads * dim),
    )  # fmt: skip


def _quadratic_attention(net: WorkloadBuilder, name: str, positive: str, concat: str, heads: int, dim: int) -> str:
    """QKᵀ, rows divided by their sums, times V: fewer operations than the linear form when there are few positions."""
    shape = net.tensor(positive)
    tokens = shape.h * shape.w
    scores = net.matmul(
        f"{name}.scores", "attn_scores", positive, positive,
        Loop(heads, rows_h=shape.h, rows_w=shape.w, cols=tokens, depth=dim),
    )  # fmt: skip
    shares = net.vector(
        f"{name}.normalize", "normalize", (scores,), recipes.attention_normalize(heads, shape.h, shape.w, tokens),
        Tensor(f"{name}.normalize", shape.h, shape.w, heads * tokens),
    )  # fmt: skip
    return net.matmul(
        f"{name}.values", "attn_values", shares, concat,
        Loop(heads, rows_h=shape.h, rows_w=shape.w, cols=dim, depth=tokens),
    )  # fmt: skip


def _head(net: WorkloadBuilder, source: str, widths: tuple[int, int], activation: str) -> str:
    """Pointwise convolution, average, linear layer with LayerNorm and activation, classifier."""
    x = net.conv("head.conv", "head_conv", source, widths[0], norm=True, activation=activation)
    shape = net.tensor(x)
    pool = recipes.average_pool(widths[0], shape.h * shape.w)
    x = net.vector("head.pool", "pool", (x,), pool, Tensor("head.pool", 1, 1, widths[0]))
    x = net.conv("head.fc1", "fc", x, widths[1])
    norm = recipes.layernorm(1, widths[1], table_after=activation)
    x = net.vector("head.norm", "layernorm", (x,), norm, Tensor("head.norm", 1, 1, widths[1]), 2 * widths[1])
    return net.conv("head.fc2", "fc", x, CLASSES, bias=True)


for _name in VARIANTS:
    register(_name, 224, multiple=32)(partial(build_efficientvit, _name))
for _name in LARGE_VARIANTS:
    register(_name, 224, multiple=32)(partial(build_efficientvit_large, _name))
