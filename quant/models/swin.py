"""Swin-T and Swin-S in torch, one module per op of `accelsim.workloads.swin`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from accelsim.workloads.swin import ACTIVATION, HEADS, MLP_RATIO, PATCH, VARIANTS, WIDTH, WINDOW
from quant.models.blocks import Add, Conv, LayerNorm, Linear, OpModule, RelativeBias, TokenPool, Tokens
from quant.models.tokens import TokenBlock, grid

# Added to the scores of positions that only the shift brought into one window.
MASKED = -100.0


def windows(value: Tensor) -> Tensor:
    """[n, h, w, ..] → [n · windows, window · window, ..]."""
    _, height, width, *rest = value.shape
    down, across = height // WINDOW, width // WINDOW
    return value.reshape(-1, down, WINDOW, across, WINDOW, *rest).transpose(2, 3).reshape(-1, WINDOW**2, *rest)


class WindowTokens(OpModule):
    """Windows of all heads back to rows of tokens, the shift undone (a view in the workload)."""

    def __init__(self, side: int, shift: int) -> None:
        super().__init__()
        self.side, self.shift = side, shift

    def forward(self, value: Tensor) -> Tensor:
        """[batch · windows, heads, window · window, d] → [batch, side · side, heads · d]."""
        rows = value.transpose(1, 2).flatten(2)
        count, width = self.side // WINDOW, rows.shape[-1]
        image = rows.reshape(-1, count, count, WINDOW, WINDOW, width).transpose(2, 3)
        image = image.reshape(-1, self.side, self.side, width)
        if self.shift:
            image = image.roll((self.shift, self.shift), dims=(1, 2))
        return image.flatten(1, 2)


class Gather(OpModule):
    """2 × 2 positions become one of four times the channels (a view in the workload)."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, rows: Tensor) -> Tensor:
        """[batch, side · side, c] → [batch, side · side / 4, 4 · c]; channels by column, then row of the four."""
        half, width = self.side // 2, rows.shape[-1]
        parts = rows.reshape(-1, half, 2, half, 2, width).permute(0, 1, 3, 4, 2, 5)
        return parts.reshape(-1, half * half, 4 * width)


class Merge(nn.Module):
    """Gather, LayerNorm, half the channels."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.gather = Gather(side)
        self.norm = LayerNorm(4 * width)
        self.reduction = Linear(4 * width, 2 * width, bias=False)

    def forward(self, rows: Tensor) -> Tensor:
        """[batch, side · side, width] → [batch, side · side / 4, 2 · width]."""
        result: Tensor = self.reduction(self.norm(self.gather(rows)))
        return result


class Block(TokenBlock):
    """Attention in windows of 7 × 7, shifted by half a window in every second block, then an MLP."""

    def __init__(self, width: int, heads: int, side: int, shift: int) -> None:
        super().__init__()
        self.heads, self.side, self.shift = heads, side, shift
        mask = shift_mask(side, shift) if shift else None
        self.add_attention(width // heads, RelativeBias(heads, window_index(), mask))
        self.add_mlp(width, MLP_RATIO, ACTIVATION)
        self.norm1 = LayerNorm(width)
        self.qkv = Linear(width, 3 * width)
        self.tokens = WindowTokens(side, shift)
        self.proj = Linear(width, width)
        self.attn_add = Add()

    def forward(self, rows: Tensor) -> Tensor:
        """[batch, side · side, width] → the same."""
        image = self.norm1(rows).unflatten(1, (self.side, self.side))
        if self.shift:
            image = image.roll((-self.shift, -self.shift), dims=(1, 2))
        qkv = self.qkv(windows(image)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = self.tokens(self.attend(qkv[0], qkv[1], qkv[2]))
        return self.mlp(self.attn_add(self.proj(mixed), rows))


def window_index() -> Tensor:
    """[window · window, window · window]: number of the bias for every pair (rows apart, columns apart; both signs)."""
    positions = grid(WINDOW, WINDOW)
    apart = positions[:, None] - positions[None] + WINDOW - 1
    return apart[..., 0] * (2 * WINDOW - 1) + apart[..., 1]


def shift_mask(side: int, shift: int) -> Tensor:
    """[windows, window · window, window · window]: 0 for pairs that are neighbours in the image, else `MASKED`."""
    line = torch.zeros(side, dtype=torch.long)
    line[-WINDOW:-shift], line[-shift:] = 1, 2
    region = windows((3 * line[:, None] + line[None])[None])
    return (region[:, :, None] != region[:, None]).float() * MASKED


class Swin(nn.Module):
    """Patches, four stages "s0" … "s3" of blocks, LayerNorm, mean over the tokens, classifier."""

    def __init__(self, depths: tuple[int, ...], resolution: int, classes: int = 1000) -> None:
        super().__init__()
        side = resolution // PATCH
        self.patch_embed = Conv(3, WIDTH, PATCH, stride=PATCH, padding=0, bias=True)
        self.tokens = Tokens()
        self.patch_norm = LayerNorm(WIDTH)
        for stage, depth in enumerate(depths):
            width = WIDTH << stage
            blocks = nn.Sequential()
            if stage:
                blocks.add_module("merge", Merge(width // 2, side))
                side //= 2
            for k in range(depth):
                shift = WINDOW // 2 if k % 2 and side > WINDOW else 0
                blocks.add_module(f"b{k}", Block(width, HEADS[stage], side, shift))
            self.add_module(f"s{stage}", blocks)
        self.stages = len(depths)
        self.norm = LayerNorm(WIDTH << (len(depths) - 1))
        self.pool = TokenPool()
        self.head = Linear(WIDTH << (len(depths) - 1), classes)

    def forward(self, image: Tensor) -> Tensor:
        """[batch, 3, h, w] → logits [batch, classes]."""
        rows = self.patch_norm(self.tokens(self.patch_embed(image)))
        for stage in range(self.stages):
            rows = self.get_submodule(f"s{stage}")(rows)
        result: Tensor = self.head(self.pool(self.norm(rows)))
        return result


def swin(name: str, resolution: int) -> Swin:
    """The network `name` (a key of the builder's `VARIANTS`) with random weights."""
    return Swin(VARIANTS[name], resolution)
