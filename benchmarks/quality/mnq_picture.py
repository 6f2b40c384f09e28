"""Accuracy against EDP of maps of non-linear methods: one panel per width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cells import Row
from pages import legend_below, picture

from quant.methods.mnq import METHODS

LABELS = {
    "ibert": ("I-BERT everywhere", "#1b6ca8", "o"),
    "ivit": ("I-ViT everywhere", "#b5532a", "s"),
    "fqvit": ("FQ-ViT everywhere", "#7a5195", "D"),
    "mnq": ("MNQ", "#2e8b57", "*"),
    "output_only": ("output SQNR only", "#8a8a3a", "P"),
    "own_error": ("own error", "#c2539b", "v"),
}
FRONTS = {
    "front": ("hardware-aware, SQNR difference, GELU tables too", "-x"),
    "own_front": ("hardware-aware, own error, GELU tables too", "--x"),
}
NJ_S = 1e-3
FLOOR = 12.0  # points below the best arm that a panel shows


def draw(rows: Sequence[Row], path: str, model: str = "glyph_vit", seed: int = 0) -> None:
    """Write the picture of one checkpoint; arms far below are marked at the lower edge."""
    with picture(path, 1, 2, (9.6, 4.4)) as (figure, ((*axes,),)):
        for axis, bits in zip(axes, (8, 6), strict=True):
            there = {r["arm"]: r for r in rows if (r["model"], r["seed"], r["bits"]) == (model, seed, bits)}
            _panel(axis, there, bits)
        axes[0].set_ylabel("top-1 on test images, %")
        legend_below(figure, axes[0], 3, 0.15)


def _points(rows: dict[str, Row], kind: str) -> list[tuple[float, float]]:
    """EDP and accuracy of the hardware-aware maps of a metric, by rising EDP."""
    chosen = [row for name, row in rows.items() if name.startswith(kind) and row["cost"]]
    return sorted((row["cost"]["edp_pj_s"] * NJ_S, 100 * row["top1"]) for row in chosen)


def _panel(axis: Any, rows: dict[str, Row], bits: int) -> None:
    shown = [name for name in (*METHODS, "mnq", "output_only", "own_error") if name in rows and rows[name]["cost"]]
    fronts = {kind: _points(rows, kind) for kind in FRONTS}
    best = max([100 * rows[name]["top1"] for name in shown] + [y for front in fronts.values() for _, y in front])
    if "float" in rows:
        axis.axhline(100 * rows["float"]["top1"], color="0.6", linestyle="--", linewidth=1, label="float non-linear")
    for kind, (label, style) in FRONTS.items():
        points = fronts[kind]
        axis.plot([x for x, _ in points], [max(y, best - FLOOR) for _, y in points], style, label=label, linewidth=1)
    for name in shown:
        label, colour, marker = LABELS[name]
        x, y = rows[name]["cost"]["edp_pj_s"] * NJ_S, 100 * rows[name]["top1"]
        axis.plot([x], [max(y, best - FLOOR)], marker, color=colour, label=label, markersize=8, linestyle="none")
        if y < best - FLOOR:
            axis.annotate(f"{y:.1f} ↓", (x, best - FLOOR), textcoords="offset points", xytext=(7, 3), fontsize=7)
    axis.set_xlabel("EDP of one image, nJ·s")
    axis.set_title(f"{bits}-bit weights and activations", fontsize=10)
    axis.grid(alpha=0.25)
