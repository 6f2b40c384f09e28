"""Shift-and-add array: which operands it executes, in how many passes over their terms, and its prices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from accelsim.arch import Engine
from accelsim.counts import MAX_TERMS
from accelsim.engines.registry import register_engine
from accelsim.engines.rules import EngineRules, Fault, Rate, Stepped, tree_add_pj
from accelsim.formats import Format, Scheme
from accelsim.parts import Convention, array_mac_pj, register_pj, selectors_um2, shift_pj
from accelsim.problems import AccelsimError, Problem
from accelsim.technology import Technology

ACTIVATION_BITS = 8  # operand of a shift-add slot
TERM_BITS = 4  # sign and 3-bit exponent of one power-of-two term
WIDEST_CODE = Format.parse("log4")
DYNAMIC_BITS = ACTIVATION_BITS + WIDEST_CODE.max_exponent  # result of a shift by a log2 code
# Selectors that a dynamic shift adds to a slot: what is shifted, by how much, and a fourth stage of the shifter.
DYNAMIC_SELECTORS = ACTIVATION_BITS + WIDEST_CODE.bits + DYNAMIC_BITS


@register_engine("shift_array")
class ShiftArray(EngineRules):
    """A slot has `terms` shifters and the adders that join them; column i holds products of i + 1 terms.

    With `dynamic_shift` one shifter can shift the right operand by a streamed log2 code: column MAX_TERMS.
    """

    def column(self, engine: Engine, weight: Format, activation: Format) -> int | None:
        """Terms of the weight − 1, or the column of dynamic shifts.

        Weights must be signed powers of two or sums of them, activations uniform (they are what is shifted) or of two
        regions with values of 8 bits at most, which are decoded; or, with `dynamic_shift`, activations log2 codes and
        right operands uniform of 8 bits at most.
        """
        if activation.scheme is Scheme.LOG2 and weight.scheme is Scheme.UNIFORM and weight.bits <= ACTIVATION_BITS:
            return MAX_TERMS if engine.dynamic_shift and engine.terms else None
        narrow = activation.scheme is Scheme.TWO_REGION and activation.value_bits <= ACTIVATION_BITS
        if not weight.is_shift or not (activation.scheme is Scheme.UNIFORM or narrow) or engine.terms < 1:
            return None
        return weight.terms - 1

    def rate(self, engine: Engine, column: int) -> Rate:
        """⌈terms of the weight / terms of a slot⌉ passes; a dynamic shift takes one."""
        return Rate() if column == MAX_TERMS else Rate(passes=-(-(column + 1) // engine.terms))

    def columns(self, engine: Engine) -> int:
        """One for every number of terms, and one for dynamic shifts."""
        return MAX_TERMS + engine.dynamic_shift

    def products_per_slot(self, engine: Engine) -> int:
        """Always one."""
        return 1

    def operand_bits(self, engine: Engine) -> int:
        """An activation and the code of every term; the codes' register holds the operand of a dynamic shift, too."""
        right = max(TERM_BITS * engine.terms, ACTIVATION_BITS * engine.dynamic_shift)
        return right + ACTIVATION_BITS

    def slot_um2(self, engine: Engine, tech: Technology) -> float:
        """Synthesized slots of one and two terms; more terms are more shifters and adders of the same width.

        A dynamic shift adds its selectors, in proportion to those of a 32-bit shifter.
        """
        cells = tech.pe_area_um2
        if engine.terms < 1:
            raise AccelsimError(Problem(engine.name, f"has {engine.terms} terms", "1 or more", ("terms",)))
        fixed = cells["pot4x"] if engine.terms == 1 else cells["apot8"] * engine.terms / 2
        return fixed + selectors_um2(DYNAMIC_SELECTORS, tech) * engine.dynamic_shift

    def product_pj(
        self, engine: Engine, column: int, tech: Technology, clock_hz: int, convention: Convention
    ) -> float | None:
        """Energy of one product with column + 1 power-of-two terms, in pJ.

        Arithmetic: a shift per term, 16-bit adds between them (a shifted 8-bit operand has up to 16 bits), one tree
        add, and the clocked bits of code and activation.  Synthesized: the 8×8 MAC of a fixed array times the ratio of
        PE areas.  A dynamic shift: the shift of a 22-bit result, one tree add, the bits of code and operand;
        synthesized, the one-term ratio and the area of its selectors as a share of the 8×8 PE.
        """
        if column == MAX_TERMS and engine.dynamic_shift:
            return _dynamic_pj(engine, tech, clock_hz, convention)
        terms = column + 1
        if terms > MAX_TERMS:
            return None
        if convention is Convention.SYNTHESIZED:
            ratio = tech.value(f"synthesized.shift_ratio.terms_{terms}")
            return ratio * array_mac_pj("fixed", 8, 8, tech, clock_hz)
        shifts = terms * tech.value("arithmetic.shift_8_pj") + (terms - 1) * tech.value("arithmetic.add_16_pj")
        return shifts + tree_add_pj(engine, tech) + register_pj(terms * TERM_BITS + ACTIVATION_BITS, tech)

    def faults(self, fields: Mapping[str, Any]) -> Iterable[Fault]:
        """Terms, no modes, no depthwise mode."""
        if fields.get("terms") == 0:
            yield Fault("terms", "a shift_array without terms", "1 … 3 terms")
        if fields.get("modes"):
            yield Fault("modes", "a shift_array has no precision modes", "terms only, or kind: mac_array")
        if fields.get("depthwise") is True:
            yield Fault("depthwise", "a shift_array has no depthwise mode", "false")

    def stepped(self, engine: Engine, column: int) -> Stepped | None:
        """Shifters for `terms` terms per pass, or one that the streamed operand sets."""
        return Stepped(terms=engine.terms, dynamic=column == MAX_TERMS)


def _dynamic_pj(engine: Engine, tech: Technology, clock_hz: int, convention: Convention) -> float:
    if convention is Convention.SYNTHESIZED:
        ratio = tech.value("synthesized.shift_ratio.terms_1")
        ratio += selectors_um2(DYNAMIC_SELECTORS, tech) / tech.pe_area_um2["pe_mac8x8_acc24"]
        return ratio * array_mac_pj("fixed", 8, 8, tech, clock_hz)
    registers = register_pj(WIDEST_CODE.bits + ACTIVATION_BITS, tech)
    return shift_pj(DYNAMIC_BITS, tech) + tree_add_pj(engine, tech) + registers
