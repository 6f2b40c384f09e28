"""Dyadic numbers: a real ratio as a 31-bit mantissa and a shift, and requantization with it (I-BERT, I-ViT)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from accelsim.problems import AccelsimError, Problem
from quant.nonlinear.arrays import on_integers, require_between, require_scale, shift_half_even

MANTISSA_BITS = 31
CLAMPED_BITS = (4, 8, 16, 32)  # the widths that the published code clamps
CLAMPS = ("repaired", "published")
_HALF_BITS = 32


@dataclass(frozen=True)
class Dyadic:
    """ratio ≈ mantissa · 2^−shift, 2^30 ≤ mantissa < 2^31; the relative error is at most 2^−31."""

    mantissa: int
    shift: int

    @staticmethod
    def of(ratio: float, where: str = "ratio") -> Dyadic:
        """The mantissa rounded half up.  Raises AccelsimError for a ratio that is not finite and above 0."""
        fraction, exponent = math.frexp(require_scale(ratio, where, "ratio"))
        mantissa = math.floor(fraction * (1 << MANTISSA_BITS) + 0.5)
        if mantissa >> MANTISSA_BITS:
            return Dyadic(mantissa >> 1, MANTISSA_BITS - exponent - 1)
        return Dyadic(mantissa, MANTISSA_BITS - exponent)


def multiply_wide(value: Tensor, factor: Dyadic) -> Tensor:
    """(value · mantissa + 2^(shift − 1)) >> shift for 0 ≤ value < 2^62 and 33 ≤ shift ≤ 94, exact: two 32-bit halves.

    The product has up to 93 bits; the lower half of `value` gives its carry before the halves are added.
    """
    high, low = value >> _HALF_BITS, value & ((1 << _HALF_BITS) - 1)
    upper = high * factor.mantissa + ((low * factor.mantissa) >> _HALF_BITS)
    places = factor.shift - _HALF_BITS
    return (upper + (1 << (places - 1))) >> places


@on_integers
def dyadic_requantize(x_int: Tensor, ratio: float, bits: int, clamp: str = "repaired") -> tuple[Tensor, float]:
    """round(x · m / 2^e) with ratio = S_in / S_out ≈ m / 2^e, m of 31 bits (rounded half up); ties of y to even.

    `clamp="published"` clamps to −2^(b−1) … 2^(b−1) − 1 for 4, 8, 16 and 32 bits only, so 6-bit results leave their
    range, as in the released code; "repaired" clamps every width.  Returns (integers, 1 / ratio): the scale in units
    of the input's.  Widths: x 32 bits, product 63.  Source: Kim et al. 2021 (I-BERT), section 3; Li and Gu 2023
    (I-ViT), section 3.2.  Raises AccelsimError for ratios outside 2^−31 … 2^30 or an unknown clamp.
    """
    where = "dyadic_requantize"
    if clamp not in CLAMPS:
        raise AccelsimError(Problem(where, f"clamp {clamp!r}", f"one of {', '.join(CLAMPS)}"))
    require_between(bits, 2, 32, where, "bits")
    factor = Dyadic.of(ratio, where)
    if not 1 <= factor.shift <= 2 * MANTISSA_BITS:
        raise AccelsimError(Problem(where, f"the ratio of scales is {ratio:g}", "2^-31 … 2^30"))
    result = shift_half_even(x_int * factor.mantissa, factor.shift)
    if clamp == "repaired" or bits in CLAMPED_BITS:
        result = torch.clamp(result, -(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    return result, 1.0 / float(ratio)
