"""The integer softmax, GELU and LayerNorm methods in plain Python integers and fractions, one row at a time.

Written from the formulas (docs/nonlinear.md), not from the programs: no widths, no reciprocals of constants, sums of
squared deviations, exact roots, `round` of fractions (ties to even).
"""

from __future__ import annotations

import math
from fractions import Fraction

from accelsim.nonlinear.program import Requantize
from accelsim.nonlinear.programs_gelu import IBertGelu, IVitGelu
from accelsim.nonlinear.programs_softmax import FqvitSoftmax, IBertSoftmax, IExp, IVitSoftmax
from accelsim.nonlinear.shift_exp import ShiftExp

Row = list[int]


def stored(y: int, store: Requantize) -> int:
    """The code of a result."""
    return max(store.low, min(store.high, (y * store.multiplier + store.addend) >> store.shift))


def i_exp(x: int, of: IExp) -> int:
    x = max(x, of.n * of.x0)
    q = x // of.x0
    r = x - q * of.x0
    return max(r * (r + of.b) + of.c, 0) << (of.n - q)


def shift_exp(x: int, of: ShiftExp) -> int:
    p = max(x + (x >> 1) - (x >> 4), of.n * of.x0)
    q = p // of.x0
    return ((p - q * of.x0 - 2 * of.x0) << (of.n - q)) >> 1


def ibert_softmax(row: Row, of: IBertSoftmax) -> Row:
    e16 = [(i_exp(x - max(row), of.exp) * of.mantissa + (1 << (of.shift - 1))) >> of.shift for x in row]
    return [(e * ((1 << 32) // sum(e16))) >> (32 - of.out_bits) for e in e16]


def ivit_softmax(row: Row, of: IVitSoftmax) -> Row:
    e = [shift_exp(x - max(row), of.exp) for x in row]
    return [(value * (((1 << 31) - 1) // min(sum(e), (1 << 31) - 1))) >> (32 - of.out_bits) for value in e]


def fqvit_softmax(row: Row, of: FqvitSoftmax) -> Row:
    e = [i_exp(x - max(row), of.exp) for x in row]
    codes = []
    for value in e:
        t = round(Fraction(sum(e), value))
        k = t.bit_length() - 1
        codes.append(min(k + (2 * (t - (1 << k)) >= 1 << k), of.last))
    return codes


def ibert_gelu(row: Row, of: IBertGelu) -> Row:
    result = []
    for x in row:
        erf = (min(abs(x), -of.b) + of.b) ** 2 + of.c
        result.append(x * (((-erf if x < 0 else erf) >> of.n) + of.one))
    return result


def ivit_gelu(row: Row, of: IVitGelu) -> Row:
    top, result = max(row), []
    for x in row:
        e = shift_exp(x - top, of.exp)
        total = min(e + shift_exp(-top, of.exp), (1 << 31) - 1)
        result.append(x * ((e * (((1 << 31) - 1) // total if total else 0)) >> (32 - of.out_bits)))
    return result


def layernorm(row: Row, bias: Row, published_steps: bool) -> Row:
    """I-BERT's with the exact root, or I-ViT's with ten Newton steps from 2^16 (`published_steps`)."""
    mean = round(Fraction(sum(row), len(row)))
    variance = sum((x - mean) ** 2 for x in row)
    sigma, one = max(1, math.isqrt(variance)), 1 << 31
    if published_steps:
        sigma, one = 1 << 16, (1 << 31) - 1
        for _ in range(10):
            sigma = (sigma + variance // sigma) >> 1
    return [((x - mean) * (one // sigma) >> 1) + add for x, add in zip(row, bias, strict=True)]


def factor_codes(row: Row, multiplier: int, zero: int, addend: Row, shift: Row) -> Row:
    """8-bit codes 0 … 255 with a factor per channel, less their zero point."""
    codes = [((x * multiplier + a) >> s) + zero for x, a, s in zip(row, addend, shift, strict=True)]
    return [min(255, max(0, code)) - zero for code in codes]


def fqvit_layernorm(row: Row, alpha: Row, gain: Row, places: Row, offset: Row) -> Row:
    u = [x << a for x, a in zip(row, alpha, strict=True)]
    spread = len(u) * sum(value**2 for value in u) - sum(u) ** 2
    lift = (32 - spread.bit_length()) >> 1
    rho = (1 << 31) // math.isqrt(math.floor(Fraction(4) ** lift * spread)) if spread else 0
    mean = round(Fraction(sum(u) << 8, len(u)))
    result = []
    for value, g, g_places, add in zip(u, gain, places, offset, strict=True):
        product, drop0 = abs(g) * rho, g_places + 31 - lift
        n = min(31, max(0, 8 + drop0 - product.bit_length())) if product else 31
        drop = max(0, drop0 - n)
        moved_mean = round(Fraction(product * mean, 1 << min(62, drop + 8)))
        kept = round(add * Fraction(2) ** (n - 16))
        centred = (min(product >> drop, 255) * value - moved_mean) * (-1 if g < 0 else 1)
        result.append(round(Fraction(centred + kept, 1 << n)))
    return result
