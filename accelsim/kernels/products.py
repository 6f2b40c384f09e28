"""What one slot of an array computes in a cycle: fields of a multiplier, shifted terms, an operand that is shifted."""

from __future__ import annotations

from typing import Any

from accelsim.kernels.jit import jit

SIGN_FLAG = -1  # of two-region codes that are two's complement numbers, coarse where they are not negative


@jit
def split_product(activation: int, packed: int, product: int, field_bits: int) -> int:
    """One product of a multiplier whose weight register holds several two's complement fields.

    Adds the partial-product rows of field `product`: row i is the activation shifted by i where bit i is set, and the
    top row of the field is subtracted.  A mode only decides where the rows are cut: 8x8 is one field of eight rows,
    8x4 two fields of four, so the two products never mix.
    """
    total = 0
    field = packed >> (product * field_bits)
    for i in range(field_bits):
        if (field >> i) & 1:
            if i == field_bits - 1:
                total -= activation << i
            else:
                total += activation << i
    return total


@jit
def shift_terms(activation: int, terms: Any, first: int, count: int) -> int:
    """Sum of `count` shifted terms from `first` on; a term is (sign, exponent), sign 0 is an absent term."""
    total = 0
    for k in range(first, min(first + count, terms.shape[0])):
        if terms[k, 0] > 0:
            total += activation << terms[k, 1]
        elif terms[k, 0] < 0:
            total -= activation << terms[k, 1]
    return total


@jit
def dynamic_shift(code: int, value: int, zero_code: int) -> int:
    """The right operand shifted by the streamed code: value · 2^(zero_code − 1 − code), 0 for the code of zero."""
    if code == zero_code:
        return 0
    return value << (zero_code - 1 - code)


@jit
def activation_part(activation: int, part: int, bits: int) -> int:
    """What a pass takes of the activation: the unsigned low `bits`, then the signed rest."""
    if part == 0:
        return activation & ((1 << bits) - 1)
    return activation >> bits


@jit
def region_payload(code: int, flag: int) -> int:
    """What a multiplier takes of a two-region code: the code itself where its sign is the flag, else the bits below."""
    return code if flag == SIGN_FLAG else code & (flag - 1)


@jit
def region_places(code: int, flag: int, shift: int) -> int:
    """Places by which the product of a two-region code is shifted: all of a coarse code, none of a fine one."""
    coarse = code >= 0 if flag == SIGN_FLAG else (code & flag) != 0
    return shift if coarse else 0
