"""The ablation as a picture: EDP of every row against the baseline, at equal slots and at equal area."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.files import replacing
from codesign.ablation import BASES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 105
SIZE_INCHES = (11.5, 5.4)
ROOM_FOR_TEXT = 0.34
# Okabe and Ito's palette; arithmetic and synthesized.
STYLES = (("arithmetic", "", "#0072B2", "o", 0.14), ("synthesized", "_synthesized", "#D55E00", "s", -0.14))


def ablation_figure(data: Mapping[str, Any]) -> Figure:
    """The figure: a panel per basis, a row per step, large marks and text the means, small marks the networks."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(BASES), sharey=True, sharex=True)
    for axis, basis in zip(axes, BASES, strict=True):
        _panel(axis, data, basis)
    labels = [step["label"] + (", fused" if step["fuse"] and not step["ladder"] else "") for step in data["steps"]]
    axes[0].set_yticks(range(len(labels)), labels, fontsize=9)
    axes[0].set_ylim(len(labels) - 0.5, -0.5)
    axes[0].set_xlim(0.0, max(1.0, *(1 - cell["saving"] for cell in data["cells"])) + ROOM_FOR_TEXT)
    names = ", ".join(f"{model.removeprefix('efficientvit_').upper()}-{size}" for model, size in data["networks"])
    figure.suptitle(f"Energy-delay product against the uniform-8 baseline without fusion: {names}", fontsize=11)
    handles, texts = axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=4, fontsize=8.5, frameon=False)
    return figure


def plot_ablation(data: Mapping[str, Any], path: str | Path) -> None:
    """Write the figure as PNG or SVG, by the suffix of `path`."""
    with replacing(path) as temporary:
        ablation_figure(data).savefig(temporary)


def _panel(axis: Axes, data: Mapping[str, Any], basis: str) -> None:
    steps = [step["name"] for step in data["steps"]]
    cells = [cell for cell in data["cells"] if cell["basis"] == basis]
    ends = dict.fromkeys(steps, 0.0)
    texts: dict[str, list[str]] = {step: [] for step in steps}
    for name, suffix, colour, marker, shift in STYLES:
        key = f"saving{suffix}"
        for cell in cells:
            ends[cell["step"]] = max(ends[cell["step"]], 1 - cell[key])
        axis.scatter(
            [1 - cell[key] for cell in cells], [steps.index(cell["step"]) - shift for cell in cells], s=12,
            color=colour, marker=marker, alpha=0.5, linewidths=0, label=f"one network, {name}",
        )  # fmt: skip
        means = {mean["step"]: 1 - mean[key] for mean in data["means"] if mean["basis"] == basis}
        places = [row - shift for row in range(len(steps))]
        axis.scatter([means[step] for step in steps], places, s=46, color=colour, marker=marker, label=f"mean, {name}")
        for step in steps:
            texts[step].append(f"{means[step]:.2f}")
    for row, step in enumerate(steps):
        axis.text(max(ends[step], 1.0) + 0.04, row, " / ".join(texts[step]), fontsize=8, va="center")
    _lines(axis, data)
    last_step = max(row for row, step in enumerate(data["steps"]) if step["ladder"])
    axis.axhline(last_step + 0.5, color="0.6", linewidth=0.8)
    axis.set_title("equal area of the array engines" if basis == "area" else "equal slots", fontsize=10)
    axis.set_xlabel("EDP / EDP of the baseline (less is better)")
    axis.grid(axis="x", linewidth=0.4, alpha=0.6)


def _lines(axis: Axes, data: Mapping[str, Any]) -> None:
    literature, synthesized = (row["saving"] for row in data["bounds"][:2])
    published = data["published_saving"]
    axis.axvline(1.0, color="black", linewidth=0.8)
    for saving, style, label in (
        (synthesized, (0, (6, 2)), f"bound of arithmetic, synthesized areas: −{synthesized:.0%}"),
        (literature, (0, (3, 2)), f"bound of arithmetic, literature areas: −{literature:.0%}"),
        (published, "dotted", f"published by M²-ViT: −{published:.0%}"),
    ):
        axis.axvline(1 - saving, color="#009E73" if saving != published else "black", linestyle=style, label=label)
