"""The picture of Q-ViT's results: losses and changes of widths over the steps, accuracy by cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cells import Row
from pages import picture
from paired import of
from qvit import COMPOSABLE, LATENCIES, LOSS_EVERY, MODEL, RANDOM

BITS = 3
STYLES = {
    "lsq": ("one width (LSQ)", "o", "#1b6ca8"),
    "head": ("learned by head (Q-ViT)", "*", "#2e8b57"),
    "one_scale": ("the same, one scale", "s", "#b5532a"),
    "layer": ("learned by layer", "D", "#7a5195"),
    "random": ("random widths", ".", "0.6"),
}


def draw(rows: Sequence[Row], path: str) -> None:
    """Four panels, first checkpoint: loss, widths that changed, accuracy by bit operations and by latency."""
    with picture(path, 2, 2, (9.6, 7.4), dpi=92) as (figure, ((losses, flips), (operations, latency))):
        _losses(losses, rows)
        _flips(flips, rows)
        _accuracy(operations, rows)
        _latency(latency, rows)
        for axis in (losses, flips, operations, latency):
            axis.grid(alpha=0.3)
            axis.legend(fontsize=7.5, loc="lower right" if axis in (operations, latency) else "best")
        figure.tight_layout()


def _losses(axis: Any, rows: Sequence[Row]) -> None:
    for arm in ("lsq", "head", "one_scale"):
        row = of(rows, MODEL, BITS, arm)
        if row is not None:
            label, _, color = STYLES[arm]
            steps = [LOSS_EVERY * (k + 0.5) for k in range(len(row["losses"]))]
            axis.plot(steps, row["losses"], color=color, label=label)
    axis.set_title(f"bit operations of {BITS} bits", fontsize=9)
    axis.set_xlabel("step")
    axis.set_ylabel(f"training loss (cross-entropy), mean of {LOSS_EVERY} steps")


def _flips(axis: Any, rows: Sequence[Row]) -> None:
    for arm in ("head", "one_scale"):
        row = of(rows, MODEL, BITS, arm)
        if row is not None:
            label, _, color = STYLES[arm]
            every = row["steps"] / len(row["flips"])
            axis.step([every * (k + 1) for k in range(len(row["flips"]))], row["flips"], color=color, label=label)
    axis.set_yscale("symlog", linthresh=10)
    axis.set_title(f"bit operations of {BITS} bits", fontsize=9)
    axis.set_xlabel("step")
    axis.set_ylabel("widths that changed in 10 steps")


def _accuracy(axis: Any, rows: Sequence[Row]) -> None:
    for name, (label, mark, color) in STYLES.items():
        arms = RANDOM if name == "random" else (name,)
        found = [row for row in rows if row["arm"] in arms and row["model"] == MODEL and row["seed"] == 0]
        axis.plot(
            [row["bit_operations"] / 1e6 for row in found], [100 * row["top1"] for row in found], mark, color=color,
            label=label, markersize=10 if mark == "*" else 5,
        )  # fmt: skip
    axis.set_title("2, 3 and 4 bits", fontsize=9)
    axis.set_xlabel("bit operations per image, 10⁶")
    axis.set_ylabel("top-1 on test images, %")


def _latency(axis: Any, rows: Sequence[Row]) -> None:
    styles = (
        ("one width (LSQ), 3 and 4 bits", ("lsq",), "o-", "#1b6ca8", 5),
        ("learned within bit operations", ("head",), "*-", "#2e8b57", 10),
        ("learned within latency", LATENCIES, "^-", "#e0a000", 7),
    )
    for label, arms, style, color, size in styles:
        found = [
            row for row in rows if row["arm"] in arms and row["seed"] == 0 and row["bits"] != 2 and "simulated" in row
        ]
        points = sorted((1e6 * row["simulated"][COMPOSABLE]["latency_s"], 100 * row["top1"]) for row in found)
        if points:
            axis.plot(*zip(*points, strict=True), style, color=color, markersize=size, label=label)
    axis.set_title(f"simulated on {COMPOSABLE}", fontsize=9)
    axis.set_xlabel("latency of an image, µs")
    axis.set_ylabel("top-1 on test images, %")
