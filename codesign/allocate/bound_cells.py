"""Least energy × latency from least energies under latency limits: cells of latency, refined where the value is least.

In a cell [low, high] of latencies no plan has less energy than the least of all plans that can be as fast as `high`,
and none is faster than `low`.  The last cell is open.
"""

from __future__ import annotations

from collections.abc import Callable

RELATIVE = 1e-4  # a cell as narrow as this is not split
MAX_CELLS = 60


def least_edp(
    fastest: float,
    dynamic_pj: Callable[[float | None], float],
    static_pj: Callable[[float], float],
    slowest: float,
    incumbent: float | None = None,
) -> tuple[float, int, float | None]:
    """(least energy × latency in pJ × cycles, cells, where the cell with the least ends: None if it is open).

    `fastest` is a bound of the latency, `dynamic_pj(limit)` of the dynamic energy of plans with a latency within the
    limit (None: any), `static_pj(cycles)` of the energy that goes by time.  `slowest` is where the first open cell
    begins.  Of cells whose value is not below `incumbent` nothing more is asked, and the result is at most that.
    """

    def value(low: float, high: float | None) -> float:
        return low * (dynamic_pj(high) + static_pj(low))

    slowest = max(slowest, fastest)
    cells = [(value(slowest, None), slowest, None)]
    if slowest > fastest:
        cells.append((value(fastest, slowest), fastest, slowest))
    while len(cells) < MAX_CELLS:
        least, low, high = min(cells, key=lambda cell: cell[0])
        if incumbent is not None and least >= incumbent:
            break
        if high is None or high <= low * (1 + RELATIVE):
            break
        middle = (low * high) ** 0.5
        cells.remove((least, low, high))
        cells += [(value(low, middle), low, middle), (max(least, value(middle, high)), middle, high)]
    least, _, high = min(cells, key=lambda cell: cell[0])
    return (least if incumbent is None else min(least, incumbent)), len(cells), high
