"""MobileViT-S in torch, one module per op of `accelsim.workloads.mobilevit`."""

from __future__ import annotations

from torch import Tensor, nn

from accelsim.workloads.mobilevit import (
    ACTIVATION,
    EXPAND,
    FEATURES,
    GLOBAL_STAGES,
    HEADS,
    LOCAL_STAGES,
    MLP_RATIO,
    PATCH,
    STEM,
)
from quant.models.blocks import Add, Concat, Conv, LayerNorm, Linear, OpModule, Pool
from quant.models.hybrid import MbConv
from quant.models.tokens import TokenBlock

PLACES = PATCH * PATCH


class Unfold(OpModule):
    """Positions at the same place of their 2 × 2 patches in one row (a view in the workload)."""

    def forward(self, value: Tensor) -> Tensor:
        """[batch, c, h, w] → [batch · places, patches, c]."""
        _, width, height, across = value.shape
        parts = value.reshape(-1, width, height // PATCH, PATCH, across // PATCH, PATCH)
        return parts.permute(0, 3, 5, 2, 4, 1).reshape(-1, height * across // PLACES, width)


class Fold(OpModule):
    """The inverse of `Unfold` for a square image (a view in the workload)."""

    def forward(self, rows: Tensor) -> Tensor:
        """[batch · places, patches, c] → [batch, c, h, h]."""
        _, patches, width = rows.shape
        side = round(patches**0.5)
        parts = rows.reshape(-1, PATCH, PATCH, side, side, width).permute(0, 5, 3, 1, 4, 2)
        return parts.reshape(-1, width, side * PATCH, side * PATCH)


class PlaceTokens(OpModule):
    """Heads side by side again (a view in the workload)."""

    def forward(self, value: Tensor) -> Tensor:
        """[batch · places, heads, patches, d] → [batch · places, patches, heads · d]."""
        return value.transpose(1, 2).flatten(2)


class Transformer(TokenBlock):
    """Attention between positions at the same place of their patches, then an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.qkv = Linear(width, 3 * width)
        self.add_attention(width // HEADS)
        self.tokens = PlaceTokens()
        self.proj = Linear(width, width)
        self.attn_add = Add()
        self.add_mlp(width, MLP_RATIO, ACTIVATION)

    def forward(self, rows: Tensor) -> Tensor:
        """[batch · places, patches, width] → the same."""
        qkv = self.qkv(self.norm1(rows)).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = self.tokens(self.attend(qkv[0], qkv[1], qkv[2]))
        return self.mlp(self.attn_add(self.proj(mixed), rows))


class GlobalStage(nn.Module):
    """An inverted residual of stride 2, then convolutions around a transformer over the patches."""

    def __init__(self, given: int, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.down = _inverted_residual(given, channels, 2)
        self.local = Conv(channels, channels, 3, norm=True, activation=ACTIVATION)
        self.widen = Conv(channels, width)
        self.unfold = Unfold()
        self.depth = depth
        for k in range(depth):
            self.add_module(f"t{k}", Transformer(width))
        self.norm = LayerNorm(width)
        self.fold = Fold()
        self.narrow = Conv(width, channels, norm=True, activation=ACTIVATION)
        self.concat = Concat()
        self.fusion = Conv(2 * channels, channels, 3, norm=True, activation=ACTIVATION)

    def forward(self, value: Tensor) -> Tensor:
        """[batch, given, h, h] → [batch, channels, h / 2, h / 2]."""
        value = self.down(value)
        rows = self.unfold(self.widen(self.local(value)))
        for k in range(self.depth):
            rows = self.get_submodule(f"t{k}")(rows)
        narrow = self.narrow(self.fold(self.norm(rows)))
        result: Tensor = self.fusion(self.concat(value, narrow))
        return result


def _inverted_residual(given: int, channels: int, stride: int) -> MbConv:
    return MbConv(given, channels, stride=stride, norm=True, expand=EXPAND, activation=ACTIVATION)


class MobileVit(nn.Module):
    """Convolution, stages "s1" … "s5", convolution, mean, classifier."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = Conv(3, STEM, 3, stride=2, norm=True, activation=ACTIVATION)
        given = STEM
        for stage, (channels, depth, stride) in enumerate(LOCAL_STAGES, 1):
            blocks = nn.Sequential()
            for k in range(depth):
                blocks.add_module(f"b{k}", _inverted_residual(given, channels, 1 if k else stride))
                given = channels
            self.add_module(f"s{stage}", blocks)
        for stage, (channels, width, depth) in enumerate(GLOBAL_STAGES, len(LOCAL_STAGES) + 1):
            self.add_module(f"s{stage}", GlobalStage(given, channels, width, depth))
            given = channels
        self.final_conv = Conv(given, FEATURES, norm=True, activation=ACTIVATION)
        self.pool = Pool()
        self.head = Linear(FEATURES, classes)

    def forward(self, image: Tensor) -> Tensor:
        """[batch, 3, h, h] → logits [batch, classes]."""
        value = self.stem(image)
        for stage in range(1, len(LOCAL_STAGES) + len(GLOBAL_STAGES) + 1):
            value = self.get_submodule(f"s{stage}")(value)
        result: Tensor = self.head(self.pool(self.final_conv(value)))
        return result
