"""FQ-ViT's LayerNorm of inputs with a power-of-two factor per channel, in integers only, as a program."""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.engines.vector_unit import OpCode
from accelsim.nonlinear.methods import Method, register_method
from accelsim.nonlinear.program import MAX_ROW_WIDTH, MULTIPLIER_BITS, Builder, Program, Register, require_bits
from accelsim.nonlinear.programs_layernorm import WIDTH_BITS, exact_root
from accelsim.problems import AccelsimError, Problem

INPUT_BITS = 16
CODE_BITS = 8  # of the codes with factors, at most
ENTRY_BITS = 32  # of the input times its multiplier
FACTOR_BITS = 12  # of u = x · 2^α, α of 0 … 3, x a code less its zero point
SQUARES_BITS = 36
SPREAD_BITS = 48  # of C·Σu² − (Σu)²
ROOT_BITS = 17
NORM_BITS = 31
MEAN_FRACTION_BITS, MEAN_BITS = 8, 20
GAIN_BITS, PRODUCT_BITS = 16, 32
MANTISSA_BITS = 8
MOST_PLACES = 31
OFFSET_PLACES, OFFSET_BITS = 16, 48
WIDEST_SHIFT = 62


@dataclass(frozen=True)
class FqvitNorm:
    """Immediates: channels, requantization of the input to codes with factors, zero point and range of the results.

    The input times `multiplier` becomes codes of `bits` bits with the zero point `entry_zero`.  Constants of a channel
    are operands: `entry_addend` (the rounding 2^(shift − 1), less what the input's zero point gives) and `entry_shift`
    of that requantization, `alpha` (0 … 3), `gain` (15 bits and sign) and `places` of γ·C/s_out, `offset` of β/s_out
    with 16 fraction bits.
    """

    channels: int
    multiplier: int = 1 << 14
    bits: int = 8
    entry_zero: int = 0
    zero: int = 0
    low: int = -128
    high: int = 127


def fqvit_layernorm(of: FqvitNorm) -> Program:
    """LayerNorm with power-of-two factors (FQ-ViT, section 3.3; Lin et al. 2022), in integers only, to stored codes.

    Operands: x, entry_addend, entry_shift, alpha, gain, places, offset.  The input becomes a code with the channel's
    factor first, less its zero point: (x·multiplier + addend) >> shift, clamped.  Once per row: D = C·Σu² − (Σu)²,
    moved by an even number of places to 31 or 32 bits; its root R; ρ = ⌊2^31/R⌋; the mean with 8 fraction bits.  Per
    element: the 8 leading bits M of |gain|·ρ and their place N, then (sgn·(M·u − M·mean) + offset) / 2^N.  Roundings
    but the first are to nearest, ties to even.  A row of equal numbers gives the offset.  Raises AccelsimError outside
    2 … 4,096 channels and for immediates that do not fit.
    """
    if not 2 <= of.channels <= MAX_ROW_WIDTH:
        raise AccelsimError(Problem("layernorm", f"{of.channels} channels", f"2 … {MAX_ROW_WIDTH:,}"))
    require_bits("layernorm", "multiplier", of.multiplier, MULTIPLIER_BITS)
    if not (1 <= of.bits <= CODE_BITS and 0 <= of.entry_zero < 1 << of.bits):
        what = f"zero point {of.entry_zero} of codes of {of.bits} bits"
        raise AccelsimError(Problem("layernorm", what, f"a code of 1 … {CODE_BITS} bits"))
    build = Builder()
    total, squares = build.row(), build.row()
    u = build.op(OpCode.SHIFT_LEFT, _entry(build, of), build.operand("alpha"), FACTOR_BITS)
    build.to_row(OpCode.SUM_TO_ROW, total, u)
    square = build.op(OpCode.MULTIPLY, u, u, FACTOR_BITS, FACTOR_BITS)
    build.to_row(OpCode.SUM_TO_ROW, squares, square, SQUARES_BITS)
    build.next_pass()
    rho, drop = _reciprocal(build, total, squares, of.channels)
    moved = build.op(OpCode.SHIFT_LEFT, total, MEAN_FRACTION_BITS)
    mean = build.op(OpCode.DIVIDE_INTO_EVEN, build.row(of.channels), moved, MEAN_BITS, WIDTH_BITS)
    y = _element(build, u, (rho, drop, mean))
    return build.finish(build.clamp(build.op(OpCode.ADD, y, of.zero), of.low, of.high), y)


