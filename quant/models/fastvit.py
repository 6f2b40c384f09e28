"""FastViT-T8 in its inference form in torch, one module per op of `accelsim.workloads.fastvit`."""

from __future__ import annotations

from torch import Tensor, nn

from accelsim.workloads.fastvit import (
    ACTIVATION,
    DEPTHS,
    HEAD_RATIO,
    LARGE_KERNEL,
    MIXER_KERNEL,
    MLP_RATIO,
    SQUEEZE,
    WIDTHS,
)
from quant.models.blocks import Conv, Gate, Linear, Pool, ScaledAdd


class Block(nn.Module):
    """Depthwise 3 × 3 mixer, then depthwise 7 × 7 and a pointwise MLP, scaled and added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mixer = Conv(width, width, MIXER_KERNEL, groups=width, bias=True)
        self.dw7 = Conv(width, width, LARGE_KERNEL, groups=width, bias=True)
        self.fc1 = Conv(width, MLP_RATIO * width, bias=True, activation=ACTIVATION)
        self.fc2 = Conv(MLP_RATIO * width, width, bias=True)
        self.mlp_add = ScaledAdd(width)

    def forward(self, value: Tensor) -> Tensor:
        """[batch, width, h, w] → the same."""
        mixed = self.mixer(value)
        result: Tensor = self.mlp_add(self.fc2(self.fc1(self.dw7(mixed))), mixed)
        return result


class Down(nn.Module):
    """7 × 7 convolution with two outputs per input, then a pointwise convolution."""

    def __init__(self, given: int, width: int) -> None:
        super().__init__()
        self.large = Conv(given, width, LARGE_KERNEL, stride=2, groups=given, bias=True)
        self.pw = Conv(width, width, bias=True, activation=ACTIVATION)

    def forward(self, value: Tensor) -> Tensor:
        """[batch, given, h, w] → [batch, width, h / 2, w / 2]."""
        result: Tensor = self.pw(self.large(value))
        return result


class Final(nn.Module):
    """3 × 3 convolution in groups to twice the channels, squeeze and excitation, activation."""

    def __init__(self, given: int) -> None:
        super().__init__()
        width = HEAD_RATIO * given
        self.conv = Conv(given, width, 3, groups=given, bias=True)
        self.pool = Pool()
        self.squeeze = Linear(width, width // SQUEEZE, activation="relu")
        self.excite = Linear(width // SQUEEZE, width, activation="sigmoid")
        self.gate = Gate(ACTIVATION)

    def forward(self, value: Tensor) -> Tensor:
        """[batch, given, h, w] → [batch, 2 · given, h, w]."""
        value = self.conv(value)
        result: Tensor = self.gate(value, self.excite(self.squeeze(self.pool(value))))
        return result


class FastVit(nn.Module):
    """Three convolutions, four stages "s0" … "s3", final convolution with a gate, mean, classifier."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        width = WIDTHS[0]
        self.stem = nn.Sequential()
        self.stem.add_module("conv1", Conv(3, width, 3, stride=2, bias=True, activation=ACTIVATION))
        self.stem.add_module("conv2", Conv(width, width, 3, stride=2, groups=width, bias=True, activation=ACTIVATION))
        self.stem.add_module("conv3", Conv(width, width, bias=True, activation=ACTIVATION))
        for stage, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
            blocks = nn.Sequential()
            if stage:
                blocks.add_module("down", Down(WIDTHS[stage - 1], width))
            for k in range(depth):
                blocks.add_module(f"b{k}", Block(width))
            self.add_module(f"s{stage}", blocks)
        self.final = Final(width)
        self.pool = Pool()
        self.head = Linear(HEAD_RATIO * width, classes)

    def forward(self, image: Tensor) -> Tensor:
        """[batch, 3, h, w] → logits [batch, classes]."""
        value = self.stem(image)
        for stage in range(len(WIDTHS)):
            value = self.get_submodule(f"s{stage}")(value)
        result: Tensor = self.head(self.pool(self.final(value)))
        return result
