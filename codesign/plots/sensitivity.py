"""How much each axis of a space decides a metric (EDP by default): its spread at every value of the axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.problems import AccelsimError, Problem
from codesign.plots.axes_of_study import field_text, shortened, value_of, value_text, varying
from codesign.plots.frame import (
    COLOURS,
    QUANTITIES,
    Rows,
    as_rows,
    by_workload,
    check_metrics,
    csv_beside,
    csv_text,
    log_axis,
    new_figure,
    picture_path,
    save,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRIC = "edp_pj_s"
MAX_PANELS = 6
MAX_LINES = 200
WORKLOAD_FIELDS = ("model", "resolution")
SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
COLUMNS = (
    "workload", "axis", "main_effect", "value", "designs", "geomean", "min", "p05", "p25", "p50", "p75", "p95", "max",
)  # fmt: skip


@dataclass(frozen=True)
class Level:
    """One value of an axis: its designs, the geometric mean of their metric, and the quantiles at `SHARES`."""

    value: Any
    designs: int
    geomean: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class Effect:
    """One axis: `main_effect` is the largest over the smallest geometric mean of its levels, at least 1."""

    field: str
    main_effect: float
    levels: tuple[Level, ...]


def effects(rows: Rows, metric: str = METRIC) -> list[Effect]:
    """Axes of the space by main effect, largest first.  All `rows` are of one workload and have the metric."""
    values = np.array([float(row[metric]) for row in rows])
    found = []
    for field, choices in varying(rows).items():
        if field in WORKLOAD_FIELDS:
            continue
        own = [value_of(row, field) for row in rows]
        levels = tuple(_level(choice, values[[value == choice for value in own]]) for choice in choices)
        means = [level.geomean for level in levels]
        found.append(Effect(field, max(means) / min(means), levels))
    return sorted(found, key=lambda effect: -effect.main_effect)


def _level(value: Any, numbers: Any) -> Level:
    quantiles = tuple(float(number) for number in np.quantile(numbers, SHARES))
    return Level(value, len(numbers), float(np.exp(np.log(numbers).mean())), quantiles)


def plot_sensitivity(rows: Rows | pd.DataFrame, path: str | Path, title: str = "", metric: str = METRIC) -> Path:
    """Spread of a metric at every value of every axis, axes by main effect, one panel per workload; CSV beside it.

    Boxes span the middle half of the designs, whiskers 5 % to 95 %, the diamond is the geometric mean.  Returns the
    path of the CSV (metric in the study's unit).  Raises AccelsimError as `plot_pareto` does, and when no axis varies
    or there are more than 200 values in a panel; nothing is written then.
    """
    path = picture_path(path)
    check_metrics([metric], "--metric")
    table = as_rows(rows)
    panels = _panels(table, metric, str(path))
    save(_figure(panels, metric, title), path, _csv(panels))
    return csv_beside(path)


def sensitivity_figure(rows: Rows, metric: str = METRIC, title: str = "", where: str = "study") -> Figure:
    """The figure of `plot_sensitivity`; `where` names the study in messages."""
    check_metrics([metric], "--metric")
    return _figure(_panels(rows, metric, where), metric, title)


def _panels(rows: Rows, metric: str, where: str) -> dict[str, list[Effect]]:
    groups = by_workload(rows, [metric], where, MAX_PANELS)
    panels = {name: effects([rows[index] for index in members], metric) for name, members in groups.items()}
    if not any(panels.values()):
        raise AccelsimError(Problem(where, "no axis of the study takes two values", "a study of a design space"))
    most = max(sum(len(effect.levels) for effect in panel) for panel in panels.values())
    if most > MAX_LINES:
        raise AccelsimError(Problem(where, f"{most} values on all axes", f"at most {MAX_LINES} in one picture"))
    return panels


def _csv(panels: dict[str, list[Effect]]) -> str:
    lines = [
        [workload, effect.field, effect.main_effect, level.value, level.designs, level.geomean, *level.quantiles]
        for workload, panel in panels.items()
        for effect in panel
        for level in effect.levels
    ]
    return csv_text(COLUMNS, lines)


def _figure(panels: dict[str, list[Effect]], metric: str, title: str) -> Figure:
    columns = min(len(panels), 2)
    lines = -(-len(panels) // columns)
    tall = max(sum(len(effect.levels) + 1.4 for effect in panel) for panel in panels.values())
    figure = new_figure(9.0 if columns == 1 else 15.0, lines * (1.3 + 0.25 * tall))
    quantity = QUANTITIES[metric]
    unit, factor = quantity.unit_for(
        [level.quantiles[3] for panel in panels.values() for e in panel for level in e.levels]
    )
    for place, (name, panel) in enumerate(panels.items(), start=1):
        axis = figure.add_subplot(lines, columns, place)
        _draw(axis, panel, factor)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel(f"{quantity.name} [{unit}]")
    text = "box: middle half, whiskers: 5 % to 95 %, diamond: geometric mean"
    figure.suptitle(f"{title or f'What decides the {quantity.name}'}\n{text}", fontsize=11)
    return figure


def _draw(axis: Axes, panel: Sequence[Effect], factor: float) -> None:
    height, ticks, texts, reach = 0.0, [], [], []
    for effect, colour in zip(panel, [COLOURS[k % 6] for k in range(len(panel))], strict=True):
        heading = f"{field_text(effect.field)}: ×{effect.main_effect:.2f}"
        axis.text(0.008, height, heading, transform=axis.get_yaxis_transform(), fontsize=9, weight="bold", va="center")
        height += 1.0
        boxes, first = [], height
        for level in effect.levels:
            p05, p25, p50, p75, p95 = (value * factor for value in level.quantiles[1:-1])
            boxes.append({"whislo": p05, "q1": p25, "med": p50, "q3": p75, "whishi": p95, "fliers": []})
            reach += [p05, p95]
            ticks.append(height)
            texts.append(f"{shortened(value_text(effect.field, level.value), 26)} ({level.designs})")
            height += 1.0
        places = [first + k for k in range(len(boxes))]
        axis.bxp(
            boxes, positions=places, widths=0.62, orientation="horizontal", showfliers=False, patch_artist=True,
            manage_ticks=False, boxprops={"facecolor": colour, "alpha": 0.55}, medianprops={"color": "black"},
        )  # fmt: skip
        means = [level.geomean * factor for level in effect.levels]
        axis.plot(means, places, "D", color="black", markerfacecolor="white", ms=5, ls=":", lw=1.0)
        axis.axhline(height - 0.2, color="0.85", lw=0.8)
        height += 0.4
    axis.set_yticks(ticks, texts, fontsize=8)
    axis.set_ylim(height - 0.6, -0.7)
    if reach:
        log_axis(axis, "x", np.array(reach), below=1.0)
    axis.grid(axis="x", color="0.92", lw=0.6)
    axis.set_axisbelow(True)
