"""Shift-and-add array: which weights it executes and in how many passes over their terms."""

from __future__ import annotations

from accelsim.arch import Engine
from accelsim.formats import Format, Scheme


def shift_mode(engine: Engine, weight: Format, activation: Format) -> int | None:
    """Count column of the work, terms of the weight − 1; None when the engine cannot execute the formats.

    Weights must be signed powers of two or sums of them, activations uniform (they are what is shifted).
    """
    if not weight.is_shift or activation.scheme is not Scheme.UNIFORM or engine.terms < 1:
        return None
    return weight.terms - 1


def term_passes(engine: Engine, weight: Format) -> int:
    """Passes over the terms of a weight: ⌈terms of the weight / terms of a slot⌉, 1 for uniform weights."""
    return 1 if not weight.is_shift else -(-weight.terms // engine.terms)
