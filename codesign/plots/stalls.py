"""Where the time of one run goes: per unit busy, waiting (by cause) and drained; per op class who waits for what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from accelsim.api import Report
from accelsim.program import CAUSES
from codesign.plots.frame import MS_PER_S, new_figure, picture_path, save
from codesign.plots.runs import BUSY, CAUSE_COLOURS, CAUSE_TEXTS, DRAINED, run_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Parts narrower than this share of the axis carry no number.
SMALLEST_TEXT = 0.055


def plot_stalls(report: Report, path: str | Path, title: str = "") -> None:
    """Stacked bars of one run: of every unit all its time, of every op class the waits before its rows.

    Units: busy + waits + drained = the whole run.  Classes (of the first image): cycles that units lost before rows of
    the class, summed over the units, so they may exceed the run.  PNG or SVG by the suffix of `path`.  Raises
    AccelsimError for another suffix or when the file cannot be written.
    """
    path = picture_path(path)
    save(stalls_figure(report, title), path)


def unit_parts(report: Report) -> dict[str, dict[str, float]]:
    """Unit → part → share of the run, for busy, every cause in `CAUSES`, and drained; each unit's sum to 1."""
    result = report.result
    return {
        unit: {
            "busy": int(result.unit_busy_ticks[k]) / result.total_ticks,
            **{
                cause: int(ticks) / result.total_ticks
                for cause, ticks in zip(CAUSES, result.unit_wait_ticks[k], strict=True)
            },
            "drained": int(result.unit_drained_ticks[k]) / result.total_ticks,
        }
        for k, unit in enumerate(result.program.units)
    }


def class_waits(report: Report) -> dict[str, dict[str, float]]:
    """Op class → cause → cycles that units lost before its rows in the first image; most first."""
    waits: dict[str, dict[str, float]] = {}
    for item, ticks in zip(report.table.quantized.ops, report.result.op_wait_ticks, strict=True):
        own = waits.setdefault(item.op.op_class, dict.fromkeys(CAUSES, 0.0))
        for cause, lost in zip(CAUSES, ticks, strict=True):
            own[cause] += int(lost) / report.result.program.ticks_per_cycle
    return dict(sorted(waits.items(), key=lambda item: -sum(item[1].values())))


def stalls_figure(report: Report, title: str = "") -> Figure:
    """The figure of `plot_stalls`."""
    from matplotlib.patches import Patch

    units = unit_parts(report)
    waits = {name: own for name, own in class_waits(report).items() if sum(own.values()) > 0}
    colours = {"busy": BUSY, **CAUSE_COLOURS, "drained": DRAINED}
    figure = new_figure(14.0, 1.9 + 0.42 * max(len(units), len(waits)))
    figure.suptitle(title or f"Where the time goes: {run_title(report)}")
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1.0])
    _bars(left, units, colours, "{:.1%}")
    left.set_xlim(0, 1)
    left.set_xticks(np.linspace(0, 1, 6), [f"{share:.0%}" for share in np.linspace(0, 1, 6)])
    latency_ms = report.result.cycles_total / report.accelerator.clock_hz * MS_PER_S
    left.set_xlabel(f"share of the run ({report.result.cycles_total:,} cycles, {latency_ms:.3f} ms)")
    left.set_title("units", fontsize=10)
    thousands = {name: {cause: lost / 1e3 for cause, lost in own.items()} for name, own in waits.items()}
    _bars(right, thousands, colours, "{:.0f}")
    right.set_xlabel("unit-cycles lost before rows of the class [thousands]")
    right.set_title("op classes" + (" (first image)" if report.result.images > 1 else ""), fontsize=10)
    texts = {"busy": "busy", **CAUSE_TEXTS, "drained": "drained: has finished its last row"}
    handles = [Patch(facecolor=colour, edgecolor="0.6", lw=0.4, label=texts[part]) for part, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    return figure


def _bars(axis: Axes, bars: dict[str, dict[str, float]], colours: dict[str, str], number: str) -> None:
    """Stacked bars with the numbers of the parts that are wide enough."""
    longest = max((sum(parts.values()) for parts in bars.values()), default=1.0)
    for line, parts in enumerate(bars.values()):
        left = 0.0
        for part, value in parts.items():
            if value <= 0:
                continue
            axis.barh(line, value, 0.68, left=left, color=colours[part], edgecolor="white", lw=0.4)
            if value > SMALLEST_TEXT * longest:
                white = part == "busy"
                axis.text(
                    left + value / 2, line, number.format(value), ha="center", va="center", fontsize=8,
                    color="white" if white else "black",
                )  # fmt: skip
            left += value
    axis.set_yticks(range(len(bars)), list(bars), fontsize=9)
    axis.set_ylim(len(bars) - 0.4, -0.6)
    axis.set_xlim(0, longest * 1.02)
    axis.grid(axis="x", color="0.92", lw=0.6)
    axis.set_axisbelow(True)
