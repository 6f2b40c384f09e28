"""Pictures of a study and of one run.  matplotlib is imported inside, on its Agg canvas: no display is needed."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.files import replacing, write_text_atomic
from accelsim.problems import AccelsimError, Problem
from accelsim.trace import TraceRow
from codesign.labels import Box, place_labels
from codesign.pareto import front_mask, knee

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
SUFFIXES = (".png", ".svg")
# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MAX_PANELS = 6
GANTT_RESOLUTION = 4000
DPI = 150
# Half the length of an EDP label, and a margin.
EDP_LABEL_PIXELS = 0.55 * DPI
MS_PER_S = 1e3
UJ_PER_PJ = 1e-6


def plot_pareto(rows: Rows | pd.DataFrame, path: str | Path, title: str = "") -> Path:
    """Latency against energy of every feasible design of a study, with its front, and a CSV beside it.

    `rows` are `Study.rows()` or the same as a DataFrame.  One panel per workload (model and resolution).  The picture
    is PNG or SVG by the suffix of `path`; returns the path of the CSV.  Raises AccelsimError for another suffix, when
    no design has numbers, for more than six workloads, or when a file cannot be written.
    """
    path = _picture(path)
    table = _as_rows(rows)
    mask = front_mask(table)
    panels: dict[tuple[Any, Any], list[int]] = {}
    for index, row in enumerate(table):
        if row.get("latency_s") is not None and row.get("energy_pj") is not None:
            panels.setdefault((row.get("model"), row.get("resolution")), []).append(index)
    if not panels:
        expected = "at least one design that the accelerator can run"
        raise AccelsimError(Problem(str(path), "the study holds no design with numbers", expected))
    if len(panels) > MAX_PANELS:
        raise AccelsimError(Problem(str(path), f"{len(panels)} workloads", f"at most {MAX_PANELS} in one picture"))
    csv_path = path.with_suffix(".csv")
    write_text_atomic(csv_path, _csv_text(table, mask))
    styles = _styles([table[index] for members in panels.values() for index in members])
    figure, axes = _figure(len(panels))
    figure.suptitle(title or "Latency and energy of every design")
    drawn = []
    for axis, (workload, members) in zip(axes, panels.items(), strict=True):
        name = " at ".join(str(part) for part in workload if part is not None)
        drawn.append(_panel(axis, [table[i] for i in members], [mask[i] for i in members], styles, name))
    # Angles and label places are in pixels, so they wait for the final layout, and must not change it.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axis, (points, order, unit) in zip(axes, drawn, strict=True):
        _edp_lines(axis, points, unit)
        _label(axis, _marks(points, order, unit), points, order)
    _save(figure, path)
    return csv_path


def _picture(path: str | Path) -> Path:
    if Path(path).suffix.lower() not in SUFFIXES:
        raise AccelsimError(Problem(str(path), "unknown kind of picture", "a name that ends in .png or .svg"))
    return Path(path)


def _as_rows(rows: Rows | pd.DataFrame) -> list[dict[str, Any]]:
    if isinstance(rows, Sequence):
        return [dict(row) for row in rows]
    plain = rows.astype(object).where(rows.notna(), None)
    return [{str(key): value for key, value in row.items()} for row in plain.to_dict("records")]


def _csv_text(rows: Rows, mask: Sequence[bool]) -> str:
    """All rows, designs without numbers included; nested details stay in the study."""
    nested = {key for row in rows for key, value in row.items() if isinstance(value, (dict, list))}
    columns = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in nested]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["on_front", *columns])
    for row, on_front in zip(rows, mask, strict=True):
        cells = ["" if row.get(column) is None else row[column] for column in columns]
        writer.writerow([int(on_front), *cells])
    return text.getvalue()


def _styles(rows: Rows) -> dict[tuple[str, str], tuple[str, str]]:
    """Colour and marker by (arch, plan), in order of first appearance."""
    kinds = dict.fromkeys((str(row.get("arch")), str(row.get("plan"))) for row in rows)
    return {
        kind: (COLOURS[index % len(COLOURS)], MARKERS[(index + index // len(COLOURS)) % len(MARKERS)])
        for index, kind in enumerate(kinds)
    }


def _figure(panels: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(panels, 3)
    lines = math.ceil(panels / columns)
    width = 9.0 if panels == 1 else 6.5 * columns
    figure = Figure(figsize=(width, 6.0 * lines), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(lines, columns, index + 1) for index in range(panels)]


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary)


def _panel(
    axis: Axes, rows: Rows, mask: Sequence[bool], styles: Mapping[tuple[str, str], tuple[str, str]], name: str
) -> tuple[Any, Any, str]:
    """Draw one workload; returns its points [n, 2] in the units of the axes, its front in order, the energy unit."""
    latency_ms = np.array([float(row["latency_s"]) * MS_PER_S for row in rows])
    energy_uj = np.array([float(row["energy_pj"]) * UJ_PER_PJ for row in rows])
    unit, scale = ("mJ", 1e-3) if np.median(energy_uj) >= 1e3 else ("µJ", 1.0)
    energy = energy_uj * scale
    on_front = np.array(mask, dtype=bool)
    for (arch, plan), (colour, marker) in styles.items():
        chosen = np.array([(str(r.get("arch")), str(r.get("plan"))) == (arch, plan) for r in rows])
        if chosen.any():
            label = f"{arch}, {plan} ({chosen.sum()})"
            axis.scatter(
                latency_ms[chosen], energy[chosen], s=26, c=colour, marker=marker, alpha=0.55, linewidths=0, label=label
            )
    order = np.flatnonzero(on_front)[np.lexsort((energy[on_front], latency_ms[on_front]))]
    axis.plot(latency_ms[order], energy[order], "-", color="black", lw=1.2, zorder=3, label=f"front ({len(order)})")
    axis.scatter(latency_ms[order], energy[order], s=34, facecolors="none", edgecolors="black", lw=0.9, zorder=4)
    _log_axes(axis, latency_ms, energy)
    axis.set_xlabel("latency per image [ms]")
    axis.set_ylabel(f"energy per image [{unit}]")
    axis.set_title(name, fontsize=10)
    # The legend stands outside: inside it would cover designs of some studies.
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, fontsize=8, frameon=False)
    return np.column_stack((latency_ms, energy)), order, unit


def _log_axes(axis: Axes, x: Any, y: Any) -> None:
    """Logarithmic axes with room for labels and plain numbers as ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    for values, scale, limits, ticks in (
        (x, axis.set_xscale, axis.set_xlim, axis.xaxis),
        (y, axis.set_yscale, axis.set_ylim, axis.yaxis),
    ):
        scale("log")
        low, high = float(values.min()), float(values.max())
        room = max((high / low) ** 0.18, 1.15)
        # More below than above: the front, and so the labels, are there.
        limits(low / room**1.4, high * room)
        narrow = high / low < 3
        ticks.set_major_locator(MaxNLocator(6) if narrow else LogLocator(10, subs=(1, 1.5, 2, 3, 4, 5, 6, 8)))
        ticks.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ticks.set_minor_locator(NullLocator())
    axis.grid(True, which="major", color="0.92", lw=0.6)
    axis.set_axisbelow(True)


