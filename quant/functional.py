"""Pure tensor functions of the schemes: affine codes, straight-through gradients, level sets, log2 codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from accelsim.formats import Format
from accelsim.problems import AccelsimError, Problem
from quant.levels import levels, nearest

NO_LEADING_ONE = -1  # the log2 code of zero


@dataclass(frozen=True, eq=False)
class Affine:
    """An affine quantizer: value = scale · (code − zero_point), codes low … high.

    `scale` and `zero_point` (integer values) have the dtype of what they quantize and broadcast against it.  So do
    `ends`, the lowest and highest codes element by element, where parts have fewer than low … high (`quant.head_parts`
    makes them from the plan; checkpoints do not keep them).
    """

    scale: Tensor
    zero_point: Tensor
    low: int
    high: int
    ends: tuple[Tensor, Tensor] | None = None


def quantize(x: Tensor, affine: Affine) -> Tensor:
    """Codes clamp(round(x / scale) + zero_point, low, high), as integers in the dtype of x; ties round to even.

    Source: Jacob et al. 2018, eq. 1, with the rounding of the torch references.
    """
    codes = torch.round(x / affine.scale) + affine.zero_point
    return torch.clamp(codes, affine.low, affine.high) if affine.ends is None else torch.clamp(codes, *affine.ends)


def dequantize(q: Tensor, affine: Affine) -> Tensor:
    """Values scale · (q − zero_point) of codes.  Source: Jacob et al. 2018, eq. 1."""
    return affine.scale * (q - affine.zero_point)


def fake_quantize(x: Tensor, affine: Affine) -> Tensor:
    """The value that the code of x stands for: dequantize(quantize(x)).  No gradient; see `fake_quantize_ste`."""
    return dequantize(quantize(x, affine), affine)


def code_range(bits: int, symmetric: bool, signed: bool = True) -> tuple[int, int]:
    """Lowest and highest code.

    Signed: −2^(b−1) … 2^(b−1) − 1, without the lowest code if symmetric.  Unsigned: 0 … 2^b − 1.  Raises
    AccelsimError for widths outside 2 … 16 (unsigned 1 … 16).
    """
    if not (2 if signed else 1) <= bits <= 16:
        raise AccelsimError(Problem("quantizer", f"{bits} bits", "2 to 16 bits (unsigned: 1 to 16)"))
    if not signed:
        return 0, (1 << bits) - 1
    half = 1 << (bits - 1)
    return (1 - half if symmetric else -half), half - 1


def affine_from_range(low: Tensor, high: Tensor, bits: int, symmetric: bool, signed: bool = True) -> Affine:
    """The quantizer whose codes span [low, high], widened to contain zero; element by element.

    Asymmetric: scale = (high − low) / (2^b − 1), zero_point = lowest code − round(low / scale), so that zero is exact.
    Symmetric: zero_point 0, scale = max(|low|, |high|) / (2^(b−1) − 1); unsigned and symmetric: scale =
    high / (2^b − 1), what is negative clips to zero.  A range of only zeros gets scale 1.  Source: Krishnamoorthi
    2018, section 2.  Raises AccelsimError when an end is not finite or low > high.
    """
    first, last = code_range(bits, symmetric, signed)
    if not bool(torch.isfinite(low).all() and torch.isfinite(high).all() and (low <= high).all()):
        raise AccelsimError(Problem("quantizer range", "an end is not finite or low > high", "finite low ≤ high"))
    low, high = low.clamp(max=0), high.clamp(min=0)
    if not symmetric:
        scale = high / (last - first) - low / (last - first)
    elif signed:
        scale = torch.maximum(-low, high) / last
    else:
        scale = high / last
    # Below the normal numbers a scale has too few bits to divide by.
    scale = torch.where(scale >= torch.finfo(scale.dtype).tiny, scale, torch.ones_like(scale))
    if symmetric:
        return Affine(scale, torch.zeros_like(scale), first, last)
    return Affine(scale, torch.clamp(first - torch.round(low / scale), first, last), first, last)


def gradient_multiplier(numel: int, high: int) -> float:
    """Multiplier g = 1 / √(numel · Qp), which balances the gradient of a scale against those of the weights.

    Source: Esser et al. 2020 (LSQ), section 2.2; `numel` values share the scale, Qp is the highest code.
    """
    return float((numel * high) ** -0.5)


class _LearnedStep(torch.autograd.Function):
    """Clamp, then round; gradients of the value, the scale, the offset and the ends of the range.

    What is kept for the gradients is the rounding error and the side on which a value saturates (−1, 0, 1), as numbers:
    products with them are several times faster than masks.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, offset: Tensor | None, low: Tensor, high: Tensor, g: float | Tensor
    ) -> Tensor:
        position = x / scale if offset is None else (x - offset).div_(scale)
        inside = torch.maximum(position, low)
        torch.minimum(inside, high, out=inside)
        code = torch.round(inside)
        others = scale, low, high, scale if offset is None else offset
        ctx.save_for_backward(torch.sub(code, inside), position.sub_(inside).sign_(), *others)
        ctx.multiplier = g
        value = code.mul_(scale)
        return value if offset is None else value.add_(offset)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        error, side, *others = ctx.saved_tensors
        scale, low, high, offset = others
        shape = torch.broadcast_tensors(*others)[0].shape  # type: ignore[no-untyped-call]
        # Sums over the values that saturate below and above, from those with and without the sign of their side.
        signed = side * upstream
        outside = signed * side
        both, difference = outside.sum_to_size(shape), signed.sum_to_size(shape)
        below, above = (both - difference) / 2, (both + difference) / 2
        step = ((error * upstream).sum_to_size(shape) + below * low + above * high) * ctx.multiplier
        ends = (
            (scale * part).sum_to_size(end.shape) if ctx.needs_input_grad[3 + k] else None
            for k, (part, end) in enumerate(((below, low), (above, high)))
        )
        moved = both.sum_to_size(offset.shape) if ctx.needs_input_grad[2] else None
        return upstream - outside, step.sum_to_size(scale.shape), moved, *ends, None


