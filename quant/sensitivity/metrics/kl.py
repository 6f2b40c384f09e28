"""Divergence of the class probabilities."""

from __future__ import annotations

from torch import Tensor

from quant.sensitivity.case import Case
from quant.sensitivity.metrics.base import metric


@metric("kl", stages=("run",))
def kl(case: Case) -> Tensor:
    """E KL(p ‖ p̂) in nats, p and p̂ the softmax outputs without and with the rounding; no labels."""
    exact, rounded = case.exact_logits.double().log_softmax(1), case.logits.double().log_softmax(1)
    return (exact.exp() * (exact - rounded)).sum(1)[:, None]
