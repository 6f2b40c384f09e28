"""Plain vision transformers (DeiT, ViT, the small reference) in torch, one module per op of the torch-free builder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from accelsim.workloads.vit import MLP_RATIO, Variant
from quant.models.blocks import Add, ClassToken, Conv, Embed, LayerNorm, Linear, MatMul, Softmax

# As released for DeiT and ViT.
NORM_EPS = 1e-6


class Block(nn.Module):
    """Attention and MLP, each behind a LayerNorm and with a residual."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = LayerNorm(dim, NORM_EPS)
        self.qkv = Linear(dim, 3 * dim)
        self.scores = MatMul((dim // heads) ** -0.5)
        self.softmax = Softmax()
        self.values = MatMul()
        self.proj = Linear(dim, dim)
        self.attn_add = Add()
        self.norm2 = LayerNorm(dim, NORM_EPS)
        self.fc1 = Linear(dim, MLP_RATIO * dim, activation="gelu")
        self.fc2 = Linear(MLP_RATIO * dim, dim)
        self.mlp_add = Add()

    def forward(self, rows: Tensor) -> Tensor:
        """[batch, tokens, dim] → the same."""
        batch, tokens, dim = rows.shape
        # Channels of q|k|v: 3 × heads × dim / heads.
        parts = self.qkv(self.norm1(rows)).reshape(batch, tokens, 3, self.heads, dim // self.heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4).unbind(0)
        shares = self.softmax(self.scores(queries, keys.transpose(-1, -2)))
        mixed = self.values(shares, values).transpose(1, 2).reshape(batch, tokens, dim)
        rows = self.attn_add(self.proj(mixed), rows)
        result: Tensor = self.mlp_add(self.fc2(self.fc1(self.norm2(rows))), rows)
        return result


class VisionTransformer(nn.Module):
    """Patches, class token and position embedding, blocks "b0", "b1" …, LayerNorm and classifier of the class token."""

    def __init__(self, variant: Variant, resolution: int) -> None:
        super().__init__()
        self.depth = variant.depth
        tokens = (resolution // variant.patch) ** 2
        self.patch_embed = Conv(
            variant.in_channels, variant.dim, variant.patch, stride=variant.patch, padding=0, bias=True
        )
        self.embed = Embed(tokens, variant.dim)
        for k in range(variant.depth):
            self.add_module(f"b{k}", Block(variant.dim, variant.heads))
        self.class_token = ClassToken()
        self.norm = LayerNorm(variant.dim, NORM_EPS)
        self.head = Linear(variant.dim, variant.classes)
        self.apply(_initialize)
        nn.init.trunc_normal_(self.embed.cls_token, std=0.02)
        with torch.no_grad():
            self.embed.pos_embed[0, 1:] = _waves(resolution // variant.patch, variant.dim)

    def forward(self, image: Tensor) -> Tensor:
        """[batch, channels, h, w] → logits [batch, classes]."""
        rows = self.embed(self.patch_embed(image))
        for k in range(self.depth):
            rows = self.get_submodule(f"b{k}")(rows)
        result: Tensor = self.head(self.norm(self.class_token(rows)))
        return result


def _initialize(module: nn.Module) -> None:
    """Linear layers start with Xavier's uniform weights and biases of 0: small networks learn sooner so."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


def _waves(side: int, dim: int) -> Tensor:
    """Where the learned position embedding starts: sines and cosines of row and column, [side², dim].

    Frequencies fall from 1 to 1/100 per patch (the two-dimensional form of Vaswani et al. 2017, section 3.5).
    """
    quarter = dim // 4
    rates = 100.0 ** (-torch.arange(quarter, dtype=torch.float32) / max(quarter, 1))
    angles = torch.arange(side, dtype=torch.float32)[:, None] * rates
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = waves[:, None].expand(side, side, 2 * quarter)
    columns = waves[None].expand(side, side, 2 * quarter)
    result = torch.zeros(side * side, dim)
    result[:, : 4 * quarter] = torch.cat([rows, columns], dim=2).reshape(side * side, 4 * quarter)
    return result
