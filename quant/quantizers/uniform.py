"""Uniform symmetric weights: integers −(2^(b−1) − 1) … 2^(b−1) − 1 times a scale."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from accelsim.formats import Format
from quant.functional import levels_tensor
from quant.observers import UNIFORM_FACTORS
from quant.quantizers.registry import QuantizedWeights, register
from quant.quantizers.search import ScaleOptions, search_scale


@dataclass(frozen=True)
class UniformOptions(ScaleOptions):
    """`bits` 2 … 16."""

    bits: int = 8


@register("uniform", UniformOptions)
def quantize_uniform(weights: Tensor, options: UniformOptions) -> QuantizedWeights:
    """Nearest integer; the range is max|w| times 1.25, 1.24 … 0.21.

    Source: Krishnamoorthi 2018, section 2.2 (symmetric, zero point 0); the search is that of BRECQ's released code,
    which starts at 1.00.
    """
    fmt = Format.parse(f"u{options.bits}", "uniform weights")
    return QuantizedWeights(*search_scale(weights, levels_tensor(fmt), options, UNIFORM_FACTORS), fmt)
