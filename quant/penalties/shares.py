"""How an op's measured loss is split among its filters: in proportion to the error that each filter adds."""

from __future__ import annotations

import numpy as np
import torch

from accelsim.formats import Format
from quant.calibrate import Calibration
from quant.collect import Statistics
from quant.network import Node
from quant.observers import weight_scale
from quant.penalties.table import Floats


def output_errors(node: Node, statistics: Statistics, fmt: Format, options: Calibration) -> Floats:
    """Error power [filters] of a layer's outputs with its filters in a format: Σ_k E[x_k²]·(w_k − ŵ_k)².

    E[x²] is that of the input channel, over images and positions; inputs count as uncorrelated.
    """
    assert node.weight is not None
    weights = node.weight.detach().double()
    rows = weights.reshape(len(weights), -1)
    scale, integers = weight_scale(node.weight.detach().reshape(len(weights), -1), fmt, options.power)
    square = statistics.inputs[node.name].square.double().reshape(-1)
    # [groups, filters of a group, inputs of a group, taps]: a group's filters read their own input channels.
    groups = len(square) // weights.shape[1]
    errors = ((rows - scale.double()[:, None] * integers) ** 2).reshape(
        groups, -1, weights.shape[1], weights[0, 0].numel()
    )
    result = torch.einsum("gfkt,gk->gf", errors, square.reshape(groups, -1)).reshape(-1)
    return np.asarray(result.numpy(), np.float64)


def split(loss: float, errors: Floats, base: Floats) -> Floats:
    """The loss [filters] in proportion to the error beyond the base format's; evenly where no filter has more."""
    more = np.maximum(errors - base, 0.0)
    total = float(more.sum())
    return loss * (more / total if total > 0 else np.full(len(more), 1.0 / len(more)))
