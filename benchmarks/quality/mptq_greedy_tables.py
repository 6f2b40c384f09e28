"""Tables and the picture of mptq_greedy.py's results."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from statistics import mean
from typing import Any

from cells import Row, correct
from glyph_models import HYBRID, NATURAL
from mptq_greedy import BUDGETS, KINDS, PRODUCTS_ONLY, TERMS, WEIGHTS_ONLY, WIDTHS
from pages import legend_below, picture
from paired import change_text, holm_texts, mean_change, of, p_text, pairs, tops

from quant.statistics import compare

MODELS = (NATURAL, HYBRID)
KIND_NAMES = {
    "layer_bits": "mean width", "edp_pj_s": "simulated EDP", "bops": "bit operations", "size_bits": "weight storage",
}  # fmt: skip
# One width of what the cost counts: all else keeps 8 bits there in greedy widths, too.
SAME_COMPONENTS = {"size_bits": WEIGHTS_ONLY, "bops": PRODUCTS_ONLY}
SCORES = {"combined": "both", "performance": "performance alone", "compressibility": "compressibility alone"}


def budget_table(rows: Sequence[Row]) -> str:
    """Greedy widths against one width and the knapsack at equal cost; Holm over all tests of the table."""
    found = []
    for model, kind, bits in product(MODELS, KINDS, BUDGETS):
        one = SAME_COMPONENTS.get(kind, "uniform")
        compared = [pairs(rows, model, bits, other, f"{kind}/combined") for other in (one, f"{kind}/knapsack")]
        if all(compared):
            found.append((model, kind, bits, compared))
    p_cells = iter(holm_texts([kept for *_, compared in found for kept in compared]))
    lines = [
        "| model | equal | as much as | one width | knapsack | greedy | greedy − one width, points (95 %) | p (Holm) "
        "| greedy − knapsack, points (95 %) | p (Holm) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for model, kind, bits, compared in found:
        values = [tops(a for a, _ in kept) for kept in compared] + [tops(b for _, b in compared[0])]
        cells = [f"{change_text(mean_change(kept))} | {next(p_cells)}" for kept in compared]
        name = KIND_NAMES[kind]
        lines.append(f"| {model} | {name} | {bits} bits | {' | '.join(values)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def term_table(rows: Sequence[Row]) -> str:
    """Both terms of the score against either alone, first checkpoint of the natural model."""
    lines = [
        "| equal | as much as | score | top-1, % | loss on the images of the search | both − it, points (95 %) | p |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, bits, score in product(TERMS, BUDGETS, SCORES):
        row, both = (of(rows, NATURAL, bits, f"{kind}/{name}") for name in (score, "combined"))
        if row is None or both is None:
            continue
        cells = "– | –"
        if score != "combined":
            pair = compare(correct(row), correct(both))
            cells = f"{change_text(mean_change([(correct(row), correct(both))]))} | {p_text(pair.p_value)}"
        lines.append(
            f"| {KIND_NAMES[kind]} | {bits} bits | {SCORES[score]} | {100 * row['top1']:.2f} | {row['loss']:.3f} "
            f"| {cells} |"
        )
    return "\n".join(lines)


def random_widths_table(rows: Sequence[Row]) -> str:
    """Random widths beside greedy ones on the images that the random ones were measured on."""
    lines = [
        "| equal | as much as | random widths | mean top-1 % | worst | best | greedy, same images | at least as good |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, bits in product(KINDS, BUDGETS):
        one = of(rows, NATURAL, bits, f"{kind}/combined_random_images")
        drawn = [r["top1"] for r in _cells(rows, NATURAL, bits) if r["arm"].startswith(f"{kind}/random")]
        if drawn and one is not None:
            lines.append(
                f"| {KIND_NAMES[kind]} | {bits} bits | {len(drawn)} | {100 * mean(drawn):.2f} | {100 * min(drawn):.2f} "
                f"| {100 * max(drawn):.2f} | {100 * one['top1']:.2f} | {sum(top >= one['top1'] for top in drawn)} |"
            )
    return "\n".join(lines)


def cost_table(rows: Sequence[Row]) -> str:
    """All costs of the widths that were found for one of them, first checkpoint; relative to one width."""
    lines = [
        "| model | as much as | widths | mean width | weight storage | bit operations | latency | energy | EDP "
        "| top-1, % |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    names = ("layer_bits", "size_bits", "bops", "latency_s", "energy_pj", "edp_pj_s")
    for model, bits in product(MODELS, BUDGETS):
        base = of(rows, model, bits, "uniform")
        arms = {
            PRODUCTS_ONLY: "one width of weights and what products read, the rest 8 bits",
            WEIGHTS_ONLY: "one width of weights, activations 8 bits",
            **{f"{kind}/combined": f"greedy, {KIND_NAMES[kind]}" for kind in KINDS},
        }
        for arm, name in arms.items():
            row = of(rows, model, bits, arm)
            if row is not None and base is not None:
                ratios = (row["costs"][cost] / base["costs"][cost] for cost in names)
                cells = " | ".join(f"{ratio:.3f}" for ratio in ratios)
                lines.append(f"| {model} | {bits} bits | {name} | {cells} | {100 * row['top1']:.2f} |")
    return "\n".join(lines)


def search_table(rows: Sequence[Row]) -> str:
    """Losses measured by every search down to the smaller budget; lazy beside exact on one problem, with wall time.

    Other searches of a checkpoint share the losses that were measured, so only counts of theirs mean something.
    """
    lines = [
        "| search | model | cost | moves | losses asked for | wall, s | loss | top-1, % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        kind, _, name = row["arm"].partition("/")
        if "wall_s" not in row or (kind != "search" and row["bits"] != min(BUDGETS)) or row["seed"]:
            continue
        alone = kind == "search"
        label = f"{name}, widths 8, 6, 4" if alone else "knapsack" if name == "knapsack" else f"lazy, {SCORES[name]}"
        cost = KIND_NAMES.get(kind, f"mean width {row['bits']}")
        wall = f"{row['wall_s']:.0f}" if alone else "–"
        lines.append(
            f"| {label} | {row['model']} | {cost} | {row.get('moves', '–')} | {row['evaluations']} | {wall} "
            f"| {row['loss']:.4f} | {100 * row['top1']:.2f} |"
        )
    return "\n".join(lines)


def _cells(rows: Sequence[Row], model: str, bits: int) -> list[Row]:
    return [r for r in rows if (r["model"], r["bits"], r["seed"]) == (model, bits, 0)]


def front_picture(rows: Sequence[Row], path: str) -> None:
    """Accuracy against mean width and against EDP, first checkpoint of the natural model."""
    with picture(path, 1, 2, (9.6, 4.2), sharey=True) as (figure, ((*axes,),)):
        for axis, kind, label, unit in (
            (axes[0], "layer_bits", "mean width of weights and activations, bits", 1.0),
            (axes[1], "edp_pj_s", "simulated EDP on m2vit_regions, nJ·s", 1e-3),
        ):
            _panel(axis, rows, kind, unit)
            axis.set_xlabel(label)
            axis.grid(alpha=0.3)
        axes[0].set_ylabel("top-1 on test images, %")
        legend_below(figure, axes[0], 4, 0.14)


def _panel(axis: Any, rows: Sequence[Row], kind: str, unit: float) -> None:
    def points(arm: str, widths: Sequence[int]) -> list[tuple[float, float]]:
        found = (of(rows, NATURAL, bits, arm) for bits in widths)
        return sorted((unit * r["costs"][kind], 100 * r["top1"]) for r in found if r is not None)

    styles = (
        ("one width", "uniform", WIDTHS[:-1], {"marker": "o", "linestyle": "-", "color": "#1b6ca8"}),
        ("one width, the rest 8 bits", PRODUCTS_ONLY, BUDGETS, {"marker": "D", "color": "#1b6ca8", "markersize": 5}),
        ("weights of one width, activations 8 bits", WEIGHTS_ONLY, BUDGETS, {"marker": "P", "color": "#5fa8d3"}),
        (
            "greedy",
            f"{kind}/combined",
            BUDGETS,
            {"marker": "*", "linestyle": "-", "color": "#2e8b57", "markersize": 11},
        ),
        ("greedy, performance alone", f"{kind}/performance", BUDGETS, {"marker": "v", "color": "#7a5195"}),
        ("greedy, compressibility alone", f"{kind}/compressibility", BUDGETS, {"marker": "^", "color": "#8a8a3a"}),
        ("knapsack", f"{kind}/knapsack", BUDGETS, {"marker": "s", "color": "#b5532a"}),
    )
    drawn = [r for b in BUDGETS for r in _cells(rows, NATURAL, b) if r["arm"].startswith("layer_bits/random")]
    axis.scatter(
        [unit * r["costs"][kind] for r in drawn], [100 * r["top1"] for r in drawn], s=10, color="0.7",
        label="random widths (fewer images)",
    )  # fmt: skip
    for label, arm, widths, style in styles:
        found = points(arm, widths)
        axis.plot([x for x, _ in found], [y for _, y in found], **{"linestyle": "", **style}, label=label)
    reference = of(rows, NATURAL, 32, "reference")
    if reference is not None:
        axis.axhline(100 * reference["top1"], color="0.5", linestyle="--", linewidth=1, label="float")
