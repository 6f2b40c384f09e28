"""Error weighted by the empirical Fisher information."""

from __future__ import annotations

from torch import Tensor

from quant.sensitivity.case import Case
from quant.sensitivity.metrics.base import metric


@metric("fisher", stages=("gradients",), per_channel=True)
def fisher(case: Case) -> Tensor:
    """Σ_i E[g_i²]·(Q(t_i) − t_i)² with g = ∂(cross-entropy of one image) / ∂t.

    E is over the calibration images with their labels: the diagonal of the empirical Fisher matrix in place of the
    Hessian.  For stored values g and the error are those of each image.  One backward pass per image.  Source: BRECQ
    (Li et al. 2021), eq. 10, for outputs; the same with weights is the diagonal second-order term of HAWQ-V2 (Dong et
    al. 2020) with the Fisher matrix for the Hessian.
    """
    return case.total(lambda part: part.gradient_square * part.change.double() ** 2)[:, None]
