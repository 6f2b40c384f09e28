"""Dynamic energy of one counted event of an engine or the vector unit, under both arithmetic conventions."""

from __future__ import annotations

from enum import StrEnum
from functools import cache, lru_cache

from accelsim.arch import Accelerator, Engine, EngineKind, Mode
from accelsim.area import ACTIVATION_BITS, TERM_BITS, accumulators, operand_bits, products_per_slot
from accelsim.counts import MAX_MODES, MAX_TERMS
from accelsim.engines.composable_array import bricks_per_product, split
from accelsim.problems import AccelsimError, Problem
from accelsim.technology import Technology, load_technology

TREE_BITS = 24  # width of the adders of a tree


class Convention(StrEnum):
    """What an energy per product is made of; docs/prices.md compares the two.

    ARITHMETIC: published unit operations plus accumulator, registers and clock.  SYNTHESIZED: energy per MAC of whole
    synthesized arrays, everything inside the array included.
    """

    ARITHMETIC = "arithmetic"
    SYNTHESIZED = "synthesized"


@lru_cache(maxsize=4096)
def engine_unit_energies(
    engine: Engine, node_nm: int, clock_hz: int, convention: Convention
) -> tuple[float | None, ...]:
    """Energies in pJ per count, in `ENGINE_COUNTS` order; None for a mode that the engine does not have.

    Raises AccelsimError for more than six modes, for an engine without any, and for a mode that bricks cannot compose.
    """
    if len(engine.modes) > MAX_MODES:
        raise AccelsimError(Problem(engine.name, f"has {len(engine.modes)} modes", f"at most {MAX_MODES}", ("modes",)))
    tech = load_technology(node_nm)
    products: list[float | None] = [None] * MAX_MODES
    if engine.kind is EngineKind.SHIFT_ARRAY:
        for terms in range(1, MAX_TERMS + 1):
            products[terms - 1] = shift_product_pj(engine, terms, tech, clock_hz, convention)
    for index, mode in enumerate(engine.modes):
        if engine.kind is EngineKind.COMPOSABLE_ARRAY:
            products[index] = composed_product_pj(engine, index, tech, clock_hz, convention)
        elif engine.kind is EngineKind.MAC_ARRAY:
            products[index] = mode_product_pj(engine, mode, tech, clock_hz, convention)
    accumulate = accumulate_pj(engine, tech) if convention is Convention.ARITHMETIC else 0.0
    table = tech.value("output_stage.table_256x8_pj")
    return (*products, output_pj(engine.accumulator_bits, tech), table, accumulate)


def mode_product_pj(engine: Engine, mode: Mode, tech: Technology, clock_hz: int, convention: Convention) -> float:
    """Energy of one product of a multiplier array in `mode`, in pJ.

    Arithmetic: multiply, one tree add, and the clocked operand bits of this product (an activation shared by two
    products is counted for both: exact in depthwise mode, an upper bound in dense mode).  Synthesized: the array's
    energy per MAC.
    """
    if convention is Convention.SYNTHESIZED:
        return array_mac_pj(_family(engine), mode.weight_bits, mode.activation_bits, tech, clock_hz)
    multiply = multiply_pj(mode.weight_bits, mode.activation_bits, tech)
    return multiply + _tree_add_pj(engine, tech) + register_pj(mode.weight_bits + mode.activation_bits, tech)


def composed_product_pj(engine: Engine, mode: int, tech: Technology, clock_hz: int, convention: Convention) -> float:
    """Energy of one product of a composable array in its mode number `mode`, in pJ.

    Arithmetic: its bricks with their share of the shift-adders, one tree add for all products that a slot sums up
    itself, and the clocked operand bits of this product (an upper bound where operands are shared).  Synthesized: the
    energy per MAC of a BitFusion array.
    """
    chosen, (_, inputs) = engine.modes[mode], split(engine, mode)
    if convention is Convention.SYNTHESIZED:
        return array_mac_pj("composable", chosen.weight_bits, chosen.activation_bits, tech, clock_hz)
    bricks = bricks_per_product(chosen) * tech.value("arithmetic.brick_pj")
    registers = register_pj(chosen.weight_bits + chosen.activation_bits, tech)
    return bricks + _tree_add_pj(engine, tech) / inputs + registers


