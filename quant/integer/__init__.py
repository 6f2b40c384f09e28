"""Integer-only execution of a checkpoint: what the hardware computes, bit for bit (docs/integer.md)."""

from __future__ import annotations

from quant.integer.graph import IntegerNetwork, compile_integer
from quant.integer.run import Agreement, IntegerModel, accumulator_ranges, agreement, run_integer

__all__ = [
    "Agreement",
    "IntegerModel",
    "IntegerNetwork",
    "accumulator_ranges",
    "agreement",
    "compile_integer",
    "run_integer",
]
