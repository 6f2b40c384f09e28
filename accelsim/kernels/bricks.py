"""A fusion unit of a bit-composable array: one product put together from 2-bit × 2-bit bricks."""

from __future__ import annotations

from accelsim.kernels.jit import jit


@jit
def _digit(operand: int, low: int, bits: int) -> int:
    """Two bits of a two's complement operand from bit `low` on; the top digit of `bits` carries the sign."""
    digit = (operand >> low) & 3
    return digit - 4 if low == bits - 2 and digit >= 2 else digit


@jit
def brick_product(activation: int, weight: int, activation_bits: int, weight_bits: int) -> int:
    """Sum of the bricks of one product: every pair of digits, shifted to the place of its digits.

    Only the lowest `activation_bits` and `weight_bits` (even) of the operands enter, as in the registers of a unit.
    """
    total = 0
    for i in range(0, activation_bits, 2):
        for j in range(0, weight_bits, 2):
            total += (_digit(activation, i, activation_bits) * _digit(weight, j, weight_bits)) << (i + j)
    return total
