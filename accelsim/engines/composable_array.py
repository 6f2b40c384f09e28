"""Bit-composable array: fusion units of 2-bit multipliers, and how a precision mode divides one of them."""

from __future__ import annotations

from accelsim.arch import Engine, Mode
from accelsim.problems import AccelsimError, Problem

UNIT_BITS = 8  # widest operand of a fusion unit
BRICK_BITS = 2  # a brick multiplies two 2-bit digits
BRICKS = (UNIT_BITS // BRICK_BITS) ** 2
OPERAND_BITS = (2, 4, 8)  # widths that a unit composes from bricks


def bricks_per_product(mode: Mode) -> int:
    """Bricks that one product of a mode occupies: one for every pair of 2-bit digits."""
    return (mode.weight_bits // BRICK_BITS) * (mode.activation_bits // BRICK_BITS)


def mode_fault(mode: Mode) -> Problem | None:
    """What makes a mode impossible on a fusion unit, None when it is possible: all 16 bricks work, none twice."""
    where = f"mode {mode.weight_bits}x{mode.activation_bits}"
    widths = ", ".join(map(str, OPERAND_BITS))
    if mode.weight_bits not in OPERAND_BITS or mode.activation_bits not in OPERAND_BITS:
        return Problem(where, "a fusion unit has no operands of these widths", f"{widths} bits", (widths,))
    wanted = BRICKS // bricks_per_product(mode)
    if mode.products != wanted:
        return Problem(where, f"{mode.products} products on {BRICKS} bricks", f"{wanted} products", (str(wanted),))
    return None


def split(engine: Engine, mode: int) -> tuple[int, int]:
    """(fields on the weight side, digits groups on the activation side) of a fusion unit in a mode.

    Dense work: the first is output channels per slot, the second reduction inputs per slot.  Depthwise work: the first
    is output positions, the second kernel taps.  Raises AccelsimError for a mode that is not possible.
    """
    chosen = engine.modes[mode]
    fault = mode_fault(chosen)
    if fault is not None:
        raise AccelsimError(Problem(f"engine {engine.name}: {fault.where}", fault.what, fault.expected, fault.levers))
    return UNIT_BITS // chosen.weight_bits, UNIT_BITS // chosen.activation_bits
