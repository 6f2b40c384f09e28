"""LeViT-128 in torch, one module per op of `accelsim.workloads.levit`."""

from __future__ import annotations

from torch import Tensor, nn

from accelsim.workloads.levit import (
    ACTIVATION,
    DEPTH,
    DOWN_VALUE_DIM,
    HEADS,
    KEY_DIM,
    MLP_RATIO,
    STRIDE,
    VALUE_DIM,
    WIDTHS,
)
from quant.models.blocks import Add, Average, Conv, Linear, OpModule, RelativeBias, TokenPool, Tokens
from quant.models.tokens import TokenBlock, grid, offset_index


class Subsample(OpModule):
    """Every second row and column of the positions (a view in the workload)."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, rows: Tensor) -> Tensor:
        """[batch, side · side, c] → [batch, positions / 4 (rounded up per axis), c]."""
        image = rows.reshape(-1, self.side, self.side, rows.shape[-1])
        return image[:, ::2, ::2].flatten(1, 2)


class LevitBlock(TokenBlock):
    """What both kinds of block share: linear layers with BatchNorm, an MLP without LayerNorm."""

    def add_levit_mlp(self, width: int) -> None:
        """Ops fc1, fc2 and mlp_add."""
        self.fc1 = Linear(width, MLP_RATIO * width, bias=False, norm=True, activation=ACTIVATION)
        self.fc2 = Linear(MLP_RATIO * width, width, bias=False, norm=True)
        self.mlp_add = Add()

    def mlp(self, rows: Tensor) -> Tensor:
        """[batch, tokens, width] → the same."""
        result: Tensor = self.mlp_add(self.fc2(self.fc1(rows)), rows)
        return result


class Block(LevitBlock):
    """Attention of all positions to all, projection, residual; then the MLP."""

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, heads * (2 * KEY_DIM + VALUE_DIM), bias=False, norm=True)
        positions = grid(side, side)
        self.add_attention(KEY_DIM, RelativeBias(heads, offset_index(positions, positions)), ACTIVATION)
        self.proj = Linear(heads * VALUE_DIM, width, bias=False, norm=True)
        self.attn_add = Add()
        self.add_levit_mlp(width)

    def forward(self, rows: Tensor) -> Tensor:
        """[batch, tokens, width] → the same."""
        qkv = self.qkv(rows).unflatten(2, (self.heads, -1)).transpose(1, 2)
        mixed = self.attend(*qkv.split((KEY_DIM, KEY_DIM, VALUE_DIM), dim=-1))
        return self.mlp(self.attn_add(self.proj(mixed.transpose(1, 2).flatten(2)), rows))


class Down(LevitBlock):
    """Attention whose queries are every second row and column, without a residual; then the MLP."""

    def __init__(self, given: int, width: int, side: int) -> None:
        super().__init__()
        self.heads = given // KEY_DIM
        self.kv = Linear(given, self.heads * (KEY_DIM + DOWN_VALUE_DIM), bias=False, norm=True)
        self.subsample = Subsample(side)
        self.q = Linear(given, self.heads * KEY_DIM, bias=False, norm=True)
        index = offset_index(grid(side, side, 2), grid(side, side))
        self.add_attention(KEY_DIM, RelativeBias(self.heads, index), ACTIVATION)
        self.proj = Linear(self.heads * DOWN_VALUE_DIM, width, bias=False, norm=True)
        self.add_levit_mlp(width)

    def forward(self, rows: Tensor) -> Tensor:
        """[batch, side · side, given] → [batch, positions / 4 (rounded up per axis), width]."""
        kv = self.kv(rows).unflatten(2, (self.heads, -1)).transpose(1, 2)
        queries = self.q(self.subsample(rows)).unflatten(2, (self.heads, -1)).transpose(1, 2)
        mixed = self.attend(queries, *kv.split((KEY_DIM, DOWN_VALUE_DIM), dim=-1))
        return self.mlp(self.proj(mixed.transpose(1, 2).flatten(2)))


class Levit(nn.Module):
    """Four convolutions, three stages "s0" … "s2" of blocks, mean over the tokens, two classifiers."""

    def __init__(self, resolution: int, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential()
        given = 3
        for k, divisor in enumerate((8, 4, 2, 1), 1):
            width = WIDTHS[0] // divisor
            activation = ACTIVATION if divisor > 1 else ""
            self.stem.add_module(f"conv{k}", Conv(given, width, 3, stride=2, norm=True, activation=activation))
            given = width
        self.tokens = Tokens()
        side = resolution // STRIDE
        for stage, (width, heads) in enumerate(zip(WIDTHS, HEADS, strict=True)):
            blocks = nn.Sequential()
            if stage:
                blocks.add_module("down", Down(given, width, side))
                side = (side - 1) // 2 + 1
            for k in range(DEPTH):
                blocks.add_module(f"b{k}", Block(width, heads, side))
            self.add_module(f"s{stage}", blocks)
            given = width
        self.pool = TokenPool()
        self.head = Linear(given, classes, input_norm=True)
        self.head_dist = Linear(given, classes, input_norm=True)
        self.head_mean = Average()

    def forward(self, image: Tensor) -> Tensor:
        """[batch, 3, h, w] → logits [batch, classes]."""
        rows = self.tokens(self.stem(image))
        for stage in range(len(WIDTHS)):
            rows = self.get_submodule(f"s{stage}")(rows)
        pooled = self.pool(rows)
        result: Tensor = self.head_mean(self.head(pooled), self.head_dist(pooled))
        return result
