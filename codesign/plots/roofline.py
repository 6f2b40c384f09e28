"""Roofline of one run: the MACs of every op per cycle over its MACs per DRAM byte, under the roofs of the design."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.api import Report
from accelsim.explain import RooflinePoint, bytes_per_cycle, roofline
from accelsim.formats import Format, Scheme
from accelsim.optable import M_INPUTS, M_MODE, M_PASSES, M_PRODUCTS
from codesign.plots.frame import COLOURS, MARKERS, new_figure, picture_path, save
from codesign.plots.front_labels import write_labels
from codesign.plots.runs import require_rows, run_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARK_AREA = 3000.0
SMALLEST_MARK_AREA = 22.0
# Labels of the longest ops; the vector unit's stand close together.
LABELS = {"MACs": 5, "vector operations": 3}
SHARES = (0.001, 0.01, 0.05)


def plot_roofline(report: Report, path: str | Path, title: str = "") -> None:
    """Every op of a recorded run of one image on logarithmic axes: work per cycle over work per DRAM byte.

    One panel for ops with MACs and one for those of the vector unit; colour and shape by op class, area by the cycles
    during which the op is in progress; ops that move no DRAM bytes stand in a column of their own.  Roofs: every
    engine in each of its modes, all engines together, the DRAM.  PNG or SVG by the suffix of `path`.  Raises
    AccelsimError for another suffix, a run that is not recorded, or when the file cannot be written.
    """
    path = picture_path(path)
    save(roofline_figure(report, title), path)


def engine_roofs(report: Report) -> list[tuple[str, str, float]]:
    """(engine, weight × activation formats, MACs per cycle) of every rate at which an engine runs this network."""
    formats: dict[tuple[str, float], dict[str, None]] = {}
    for combo, (weight, activation, *_) in enumerate(report.table.combos):
        for engine, mode in zip(report.accelerator.engines, report.engines.modes[combo], strict=True):
            if mode[M_MODE] >= 0:
                rate = float(engine.slots * mode[M_PRODUCTS] * mode[M_INPUTS] / mode[M_PASSES])
                text = f"{_bits(weight)}×{_bits(activation)}"
                formats.setdefault((engine.name, rate), {})[text] = None
    return [(engine, ", ".join(texts), rate) for (engine, rate), texts in formats.items()]


def _bits(form: Format) -> str:
    if form.scheme is Scheme.TWO_REGION:
        return f"{form.bits} (two regions)"
    return str(form.bits) if form.scheme is Scheme.UNIFORM else f"{form.bits} (power of two)"


def roofline_figure(report: Report, title: str = "") -> Figure:
    """The figure of `plot_roofline`."""
    require_rows(report, "roofline", one_image=True)
    points = [point for point in roofline(report) if point.active_cycles > 0 and point.attained > 0]
    looks = {
        name: (COLOURS[k % len(COLOURS)], MARKERS[(k + k // len(COLOURS)) % len(MARKERS)])
        for k, name in enumerate(dict.fromkeys(point.op_class for point in points))
    }
    per_byte = bytes_per_cycle(report.accelerator)
    figure = new_figure(15.5, 8.0)
    figure.suptitle(title or f"Roofline of {run_title(report)}")
    with_macs = [point for point in points if point.work_unit == "MACs"]
    vector = [point for point in points if point.work_unit != "MACs"]
    panels: list[tuple[str, Sequence[RooflinePoint], list[tuple[str, float]]]] = []
    if with_macs:
        panels.append(("MACs", with_macs, _mac_roofs(report, with_macs)))
    if vector:
        best = max(point.peak for point in vector)
        panels.append(("vector operations", vector, [("vector unit, cheapest mix of this network", best)]))
    axes = figure.subplots(1, len(panels), width_ratios=[1.5, 1.0][: len(panels)], squeeze=False)[0]
    total = report.result.cycles_total
    drawn = [
        (axis, own, _panel(axis, own, roofs, looks, per_byte, work, total))
        for axis, (work, own, roofs) in zip(axes, panels, strict=True)
    ]
    _legend(figure, points, looks)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axis, own, places in drawn:
        write_labels(axis, _names(own, total), places)
    return figure


def _names(points: Sequence[RooflinePoint], total: int) -> dict[int, str]:
    """Texts for the ops that are longest in progress; ops of one class in one place (equal layers) have one text."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for k, point in enumerate(points):
        intensity = "none" if point.intensity is None else f"{point.intensity:.2g}"
        groups.setdefault((point.op_class, intensity, f"{point.attained:.2g}"), []).append(k)
    cycles = {group[0]: sum(points[k].active_cycles for k in group) for group in groups.values()}
    members = {group[0]: group for group in groups.values()}
    texts = {}
    for first in sorted(cycles, key=lambda k: -cycles[k])[: LABELS[points[0].work_unit]]:
        others = f" and {len(members[first]) - 1} more" if len(members[first]) > 1 else ""
        share = cycles[first] / len(members[first]) / total
        texts[first] = f"{points[first].name}{others}\n{share:.1%} of the time{' on average' if others else ''}"
    return texts


