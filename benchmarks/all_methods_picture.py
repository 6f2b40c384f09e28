"""The picture of the studies over all methods: accuracy against EDP, and what every family of options is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.closed_loop import geomean

Ratios = Mapping[tuple[str, str, str], Sequence[float]]  # by network, hardware and family
COLORS = ("#1b6ca8", "#b5532a", "#2e8b57")
MARKS = ("o", "s", "^")
LOWEST = -2.5  # points; random designs are far below
WITHOUT = "without_"


def draw(studies: Sequence[dict[str, Any]], ratios: Ratios, path: Path) -> None:
    """A column per network: designs and fronts of the first seed above, ratios of EDP to ablated searches below."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    networks = list(dict.fromkeys(one["network"] for one in studies))
    figure, axes = plt.subplots(2, len(networks), figsize=(5.2 * len(networks), 8.0), squeeze=False)
    for column, network in enumerate(networks):
        ones = [one for one in studies if one["network"] == network]
        _fronts(axes[0][column], network, [one for one in ones if one["seed"] == min(s["seed"] for s in ones)])
        _families(axes[1][column], network, ratios)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _fronts(axis: Any, network: str, studies: Sequence[dict[str, Any]]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for study, color, mark in zip(studies, COLORS, MARKS, strict=False):
        shown = [one for one in study["designs"] if one["validation"] is not None and not one["over_limits"]]
        ours = [one for one in shown if one["origin"] == "codesign"]
        others = [one for one in shown if one["origin"] != "codesign" and not one["origin"].startswith(WITHOUT)]
        axis.plot(*_places(others), mark, markersize=4, markerfacecolor="none", color=color, alpha=0.7)
        x, y = _places(ours)
        errors = [[max(0.0, sign * (100 * one["validation"][end] - 100 * one["validation"]["change"])) for one in ours]
                  for sign, end in ((-1, "low"), (1, "high"))]  # fmt: skip
        axis.errorbar(x, y, errors, fmt=mark, markersize=6, color=color, elinewidth=0.8, label=study["hardware"])
        front = sorted(_front(list(zip(x, y, strict=True))))
        axis.step([one[0] for one in front], [one[1] for one in front], where="post", color=color, linewidth=1.2)
    margin = studies[0]["margin_points"] if studies else 0.5
    axis.axhline(-margin, color="0.4", linestyle=":", linewidth=1)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_ylim(bottom=max(axis.get_ylim()[0], LOWEST))
    axis.set_title(f"{network}\nfilled: full search (95 %); open: baselines", fontsize=9)
    axis.set_xlabel("EDP of an image, pJ·s")
    axis.set_ylabel("top-1 less that of the float network, points")
    axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize=8, loc="lower right")


def _places(designs: Sequence[dict[str, Any]]) -> tuple[list[float], list[float]]:
    return [one["edp_pj_s"] for one in designs], [100 * one["validation"]["change"] for one in designs]


def _front(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Places that no other one beats in EDP and accuracy."""
    return [one for one in places if not any(o[0] <= one[0] and o[1] >= one[1] and o != one for o in places)]


def _families(axis: Any, network: str, ratios: Ratios) -> None:
    """Mean and range over limits of the predicted loss (and seeds), a bar per kind of hardware."""
    there = {key[1:]: each for key, each in ratios.items() if key[0] == network}
    kinds, names = (list(dict.fromkeys(key[part] for key in there)) for part in (0, 1))
    width = 0.8 / max(len(kinds), 1)
    for k, (kind, color) in enumerate(zip(kinds, COLORS, strict=False)):
        shown = [(at, there[kind, name]) for at, name in enumerate(names) if (kind, name) in there]
        places = [at + (k - (len(kinds) - 1) / 2) * width for at, _ in shown]
        means = [geomean(each) for _, each in shown]
        spans = [[mean - min(each) for mean, (_, each) in zip(means, shown, strict=True)],
                 [max(each) - mean for mean, (_, each) in zip(means, shown, strict=True)]]  # fmt: skip
        percent = [100 * (mean - 1) for mean in means]
        errors = [[max(0.0, 100 * one) for one in side] for side in spans]
        axis.bar(places, percent, width * 0.9, yerr=errors, color=color, label=kind, alpha=0.85, capsize=2,
                 error_kw={"elinewidth": 0.8})  # fmt: skip
    axis.axhline(0, color="0.3", linewidth=0.8)
    axis.set_xticks(range(len(names)), names, fontsize=8)
    axis.set_ylabel("EDP of the full search against the ablated one,\nat equal limits of predicted loss, %")
    axis.set_xlabel("family of options that is taken away")
    axis.grid(alpha=0.3, axis="y")
    axis.legend(fontsize=8, loc="lower right")