def _marks(points: Any, order: Any, unit: str) -> dict[int, str]:
    """Texts for the designs worth naming; a design with several merits has one label."""
    merits: dict[int, list[str]] = {}
    front = points[order]
    for name, index in (
        ("fastest", order[0]),
        ("lowest energy", order[-1]),
        ("best EDP", order[int(np.argmin(front[:, 0] * front[:, 1]))]),
        ("knee", order[knee(front)]),
    ):
        merits.setdefault(int(index), []).append(name)
    return {
        index: f"{', '.join(names)}\n{points[index, 0]:.4g} ms, {points[index, 1]:.4g} {unit}"
        for index, names in merits.items()
    }


def _edp_lines(axis: Axes, points: Any, unit: str) -> None:
    """Lines of equal energy-delay product, their value written in the line where the fewest designs are near."""
    (x_low, x_high), (y_low, y_high) = axis.get_xlim(), axis.get_ylim()
    products = points[:, 0] * points[:, 1]
    levels = np.geomspace(products.min(), products.max(), 4) if products.max() > products.min() else products[:1]
    spots = axis.transData.transform(points)
    for level in levels:
        first, last = max(x_low, level / y_high), min(x_high, level / y_low)
        if first >= last:
            continue
        axis.plot([first, last], [level / first, level / last], "--", color="0.6", lw=0.7, zorder=1)
        along = first * (last / first) ** np.linspace(0, 1, 101)
        places = axis.transData.transform(np.column_stack((along, level / along)))
        distances = np.linalg.norm(places[:, None, :] - spots[None, :, :], axis=2).min(axis=1)
        to_ends = [np.linalg.norm(places - end, axis=1) for end in (places[0], places[-1])]
        fits = np.minimum(*to_ends) > EDP_LABEL_PIXELS
        if not fits.any():
            continue
        at = along[int(np.argmax(np.where(fits, distances, -1.0)))]
        # With both axes logarithmic the lines are straight, so one angle holds along the whole line.
        angle = math.degrees(math.atan2(*(places[-1] - places[0])[::-1]))
        value = f"{level:,.0f}" if level >= 100 else f"{level:.3g}"
        axis.text(
            at,
            level / at,
            f"EDP {value} {unit}·ms",
            fontsize=7,
            color="0.4",
            rotation=angle,
            rotation_mode="anchor",
            ha="center",
            va="center",
            bbox={"fc": "white", "ec": "none", "pad": 0.8},
            zorder=1.5,
        )


