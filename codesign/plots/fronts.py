"""Fronts of a study: two objectives as one panel per workload, three objectives as three panels of two each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.problems import AccelsimError, Problem
from codesign.pareto import front_mask, kind_of, knee
from codesign.plots.frame import (
    GREY,
    QUANTITIES,
    RASTER_MARKS,
    Rows,
    as_rows,
    by_workload,
    check_metrics,
    csv_beside,
    log_axis,
    new_figure,
    panel_figure,
    picture_path,
    save,
    scaled,
    study_csv,
    styles,
)
from codesign.plots.front_labels import edp_lines, write_labels

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OBJECTIVES = ("latency_s", "energy_pj")
MAX_PANELS = 6
MAX_LINES = 3
LEAST = {"latency_s": "fastest", "energy_pj": "lowest energy", "area_mm2": "smallest area"}
Styles = Mapping[tuple[str, ...], tuple[str, str]]


def plot_pareto(
    rows: Rows | pd.DataFrame, path: str | Path, title: str = "", objectives: Sequence[str] = OBJECTIVES
) -> Path:
    """Two or three objectives of every feasible design of a study with its front, and a CSV beside the picture.

    `rows` are `Study.rows()` or the same as a DataFrame; designs compete within their workload (model and resolution).
    The picture is PNG or SVG by the suffix of `path`; returns the path of the CSV.  Raises AccelsimError for another
    suffix, unknown objectives, when no design has numbers, for more than six workloads (three with three objectives),
    or when a file cannot be written; nothing is written then.
    """
    path = picture_path(path)
    check_objectives(objectives)
    table = as_rows(rows)
    figure = pareto_figure(table, objectives, title, str(path))
    save(figure, path, study_csv(table, front_mask(table, objectives)))
    return csv_beside(path)


def check_objectives(objectives: Sequence[str]) -> None:
    """Raise AccelsimError unless they are two or three different costs that a study stores."""
    check_metrics(objectives, "--objectives")
    if len(objectives) not in (2, 3):
        raise AccelsimError(Problem("--objectives", f"are {len(objectives)}", "two or three"))


def pareto_figure(rows: Rows, objectives: Sequence[str] = OBJECTIVES, title: str = "", where: str = "study") -> Figure:
    """The figure of `plot_pareto`; `where` names the study in messages."""
    check_objectives(objectives)
    three = len(objectives) == 3
    panels = by_workload(rows, objectives, where, MAX_LINES if three else MAX_PANELS)
    mask = np.array(front_mask(rows, objectives), dtype=bool)
    looks = styles([rows[index] for members in panels.values() for index in members])
    draw = _three if three else _two
    parts = {name: ([rows[i] for i in members], mask[members]) for name, members in panels.items()}
    return draw(parts, objectives, looks, title)


def _two(parts: Mapping[str, tuple[Rows, Any]], objectives: Sequence[str], looks: Styles, title: str) -> Figure:
    figure, axes = panel_figure(len(parts))
    figure.suptitle(title or f"{' and '.join(short(name) for name in objectives)} of every design".capitalize())
    drawn = [
        _panel(axis, rows, on_front, looks, objectives, name)
        for axis, (name, (rows, on_front)) in zip(axes, parts.items(), strict=True)
    ]
    # Angles and label places are in pixels, so they wait for the final layout, and must not change it.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axis, (points, order, units) in zip(axes, drawn, strict=True):
        if is_edp(objectives):
            edp_lines(axis, points, "·".join(units if objectives[1] == "latency_s" else units[::-1]))
        write_labels(axis, _marks(points, order, units, objectives), points, order)
    return figure


def short(metric: str) -> str:
    """A metric in running text."""
    return QUANTITIES[metric].name.removesuffix(" per image")


def is_edp(objectives: Sequence[str]) -> bool:
    """True when the product of the two objectives is an energy-delay product."""
    return len(objectives) == 2 and "latency_s" in objectives and any(name.startswith("energy") for name in objectives)


def _panel(
    axis: Axes, rows: Rows, on_front: Any, looks: Styles, objectives: Sequence[str], name: str
) -> tuple[Any, Any, tuple[str, str]]:
    """Draw one workload; returns its points [n, 2] in the units of the axes, its front in order, the units."""
    (x, x_label, x_unit), (y, y_label, y_unit) = (scaled(rows, metric) for metric in objectives)
    kinds = [kind_of(row) for row in rows]
    for kind, (colour, marker) in looks.items():
        chosen = np.array([own == kind for own in kinds])
        if chosen.any():
            axis.scatter(
                x[chosen], y[chosen], s=26 if len(rows) <= RASTER_MARKS else 10, c=colour, marker=marker, alpha=0.55,
                linewidths=0, label=f"{', '.join(kind)} ({chosen.sum()})", rasterized=len(rows) > RASTER_MARKS,
            )  # fmt: skip
    order = np.flatnonzero(on_front)[np.lexsort((y[on_front], x[on_front]))]
    axis.plot(x[order], y[order], "-", color="black", lw=1.2, zorder=3, label=f"front ({len(order)})")
    axis.scatter(x[order], y[order], s=34, facecolors="none", edgecolors="black", lw=0.9, zorder=4)
    # More below than above: the front, and so the labels, are there.
    log_axis(axis, "x", x)
    log_axis(axis, "y", y)
    axis.grid(True, which="major", color="0.92", lw=0.6)
    axis.set_axisbelow(True)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.set_title(name, fontsize=10)
    # The legend stands outside: inside it would cover designs of some studies.
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, fontsize=8, frameon=False)
    return np.column_stack((x, y)), order, (x_unit, y_unit)


def _marks(points: Any, order: Any, units: tuple[str, str], objectives: Sequence[str]) -> dict[int, str]:
    """Texts for the designs worth naming; a design with several merits has one label."""
    merits: dict[int, list[str]] = {}
    front = points[order]
    first, second = (LEAST.get(name, f"least {short(name)}") for name in objectives)
    named = [(first, order[0]), (second, order[-1])]
    if is_edp(objectives):
        named.append(("best EDP", order[int(np.argmin(front[:, 0] * front[:, 1]))]))
    named.append(("knee", order[knee(front)]))
    for name, index in named:
        merits.setdefault(int(index), []).append(name)
    return {
        index: f"{', '.join(names)}\n{points[index, 0]:.4g} {units[0]}, {points[index, 1]:.4g} {units[1]}"
        for index, names in merits.items()
    }


def _three(parts: Mapping[str, tuple[Rows, Any]], objectives: Sequence[str], looks: Styles, title: str) -> Figure:
    """One line of panels per workload: a front member has the same colour and shape in all three panels."""
    figure = new_figure(15.0, 5.6 * len(parts) + 0.4)
    names = ", ".join(short(name) for name in objectives)
    figure.suptitle(title or f"Every design, and the front of three objectives: {names}")
    lines = figure.subfigures(len(parts), 1, squeeze=False)[:, 0]
    drawn = []
    for line, (name, (rows, on_front)) in zip(lines, parts.items(), strict=True):
        values = [scaled(rows, metric) for metric in objectives]
        merits = _letters(values, on_front, objectives)
        axes = line.subplots(1, 3)
        for axis, (a, b) in zip(axes, combinations(range(3), 2), strict=True):
            points = _pair(axis, rows, on_front, looks, (values[a], values[b]))
            drawn.append((axis, points, {index: letter for letter, (index, _) in merits.items()}))
        line.suptitle(f"{name}: {on_front.sum()} of {len(rows)} designs are on the front", fontsize=10)
        handles, texts = axes[0].get_legend_handles_labels()
        line.legend(handles, texts, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
        axes[1].set_title("   ".join(f"{letter}: {text}" for letter, (_, text) in merits.items()), fontsize=8)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axis, points, letters in drawn:
        write_labels(axis, letters, points)
    return figure


def _letters(values: Sequence[tuple[Any, str, str]], on_front: Any, objectives: Sequence[str]) -> dict[str, Any]:
    """Letter → (row, text) of the front's designs of least first, second and third objective; one letter a design."""
    front = np.flatnonzero(on_front)
    merits: dict[int, list[str]] = {}
    for place, metric in enumerate(objectives):
        others = [values[(place + shift) % 3][0][front] for shift in (2, 1)]
        best = int(front[np.lexsort((*others, values[place][0][front]))[0]])
        merits.setdefault(best, []).append(LEAST.get(metric, f"least {short(metric)}"))
    texts = {
        index: f"{', '.join(names)} (" + ", ".join(f"{own[index]:.4g} {unit}" for own, _, unit in values) + ")"
        for index, names in merits.items()
    }
    return dict(zip("ABC", texts.items(), strict=False))


