"""Softmax as programs of the vector unit: i-softmax (I-BERT), Shiftmax (I-ViT), Log-Int-Softmax (FQ-ViT).

Inputs are codes of 8 bits.  All have three passes over a row: its maximum; the exponentials and their sum; the shares.
"""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.engines.vector_unit import OpCode
from accelsim.nonlinear.methods import Method, register_method
from accelsim.nonlinear.program import (
    MULTIPLIER_BITS,
    SIGNED,
    Builder,
    Program,
    Register,
    Requantize,
    constant_quotient,
    require_bits,
)
from accelsim.nonlinear.shift_exp import ShiftExp, shift_exp
from accelsim.problems import AccelsimError, Problem

INPUT_BITS = 8
SMALLEST_CODE = -(1 << (INPUT_BITS - 1))
CONSTANT_BITS = 16
POLYNOMIAL_BITS = 31
EXPONENT_BITS = 48  # of Log-Int-Softmax's exponentials
MANTISSA_BITS = 31
SUM_BITS = 60
LOG_QUOTIENT_BITS = 17  # a share below 2^-16 is zero in four bits
WIDEST_SHIFT = 62


@dataclass(frozen=True)
class IExp:
    """Immediates of i-exp: e = max(0, r·(r + b) + c) << (n − q), x = q·x0 + r, x0 negative (I-BERT, algorithm 3)."""

    n: int
    x0: int
    b: int
    c: int

    def check(self, where: str) -> None:
        """Raise AccelsimError where a constant does not fit the program's widths, or an exponential is not positive."""
        require_bits(where, "x0", self.x0, CONSTANT_BITS)
        require_bits(where, "b", self.b, CONSTANT_BITS)
        require_bits(where, "c", self.c, POLYNOMIAL_BITS + SIGNED)
        last = self.x0 + 1  # the polynomial falls towards x0, where the next octave begins
        if self.x0 >= 0 or last * (last + self.b) + self.c < 1 or not 0 <= self.n <= 30:
            raise AccelsimError(Problem(where, f"i-exp with {self}", "x0 < 0, a polynomial above 0, n of 0 … 30"))


@dataclass(frozen=True)
class IBertSoftmax:
    """Immediates of i-softmax: those of i-exp, its requantization to 16 bits (e·mantissa / 2^shift), the output's."""

    exp: IExp
    mantissa: int
    shift: int
    store: Requantize
    out_bits: int = 16


@dataclass(frozen=True)
class IVitSoftmax:
    """Immediates of Shiftmax."""

    exp: ShiftExp
    store: Requantize
    out_bits: int = 16


@dataclass(frozen=True)
class FqvitSoftmax:
    """Immediates of Log-Int-Softmax: `last` is the largest stored code (2^bits − 1, or 2^bits in the released code)."""

    exp: IExp
    last: int = 15


def ibert_softmax(of: IBertSoftmax) -> Program:
    """i-softmax (I-BERT, algorithm 3; Kim et al. 2021) with a 16-bit share, requantized to the stored codes.

    The requantization to 16 bits multiplies the polynomial before its shift by n − q: (e·m + 2^(s−1)) >> s with
    e = p << (n − q) is ((p·m >> (s − 1 − n + q)) + 1) >> 1, exactly, and p is narrower than e by n bits.
    Raises AccelsimError for constants that do not fit.
    """
    of.exp.check("i-softmax")
    require_bits("i-softmax", "mantissa", of.mantissa, MANTISSA_BITS + SIGNED)
    places = of.shift - 1 - of.exp.n
    if places < 0:
        raise AccelsimError(Problem("i-softmax", f"shift {of.shift}", f"more than n = {of.exp.n}"))
    build = Builder()
    polynomial, octave = _polynomial(build, _below_maximum(build), of.exp)
    wide = build.op(OpCode.MULTIPLY, polynomial, of.mantissa, POLYNOMIAL_BITS, MANTISSA_BITS)
    amount = build.op(OpCode.MIN, build.op(OpCode.ADD, octave, places), WIDEST_SHIFT)
    moved = build.op(OpCode.SHIFT_RIGHT, wide, amount, POLYNOMIAL_BITS + MANTISSA_BITS)
    stored = build.op(OpCode.SHIFT_RIGHT, build.op(OpCode.ADD, moved, 1), 1)
    total = build.row()
    build.to_row(OpCode.SUM_TO_ROW, total, stored)
    build.next_pass()
    # The largest exponential is 2^15 - 1 or more, so the reciprocal has 18 bits.
    factor = build.op(OpCode.DIVIDE_INTO, total, 1 << 32, 18, 32)
    product = build.op(OpCode.MULTIPLY, stored, factor, 16, 18)
    share = build.op(OpCode.SHIFT_RIGHT, product, 32 - of.out_bits)
    return build.finish(build.requantize(share, of.store, MULTIPLIER_BITS), share)


