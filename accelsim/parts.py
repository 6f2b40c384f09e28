"""Prices of the parts that engines are made of: energy of unit operations in pJ, area of synthesized cells in µm²."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from accelsim.problems import AccelsimError, Problem
from accelsim.technology import Technology

TREE_BITS = 24  # width of the adders of a tree, and of partial sums that travel through a systolic array
SHIFT_32_SELECTORS = 5 * 32  # of a 32-bit shifter: five stages
# Synthesized multipliers by operand widths (wide, narrow); a mode takes the smallest that covers it.
MULTIPLIERS: dict[tuple[int, int], str] = {
    (8, 2): "mul8x2s",
    (4, 4): "mul4x4s",
    (8, 4): "mul8x4s",
    (8, 6): "mul8x6s",
    (8, 8): "mul8x8s",
    (16, 16): "mul16x16s",
}


class Convention(StrEnum):
    """What an energy per product is made of; docs/prices.md compares the two.

    ARITHMETIC: published unit operations plus accumulator, registers and clock.  SYNTHESIZED: energy per MAC of whole
    synthesized arrays, everything inside the array included.
    """

    ARITHMETIC = "arithmetic"
    SYNTHESIZED = "synthesized"


def multiply_pj(weight_bits: int, activation_bits: int, tech: Technology) -> float:
    """Energy of a multiply in pJ: the tabulated widths, else bilinear in the bits from 8×8 (E₈ₓ₈ · w · a / 64)."""
    wide, narrow = max(weight_bits, activation_bits), min(weight_bits, activation_bits)
    row = tech.rows.get(f"arithmetic.multiply_{wide}x{narrow}_pj")
    return row.value if row else tech.value("arithmetic.multiply_8x8_pj") * wide * narrow / 64


def array_mac_pj(family: str, weight_bits: int, activation_bits: int, tech: Technology, clock_hz: int) -> float:
    """Energy per MAC of a synthesized array in pJ, interpolated between its clocks (the nearest one outside them).

    `family` is "fixed", "scalable_4", "scalable_2" (smallest width that its multipliers split to) or "composable".
    Widths that are not tabulated are bilinear in the bits from 8×8.
    """
    wide, narrow = max(weight_bits, activation_bits), min(weight_bits, activation_bits)
    group = f"synthesized.{family}.{wide}x{narrow}"
    scale = 1.0
    if not tech.children(group):
        group, scale = f"synthesized.{family}.8x8", wide * narrow / 64
    points = sorted((int(name.split("_")[0]) * 1e6, tech.value(f"{group}.{name}")) for name in tech.children(group))
    (low_hz, low), (high_hz, high) = points[0], points[-1]
    if high_hz == low_hz:
        return scale * low
    share = min(1.0, max(0.0, (clock_hz - low_hz) / (high_hz - low_hz)))
    return scale * (low + share * (high - low))


def add_pj(bits: int, tech: Technology) -> float:
    """Energy of an add in pJ: linear between the published 8, 16 and 32 bits, in proportion outside them."""
    add_8, add_16, add_32 = (tech.value(f"arithmetic.add_{width}_pj") for width in (8, 16, 32))
    if bits <= 8:
        return add_8 * bits / 8
    if bits <= 16:
        return add_8 + (add_16 - add_8) * (bits - 8) / 8
    if bits <= 32:
        return add_16 + (add_32 - add_16) * (bits - 16) / 16
    return add_32 * bits / 32


def shift_pj(bits: int, tech: Technology) -> float:
    """Energy of a shift with a result of 8 … 32 bits in pJ: linear between the published 8 and 32 bits."""
    shift_8, shift_32 = tech.value("arithmetic.shift_8_pj"), tech.value("output_stage.shift_32_pj")
    return shift_8 + (shift_32 - shift_8) * (bits - 8) / 24


def selectors_um2(count: int, tech: Technology) -> float:
    """Area of `count` selectors (2:1) of a shifter in µm², in proportion to the five stages of a 32-bit shifter."""
    return tech.value("area.shift_32_um2") * count / SHIFT_32_SELECTORS


def register_pj(bits: float, tech: Technology) -> float:
    """Energy of clocking `bits` register bits once in pJ, clock distribution included."""
    return bits * tech.value("arithmetic.register_pj_per_bit") * (1.0 + tech.value("arithmetic.clock_tree_fraction"))


def output_pj(accumulator_bits: int, tech: Technology) -> float:
    """Energy of one requantization in pJ.

    Bias add (32 bits), 32×16 multiply, rounding add and shift on the 48-bit product (1.5 × the 32-bit figures), two
    compares, clocked registers; in proportion to accumulator_bits / 32.
    """
    work = (
        2.5 * tech.value("arithmetic.add_32_pj")
        + tech.value("output_stage.multiply_32x16_pj")
        + 1.5 * tech.value("output_stage.shift_32_pj")
        + 2 * tech.value("output_stage.compare_32_pj")
        + register_pj(tech.value("output_stage.register_bits"), tech)
    )
    return work * accumulator_bits / 32


def multiplier_um2(wide: int, narrow: int, tech: Technology, where: str) -> float:
    """Area of the smallest synthesized multiplier that covers the widths; AccelsimError, naming `where`, if none."""
    cells = tech.pe_area_um2
    fits = [cells[name] for (big, small), name in MULTIPLIERS.items() if wide <= big and narrow <= small]
    if not fits:
        raise AccelsimError(
            Problem(where, f"no synthesized multiplier covers {wide}×{narrow} bits", "up to 16×16", ("modes",))
        )
    return min(fits)


def register_um2(bits: float, tech: Technology) -> float:
    """Area of `bits` register bits."""
    return bits * tech.pe_area_um2["reg8"] / 8


def accumulator_um2(bits: int, cells: Mapping[str, float]) -> float:
    """Area of one accumulator with clear: the 24-bit cell, the 32-bit cell, and in proportion beyond."""
    if bits <= 24:
        return cells["acc24"]
    return cells["acc32"] * max(1.0, bits / 32)


def output_um2(tech: Technology) -> float:
    """One requantization per cycle: 32×16 multiply (two 16×16 and an add), two adds, shift, clamp, table, registers."""
    cells = tech.pe_area_um2
    return (
        2 * cells["mul16x16s"]
        + 3 * cells["add32"]
        + tech.value("area.shift_32_um2")
        + 2 * tech.value("area.compare_32_um2")
        + tech.value("area.table_256x8_um2")
        + tech.value("output_stage.register_bits") * cells["reg8"] / 8
    )
