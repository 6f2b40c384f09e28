"""Multiplier array: which precision mode executes a pair of formats, and the weight codes of its stepped model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim.arch import Engine
from accelsim.formats import Format, Scheme
from accelsim.problems import AccelsimError, Problem

Int64 = NDArray[np.int64]


def multiplier_mode(engine: Engine, weight: Format, activation: Format) -> int | None:
    """Index of the cheapest listed mode that holds both widths: most products, then fewest operand bits.

    A width that is not listed runs in a wider mode (4x4 in 8x4) and is stored at its true width.  None when no mode
    holds both, or when an operand is not uniform: a multiplier takes two's complement integers, not shift codes.
    """
    if weight.scheme is not Scheme.UNIFORM or activation.scheme is not Scheme.UNIFORM:
        return None
    fitting = [
        (-mode.products, mode.weight_bits * mode.activation_bits, index)
        for index, mode in enumerate(engine.modes)
        if mode.weight_bits >= weight.bits and mode.activation_bits >= activation.bits
    ]
    return min(fitting)[2] if fitting else None


def multiplier_bits(engine: Engine, mode: int) -> int:
    """Partial-product rows of one multiplier in a mode: `products` fields of the mode's weight width.

    Raises AccelsimError when the fields are more rows than the widest mode has: such a mode is not a split.
    """
    chosen = engine.modes[mode]
    rows = max(listed.weight_bits for listed in engine.modes)
    if chosen.products * chosen.weight_bits > rows:
        what = f"{chosen.products} products of {chosen.weight_bits}-bit weights need more partial-product rows"
        raise AccelsimError(
            Problem(
                f"engine {engine.name}: mode {mode}",
                what,
                levers=("fewer products", "a wider first mode"),
                demand=chosen.products * chosen.weight_bits,
                bound=rows,
                unit="rows",
            )
        )
    return chosen.products * chosen.weight_bits


def uniform_codes(weights: Int64, weight: Format) -> Int64:
    """Integer weights [..] as codes [.., 1, 2] (value, 0); AccelsimError when a value does not fit the format."""
    values = np.asarray(weights, np.int64)
    limit = 1 << (weight.bits - 1)
    if values.size and (values.min() < -limit or values.max() >= limit):
        raise AccelsimError(
            Problem("weights", f"values {values.min()} … {values.max()} do not fit {weight.name}", f"±{limit}")
        )
    return np.stack([values, np.zeros_like(values)], axis=-1)[..., None, :]
