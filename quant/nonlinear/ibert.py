"""I-BERT: GELU, exponential, softmax and LayerNorm by second-order polynomials and an integer square root.

Source: Kim et al. 2021 (I-BERT: Integer-only BERT Quantization), section 3.4-3.6, with the constants of its released
code (kssteven418/I-BERT).  All constants are computed offline with `floor`; `>>` is an arithmetic shift.
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
    as_int64,
    as_row,
    bit_length,
    divide_half_even,
    floor_divide,
    on_integers,
    require_between,
    require_rows,
    require_scale,
    require_wide,
)
from quant.nonlinear.dyadic import Dyadic, multiply_wide

GELU_K, GELU_A, GELU_B, GELU_C = 1.4142, -0.2888, -1.769, 1.0
EXP_LN2, EXP_A, EXP_B, EXP_C = 0.6931, 0.35815147, 0.96963238, 1.0
STORED_EXP = (1 << 15) - 1  # the largest exponential after its requantization to 16 bits
RECIPROCAL_BITS = 32  # of a row sum
NORM_BITS = 31  # of the reciprocal of a standard deviation
VARIANCE_BITS = 32
COARSE_LEVELS = 256  # of `one` in `i_gelu_coarse`


@dataclass(frozen=True)
class IGelu:
    """Immediates of i-GELU.  `b`, `c` and `one` are negative, and so is `out_scale`.

    y = x · ((sgn(x)·((min(|x|, −b) + b)² + c) >> n) + one).
    """

    n: int
    b: int
    c: int
    one: int
    out_scale: float

    @staticmethod
    def of(scale: float, n: int = 14) -> IGelu:
        """Constants b = ⌊−1.769/S'⌋, c = ⌊(1/−0.2888)/S'²⌋, one = ⌊1/S_e⌋, S' = S/1.4142, S_e = −0.2888·S'²·2^n.

        Raises AccelsimError for a scale so fine that b² leaves 62 bits.
        """
        where = "i_gelu"
        require_between(n, 0, 30, where, "n")
        step = require_scale(scale, where) / GELU_K
        erf_scale = GELU_A * step**2 * 2**n
        if GELU_B / step < -(2.0**30):
            raise AccelsimError(Problem(where, f"scale {scale:g}: b needs more than 31 bits", "a scale above 3e-9"))
        b, c = math.floor(GELU_B / step), math.floor(GELU_C / GELU_A / step**2)
        return IGelu(n, b, c, math.floor(1 / erf_scale), float(scale) * erf_scale / 2)


@on_integers
def i_gelu(x_int: Tensor, scale: float, n: int = 14) -> tuple[Tensor, float]:
    """i-GELU of x_int · scale, element by element; the returned scale is negative (value = integer · scale).

    Widths: b² is (2.5/S)² (S = 1e-3: 23 bits), the result as wide as x times 2/S_e.  The ideal polynomial is within
    0.0182 of GELU.  Where it breaks: `one` has |1/S_e| = 4.2e-4/S² levels at n = 14, 42 at S = 3e-3 and none from
    S = 0.02 on (SQNR 39 and below 4 dB), so it needs the accumulator of the layer before; for 8-bit inputs see
    `i_gelu_coarse`.  Raises AccelsimError when int64 would overflow.  Source: I-BERT, algorithm 2.
    """
    return _i_gelu(x_int, IGelu.of(scale, n))


def _i_gelu(x: Tensor, of: IGelu) -> tuple[Tensor, float]:
    most = int(x.abs().max())
    require_wide(most * ((of.b**2 - of.c >> of.n) + 1 - of.one), "i_gelu", "the result", ("a coarser scale",))
    erf = torch.sign(x) * ((torch.clamp(x.abs(), max=-of.b) + of.b) ** 2 + of.c) >> of.n
    return x * (erf + of.one), of.out_scale


def coarse_n(scale: float) -> int:
    """The largest n ≤ 14 with |1/S_e| ≥ 256 levels in `one`; 0 when no n has (scales above 0.165).

    Chosen by measurement: from 256 levels on, no other n gains more than 1 dB (docs/nonlinear.md).
    """
    levels = 1 / abs(GELU_A * (require_scale(scale, "i_gelu_coarse") / GELU_K) ** 2)
    return max(0, min(14, math.floor(math.log2(levels / COARSE_LEVELS)))) if levels > COARSE_LEVELS else 0


@on_integers
def i_gelu_coarse(x_int: Tensor, scale: float) -> tuple[Tensor, float]:
    """i-GELU repaired for coarse scales: n = `coarse_n(scale)` instead of 14, all else as `i_gelu`.

    The same program with another shift; the same integers up to S = 1.28e-3, where n is 14.  SQNR on N(0, 2²): 32 dB
    at S = 0.3, 38 to 44 below 0.2, where b = ⌊−2.5/S⌋ has few levels, too.
    """
    return _i_gelu(x_int, IGelu.of(scale, coarse_n(scale)))


@dataclass(frozen=True)
class IExp:
    """Immediates of i-exp: e = max(0, (r·(r + b) + c) << (n − q)), x = q·x0 + r; x0 is negative."""

    n: int
    x0: int
    b: int
    c: int
    out_scale: float

    @staticmethod
    def of(scale: float, n: int = 30) -> IExp:
        """Constants x0 = ⌊−0.6931/S⌋, b = ⌊2.7073/S⌋, c = ⌊2.7921/S²⌋, out_scale = 0.3582·S²/2^n.

        Raises AccelsimError when exp(0) = c · 2^n is 0 or leaves 62 bits.
        """
        where = "i_exp"
        require_between(n, 0, 61, where, "n")
        step = require_scale(scale, where)
        c = math.floor(EXP_C / EXP_A / step**2)
        if c == 0:
            raise AccelsimError(Problem(where, f"scale {step:g}: exp(0) is 0", "a scale of at most 1.67"))
        require_wide(c << n, where, f"exp(0) at scale {step:g}", ("a smaller n", "a coarser scale"))
        b = math.floor(EXP_B / EXP_A / step)
        return IExp(n, math.floor(-EXP_LN2 / step), b, c, EXP_A * step**2 / 2**n)

    @property
    def largest(self) -> int:
        """exp(0), the largest result."""
        return self.c << self.n


@on_integers
def i_exp(x_int: Tensor, scale: float, n: int = 30) -> tuple[Tensor, float]:
    """exp(x_int · scale) for x ≤ 0: n octaves of a second-order polynomial; below n·ln2 it stays at 2^−n.

    Widths: exp(0) = c · 2^n, 39 bits at S = 0.1 and 52 at S = 1e-3 (n = 20 fits 32 bits up to S = 0.03).  The ideal
    polynomial is within 1.91e-3 of exp.  Raises AccelsimError for x > 0 and when 62 bits overflow (n = 30:
    S < 2.6e-5).  Source: I-BERT, algorithm 3, with the constants of the released code.
    """
    if bool((x_int > 0).any()):
        raise AccelsimError(Problem("i_exp", f"x reaches {int(x_int.max())}", "x ≤ 0: subtract the row maximum first"))
    of = IExp.of(scale, n)
    return exponential(x_int, of), of.out_scale


def exponential(x: Tensor, of: IExp) -> Tensor:
    """i-exp of int64 x ≤ 0."""
    x = torch.clamp(x, min=of.n * of.x0)
    q = floor_divide(x, torch.full_like(x, of.x0))
    r = x - q * of.x0
    return torch.clamp(r * (r + of.b) + of.c, min=0) << (of.n - q)


@dataclass(frozen=True)
class ISoftmax:
    """Immediates of i-softmax: those of its exponential, the requantization to 16 bits, and the output's bits."""

    exp: IExp
    to16: Dyadic
    out_bits: int

    @staticmethod
    def of(scale: float, n: int = 30, out_bits: int = 16) -> ISoftmax:
        """The row maximum is always present, so the range of the 16-bit requantization is exp(0), a constant."""
        require_between(out_bits, 2, 31, "i_softmax", "out_bits")
        exp = IExp.of(scale, n)
        to16 = Dyadic.of(STORED_EXP / exp.largest)
        if to16.shift <= RECIPROCAL_BITS:
            raise AccelsimError(Problem("i_softmax", f"exp(0) is {exp.largest}", "at least 2^17", ("a larger n",)))
        return ISoftmax(exp, to16, out_bits)


