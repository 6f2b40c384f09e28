"""Bit-composable array: fusion units of 2-bit multipliers, and how a precision mode divides one of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from accelsim.arch import Engine, Mode
from accelsim.engines.mac_array import multiplier_mode, no_terms, one_pass, order_faults
from accelsim.engines.registry import register_engine
from accelsim.engines.rules import EngineRules, Fault, Rate, Stepped, tree_add_pj
from accelsim.formats import Format
from accelsim.parts import Convention, accumulator_um2, array_mac_pj, register_pj
from accelsim.problems import AccelsimError, Problem
from accelsim.technology import Technology

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


@register_engine("composable_array")
class ComposableArray(EngineRules):
    """A slot is a fusion unit of 2-bit multipliers, priced as a whole with its registers, trees and accumulators."""

    def column(self, engine: Engine, weight: Format, activation: Format) -> int | None:
        """Index of the mode, as on a multiplier array."""
        return multiplier_mode(engine, weight, activation)

    def rate(self, engine: Engine, column: int) -> Rate:
        """Channels from narrow weights, reduction inputs from narrow activations."""
        channels, inputs = split(engine, column)
        return Rate(products=channels, inputs=inputs)

    def operand_bits(self, engine: Engine) -> int:
        """Both operands of every product of the fullest mode (2x2: 16 · 4 bits)."""
        return max(mode.products * (mode.weight_bits + mode.activation_bits) for mode in engine.modes)

    def slot_um2(self, engine: Engine, tech: Technology) -> float:
        """The published area of a BitFusion array per unit."""
        return tech.value("area.fusion_unit_um2")

    def product_pj(
        self, engine: Engine, column: int, tech: Technology, clock_hz: int, convention: Convention
    ) -> float | None:
        """Energy of one product of the mode, in pJ.

        Arithmetic: its bricks with their share of the shift-adders, one tree add for all products that a slot sums up
        itself, and the clocked operand bits of this product (an upper bound where operands are shared).  Synthesized:
        the energy per MAC of a BitFusion array.
        """
        if column >= len(engine.modes):
            return None
        chosen, (_, inputs) = engine.modes[column], split(engine, column)
        if convention is Convention.SYNTHESIZED:
            return array_mac_pj("composable", chosen.weight_bits, chosen.activation_bits, tech, clock_hz)
        bricks = bricks_per_product(chosen) * tech.value("arithmetic.brick_pj")
        registers = register_pj(chosen.weight_bits + chosen.activation_bits, tech)
        return bricks + tree_add_pj(engine, tech) / inputs + registers

    def faults(self, fields: Mapping[str, Any]) -> Iterable[Fault]:
        """Modes in order that use all bricks; no terms."""
        modes = fields.get("modes") or ()
        yield from (*no_terms(fields), *one_pass(fields), *order_faults(modes))
        for index, mode in enumerate(modes):
            fault = mode_fault(mode)
            if fault is not None:
                yield Fault(f"modes[{index}]", f"{fault.where}: {fault.what}", fault.expected, fault.levers)

    def area_um2(self, engine: Engine, node_nm: int, tech: Technology) -> dict[str, float]:
        """`slots` is the published area with everything in it; only depthwise work adds an accumulator per slot."""
        parts = super().area_um2(engine, node_nm, tech)
        parts["operand_registers"] = parts["adder_tree"] = 0.0
        sums = engine.slots * engine.depthwise
        parts["accumulators"] = sums * accumulator_um2(engine.accumulator_bits, tech.pe_area_um2)
        return parts

    def stepped(self, engine: Engine, column: int) -> Stepped | None:
        """Products composed from bricks."""
        return Stepped(row_bits=UNIT_BITS, brick_bits=engine.modes[column].activation_bits)
