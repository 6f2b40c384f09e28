"""Mappings of one design: time and energy of all that were tried, those that none beats joined by a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from codesign.front_command import bound_text, design_text
from codesign.plots.frame import COLOURS, GREY, new_figure, picture_path, save, scaled
from codesign.plots.front_labels import write_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Room around the marks, as a share of what they span.
ROOM = 0.25


def plot_mapping_front(data: Mapping[str, Any], path: str | Path) -> None:
    """Draw what `codesign.front_command.tried_mappings` gave.  PNG or SVG by the suffix of `path`.

    Raises AccelsimError for another suffix, or when the file cannot be written.
    """
    path = picture_path(path)
    save(mapping_front_figure(data), path)


def mapping_front_figure(data: Mapping[str, Any]) -> Figure:
    """The figure of `plot_mapping_front`.  Its axes are linear and start where the mappings do."""
    rows = [{**row, "latency_s": row["time_s"]} for row in data["mappings"]]
    (x, x_label, x_unit), (y, y_label, y_unit) = (scaled(rows, metric) for metric in ("latency_s", "energy_pj"))
    front = np.array([row["number"] is not None for row in rows])
    heuristic = np.array([row["origin"] == "heuristic" for row in rows])
    figure = new_figure(9.0, 6.0)
    axis = figure.add_subplot()
    order = np.flatnonzero(front)
    axis.plot(x[order], y[order], "-", color="black", lw=1.0, zorder=2)
    for chosen, colour, marker, text in (
        (~front & ~heuristic, GREY, "o", "exhaustive mapper, beaten"),
        (front & ~heuristic, COLOURS[0], "o", "exhaustive mapper, not beaten"),
        (heuristic, COLOURS[1], "D", "heuristic mapper" + ("" if (front & heuristic).any() else ", beaten")),
    ):
        if chosen.any():
            label = f"{text} ({chosen.sum()})"
            axis.scatter(x[chosen], y[chosen], s=44, c=colour, marker=marker, zorder=3, label=label)
    _linear(axis, "x", x)
    _linear(axis, "y", y)
    axis.grid(True, color="0.92", lw=0.6)
    axis.set_axisbelow(True)
    axis.set_xlabel(f"interval between images [{x_unit}]" if data["steady"] else x_label)
    axis.set_ylabel(y_label)
    bound_ms = data["bound_cycles"] / data["clock_hz"] * 1e3
    figure.suptitle(f"Mappings of {design_text(data)}")
    bound = bound_text(data, f"{bound_ms:.5g} ms")
    axis.set_title(f"{data['tried']} tried, {len(order)} not beaten; {bound}", fontsize=10)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, fontsize=8, frameon=False)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    write_labels(axis, _labels(rows, x, y, (x_unit, y_unit)), np.column_stack((x, y)), order)
    return figure


def _linear(axis: Axes, which: str, values: Any) -> None:
    """Room around the values, and plain numbers that tell the ticks apart."""
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    low, high = float(values.min()), float(values.max())
    room = ROOM * (high - low) or 0.01 * high
    set_limits, ticks = (axis.set_xlim, axis.xaxis) if which == "x" else (axis.set_ylim, axis.yaxis)
    set_limits(low - room, high + room)
    ticks.set_major_locator(MaxNLocator(6))
    ticks.set_major_formatter(ScalarFormatter(useOffset=False))


def _labels(rows: Sequence[Mapping[str, Any]], x: Any, y: Any, units: tuple[str, str]) -> dict[int, str]:
    """Texts of the mappings worth naming; one with several merits has one label."""
    front = [index for index, row in enumerate(rows) if row["number"] is not None]
    merits: dict[int, list[str]] = {}
    for name, metric in (("fastest", "latency_s"), ("lowest energy", "energy_pj"), ("best EDP", "edp_pj_s")):
        merits.setdefault(min(front, key=lambda index: rows[index][metric]), []).append(name)
    for index, row in enumerate(rows):
        if row["origin"] == "heuristic":
            merits.setdefault(index, []).append("heuristic")
    return {
        index: f"{', '.join(names)}\n{x[index]:.5g} {units[0]}, {y[index]:.5g} {units[1]}"
        for index, names in merits.items()
    }
