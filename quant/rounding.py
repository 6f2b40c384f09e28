"""Learned rounding to one of the two neighbouring levels (AdaRound, for any level set), and bias correction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from accelsim.problems import AccelsimError, Problem

ZETA, GAMMA = 1.1, -0.1  # stretch of the sigmoid.  Source: Nagel et al. 2020, after Louizos et al. 2018.


def rectified_sigmoid(v: Tensor) -> Tensor:
    """h(V) = clamp(σ(V) · (ζ − γ) + γ, 0, 1), which reaches 0 and 1.  Source: Nagel et al. 2020 (AdaRound)."""
    return torch.clamp(torch.sigmoid(v) * (ZETA - GAMMA) + GAMMA, 0, 1)


def inverse_rectified_sigmoid(h: Tensor) -> Tensor:
    """V with h(V) = h for h in [0, 1]."""
    return -torch.log((ZETA - GAMMA) / (h - GAMMA) - 1)


def annealed_beta(step: int, steps: int, start: float = 20.0, end: float = 2.0, warm_up: float = 0.2) -> float | None:
    """Exponent β of the penalty at a step 0 … steps: none while warming up, then linear from `start` to `end`.

    Source: Li et al. 2021 (BRECQ), released code: β from 20 to 2, the first 20 % of the steps without the penalty.
    """
    if step < warm_up * steps:
        return None
    passed = (step - warm_up * steps) / ((1 - warm_up) * steps)
    return end + (start - end) * max(0.0, 1.0 - passed)


class SoftRounding(nn.Module):
    """Weights between their two neighbouring levels, w = scale · (L[lo] + h(V) · (L[hi] − L[lo])), V to be learned.

    `weights` [filters, …], `scale` [filters], `level_set` sorted integers (one set for all schemes: for uniform levels
    this is AdaRound).  At the start V gives the float weights back; what lies outside the levels starts at the end
    level, with its inner neighbour as the other choice.  Source: Nagel et al. 2020; neighbouring levels of
    other sets: an interpretation of how M²-ViT is calibrated.
    """

    lower: Tensor
    gap: Tensor
    scale: Tensor

    def __init__(self, weights: Tensor, scale: Tensor, level_set: Tensor) -> None:
        super().__init__()
        if len(level_set) < 2 or not bool((level_set.diff() > 0).all()):
            raise AccelsimError(Problem("SoftRounding", "unsorted or fewer than two levels", "ascending levels"))
        spread = scale.detach().reshape([-1] + [1] * (weights.ndim - 1))
        position = (weights.detach() / spread).contiguous()
        levels = level_set.to(device=position.device, dtype=position.dtype)
        below = (torch.bucketize(position, levels, right=True) - 1).clamp(0, len(levels) - 2)
        self.register_buffer("lower", levels[below])
        self.register_buffer("gap", levels[below + 1] - levels[below])
        self.register_buffer("scale", spread.to(position.dtype))
        self.v = nn.Parameter(inverse_rectified_sigmoid(((position - self.lower) / self.gap).clamp(0, 1)))

    def soft(self) -> Tensor:
        """Float weights, differentiable in V."""
        return self.scale * (self.lower + rectified_sigmoid(self.v) * self.gap)

    def hard(self) -> Tensor:
        """Integer levels (int64): the upper neighbour where h(V) ≥ 1/2."""
        chosen = torch.where(rectified_sigmoid(self.v) >= 0.5, self.lower + self.gap, self.lower)
        return chosen.detach().round().long()

    def penalty(self, beta: float | None) -> Tensor:
        """Σ 1 − |2h(V) − 1|^β, which drives every h to 0 or 1; zero for None.  Source: Nagel et al. 2020."""
        if beta is None:
            return self.v.new_zeros(())
        return (1 - (2 * rectified_sigmoid(self.v) - 1).abs().pow(beta)).sum()


def bias_correction(mean_output_float: Tensor, mean_output_quantized: Tensor) -> Tensor:
    """What to add to the bias [channels] so that the mean output is that of the float layer: E[y] − E[ŷ].

    Source: Nagel et al. 2019 (Data-Free Quantization), section 4.2, with measured means.
    """
    return mean_output_float - mean_output_quantized
