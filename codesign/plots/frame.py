"""What all pictures share: figures without a display, colours, units of metrics, and writing picture and CSV whole."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.config_walk import near
from accelsim.files import replacing
from accelsim.problems import AccelsimError, Problem
from codesign.pareto import kind_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
SUFFIXES = (".png", ".svg")
# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
GREY = "0.72"
DPI = 150
# From so many marks on, an SVG holds them as one embedded image.
RASTER_MARKS = 2000
MS_PER_S = 1e3


@dataclass(frozen=True)
class Quantity:
    """A metric of a study on an axis: its name there, and units with their factors from the smallest unit on."""

    name: str
    units: tuple[tuple[str, float], ...]

    def unit_for(self, values: Any) -> tuple[str, float]:
        """The largest unit in which the median of `values` is at least 1, else the smallest."""
        middle = float(np.median(values))
        fitting = [unit for unit in self.units if middle * unit[1] >= 1]
        return fitting[-1] if fitting else self.units[0]


_ENERGY = (("µJ", 1e-6), ("mJ", 1e-9))
_EDP = (("nJ·s", 1e-3), ("µJ·s", 1e-6))
_TRAFFIC = (("kB", 1 / 8e3), ("MB", 1 / 8e6))
# Every cost that a study stores (`codesign.store.METRICS`).
QUANTITIES = {
    "cycles": Quantity("cycles", (("thousands", 1e-3), ("millions", 1e-6))),
    "latency_s": Quantity("latency per image", (("ms", MS_PER_S),)),
    "energy_pj": Quantity("energy per image", _ENERGY),
    "edp_pj_s": Quantity("EDP per image", _EDP),
    "energy_pj_synthesized": Quantity("synthesized energy per image", _ENERGY),
    "edp_pj_s_synthesized": Quantity("synthesized EDP per image", _EDP),
    "area_mm2": Quantity("area", (("mm²", 1.0),)),
    "dram_read_bits": Quantity("DRAM reads per image", _TRAFFIC),
    "dram_write_bits": Quantity("DRAM writes per image", _TRAFFIC),
    "power_w": Quantity("power", (("mW", 1e3), ("W", 1.0))),
    "predicted_loss": Quantity("predicted loss", (("table's unit", 1.0),)),
}


def picture_path(path: str | Path) -> Path:
    """`path`, if it ends in .png or .svg; raises AccelsimError otherwise."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise AccelsimError(Problem(str(path), "unknown kind of picture", "a name that ends in .png or .svg"))
    return Path(path)


def check_metrics(names: Sequence[str], place: str) -> None:
    """Raise AccelsimError when some of `names` are not costs that a study stores, or one stands there twice."""
    problems = [
        Problem(place, f"unknown metric {name!r}", " | ".join(QUANTITIES), near(name, list(QUANTITIES)))
        for name in dict.fromkeys(names)
        if name not in QUANTITIES
    ]
    if len(set(names)) < len(names):
        problems.append(Problem(place, f"names one metric twice: {', '.join(names)}", "different metrics"))
    if problems:
        raise AccelsimError(problems)