def _label(axis: Axes, marks: Mapping[int, str], points: Any, on_front: Any) -> None:
    """Write the labels where they hide least."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    canvas = axis.figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    pixels_per_point = DPI / 72
    spots = axis.transData.transform(points)
    # Designs may be covered at need, the front only when nothing else is left: its line counts as many points.
    steps = np.linspace(0.0, 1.0, 12)[:, None]
    line = [spots[on_front], *(spots[a] + steps * (spots[b] - spots[a]) for a, b in pairwise(on_front))]
    hidden = np.concatenate((spots, *line))
    weights = np.where(np.arange(len(hidden)) < len(spots), 5.0, 60.0)
    obstacles = [Box(*text.get_window_extent(renderer).extents) for text in axis.texts]
    labels = [
        axis.annotate(
            text,
            points[index],
            textcoords="offset points",
            xytext=(0, 0),
            fontsize=8,
            ha="center",
            va="center",
            arrowprops={"arrowstyle": "-", "color": "0.25", "lw": 0.7, "shrinkB": 3},
            bbox={"boxstyle": "round,pad=0.25", "fc": "white", "ec": "0.6", "lw": 0.6, "alpha": 0.95},
            zorder=6,
        )
        for index, text in marks.items()
    ]
    # The extent of the text alone, without its line; the frame around it adds some points on every side.
    sizes = [Text.get_window_extent(label, renderer).padded(4 * pixels_per_point).size for label in labels]
    inside = Box(*axis.get_window_extent(renderer).extents)
    anchors = spots[list(marks)]
    centres = place_labels(anchors, np.array(sizes), inside, obstacles, hidden, weights, pixels_per_point)
    for label, anchor, centre in zip(labels, anchors, centres, strict=True):
        label.set_position(tuple((np.array(centre) - anchor) / pixels_per_point))


def plot_gantt(
    trace_rows: Sequence[TraceRow], path: str | Path, clock_hz: float | None = None, title: str = ""
) -> None:
    """What every unit does over time: dark and light shades alternate from op to op, waits are thin lines by cause.

    The time axis is in cycles, or in milliseconds when `clock_hz` is given.  Raises AccelsimError without rows, for an
    unknown kind of picture, or when the file cannot be written.
    """
    path = _picture(path)
    if not trace_rows:
        raise AccelsimError(Problem(str(path), "the run has no rows to draw", "a trace"))
    units = list(dict.fromkeys(row.unit for row in trace_rows))
    scale, unit_name = (MS_PER_S / clock_hz, "ms") if clock_hz else (1.0, "cycles")
    end = max(row.finish_cycles for row in trace_rows) * scale
    ops = {op: place for place, op in enumerate(dict.fromkeys(row.op for row in trace_rows))}
    waits = sorted({row.wait_cause for row in trace_rows if row.wait_cycles > 0 and row.wait_cause})
    wait_colours = {cause: COLOURS[(index + 1) % len(COLOURS)] for index, cause in enumerate(waits)}
    figure, (axis,) = _figure(1)
    figure.set_size_inches(11, 1.6 + 0.55 * len(units))
    for lane, unit in enumerate(units):
        rows = [row for row in trace_rows if row.unit == unit]
        for shade, colour in enumerate(("#1B4F72", "#7FB3D5")):
            spans = [(r.start_cycles * scale, r.release_cycles * scale) for r in rows if ops[r.op] % 2 == shade]
            axis.broken_barh(_merged(spans, end), (lane - 0.3, 0.6), color=colour, lw=0)
        for cause, colour in wait_colours.items():
            spans = [
                ((r.start_cycles - r.wait_cycles) * scale, r.start_cycles * scale)
                for r in rows
                if r.wait_cause == cause and r.wait_cycles > 0
            ]
            axis.broken_barh(_merged(spans, end), (lane - 0.09, 0.18), color=colour, lw=0)
    _gantt_frame(axis, units, end, unit_name, wait_colours)
    figure.suptitle(title or "Engines over time")
    _save(figure, path)


def _merged(spans: Sequence[tuple[float, float]], end: float) -> list[tuple[float, float]]:
    """Spans as (start, width); gaps too small to see are closed, so that long traces stay small pictures."""
    smallest = end / GANTT_RESOLUTION
    merged: list[list[float]] = []
    for start, stop in sorted(spans):
        if merged and start - merged[-1][1] < smallest:
            merged[-1][1] = max(merged[-1][1], stop)
        else:
            merged.append([start, stop])
    return [(start, stop - start) for start, stop in merged]


def _gantt_frame(axis: Axes, units: Sequence[str], end: float, unit_name: str, waits: Mapping[str, str]) -> None:
    from matplotlib.patches import Patch

    axis.set_xlim(0, end)
    axis.set_ylim(len(units) - 0.5, -0.5)
    axis.set_yticks(range(len(units)), units)
    axis.set_xlabel(f"time [{unit_name}]")
    for above, _ in pairwise(range(len(units))):
        axis.axhline(above + 0.5, color="0.9", lw=0.6)
    handles = [Patch(color="#1B4F72", label="busy"), Patch(color="#7FB3D5", label="busy, next op")]
    handles += [Patch(color=colour, label=f"waits for {cause}") for cause, colour in waits.items()]
    axis.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
