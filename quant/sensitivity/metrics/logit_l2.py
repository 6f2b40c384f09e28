"""Squared distance of the logits."""

from __future__ import annotations

from torch import Tensor

from quant.sensitivity.case import Case
from quant.sensitivity.metrics.base import metric


@metric("logit_l2", stages=("run",))
def logit_l2(case: Case) -> Tensor:
    """E ‖f(x) − f(x | component rounded)‖² over the calibration images; no labels, no gradients.

    It ranks components as `logit_sqnr_db` does: the signal is the same for all.  Source: the output perturbation that
    PMQ (Xiao et al. 2023) is taken to measure (interpretation; its text is not public).
    """
    return ((case.logits - case.exact_logits).double() ** 2).sum(1)[:, None]
