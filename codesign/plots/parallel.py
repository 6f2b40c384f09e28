"""Parallel coordinates of a study: every design is a line over the axes of its space and its objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from codesign.pareto import front_mask
from codesign.plots.axes_of_study import field_text, shortened, value_of, value_text, varying, wrapped
from codesign.plots.frame import (
    COLOURS,
    GREY,
    RASTER_MARKS,
    Rows,
    as_rows,
    by_workload,
    csv_beside,
    new_figure,
    number_text,
    picture_path,
    save,
    scaled,
    study_csv,
)
from codesign.plots.fronts import check_objectives, short

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OBJECTIVES = ("latency_s", "energy_pj", "area_mm2")
# Lines that share a value of an axis spread over this share of the distance to the next value, and of the axis at most.
SPREAD = 0.3
LARGEST_SPREAD = 0.09
# More lines than this hide each other and take long to draw.
MAX_BEATEN = 2000
MAX_WORKLOADS = len(COLOURS)


def plot_parallel(
    rows: Rows | pd.DataFrame, path: str | Path, title: str = "", objectives: Sequence[str] = OBJECTIVES
) -> Path:
    """Every feasible design as a line over the varying axes of its space and two or three objectives; CSV beside it.

    Members of the front over `objectives` are coloured, by workload where there are several.  Returns the path of the
    CSV.  Raises AccelsimError as `plot_pareto` does (up to eight workloads); nothing is written then.
    """
    path = picture_path(path)
    check_objectives(objectives)
    table = as_rows(rows)
    figure = parallel_figure(table, objectives, title, str(path))
    save(figure, path, study_csv(table, front_mask(table, objectives)))
    return csv_beside(path)


def parallel_figure(
    rows: Rows, objectives: Sequence[str] = OBJECTIVES, title: str = "", where: str = "study"
) -> Figure:
    """The figure of `plot_parallel`; `where` names the study in messages."""
    check_objectives(objectives)
    groups = by_workload(rows, objectives, where, MAX_WORKLOADS)
    members = sorted(index for group in groups.values() for index in group)
    priced = [rows[index] for index in members]
    mask = np.array(front_mask(rows, objectives), dtype=bool)[members]
    axes_values = varying(priced)
    heights = np.column_stack(
        [*(_category_heights(priced, field, values, objectives[0]) for field, values in axes_values.items()),
         *(_log_heights(scaled(priced, metric)[0]) for metric in objectives)]
    )  # fmt: skip
    width = heights.shape[1]
    figure = new_figure(max(8.0, 1.45 * width + 0.8), 6.2)
    axis = figure.add_subplot()
    lines = np.stack((np.broadcast_to(np.arange(width, dtype=float), heights.shape), heights), axis=2)
    fronts = {name: mask & np.isin(members, group) for name, group in groups.items()}
    handles = _draw_lines(axis, lines, fronts, {name: len(group) for name, group in groups.items()})
    for place, (field, values) in enumerate(axes_values.items()):
        texts = [shortened(value_text(field, value)) for value in values]
        _scale(axis, place, wrapped(field_text(field)), texts, np.linspace(0, 1, len(values)))
    for place, metric in enumerate(objectives, start=len(axes_values)):
        numbers, label, _ = scaled(priced, metric)
        texts, places = _log_ticks(numbers)
        _scale(axis, place, wrapped(label), texts, places)
    _frame(axis, width)
    without = len(rows) - len(priced)
    names = ", ".join(short(metric) for metric in objectives)
    axis.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3, fontsize=9, frameon=False)
    figure.suptitle(title or f"{len(priced)} designs ({without} without numbers); front of {names}")
    return figure


def _draw_lines(axis: Axes, lines: Any, fronts: Mapping[str, Any], designs: Mapping[str, int]) -> list[Any]:
    """Draw `lines` [n, axes, 2], members of `fronts` (masks by workload) coloured; returns entries of the legend."""
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    raster = len(lines) > RASTER_MARKS
    on_front = np.any(list(fronts.values()), axis=0)
    beaten = np.flatnonzero(~on_front)
    every = max(1, -(-len(beaten) // MAX_BEATEN))
    faint = float(np.clip(60 / len(lines), 0.06, 0.5))
    drawn = list(lines[beaten[::every]])
    axis.add_collection(LineCollection(drawn, colors=GREY, alpha=faint, linewidths=0.8, rasterized=raster))
    share = f", one of {every} drawn" if every > 1 else ""
    handles = [Line2D([], [], color=GREY, label=f"beaten ({len(beaten)}{share})")]
    strong = float(np.clip(20 / max(1, on_front.sum()), 0.25, 0.9))
    for (name, own), colour in zip(fronts.items(), COLOURS, strict=False):
        axis.add_collection(
            LineCollection(list(lines[own]), colors=colour, alpha=strong, linewidths=1.3, zorder=3, rasterized=raster)
        )
        label = f"front of {name} ({own.sum()} of {designs[name]})"
        handles.append(Line2D([], [], color=colour, lw=2, label=label))
    return handles


def _category_heights(rows: Rows, field: str, values: Sequence[Any], spread_by: str) -> Any:
    """Heights 0 … 1 in equal steps; designs of one value are spread by a metric, so that lines can be followed."""
    places = {value: place for place, value in enumerate(values)}
    ranks = np.array([places[value_of(row, field)] for row in rows], dtype=np.float64)
    by = np.array([float(row[spread_by]) for row in rows])
    spread = min(SPREAD, LARGEST_SPREAD * (len(values) - 1))
    for place in range(len(values)):
        own = np.flatnonzero(ranks == place)
        order = own[np.argsort(by[own], kind="stable")]
        ranks[order] += spread * (np.linspace(-0.5, 0.5, len(order)) if len(order) > 1 else 0.0)
    return ranks / (len(values) - 1)


def _log_heights(values: Any) -> Any:
    low, high = np.log(values.min()), np.log(values.max())
    return (np.log(values) - low) / (high - low) if high > low else np.full(len(values), 0.5)


def _log_ticks(values: Any) -> tuple[list[str], Any]:
    """Texts and heights of six values from the least to the largest, in equal ratios."""
    if values.min() == values.max():
        return [number_text(values.min())], np.array([0.5])
    return [number_text(value) for value in np.geomspace(values.min(), values.max(), 6)], np.linspace(0, 1, 6)


def _scale(axis: Axes, place: int, name: str, texts: Sequence[str], heights: Any) -> None:
    """One upright axis with its values written on it."""
    axis.plot([place, place], [0, 1], color="black", lw=0.9, zorder=4)
    axis.text(place, 1.07, name, ha="center", va="bottom", fontsize=9, weight="bold")
    for text, height in zip(texts, heights, strict=True):
        axis.plot([place - 0.03, place + 0.03], [height, height], color="black", lw=0.9, zorder=4)
        axis.text(
            place + 0.05, height, text, ha="left", va="center", fontsize=8, zorder=5,
            bbox={"fc": "white", "ec": "none", "alpha": 0.85, "pad": 0.6},
        )  # fmt: skip


def _frame(axis: Axes, width: int) -> None:
    axis.set_xlim(-0.25, width - 0.3)
    axis.set_ylim(-0.07, 1.22)
    axis.set_axis_off()