@on_integers
def i_softmax(x_int: Tensor, scale: float, n: int = 30, out_bits: int = 16) -> tuple[Tensor, float]:
    """Softmax over the last axis; integers 0 … 2^out_bits − 1, scale 2^−out_bits.

    e = i_exp(x − max); e16 = (e · m + half) >> s to 15 bits and sign; y = (e16 · ⌊2^32 / Σ e16⌋) >> (32 − out_bits).
    Widths: e as in `i_exp`, sums and e16 · ⌊…⌋ 33 bits.  Where it breaks: coarse scales, where ⌊0.6931/S⌋ is a small
    number (SQNR 14 dB at S = 0.2, 36 at 0.1, 54 at 1e-3).  Raises AccelsimError as `i_exp`, and for rows of more than
    131,072.  Source: I-BERT, algorithm 3; 16-bit output: MNQ; its 16-bit quantizer is calibrated on running maxima
    in the released code, here on the constant exp(0).
    """
    require_rows(x_int, "i_softmax")
    require_between(x_int.shape[-1], 1, 1 << 17, "i_softmax", "row length")
    of = ISoftmax.of(scale, n, out_bits)
    shifted = x_int - x_int.amax(-1, keepdim=True)
    stored = multiply_wide(exponential(shifted, of.exp), of.to16)
    total = stored.sum(-1, keepdim=True)
    reciprocal = floor_divide(torch.full_like(total, 1 << RECIPROCAL_BITS), total)
    return stored * reciprocal >> (RECIPROCAL_BITS - out_bits), 2.0**-out_bits


