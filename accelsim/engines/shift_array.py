"""Shift-and-add array: which weights it executes, in how many passes over their terms, and its prices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from accelsim.arch import Engine
from accelsim.counts import MAX_TERMS
from accelsim.engines.registry import register_engine
from accelsim.engines.rules import EngineRules, Fault, Rate, Stepped, tree_add_pj
from accelsim.formats import Format, Scheme
from accelsim.parts import Convention, array_mac_pj, register_pj
from accelsim.problems import AccelsimError, Problem
from accelsim.technology import Technology

ACTIVATION_BITS = 8  # operand of a shift-add slot
TERM_BITS = 4  # sign and 3-bit exponent of one power-of-two term


@register_engine("shift_array")
class ShiftArray(EngineRules):
    """A slot has `terms` shifters and the adders that join them; column i holds products of i + 1 terms."""

    def column(self, engine: Engine, weight: Format, activation: Format) -> int | None:
        """Terms of the weight − 1.

        Weights must be signed powers of two or sums of them, activations uniform (they are what is shifted).
        """
        if not weight.is_shift or activation.scheme is not Scheme.UNIFORM or engine.terms < 1:
            return None
        return weight.terms - 1

    def rate(self, engine: Engine, column: int) -> Rate:
        """⌈terms of the weight / terms of a slot⌉ passes."""
        return Rate(passes=-(-(column + 1) // engine.terms))

    def columns(self, engine: Engine) -> int:
        """One for every number of terms."""
        return MAX_TERMS

    def products_per_slot(self, engine: Engine) -> int:
        """Always one."""
        return 1

    def operand_bits(self, engine: Engine) -> int:
        """An activation and the code of every term."""
        return TERM_BITS * engine.terms + ACTIVATION_BITS

    def slot_um2(self, engine: Engine, tech: Technology) -> float:
        """Synthesized slots of one and two terms; more terms are more shifters and adders of the same width."""
        cells = tech.pe_area_um2
        if engine.terms < 1:
            raise AccelsimError(Problem(engine.name, f"has {engine.terms} terms", "1 or more", ("terms",)))
        return cells["pot4x"] if engine.terms == 1 else cells["apot8"] * engine.terms / 2

    def product_pj(
        self, engine: Engine, column: int, tech: Technology, clock_hz: int, convention: Convention
    ) -> float | None:
        """Energy of one product with column + 1 power-of-two terms, in pJ.

        Arithmetic: a shift per term, 16-bit adds between them (a shifted 8-bit operand has up to 16 bits), one tree
        add, and the clocked bits of code and activation.  Synthesized: the 8×8 MAC of a fixed array times the ratio of
        PE areas.
        """
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
        """Shifters for `terms` terms per pass."""
        return Stepped(terms=engine.terms)
