"""From scales to integer constants, by one rule: real ratio → multiplier and shift; and what the stages do with them.

The stages are those of the hardware: `OutputStage` behind an array engine (`accelsim.engines.requantize`),
`VectorStage` in the vector unit.  docs/decisions/0012-integer-semantics.md has the reasons.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from accelsim.problems import AccelsimError, Problem

MULTIPLIER_BITS = 15  # magnitude: with its sign, the 16-bit operand of the priced 32 × 16 multiplier
MAX_SHIFT = 46  # a ratio that needs more is below 2^-32: no 32-bit sum times it reaches half a step
BIASED_BITS = 32  # accumulator + bias, two's complement


def dyadic(ratio: Tensor, where: str) -> tuple[Tensor, Tensor]:
    """Multiplier and shift (int64) with ratio ≈ multiplier · 2^−shift, for float64 ratios of any sign.

    shift = 14 − ⌊log2 |ratio|⌋, at most 46; multiplier = ratio · 2^shift, rounded to nearest (ties to even), and
    2^14 with a shift of one less where it would be 2^15.  The relative error is at most 2^−15.  Raises AccelsimError
    for a ratio that is not finite or of 2^14 and more (shift < 1).
    """
    if not bool(torch.isfinite(ratio).all()):
        raise AccelsimError(Problem(where, "a scale is zero or not finite", "finite scales above 0"))
    _, exponent = torch.frexp(ratio)  # |ratio| in [2^(e−1), 2^e)
    shift = torch.where(ratio == 0, 1, (MULTIPLIER_BITS - exponent.long()).clamp(max=MAX_SHIFT))
    multiplier = torch.round(torch.ldexp(ratio, shift)).long()
    over = multiplier.abs() >> MULTIPLIER_BITS == 1
    multiplier, shift = torch.where(over, multiplier >> 1, multiplier), torch.where(over, shift - 1, shift)
    if bool((shift < 1).any()):
        largest = float(ratio.abs().max())
        limit = 1 << (MULTIPLIER_BITS - 1)
        raise AccelsimError(Problem(where, f"the ratio of scales is {largest:g}", f"below {limit}"))
    return multiplier, shift


@dataclass(frozen=True, eq=False)
class OutputStage:
    """clamp(((accumulator + bias) · multiplier + 2^(shift − 1)) >> shift, low, high), ties towards +∞.

    `bias` is 32-bit with everything constant folded in; `multiplier` < 2^15, `shift` 1 … 46.  Tensors are int64 and
    broadcast against the accumulators.  `high` is a code; `low` is one, too (a zero point under a ReLU).
    """

    bias: Tensor
    multiplier: Tensor
    shift: Tensor
    low: int
    high: int

    def __call__(self, accumulator: Tensor) -> Tensor:
        """Codes of the accumulators; int64 in and out."""
        half = torch.ones_like(self.shift) << (self.shift - 1)
        return ((accumulator + self.bias).mul_(self.multiplier).add_(half) >> self.shift).clamp_(self.low, self.high)

    def check(self, where: str, low: Tensor, high: Tensor) -> None:
        """Raise AccelsimError unless bias and accumulator + bias fit 32 bits for accumulators low … high.

        Multipliers must not be negative: the output stage takes them without a sign.
        """
        if bool((self.multiplier < 0).any()):
            raise AccelsimError(Problem(where, "a negative multiplier behind an array engine", "a positive factor"))
        limit = 1 << (BIASED_BITS - 1)
        found = torch.stack([self.bias.min(), self.bias.max(), (low + self.bias).min(), (high + self.bias).max()])
        if int(found.min()) < -limit or int(found.max()) >= limit:
            what = f"bias + accumulator reaches {int(found.min()):,} … {int(found.max()):,}"
            raise AccelsimError(Problem(where, what, f"{-limit:,} … {limit - 1:,}", ("a larger weight scale",)))


@dataclass(frozen=True, eq=False)
class VectorStage:
    """(value · multiplier + constant) >> shift: a requantization of the vector unit.

    `constant` holds the rounding 2^(shift − 1), the input's zero point and the output's (exactly, unlike a bias in
    accumulator steps).  Nothing is clamped.
    """

    multiplier: Tensor
    shift: Tensor
    constant: Tensor

    def __call__(self, value: Tensor) -> Tensor:
        """Requantized values, int64 in and out."""
        return (value * self.multiplier + self.constant) >> self.shift


def vector_stage(ratio: Tensor, where: str, removed: Tensor | None = None, added: Tensor | None = None) -> VectorStage:
    """The stage that gives (value − removed) · ratio + added, rounded; `removed` and `added` are whole numbers."""
    multiplier, shift = dyadic(ratio, where)
    constant = torch.ones_like(shift) << (shift - 1)
    if removed is not None:
        constant = constant - removed.long() * multiplier
    if added is not None:
        constant = constant + (added.long() << shift)
    return VectorStage(multiplier, shift, constant)


def table_stage(step: float, scale: Tensor, zero_point: Tensor, low: int, high: int, where: str) -> OutputStage:
    """The second requantization, of table entries in steps of `step` to channels of different scales or offsets."""
    ratio = step / scale
    multiplier, shift = dyadic(ratio, where)
    stage = OutputStage(torch.round(zero_point / ratio).long(), multiplier, shift, low, high)
    entry = torch.tensor(1 << 15)
    stage.check(where, -entry, entry)
    return stage