def i_sqrt(v: Any) -> Any:
    """⌊√v⌋ of integers 0 ≤ v < 2^62, exact: k ← min(k, (k + ⌊v/k⌋) >> 1) from 2^⌈bits/2⌉.

    Five steps for v below 2^32, six above: the start is at most 2√v, and every step squares the relative error.
    Takes and gives a tensor, or numpy.  Source: I-BERT, algorithm 4 (there until k grows); raises AccelsimError for
    v < 0.
    """
    value = as_int64(v, "i_sqrt", 63)
    if bool((value < 0).any()):
        raise AccelsimError(Problem("i_sqrt", f"v reaches {int(value.min())}", "v ≥ 0"))
    root = newton_root(value)
    return root if isinstance(v, Tensor) else root.numpy()


def newton_root(v: Tensor) -> Tensor:
    """⌊√v⌋ of an int64 tensor 0 ≤ v < 2^62."""
    k = torch.ones_like(v) << ((bit_length(v) + 1) >> 1)
    for _ in range(5 if int(v.max()) >> 32 == 0 else 6):
        k = torch.minimum(k, k + floor_divide(v, k.clamp(min=1)) >> 1)
    return k


def normal_unit(channels: int) -> float:
    """Step S_n = √C/2^30 of what a LayerNorm of C channels gives before its gain."""
    return math.sqrt(channels) / (1 << (NORM_BITS - 1))


@dataclass(frozen=True)
class IntegerNorm:
    """Constants of I-BERT's and I-ViT's LayerNorm: `bias` per channel, the output's `scale` per channel."""

    bias: tuple[int, ...]
    scale: tuple[float, ...]

    @staticmethod
    def of(gamma: Any, beta: Any, channels: int, where: str = "layernorm") -> IntegerNorm:
        """Constants bias = ⌊(β/γ)/S_n⌋, scale = S_n·γ, S_n = √C/2^30.

        Raises AccelsimError for γ = 0 or a bias beyond 62 bits.
        """
        gain, offset = as_row(gamma, channels, f"{where}: gamma"), as_row(beta, channels, f"{where}: beta")
        if bool((gain == 0).any()):
            what = f"gamma is 0 in channel {int((gain == 0).nonzero()[0])}"
            raise AccelsimError(Problem(where, what, "no zero: β/γ is the bias", ("the smallest |γ| that keeps β",)))
        unit = normal_unit(channels)
        bias = torch.floor(offset / gain / unit)
        if float(bias.abs().max()) >= WIDE:
            raise AccelsimError(Problem(where, f"β/γ reaches {float((offset / gain).abs().max()):g}", "a larger |γ|"))
        return IntegerNorm(tuple(int(b) for b in bias.tolist()), tuple((unit * gain).tolist()))

    def finish(self, normal: Tensor) -> tuple[Tensor, Tensor]:
        """Normalized integers plus the bias, and the scale per channel."""
        bias = torch.tensor(self.bias, device=normal.device)
        return normal + bias, torch.tensor(self.scale, dtype=torch.float64, device=normal.device)


