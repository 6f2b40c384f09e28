"""Power-of-two weights: one signed power of two, or zero, times a scale."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from accelsim.formats import Format
from quant.functional import levels_tensor
from quant.quantizers.registry import QuantizedWeights, register
from quant.quantizers.search import ScaleOptions, search_scale


@dataclass(frozen=True)
class PotOptions(ScaleOptions):
    """`bits` 3 or 4: a sign and the exponent, whose highest code is zero."""

    bits: int = 4


@register("pot", PotOptions)
def quantize_pot(weights: Tensor, options: PotOptions) -> QuantizedWeights:
    """Nearest of ±{0, 2^0 … 2^(2^(b−1) − 2)} with a real scale per filter.

    Source: the power-of-two levels of Li et al. 2020, in units of the smallest one.
    """
    fmt = Format.parse(f"pot{options.bits}", "power-of-two weights")
    return QuantizedWeights(*search_scale(weights, levels_tensor(fmt), options), fmt)
