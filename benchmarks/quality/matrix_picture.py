"""Accuracy against EDP: one panel per model, the ratios of M²Q joined by a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cells import Row
from pages import legend_below, picture

# Arms of the picture: (name, label, colour, marker); what is not there stands in the tables only.
SHOWN = (
    ("uniform8", "uniform-8", "#1b6ca8", "o"),
    ("uniform6", "uniform-6", "#1b6ca8", "^"),
    ("uniform4", "uniform-4", "#1b6ca8", "v"),
    ("uniform4_reconstructed", "uniform-4, reconstructed", "#62b0e8", "P"),
    ("power_of_two", "power of two", "#b5532a", "s"),
    ("additive", "additive power of two", "#b5532a", "D"),
    ("m2q_0.5_reconstructed", "M²Q ρ = 0.5, reconstructed", "#2e8b57", "*"),
)
# Labelled at the ends only: the points between lie close together.
RATIOS = (("m2q_0", "ρ=0"), ("m2q_0.25", ""), ("m2q_0.5", ""), ("m2q_0.75", ""), ("m2q_1", "ρ=1"))
NJ_S = 1e-3
FLOOR = 3.5  # points below float that a panel shows


def draw(rows: Sequence[Row], matrix: Row, path: str) -> None:
    """Write the picture; arms more than `FLOOR` points below float are marked at the lower edge."""
    models = [name for name in matrix["models"] if any(r["model"] == name and r["arm"] == "float" for r in rows)]
    with picture(path, 1, len(models), (4.4 * len(models), 4.3)) as (figure, ((*axes,),)):
        for axis, model in zip(axes, models, strict=True):
            _panel(axis, {row["arm"]: row for row in rows if row["model"] == model and row["seed"] == 0}, model)
        axes[0].set_ylabel("top-1 on test images, %")
        legend_below(figure, axes[0], 4, 0.13)


def _panel(axis: Any, rows: dict[str, Row], model: str) -> None:
    top = 100 * rows["float"]["test"]["top1"]
    axis.axhline(top, color="0.6", linestyle="--", linewidth=1, label="float")
    floor = top - FLOOR
    for name, label, colour, marker in SHOWN:
        if name in rows and rows[name]["hardware"]:
            x, y = NJ_S * rows[name]["hardware"]["edp_pj_s"], 100 * rows[name]["test"]["top1"]
            axis.plot([x], [max(y, floor)], marker, color=colour, label=label, markersize=7)
            if y < floor:
                axis.annotate(f"{y:.1f} ↓", (x, floor), textcoords="offset points", xytext=(6, 4), fontsize=7)
    points = [
        (NJ_S * rows[name]["hardware"]["edp_pj_s"], 100 * rows[name]["test"]["top1"], text)
        for name, text in RATIOS
        if name in rows and rows[name]["hardware"]
    ]
    if points:
        axis.plot(
            [p[0] for p in points], [max(p[1], floor) for p in points], "-x", color="#2e8b57", label="M²Q, ρ = 0 … 1"
        )
        for x, y, text in points:
            axis.annotate(
                text, (x, max(y, floor)), textcoords="offset points", xytext=(-6, -12), fontsize=8, color="#2e8b57"
            )
    axis.set_ylim(floor - 0.4, top + 0.8)
    axis.set_xlabel("EDP of one image, nJ·s")
    axis.set_title(model, fontsize=10)
    axis.grid(alpha=0.25)
