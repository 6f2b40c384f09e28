"""Multiplier array: which precision mode executes a pair of formats, its prices, the codes of its stepped model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.arch import Engine, Mode
from accelsim.counts import MAX_MODES
from accelsim.engines.registry import register_engine
from accelsim.engines.rules import EngineRules, Fault, Rate, Stepped, tree_add_pj
from accelsim.formats import Format, Scheme
from accelsim.parts import (
    TREE_BITS,
    Convention,
    add_pj,
    array_mac_pj,
    multiplier_um2,
    multiply_pj,
    register_pj,
    selectors_um2,
    shift_pj,
)
from accelsim.problems import AccelsimError, Problem
from accelsim.technology import Technology

Int64 = NDArray[np.int64]


MAX_PASSES = 2  # halves of an activation
# What a multiplier can take: integers, and codes with an integer behind them.
INTEGER_SCHEMES = (Scheme.UNIFORM, Scheme.LOG2, Scheme.TWO_REGION)


def multiplier_mode(engine: Engine, weight: Format, activation: Format, max_passes: int = 1) -> int | None:
    """Index of the cheapest listed mode that holds both widths: most products per cycle, then fewest operand bits.

    A width that is not listed runs in a wider mode (4x4 in 8x4) and is stored at its true width.  A log2 or two-region
    activation is decoded to the integer behind it, so its value bits must fit.  None when no mode holds both: a
    multiplier takes two's complement integers, not shift codes.  Modes of more than `max_passes` passes do not count.
    """
    found = _cheapest(engine, weight, activation, activation.value_bits, max_passes)
    return found[-1] if found else None


def _cheapest(
    engine: Engine, weight: Format, activation: Format, operand_bits: int, max_passes: int
) -> tuple[float, int, int, int] | None:
    """(−products per cycle, passes, operand bits, index) of the cheapest mode for activations of `operand_bits`."""
    if weight.scheme is not Scheme.UNIFORM or activation.scheme not in INTEGER_SCHEMES:
        return None
    fitting = [
        (-mode.products / mode.passes, mode.passes, mode.weight_bits * mode.activation_bits, index)
        for index, mode in enumerate(engine.modes)
        if mode.weight_bits >= weight.bits and mode.activation_bits >= operand_bits and mode.passes <= max_passes
    ]
    return min(fitting, default=None)


def multiplier_bits(engine: Engine, mode: int) -> int:
    """Partial-product rows of one multiplier in a mode: `products` fields of the mode's weight width.

    Raises AccelsimError when the fields are more rows than the widest mode has: such a mode is not a split.
    """
    chosen = engine.modes[mode]
    rows = max(listed.weight_bits for listed in engine.modes)
    if chosen.products * chosen.weight_bits > rows:
        what = f"{chosen.products} products of {chosen.weight_bits}-bit weights need more partial-product rows"
        raise AccelsimError(
            Problem(
                f"engine {engine.name}: mode {mode}",
                what,
                levers=("fewer products", "a wider first mode"),
                demand=chosen.products * chosen.weight_bits,
                bound=rows,
                unit="rows",
            )
        )
    return chosen.products * chosen.weight_bits


def mode_cover(engine: Engine) -> tuple[int, int]:
    """(wide, narrow) operand widths that cover every pass of every mode; AccelsimError when there are no modes."""
    if not engine.modes:
        raise AccelsimError(Problem(engine.name, "has no modes", "at least one mode", ("modes",)))
    pairs = [(mode.weight_bits, mode.activation_bits // mode.passes) for mode in engine.modes]
    return max(map(max, pairs)), max(map(min, pairs))


def order_faults(modes: tuple[Mode, ...]) -> Iterable[Fault]:
    """Modes that are not narrowest first, or listed twice."""
    keys = [(mode.weight_bits, mode.activation_bits) for mode in modes]
    if keys != sorted(set(keys)):
        order = ", ".join(f"{weight}x{activation}" for weight, activation in sorted(set(keys)))
        what = "two modes have the same widths" if len(set(keys)) < len(keys) else "the modes are not sorted"
        yield Fault("modes", what, "modes narrowest first, by weight_bits and then activation_bits", (order,))


def split_faults(modes: tuple[Mode, ...]) -> Iterable[Fault]:
    """Modes whose products do not fit one multiplier."""
    widest = max((mode.weight_bits for mode in modes), default=0)
    for index, mode in enumerate(modes):
        if mode.products * mode.weight_bits > widest:
            yield Fault(
                f"modes[{index}].products",
                f"{mode.products} products of {mode.weight_bits}-bit weights do not fit a multiplier",
                f"products × weight_bits at most {widest}, the widest weight_bits of the modes",
                (str(widest // mode.weight_bits),),
            )


def pass_faults(modes: tuple[Mode, ...]) -> Iterable[Fault]:
    """Modes of two passes without the mode of one pass whose multipliers they use."""
    halves = [(mode.weight_bits, 2 * mode.activation_bits, mode.products) for mode in modes if mode.passes == 1]
    for index, mode in enumerate(modes):
        if mode.passes > 1 and (mode.weight_bits, mode.activation_bits, mode.products) not in halves:
            found = f"two passes of {mode.weight_bits}x{mode.activation_bits} with {mode.products} products"
            listed = [f"activation_bits: {a}, products: {p}" for w, a, p in halves if w == mode.weight_bits]
            expected = "twice the activation_bits of a mode of one pass with the same weight_bits and products"
            yield Fault(f"modes[{index}].passes", found, expected, tuple(listed) or ("passes: 1",))


def one_pass(fields: Mapping[str, Any]) -> Iterable[Fault]:
    """Modes of two passes on a kind that has none."""
    for index, mode in enumerate(fields.get("modes") or ()):
        if mode.passes > 1:
            what = f"a {fields.get('kind')} has no modes of {mode.passes} passes"
            yield Fault(f"modes[{index}].passes", what, "1, or kind: mac_array", ("1",))


def no_terms(fields: Mapping[str, Any]) -> Iterable[Fault]:
    """An array of modes: it has some, and no shift-add terms."""
    kind = fields.get("kind")
    if fields.get("modes") == ():
        yield Fault("modes", f"a {kind} without precision modes", f"1 … {MAX_MODES} modes")
    if fields.get("terms"):
        yield Fault("terms", f"a {kind} has no shift-add terms", "modes only, or kind: shift_array")


@register_engine("mac_array")
class MacArray(EngineRules):
    """A slot is a multiplier; a mode of several products splits its partial-product rows."""

    def column(self, engine: Engine, weight: Format, activation: Format) -> int | None:
        """Index of the mode, see `multiplier_mode`; `len(modes)` more for products that are aligned.

        With a `region_shift` of m or more a two-region code of b bits is an operand of b bits (without a negative
        region b − 1 and no sign), in a mode of one pass.  It is, where that mode is cheaper than one that holds the
        decoded value; else decoding it saves the shift.
        """
        found = _cheapest(engine, weight, activation, activation.value_bits, MAX_PASSES)
        if activation.scheme is Scheme.TWO_REGION and activation.region_shift <= engine.region_shift:
            aligned = _cheapest(engine, weight, activation, activation.bits, 1)
            if aligned and (found is None or aligned < found):
                return len(engine.modes) + aligned[-1]
        return found[-1] if found else None

    def columns(self, engine: Engine) -> int:
        """One for every mode, and with a `region_shift` one for its aligned products."""
        return len(engine.modes) * (2 if engine.region_shift else 1)

    def rate(self, engine: Engine, column: int) -> Rate:
        """The mode's products, all of them output channels (depthwise: positions), and its passes."""
        mode = engine.modes[column % len(engine.modes)]
        return Rate(mode.products, mode.passes)

    def operand_bits(self, engine: Engine) -> int:
        """One register for each operand of the widest modes; an activation stays in it for all passes of its mode."""
        more = max((mode.activation_bits - mode.activation_bits // mode.passes for mode in engine.modes), default=0)
        return sum(mode_cover(engine)) + more

    def slot_um2(self, engine: Engine, tech: Technology) -> float:
        """The smallest synthesized multiplier that covers every mode, 12.5 % larger when it splits.

        A `region_shift` adds a shifter for every product of the slot (an interpretation: no published array has it).
        """
        wide, narrow = mode_cover(engine)
        products = self.products_per_slot(engine)
        split = tech.value("area.multi_mode_fraction") if products > 1 else 0.0
        shifters = products * selectors_um2(_alignment_selectors(engine), tech)
        return multiplier_um2(wide, narrow, tech, engine.name) * (1.0 + split) + shifters

    def area_um2(self, engine: Engine, node_nm: int, tech: Technology) -> dict[str, float]:
        """As of every adder-tree array; the adders of a tree of aligned products are wider by the `region_shift`."""
        parts = super().area_um2(engine, node_nm, tech)
        if not engine.region_shift:
            return parts
        return {**parts, "adder_tree": parts["adder_tree"] * (TREE_BITS + engine.region_shift) / TREE_BITS}

    def product_pj(
        self, engine: Engine, column: int, tech: Technology, clock_hz: int, convention: Convention
    ) -> float | None:
        """Energy of one product of the mode, in pJ.

        Arithmetic: multiply, one tree add, and the clocked operand bits of this product (an activation shared by two
        products is counted for both: exact in depthwise mode, an upper bound in dense mode).  Synthesized: the array's
        energy per MAC.  Two passes are two products of the half activation; their second accumulate is a count.  An
        aligned product adds the alignment, see `_alignment_pj`.
        """
        if column >= len(engine.modes):
            aligned = column < self.columns(engine) and engine.modes[column - len(engine.modes)].passes == 1
            plain = self.product_pj(engine, column - len(engine.modes), tech, clock_hz, convention) if aligned else None
            return None if plain is None else plain + _alignment_pj(engine, tech, clock_hz, convention)
        mode = engine.modes[column]
        part_bits = mode.activation_bits // mode.passes
        if convention is Convention.SYNTHESIZED:
            return mode.passes * array_mac_pj(self._family(engine), mode.weight_bits, part_bits, tech, clock_hz)
        multiply = multiply_pj(mode.weight_bits, part_bits, tech)
        registers = register_pj(mode.weight_bits + part_bits, tech)
        return mode.passes * (multiply + tree_add_pj(engine, tech) + registers)

    def faults(self, fields: Mapping[str, Any]) -> Iterable[Fault]:
        """Modes in order that split a multiplier or take two passes, few enough to count aligned products; no terms."""
        modes = fields.get("modes") or ()
        yield from (*no_terms(fields), *order_faults(modes), *split_faults(modes), *pass_faults(modes))
        if fields.get("region_shift") and 2 * len(modes) > MAX_MODES:
            what = f"{len(modes)} modes with a region_shift: aligned products are counted beside those of each mode"
            yield Fault("modes", what, f"at most {MAX_MODES // 2} modes", ("fewer modes", "region_shift: 0"))

    def stepped(self, engine: Engine, column: int) -> Stepped | None:
        """A multiplier of partial-product rows, the width of a pass of the activation, and whether it aligns."""
        index = column % len(engine.modes)
        mode = engine.modes[index]
        part_bits = mode.activation_bits // mode.passes if mode.passes > 1 else 0
        aligned = column >= len(engine.modes)
        return Stepped(row_bits=multiplier_bits(engine, index), part_bits=part_bits, aligned=aligned)

    def _family(self, engine: Engine) -> str:
        if self.products_per_slot(engine) == 1:
            return "fixed"
        narrowest = min(min(mode.weight_bits, mode.activation_bits) for mode in engine.modes)
        return "scalable_4" if narrowest >= 4 else "scalable_2"


def _aligned_bits(engine: Engine) -> int:
    """Bits of the widest product that is aligned, after the shift: 16 + region_shift with 8×8 multipliers."""
    widths = (mode.weight_bits + mode.activation_bits for mode in engine.modes if mode.passes == 1)
    return max(widths, default=0) + engine.region_shift


def _alignment_selectors(engine: Engine) -> int:
    """Selectors of a shifter by 0 … region_shift behind a multiplier: a stage for every bit of the amount."""
    return _aligned_bits(engine) * engine.region_shift.bit_length()


def _alignment_pj(engine: Engine, tech: Technology, clock_hz: int, convention: Convention) -> float:
    """Energy in pJ that aligning adds to a product (an interpretation: no published array does it).

    Arithmetic: a shift of the product, with the widest result, and `region_shift` bits more in the tree's add.
    Synthesized: the 8×8 MAC of a fixed array times the area of the selectors as a share of the 8×8 PE.
    """
    if convention is Convention.SYNTHESIZED:
        share = selectors_um2(_alignment_selectors(engine), tech) / tech.pe_area_um2["pe_mac8x8_acc24"]
        return share * array_mac_pj("fixed", 8, 8, tech, clock_hz)
    wide = add_pj(min(TREE_BITS + engine.region_shift, engine.accumulator_bits), tech)
    return shift_pj(_aligned_bits(engine), tech) + wide - tree_add_pj(engine, tech)


def uniform_codes(weights: Int64, weight: Format) -> Int64:
    """Integer weights [..] as codes [.., 1, 2] (value, 0); AccelsimError when a value does not fit the format."""
    values = np.asarray(weights, np.int64)
    limit = 1 << (weight.bits - 1)
    if values.size and (values.min() < -limit or values.max() >= limit):
        raise AccelsimError(
            Problem("weights", f"values {values.min()} … {values.max()} do not fit {weight.name}", f"±{limit}")
        )
    return np.stack([values, np.zeros_like(values)], axis=-1)[..., None, :]
