"""EfficientViT (B0-B3, L1, L2) and the small reference hybrids in torch, one module per op of the torch-free builders.

Structure as in mit-han-lab/efficientvit@de7d773; op names as in `accelsim.workloads.efficientvit`.
"""

from __future__ import annotations

from torch import Tensor, nn

from accelsim.workloads.efficientvit import (
    ACTIVATION,
    AGGREGATION_KERNEL,
    EXPAND,
    LARGE_EXPAND,
    LARGE_EXPAND_FIRST,
    Variant,
)
from accelsim.workloads.reference_models import CLASSES, IN_CHANNELS, HybridVariant
from quant.models.blocks import (
    Activation,
    Add,
    Concat,
    Conv,
    DivideByLast,
    LayerNorm,
    Linear,
    MatMul,
    NormalizeRows,
    OnesMatMul,
    Pool,
)

# Epsilon of the attention's divisor as released.
ATTENTION_EPS = 1e-15
# The released L series approximates GELU by tanh; for the hardware both are one table.
LARGE_ACTIVATION = "gelu_tanh"
# The released L series approximates gelu by tanh; for the hardware both are one table.
LARGE_FUNCTION = "gelu_tanh"


class DsConv(nn.Module):
    """Depthwise 3 × 3 and pointwise convolution with BatchNorm, and the residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dw = Conv(channels, channels, 3, groups=channels, norm=True, activation=ACTIVATION)
        self.pw = Conv(channels, channels, norm=True)
        self.add = Add()

    def forward(self, value: Tensor) -> Tensor:
        """[batch, channels, h, w] → the same."""
        result: Tensor = self.add(self.pw(self.dw(value)), value)
        return result


class ResBlock(nn.Module):
    """Two full 3 × 3 convolutions with BatchNorm, and the residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Conv(channels, channels, 3, norm=True, activation=LARGE_FUNCTION)
        self.conv2 = Conv(channels, channels, 3, norm=True)
        self.add = Add()

    def forward(self, value: Tensor) -> Tensor:
        """[batch, channels, h, w] → the same."""
        result: Tensor = self.add(self.conv2(self.conv1(value)), value)
        return result


class MbConv(nn.Module):
    """Expand, depthwise 3 × 3, project; a residual when the shape is kept.

    `norm`: BatchNorm everywhere; otherwise expand and depthwise have a bias instead.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int,
        norm: bool,
        expand: int = EXPAND,
        activation: str = ACTIVATION,
    ) -> None:
        super().__init__()
        middle = expand * inputs
        self.expand = Conv(inputs, middle, bias=not norm, norm=norm, activation=activation)
        self.dw = Conv(middle, middle, 3, stride=stride, groups=middle, bias=not norm, norm=norm, activation=activation)
        self.proj = Conv(middle, outputs, norm=True)
        self.add = Add() if stride == 1 and inputs == outputs else None

    def forward(self, value: Tensor) -> Tensor:
        """[batch, inputs, h, w] → [batch, outputs, h', w']."""
        result: Tensor = self.proj(self.dw(self.expand(value)))
        return result if self.add is None else self.add(result, value)


class FusedMbConv(nn.Module):
    """Full 3 × 3 expansion and pointwise projection with BatchNorm; a residual when the shape is kept."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, expand: int) -> None:
        super().__init__()
        self.spatial = Conv(inputs, expand * inputs, 3, stride=stride, norm=True, activation=LARGE_FUNCTION)
        self.proj = Conv(expand * inputs, outputs, norm=True)
        self.add = Add() if stride == 1 else None

    def forward(self, value: Tensor) -> Tensor:
        """[batch, inputs, h, w] → [batch, outputs, h', w']."""
        result: Tensor = self.proj(self.spatial(value))
        return result if self.add is None else self.add(result, value)


