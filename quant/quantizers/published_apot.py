"""The additive power-of-two sets as published, for comparison: no engine of the simulator has this format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from quant.functional import project_levels
from quant.levels import published_apot_integers
from quant.quantizers.registry import QuantizedWeights, register
from quant.quantizers.search import ScaleOptions, search_scale

INITIAL_ALPHA = 3.0  # clip of normalized weights at which training starts, in standard deviations (released code)


@dataclass(frozen=True)
class PublishedApotOptions(ScaleOptions):
    """`bits` of the magnitude, 3, 4 or 6 (the sign is apart: 3 is the paper's 4-bit weight).

    `normalize`: subtract the mean and divide by the standard deviation of the layer first, as the paper does.
    """

    bits: int = 3
    normalize: bool = False


def signed_levels(bits: int) -> Tensor:
    """Sorted integers (int64) of the published set, both signs, in units of its smallest level."""
    magnitudes = published_apot_integers(bits)
    return torch.from_numpy(np.unique(np.concatenate([-magnitudes, magnitudes])))


def normalize(weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(weights with mean 0 and standard deviation 1, mean, standard deviation), over the layer.

    Source: Li et al. 2020, weight normalization.  A constant layer keeps standard deviation 1.
    """
    mean = weights.mean()
    centred = weights - mean
    deviation = centred.std() if weights.numel() > 1 else torch.zeros_like(mean)
    deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    return centred / deviation, mean, deviation


@register("apot_published", PublishedApotOptions)
def quantize_published_apot(weights: Tensor, options: PublishedApotOptions) -> QuantizedWeights:
    """Nearest level of the published set; the clip α = scale · largest level by search, or max|w|.

    `fmt` is None: the sets spend all bits on sums of powers without a sign per term, and no engine decodes them.  With
    `normalize` scale · integers approximates weights − mean: the paper trains with centred weights and does not add the
    mean back.  To learn α instead use `fake_quantize_published`.  Source: Li et al. 2020, levels of the released code.
    """
    values, factor = weights, torch.ones((), dtype=weights.dtype, device=weights.device)
    if options.normalize:
        values, _, factor = normalize(weights)
    scale, integers = search_scale(values, signed_levels(options.bits), options)
    return QuantizedWeights(scale * factor, integers, None)


class _LearnedClip(torch.autograd.Function):
    """Projection with the gradients of the reparametrized clipping function."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, alpha: Tensor, points: Tensor) -> Tensor:
        relative = weights / alpha
        flat = relative.reshape(1, -1)
        chosen = points[project_levels(flat, points, torch.ones(1))].reshape(weights.shape).to(weights)
        ctx.save_for_backward(relative, chosen)
        ctx.alpha_shape = alpha.shape
        return chosen * alpha

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        relative, chosen = ctx.saved_tensors
        inside = relative.abs() <= 1
        slope = torch.where(inside, chosen - relative, relative.sign())
        return upstream * inside, (upstream * slope).sum_to_size(ctx.alpha_shape), None


def fake_quantize_published(weights: Tensor, alpha: Tensor, bits: int) -> Tensor:
    """Weights on α times the published set (largest level α), for training α; start at `INITIAL_ALPHA` if normalized.

    Straight-through: the gradient of a weight is 1 inside [−α, α] and 0 outside; of α: sign(w) outside, q − w/α inside,
    with q the chosen level of w/α.  Source: Li et al. 2020, reparametrized clipping.
    """
    points = signed_levels(bits).double()
    result: Tensor = _LearnedClip.apply(weights, alpha, points / points[-1])  # type: ignore[no-untyped-call]
    return result
