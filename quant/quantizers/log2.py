"""Logarithmic weights: powers of two with a power-of-two scale, so that not even the scale needs a multiplier."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from accelsim.formats import Format
from quant.functional import log2_code, log2_value
from quant.quantizers.registry import QuantizedWeights, register

_WINDOWS_TRIED = 4  # the exponent window ends at the largest weight's exponent, or up to three below


@dataclass(frozen=True)
class Log2Options:
    """`bits` 3 or 4, stored as power-of-two codes; `power` of the error that chooses the exponent window."""

    bits: int = 4
    power: float = 2.0


@register("log2", Log2Options)
def quantize_log2(weights: Tensor, options: Log2Options) -> QuantizedWeights:
    """Sign and clamped exponent of the leading-one rule (`quant.functional.log2_code`); scale 2^e per filter.

    A magnitude below half of the smallest power is zero (interpretation: the format has a code for it).  Source:
    Miyashita et al. 2016, with the window per filter by least Σ|error|^power, and rounding at 1.5 as in
    hardware instead of √2.
    """
    fmt = Format.parse(f"pot{options.bits}", "log2 weights")
    filters = weights.double()
    top = log2_code(filters.abs().amax(1), -1022, 16) - 1022  # exponent of the largest weight
    best = torch.full((len(filters),), torch.inf, dtype=torch.float64)
    scale, integers = torch.ones_like(best), torch.zeros_like(filters)
    for lower in range(_WINDOWS_TRIED):
        step = torch.ldexp(torch.ones_like(best), (top - fmt.max_exponent - lower).clamp(min=-1022).double())
        magnitude = filters.abs() / step[:, None]
        power = log2_value(log2_code(magnitude, 0, fmt.exponent_bits).clamp(max=fmt.max_exponent), 0)
        chosen = torch.where(magnitude >= 0.5, power, 0.0) * filters.sign()
        error = (chosen * step[:, None] - filters).abs().pow(options.power).sum(1)
        better = (error < best) & (filters != 0).any(1)
        best, scale = torch.where(better, error, best), torch.where(better, step, scale)
        integers = torch.where(better[:, None], chosen, integers)
    return QuantizedWeights(scale.to(weights), integers.long(), fmt)