def ivit_softmax(of: IVitSoftmax) -> Program:
    """Shiftmax (I-ViT, section 3.3; Li and Gu 2023), requantized to the stored codes.

    Raises AccelsimError for constants that do not fit, or exp(0) below 2^15.
    """
    of.exp.check("shiftmax", 1 << 15)
    build = Builder()
    e = shift_exp(build, _below_maximum(build), of.exp, INPUT_BITS)
    total = build.row()
    build.to_row(OpCode.SUM_TO_ROW, total, e, 44)
    build.next_pass()
    # The largest exponential is 2^15 or more, so the reciprocal has 16 bits.
    clamped = build.op(OpCode.MIN, total, (1 << 31) - 1, 44)
    factor = build.op(OpCode.DIVIDE_INTO, clamped, (1 << 31) - 1, 16, 31)
    product = build.op(OpCode.MULTIPLY, e, factor, 31, 16)
    share = build.op(OpCode.SHIFT_RIGHT, product, 32 - of.out_bits)
    return build.finish(build.requantize(share, of.store, MULTIPLIER_BITS), share)


def fqvit_softmax(of: FqvitSoftmax) -> Program:
    """Log-Int-Softmax (FQ-ViT, section 3.4; Lin et al. 2022): the code is -log2 of the share, the last one zero.

    The divider saturates at 17 quotient bits: a larger quotient is zero in four bits anyway.  Raises AccelsimError for
    constants that do not fit.
    """
    of.exp.check("log-int-softmax")
    require_bits("log-int-softmax", "c << n", of.exp.c << of.exp.n, EXPONENT_BITS + SIGNED)
    if not 1 <= of.last < LOG_QUOTIENT_BITS:
        raise AccelsimError(Problem("log-int-softmax", f"last code {of.last}", f"1 … {LOG_QUOTIENT_BITS - 1}"))
    build = Builder()
    polynomial, octave = _polynomial(build, _below_maximum(build), of.exp)
    amount = build.op(OpCode.SUBTRACT_FROM, octave, of.exp.n)
    e = build.op(OpCode.SHIFT_LEFT, polynomial, amount, EXPONENT_BITS)
    total = build.row()
    build.to_row(OpCode.SUM_TO_ROW, total, e, SUM_BITS)
    build.next_pass()
    quotient = build.op(OpCode.DIVIDE_INTO_EVEN, e, total, LOG_QUOTIENT_BITS, EXPONENT_BITS)
    high = build.op(OpCode.LEADING_ONE, quotient)
    # 2t >> high is 2 or 3: the bit below the leading one rounds up from 1.5 · 2^high on.
    below = build.op(OpCode.SHIFT_RIGHT, build.op(OpCode.SHIFT_LEFT, quotient, 1), high)
    exponent = build.op(OpCode.ADD, high, build.op(OpCode.AT_LEAST, below, 3))
    code = build.op(OpCode.MIN, exponent, of.last)
    return build.finish(code, code)


def _below_maximum(build: Builder) -> Register:
    """The first pass, and x less the row's maximum."""
    x, top = build.operand("x"), build.row(SMALLEST_CODE)
    build.to_row(OpCode.MAX_TO_ROW, top, x, INPUT_BITS)
    build.next_pass()
    return build.op(OpCode.SUBTRACT, x, top, INPUT_BITS + SIGNED)


def _polynomial(build: Builder, x: Register, of: IExp) -> tuple[Register, Register]:
    """max(0, r·(r + b) + c) and q of x = q·x0 + r."""
    x = build.op(OpCode.MAX, x, of.n * of.x0)
    octave = constant_quotient(build, x, of.x0, INPUT_BITS)
    rest = build.op(OpCode.SUBTRACT, x, build.op(OpCode.MULTIPLY, octave, of.x0, INPUT_BITS, CONSTANT_BITS))
    product = build.op(OpCode.MULTIPLY, rest, build.op(OpCode.ADD, rest, of.b), INPUT_BITS + SIGNED, CONSTANT_BITS)
    return build.op(OpCode.MAX, build.op(OpCode.ADD, product, of.c), 0), octave


_REQUANTIZE = Requantize(1, 0, 0)
_I_EXP = IExp(30, -7, 27, 279)  # a scale of 0.1; the counts do not depend on it
register_method(
    Method("softmax", "ibert", ibert_softmax(IBertSoftmax(_I_EXP, 1 << 30, 54, _REQUANTIZE)).passes, INPUT_BITS)
)
register_method(Method("softmax", "ivit", ivit_softmax(IVitSoftmax(ShiftExp(15, -10), _REQUANTIZE)).passes, INPUT_BITS))
register_method(Method("softmax", "fqvit", fqvit_softmax(FqvitSoftmax(_I_EXP)).passes, INPUT_BITS))
