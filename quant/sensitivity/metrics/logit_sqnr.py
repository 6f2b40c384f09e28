"""Signal-to-noise ratio of the network's output."""

from __future__ import annotations

import torch
from torch import Tensor

from quant.sensitivity.case import Case
from quant.sensitivity.metrics.base import decibels, metric


@metric("logit_sqnr_db", decibels, rising=False, stages=("run",))
def logit_sqnr(case: Case) -> Tensor:
    """10·log10(Σ f² / Σ (f − f̂)²) of the logits over all images."""
    exact = case.exact_logits.double()
    return torch.stack([(exact**2).sum(1), ((case.logits.double() - exact) ** 2).sum(1)], 1)
