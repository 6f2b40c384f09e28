"""The measured increase of the cross-entropy."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from quant.sensitivity.case import Case
from quant.sensitivity.metrics.base import VALIDATION, metric


@metric("cross_entropy", split=VALIDATION, stages=("run",), interval=True)
def cross_entropy(case: Case) -> Tensor:
    """Cross-entropy with the component rounded minus that of the float network, in nats: what proxies stand in for."""
    rounded = F.cross_entropy(case.logits.double(), case.labels, reduction="none")
    return (rounded - F.cross_entropy(case.exact_logits.double(), case.labels, reduction="none"))[:, None]
