"""EfficientFormer-L1 in torch, one module per op of `accelsim.workloads.efficientformer`."""

from __future__ import annotations

from torch import Tensor, nn

from accelsim.workloads.efficientformer import (
    ACTIVATION,
    ATTENTION_BLOCKS,
    DEPTHS,
    HEADS,
    KEY_DIM,
    MLP_RATIO,
    VALUE_DIM,
    WIDTHS,
)
from quant.models.blocks import (
    Average,
    Conv,
    LayerNorm,
    Linear,
    PoolMixer,
    RelativeBias,
    ScaledAdd,
    TokenPool,
    Tokens,
)
from quant.models.tokens import TokenBlock, grid, offset_index

# Pixels per position of the last stage.
STRIDE = 32


class PoolBlock(nn.Module):
    """Pooling mixer, then a pointwise MLP with BatchNorm, scaled and added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mixer = PoolMixer(width)
        self.fc1 = Conv(width, MLP_RATIO * width, bias=True, norm=True, activation=ACTIVATION)
        self.fc2 = Conv(MLP_RATIO * width, width, bias=True, norm=True)
        self.mlp_add = ScaledAdd(width)

    def forward(self, value: Tensor) -> Tensor:
        """[batch, width, h, w] → the same."""
        mixed = self.mixer(value)
        result: Tensor = self.mlp_add(self.fc2(self.fc1(mixed)), mixed)
        return result


class AttentionBlock(TokenBlock):
    """Attention with relative biases and an MLP, both behind a LayerNorm and with a scaled residual."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.qkv = Linear(width, HEADS * (2 * KEY_DIM + VALUE_DIM))
        positions = grid(side, side)
        self.add_attention(KEY_DIM, RelativeBias(HEADS, offset_index(positions, positions)))
        self.proj = Linear(HEADS * VALUE_DIM, width)
        self.attn_add = ScaledAdd(width, rows=True)
        self.add_mlp(width, MLP_RATIO, ACTIVATION, layer_scale=True)

    def forward(self, rows: Tensor) -> Tensor:
        """[batch, tokens, width] → the same."""
        qkv = self.qkv(self.norm1(rows)).unflatten(2, (HEADS, -1)).transpose(1, 2)
        mixed = self.attend(*qkv.split((KEY_DIM, KEY_DIM, VALUE_DIM), dim=-1))
        return self.mlp(self.attn_add(self.proj(mixed.transpose(1, 2).flatten(2)), rows))


class EfficientFormer(nn.Module):
    """Two convolutions, four stages "s0" … "s3" (the last ends with attention over tokens), two classifiers."""

    def __init__(self, resolution: int, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential()
        half = WIDTHS[0] // 2
        self.stem.add_module("conv1", Conv(3, half, 3, stride=2, bias=True, norm=True, activation="relu"))
        self.stem.add_module("conv2", Conv(half, WIDTHS[0], 3, stride=2, bias=True, norm=True, activation="relu"))
        for stage, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
            blocks = nn.Sequential()
            if stage:
                blocks.add_module("down", Conv(WIDTHS[stage - 1], width, 3, stride=2, bias=True, norm=True))
            attending = ATTENTION_BLOCKS if stage == len(WIDTHS) - 1 else 0
            for k in range(depth):
                attends = k >= depth - attending
                blocks.add_module(f"b{k}", AttentionBlock(width, resolution // STRIDE) if attends else PoolBlock(width))
            self.add_module(f"s{stage}", blocks)
        self.tokens = Tokens()
        self.norm = LayerNorm(WIDTHS[-1])
        self.pool = TokenPool()
        self.head = Linear(WIDTHS[-1], classes)
        self.head_dist = Linear(WIDTHS[-1], classes)
        self.head_mean = Average()

    def forward(self, image: Tensor) -> Tensor:
        """[batch, 3, h, w] → logits [batch, classes]."""
        value = self.stem(image)
        for stage in range(len(WIDTHS)):
            for block in self.get_submodule(f"s{stage}").children():
                if isinstance(block, AttentionBlock) and value.dim() == 4:
                    value = self.tokens(value)
                value = block(value)
        pooled = self.pool(self.norm(value))
        result: Tensor = self.head_mean(self.head(pooled), self.head_dist(pooled))
        return result