def learned_step(
    x: Tensor, scale: Tensor, low: Tensor, high: Tensor, multiplier: float | Tensor = 1.0, offset: Tensor | None = None
) -> Tensor:
    """Values scale · round(clamp((x − offset) / scale, low, high)) + offset.

    Everything broadcasts against x; low and high are whole numbers, `multiplier` is a number or as scale is.  With
    u = (x − offset) / scale the gradients are, inside the range (ends included), and below or above it: of `x`: 1 | 0;
    of `scale`: multiplier · upstream · (round(u) − u) | multiplier · upstream · (low or high); of `offset`:
    0 | upstream; of `low` and `high`: 0 | scale · upstream on their side.  Source: Esser et al. 2020 (LSQ), eq. 1-3;
    Bhalgat et al. 2020 (LSQ+); ends that follow from learned bits: Li et al. 2022 (Q-ViT, arXiv 2201.07703).
    """
    result: Tensor = _LearnedStep.apply(x, scale, offset, low, high, multiplier)  # type: ignore[no-untyped-call]
    return result


def fake_quantize_ste(
    x: Tensor, affine: Affine, multiplier: float | Tensor = 1.0, offset: Tensor | None = None
) -> Tensor:
    """`fake_quantize` that can be trained: `learned_step` with Qn, Qp = low − zero_point, high − zero_point.

    The zero point gets no gradient; `multiplier` is `gradient_multiplier` or 1.
    """
    first, last = (affine.low, affine.high) if affine.ends is None else affine.ends
    low, high = first - affine.zero_point, last - affine.zero_point
    return learned_step(x, affine.scale, low, high, multiplier, offset)


def levels_tensor(fmt: Format) -> Tensor:
    """`quant.levels.levels` as an int64 tensor: the sorted integers that a weight of this format can be."""
    return torch.from_numpy(np.array(levels(fmt)))


def project_levels(weights: Tensor, level_set: Tensor, scale: Tensor) -> Tensor:
    """Index (int64, [filters, n]) of the level nearest to weights[filters, n] / scale[filters].

    `level_set` is sorted; a tie goes to the lower level, as in `quant.levels.nearest`, which this calls.
    """
    values = weights.detach().double() / scale.detach().double()[:, None]
    return torch.from_numpy(nearest(values.cpu().numpy(), level_set.cpu().numpy())).to(weights.device)


def _rounded_exponent(x: Tensor) -> Tensor:
    """Leading-one index plus the bit below it (int64), for x > 0: ⌊log2 x⌋, one more when x ≥ 1.5 · 2^⌊log2 x⌋."""
    if not x.is_floating_point():
        # float64 holds 53 bits: drop low bits of longer integers, which cannot change the two leading ones.
        long = x >= 1 << 53
        return _rounded_exponent(torch.where(long, x >> 11, x).double()) + 11 * long
    mantissa, exponent = torch.frexp(x)
    return exponent.long() - 1 + (mantissa >= 0.75)


def log2_code(x: Tensor, base_exponent: int, bits: int) -> Tensor:
    """Codes 0 … 2^bits − 1 (int64) of powers of two 2^(base_exponent + code), for integers or reals ≥ 0.

    The rule of the hardware: the index i of the leading one, and i + 1 when bit i − 1 is set (0b01100011 → 7); for
    reals the same, so it rounds at 1.5 · 2^i, not at √2 · 2^i.  The exponent is clamped to the window.  Zero has no
    leading one: its code is `NO_LEADING_ONE`.  Source: Shi et al. 2024 (Trio-ViT), its hardware rule, taken as golden.
    Raises AccelsimError for negative or non-finite values.
    """
    if not bool((torch.isfinite(x) & (x >= 0)).all()):
        raise AccelsimError(Problem("log2_code", "negative or not finite values", "finite values ≥ 0"))
    code = (_rounded_exponent(x) - base_exponent).clamp(0, (1 << bits) - 1)
    return torch.where(x > 0, code, NO_LEADING_ONE)


def log2_value(code: Tensor, base_exponent: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Values 2^(base_exponent + code) of `log2_code`'s codes; 0 for the code of zero."""
    power = torch.ldexp(torch.ones_like(code, dtype=dtype), (code + base_exponent).to(dtype))
    return torch.where(code == NO_LEADING_ONE, torch.zeros_like(power), power)


def log2_divide(numerator: Tensor, code: Tensor, base_exponent: int) -> Tensor:
    """Quotient numerator / 2^(base_exponent + code) of a float numerator; dividing by zero gives 0.

    Source: the division by a log2 divisor of Trio-ViT, a shift; the result 0 is an interpretation.
    """
    quotient = torch.ldexp(numerator, -(code + base_exponent).to(numerator.dtype))
    return torch.where(code == NO_LEADING_ONE, torch.zeros_like(quotient), quotient)
