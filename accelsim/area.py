"""Silicon area of a design: synthesized cells for the logic, CACTI for the buffers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from accelsim.arch import Accelerator, Engine, EngineKind, VectorUnit
from accelsim.engines.composable_array import split
from accelsim.problems import AccelsimError, Problem
from accelsim.sram import buffer_price
from accelsim.technology import Technology, load_technology

# Synthesized multipliers by operand widths (wide, narrow); a mode takes the smallest that covers it.
MULTIPLIERS: dict[tuple[int, int], str] = {
    (8, 2): "mul8x2s",
    (4, 4): "mul4x4s",
    (8, 4): "mul8x4s",
    (8, 6): "mul8x6s",
    (8, 8): "mul8x8s",
    (16, 16): "mul16x16s",
}
ACTIVATION_BITS = 8  # operand of a shift-add slot
TERM_BITS = 4  # sign and 3-bit exponent of one power-of-two term
UM2_PER_MM2 = 1e6


@dataclass(frozen=True)
class Area:
    """Area in mm², total and by component (`<engine>.<part>`, `vector`, `activation_buffer`, `weight_buffer`)."""

    total_mm2: float
    by_component_mm2: Mapping[str, float]


def accelerator_area(accelerator: Accelerator) -> Area:
    """Area of a design in mm²: cells before placement and SRAM macros.

    Control, interconnect, DRAM controller and PHY, clock tree and placement overhead are not in it.  Raises
    AccelsimError for a node without data or a part outside the tables, InfeasibleError for a buffer that is too slow.
    """
    node_nm, clock_hz = accelerator.node_nm, accelerator.clock_hz
    parts: dict[str, float] = {}
    for engine in accelerator.engines:
        parts.update((f"{engine.name}.{part}", mm2) for part, mm2 in engine_area_mm2(engine, node_nm).items())
    parts["vector"] = vector_area_mm2(accelerator.vector, node_nm)
    for name in ("activation_buffer", "weight_buffer"):
        parts[name] = buffer_price(getattr(accelerator, name), node_nm, clock_hz, name).area_mm2
    return Area(sum(parts.values()), parts)


@lru_cache(maxsize=4096)
def engine_area_mm2(engine: Engine, node_nm: int) -> Mapping[str, float]:
    """Area of an engine by part: slots, operand_registers, adder_tree, accumulators, output_stage.

    A composable array is priced as a whole: `slots` is the published area of such an array per fusion unit, with its
    registers, trees and output accumulators; only depthwise work adds an accumulator for every slot.  Other kinds:

    A slot is a multiplier that covers every mode, 12.5 % larger when a mode makes more than one product (sub-word
    splitting of tree and accumulators comes with it), or a shift-add slot of `terms` terms.  A lane of n slots has
    n − 1 24-bit adders.  There is one accumulator per lane, pixel group and product, or one per slot in a depthwise
    engine.
    """
    tech = load_technology(node_nm)
    cells = tech.pe_area_um2
    lanes = engine.lanes * engine.pixel_groups
    whole = engine.kind is EngineKind.COMPOSABLE_ARRAY
    sums = engine.slots * engine.depthwise if whole else accumulators(engine)
    parts = {
        "slots": engine.slots * _slot_um2(engine, tech),
        "operand_registers": 0.0 if whole else engine.slots * operand_bits(engine) * cells["reg8"] / 8,
        "adder_tree": 0.0 if whole else lanes * (engine.lane_width - 1) * cells["add24"],
        "accumulators": sums * _accumulator_um2(engine.accumulator_bits, cells),
        "output_stage": engine.output_stage.outputs_per_cycle * _output_um2(tech),
    }
    return {name: um2 / UM2_PER_MM2 for name, um2 in parts.items()}


@lru_cache(maxsize=1024)
def vector_area_mm2(vector: VectorUnit, node_nm: int) -> float:
    """Area of the vector unit in mm²: functional units with their operand registers.

    A multiplier is 16×16, adders and shifters 32 bits, a table 256 × 8; a divider delivers one quotient per cycle, so
    it is 16 stages of a 24-bit subtracter and 32 register bits.
    """
    tech = load_technology(node_nm)
    cells = tech.pe_area_um2
    register = cells["reg8"] / 8
    units = (
        cells["mul16x16s"],
        cells["add32"],
        tech.value("area.shift_32_um2"),
        tech.value("area.compare_32_um2"),
        tech.value("area.table_256x8_um2"),
        16 * (cells["add24"] + 32 * register),
    )
    registers = tech.value("vector.register_bits_per_op") * register
    um2 = sum(count * (unit + registers) for count, unit in zip(vector.throughput(), units, strict=True))
    return um2 / UM2_PER_MM2


def pe_ratio(unit: str, node_nm: int = 45) -> float:
    """Area of a whole processing element relative to the 8×8 multiply-accumulate PE (24-bit accumulators).

    `unit` is `pot4x` (one term), `apot5x` (two 2-bit terms), `apot8` (two 3-bit terms) or `mul8x8s`.  The first two
    and the divisor are synthesized PEs; apot8 adds its slot, accumulator and two operand registers.  Raises
    AccelsimError for another unit.
    """
    cells = load_technology(node_nm).pe_area_um2
    areas = {
        "mul8x8s": cells["pe_mac8x8_acc24"],
        "pot4x": cells["pe_sac4_acc24"],
        "apot5x": cells["pe_sac5a_acc24"],
        "apot8": cells["apot8"] + cells["acc24"] + 2 * cells["reg8"],
    }
    if unit not in areas:
        raise AccelsimError(Problem("unit", f"no processing element {unit!r}", ", ".join(areas), tuple(areas)))
    return areas[unit] / cells["pe_mac8x8_acc24"]


def operand_bits(engine: Engine) -> int:
    """Operand register bits of one slot: the widest operands that its modes or terms need.

    A fusion unit holds both operands of every product of its fullest mode (2x2: 16 · 4 bits).
    """
    if engine.kind is EngineKind.SHIFT_ARRAY:
        return TERM_BITS * engine.terms + ACTIVATION_BITS
    if engine.kind is EngineKind.COMPOSABLE_ARRAY:
        return max(mode.products * (mode.weight_bits + mode.activation_bits) for mode in engine.modes)
    return sum(_mode_cover(engine))


def accumulators(engine: Engine) -> int:
    """Accumulators of an engine: one per slot if it runs depthwise, else one per lane, pixel group and product."""
    if engine.depthwise:
        return engine.slots
    return engine.lanes * engine.pixel_groups * products_per_slot(engine)


def products_per_slot(engine: Engine) -> int:
    """Largest number of results that a slot adds to per cycle: its products, less those it sums up itself."""
    if engine.kind is EngineKind.COMPOSABLE_ARRAY:
        return max(split(engine, mode)[0] for mode in range(len(engine.modes)))
    return max((mode.products for mode in engine.modes), default=1)


def _mode_cover(engine: Engine) -> tuple[int, int]:
    if not engine.modes:
        raise AccelsimError(Problem(engine.name, "has no modes", "at least one mode", ("modes",)))
    wide = max(max(mode.weight_bits, mode.activation_bits) for mode in engine.modes)
    narrow = max(min(mode.weight_bits, mode.activation_bits) for mode in engine.modes)
    return wide, narrow


def _slot_um2(engine: Engine, tech: Technology) -> float:
    cells = tech.pe_area_um2
    if engine.kind is EngineKind.SHIFT_ARRAY:
        if engine.terms < 1:
            raise AccelsimError(Problem(engine.name, f"has {engine.terms} terms", "1 or more", ("terms",)))
        # Terms beyond two are more shifters and adders of the same width: in proportion to the two-term slot.
        return cells["pot4x"] if engine.terms == 1 else cells["apot8"] * engine.terms / 2
    if engine.kind is EngineKind.COMPOSABLE_ARRAY:
        return tech.value("area.fusion_unit_um2")
    wide, narrow = _mode_cover(engine)
    fits = [cells[name] for (big, small), name in MULTIPLIERS.items() if wide <= big and narrow <= small]
    if not fits:
        raise AccelsimError(
            Problem(engine.name, f"no synthesized multiplier covers {wide}×{narrow} bits", "up to 16×16", ("modes",))
        )
    split = tech.value("area.multi_mode_fraction") if products_per_slot(engine) > 1 else 0.0
    return min(fits) * (1.0 + split)


def _accumulator_um2(bits: int, cells: Mapping[str, float]) -> float:
    if bits <= 24:
        return cells["acc24"]
    return cells["acc32"] * max(1.0, bits / 32)


def _output_um2(tech: Technology) -> float:
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
