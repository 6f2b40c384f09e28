"""ShiftExp (I-ViT, algorithm 1; Li and Gu 2023) in micro-operations, for Shiftmax and ShiftGELU."""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.engines.vector_unit import OpCode
from accelsim.nonlinear.program import SIGNED, Builder, Register, constant_quotient
from accelsim.problems import AccelsimError, Problem

CONSTANT_BITS = 16
WORD_BITS = 31  # exp(0) stays below 2^31
LARGEST_LEFT_SHIFT = 32


@dataclass(frozen=True)
class ShiftExp:
    """Immediates: e = ((r − 2·x0) << (n − q)) >> 1 with p = x + (x >> 1) − (x >> 4) = q·x0 + r, x0 negative."""

    n: int
    x0: int

    def check(self, where: str, least: int = 1) -> None:
        """Raise AccelsimError unless `least` ≤ exp(0) = |x0|·2^n < 2^31 and |x0| < 2^15."""
        one = -self.x0 << self.n if 0 <= self.n <= WORD_BITS and self.x0 < 0 else 0
        if not max(1, least) <= one < 1 << WORD_BITS or -self.x0 >> (CONSTANT_BITS - 1):
            what, expected = (
                f"n = {self.n} and x0 = {self.x0}",
                f"|x0| · 2^n of {least:,} … 2^{WORD_BITS} − 1, |x0| < 2^15",
            )
            raise AccelsimError(Problem(where, what, expected, ("another n", "another scale of the input")))


def shift_exp(build: Builder, x: Register, of: ShiftExp, bits: int) -> Register:
    """The exponential of −2^bits < x ≤ 0, below 2^31."""
    p = build.op(OpCode.MAX, _slope(build, x), of.n * of.x0)
    # 1.4375 · 2^bits needs one bit more.
    octave = constant_quotient(build, p, of.x0, bits + 1)
    amount = build.op(OpCode.SUBTRACT_FROM, octave, of.n)
    shifted = build.op(OpCode.SHIFT_LEFT, _mantissa(build, p, octave, of, bits), amount)
    return build.op(OpCode.SHIFT_RIGHT, shifted, 1)


def shift_exp_of_either_sign(build: Builder, x: Register, of: ShiftExp, bits: int) -> Register:
    """The exponential of −2^bits < x < 2^bits, clamped to 2^31 − 1: once per row.

    A positive multiple of x0 gets an octave one too small, and r = x0 instead of 0: the same value, as the pieces of
    the exponential meet there.
    """
    p = build.op(OpCode.MAX, _slope(build, x), of.n * of.x0)
    octave = constant_quotient(build, p, of.x0, bits + 1)
    amount = build.op(OpCode.MIN, build.op(OpCode.SUBTRACT_FROM, octave, of.n), LARGEST_LEFT_SHIFT)
    wide = CONSTANT_BITS + SIGNED + LARGEST_LEFT_SHIFT
    shifted = build.op(OpCode.SHIFT_LEFT, _mantissa(build, p, octave, of, bits), amount, wide)
    halved = build.op(OpCode.SHIFT_RIGHT, shifted, 1, wide)
    return build.op(OpCode.MIN, halved, (1 << WORD_BITS) - 1, wide)


def _slope(build: Builder, x: Register) -> Register:
    """Times 1.4375 by two shifts and two additions."""
    half, sixteenth = build.op(OpCode.SHIFT_RIGHT, x, 1), build.op(OpCode.SHIFT_RIGHT, x, 4)
    return build.op(OpCode.SUBTRACT, build.op(OpCode.ADD, x, half), sixteenth)


def _mantissa(build: Builder, p: Register, octave: Register, of: ShiftExp, bits: int) -> Register:
    """What is shifted: r − 2·x0 with r = p − q·x0."""
    multiple = build.op(OpCode.MULTIPLY, octave, of.x0, bits + 1 + SIGNED, CONSTANT_BITS)
    return build.op(OpCode.ADD, build.op(OpCode.SUBTRACT, p, multiple), -2 * of.x0)