def _pair(
    axis: Axes, rows: Rows, on_front: Any, looks: Styles, pair: tuple[tuple[Any, str, str], tuple[Any, str, str]]
) -> Any:
    """Two of three objectives: dominated designs grey, members of the front coloured; returns the points [n, 2]."""
    (x, x_label, _), (y, y_label, _) = pair
    raster = len(rows) > RASTER_MARKS
    beaten = ~on_front
    axis.scatter(
        x[beaten], y[beaten], s=9, c=GREY, alpha=0.6, lw=0, label=f"beaten ({beaten.sum()})", rasterized=raster
    )
    kinds = [kind_of(row) for row in rows]
    for kind, (colour, marker) in looks.items():
        chosen = on_front & np.array([own == kind for own in kinds])
        if chosen.any():
            label = f"front: {', '.join(kind)} ({chosen.sum()})"
            axis.scatter(
                x[chosen], y[chosen], s=26, c=colour, marker=marker, edgecolors="black", linewidths=0.4, label=label,
                zorder=3, rasterized=raster,
            )  # fmt: skip
    log_axis(axis, "x", x, below=1.0)
    log_axis(axis, "y", y, below=1.0)
    axis.grid(True, which="major", color="0.92", lw=0.6)
    axis.set_axisbelow(True)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    return np.column_stack((x, y))
