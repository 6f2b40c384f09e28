"""The picture of PMQ's results: accuracy against bit operations of frontier widths and of token groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cells import Row
from glyph_models import NATURAL
from pages import picture
from paired import of
from pmq import BOPS, BUDGETS, PATCHED, WIDTHS
from pmq_patch import SHARES

from quant.patchwise.order import IMPORTANT, INVERSE, RANDOM

BASE = (6, 4)  # bits of full tokens and bits that the others lose, of the panel on the right


def draw(rows: Sequence[Row], patch: Sequence[Row], path: str) -> None:
    """Two panels, first checkpoint: widths of products, and which tokens keep their bits."""
    with picture(path, 1, 2, (9.6, 4.4)) as (figure, ((*axes,),)):
        _widths(axes[0], rows)
        _tokens(axes[1], patch)
        for axis, place in zip(axes, ("lower right", "center right"), strict=True):
            axis.set_xlabel("bit operations per image, 10⁹")
            axis.grid(alpha=0.3)
            axis.legend(fontsize=7.5, loc=place)
        axes[0].set_ylabel("top-1 on test images, %")
        figure.tight_layout()


def _points(rows: Sequence[Row], cells: Sequence[tuple[int, str]]) -> tuple[list[float], list[float]]:
    found = [row for bits, arm in cells if (row := of(rows, NATURAL, bits, arm)) is not None and "costs" in row]
    found.sort(key=lambda row: row["costs"][BOPS])
    return [row["costs"][BOPS] / 1e9 for row in found], [100 * row["top1"] for row in found]


def _widths(axis: Any, rows: Sequence[Row]) -> None:
    axis.set_title("one width per product", fontsize=9)
    drawn = [row for row in rows if row["model"] == NATURAL and row["arm"].startswith(f"{BOPS}/random")]
    axis.scatter(
        [row["costs"][BOPS] / 1e9 for row in drawn], [100 * row["top1"] for row in drawn], s=10, color="0.7",
        label="random widths (400 images)",
    )  # fmt: skip
    styles = (
        ("one width (8 … 4 bits)", [(bits, "uniform") for bits in WIDTHS[:-1]], "o-", "#1b6ca8", 5),
        ("Pareto frontier", [(bits, f"{BOPS}/output") for bits in BUDGETS], "*-", "#2e8b57", 10),
        ("frontier and token groups", [(bits, f"{BOPS}/{PATCHED}") for bits in BUDGETS], "D-", "#b5532a", 5),
    )
    for label, cells, style, color, size in styles:
        axis.plot(*_points(rows, cells), style, color=color, markersize=size, label=label)


def _tokens(axis: Any, rows: Sequence[Row]) -> None:
    bits, drop = BASE
    axis.set_title(f"tokens of {bits} bits, the others {bits - drop}; 75, 50, 25 % full", fontsize=9)
    means = [bits - int(drop * (1 - share)) for share in SHARES]
    same = [(bits, f"{bits}/uniform"), *((bits, f"{bits}/same/{one}") for one in means)]
    axis.plot(*_points(rows, same), "o-", color="#1b6ca8", markersize=5, label="activations of one width (6 … 3 bits)")
    styles = ((IMPORTANT, "*-", "#2e8b57", 10), (RANDOM, "s--", "0.45", 4), (INVERSE, "v:", "#b5532a", 5))
    names = {IMPORTANT: "most important tokens full", RANDOM: "random tokens full", INVERSE: "least important full"}
    for order, style, color, size in styles:
        cells = [(bits, f"{bits}-{drop}/{share}/{order}") for share in SHARES]
        axis.plot(*_points(rows, cells), style, color=color, markersize=size, label=names[order])
