"""Least energy × latency from least energies under latency limits: cells of latency, refined where the value is least.

The least energy of plans as fast as a limit comes with a price: by how much it rises at least for every cycle less.  In
a cell [low, high] energy is at least the line through `high` with that price, and energy × latency on a line is least
at one of its ends.  The last cell is open: there no plan has less energy than without any limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

RELATIVE = 1e-4  # cells are split until the least value is as close as this to energy × latency at the end of a cell
MAX_CELLS = 60


@dataclass(frozen=True)
class StaticEnergy:
    """Energy by time: at least `pj_per_cycle`, and `idle_pj(cycles)` more, which does not fall."""

    pj_per_cycle: float
    idle_pj: Callable[[float], float]


@dataclass(frozen=True)
class LeastEdp:
    """`value` (pJ × cycles) is the bound, found with `cells`; the least cell ends at `high` (None: it is open)."""

    value: float
    cells: int
    high: float | None


def least_edp(
    fastest: float,
    slowest: float,
    dynamic_pj: Callable[[float | None], tuple[float, float]],
    static: StaticEnergy,
    incumbent: float | None = None,
) -> LeastEdp:
    """Bound of energy × latency.

    `fastest` is a bound of the latency.  `dynamic_pj(limit)` bounds the dynamic energy of plans with a latency within
    the limit (None: any), and says by how much at least it rises per cycle less.  The open cell begins at `slowest`.
    Where the value is not below `incumbent` nothing more is asked, and the result is at most that.
    """
    best = float("inf")

    def cell(low: float, high: float | None) -> tuple[float, float, float | None]:
        nonlocal best
        energy, price = dynamic_pj(high)
        idle = static.idle_pj(low)
        if high is None or energy == float("inf"):
            return low * (energy + static.pj_per_cycle * low + idle), low, high
        at_high = high * (energy + static.pj_per_cycle * high + idle)
        best = min(best, high * (energy + static.pj_per_cycle * high + static.idle_pj(high)))
        return min(at_high, low * (energy + price * (high - low) + static.pj_per_cycle * low + idle)), low, high

    slowest = max(slowest, fastest)
    cells = [cell(slowest, None)]
    if slowest > fastest:
        cells.append(cell(fastest, slowest))
    while True:
        least, low, high = min(cells, key=lambda one: one[0])
        enough = best if incumbent is None else min(best, incumbent)
        if high is None or high <= low * (1 + RELATIVE) or least >= enough * (1 - RELATIVE) or len(cells) >= MAX_CELLS:
            break
        middle = (low * high) ** 0.5
        cells.remove((least, low, high))
        # What bounds a cell bounds its parts.
        cells += [(max(least, part[0]), *part[1:]) for part in (cell(low, middle), cell(middle, high))]
    return LeastEdp(least if incumbent is None else min(least, incumbent), len(cells), high)
