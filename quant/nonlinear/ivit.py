"""I-ViT: exponential, softmax and GELU by shifts, and a LayerNorm with ten Newton steps.

Source: Li and Gu 2023 (I-ViT: Integer-only Quantization for Efficient Vision Transformer Inference), section 3.3-3.5,
with the constants of its released code (zkkli/I-ViT).  `>>` is an arithmetic shift (floor).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from accelsim.problems import AccelsimError, Problem
from quant.nonlinear.arrays import (
    WIDE,
    floor_divide,
    on_integers,
    require_between,
    require_rows,
    require_scale,
    require_wide,
)
from quant.nonlinear.ibert import IntegerNorm, deviations, newton_root

LOG2_E = 1.4375  # log2 e by shifts: 1 + 1/2 − 1/16
GELU_SLOPE = 1.702  # GELU(x) ≈ x · sigmoid(1.702 x)
WORD = (1 << 31) - 1
NEWTON_START_BITS = 16
NEWTON_STEPS = 10


@dataclass(frozen=True)
class ShiftExp:
    """Immediates of ShiftExp: e = ((r − 2·x0) << (n − q)) >> 1 with p = x + (x >> 1) − (x >> 4) = q·x0 + r; x0 < 0."""

    n: int
    x0: int
    out_scale: float

    @staticmethod
    def of(scale: float, n: int) -> ShiftExp:
        """Constants x0 = ⌊−1/S⌋, out_scale = S/2^n.  Raises AccelsimError when exp(0) leaves 60 bits."""
        require_between(n, 0, 59, "shift_exp", "n")
        step = require_scale(scale, "shift_exp")
        x0 = math.floor(-1 / step)
        levers = ("a smaller n", "a coarser scale")
        require_wide(-x0, "shift_exp", f"1/scale at scale {step:g}", ("a coarser scale",), 1 << 28)
        require_wide(-x0 << n, "shift_exp", f"exp(0) at scale {step:g}", levers, WIDE >> 2)
        return ShiftExp(n, x0, step / 2**n)

    @property
    def largest(self) -> int:
        """exp(0), the largest result for x ≤ 0."""
        return -self.x0 << self.n


def shift_exp_limits(scale: float, span: float, terms: int) -> tuple[int, int]:
    """Least and largest useful n of a ShiftExp of this scale: two bounds that may exclude each other.

    Least: the row's span (largest − smallest, real) survives, n ≥ 1.4375 · span octaves.  Largest: a sum of `terms`
    exponentials stays below 2^31, where it is clamped.  Shiftmax: its scale, the row's length (worst case: equal
    logits); ShiftGELU: scale and span times 1.702, terms = 2.  Raises AccelsimError for a scale ≤ 0 or terms < 1.
    """
    require_between(terms, 1, 1 << 31, "shift_exp_limits", "terms")
    one = -math.floor(-1 / require_scale(scale, "shift_exp_limits"))
    return math.ceil(LOG2_E * span), max((WORD // (terms * one)).bit_length() - 1, 0)


@on_integers
def shift_exp(x_int: Tensor, scale: float, n: int) -> tuple[Tensor, float]:
    """exp(x_int · scale) for x ≤ 0 by shifts: 2^(x·1.4375) with the fraction 2^−f ≈ 1 − f/2.

    The released code halves r without a floor; here one fraction bit is kept, which gives the same integers.  Within
    0.044 of exp for fine scales (7.6 % relative on −4 … 0).  Widths: exp(0) = ⌈1/S⌉ · 2^n.  Raises AccelsimError for
    x > 0 and when int64 would overflow.  Source: I-ViT, algorithm 1.
    """
    if bool((x_int > 0).any()):
        what = f"x reaches {int(x_int.max())}"
        raise AccelsimError(Problem("shift_exp", what, "x ≤ 0: subtract the row maximum first"))
    of = ShiftExp.of(scale, n)
    return _exponential(x_int, of), of.out_scale


def _exponential(x: Tensor, of: ShiftExp) -> Tensor:
    """ShiftExp of int64 x; for x > 0 it may stop growing above 2^31, where its users clamp."""
    p = torch.clamp(x + (x >> 1) - (x >> 4), min=of.n * of.x0)
    q = floor_divide(p, torch.full_like(p, of.x0))
    r = p - q * of.x0
    return (r - 2 * of.x0) << torch.clamp(of.n - q, max=max(of.n, 32)) >> 1


@dataclass(frozen=True)
class Shiftmax:
    """Immediates of Shiftmax: those of its exponential, and the output's bits."""

    exp: ShiftExp
    out_bits: int

    @staticmethod
    def of(scale: float, n: int = 15, out_bits: int = 16) -> Shiftmax:
        """As `shiftmax`."""
        require_between(out_bits, 2, 31, "shiftmax", "out_bits")
        return Shiftmax(ShiftExp.of(scale, n), out_bits)


@on_integers
def shiftmax(x_int: Tensor, scale: float, n: int = 15, out_bits: int = 16) -> tuple[Tensor, float]:
    """Softmax over the last axis: y = (e · ⌊(2^31 − 1) / Σ e⌋) >> (32 − out_bits), scale 2^−(out_bits − 1).

    The sum is clamped to 2^31 − 1.  Ranges: 0 … 2^(out_bits − 1) while no single e exceeds 2^31.  Where it breaks:
    a plateau of about 30 dB SQNR; coarse scales (26 dB at S = 0.2); fine ones, where the reciprocal of the sum has few
    bits and then the clamp acts (24 dB at S = 1e-3, n = 15): n has the two bounds of `shift_exp_limits`.  Raises
    AccelsimError as `shift_exp`.  Source: I-ViT, section 3.3; n = 15 and 16 bits as in its models.
    """
    require_rows(x_int, "shiftmax")
    of = Shiftmax.of(scale, n, out_bits)
    require_wide(of.exp.largest * x_int.shape[-1], "shiftmax", "the row sum", ("a smaller n",))
    e = _exponential(x_int - x_int.amax(-1, keepdim=True), of.exp)
    return _share(e, e.sum(-1, keepdim=True), out_bits), 2.0 ** (1 - out_bits)


