"""What every unit does over time in one recorded run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.problems import AccelsimError, Problem
from accelsim.program import CAUSES
from accelsim.trace import TraceRow
from codesign.plots.frame import MS_PER_S, RASTER_MARKS, new_figure, picture_path, save
from codesign.plots.runs import BUSY, BUSY_NEXT, CAUSE_COLOURS, CAUSE_TEXTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 400
WAIT_OPACITY = 0.6
LANE_HEIGHT = 0.84
PARTS = ("busy", "busy, next op", *CAUSES)


def plot_gantt(
    trace_rows: Sequence[TraceRow],
    path: str | Path,
    clock_hz: float | None = None,
    title: str = "",
    units: Sequence[str] = (),
) -> None:
    """What every unit does over time: busy in shades that alternate from op to op, waits by cause, nothing: no work.

    Time is cut into 400 pieces; in a lane, the height of a colour is its share of the piece.  The axis is in cycles,
    or in milliseconds when `clock_hz` is given; `units` is the order of the lanes (default: of their first rows).  PNG
    or SVG by the suffix of `path`.  Raises AccelsimError without rows, for another suffix, or when the file cannot be
    written.
    """
    path = picture_path(path)
    save(gantt_figure(trace_rows, clock_hz, title, units), path)


def lane_shares(rows: Sequence[TraceRow], ops: dict[str, int], edges_cycles: Any) -> dict[str, Any]:
    """Part of `PARTS` → share [pieces] of every piece of time between `edges_cycles`, for the rows of one unit.

    A unit does one thing at a time, so the shares of a piece sum to 1 at most.  `ops` numbers the ops in their order.
    """
    spans: dict[str, list[tuple[float, float]]] = {part: [] for part in PARTS}
    free = 0.0
    for row in rows:
        spans[PARTS[ops[row.op] % 2]].append((row.start_cycles, row.release_cycles))
        if row.wait_cause and row.wait_cycles > 0:
            spans[row.wait_cause].append((max(free, row.start_cycles - row.wait_cycles), row.start_cycles))
        free = row.release_cycles
    return {part: _share(np.array(found), edges_cycles) for part, found in spans.items() if found}


def _share(spans: Any, edges: Any) -> Any:
    """Share of every piece that disjoint, ordered `spans` [n, 2] cover."""
    covered = np.cumsum(np.column_stack((np.zeros(len(spans)), spans[:, 1] - spans[:, 0])).ravel())
    return np.diff(np.interp(edges, spans.ravel(), covered)) / np.diff(edges)


def gantt_figure(
    trace_rows: Sequence[TraceRow], clock_hz: float | None = None, title: str = "", units: Sequence[str] = ()
) -> Figure:
    """The figure of `plot_gantt`."""
    if not trace_rows:
        raise AccelsimError(Problem("gantt", "the run has no rows to draw", "a recorded run"))
    end_cycles = max(row.finish_cycles for row in trace_rows)
    edges_cycles = np.linspace(0.0, end_cycles, BINS + 1)
    scale, time_unit = (MS_PER_S / clock_hz, "ms") if clock_hz else (1.0, "cycles")
    ops = {op: place for place, op in enumerate(dict.fromkeys(row.op for row in trace_rows))}
    rows_by_unit: dict[str, list[TraceRow]] = {unit: [] for unit in units}
    for row in trace_rows:
        rows_by_unit.setdefault(row.unit, []).append(row)
    figure = new_figure(12.0, 1.6 + 0.8 * len(rows_by_unit))
    axis = figure.add_subplot()
    colours = {PARTS[0]: BUSY, PARTS[1]: BUSY_NEXT, **CAUSE_COLOURS}
    drawn: dict[str, None] = {}
    for lane, rows in enumerate(rows_by_unit.values()):
        base = np.full(BINS, lane + LANE_HEIGHT / 2)
        for part, share in lane_shares(rows, ops, edges_cycles).items():
            top = base - LANE_HEIGHT * share
            axis.stairs(
                top, edges_cycles * scale, baseline=base, fill=True, color=colours[part], lw=0,
                alpha=WAIT_OPACITY if part in CAUSES else 1.0, rasterized=len(trace_rows) > RASTER_MARKS,
            )  # fmt: skip
            base = top
            drawn[part] = None
    figure.suptitle(title or "Units over time")
    _frame(
        axis,
        list(rows_by_unit),
        end_cycles * scale,
        time_unit,
        {part: colours[part] for part in PARTS if part in drawn},
    )
    return figure


def _frame(axis: Axes, units: Sequence[str], end: float, time_unit: str, parts: dict[str, str]) -> None:
    from matplotlib.patches import Patch

    axis.set_xlim(0, end)
    axis.set_ylim(len(units) - 0.5, -0.5)
    axis.set_yticks(range(len(units)), units)
    axis.set_xlabel(f"time [{time_unit}]")
    for above, _ in pairwise(range(len(units) + 1)):
        axis.axhline(above + 0.5, color="0.8", lw=0.6)
    handles = [
        Patch(color=colour, alpha=WAIT_OPACITY if part in CAUSES else 1.0, label=CAUSE_TEXTS.get(part, part), lw=0)
        for part, colour in parts.items()
    ]
    axis.figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
