"""Additive power-of-two weights as the shift-add engines run them: one to three signed terms."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from accelsim.formats import Format
from accelsim.problems import AccelsimError, Problem
from quant.functional import levels_tensor
from quant.quantizers.registry import QuantizedWeights, register
from quant.quantizers.search import ScaleOptions, search_scale

_FORMATS = {1: "pot4", 2: "apot8", 3: "apot12"}


@dataclass(frozen=True)
class ApotOptions(ScaleOptions):
    """`terms` 1, 2 or 3; every term has a sign and a 3-bit exponent (4 bits of storage each)."""

    terms: int = 2


@register("apot", ApotOptions)
def quantize_apot(weights: Tensor, options: ApotOptions) -> QuantizedWeights:
    """Nearest of ±2^a (± 2^b (± 2^c)), a, b, c in 0 … 7, with a real scale per filter.

    Zero by cancellation: 53 magnitudes with two terms, 157 with three; one term has 7 powers and a code for zero.  The
    signed two-term encoding is an interpretation of M²-ViT.  AccelsimError for other numbers of terms.
    """
    if options.terms not in _FORMATS:
        raise AccelsimError(Problem("additive power-of-two weights", f"{options.terms} terms", "1, 2 or 3 terms"))
    fmt = Format.parse(_FORMATS[options.terms])
    return QuantizedWeights(*search_scale(weights, levels_tensor(fmt), options), fmt)
