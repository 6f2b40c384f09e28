"""The non-linear methods once more in plain Python integers, one row at a time: what the array code must equal."""

from __future__ import annotations

import math
from fractions import Fraction

GELU_B, GELU_A, GELU_K = -1.769, -0.2888, 1.4142
EXP_A, EXP_B, LN2 = 0.35815147, 0.96963238, 0.6931


def igelu(row: list[int], scale: float, n: int) -> list[int]:
    step = scale / GELU_K
    b, c = math.floor(GELU_B / step), math.floor(1 / GELU_A / step**2)
    one = math.floor(1 / (GELU_A * step**2 * 2**n))
    result = []
    for x in row:
        sign = (x > 0) - (x < 0)
        result.append(x * ((sign * ((min(abs(x), -b) + b) ** 2 + c) >> n) + one))
    return result


def iexp(row: list[int], scale: float, n: int) -> list[int]:
    x0, b, c = math.floor(-LN2 / scale), math.floor(EXP_B / EXP_A / scale), math.floor(1 / EXP_A / scale**2)
    result = []
    for x in row:
        q, r = divmod(max(x, n * x0), x0)
        result.append(max((r * (r + b) + c) << (n - q), 0))
    return result


def isoftmax(row: list[int], scale: float, n: int, out_bits: int) -> list[int]:
    e = iexp([x - max(row) for x in row], scale, n)
    largest = math.floor(1 / EXP_A / scale**2) << n
    fraction, exponent = math.frexp(32767 / largest)
    mantissa, shift = math.floor(fraction * 2**31 + 0.5), 31 - exponent
    stored = [math.floor(Fraction(one * mantissa, 2**shift) + Fraction(1, 2)) for one in e]
    f = 2**32 // sum(stored)
    return [one * f >> (32 - out_bits) for one in stored]


def log_int_softmax(row: list[int], scale: float, n: int) -> list[int]:
    e = iexp([x - max(row) for x in row], scale, n)
    codes = []
    for one in e:
        t = round(Fraction(sum(e), one))
        k = t.bit_length() - 1
        codes.append(k + (2 * (t - 2**k) >= 2**k))
    return codes


def shift_exp(row: list[int], scale: float, n: int) -> list[int]:
    x0 = math.floor(-1 / scale)
    result = []
    for x in row:
        q, r = divmod(max(x + (x >> 1) - (x >> 4), n * x0), x0)
        result.append(max(math.floor((Fraction(r, 2) - x0) * 2 ** (n - q)), 0))
    return result


def shiftmax(row: list[int], scale: float, n: int, out_bits: int) -> list[int]:
    e = shift_exp([x - max(row) for x in row], scale, n)
    f = (2**31 - 1) // min(sum(e), 2**31 - 1)
    return [one * f >> (31 - out_bits + 1) for one in e]


def shift_gelu(row: list[int], scale: float, n: int, out_bits: int) -> list[int]:
    e = shift_exp([x - max(row) for x in row], 1.702 * scale, n)
    (top,) = shift_exp([-max(row)], 1.702 * scale, n)
    result = []
    for x, one in zip(row, e, strict=True):
        f = (2**31 - 1) // min(one + top, 2**31 - 1)
        result.append(x * (one * f >> (31 - out_bits + 1)))
    return result


def _deviations(row: list[int]) -> list[int]:
    mean = round(Fraction(sum(row), len(row)))
    return [x - mean for x in row]


def _bias(gamma: list[float], beta: list[float]) -> list[int]:
    unit = math.sqrt(len(gamma)) / 2**30
    return [math.floor(b / g / unit) for g, b in zip(gamma, beta, strict=True)]


def layernorm_ibert(row: list[int], gamma: list[float], beta: list[float], shift: int) -> list[int]:
    d = _deviations(row)
    sigma = max(math.isqrt(sum((x >> shift) ** 2 for x in d)), 1) << shift
    return [(x * (2**31 // sigma) >> 1) + b for x, b in zip(d, _bias(gamma, beta), strict=True)]


def newton_ten(v: int) -> int:
    k = 2**16
    for _ in range(10):
        k = (k + v // k) // 2
    return k


def layernorm_ivit(row: list[int], gamma: list[float], beta: list[float], converged: bool) -> list[int]:
    d = _deviations(row)
    v = sum(x * x for x in d)
    sigma = max(math.isqrt(v), 1) if converged else newton_ten(v)
    return [(x * ((2**31 - 1) // sigma) >> 1) + b for x, b in zip(d, _bias(gamma, beta), strict=True)]


def ptf_layernorm(
    row: list[int], scale: float, factors: list[int], gamma: list[float], beta: list[float], out_scale: float
) -> list[int]:
    u = [x * f for x, f in zip(row, factors, strict=True)]
    channels = len(u)
    spread = channels * sum(x * x for x in u) - sum(u) ** 2
    if spread == 0:
        # A = 0 and N = 31.
        return [round(Fraction(round(b / out_scale * 2**31), 2**31)) for b in beta]
    sigma, mean = (scale / channels) * math.sqrt(spread), sum(u) / channels * scale
    result = []
    for x, g, b in zip(u, gamma, beta, strict=True):
        a = scale / sigma * g / out_scale
        places = min(max(7 - (math.frexp(abs(a))[1] - 1), 0), 31) if a else 31
        mantissa = min(max(math.floor(abs(a) * 2**places), 0), 255)
        constant = round((b - mean / sigma * g) / out_scale * 2**places)
        sign = (a > 0) - (a < 0)
        result.append(round(Fraction(sign * mantissa * x + constant, 2**places)))
    return result


def dyadic(x: int, ratio: float) -> int:
    fraction, exponent = math.frexp(ratio)
    return round(x * Fraction(math.floor(fraction * 2**31 + 0.5)) / Fraction(2) ** (31 - exponent))
