"""Mean squared error of the rounded tensor itself."""

from __future__ import annotations

from torch import Tensor

from quant.sensitivity.case import Case
from quant.sensitivity.metrics.base import metric


@metric("mse", per_channel=True)
def mse(case: Case) -> Tensor:
    """Mean of (Q(t) − t)² over the component's weights or stored values; looks at nothing else."""
    total = case.total(lambda part: part.change.double() ** 2)
    return (total / case.elements)[:, None]
