"""GELU as programs of the vector unit: i-GELU (I-BERT), ShiftGELU (I-ViT), a table."""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.engines.vector_unit import OpCode
from accelsim.nonlinear.methods import Method, register_method
from accelsim.nonlinear.program import SIGNED, Builder, Program, Requantize, require_bits
from accelsim.nonlinear.shift_exp import ShiftExp, shift_exp, shift_exp_of_either_sign
from accelsim.problems import AccelsimError, Problem

FINE_BITS, CODE_BITS = 16, 8  # inputs of i-GELU; of ShiftGELU and the table
CONSTANT_BITS = 16
ERF_BITS = 19
WORD = (1 << 31) - 1


@dataclass(frozen=True)
class IBertGelu:
    """Immediates of i-GELU: y = x·((sgn(x)·((min(|x|, −b) + b)² + c) >> n) + one); b, c and one are negative."""

    n: int
    b: int
    c: int
    one: int
    store: Requantize

    def check(self) -> None:
        """Raise AccelsimError where a constant does not fit the program's widths."""
        require_bits("i-gelu", "b", self.b, CONSTANT_BITS)
        require_bits("i-gelu", "c", self.c, 32)
        require_bits("i-gelu", "2 · one", 2 * self.one - 1, ERF_BITS)
        if not 0 <= self.n <= 30 or max(self.b, self.c, self.one) >= 0:
            raise AccelsimError(Problem("i-gelu", f"{self}", "n of 0 … 30; b, c and one below 0"))


@dataclass(frozen=True)
class IVitGelu:
    """Immediates of ShiftGELU: those of ShiftExp at 1.702 times the scale, and the bits of the sigmoid (8)."""

    exp: ShiftExp
    store: Requantize
    out_bits: int = 8


def ibert_gelu(of: IBertGelu) -> Program:
    """i-GELU (I-BERT, eq. 8 and algorithm 2; Kim et al. 2021) of 16-bit inputs, requantized to the stored codes.

    The sign of the method's scale is in the multiplier of `store`.  Raises AccelsimError for constants that do not fit.
    """
    of.check()
    build = Builder()
    x = build.operand("x")
    magnitude = build.op(OpCode.MIN, build.op(OpCode.SIGN, x, x), -of.b)
    shifted = build.op(OpCode.ADD, magnitude, of.b)
    squared = build.op(OpCode.MULTIPLY, shifted, shifted, CONSTANT_BITS, CONSTANT_BITS)
    polynomial = build.op(OpCode.ADD, squared, of.c)
    signed = build.op(OpCode.SIGN, x, polynomial, 33)
    erf = build.op(OpCode.ADD, build.op(OpCode.SHIFT_RIGHT, signed, of.n, 33), of.one)
    y = build.op(OpCode.MULTIPLY, x, erf, FINE_BITS, ERF_BITS)
    return build.finish(build.requantize(y, of.store, FINE_BITS + ERF_BITS - 1), y)


def ivit_gelu(of: IVitGelu) -> Program:
    """ShiftGELU (I-ViT, section 3.4; Li and Gu 2023): x·sigmoid(1.702 x) over rows, requantized to the stored codes.

    Two passes: the row's maximum M; exponentials of x − M (and of −M, once per row), their share, the product.
    Raises AccelsimError for constants that do not fit.
    """
    of.exp.check("shift-gelu")
    build = Builder()
    x, top = build.operand("x"), build.row(-(1 << (CODE_BITS - 1)))
    build.to_row(OpCode.MAX_TO_ROW, top, x, CODE_BITS)
    build.next_pass()
    # A maximum of -128 gives an exponential of +128.
    at_top = shift_exp_of_either_sign(build, build.op(OpCode.SUBTRACT_FROM, top, 0), of.exp, CODE_BITS)
    e = shift_exp(build, build.op(OpCode.SUBTRACT, x, top, CODE_BITS + SIGNED), of.exp, CODE_BITS)
    total = build.op(OpCode.MIN, build.op(OpCode.ADD, e, at_top), WORD)
    factor = build.op(OpCode.DIVIDE_INTO, total, WORD, 31, 31)
    sigmoid = build.op(OpCode.SHIFT_RIGHT, build.op(OpCode.MULTIPLY, e, factor, 31, 31), 32 - of.out_bits)
    y = build.op(OpCode.MULTIPLY, x, sigmoid, CODE_BITS, CODE_BITS)
    return build.finish(build.requantize(y, of.store, 2 * CODE_BITS), y)


def table_gelu() -> Program:
    """Any function of an 8-bit code: one access of a table of 256 stored codes, indexed by the bits of the code."""
    build = Builder()
    code = build.op(OpCode.TABLE, build.operand("x"))
    return build.finish(code, code)


_REQUANTIZE = Requantize(1, 0, 0)
register_method(
    Method("gelu", "ibert", ibert_gelu(IBertGelu(14, -2502, -6925000, -423, _REQUANTIZE)).passes, FINE_BITS)
)
register_method(Method("gelu", "ivit", ivit_gelu(IVitGelu(ShiftExp(23, -12), _REQUANTIZE)).passes, CODE_BITS))
register_method(Method("gelu", "table", table_gelu().passes, CODE_BITS))
