"""Two regions with untied steps, as the released code of PTQ4ViT (Yuan et al. 2022) has them.

The ratio of the two steps is any number, so no shift aligns the regions: a floating-point arm to compare with.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LEAST_GELU = 0.16997  # magnitude of the smallest value of GELU
SPLITS = tuple(2.0**-k for k in range(20))  # of attention shares
POSITIVE_FACTORS = tuple(0.01 + 1.19 * k / 99 for k in range(100))


@dataclass(frozen=True)
class UntiedSteps:
    """Steps below `split` and from it on, q = 2^(bits − 1) codes each.

    With `low_negative` (after GELU; split 0) the low codes are −q … 0, else (attention shares) 0 … q − 1; the high
    codes are 0 … q − 1.
    """

    low_step: float
    high_step: float
    split: float
    bits: int
    low_negative: bool

    def values(self, x: Tensor) -> Tensor:
        """What the codes of x stand for: x < split ? low(x) : high(x).

        Gradients pass inside the range, none where a value is clipped.
        """
        from quant.finetune.straight import shown_as

        count = 1 << (self.bits - 1)
        ends = (-count, 0) if self.low_negative else (0, count - 1)
        low = torch.round(x.detach() / self.low_step).clamp(*ends) * self.low_step
        high = torch.round(x.detach() / self.high_step).clamp(0, count - 1) * self.high_step
        inside = x.clamp(ends[0] * self.low_step, (count - 1) * self.high_step)
        return shown_as(inside, torch.where(x < self.split, low, high))


def untied_steps(values: Tensor, bits: int, low_negative: bool, weights: Tensor | None = None) -> UntiedSteps:
    """Steps of least Σ w (x − x̂)² for values [n]; `weights` [n], all 1 without.

    After GELU the negative step is 0.16997 / q, the positive one of 100 values 0.01 … 1.2 times max / (q − ½).  Shares:
    low step split / (q − 1), high step 1 / (q − 1), split one of 2^0 … 2^−19.  Source: the released code of PTQ4ViT,
    which weighs errors at the layer's output instead.
    """
    count = 1 << (bits - 1)
    if low_negative:
        top = max(float(values.max()), 0.0) / (count - 0.5) or 1.0
        tried = [UntiedSteps(LEAST_GELU / count, f * top, 0.0, bits, True) for f in POSITIVE_FACTORS]
    else:
        tried = [UntiedSteps(split / (count - 1), 1 / (count - 1), split, bits, False) for split in SPLITS]
    return min(tried, key=lambda one: _error(values, one, weights))


def _error(values: Tensor, steps: UntiedSteps, weights: Tensor | None) -> float:
    error = (steps.values(values).double() - values.double()).square_()
    return float((error if weights is None else error * weights).sum())


def released_softmax(x: Tensor, steps: UntiedSteps) -> Tensor:
    """Shares as the released code of PTQ4ViT gives them: the sum of both clipped halves, not one of them.

    From `split` on it adds about split, below about round(split·(q − 1)) / (q − 1): right only while
    split·(q − 1) < ½.  For comparison; `UntiedSteps.values` is what is meant.
    """
    last = (1 << (steps.bits - 1)) - 1
    high = torch.round(x.clamp(steps.split, 1) / steps.high_step).clamp(0, last) * steps.high_step
    low = torch.round(x.clamp(0, steps.split) / steps.low_step).clamp(0, last) * steps.low_step
    return high + low
