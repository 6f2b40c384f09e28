"""What the program has to know about a kind of engine: which formats run how fast, faults of its fields, prices.

A kind is a subclass with the five abstract methods (docs/add_an_engine.md); everything else has the default of an
adder-tree array, the geometry of docs/engines/mac_array.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from accelsim.arch import Engine
from accelsim.formats import Format, Scheme
from accelsim.kernels.systolic_forms import FORM_TREE
from accelsim.parts import (
    TREE_BITS,
    Convention,
    accumulator_um2,
    add_pj,
    output_pj,
    output_um2,
    register_pj,
)
from accelsim.technology import Technology


class Rate(NamedTuple):
    """Work of one slot: per pass `products` output channels (depthwise: positions) × `inputs` reduction inputs (taps).

    A product takes `passes` passes.
    """

    products: int = 1
    passes: int = 1
    inputs: int = 1


class Fault(NamedTuple):
    """One fault of an engine's fields: path below the engine (`modes[1].products`), what, expected, levers."""

    field: str
    what: str
    expected: str
    levers: tuple[str, ...] = ()


class Stepped(NamedTuple):
    """How a slot is stepped: rows of the multiplier (0: a shifter), activation bits made of bricks, terms.

    `part_bits` are the activation bits of one pass (0: all of them).  `dynamic`: a streamed log2 code shifts the right
    operand.  `aligned`: the multiplier takes two-region codes and shifts the products of the coarse ones.
    """

    row_bits: int = 0
    brick_bits: int = 0
    terms: int = 0
    part_bits: int = 0
    dynamic: bool = False
    aligned: bool = False


class EngineRules(ABC):
    """Rules of one kind; stateless.  None of the rules of time and formats may depend on lanes, width, groups, ports.

    A *count column* is the number i of `products_i`: what is executed and priced alike.
    """

    @abstractmethod
    def column(self, engine: Engine, weight: Format, activation: Format) -> int | None:
        """Count column of products of these formats, None when the engine cannot execute them."""

    @abstractmethod
    def rate(self, engine: Engine, column: int) -> Rate:
        """Speed of a slot in a count column."""

    @abstractmethod
    def operand_bits(self, engine: Engine) -> int:
        """Operand register bits of one slot."""

    @abstractmethod
    def slot_um2(self, engine: Engine, tech: Technology) -> float:
        """Area of one slot in µm², without operand registers, adder tree and accumulators."""

    @abstractmethod
    def product_pj(
        self, engine: Engine, column: int, tech: Technology, clock_hz: int, convention: Convention
    ) -> float | None:
        """Energy of one product in pJ, None for a column that the engine does not have (any column is asked for)."""

    def faults(self, fields: Mapping[str, Any]) -> Iterable[Fault]:
        """Faults between the sound fields of an engine of this kind, as read from a file (a field may be missing)."""
        return ()

    def form(self, engine: Engine) -> int:
        """Closed form of its cycles and counts, a FORM_ constant of `kernels.systolic_forms`."""
        return FORM_TREE

    def runs_depthwise(self, engine: Engine, column: int) -> bool:
        """Whether depthwise work of a column runs: every slot accumulates in place, so it must be one pass."""
        return engine.depthwise and self.rate(engine, column).passes == 1

    def columns(self, engine: Engine) -> int:
        """Number of count columns in use, from column 0."""
        return len(engine.modes)

    def pipeline_cycles(self, engine: Engine) -> int:
        """Cycles from the last operand word to the first result, output stage included."""
        return engine.pipeline_cycles

    def stepped(self, engine: Engine, column: int) -> Stepped | None:
        """How the stepped array executes a column, None when there is no stepped model of this kind."""
        return None

    def products_per_slot(self, engine: Engine) -> int:
        """Largest number of results that a slot adds to per cycle."""
        return max((self.rate(engine, column).products for column in range(self.columns(engine))), default=1)

    def accumulators(self, engine: Engine) -> int:
        """Accumulator registers: one per slot if it runs depthwise, else one per lane, pixel group and product."""
        if engine.depthwise:
            return engine.slots
        return engine.lanes * engine.pixel_groups * self.products_per_slot(engine)

    def register_bits(self, engine: Engine) -> int:
        """All clocked operand and accumulator bits of the engine, for its idle energy."""
        return engine.slots * self.operand_bits(engine) + self.accumulators(engine) * engine.accumulator_bits

    def area_um2(self, engine: Engine, node_nm: int, tech: Technology) -> dict[str, float]:
        """Area in µm² by part: slots, operand_registers, adder_tree, accumulators, output_stage."""
        cells = tech.pe_area_um2
        lanes = engine.lanes * engine.pixel_groups
        return {
            "slots": engine.slots * self.slot_um2(engine, tech),
            "operand_registers": engine.slots * self.operand_bits(engine) * cells["reg8"] / 8,
            "adder_tree": lanes * (engine.lane_width - 1) * cells["add24"],
            "accumulators": self.accumulators(engine) * accumulator_um2(engine.accumulator_bits, cells),
            "output_stage": engine.output_stage.outputs_per_cycle * output_um2(tech),
        }

    def accumulate_pj(self, engine: Engine, tech: Technology, clock_hz: int, convention: Convention) -> float:
        """Energy of one accumulator update in pJ: add, clocked accumulator, less one tree add; 0 if synthesized.

        Every product was charged a tree add, but the n products of one tree need n − 1: the accumulator gives it back,
        so dense and depthwise (one tree add per update, no tree) both count the adds that happen.
        """
        if convention is Convention.SYNTHESIZED:
            return 0.0
        bits = engine.accumulator_bits
        return add_pj(bits, tech) + register_pj(bits, tech) - tree_add_pj(engine, tech)

    def output_pj(self, engine: Engine, tech: Technology, convention: Convention) -> float:
        """Energy of one requantized result in pJ."""
        return output_pj(engine.accumulator_bits, tech)


def tree_add_pj(engine: Engine, tech: Technology) -> float:
    """Energy of one add of the adder tree in pJ."""
    return add_pj(min(TREE_BITS, engine.accumulator_bits), tech)


def operand_levers(activation: Format) -> tuple[str, ...]:
    """What would let an engine execute coded activations, () for plain integers."""
    wide = f"a mode of {activation.value_bits}-bit activations"
    if activation.scheme is Scheme.LOG2:
        return "dynamic_shift: true on a shift_array", wide
    if activation.scheme is Scheme.TWO_REGION:
        return f"region_shift: {activation.region_shift} on a mac_array", wide
    return ()
