"""The matrix products that the peers were given: one GEMM, and the 194 of DeiT-S at 224."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from accelsim.ir import Loop, Tensor, Workload
from accelsim.mapping import ChainMapping, Mapping, Part
from accelsim.workloads import build_workload, recipes
from accelsim.workloads.builder import WorkloadBuilder


@dataclass(frozen=True)
class Gemm:
    """`positions` × `depth` by `depth` × `channels`: M, K and N."""

    positions: int
    depth: int
    channels: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.positions * self.depth * self.channels


GEMM = Gemm(196, 384, 1152)


def deit_small_gemms() -> dict[Gemm, int]:
    """How often every distinct GEMM occurs in the built-in DeiT-S; each attention head has two of its own."""
    found: Counter[Gemm] = Counter()
    for op in build_workload("deit_small").ops:
        if op.loop is not None:
            found[Gemm(op.loop.rows, op.loop.reduction, op.loop.cols)] += op.loop.groups
    return dict(found)


def one_gemm(gemm: Gemm) -> Workload:
    """A GEMM as a network: a 1 × 1 convolution over token rows, its second operand the weights."""
    net = WorkloadBuilder(f"gemm_{gemm.positions}_{gemm.depth}_{gemm.channels}", 1, gemm.positions * gemm.depth)
    rows = net.view("rows", (net.input,), gemm.positions, 1, gemm.depth)
    return net.build(net.conv("gemm", "proj", rows, gemm.channels))


def one_tile(gemm: Gemm) -> Mapping:
    """The mapping of `one_gemm` that cuts nothing."""
    parts = ((Part("array", 0, gemm.channels),),)
    return Mapping((ChainMapping(("gemm",), "rows", gemm.positions, parts),), ())


def gemm_network() -> Workload:
    """DeiT-S without its vector ops, as one network of 74 ops: each GEMM reads what the one before it made.

    Patches are rows of 768 pixels.  The embedding stays: it adds the class token, which makes 197 rows of 196.
    """
    dim, heads, tokens = 384, 6, 197
    net = WorkloadBuilder("deit_small_gemms", 224)
    pixels = net.view("pixels", (net.input,), tokens - 1, 1, 16 * 16 * 3)
    patches = net.conv("patch_embed", "patch_embed", pixels, dim, bias=True)
    x = net.vector("embed", "embed", (patches,), recipes.elementwise_add(1, tokens, 1, dim),
                   Tensor("embed", tokens, 1, dim), params_extra=(tokens + 1) * dim)  # fmt: skip
    for k in range(12):
        qkv = net.conv(f"b{k}.qkv", "qkv", x, 3 * dim, bias=True)
        scores = Loop(heads, rows_h=tokens, rows_w=1, cols=tokens, depth=dim // heads)
        x = net.matmul(f"b{k}.scores", "attn_scores", qkv, qkv, scores)
        values = Loop(heads, rows_h=tokens, rows_w=1, cols=dim // heads, depth=tokens)
        x = net.matmul(f"b{k}.values", "attn_values", x, qkv, values)
        for name, op_class, channels in (("proj", "proj", dim), ("fc1", "mlp", 4 * dim), ("fc2", "mlp", dim)):
            x = net.conv(f"b{k}.{name}", op_class, x, channels, bias=True)
    token = net.view("class_token", (x,), 1, 1, dim)
    return net.build(net.conv("head", "fc", token, 1000, bias=True))
