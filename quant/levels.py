"""Integer level sets of the weight formats, their codes, and nearest-level projection with a scale per filter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from accelsim.formats import Format, Scheme
from accelsim.problems import AccelsimError, Problem

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

# Clip candidates as fractions of a filter's largest magnitude: 1.05, 1.03 … 0.07.
CLIP_FRACTIONS: tuple[float, ...] = tuple((105 - 2 * k) / 100 for k in range(50))
_SEARCHED_AT_ONCE = 1 << 15  # weights of one pass of the scale search, to stay in the cache
_TAIL = 16  # of a filter's largest weights

# Term sets of the published additive powers of two, in units of the smallest level, by magnitude bits.
# Source: Li et al. 2020 (Additive Powers-of-Two Quantization) and its released code; every weight is one element of
# each set, so the magnitude bits are spent on the terms only (the sign is apart).
_PUBLISHED_TERMS: dict[int, tuple[tuple[int, ...], ...]] = {
    3: ((0, 1, 4, 8), (0, 2)),
    4: ((0, 2, 8, 32), (0, 1, 4, 16)),
    6: ((0, 4, 32, 256), (0, 2, 16, 128), (0, 1, 8, 64)),
}


def levels(fmt: Format) -> Int64:
    """Sorted distinct integers that a weight of this format can be, in units of the smallest step.

    Uniform sets are symmetric, −(2^(b−1) − 1) … 2^(b−1) − 1.  Two-term 8-bit codes give 53 magnitudes, zero included.
    """
    if fmt.scheme is Scheme.UNIFORM:
        limit = (1 << (fmt.bits - 1)) - 1
        return np.arange(-limit, limit + 1, dtype=np.int64)
    return np.array(sorted(_code_of_value(fmt)), np.int64)


@lru_cache(maxsize=16)
def _code_of_value(fmt: Format) -> dict[int, tuple[tuple[int, int], ...]]:
    """One term code, ((sign, exponent), …), for every value of a shift format."""
    terms = [(sign, exponent) for exponent in range(fmt.max_exponent + 1) for sign in (1, -1)]
    if fmt.terms == 1:
        terms.append((0, 0))  # the code for zero
    table: dict[int, tuple[tuple[int, int], ...]] = {}
    for code in product(terms, repeat=fmt.terms):
        table.setdefault(sum(sign << exponent for sign, exponent in code), code)
    return table


def encode(values: Int64, fmt: Format) -> Int64:
    """Codes [.., terms, 2] of integer weights [..]: (sign, exponent) per term, or (value, 0) for a uniform format.

    Sign 0 is the zero code of a single-term format; multi-term formats reach zero by cancellation.  Raises
    AccelsimError when a value is not a level of the format.
    """
    integers = np.asarray(values, np.int64)
    members, inverse = np.unique(integers, return_inverse=True)
    wrong = np.setdiff1d(members, levels(fmt))
    if wrong.size:
        raise AccelsimError(
            Problem("weights", f"{int(wrong[0])} is not a level of {fmt.name}", "values of levels(fmt)")
        )
    if fmt.scheme is Scheme.UNIFORM:
        return np.stack([integers, np.zeros_like(integers)], axis=-1)[..., None, :]
    table = _code_of_value(fmt)
    rows = np.array([table[int(value)] for value in members], np.int64).reshape(-1, fmt.terms, 2)
    return np.asarray(rows[inverse.reshape(integers.shape)], np.int64)


def decode(codes: Int64, fmt: Format) -> Int64:
    """Integer weights [..] of codes [.., terms, 2]."""
    array = np.asarray(codes, np.int64)
    if fmt.scheme is Scheme.UNIFORM:
        return np.asarray(array[..., 0, 0], np.int64)
    return np.asarray((array[..., 0] << array[..., 1]).sum(axis=-1), np.int64)


def pack(codes: Int64, fmt: Format) -> Int64:
    """Stored words of `fmt.bits` bits: per term a sign bit above its exponent, first term lowest.

    The zero of a single-term format is the highest exponent with sign bit 0.  Uniform words are two's complement.
    """
    array = np.asarray(codes, np.int64)
    if fmt.scheme is Scheme.UNIFORM:
        return np.asarray(array[..., 0, 0] & ((1 << fmt.bits) - 1), np.int64)
    zero = (1 << fmt.exponent_bits) - 1
    fields = np.where(array[..., 0] == 0, zero, array[..., 1] | ((array[..., 0] < 0) << fmt.exponent_bits))
    places = np.arange(fmt.terms, dtype=np.int64) * (fmt.exponent_bits + 1)
    return np.asarray((fields << places).sum(axis=-1), np.int64)


def unpack(words: Int64, fmt: Format) -> Int64:
    """Codes [.., terms, 2] of stored words; the inverse of `pack`."""
    array = np.asarray(words, np.int64)[..., None]
    if fmt.scheme is Scheme.UNIFORM:
        values = array - ((array >> (fmt.bits - 1)) << fmt.bits)
        return np.stack([values, np.zeros_like(values)], axis=-1)
    fields = (array >> (np.arange(fmt.terms, dtype=np.int64) * (fmt.exponent_bits + 1))) & (2 << fmt.exponent_bits) - 1
    exponents = fields & (1 << fmt.exponent_bits) - 1
    signs = 1 - 2 * (fields >> fmt.exponent_bits)
    if fmt.terms == 1:
        zero = exponents > fmt.max_exponent
        signs, exponents = np.where(zero, 0, signs), np.where(zero, 0, exponents)
    return np.stack([signs, exponents], axis=-1)


def published_apot_integers(bits: int) -> Int64:
    """Sorted magnitudes, in units of the smallest term, of the published sets with 3, 4 or 6 magnitude bits.

    Source: Li et al. 2020, released code.  AccelsimError for other widths (there is no published 8-bit set).
    """
    if bits not in _PUBLISHED_TERMS:
        raise AccelsimError(Problem("published APoT levels", f"no published set of {bits} magnitude bits", "3, 4 or 6"))
    return np.array(sorted({sum(terms) for terms in product(*_PUBLISHED_TERMS[bits])}), np.int64)


def published_apot_levels(bits: int) -> Float64:
    """`published_apot_integers` as the paper normalizes them: largest 1."""
    integers = published_apot_integers(bits)
    return integers / float(integers[-1])


def nearest(values: Float64, level_set: NDArray[np.generic]) -> Int64:
    """Index into a sorted level set of the level nearest to every value (a tie goes to the lower level)."""
    points = np.asarray(level_set, np.float64)
    return np.asarray(np.searchsorted((points[1:] + points[:-1]) / 2, values), np.int64)


def project(weights: Float64, fmt: Format) -> tuple[Float64, Int64]:
    """Scale of every filter and its integer weights, `weights ≈ scale[:, None] · integers`.

    `weights` is [filters, n].  The largest level is put at max|w| times every fraction of `CLIP_FRACTIONS`; the one
    with the least squared error of the filter wins.  A filter of zeros gets scale 1.
    """
    return project_to(weights, levels(fmt))


def project_to(
    weights: Float64, level_set: Int64, power: float = 2.0, fractions: Sequence[float] = CLIP_FRACTIONS
) -> tuple[Float64, Int64]:
    """`project` onto any sorted set of integer levels; what lies outside is clipped to the ends.

    The error is Σ |error|^power; `fractions` are the clip candidates.
    """
    filters = np.asarray(weights, np.float64)
    members = np.asarray(level_set, np.int64)
    largest = np.abs(filters).max(axis=1)
    unit = np.where(largest > 0, largest / float(members[-1]), 1.0)
    scale, integers = np.ones(len(filters)), np.zeros(filters.shape, np.int64)
    height = max(1, _SEARCHED_AT_ONCE // filters.shape[1])
    for start in range(0, len(filters), height):
        part = slice(start, start + height)
        found = _best_fraction(filters[part], unit[part, None], members, power, fractions)
        scale[part] = np.where(largest[part] > 0, unit[part] * found, 1.0)
        integers[part] = members[nearest(filters[part] / scale[part, None], members)]
    return scale, integers


def _best_fraction(
    filters: Float64, unit: Float64, members: Int64, power: float, fractions: Sequence[float]
) -> Float64:
    """Per filter the first fraction of the least error Σ |error|^power."""
    # A midpoint of two integer levels is a multiple of 1/2: ⌈2v⌉ says how many lie below v, as `nearest` counts them.
    first, last = 2 * int(members[0]), 2 * int(members[-1])
    level_of = members[np.searchsorted(members[1:] + members[:-1], np.arange(first, last + 1))].astype(np.float64)
    best, chosen = np.full(len(filters), np.inf), np.ones(len(filters))
    doubled, outer = 2 * filters, max(-int(members[0]), int(members[-1]))
    largest = np.sort(np.abs(filters), axis=1)[:, -_TAIL:]
    for fraction in fractions:
        step = unit * fraction
        # What the largest weights lose by clipping is a lower bound of the error.
        if ((np.maximum(largest - outer * step, 0) ** power).sum(axis=1) > best).all():
            continue
        above = np.clip(np.ceil(doubled / step), first, last).astype(np.int64) - first
        error = level_of[above] * step - filters
        total = np.einsum("fn,fn->f", error, error) if power == 2 else (np.abs(error) ** power).sum(axis=1)
        better = total < best
        best[better], chosen[better] = total[better], fraction
    return chosen


def sqnr_db(reference: Float64, approximation: Float64) -> float:
    """Signal to quantization noise of the whole array, 10·log10(Σ reference² / Σ error²); infinite without error."""
    noise = float(((reference - approximation) ** 2).sum())
    if noise == 0.0:
        return float("inf")
    return float(10 * np.log10(float((reference**2).sum()) / noise))
