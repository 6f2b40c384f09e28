"""The measured loss of top-1 accuracy."""

from __future__ import annotations

from torch import Tensor

from quant.sensitivity.case import Case
from quant.sensitivity.metrics.base import VALIDATION, metric


@metric("top1_loss", split=VALIDATION, stages=("run",), interval=True)
def top1_loss(case: Case) -> Tensor:
    """Share of images that the float network classifies correctly, minus the share with the component rounded."""
    exact, rounded = case.exact_logits.argmax(1) == case.labels, case.logits.argmax(1) == case.labels
    return (exact.double() - rounded.double())[:, None]