def shift_product_pj(engine: Engine, terms: int, tech: Technology, clock_hz: int, convention: Convention) -> float:
    """Energy of one product with `terms` power-of-two terms on a shift-add array, in pJ.

    Arithmetic: `terms` shifts, `terms` − 1 16-bit adds (a shifted 8-bit operand has up to 16 bits), one tree add, and
    the clocked bits of code and activation.  Synthesized: the 8×8 MAC of a fixed array times the ratio of PE areas.
    """
    if convention is Convention.SYNTHESIZED:
        ratio = tech.value(f"synthesized.shift_ratio.terms_{terms}")
        return ratio * array_mac_pj("fixed", 8, 8, tech, clock_hz)
    shifts = terms * tech.value("arithmetic.shift_8_pj") + (terms - 1) * tech.value("arithmetic.add_16_pj")
    return shifts + _tree_add_pj(engine, tech) + register_pj(terms * TERM_BITS + ACTIVATION_BITS, tech)


def accumulate_pj(engine: Engine, tech: Technology) -> float:
    """Energy of one accumulator update under the arithmetic convention, in pJ: add, clocked accumulator, less one add.

    Every product was charged a tree add, but the n products of one tree need n − 1: the accumulator gives it back, so
    dense and depthwise (one tree add per update, no tree) both count the adds that happen.
    """
    bits = engine.accumulator_bits
    return add_pj(bits, tech) + register_pj(bits, tech) - _tree_add_pj(engine, tech)


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


@cache
def vector_unit_energies(node_nm: int) -> tuple[float, ...]:
    """Energies in pJ per vector operation, in `VECTOR_KINDS` order: unit and clocked operands, for both conventions."""
    tech = load_technology(node_nm)
    registers = register_pj(tech.value("vector.register_bits_per_op"), tech)
    names = (
        "arithmetic.multiply_16x16_pj",
        "arithmetic.add_32_pj",
        "output_stage.shift_32_pj",
        "output_stage.compare_32_pj",
        "output_stage.table_256x8_pj",
        "vector.divide_pj",
    )
    return tuple(tech.value(name) + registers for name in names)


def idle_pj_per_cycle(accelerator: Accelerator) -> dict[str, float]:
    """Clock energy of a cycle in which a unit is not busy, by unit, in pJ: gated share of its registers' energy."""
    tech = load_technology(accelerator.node_nm)
    bits = {
        engine.name: engine.slots * operand_bits(engine) + accumulators(engine) * engine.accumulator_bits
        for engine in accelerator.engines
    }
    units = sum(accelerator.vector.throughput())
    gated = tech.value("arithmetic.idle_clock_fraction")
    idle = {name: gated * register_pj(count, tech) for name, count in bits.items()}
    idle["vector"] = gated * register_pj(units * tech.value("vector.register_bits_per_op"), tech)
    return idle


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


def register_pj(bits: float, tech: Technology) -> float:
    """Energy of clocking `bits` register bits once in pJ, clock distribution included."""
    return bits * tech.value("arithmetic.register_pj_per_bit") * (1.0 + tech.value("arithmetic.clock_tree_fraction"))


def _tree_add_pj(engine: Engine, tech: Technology) -> float:
    return add_pj(min(TREE_BITS, engine.accumulator_bits), tech)


def _family(engine: Engine) -> str:
    if products_per_slot(engine) == 1:
        return "fixed"
    narrowest = min(min(mode.weight_bits, mode.activation_bits) for mode in engine.modes)
    return "scalable_4" if narrowest >= 4 else "scalable_2"