def as_rows(rows: Rows | pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of `Study.rows()`, or of the same as a DataFrame, as dictionaries with None for what is missing."""
    if isinstance(rows, Sequence):
        return [dict(row) for row in rows]
    plain = rows.astype(object).where(rows.notna(), None)
    return [{str(key): value for key, value in row.items()} for row in plain.to_dict("records")]


def by_workload(rows: Rows, metrics: Sequence[str], where: str, most: int) -> dict[str, list[int]]:
    """Rows that have all `metrics`, by the name of their workload (model and resolution).

    Raises AccelsimError when there are none, or more than `most` workloads.
    """
    groups: dict[tuple[Any, Any], list[int]] = {}
    for index, row in enumerate(rows):
        if all(row.get(metric) is not None for metric in metrics):
            groups.setdefault((row.get("model"), row.get("resolution")), []).append(index)
    if not groups:
        expected = "at least one design that the accelerator can run"
        raise AccelsimError(Problem(where, "the study holds no design with numbers", expected))
    if len(groups) > most:
        raise AccelsimError(Problem(where, f"{len(groups)} workloads", f"at most {most} in one picture"))
    return {" at ".join(str(part) for part in key if part is not None): group for key, group in groups.items()}


def styles(rows: Rows) -> dict[tuple[str, ...], tuple[str, str]]:
    """Colour and marker by `kind_of`, in order of first appearance."""
    kinds = dict.fromkeys(kind_of(row) for row in rows)
    return {
        kind: (COLOURS[index % len(COLOURS)], MARKERS[(index + index // len(COLOURS)) % len(MARKERS)])
        for index, kind in enumerate(kinds)
    }


def scaled(rows: Rows, metric: str) -> tuple[Any, str, str]:
    """Values [n] of a metric in the unit of its axis, the label of the axis, and the unit.

    Raises AccelsimError for a value that is not positive: the axes are logarithmic.
    """
    quantity = QUANTITIES[metric]
    values = np.array([float(row[metric]) for row in rows])
    if not (values > 0).all():
        raise AccelsimError(Problem(metric, f"is {values.min():g} in a design", "positive numbers in every design"))
    unit, factor = quantity.unit_for(values)
    return values * factor, f"{quantity.name} [{unit}]", unit


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """An empty figure on matplotlib's Agg canvas, which needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_inches, height_inches), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panel_figure(panels: int, width_inches: float = 6.5, height_inches: float = 6.0) -> tuple[Figure, list[Axes]]:
    """A figure with `panels` panels in lines of up to three; a single panel is wider."""
    columns = min(panels, 3)
    lines = math.ceil(panels / columns)
    figure = new_figure(9.0 if panels == 1 else width_inches * columns, height_inches * lines)
    return figure, [figure.add_subplot(lines, columns, index + 1) for index in range(panels)]


def log_axis(axis: Axes, which: str, values: Any, below: float = 1.4) -> None:
    """Make axis "x" or "y" logarithmic with room around `values` (`below` times as much below) and plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    low, high = float(np.min(values)), float(np.max(values))
    set_scale, set_limits, ticks = (
        (axis.set_xscale, axis.set_xlim, axis.xaxis) if which == "x" else (axis.set_yscale, axis.set_ylim, axis.yaxis)
    )
    set_scale("log")
    room = max((high / low) ** 0.18, 1.15)
    set_limits(low / room**below, high * room)
    few = LogLocator(10, subs=(1, 2, 5) if high / low > 30 else (1, 1.5, 2, 3, 4, 5, 6, 8))
    ticks.set_major_locator(MaxNLocator(6) if high / low < 3 else few)
    ticks.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ticks.set_minor_locator(NullLocator())


def number_text(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def csv_text(columns: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """A table as CSV; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(["" if cell is None else cell for cell in line] for line in lines)
    return text.getvalue()


def study_csv(rows: Rows, mask: Sequence[bool]) -> str:
    """All rows with `on_front`, designs without numbers included; nested details stay in the study."""
    nested = {key for row in rows for key, value in row.items() if isinstance(value, (dict, list))}
    columns = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in nested]
    lines = [[int(front), *map(row.get, columns)] for row, front in zip(rows, mask, strict=True)]
    return csv_text(["on_front", *columns], lines)


def csv_beside(path: str | Path) -> Path:
    """Where the numbers of a picture of a study go."""
    return Path(path).with_suffix(".csv")


def save(figure: Figure, path: Path, numbers: str | None = None) -> None:
    """Write the picture, and `numbers` as CSV beside it: both whole, or neither.

    Raises AccelsimError when they cannot be written.
    """
    with replacing(path) as picture:
        # The file may be a link to a name of another kind.
        figure.savefig(picture, format=path.suffix.lower().removeprefix("."))
        if numbers is not None:
            with replacing(csv_beside(path)) as table:
                table.write_text(numbers, encoding="utf-8")
