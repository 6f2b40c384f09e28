"""Systolic array: dataflows, faults of its fields, prices of its elements, accumulators and drain registers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from accelsim.arch import Engine
from accelsim.engines.mac_array import MacArray, multiplier_mode, one_pass
from accelsim.engines.registry import register_engine
from accelsim.engines.rules import Fault
from accelsim.formats import Format
from accelsim.kernels.systolic_forms import FORM_IS, FORM_OS, FORM_WS, SCALESIM
from accelsim.parts import (
    TREE_BITS,
    Convention,
    accumulator_um2,
    add_pj,
    array_mac_pj,
    multiply_pj,
    output_pj,
    output_um2,
    register_pj,
)
from accelsim.sram import macro
from accelsim.technology import Technology

FORMS = {"ws": FORM_WS, "os": FORM_OS, "is": FORM_IS}
LEAST_ACCUMULATOR_ROWS = 128  # smallest SRAM macro of the price tables: half the rows × 128 bits = 1 KiB
BANK_WORD_BITS = 128


@register_engine("systolic_array")
class SystolicArray(MacArray):
    """`lane_width` rows × `lanes` columns of elements: a multiplier with modes, an adder, and registers to pass on."""

    def column(self, engine: Engine, weight: Format, activation: Format) -> int | None:
        """Index of the mode; the operands stay or flow, so that none has two passes."""
        return multiplier_mode(engine, weight, activation)

    def form(self, engine: Engine) -> int:
        """Closed form of the dataflow."""
        return FORMS[engine.dataflow] + (SCALESIM if engine.timing == "scalesim" else 0)

    def runs_depthwise(self, engine: Engine, column: int) -> bool:
        """Always, one channel after the other in a single column of the array (is: one row of channels)."""
        return True

    def pipeline_cycles(self, engine: Engine) -> int:
        """Edge registers, skew of rows and columns, and the output stage: rows + columns + output latency."""
        return engine.lane_width + engine.lanes + engine.output_stage.latency_cycles

    def faults(self, fields: Mapping[str, Any]) -> Iterable[Fault]:
        """Faults of a multiplier array, and those of dataflow, accumulators and timing."""
        yield from (*super().faults(fields), *one_pass(fields))
        dataflow, rows = fields.get("dataflow"), fields.get("accumulator_rows")
        if dataflow == "none":
            yield Fault("dataflow", "a systolic_array without dataflow", "ws, os or is", ("ws",))
        if fields.get("pixel_groups", 1) != 1:
            more = "1: a second array is a second engine"
            yield Fault("pixel_groups", f"a systolic_array with {fields['pixel_groups']} pixel groups", more, ("1",))
        if fields.get("depthwise") is True:
            what = "a systolic_array has no depthwise mode (it runs depthwise work one channel after the other)"
            yield Fault("depthwise", what, "false", ("false",))
        least = max(LEAST_ACCUMULATOR_ROWS, fields.get("lanes", 0))
        if dataflow in ("ws", "is") and rows is not None and rows < least:
            what = f"{rows} accumulator rows behind an array with dataflow {dataflow}"
            yield Fault("accumulator_rows", what, f"{least} or more: 128, and as many as columns", (str(2 * least),))
        if dataflow == "os":
            if rows:
                what = f"{rows} accumulator rows, but os accumulates inside the array"
                yield Fault("accumulator_rows", what, "0", ("0",))
            if fields.get("double_buffered") is False:
                yield Fault("double_buffered", "os has no stationary operand to load", "true", ("true",))
        if fields.get("timing") == "scalesim" and fields.get("double_buffered") is False:
            what = "SCALE-Sim's count always loads before it streams"
            yield Fault("double_buffered", what, "true (the field has no effect)", ("true",))

    def operand_bits(self, engine: Engine) -> int:
        """Registers of one element that pass or hold operands and partial sums.

        os: activation and weights, and the drain register of every product.  ws, is: the streamed operand, the
        stationary one (double-buffered: with shadow and hop register), and a partial sum per product.
        """
        wide = max((mode.weight_bits * mode.products for mode in engine.modes), default=0)
        activation = max((mode.activation_bits for mode in engine.modes), default=0)
        sums = self.products_per_slot(engine)
        if engine.dataflow == "os":
            return activation + wide + sums * engine.accumulator_bits
        streamed, stationary = (activation, wide) if engine.dataflow == "ws" else (wide, activation)
        copies = 3 if engine.double_buffered else 1
        return streamed + copies * stationary + sums * _sum_bits(engine)

    def accumulators(self, engine: Engine) -> int:
        """Accumulator registers: one per element and product (os), one per column and product behind the array."""
        each = engine.slots if engine.dataflow == "os" else engine.lanes
        return each * self.products_per_slot(engine)

    def area_um2(self, engine: Engine, node_nm: int, tech: Technology) -> dict[str, float]:
        """Area in µm² by part; `adder_tree` are the adders of the partial sums (ws, is; os adds in its accumulators).

        `accumulators` behind a ws or is array include their memory: two halves of `accumulator_rows`, each of two banks
        (one reads while the other writes), in SRAM macros of 128-bit words.
        """
        cells, sums = tech.pe_area_um2, self.products_per_slot(engine)
        behind = 0.0
        if engine.dataflow != "os":
            width = engine.lanes * sums * engine.accumulator_bits
            bank = macro(node_nm, engine.accumulator_rows // 2 * BANK_WORD_BITS, BANK_WORD_BITS).area_mm2 * 1e6
            behind = 4 * -(-width // BANK_WORD_BITS) * bank
        return {
            "slots": engine.slots * self.slot_um2(engine, tech),
            "operand_registers": engine.slots * self.operand_bits(engine) * cells["reg8"] / 8,
            "adder_tree": 0.0 if engine.dataflow == "os" else engine.slots * sums * cells["add24"],
            "accumulators": self.accumulators(engine) * accumulator_um2(engine.accumulator_bits, cells) + behind,
            "output_stage": engine.output_stage.outputs_per_cycle * output_um2(tech),
        }

    def product_pj(
        self, engine: Engine, column: int, tech: Technology, clock_hz: int, convention: Convention
    ) -> float | None:
        """Energy of one product of the mode in pJ.

        Arithmetic: multiply and the operand registers that it clocks; the partial sums of ws and is are charged with
        `accumulate_pj`.  ws, is: the streamed operand, and with double buffering one word of the shadow chain (two
        registers), which is what loading costs when a fold streams as long as it loads.  Synthesized: as a multiplier
        array, which includes its registers.
        """
        if column >= len(engine.modes):
            return None
        mode = engine.modes[column]
        if convention is Convention.SYNTHESIZED:
            return array_mac_pj(self._family(engine), mode.weight_bits, mode.activation_bits, tech, clock_hz)
        multiply = multiply_pj(mode.weight_bits, mode.activation_bits, tech)
        if engine.dataflow == "os":
            return multiply + register_pj(mode.weight_bits + mode.activation_bits, tech)
        streamed, loaded = mode.activation_bits, mode.weight_bits
        if engine.dataflow == "is":
            streamed, loaded = loaded, streamed
        return multiply + register_pj(streamed + (2 if engine.double_buffered else 1) * loaded, tech)

    def accumulate_pj(self, engine: Engine, tech: Technology, clock_hz: int, convention: Convention) -> float:
        """Energy of one accumulator update in pJ.

        Arithmetic, os: add and clocked accumulator of one product.  ws, is: a partial sum on its way through all rows
        (an add and a register each), then the update behind the array: add, register, memory read and write.
        Synthesized: only that memory, which the arrays behind those figures do not have.
        """
        memory = 0.0
        if engine.dataflow != "os":
            bank = macro(tech.node_nm, engine.accumulator_rows // 2 * BANK_WORD_BITS, BANK_WORD_BITS)
            memory = engine.accumulator_bits * (bank.read_pj_per_bit + bank.write_pj_per_bit)
        if convention is Convention.SYNTHESIZED:
            return memory
        own = add_pj(engine.accumulator_bits, tech) + register_pj(engine.accumulator_bits, tech)
        if engine.dataflow == "os":
            return own
        hop = add_pj(_sum_bits(engine), tech) + register_pj(_sum_bits(engine), tech)
        return own + engine.lane_width * hop + memory

    def output_pj(self, engine: Engine, tech: Technology, convention: Convention) -> float:
        """Energy of one requantized result in pJ; os adds its way down the drain chain, (rows + 1) / 2 registers."""
        requantize = output_pj(engine.accumulator_bits, tech)
        if engine.dataflow != "os" or convention is Convention.SYNTHESIZED:
            return requantize
        return requantize + (engine.lane_width + 1) / 2 * register_pj(engine.accumulator_bits, tech)


def _sum_bits(engine: Engine) -> int:
    """Width of a partial sum on its way through the array."""
    return min(TREE_BITS, engine.accumulator_bits)