def _entry(build: Builder, of: FqvitNorm) -> Register:
    """The input's code with the channel's factor, less its zero point."""
    x, addend, shift = (build.operand(name) for name in ("x", "entry_addend", "entry_shift"))
    product = build.op(OpCode.MULTIPLY, x, of.multiplier, INPUT_BITS, MULTIPLIER_BITS)
    moved = build.op(OpCode.SHIFT_RIGHT, build.op(OpCode.ADD, product, addend, ENTRY_BITS), shift, ENTRY_BITS)
    return build.clamp(moved, -of.entry_zero, (1 << of.bits) - 1 - of.entry_zero)


def _reciprocal(build: Builder, total: Register, squares: Register, channels: int) -> tuple[Register, Register]:
    """ρ and the row's part of the places of |gain|·ρ; ρ = 0 for a row of equal numbers."""
    scaled = build.op(OpCode.MULTIPLY, squares, channels, SQUARES_BITS, WIDTH_BITS)
    spread = build.op(OpCode.SUBTRACT, scaled, build.op(OpCode.MULTIPLY, total, total, 25, 25), SPREAD_BITS)
    # Half of the even number of places: (32 - bits) >> 1.
    length = build.op(OpCode.LEADING_ONE, spread, 0, SPREAD_BITS)
    lift = build.op(OpCode.SHIFT_RIGHT, build.op(OpCode.SUBTRACT_FROM, length, 31), 1)
    twice = build.op(OpCode.SHIFT_LEFT, lift, 1)
    raised = build.op(OpCode.SHIFT_LEFT, spread, build.op(OpCode.MAX, twice, 0), SPREAD_BITS)
    lowered = build.op(OpCode.MAX, build.op(OpCode.SUBTRACT_FROM, twice, 0), 0)
    moved = build.op(OpCode.SHIFT_RIGHT, raised, lowered, SPREAD_BITS)
    # 2^16 is the start of every root of 31 or 32 bits; a root of 0 makes the divider give 0.
    root = exact_root(build, moved, build.op(OpCode.MIN, moved, 1 << 16), ROOT_BITS)
    rho = build.op(OpCode.DIVIDE_INTO, root, 1 << NORM_BITS, 17, ROOT_BITS)
    flat = build.op(OpCode.AT_LEAST, build.row(0), spread, SPREAD_BITS)
    drop = build.op(OpCode.SUBTRACT_FROM, lift, NORM_BITS)
    return rho, build.op(OpCode.ADD, drop, build.op(OpCode.SHIFT_LEFT, flat, 6))


def _element(build: Builder, u: Register, row: tuple[Register, Register, Register]) -> Register:
    """The normalized element in steps of the output."""
    rho, row_drop, mean = row
    gain, gain_places, offset = (build.operand(name) for name in ("gain", "places", "offset"))
    product = build.op(OpCode.MULTIPLY, build.op(OpCode.SIGN, gain, gain), rho, GAIN_BITS, 17)
    drop0 = build.op(OpCode.ADD, gain_places, row_drop)
    excess = build.op(OpCode.ADD, build.op(OpCode.LEADING_ONE, product), 1 - MANTISSA_BITS)
    places = build.clamp(build.op(OpCode.SUBTRACT, drop0, excess), 0, MOST_PLACES)
    drop = build.clamp(build.op(OpCode.SUBTRACT, drop0, places), 0, WIDEST_SHIFT)
    mantissa = build.op(OpCode.MIN, build.op(OpCode.SHIFT_RIGHT, product, drop), (1 << MANTISSA_BITS) - 1)
    far = build.op(OpCode.MIN, build.op(OpCode.ADD, drop, MEAN_FRACTION_BITS), WIDEST_SHIFT)
    wide = build.op(OpCode.MULTIPLY, product, mean, PRODUCT_BITS, MEAN_BITS)
    moved_mean = build.op(OpCode.SHIFT_EVEN, wide, far, PRODUCT_BITS + MEAN_BITS)
    up = build.op(OpCode.ADD, places, -OFFSET_PLACES)
    raised = build.op(OpCode.SHIFT_LEFT, offset, build.op(OpCode.MAX, up, 0), OFFSET_BITS)
    down = build.op(OpCode.MAX, build.op(OpCode.SUBTRACT_FROM, up, 0), 0)
    kept = build.op(OpCode.SHIFT_EVEN, raised, down, OFFSET_BITS)
    scaled = build.op(OpCode.MULTIPLY, u, mantissa, FACTOR_BITS, MANTISSA_BITS)
    centred = build.op(OpCode.SIGN, gain, build.op(OpCode.SUBTRACT, scaled, moved_mean))
    return build.op(OpCode.SHIFT_EVEN, build.op(OpCode.ADD, centred, kept, OFFSET_BITS), places, OFFSET_BITS)


register_method(Method("layernorm", "fqvit", fqvit_layernorm(FqvitNorm(64)).passes, INPUT_BITS))