class Aggregation(nn.Module):
    """Depthwise 5 × 5 convolution of q|k|v and a pointwise one per head."""

    def __init__(self, channels: int, head_dim: int) -> None:
        super().__init__()
        self.dw5 = Conv(channels, channels, AGGREGATION_KERNEL, groups=channels)
        self.pwg = Conv(channels, channels, groups=channels // head_dim)

    def forward(self, value: Tensor) -> Tensor:
        """[batch, channels, h, w] → the same."""
        result: Tensor = self.pwg(self.dw5(value))
        return result


class AttentionBlock(nn.Module):
    """Multi-scale ReLU attention with projection and residual (LiteMLA), then an MBConv.

    Every head has 3 · head_dim neighbouring channels of the concatenation: q, k, v.
    """

    def __init__(self, channels: int, head_dim: int, mb: nn.Module) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.qkv = Conv(channels, 3 * channels)
        self.aggr = Aggregation(3 * channels, head_dim)
        self.concat = Concat()
        self.relu = Activation("relu")
        self.KtV = OnesMatMul()
        self.QKV = MatMul()
        self.division = DivideByLast(ATTENTION_EPS)
        self.scores = MatMul()
        self.normalize = NormalizeRows(ATTENTION_EPS)
        self.values = MatMul()
        self.attn_proj = Conv(2 * channels, channels, norm=True)
        self.attn_add = Add()
        self.mb = mb

    def forward(self, value: Tensor) -> Tensor:
        """[batch, channels, h, w] → the same; quadratic attention when there are at most head_dim positions."""
        batch, _, height, width = value.shape
        qkv = self.qkv(value)
        joined = self.concat(qkv, self.aggr(qkv)).reshape(batch, -1, 3 * self.head_dim, height * width)
        positive = self.relu(joined[:, :, : 2 * self.head_dim])
        queries, keys = positive[:, :, : self.head_dim], positive[:, :, self.head_dim :]
        values = joined[:, :, 2 * self.head_dim :]
        if height * width > self.head_dim:
            sums = self.QKV(queries.transpose(-1, -2), self.KtV(keys, values.transpose(-1, -2)))
            attended = self.division(sums.transpose(-1, -2))
        else:
            shares = self.normalize(self.scores(queries.transpose(-1, -2), keys))
            attended = self.values(shares, values.transpose(-1, -2)).transpose(-1, -2)
        branch = self.attn_proj(attended.reshape(batch, -1, height, width))
        result: Tensor = self.mb(self.attn_add(branch, value))
        return result


class Head(nn.Module):
    """Pointwise convolution, average, linear layer with LayerNorm and activation, classifier."""

    def __init__(self, inputs: int, widths: tuple[int, int], classes: int, activation: str) -> None:
        super().__init__()
        self.conv = Conv(inputs, widths[0], norm=True, activation=activation)
        self.pool = Pool()
        self.fc1 = Linear(widths[0], widths[1], bias=False)
        self.norm = LayerNorm(widths[1], activation=activation)
        self.fc2 = Linear(widths[1], classes)

    def forward(self, value: Tensor) -> Tensor:
        """[batch, inputs, h, w] → logits [batch, classes]."""
        result: Tensor = self.fc2(self.norm(self.fc1(self.pool(self.conv(value)))))
        return result


class SmallHead(nn.Module):
    """Pointwise convolution, average, classifier."""

    def __init__(self, inputs: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv = Conv(inputs, width, norm=True, activation=ACTIVATION)
        self.pool = Pool()
        self.fc = Linear(width, classes)

    def forward(self, value: Tensor) -> Tensor:
        """[batch, inputs, h, w] → logits [batch, classes]."""
        result: Tensor = self.fc(self.pool(self.conv(value)))
        return result


class Hybrid(nn.Module):
    """Stages in a row: "stem", "s1" … "s4", "head", each a sequence of named blocks."""

    def __init__(self, stages: dict[str, nn.Module]) -> None:
        super().__init__()
        for name, stage in stages.items():
            self.add_module(name, stage)

    def forward(self, image: Tensor) -> Tensor:
        """[batch, channels, h, w] → logits [batch, classes]."""
        value = image
        for stage in self.children():
            value = stage(value)
        return value


class Stage(nn.Sequential):
    """Blocks of a stage in a row, by name."""

    def __init__(self, **blocks: nn.Module) -> None:
        super().__init__()
        for name, block in blocks.items():
            self.add_module(name, block)


def efficientvit(variant: Variant, classes: int = 1000) -> Hybrid:
    """An EfficientViT of the B series with random weights."""
    widths, depths = variant.widths, variant.depths
    stem = {"conv": Conv(3, widths[0], 3, stride=2, norm=True, activation=ACTIVATION)}
    stages: dict[str, nn.Module] = {"stem": Stage(**stem, **{f"ds{k}": DsConv(widths[0]) for k in range(depths[0])})}
    for stage in (1, 2):
        given = [widths[stage - 1]] + [widths[stage]] * depths[stage]
        stages[f"s{stage}"] = Stage(
            **{
                f"mb{k}": MbConv(given[k], widths[stage], stride=2 if k == 0 else 1, norm=True)
                for k in range(depths[stage])
            }
        )
    for stage in (3, 4):
        blocks: dict[str, nn.Module] = {"down": MbConv(widths[stage - 1], widths[stage], stride=2, norm=False)}
        for k in range(depths[stage]):
            mb = MbConv(widths[stage], widths[stage], stride=1, norm=False)
            blocks[f"b{k}"] = AttentionBlock(widths[stage], variant.head_dim, mb)
        stages[f"s{stage}"] = Stage(**blocks)
    stages["head"] = Head(widths[4], variant.head_widths, classes, ACTIVATION)
    return Hybrid(stages)


def efficientvit_large(variant: Variant, classes: int = 1000) -> Hybrid:
    """An EfficientViT of the L series with random weights; the released epsilon of its BatchNorms is 1e-7."""
    widths, depths = variant.widths, variant.depths
    stem = {"conv": Conv(3, widths[0], 3, stride=2, norm=True, activation=LARGE_FUNCTION)}
    stages: dict[str, nn.Module] = {"stem": Stage(**stem, **{f"res{k}": ResBlock(widths[0]) for k in range(depths[0])})}
    for stage in (1, 2, 3, 4):
        first, later = LARGE_EXPAND_FIRST[stage - 1], LARGE_EXPAND[stage - 1]
        width = widths[stage]
        blocks: dict[str, nn.Module] = {"down": _large_local(widths[stage - 1], width, stage, 2, first)}
        for k in range(depths[stage]):
            mb = _large_local(width, width, stage, 1, later)
            if stage == 4:
                blocks[f"b{k}"] = AttentionBlock(width, variant.head_dim, mb)
            else:
                blocks[f"b{k}"] = Stage(mb=mb)
        stages[f"s{stage}"] = Stage(**blocks)
    stages["head"] = Head(widths[4], variant.head_widths, classes, LARGE_FUNCTION)
    model = Hybrid(stages)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            module.eps = 1e-7
    return model


def _large_local(inputs: int, outputs: int, stage: int, stride: int, expand: int) -> MbConv | FusedMbConv:
    if stage >= 3:
        return MbConv(inputs, outputs, stride=stride, norm=False, expand=expand, activation=LARGE_FUNCTION)
    return FusedMbConv(inputs, outputs, stride=stride, expand=expand)


def reference_hybrid(variant: HybridVariant) -> Hybrid:
    """A small hybrid for 62 classes of 32 × 32 grey images, with random weights."""
    first, second, third, fourth = variant.widths
    stem = {"conv": Conv(IN_CHANNELS, first, 3, stride=2, norm=True, activation=ACTIVATION), "ds0": DsConv(first)}
    mb = MbConv(third, third, stride=1, norm=True)
    return Hybrid(
        {
            "stem": Stage(**stem),
            "s1": Stage(mb0=MbConv(first, second, stride=1, norm=True)),
            "s2": Stage(mb0=MbConv(second, third, stride=2, norm=True)),
            "s3": Stage(b0=AttentionBlock(third, variant.head_dim, mb)),
            "s4": Stage(
                mb0=MbConv(third, fourth, stride=2, norm=True), mb1=MbConv(fourth, fourth, stride=1, norm=True)
            ),
            "head": SmallHead(fourth, variant.head_width, CLASSES),
        }
    )
