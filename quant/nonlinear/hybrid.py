"""The convolutional hybrids' own: hardswish as a table, and division by a power of two (Trio-ViT)."""

from __future__ import annotations

import torch
from torch import Tensor

from accelsim.problems import AccelsimError, Problem
from quant.functional import Affine, code_range, log2_code, log2_divide
from quant.nonlinear.arrays import EXACT, as_int64, on_integers, require_between, require_scale, require_wide


def hardswish_table(
    scale_in: float, zero_in: int, scale_out: float, zero_out: int, bits: int = 8
) -> tuple[Tensor, float]:
    """Entries (int64 [2^bits], output codes) of hardswish for the input codes −2^(bits−1) … 2^(bits−1) − 1 in order.

    entry = clamp(round(hardswish(scale_in·(code − zero_in)) / scale_out) + zero_out); returns (entries, scale_out).
    The table that integer execution looks up (`quant.integer`).  Raises AccelsimError for a scale that is not above 0
    or a zero point that is no code.
    """
    # Integer execution is built on this package.
    from quant.integer.build_array import lookup

    where = "hardswish_table"
    low, high = code_range(bits, symmetric=False)
    ends = []
    for name, scale, zero in (("in", scale_in, zero_in), ("out", scale_out, zero_out)):
        require_between(zero, low, high, where, f"zero_{name}")
        step = torch.tensor(require_scale(scale, where, f"scale_{name}"), dtype=torch.float64)
        ends.append(Affine(step, torch.tensor(zero, dtype=torch.float64), low, high))
    return lookup(ends[0], ends[1], "hardswish", where).entries, float(scale_out)


@on_integers
def log2_quotient(numerators: Tensor, divisors: Tensor, base_exponent: int = 0, bits: int = 4) -> tuple[Tensor, float]:
    """Quotients numerators / 2^k, k from `quant.functional.log2_code` of the divisors ≥ 0; by zero: zero.

    All bits stay: integers numerators · 2^(2^bits − 1 − code), scale 2^−(base_exponent + 2^bits − 1).  Raises
    AccelsimError for negative divisors, a quotient that leaves 53 bits, or shapes that do not broadcast.
    Source: Shi et al. 2024 (Trio-ViT).
    """
    where = "log2_quotient"
    require_between(bits, 1, 5, where, "bits")
    last = (1 << bits) - 1
    require_wide(int(numerators.abs().max()) << last, where, "a quotient", ("fewer bits",), EXACT)
    divisors = as_int64(divisors, where)
    if not _broadcast(numerators, divisors):
        what = f"numerators {tuple(numerators.shape)}, divisors {tuple(divisors.shape)}"
        raise AccelsimError(Problem(where, what, "shapes that broadcast"))
    code = log2_code(divisors, base_exponent, bits)
    return log2_divide(numerators.double(), code, -last).long(), 2.0 ** -(base_exponent + last)


def _broadcast(one: Tensor, other: Tensor) -> bool:
    """True when the shapes are alike from the last axis on, but for sizes of 1."""
    pairs = zip(reversed(one.shape), reversed(other.shape), strict=False)
    return all(a == b or 1 in (a, b) for a, b in pairs)
