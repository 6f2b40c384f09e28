"""Silicon area of a design: synthesized cells for the logic, CACTI for the buffers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from accelsim.arch import Accelerator, Engine, VectorUnit
from accelsim.engines.registry import rules_of
from accelsim.problems import AccelsimError, Problem
from accelsim.sram import buffer_price
from accelsim.technology import load_technology

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
    """Area of an engine by part in mm², as its kind's rules say (`EngineRules.area_um2`)."""
    parts = rules_of(engine).area_um2(engine, node_nm, load_technology(node_nm))
    return {name: um2 / UM2_PER_MM2 for name, um2 in parts.items()}


@lru_cache(maxsize=1024)
def vector_area_mm2(vector: VectorUnit, node_nm: int) -> float:
    """Area of the vector unit in mm²: functional units with their operand registers.

    A multiplier is 16×16, adders, shifters and leading-one units have 32 bits, a table 256 × 8; a divider delivers one
    quotient per cycle, so it is 16 stages of a 24-bit subtracter and 32 register bits.
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
        tech.value("area.leading_one_32_um2"),
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
