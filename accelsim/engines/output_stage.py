"""Requantization behind an engine: the numpy reference of what the output stage computes, with its overflow rules."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim.problems import AccelsimError, Problem

Int64 = NDArray[np.int64]

BIASED_BITS = 32
MULTIPLIER_BITS = 31
MAX_SHIFT = 62


def requantize(
    accumulator: Int64, bias: Int64 | int, multiplier: Int64 | int, shift: Int64 | int, low: int, high: int
) -> Int64:
    """`clamp(((accumulator + bias)·multiplier + 2^(shift−1)) >> shift, low, high)`, broadcast like numpy.

    The shift is arithmetic, so ties round towards +∞.  ReLU is `low = 0`.  Everything is exact in int64 because
    accumulator + bias fits 32 bits signed, 0 ≤ multiplier < 2^31 and 1 ≤ shift ≤ 62, so that the rounded product stays
    below 2^62 + 2^61; AccelsimError when an operand breaks one of these rules.
    """
    biased = np.asarray(accumulator, np.int64) + np.asarray(bias, np.int64)
    factor, places = np.asarray(multiplier, np.int64), np.asarray(shift, np.int64)
    rules = (
        ("accumulator + bias", biased, -(1 << (BIASED_BITS - 1)), (1 << (BIASED_BITS - 1)) - 1),
        ("multiplier", factor, 0, (1 << MULTIPLIER_BITS) - 1),
        ("shift", places, 1, MAX_SHIFT),
    )
    problems = [
        Problem(f"requantize: {name}", f"values {value.min()} … {value.max()}", f"{least} … {most}")
        for name, value, least, most in rules
        if value.size and (value.min() < least or value.max() > most)
    ]
    if low > high:
        problems.append(Problem("requantize: clamp", f"{low} … {high} is empty", "low ≤ high"))
    if problems:
        raise AccelsimError(problems)
    rounded = (biased * factor + (np.int64(1) << (places - 1))) >> places
    return np.asarray(np.clip(rounded, low, high), np.int64)
