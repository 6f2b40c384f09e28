"""Rounding error weighted by the mean trace of the Hessian."""

from __future__ import annotations

from torch import Tensor

from quant.sensitivity.case import Case
from quant.sensitivity.metrics.base import metric


@metric("hessian_trace", stages=("hessian",), slow=True)
def hessian_trace(case: Case) -> Tensor:
    """Σ over tensors of tr(H) / size · ‖Q(t) − t‖², H the Hessian of the cross-entropy by the tensor (nats).

    Traces are Hutchinson's, so they have noise and may be negative.  Source: HAWQ-V2 (Dong et al. 2020,
    arXiv 1911.03852): Ω = mean(tr H)·‖Q(W) − W‖² of a layer's filters.  For stored values the block of each image with
    that image's error; the sum of both for a product, and the stored values alone for one without filters (Q·Kᵀ, A·V)
    are an interpretation.
    """
    return case.total(lambda part: part.mean_curvature * part.change.double() ** 2)[:, None]