def deviations(x: Tensor, where: str) -> Tensor:
    """Differences x − round(row mean), ties to even.  Raises AccelsimError when a sum of squares may leave 62 bits."""
    require_rows(x, where)
    total = x.sum(-1, keepdim=True)
    d = x - divide_half_even(total, torch.full_like(total, x.shape[-1]))
    require_wide(int(d.abs().max()) ** 2 * x.shape[-1], where, "the sum of squares", ("a coarser scale",))
    return d


def _least_shift(d: Tensor) -> int:
    """The least shift that brings every row's sum of squares below 2^32."""
    largest = int((d**2).sum(-1).max())
    shift = 0
    while largest > 1 << (VARIANCE_BITS + 2 * shift) or int(((d >> shift) ** 2).sum(-1).max()) >> VARIANCE_BITS:
        shift += 1
    return shift


@on_integers
def i_layernorm_ibert_wide(x_int: Tensor, scale: float, gamma: Any, beta: Any) -> tuple[Tensor, Tensor]:
    """`i_layernorm_ibert` without its shift: the sum of squares has up to 62 bits (16-bit inputs: 44).

    What the vector unit executes, because Σ(x − μ)² then follows from Σx and Σx² in one pass; the same integers
    wherever the shift is 0.
    """
    where = "i_layernorm_ibert_wide"
    require_scale(scale, where)
    d = deviations(x_int, where)
    sigma = newton_root((d**2).sum(-1, keepdim=True)).clamp(min=1)
    return IntegerNorm.of(gamma, beta, x_int.shape[-1], where).finish(d * _reciprocal(sigma) >> 1)


def _reciprocal(sigma: Tensor) -> Tensor:
    """⌊2^31 / σ⌋."""
    return floor_divide(torch.full_like(sigma, 1 << NORM_BITS), sigma)


@on_integers
def i_layernorm_ibert(
    x_int: Tensor, scale: float, gamma: Any, beta: Any, shift: int | None = None
) -> tuple[Tensor, Tensor]:
    """LayerNorm over the last axis without ε; returns integers and a float64 scale per channel, √C/2^30 · γ.

    d = x − round(mean); v = Σ (d >> t)², t = `shift` (None: the least that all rows of this call need, so a row's
    result depends on the other rows: give the shift where it must not; the released code learns the largest during
    calibration); σ = ⌊√v⌋ · 2^t; y = (d · ⌊2^31/σ⌋ >> 1) + bias.  The input's scale cancels.
    Widths: x 22 bits, v 32 without a sign, y 32, and with the bias 32 while |β/γ| ≤ √C.  A row of equal numbers gives
    the bias (the released code divides by zero).  Raises AccelsimError for γ = 0 and when `shift` leaves v above 32
    bits.  Source: I-BERT, section 3.6.
    """
    where = "i_layernorm_ibert"
    require_scale(scale, where)
    d = deviations(x_int, where)
    norm = IntegerNorm.of(gamma, beta, x_int.shape[-1], where)
    t = _least_shift(d) if shift is None else shift
    require_between(t, 0, 31, where, "shift")
    v = ((d >> t) ** 2).sum(-1, keepdim=True)
    require_wide(int(v.max()), where, "the sum of squares", (f"shift={_least_shift(d)}",), 1 << VARIANCE_BITS)
    sigma = newton_root(v).clamp(min=1) << t
    return norm.finish(d * _reciprocal(sigma) >> 1)
