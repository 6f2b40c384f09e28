"""Signal-to-noise ratio of the component's output."""

from __future__ import annotations

import torch
from torch import Tensor

from quant.sensitivity.case import Case
from quant.sensitivity.metrics.base import decibels, metric


@metric("output_sqnr_db", decibels, rising=False, stages=("run",))
def output_sqnr(case: Case) -> Tensor:
    """10·log10(Σ y² / Σ (y − ŷ)²) of the stored output of the component's ops, over all images."""
    signal = torch.zeros(case.images, dtype=torch.float64)
    noise = torch.zeros(case.images, dtype=torch.float64)
    for exact, rounded in zip(case.exact_outputs, case.outputs, strict=True):
        signal += (exact.double() ** 2).reshape(case.images, -1).sum(1)
        noise += ((rounded - exact).double() ** 2).reshape(case.images, -1).sum(1)
    return torch.stack([signal, noise], 1)
