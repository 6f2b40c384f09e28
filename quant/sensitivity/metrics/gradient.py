"""First-order change of the loss."""

from __future__ import annotations

from torch import Tensor

from quant.sensitivity.case import Case
from quant.sensitivity.metrics.base import magnitude, metric


@metric("gradient", magnitude, stages=("gradients",), per_channel=True)
def gradient(case: Case) -> Tensor:
    """|E Σ_i g_i·(Q(t_i) − t_i)| with g = ∂(cross-entropy of one image) / ∂t, E over the calibration images.

    The first-order Taylor term; near zero where training has converged, so what is left is noise.
    """
    return case.total(lambda part: part.gradient * part.change.double())[:, None]