def _mac_roofs(report: Report, points: Sequence[RooflinePoint]) -> list[tuple[str, float]]:
    """Roofs of the engines; the highest roof of an op, when engines share it and it is higher than any of theirs."""
    roofs = [(f"{engine} {formats}", rate) for engine, formats, rate in engine_roofs(report)]
    together = max(point.peak for point in points)
    return roofs if together <= max(rate for _, rate in roofs) else [*roofs, ("engines together", together)]


def _panel(
    axis: Axes, points: Sequence[RooflinePoint], roofs: Sequence[tuple[str, float]], looks: dict[str, tuple[str, str]],
    per_byte: float, work: str, total: int,
) -> Any:  # fmt: skip
    """Draw ops and roofs; returns the places [n, 2] of the ops."""
    finite = [point.intensity for point in points if point.intensity is not None]
    ridge = max(rate for _, rate in roofs) / per_byte
    low, high = min([*finite, ridge]) / 2, max([*finite, ridge]) * 2
    aside = high * (high / low) ** 0.12
    end = high * (high / low) ** 0.06
    places = np.array([[aside if point.intensity is None else point.intensity, point.attained] for point in points])
    top = max(rate for _, rate in roofs)
    bottom = min(float(places[:, 1].min()), top / 10) / 2
    axis.set(xscale="log", yscale="log", xlim=(low, high * (high / low) ** 0.18), ylim=(bottom, top * 3))
    _draw_roofs(axis, roofs, per_byte)
    for point, (x, y) in zip(points, places, strict=True):
        colour, marker = looks[point.op_class]
        axis.scatter(
            [x], [y], s=mark_area(point.active_cycles / total), c=colour, marker=marker, alpha=0.7,
            edgecolors="black", linewidths=0.4, zorder=3,
        )  # fmt: skip
    if len(finite) < len(points):
        axis.set_xticks([tick for tick in axis.get_xticks() if tick < end])
        axis.set_xlim(low, high * (high / low) ** 0.18)
        axis.axvspan(end, axis.get_xlim()[1], color="0.95", zorder=0)
        axis.text(aside, bottom * 1.15, "no DRAM\ntraffic", ha="center", va="bottom", fontsize=8)
    axis.minorticks_off()
    axis.set_xlabel(f"{work} per DRAM byte")
    axis.set_ylabel(f"{work} per cycle")
    axis.set_title(f"ops with {work}" if work == "MACs" else "ops of the vector unit", fontsize=10)
    axis.grid(True, which="major", color="0.92", lw=0.6)
    axis.set_axisbelow(True)
    return places


def _draw_roofs(axis: Axes, roofs: Sequence[tuple[str, float]], per_byte: float) -> None:
    """The DRAM's slanted roof up to the highest flat one, and the flat ones with their names."""
    low, right = axis.get_xlim()
    slope = np.array([max(low, axis.get_ylim()[0] / per_byte), max(rate for _, rate in roofs) / per_byte])
    axis.plot(slope, slope * per_byte, color="black", lw=1.5)
    text = f"slanted line: DRAM, {per_byte:.3g} bytes per cycle"
    axis.text(0.02, 0.98, text, transform=axis.transAxes, va="top", fontsize=8)
    by_rate: dict[float, list[str]] = {}
    for name, rate in roofs:
        by_rate.setdefault(rate, []).append(name)
    for rate, names in by_rate.items():
        axis.plot([rate / per_byte, right], [rate, rate], color="black", lw=1.0, ls="--")
        axis.text(right, rate * 1.04, f"{'; '.join(names)}: {rate:,.4g} ", ha="right", va="bottom", fontsize=8)


def mark_area(share: float) -> float:
    """Area of a mark in square points, by the share of the run during which the op is in progress."""
    return SMALLEST_MARK_AREA + MARK_AREA * share


def _legend(figure: Figure, points: Sequence[RooflinePoint], looks: dict[str, tuple[str, str]]) -> None:
    from matplotlib.lines import Line2D

    counts = {name: sum(point.op_class == name for point in points) for name in looks}
    handles = [
        Line2D([], [], ls="", color=colour, marker=marker, ms=7, label=f"{name} ({counts[name]})")
        for name, (colour, marker) in looks.items()
    ]
    handles += [
        Line2D([], [], ls="", color="0.6", marker="o", ms=mark_area(share) ** 0.5, label=f"in progress {share:.1%}")
        for share in SHARES
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=9, fontsize=8, frameon=False)