def _share(e: Tensor, total: Tensor, out_bits: int) -> Tensor:
    """Shares e / total with out_bits − 1 fraction bits, by the reciprocal of the total clamped to 31 bits."""
    reciprocal = floor_divide(torch.full_like(total, WORD), total.clamp(max=WORD))
    return e * reciprocal >> (32 - out_bits)


@dataclass(frozen=True)
class ShiftGelu:
    """Immediates of ShiftGELU: those of its exponential (at 1.702 · S), the bits of the sigmoid, the output's scale."""

    exp: ShiftExp
    out_bits: int
    out_scale: float

    @staticmethod
    def of(scale: float, n: int = 23, out_bits: int = 8) -> ShiftGelu:
        """As `shift_gelu`."""
        require_between(out_bits, 2, 31, "shift_gelu", "out_bits")
        step = require_scale(scale, "shift_gelu")
        return ShiftGelu(ShiftExp.of(GELU_SLOPE * step, n), out_bits, step * 2.0 ** (1 - out_bits))


@on_integers
def shift_gelu(x_int: Tensor, scale: float, n: int = 23, out_bits: int = 8) -> tuple[Tensor, float]:
    """GELU ≈ x · sigmoid(1.702 x) over rows (last axis: the row maximum M enters); scale S · 2^−(out_bits − 1).

    e = ShiftExp(x − M), e_M = ShiftExp(−M); sigmoid = (e · ⌊(2^31 − 1)/min(e + e_M, 2^31 − 1)⌋) >> (32 − out_bits);
    y = x · sigmoid, as wide as x and out_bits together.  One division per element.  Where it breaks: n has two
    bounds (`shift_exp_limits`): with n = 23 rows wider than about 9 lose their small end (errors of 0.3 to 1 at −8),
    scales below 0.005 reach the clamp at 2^31.  Raises AccelsimError when int64 would overflow.  Source: I-ViT,
    section 3.4.
    """
    require_rows(x_int, "shift_gelu")
    of = ShiftGelu.of(scale, n, out_bits)
    top = x_int.amax(-1, keepdim=True)
    e, e_top = _exponential(x_int - top, of.exp), _exponential(-top, of.exp)
    most = max(of.exp.largest, WORD) >> (32 - out_bits)  # above 2^(out_bits − 1) only where e passes the clamp
    require_wide(int(x_int.abs().max()) * most, "shift_gelu", "the result", ("a smaller n",))
    return x_int * _share(e, e + e_top, out_bits), of.out_scale


def _normalize(d: Tensor, sigma: Tensor) -> Tensor:
    """Normalized d · ⌊(2^31 − 1)/σ⌋ >> 1."""
    return d * floor_divide(torch.full_like(sigma, WORD), sigma) >> 1


def newton_ten(v: Tensor) -> Tensor:
    """Ten steps k ← (k + ⌊v/k⌋) >> 1 from 2^16: I-ViT's standard deviation, which is ⌊√v⌋ for some v only."""
    k = torch.full_like(v, 1 << NEWTON_START_BITS)
    for _ in range(NEWTON_STEPS):
        k = k + floor_divide(v, k) >> 1
    return k


@on_integers
def i_layernorm_ivit(x_int: Tensor, scale: float, gamma: Any, beta: Any) -> tuple[Tensor, Tensor]:
    """LayerNorm over the last axis as released: `i_layernorm_ibert` with σ from exactly ten Newton steps from 2^16.

    y = (d · ⌊(2^31 − 1)/σ⌋ >> 1) + bias, no shift of d.  Where it breaks: the steps do not converge for small √v:
    2 → 64, 16 → 65, 64 → 83, 96 → 105, 128 → 132, right from 187 to 2^22 (but for one more where v + 1 is a square).
    So it needs 16-bit inputs: with 8 bits and an outlier channel it loses 10 dB to `i_layernorm_ivit_converged`.
    Widths, errors: as `i_layernorm_ibert`, v below 2^62.  Source: I-ViT, section 3.5.
    """
    d = deviations(x_int, "i_layernorm_ivit")
    require_scale(scale, "i_layernorm_ivit")
    norm = IntegerNorm.of(gamma, beta, x_int.shape[-1], "i_layernorm_ivit")
    return norm.finish(_normalize(d, newton_ten((d**2).sum(-1, keepdim=True))))


@on_integers
def i_layernorm_ivit_converged(x_int: Tensor, scale: float, gamma: Any, beta: Any) -> tuple[Tensor, Tensor]:
    """I-ViT's LayerNorm repaired: the exact ⌊√v⌋, from Newton's start 2^⌈bits/2⌉ in five or six steps.

    A row of equal numbers gives the bias.  All else as `i_layernorm_ivit`.
    """
    where = "i_layernorm_ivit_converged"
    d = deviations(x_int, where)
    require_scale(scale, where)
    norm = IntegerNorm.of(gamma, beta, x_int.shape[-1], where)
    return norm.finish(_normalize(d, newton_root((d**2).sum(-1, keepdim=True)).clamp(min=1)))
