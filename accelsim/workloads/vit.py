"""Plain vision transformers (DeiT-T/S/B, ViT-S/B/L, patch 16), counted as timm@aa4b585 builds them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from accelsim.ir import Loop, Tensor, Workload
from accelsim.workloads import recipes
from accelsim.workloads.builder import WorkloadBuilder
from accelsim.workloads.registry import register

PATCH = 16
MLP_RATIO = 4
CLASSES = 1000
SOURCE = "huggingface/pytorch-image-models@aa4b585 timm/models/vision_transformer.py"


@dataclass(frozen=True)
class Variant:
    """Channels, blocks and heads; side of a patch in pixels, classes, channels of the image."""

    dim: int
    depth: int
    heads: int
    patch: int = PATCH
    classes: int = CLASSES
    in_channels: int = 3


VARIANTS: dict[str, Variant] = {
    "deit_tiny": Variant(192, 12, 3),
    "deit_small": Variant(384, 12, 6),
    "deit_base": Variant(768, 12, 12),
    "vit_small": Variant(384, 12, 6),
    "vit_base": Variant(768, 12, 12),
    "vit_large": Variant(1024, 24, 16),
}


def build_vit(name: str, resolution: int) -> Workload:
    """The network `name` (a key of `VARIANTS`) at a resolution in pixels, a multiple of the patch size 16."""
    return build_variant(name, VARIANTS[name], resolution)


def build_variant(name: str, variant: Variant, resolution: int) -> Workload:
    """A network of any channels, blocks and heads at a resolution in pixels, a multiple of the patch size.

    The classifier reads the class token only, so the final LayerNorm runs on that one row.
    """
    net = WorkloadBuilder(name, resolution, variant.in_channels)
    patches = net.conv("patch_embed", "patch_embed", net.input, variant.dim, kernel=variant.patch,
                       stride=variant.patch, padding=0, bias=True)  # fmt: skip
    tokens = net.tensor(patches).h * net.tensor(patches).w + 1
    # The class token is a learned row put before the patches; it enters with the position embedding.
    x = net.vector(
        "embed", "embed", (patches,), recipes.elementwise_add(1, tokens, 1, variant.dim),
        Tensor("embed", tokens, 1, variant.dim), params_extra=(tokens + 1) * variant.dim,
    )  # fmt: skip
    for k in range(variant.depth):
        x = _attention(net, f"b{k}", x, variant.heads)
        x = _mlp(net, f"b{k}", x)
    token = net.view("class_token", (x,), 1, 1, variant.dim)
    output = net.conv("head", "fc", _norm(net, "norm", token), variant.classes, bias=True)
    return net.build(output, (("family", "vit"), ("source", SOURCE)))


def _norm(net: WorkloadBuilder, name: str, source: str) -> str:
    shape = net.tensor(source)
    output = Tensor(name, shape.h, 1, shape.channels)
    return net.vector(
        name, "layernorm", (source,), recipes.layernorm(shape.h, shape.channels), output, 2 * shape.channels
    )


def _residual(net: WorkloadBuilder, name: str, branch: str, skip: str) -> str:
    shape = net.tensor(skip)
    recipe = recipes.residual_add(1, shape.h, 1, shape.channels)
    return net.vector(name, "add", (branch, skip), recipe, Tensor(name, shape.h, 1, shape.channels))


def _attention(net: WorkloadBuilder, name: str, source: str, heads: int) -> str:
    tokens, dim = net.tensor(source).h, net.tensor(source).channels
    head_dim = dim // heads
    qkv = net.conv(f"{name}.qkv", "qkv", _norm(net, f"{name}.norm1", source), 3 * dim, bias=True)
    scores = net.matmul(
        f"{name}.scores", "attn_scores", qkv, qkv, Loop(heads, rows_h=tokens, rows_w=1, cols=tokens, depth=head_dim)
    )
    shares = net.vector(
        f"{name}.softmax", "softmax", (scores,), recipes.softmax(heads, tokens, 1, tokens),
        Tensor(f"{name}.softmax", tokens, 1, heads * tokens),
    )  # fmt: skip
    values = net.matmul(
        f"{name}.values", "attn_values", shares, qkv, Loop(heads, rows_h=tokens, rows_w=1, cols=head_dim, depth=tokens)
    )
    proj = net.conv(f"{name}.proj", "proj", values, dim, bias=True)
    return _residual(net, f"{name}.attn_add", proj, source)


def _mlp(net: WorkloadBuilder, name: str, source: str) -> str:
    dim = net.tensor(source).channels
    x = _norm(net, f"{name}.norm2", source)
    x = net.conv(f"{name}.fc1", "mlp", x, MLP_RATIO * dim, bias=True, activation="gelu")
    x = net.conv(f"{name}.fc2", "mlp", x, dim, bias=True)
    return _residual(net, f"{name}.mlp_add", x, source)


for _name in VARIANTS:
    register(_name, 224, multiple=PATCH)(partial(build_vit, _name))
