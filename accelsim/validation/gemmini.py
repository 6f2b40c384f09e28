"""Gemmini RTL: cycles of matrix products on a 16 × 16 weight-stationary array with double-buffered weights.

Compared: M × K × N products in 8 bits, tiled as the library's `tiled_matmul_auto` documents it (blocks of 16 × 16; a
tile grows in turn along N, M and K while half of the 256 KiB scratchpad and half of the 64 KiB accumulator hold it).
Cycles of a tile are 16 per pair of blocks, because the next block of weights is preloaded behind the current one; the
operands of a tile are loaded (16 bytes per cycle) behind the computation of the tile before, results are stored the
same way, so the first load and the last store remain.  No constant is fitted; errors are stated, and the ideal
M·K·N/256 is demanded to be at most the RTL's cycles.

Not modelled: the processor that issues the commands, latency of caches and DRAM, bank conflicts.  They are a fixed
cost that dominates the smallest product.  The references come from one group's repository and were not
cross-checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

from accelsim.validation.case import Case, Demand, Suite, ceil_div, rows_of

DIM = 16
SCRATCHPAD_BYTES = 256 * 1024
ACCUMULATOR_BYTES = 64 * 1024
ACCUMULATOR_WORD_BYTES = 4
BUS_BYTES_PER_CYCLE = 16


@dataclass(frozen=True)
class Tile:
    """Blocks of 16 along M, K and N."""

    rows: int
    depth: int
    cols: int

    def fits(self) -> bool:
        """Operands in half of the scratchpad, sums in half of the accumulator."""
        operands = (self.rows * self.depth + self.depth * self.cols) * DIM * DIM
        sums = self.rows * self.cols * DIM * DIM * ACCUMULATOR_WORD_BYTES
        return operands <= SCRATCHPAD_BYTES // 2 and sums <= ACCUMULATOR_BYTES // 2


def choose_tile(rows: int, depth: int, cols: int) -> Tile:
    """Tile for a product of that many blocks: a square of sums, the depth that fits beside it, then grown in turn."""
    sums = ACCUMULATOR_BYTES // 2 // (DIM * DIM * ACCUMULATOR_WORD_BYTES)
    edge = isqrt(sums)
    deep = SCRATCHPAD_BYTES // 4 // (DIM * DIM) // edge
    tile = Tile(min(rows, edge), min(depth, deep), min(cols, edge))
    grown = True
    while grown:
        grown = False
        for step in ((0, 0, 1), (1, 0, 0), (0, 1, 0)):
            larger = Tile(tile.rows + step[0], tile.depth + step[1], tile.cols + step[2])
            inside = larger.rows <= rows and larger.depth <= depth and larger.cols <= cols
            if inside and larger.fits():
                tile, grown = larger, True
    return tile


def _cuts(total: int, size: int) -> list[int]:
    return [min(size, total - at) for at in range(0, total, size)]


def product_cycles(m: int, k: int, n: int) -> int:
    """Cycles of an M × K × N product, loads and stores included."""
    rows, depth, cols = (ceil_div(size, DIM) for size in (m, k, n))
    tile = choose_tile(rows, depth, cols)
    compute, load, store = [], [], []
    for i in _cuts(rows, tile.rows):
        for j in _cuts(cols, tile.cols):
            for at, d in enumerate(_cuts(depth, tile.depth)):
                last = at == ceil_div(depth, tile.depth) - 1
                compute.append(i * j * d * DIM)
                load.append((i * d + d * j) * DIM * DIM // BUS_BYTES_PER_CYCLE)
                store.append(i * j * DIM * DIM // BUS_BYTES_PER_CYCLE if last else 0)
    total = load[0]
    for at, cycles in enumerate(compute):
        moved = (load[at + 1] if at + 1 < len(load) else 0) + (store[at - 1] if at else 0)
        total += max(cycles, moved)
    return total + store[-1]


def cases() -> list[Case]:
    """Rows of the suite."""
    found = []
    for row in rows_of("gemmini_rtl.csv"):
        m, k, n, cycles = (int(row[key]) for key in ("M", "K", "N", "rtl_cycles"))
        name = f"{m} × {k} × {n}"
        found += [
            Case(name, "cycles", "cycles", cycles, product_cycles(m, k, n), Demand.STATED),
            Case(name, "cycles, ideal", "cycles", cycles, ceil_div(m * k * n, DIM * DIM), Demand.AT_MOST),
        ]
    return found


SUITE = Suite(
    name="gemmini",
    title="Gemmini 16 × 16",
    source="yonseicasl/NPUsim@2a371fd validation/phase2 (Chipyard GemminiRocketConfig, Verilator)",
    text=__doc__ or "",
    run=cases,
)
