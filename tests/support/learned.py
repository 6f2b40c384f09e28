"""A slow twin of the learned quantizer in plain autograd, and quantizers of small sites."""

from __future__ import annotations

import torch

from quant.learned.quantizer import LOWEST_BITS, Quantizer, Start
from quant.learned.sites import STORED, Site


def rounded(value):
    """Round with the gradient of the identity."""
    return value + (value.round() - value).detach()


def scaled_gradient(value, factor):
    """The value with `factor` times its gradient."""
    return value * factor + (value * (1 - factor)).detach()


def twin(value, steps, bits, signed=True, offset=None):
    """Q-ViT's forward pass of one tensor with one width, written down step by step; `steps`, `offset`: tables of 7."""
    width = rounded(bits.clamp(2, 8))
    slot = int(width.detach()) - LOWEST_BITS
    if signed:
        low, high = -(2 ** (width - 1)), 2 ** (width - 1) - 1
    else:
        low, high = torch.zeros_like(width), 2**width - 1
    step = scaled_gradient(steps[slot], float((value.numel() * high.detach()) ** -0.5))
    shift = 0.0 if offset is None else offset[slot]
    position = (value - shift) / step
    position = torch.minimum(torch.maximum(position, low), high)
    return step * rounded(position) + shift


def quantizer(steps, bits, *, site=None, offsets=None, signed=True, switchable=True):
    """A quantizer of `site` (one width of one tensor, unless given) in float64; `steps` and `offsets` [tables, 7]."""
    where = site or Site("stored/x", STORED, "x", signed=signed, offset=offsets is not None)
    steps = torch.as_tensor(steps, dtype=torch.float64).reshape(where.tables, -1)
    shifts = None if offsets is None else torch.as_tensor(offsets, dtype=torch.float64).reshape(where.tables, -1)
    return Quantizer(where, Start(steps, shifts), torch.as_tensor(bits), switchable=switchable)
