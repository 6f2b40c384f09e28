"""Error of the component's output weighted by the output's nuclear norm."""

from __future__ import annotations

import torch
from torch import Tensor

from quant.sensitivity.case import Case
from quant.sensitivity.metrics.base import metric


@metric("nuclear_norm", stages=("run",), slow=True)
def nuclear_norm(case: Case) -> Tensor:
    """E (Σ_j σ_j(Y))·‖Ŷ − Y‖², σ_j the singular values of an op's stored output of one image; no labels.

    Matrices are the last two axes (tokens and channels; queries and keys), summed over heads or a convolution's
    channels.  Source: Liu et al. 2021 (NeurIPS, arXiv 2106.14156), who take the attention map of an attention and the
    output of an MLP; the output of every op instead is an interpretation.
    """
    found = torch.zeros(case.images, dtype=torch.float64)
    for exact, rounded in zip(case.exact_outputs, case.outputs, strict=True):
        matrices = exact[:, None] if exact.dim() == 2 else exact
        norms = torch.linalg.svdvals(matrices.double()).reshape(case.images, -1).sum(1)
        found += norms * ((rounded - exact).double() ** 2).reshape(case.images, -1).sum(1)
    return found[:, None]
