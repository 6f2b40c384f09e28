"""What makes activations hard to quantize, measured on images: channel ranges, offsets, skew, class attention.

`python -m quant.models.statistics NAME …` prints rows of the table in docs/reference_models.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from accelsim.problems import AccelsimError, Problem
from quant.data import load_data
from quant.data.dataset import DataSet
from quant.models.blocks import Activation, Conv, LayerNorm, Linear, OpModule, Softmax
from quant.models.controls import CONTROL_NAMES, load_control
from quant.models.registry import load_reference


@dataclass(frozen=True)
class ChannelStats:
    """One activation tensor over some images; the last axis (or the channels of an image tensor) are its channels.

    `range_ratio`: the largest channel range (max − min) over the median one.  `offset`: the largest over all channels
    of |max + min| / 2 over the range of the median channel (0: every channel is symmetric about 0).
    `middle_over_range`: (max + min) / 2 over max − min of the whole tensor.  `skew`: third standardized moment.
    """

    tensor: str
    range_ratio: float
    offset: float
    middle_over_range: float
    skew: float


@dataclass(frozen=True)
class AttentionStats:
    """How the class token of a block attends, mean over images and heads.

    `self_share`: its attention to itself.  `top_quarter`: share of the rest that the quarter of the patches with the
    most attention gets (0.25 when all patches are alike).
    """

    block: str
    self_share: float
    top_quarter: float


class _Range:
    """Running minimum and maximum per channel, and power sums of all values."""

    def __init__(self) -> None:
        self.low: Tensor | None = None
        self.high: Tensor | None = None
        self.sums = torch.zeros(4, dtype=torch.float64)

    def add(self, value: Tensor) -> None:
        channels = value.movedim(1, -1) if value.ndim == 4 else value
        rows = channels.reshape(-1, channels.shape[-1])
        low, high = rows.amin(dim=0), rows.amax(dim=0)
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)
        wide = rows.double()
        self.sums += torch.stack([(wide**power).sum() for power in range(4)])

    def stats(self, name: str) -> ChannelStats:
        if self.low is None or self.high is None:
            raise AccelsimError(Problem(f"tensor {name}", "no images went through it", "at least one image"))
        ranges, median = self.high - self.low, float((self.high - self.low).median())
        middle = float((self.high.max() + self.low.min()) / 2)
        count, first, second, third = (float(value) for value in self.sums)
        mean = first / count
        variance = second / count - mean * mean
        moment = third / count - 3 * mean * second / count + 2 * mean**3
        return ChannelStats(
            tensor=name,
            range_ratio=float(ranges.max()) / median,
            offset=float((self.high + self.low).abs().max()) / 2 / median,
            middle_over_range=middle / float(self.high.max() - self.low.min()),
            skew=moment / variance**1.5,
        )


def channel_statistics(model: nn.Module, data: DataSet, images: int = 500) -> tuple[ChannelStats, ...]:
    """Statistics of the inputs and outputs of every LayerNorm and the outputs of every activation function.

    Over the first `images` images of `data`, in order of execution; a LayerNorm's input is called "<name>.input".
    """
    ranges: dict[str, _Range] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(module, LayerNorm):
                ranges.setdefault(f"{name}.input", _Range()).add(inputs[0])
            ranges.setdefault(name, _Range()).add(output)

        return hook

    _run(model, data, images, watch, _is_watched)
    return tuple(value.stats(name) for name, value in ranges.items())


def _is_watched(module: nn.Module) -> bool:
    if isinstance(module, Conv | Linear | Activation):
        return bool(module.activation)
    return isinstance(module, LayerNorm)


def attention_statistics(model: nn.Module, data: DataSet, images: int = 500) -> tuple[AttentionStats, ...]:
    """Class attention of every softmax over the first `images` images (empty for a model without softmax)."""
    shares: dict[str, list[Tensor]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            shares.setdefault(name, []).append(output[:, :, 0])

        return hook

    _run(model, data, images, watch, lambda module: isinstance(module, Softmax))
    result = []
    for name, parts in shares.items():
        rows = torch.cat(parts).double()
        patches = rows[..., 1:].sort(dim=-1, descending=True).values
        top = patches[..., : patches.shape[-1] // 4].sum(dim=-1) / patches.sum(dim=-1)
        result.append(AttentionStats(name.rpartition(".")[0], float(rows[..., 0].mean()), float(top.mean())))
    return tuple(result)


def _run(
    model: nn.Module,
    data: DataSet,
    images: int,
    watch: Callable[[str], Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]],
    wanted: Callable[[nn.Module], bool],
) -> None:
    """Send images through a model with a hook on every wanted op; the hooks are taken away again."""
    ops = [(name, module) for name, module in model.named_modules() if isinstance(module, OpModule) and wanted(module)]
    handles = [module.register_forward_hook(watch(name)) for name, module in ops]
    try:
        with torch.inference_mode():
            for batch, _ in data.first(images).batches(100):
                model(batch)
    finally:
        for handle in handles:
            handle.remove()


def table(names: Sequence[str], images: int = 500) -> str:
    """Markdown: one row per model with the medians over its tensors, measured on the first validation images."""
    head = ("LayerNorm inputs", "LayerNorm outputs", "outputs: offset", "outputs: middle / range", "activation outputs",
            "activation skew", "class token to itself", "top quarter")  # fmt: skip
    lines = [f"| model | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    data = load_data("glyphs", "val")
    for name in names:
        model = load_control(name) if name in CONTROL_NAMES else load_reference(name)
        rows, attention = channel_statistics(model, data, images), attention_statistics(model, data, images)
        inputs = [row for row in rows if row.tensor.endswith(".input")]
        outputs = [row for row in rows if f"{row.tensor}.input" in {row.tensor for row in inputs}]
        functions = [row for row in rows if row not in inputs and row not in outputs]
        values = (
            [row.range_ratio for row in inputs], [row.range_ratio for row in outputs], [row.offset for row in outputs],
            [abs(row.middle_over_range) for row in outputs], [row.range_ratio for row in functions],
            [row.skew for row in functions], [row.self_share for row in attention],
            [row.top_quarter for row in attention],
        )  # fmt: skip
        lines.append(f"| `{name}` | {' | '.join(f'{median(part):.2f}' if part else '–' for part in values)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(table(sys.argv[1:]))
