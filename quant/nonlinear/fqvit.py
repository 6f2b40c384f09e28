"""FQ-ViT: softmax as powers of two, and LayerNorm of inputs with a power-of-two factor per channel.

Source: Lin et al. 2022 (FQ-ViT: Post-Training Quantization for Fully Quantized Vision Transformer),
with the rules of its released code (linyang-zhh/FQ-ViT).  Its GELU stays in floating point: it has no integer form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from accelsim.problems import AccelsimError, Problem
from quant.functional import log2_code
from quant.nonlinear.arrays import (
    EXACT,
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
    shift_half_even,
)
from quant.nonlinear.ibert import IExp, exponential, newton_root

FACTORS = (0, 1, 2, 3)  # exponents of the power-of-two factors
MANTISSA_BITS = 8
MOST_PLACES = 31
ROOT_BITS = 16  # of √(C·Σu² − (Σu)²), of which the leading one is the highest
NORM_BITS = 31  # of its reciprocal
MEAN_BITS = 8  # fraction bits of a token's mean
GAIN_BITS = 15  # of γ·C/s_out per channel
OFFSET_BITS = 16  # fraction bits of β/s_out


@on_integers
def log_int_softmax(x_int: Tensor, scale: float, n: int = 30, bits: int | None = 4) -> tuple[Tensor, float]:
    """Softmax over the last axis as powers of two: the value is 2^−code (scale 1), and 0 for the code 2^bits.

    t = round(Σe / e), e = i_exp; code = ⌊log2 t⌋, one more when t ≥ 1.5 · 2^⌊log2 t⌋; from 2^bits on: 2^bits.  So there
    are 2^bits + 1 codes, which `bits` bits cannot store: `log_int_softmax_stored` is the repaired one.  `bits=None`:
    no clamp.  Widths: Σe below 2^62 (n = 20 for 32-bit hardware), t likewise; one division per element.
    Where it breaks: powers of two limit the SQNR to about 13 dB at any width, rows do not sum to one (mean about 1.04).
    Raises AccelsimError as `i_exp`, and when a row's sum could leave 62 bits.  Source: FQ-ViT, Log-Int-Softmax.
    """
    code = _share_exponent(x_int, scale, n)
    if bits is None:
        return code, 1.0
    require_between(bits, 1, 6, "log_int_softmax", "bits")
    return torch.clamp(code, max=1 << bits), 1.0


@on_integers
def log_int_softmax_stored(x_int: Tensor, scale: float, n: int = 30, bits: int = 4) -> tuple[Tensor, float]:
    """Log-Int-Softmax repaired so that `bits` bits hold it: codes 0 … 2^bits − 1, the last one stands for zero.

    Every share below 2^−(2^bits − 2) becomes zero; all else as `log_int_softmax`.
    """
    require_between(bits, 1, 6, "log_int_softmax_stored", "bits")
    return torch.clamp(_share_exponent(x_int, scale, n), max=(1 << bits) - 1), 1.0


def _share_exponent(x: Tensor, scale: float, n: int) -> Tensor:
    """Exponents k ≥ 0 of the shares 2^−k.  No exponential is 0: the polynomial is at least 1."""
    where = "log_int_softmax"
    require_rows(x, where)
    of = IExp.of(scale, n)
    require_wide(of.largest * x.shape[-1], where, "the row sum", ("a smaller n", "a coarser scale"))
    e = exponential(x - x.amax(-1, keepdim=True), of)
    return log2_code(divide_half_even(e.sum(-1, keepdim=True).expand_as(e), e), 0, 6)


def ptf_factors(samples: Any, bits: int = 8) -> tuple[float, int, Tensor]:
    """Power-of-two factors of samples [.., channels]: base scale s1, zero point, exponent α (int64) per channel.

    s8 = (max − min) / (2^bits − 1), s1 = s8/8, zero point −round(min/s8) within the codes 0 … 2^bits − 1; α in 0 … 3
    with the least Σ (x − x̂)² of codes clip(round(x/(2^α·s1)) + z), the least α of equals.  Only zeros: scale 1.
    Source: FQ-ViT, power-of-two factor.  Raises AccelsimError for samples that are not finite.
    """
    require_between(bits, 2, 16, "ptf_factors", "bits")
    x = torch.as_tensor(samples, dtype=torch.float64)
    if x.dim() == 0 or x.numel() == 0 or not bool(torch.isfinite(x).all()):
        raise AccelsimError(Problem("ptf_factors", "no rows of finite samples", "finite samples [.., channels]"))
    top = (1 << bits) - 1
    s8 = (float(x.max()) - float(x.min())) / top or 1.0
    zero = int(min(max(-round(float(x.min()) / s8), 0), top))
    s1, rows = s8 / 8, x.reshape(-1, x.shape[-1])
    errors = [((_rounded(rows, s1 * 2**alpha, zero, top) - rows) ** 2).sum(0) for alpha in FACTORS]
    return s1, zero, torch.stack(errors).argmin(0)


def _rounded(x: Tensor, scale: float, zero: int, top: int) -> Tensor:
    """What x becomes as a code 0 … top."""
    return (torch.clamp(torch.round(x / scale) + zero, 0, top) - zero) * scale


@on_integers
def ptf_layernorm(
    x_q: Tensor, scale: float, alpha_pow2: Any, gamma: Any, beta: Any, out_scale: float
) -> tuple[Tensor, float]:
    """LayerNorm over the last axis of x_q · 2^α · scale, as released: square root and reciprocal in float64.

    x_q has the zero point subtracted, `alpha_pow2` is 2^α per channel.  u = x_q · 2^α; σ = (s1/C)·√(C·Σu² − (Σu)²);
    A = γ·s1/(σ·s_out); N = clip(7 − ⌊log2 |A|⌋, 0, 31); M = clip(⌊|A|·2^N⌋, 0, 255);
    y = round((sgn(A)·M·u + round((β − γ·μ/σ)/s_out·2^N))/2^N), not clamped.  No ε: a row of equal numbers gives
    β/s_out (the released code divides by zero).  A, M and N belong to a token and a channel, so this is neither
    shift-only nor free of divisions: a root and a reciprocal per token, a leading one per element.  Raises
    AccelsimError when C·Σu² leaves 2^53.  Source: FQ-ViT and its released code.
    """
    where = "ptf_layernorm"
    u, total, spread = _moments(x_q, alpha_pow2, where)
    step, out = require_scale(scale, where), require_scale(out_scale, where, "out_scale")
    channels = u.shape[-1]
    gain, offset = as_row(gamma, channels, f"{where}: gamma"), as_row(beta, channels, f"{where}: beta")
    sigma = (step / channels) * torch.sqrt(spread.double())
    mean = total.double() / channels * step
    flat = spread == 0
    safe = torch.where(flat, 1.0, sigma)
    a = torch.where(flat, 0.0, step / safe) * gain / out
    _, exponent = torch.frexp(a.abs())  # |a| in [2^(e−1), 2^e)
    places = torch.where(a == 0, MOST_PLACES, (MANTISSA_BITS - exponent.long()).clamp(0, MOST_PLACES))
    mantissa = torch.floor(torch.ldexp(a.abs(), places)).clamp(0, (1 << MANTISSA_BITS) - 1).long()
    constant = torch.ldexp((offset - torch.where(flat, 0.0, mean / safe) * gain) / out, places)
    if float(constant.abs().max()) >= EXACT:
        raise AccelsimError(Problem(where, f"β/s_out reaches {float((offset / out).abs().max()):g}", "below 2^22"))
    product = torch.sign(a).long() * mantissa * u
    return shift_half_even(product + torch.round(constant).long(), places), float(out_scale)


def _moments(x_q: Tensor, alpha_pow2: Any, where: str) -> tuple[Tensor, Tensor, Tensor]:
    """Values u = x_q · 2^α, their sum over the row, and C·Σu² − (Σu)²."""
    require_rows(x_q, where)
    channels = x_q.shape[-1]
    factor = as_int64(alpha_pow2, f"{where}: alpha_pow2").cpu()
    if factor.shape != (channels,) or bool((factor < 1).any()) or bool((factor & (factor - 1) != 0).any()):
        raise AccelsimError(Problem(where, "alpha_pow2 is not a power of two per channel", f"{channels} powers of two"))
    most = int(x_q.abs().max()) * int(factor.max())
    levers = ("codes of fewer bits", "smaller factors")
    require_wide((most * channels) ** 2, where, "C·Σu²", levers, EXACT)
    u = x_q * factor
    total = u.sum(-1, keepdim=True)
    return u, total, channels * (u**2).sum(-1, keepdim=True) - total**2


@dataclass(frozen=True)
class PtfNorm:
    """Constants of `ptf_layernorm_integer` per channel: γ·C/s_out ≈ gain · 2^−places, β/s_out ≈ offset · 2^−16."""

    gain: tuple[int, ...]
    places: tuple[int, ...]
    offset: tuple[int, ...]

    @staticmethod
    def of(gamma: Any, beta: Any, out_scale: float, channels: int) -> PtfNorm:
        """Gains of 15 bits and sign, rounded to nearest.  Raises AccelsimError when a constant does not fit."""
        where = "ptf_layernorm_integer"
        out = require_scale(out_scale, where, "out_scale")
        gain = as_row(gamma, channels, f"{where}: gamma") * channels / out
        offset = torch.round(as_row(beta, channels, f"{where}: beta") / out * (1 << OFFSET_BITS))
        if float(offset.abs().max()) >= 1 << 31 or float(gain.abs().max()) >= 1 << 31:
            raise AccelsimError(Problem(where, "β/s_out or γ·C/s_out is too large", "below 2^15 and 2^31"))
        _, exponent = torch.frexp(gain)
        places = torch.where(gain == 0, 0, GAIN_BITS - exponent.long()).clamp(max=GAIN_BITS + MOST_PLACES)
        mantissa = torch.round(torch.ldexp(gain, places)).long()
        return PtfNorm(tuple(mantissa.tolist()), tuple(places.tolist()), tuple(offset.long().tolist()))


@on_integers
def ptf_layernorm_integer(
    x_q: Tensor, scale: float, alpha_pow2: Any, gamma: Any, beta: Any, out_scale: float
) -> tuple[Tensor, float]:
    """`ptf_layernorm` in integers only: arguments and result as there; `scale` cancels.

    Per token: D = C·Σu² − (Σu)² moved by an even number h of places to 2^30 … 2^32; R = ⌊√D⌋, 16 bits; ρ = ⌊2^31/R⌋;
    the mean with 8 fraction bits.  Per element: P = |gain|·ρ; its 8 leading bits are M, their place is N (0 … 31); then
    as the faithful one.  Widths: D 53 bits, P 32, P · mean 52.  At most 3 of 1,000 results differ from the
    faithful one, by one step, rarely by two (docs/nonlinear.md).  Raises AccelsimError as `ptf_layernorm`.
    """
    where = "ptf_layernorm_integer"
    require_scale(scale, where)
    u, total, spread = _moments(x_q, alpha_pow2, where)
    channels = u.shape[-1]
    of = PtfNorm.of(gamma, beta, out_scale, channels)
    gain, gain_places, offset = (torch.tensor(row) for row in (of.gain, of.places, of.offset))
    lift = (2 * ROOT_BITS - bit_length(spread)) >> 1  # half of h: the root moves by it
    moved = torch.where(lift >= 0, spread << (2 * lift).clamp(min=0), spread >> (-2 * lift).clamp(min=0))
    rho = floor_divide(torch.full_like(moved, 1 << NORM_BITS), newton_root(moved).clamp(min=1))
    rho = torch.where(spread == 0, 0, rho)
    mean = divide_half_even(total << MEAN_BITS, torch.full_like(total, channels))
    product = gain.abs() * rho  # |A| = product · 2^−drop0
    drop0 = gain_places + NORM_BITS - lift
    places = torch.where(product == 0, MOST_PLACES, MANTISSA_BITS + drop0 - bit_length(product)).clamp(0, MOST_PLACES)
    drop = (drop0 - places).clamp(0, WIDE.bit_length())
    mantissa = torch.clamp(product >> drop, max=(1 << MANTISSA_BITS) - 1)
    sign = torch.sign(gain)
    moved_mean = shift_half_even(product * mean, (drop + MEAN_BITS).clamp(max=62))
    kept = torch.where(
        places >= OFFSET_BITS,
        offset << (places - OFFSET_BITS).clamp(min=0),
        shift_half_even(offset.expand_as(places), (OFFSET_BITS - places).clamp(min=0)),
    )
    return shift_half_even(sign * (mantissa * u - moved_mean) + kept, places), float(out_scale)
