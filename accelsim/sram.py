"""SRAM prices: interpolation in a CACTI grid, and buffers made of equal macros."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache

from accelsim.arch import Buffer
from accelsim.problems import AccelsimError, InfeasibleError, Problem
from accelsim.technology import load_technology, read_csv

GRID = "sram_cacti_lstp_1rw_300k.csv"
# CACTI has no 28 nm: its figures are mixed from 32 and 22 nm, 28 = 0.6 · 32 + 0.4 · 22 (linear in the feature size).
NODE_MIX: dict[int, tuple[tuple[int, float], ...]] = {45: ((45, 1.0),), 28: ((32, 0.6), (22, 0.4))}


@dataclass(frozen=True)
class SramMacro:
    """One single-port macro: energy per bit of a full-word access, leakage, area and access time."""

    read_pj_per_bit: float
    write_pj_per_bit: float
    leakage_mw: float
    area_mm2: float
    access_time_s: float


@dataclass(frozen=True)
class BufferPrice:
    """A buffer of `macros` equal macros.

    `read_pj_per_bit` and `write_pj_per_bit` include `routing_pj_per_bit`, the wires between the macros; leakage and
    area are those of all macros.
    """

    macros: int
    read_pj_per_bit: float
    write_pj_per_bit: float
    routing_pj_per_bit: float
    leakage_mw: float
    area_mm2: float
    access_time_s: float


@cache
def _grid() -> dict[tuple[int, int, int], tuple[float, ...]]:
    """(node, log2 size in bytes, log2 width) → logarithms of the five figures of `SramMacro` at that point."""
    table = {}
    for row in read_csv(GRID):
        width = int(row["width_bits"])
        key = (int(row["tech_nm"]), int(row["size_bytes"]).bit_length() - 1, width.bit_length() - 1)
        figures = (
            float(row["read_energy_pj"]) / width,
            float(row["write_energy_pj"]) / width,
            float(row["leakage_mw"]),
            float(row["area_mm2"]),
            float(row["access_time_ns"]) * 1e-9,
        )
        table[key] = tuple(math.log(figure) for figure in figures)
    return table


@lru_cache(maxsize=4096)
def macro(node_nm: int, macro_bits: int, word_bits: int) -> SramMacro:
    """Figures of a macro of `macro_bits` with words of `word_bits` (CACTI 7, lstp cells, 1RW, 300 K, one bank).

    Log-log interpolation in size and width; 28 nm is mixed from 32 and 22 nm (0.6 and 0.4).  Raises AccelsimError with
    the range for a macro outside the grid (1 KB … 4 MB, 64 … 512 bits, not 1 KB by more than 256 bits) or another node.
    """
    if node_nm not in NODE_MIX:
        raise AccelsimError(Problem("node_nm", f"no SRAM data for {node_nm} nm", "28 or 45", ("28", "45")))
    mixed = [0.0] * 5
    for tech_nm, share in NODE_MIX[node_nm]:
        for index, figure in enumerate(_interpolate(tech_nm, macro_bits, word_bits)):
            mixed[index] += share * figure
    return SramMacro(*mixed)


def _interpolate(tech_nm: int, macro_bits: int, word_bits: int) -> list[float]:
    table = _grid()
    sizes = sorted({size for node, size, _ in table if node == tech_nm})
    widths = sorted({width for node, _, width in table if node == tech_nm})
    size = math.log2(macro_bits / 8) if macro_bits > 0 else -math.inf
    width = math.log2(word_bits) if word_bits > 0 else -math.inf
    if not (sizes[0] <= size <= sizes[-1] and widths[0] <= width <= widths[-1]):
        raise _outside(macro_bits, word_bits)
    result = [0.0] * 5
    for size_at, size_share in _corners(size):
        for width_at, width_share in _corners(width):
            point = table.get((tech_nm, size_at, width_at))
            if point is None:
                raise _outside(macro_bits, word_bits)
            for index, figure in enumerate(point):
                result[index] += size_share * width_share * figure
    return [math.exp(figure) for figure in result]


def _corners(position: float) -> list[tuple[int, float]]:
    below = math.floor(position)
    above = position - below
    return [(below, 1.0 - above), (below + 1, above)] if above else [(below, 1.0)]


def _outside(macro_bits: int, word_bits: int) -> AccelsimError:
    return AccelsimError(
        Problem(
            "macro",
            f"{macro_bits} bits with {word_bits}-bit words is outside the SRAM table",
            "8,192 … 33,554,432 bits and words of 64 … 512 bits (up to 256 below 16,384 bits)",
            ("another macro_bits", "another word_bits"),
        )
    )


@lru_cache(maxsize=4096)
def buffer_price(buffer: Buffer, node_nm: int, clock_hz: int, where: str = "buffer") -> BufferPrice:
    """Price of a buffer: ⌈capacity / macro⌉ macros and the wires between them.

    An access burns one macro and the routing; routing is pJ per bit and mm times (side of the whole buffer − side of
    one macro), the slope measured between multi-bank and one-bank CACTI memories.  Without it a buffer cut into small
    macros would look almost free.  Raises AccelsimError for a capacity below 1 bit or a macro outside the SRAM table
    and InfeasibleError, in picoseconds, when a macro is slower than the clock period.
    """
    if buffer.capacity_bits <= 0:
        raise AccelsimError(Problem(f"{where}.capacity_bits", f"is {buffer.capacity_bits}", "1 or more"))
    one = macro(node_nm, buffer.macro_bits, buffer.word_bits)
    if one.access_time_s * clock_hz > 1:
        raise InfeasibleError(
            Problem(
                where,
                f"a macro of {buffer.macro_bits:,} bits cannot be read in one cycle",
                "an access time within the clock period",
                ("a smaller macro_bits", "a lower clock_hz"),
                math.ceil(one.access_time_s * 1e12),
                math.floor(1e12 / clock_hz),
                "ps",
            )
        )
    count = -(-buffer.capacity_bits // buffer.macro_bits)
    slope = load_technology(node_nm).value("sram.routing_pj_per_bit_mm")
    routing = slope * (math.sqrt(count * one.area_mm2) - math.sqrt(one.area_mm2))
    return BufferPrice(
        count,
        one.read_pj_per_bit + routing,
        one.write_pj_per_bit + routing,
        routing,
        count * one.leakage_mw,
        count * one.area_mm2,
        one.access_time_s,
    )
