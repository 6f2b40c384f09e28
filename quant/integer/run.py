"""Integer-only execution: codes from images, and how it agrees with the fake-quantized network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from quant.fake import FakeQuantized
from quant.functional import Affine, dequantize, quantize
from quant.integer.graph import IntegerNetwork
from quant.integer.steps import ArrayStep, Watch
from quant.network import forward
from quant.views import rearrange

BATCH = 64  # images at once: their tensors stay in the cache


def image_codes(network: IntegerNetwork, images: Tensor) -> Tensor:
    """Codes of images [n, channels, h, w], as the host writes them."""
    return quantize(images, network.checkpoint.stored[network.checkpoint.network.workload.input]).long()


def run_integer(
    network: IntegerNetwork, images: Tensor, *, keep: Iterable[str] = (), watch: Watch | None = None
) -> dict[str, Tensor]:
    """Codes (int64) of the tensors named in `keep`, or of the output, for images [n, channels, h, w].

    Divisors of a linear attention are log2 codes (−1: zero).  Sums are exact: products run in float64 only where every
    partial sum is a whole number below 2^53, which compiling has checked.
    """
    workload = network.checkpoint.network.workload
    wanted = set(keep) or {workload.output}
    steps = network.steps
    last = {operand.source: k for k, step in enumerate(steps) for operand in step.node.operands}
    count = images.shape[0]
    codes = {workload.input: image_codes(network, images)}
    for k, step in enumerate(steps):
        node = step.node
        operands = [rearrange(codes[operand.source], operand.views, count) for operand in node.operands]
        codes[node.op.output] = step.stored(operands, watch)
        for name in {operand.source for operand in node.operands}:
            if last[name] == k and name not in wanted:
                codes.pop(name, None)
    return {name: codes[name] for name in wanted}


class IntegerModel:
    """An integer network that can be called: images [n, channels, h, w] → logits [n, classes], dequantized codes."""

    def __init__(self, network: IntegerNetwork) -> None:
        self.network = network

    def codes(self, images: Tensor) -> Tensor:
        """Logit codes [n, classes]."""
        name = self.network.checkpoint.network.workload.output
        parts = [run_integer(self.network, part)[name] for part in torch.split(images, BATCH)]
        return torch.cat([part.reshape(len(part), -1) for part in parts])

    def __call__(self, images: Tensor) -> Tensor:
        """Logits."""
        return dequantize(self.codes(images).double(), _logits(self.network)).to(images.dtype)


@dataclass(frozen=True)
class Agreement:
    """Integer and fake-quantized execution side by side, over `images` images.

    `same_choice` is the share of images with the same first choice.  Differences are of logit codes: the largest, the
    mean magnitude, and the share of equal codes.  `float_islands` are the ops that integers do not compute.
    """

    images: int
    top1_integer: float
    top1_fake: float
    same_choice: float
    max_difference: int
    mean_difference: float
    equal_codes: float
    float_islands: tuple[str, ...]


def agreement(network: IntegerNetwork, batches: Iterable[tuple[Tensor, Tensor]]) -> Agreement:
    """Compare on labelled batches (images [n, channels, h, w], labels [n])."""
    integer, numerics = IntegerModel(network), FakeQuantized(network.checkpoint)
    logits = _logits(network)
    totals = torch.zeros(6, dtype=torch.float64)
    largest = 0
    for images, labels in batches:
        with torch.no_grad():
            fake = forward(network.checkpoint.network, images, numerics)
        ours, theirs = integer.codes(images), quantize(fake.double(), logits).long()
        first, second = ours.argmax(1), theirs.argmax(1)
        apart = (ours - theirs).abs()
        largest = max(largest, int(apart.max()))
        counts = (first == labels, second == labels, first == second)
        seen = [len(labels), *(int(x.sum()) for x in counts), float(apart.double().mean(1).sum())]
        totals += torch.tensor([*seen, float((apart == 0).double().mean(1).sum())], dtype=torch.float64)
    count = int(totals[0])
    right, other, same, mean, equal = (totals[1:] / count).tolist()
    return Agreement(count, right, other, same, largest, mean, equal, network.float_islands)


def accumulator_ranges(network: IntegerNetwork, images: Tensor) -> dict[str, tuple[int, int]]:
    """Lowest and highest accumulator, without the bias, that images gave, by array op."""
    found: dict[str, tuple[int, int]] = {}

    def watch(step: ArrayStep, operands: list[Tensor], accumulators: Tensor, codes: Tensor) -> None:
        low, high = int(accumulators.min()), int(accumulators.max())
        name = step.node.name
        before = found.get(name, (low, high))
        found[name] = (min(low, before[0]), max(high, before[1]))

    for part in torch.split(images, BATCH):
        run_integer(network, part, watch=watch)
    return found


def _logits(network: IntegerNetwork) -> Affine:
    """Quantizer of the output, for [n, classes]."""
    one = network.checkpoint.stored[network.checkpoint.network.workload.output]
    return Affine(one.scale.double().reshape(-1), one.zero_point.double().reshape(-1), one.low, one.high)
