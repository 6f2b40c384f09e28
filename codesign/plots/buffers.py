"""Occupancy of the buffers over time of one recorded run, against their capacities."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.api import Report
from accelsim.program import BUFFERS
from codesign.plots.axes_of_study import BITS_PER_KIB
from codesign.plots.frame import MS_PER_S, new_figure, picture_path, save
from codesign.plots.runs import BUSY, BUSY_NEXT, OTHER, class_colours, require_rows, run_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 2000
Steps = list[tuple[float, float]]


def plot_buffers(report: Report, path: str | Path, title: str = "") -> None:
    """Occupied KiB of the activation and the weight buffer over time, with capacity, peak and the op class at work.

    Time is cut into 2,000 pieces: dark is occupied during the whole piece, light at least at one moment.  PNG or SVG
    by the suffix of `path`.  Raises AccelsimError for another suffix, a run that is not recorded, or when the file
    cannot be written.
    """
    path = picture_path(path)
    save(buffers_figure(report, title), path)


def occupancy(report: Report) -> dict[str, Steps]:
    """Buffer → (cycle, bits from then on), for a recorded run.

    A region is occupied from the start of the row that opens it to the end of its last reader.
    """
    result, program = report.result, report.result.program
    ticks = program.ticks_per_cycle
    spans: dict[int, tuple[int, int]] = {}
    events: dict[str, Steps] = {name: [] for name in BUFFERS}

    def close(region: int) -> None:
        start, end = spans.pop(region)
        bits = int(program.regions[region, 2])
        events[BUFFERS[int(program.regions[region, 0])]] += [(start, bits), (end, -bits)]

    for row, times in zip(program.expand(result.images), result.rows.tolist(), strict=True):
        start, end, finish = times[:3]
        if row.write >= 0:
            if row.opens and row.write in spans:
                close(row.write)
            opened, until = spans.get(row.write, (start, finish))
            spans[row.write] = (min(opened, start), max(until, finish))
        for region in row.reads:
            opened, until = spans[region]
            spans[region] = (opened, max(until, end))
    for region in list(spans):
        close(region)
    found: dict[str, Steps] = {}
    for name, changes in events.items():
        level, found[name] = 0.0, []
        for time, change in sorted(changes):
            level += change
            found[name].append((time / ticks, level))
    return found


def least_and_most(steps: Steps, end_cycles: float, bins: int = BINS) -> tuple[Any, Any]:
    """Least and most bits [bins] that are occupied within equal pieces of 0 … `end_cycles`."""
    # Of several changes at one moment only the last lasts.
    lasting = [now for now, after in pairwise(steps) if after[0] > now[0]] + steps[-1:]
    times = np.array([-1.0, *(time for time, _ in lasting)])
    levels = np.array([0.0, *(level for _, level in lasting)])
    edges = np.linspace(0.0, end_cycles, bins + 1)
    # The level at the start of a piece, and every change before its end.
    first = np.searchsorted(times, edges[:-1], side="right") - 1
    last = np.searchsorted(times, edges[1:], side="left")
    least = np.array([levels[a:b].min() for a, b in zip(first, last, strict=True)])
    most = np.array([levels[a:b].max() for a, b in zip(first, last, strict=True)])
    return least, most


def buffers_figure(report: Report, title: str = "") -> Figure:
    """The figure of `plot_buffers`."""
    require_rows(report, "buffers")
    result = report.result
    to_ms = MS_PER_S / report.accelerator.clock_hz
    end = result.total_ticks / result.program.ticks_per_cycle
    figure = new_figure(12.0, 6.6)
    figure.suptitle(title or f"Buffers over time: {run_title(report)}")
    axes = figure.subplots(len(BUFFERS) + 1, 1, sharex=True, height_ratios=[1.0] * len(BUFFERS) + [0.1])
    capacities = (report.accelerator.activation_buffer, report.accelerator.weight_buffer)
    edges = np.linspace(0.0, end * to_ms, BINS + 1)
    for axis, (name, steps), buffer in zip(axes, occupancy(report).items(), capacities, strict=False):
        least, most = (bits / BITS_PER_KIB for bits in least_and_most(steps, end))
        axis.stairs(most, edges, fill=True, color=BUSY_NEXT, label="occupied at some moment of a piece of time")
        axis.stairs(least, edges, fill=True, color=BUSY, label="occupied all the time")
        _frame(axis, name, buffer.capacity_bits / BITS_PER_KIB, float(most.max()))
    axes[0].legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, fontsize=8, frameon=False)
    _classes(axes[-1], report, to_ms)
    axes[-1].set_xlim(0, end * to_ms)
    axes[-1].set_xlabel("time [ms]")
    return figure


def _frame(axis: Axes, name: str, capacity_kib: float, peak_kib: float) -> None:
    axis.axhline(capacity_kib, color="#D55E00", lw=1.4, ls="--", label="capacity")
    axis.set_ylim(0, 1.08 * capacity_kib)
    axis.set_ylabel("occupied [KiB]")
    text = (
        f"{name} buffer: capacity {capacity_kib:,.4g} KiB, at most {peak_kib:,.4g} KiB ({peak_kib / capacity_kib:.0%})"
    )
    axis.set_title(text, fontsize=9, loc="left")
    axis.grid(axis="y", color="0.92", lw=0.6)
    axis.set_axisbelow(True)


def _classes(axis: Axes, report: Report, to_ms: float) -> None:
    """The class of the oldest unfinished op as a coloured strip (of the first image)."""
    result = report.result
    classes = [item.op.op_class for item in report.table.quantized.ops]
    amounts: dict[str, float] = {}
    spans: dict[str, list[tuple[float, float]]] = {}
    until = np.cumsum(result.op_own_ticks) / result.program.ticks_per_cycle * to_ms
    for name, stop, ticks in zip(classes, until.tolist(), result.op_own_ticks.tolist(), strict=True):
        width = ticks / result.program.ticks_per_cycle * to_ms
        amounts[name] = amounts.get(name, 0.0) + width
        spans.setdefault(name, []).append((stop - width, width))
    colours = class_colours(amounts)
    for name, colour in colours.items():
        own = [span for kind, some in spans.items() if (kind if kind in colours else OTHER) == name for span in some]
        if own:
            axis.broken_barh(own, (0, 1), color=colour, lw=0, label=name)
    axis.set_ylim(0, 1)
    axis.set_yticks([])
    axis.set_ylabel("op class", rotation=0, ha="right", va="center", fontsize=8)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -2.6), ncols=8, fontsize=8, frameon=False)
