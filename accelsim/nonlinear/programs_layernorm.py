"""LayerNorm as programs of the vector unit: I-BERT, I-ViT, and FQ-ViT's with power-of-two factors in integers.

Two passes over a row: its sum and its sum of squares; then once per row mean, standard deviation and reciprocal, and
every element.  The sum of squared deviations is Σx² − μ·(2Σx − C·μ), exactly, for the rounded mean μ, too.
"""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.engines.vector_unit import OpCode
from accelsim.nonlinear.methods import Method, register_method
from accelsim.nonlinear.program import (
    MAX_ROW_WIDTH,
    MULTIPLIER_BITS,
    Builder,
    Program,
    Register,
)
from accelsim.problems import AccelsimError, Problem

INPUT_BITS = 16
WIDTH_BITS = 13  # of the number of channels, 4,096 at most
SUM_BITS = 29
SQUARES_BITS = 44
VARIANCE_BITS = 44
ROOT_BITS = 23
DEVIATION_BITS = 17
RESULT_BITS = 32
EXACT_STEPS = 6  # of Newton's method from 2^⌈bits/2⌉, enough for 62 bits
TEN_STEPS = 10


@dataclass(frozen=True)
class Norm:
    """Immediates of the LayerNorms of I-BERT and I-ViT: the channels, and the range of the stored codes.

    Constants of a channel are operands: `bias` (32 bits), and multiplier (16 bits), `addend` and `shift` of its
    requantization.
    """

    channels: int
    low: int = -128
    high: int = 127


def ibert_layernorm(of: Norm) -> Program:
    """I-BERT's LayerNorm (section 3.6; Kim et al. 2021) of 16-bit inputs without pre-shift, to stored codes.

    Operands: x, bias, multiplier, addend, shift.  The published pre-shift t keeps the variance in 32 bits; here it has
    44, so that t is 0 and two passes are enough.  The root is exact: six Newton steps that keep the minimum.
    Raises AccelsimError for a number of channels outside 2 … 4,096.
    """
    build = Builder()
    x, total, squares = _moments(build, of.channels)
    mean, variance = _variance(build, total, squares, of.channels)
    sigma = exact_root(build, variance, _start(build, variance, VARIANCE_BITS), ROOT_BITS)
    factor = build.op(OpCode.DIVIDE_INTO, sigma, 1 << 31, 32, ROOT_BITS)
    return _normalized(build, x, mean, factor, 32, of)


def ivit_layernorm(of: Norm) -> Program:
    """I-ViT's LayerNorm (section 3.5, eq. 17; Li and Gu 2023) as released: ten Newton steps from 2^16.

    Operands and errors as `ibert_layernorm`.  The first quotient has up to 28 bits; the root ends at 64 or more.
    """
    build = Builder()
    x, total, squares = _moments(build, of.channels)
    mean, variance = _variance(build, total, squares, of.channels)
    sigma = build.row(1 << 16)
    for _ in range(TEN_STEPS):
        sigma = _newton(build, variance, sigma, 28, 27)
    factor = build.op(OpCode.DIVIDE_INTO, sigma, (1 << 31) - 1, 26, 27)
    return _normalized(build, x, mean, factor, 26, of)


def exact_root(build: Builder, value: Register, start: Register, root_bits: int) -> Register:
    """⌊√value⌋: k ← min(k, (k + ⌊value/k⌋) >> 1) from a start of √value … 2·√value."""
    root = start
    for _ in range(EXACT_STEPS):
        root = build.op(OpCode.MIN, root, _newton(build, value, root, root_bits, root_bits))
    return root


def _newton(build: Builder, value: Register, root: Register, quotient_bits: int, root_bits: int) -> Register:
    quotient = build.op(OpCode.DIVIDE_INTO, root, value, quotient_bits, root_bits)
    return build.op(OpCode.SHIFT_RIGHT, build.op(OpCode.ADD, root, quotient), 1)


def _start(build: Builder, value: Register, bits: int) -> Register:
    """2^⌈bits of the value / 2⌉."""
    length = build.op(OpCode.ADD, build.op(OpCode.LEADING_ONE, value, 0, bits), 2)
    return build.op(OpCode.SHIFT_LEFT, build.row(1), build.op(OpCode.SHIFT_RIGHT, length, 1))


def _moments(build: Builder, channels: int) -> tuple[Register, Register, Register]:
    """The first pass: x, its sum over the row, its sum of squares."""
    if not 2 <= channels <= MAX_ROW_WIDTH:
        raise AccelsimError(Problem("layernorm", f"{channels} channels", f"2 … {MAX_ROW_WIDTH:,}"))
    x, total, squares = build.operand("x"), build.row(), build.row()
    build.to_row(OpCode.SUM_TO_ROW, total, x, SUM_BITS)
    square = build.op(OpCode.MULTIPLY, x, x, INPUT_BITS, INPUT_BITS)
    build.to_row(OpCode.SUM_TO_ROW, squares, square, SQUARES_BITS)
    build.next_pass()
    return x, total, squares


def _variance(build: Builder, total: Register, squares: Register, channels: int) -> tuple[Register, Register]:
    """The rounded mean and Σ (x − mean)², once per row."""
    mean = build.op(OpCode.DIVIDE_INTO_EVEN, build.row(channels), total, DEVIATION_BITS, WIDTH_BITS)
    multiple = build.op(OpCode.MULTIPLY, mean, channels, INPUT_BITS, WIDTH_BITS)
    rest = build.op(OpCode.SUBTRACT, build.op(OpCode.SHIFT_LEFT, total, 1), multiple)
    product = build.op(OpCode.MULTIPLY, mean, rest, INPUT_BITS, SUM_BITS + 1)
    return mean, build.op(OpCode.SUBTRACT, squares, product, VARIANCE_BITS + 1)


def _normalized(build: Builder, x: Register, mean: Register, factor: Register, factor_bits: int, of: Norm) -> Program:
    """(x − mean)·factor >> 1, the bias, and the requantization of every channel."""
    bias, multiplier, addend, shift = (build.operand(name) for name in ("bias", "multiplier", "addend", "shift"))
    deviation = build.op(OpCode.SUBTRACT, x, mean)
    product = build.op(OpCode.MULTIPLY, deviation, factor, DEVIATION_BITS, factor_bits)
    # |deviation| is at most the root, so the product is at most 2^31: one bit more than a word where it is reached.
    y = build.op(OpCode.ADD, build.op(OpCode.SHIFT_RIGHT, product, 1, RESULT_BITS + 1), bias, RESULT_BITS)
    scaled = build.op(OpCode.MULTIPLY, y, multiplier, RESULT_BITS, MULTIPLIER_BITS)
    wide = RESULT_BITS + MULTIPLIER_BITS
    moved = build.op(OpCode.SHIFT_RIGHT, build.op(OpCode.ADD, scaled, addend, wide), shift, wide)
    return build.finish(build.clamp(moved, of.low, of.high), y)


for _name, _program in (("ibert", ibert_layernorm), ("ivit", ivit_layernorm)):
    register_method(Method("layernorm", _name, _program(Norm(64)).passes, INPUT_BITS))
