"""Tables and the picture of pmq.py's and pmq_patch.py's results.

    python benchmarks/quality/pmq_report.py [--results FILE] [--patch FILE] [--page docs/pmq.md] [--picture FILE]

Without --page the tables are printed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import product
from statistics import mean, median

from cells import Row
from glyph_models import HYBRID, NATURAL
from pages import make_page
from paired import change_table, change_text, holm_texts, mean_change, of, pairs, seeds_of, tops
from pmq import ARCHS, BOPS, BUDGETS, COMPOSABLE, KINDS, METRICS, PATCHED, PLAIN, RESULTS
from pmq_patch import BASES, LAYERS, SHARES
from pmq_patch import RESULTS as PATCH
from pmq_picture import draw

from accelsim.token_groups import RECEIVED
from quant.patchwise.order import IMPORTANT, INVERSE, RANDOM

MODELS = (NATURAL, HYBRID)
KIND_NAMES = {
    BOPS: "bit operations", f"edp_pj_s@{PLAIN}": f"EDP on {PLAIN}", f"edp_pj_s@{COMPOSABLE}": f"EDP on {COMPOSABLE}",
}  # fmt: skip


def main() -> int:
    """Print the tables, or write them into a page; draw the picture."""
    return make_page(__doc__, {"results": RESULTS, "patch": PATCH}, all_tables, draw)


def all_tables(rows: Sequence[Row], patch: Sequence[Row]) -> dict[str, str]:
    """The tables by the names of their markers."""
    return {
        "allocation": allocation_table(rows),
        "random": random_table(rows),
        "kinds": kind_table(rows),
        "metrics": metric_table(rows),
        "patches": patch_table(patch),
        "importance": importance_table(patch),
        "saved": saved_table(patch),
        "variable": variable_table(patch),
        "layers": layer_table(patch),
        "both": both_table(rows),
    }


def allocation_table(rows: Sequence[Row]) -> str:
    """The frontier's widths against one width at equal cost; Holm over all tests of the table."""
    found = {
        f"{model} | {KIND_NAMES[kind]} | {bits} bits": pairs(rows, model, bits, "uniform", f"{kind}/output")
        for model, kind, bits in product(MODELS, KINDS, BUDGETS)
    }
    head = "model | equal | as much as | one width, top-1 % | frontier, top-1 % | frontier − one width"
    return change_table(head, found)


def random_table(rows: Sequence[Row]) -> str:
    """Random widths within the same bit operations beside the frontier's, on the images of the random ones."""
    lines = [
        "| model | as much as | random widths | median top-1 % | worst | best | one width | frontier | random ones at "
        "least as good |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for model, bits in product(MODELS, BUDGETS):
        arms = ("uniform_random_images", f"{BOPS}/output_random_images")
        one, ours = (of(rows, model, bits, arm) for arm in arms)
        drawn = [
            row["top1"]
            for row in rows
            if (row["model"], row["bits"]) == (model, bits) and row["arm"].startswith(f"{BOPS}/random")
        ]
        if drawn and one is not None and ours is not None:
            values = (median(drawn), min(drawn), max(drawn), one["top1"], ours["top1"])
            cells = " | ".join(f"{100 * value:.2f}" for value in values)
            better = sum(top >= ours["top1"] for top in drawn)
            lines.append(f"| {model} | {bits} bits | {len(drawn)} | {cells} | {better} |")
    return "\n".join(lines)


def kind_table(rows: Sequence[Row]) -> str:
    """What widths within one kind of cost take of the others, relative to one width; mean over checkpoints."""
    head = " | ".join(KIND_NAMES[kind] for kind in KINDS)
    lines = [
        f"| model | as much as | widths for | {head} | cycles on {PLAIN} | cycles on {COMPOSABLE} | top-1, % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    names = [*KINDS, *(f"latency_s@{arch}" for arch in ARCHS)]
    for model, bits, kind in product(MODELS, BUDGETS, KINDS):
        arm = f"{kind}/output"
        both = [
            (base, row)
            for seed in seeds_of(rows, model, bits, arm)
            if (row := of(rows, model, bits, arm, seed)) and (base := of(rows, model, bits, "uniform", seed))
        ]
        if both:
            ratios = (mean(row["costs"][cost] / base["costs"][cost] for base, row in both) for cost in names)
            cells = " | ".join(f"{ratio:.3f}" for ratio in ratios)
            top = 100 * mean(row["top1"] for _, row in both)
            lines.append(f"| {model} | {bits} bits | {KIND_NAMES[kind]} | {cells} | {top:.2f} |")
    return "\n".join(lines)


def metric_table(rows: Sequence[Row]) -> str:
    """Widths from every metric and from greedy search, first checkpoint: accuracy, and what finding them took."""
    lines = [
        "| errors from | 5 bits, top-1 % | 4 bits, top-1 % | CPU s | runs | forward passes | backward "
        "| Hessian-vector |",
        "|---|---|---|---|---|---|---|---|",
    ]
    uniform = [of(rows, NATURAL, bits, "uniform") for bits in BUDGETS]
    lines.append(f"| (one width) | {' | '.join(_top(row) for row in uniform)} | – | – | – | – | – |")
    for name in METRICS:
        found = [of(rows, NATURAL, bits, f"{BOPS}/{name}") for bits in BUDGETS]
        if found[0] is not None:
            metric = found[0]["metric"]
            took = metric["passes"]
            counts = " | ".join(f"{took[one]:.5g}" for one in ("runs", "forward", "backward", "hessian"))
            lines.append(f"| {name} | {' | '.join(_top(row) for row in found)} | {metric['seconds']:.0f} | {counts} |")
    found = [of(rows, NATURAL, bits, f"{BOPS}/greedy") for bits in BUDGETS]
    if found[0] is not None:
        took = found[0]["greedy"]
        cells = f"{took['cpu_s']:.0f} | {took['evaluations']} | ≤ {took['evaluations']} | 0 | 0"
        lines.append(f"| greedy search (KL, lazy) | {' | '.join(_top(row) for row in found)} | {cells} |")
    return "\n".join(lines)


def patch_table(rows: Sequence[Row]) -> str:
    """Important tokens in full against random ones, the least important ones and one width of the same mean."""
    found = []
    for (bits, drop), share in product(BASES, SHARES):
        arms = {order: f"{bits}-{drop}/{share}/{order}" for order in (IMPORTANT, RANDOM, INVERSE)}
        others = [arms[RANDOM], arms[INVERSE]]
        average = bits - drop * (1 - share)
        if average == int(average):
            others.append(f"{bits}/same/{int(average)}")
        kept = [pairs(rows, NATURAL, bits, other, arms[IMPORTANT]) for other in others]
        if all(kept):
            found.append((bits, drop, share, average, kept))
    p_cells = iter(holm_texts([kept for *_, several in found for kept in several]))
    lines = [
        "| bits, narrow | full tokens | mean bits | important | random | least important | one width of the mean "
        "| important − random, points (95 %) | p (Holm) | − least important | p (Holm) | − one width | p (Holm) |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for bits, drop, share, average, several in found:
        accuracy = [tops(b for _, b in several[0]), *(tops(a for a, _ in kept) for kept in several)]
        changes = [f"{change_text(mean_change(kept))} | {next(p_cells)}" for kept in several]
        if len(several) == 2:
            accuracy, changes = [*accuracy, "–"], [*changes, "– | –"]
        head = f"| {bits}, {bits - drop} | {share:.0%} | {average:g} "
        lines.append(f"{head}| {' | '.join(accuracy)} | {' | '.join(changes)} |")
    return "\n".join(lines)


def importance_table(rows: Sequence[Row]) -> str:
    """The class token's attention against attention received, half of the tokens full; Holm over the table."""
    found = {}
    for bits, drop in BASES:
        arms = (f"{bits}-{drop}/0.5/{name}" for name in (RECEIVED, IMPORTANT))
        found[f"{bits}, {bits - drop}"] = pairs(rows, NATURAL, bits, *arms)
    return change_table("bits, narrow | received, top-1 % | class token, top-1 % | class token − received", found)


def saved_table(rows: Sequence[Row]) -> str:
    """What patch-wise bits save of bit operations, time and energy, ranking and gathering included."""
    head = " | ".join(f"cycles on {arch} | energy | EDP" for arch in ARCHS)
    lines = [
        f"| bits, narrow | full tokens | bit operations | {head} |",
        "|---|---|---|" + "---|---|---|" * len(ARCHS),
    ]
    names = ["bops", *(f"{name}@{arch}" for arch in ARCHS for name in ("cycles", "energy_pj", "edp_pj_s"))]
    for (bits, drop), share in product(BASES, SHARES):
        base, row = (
            of(rows, NATURAL, bits, f"{bits}/uniform"),
            of(rows, NATURAL, bits, f"{bits}-{drop}/{share}/important"),
        )
        if base is not None and row is not None and "costs" in row:
            ratios = " | ".join(f"{row['costs'][name] / base['costs'][name]:.3f}" for name in names)
            lines.append(f"| {bits}, {bits - drop} | {share:.0%} | {ratios} |")
    return "\n".join(lines)


def variable_table(rows: Sequence[Row]) -> str:
    """As many full tokens as an image needs against a fixed number, at about the same mean; Holm over the table."""
    found = []
    for (bits, drop), share in product(BASES, SHARES):
        fixed = f"{bits}-{drop}/{share}/{IMPORTANT}"
        kept = pairs(rows, NATURAL, bits, fixed, f"{fixed}/variable")
        if kept:
            found.append((bits, drop, share, kept))
    p_cells = iter(holm_texts([kept for *_, kept in found]))
    lines = [
        "| bits, narrow | full tokens | fixed, top-1 % | variable, top-1 % | variable − fixed, points (95 %) "
        "| p (Holm) | bit operations, variable / fixed | cycles of variable on bitfusion_edge: mean, p95, all full |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for bits, drop, share, kept in found:
        fixed = f"{bits}-{drop}/{share}/{IMPORTANT}"
        one, other = (of(rows, NATURAL, bits, arm) for arm in (fixed, f"{fixed}/variable"))
        costs = "– | –"
        if one is not None and other is not None and "costs" in other:
            cycles = ", ".join(
                f"{other['costs'][f'{name}cycles@{COMPOSABLE}']:,.0f}" for name in ("", "p95 ", "worst ")
            )
            costs = f"{other['costs']['bops'] / one['costs']['bops']:.3f} | {cycles}"
        cells = f"{tops(a for a, _ in kept)} | {tops(b for _, b in kept)} | {change_text(mean_change(kept))}"
        lines.append(f"| {bits}, {bits - drop} | {share:.0%} | {cells} | {next(p_cells)} | {costs} |")
    return "\n".join(lines)


def layer_table(rows: Sequence[Row]) -> str:
    """One ranked layer at a time: what ranking gains, and how unequal importances are (first checkpoint)."""
    reference = of(rows, NATURAL, 32, "reference")
    if reference is None:
        return "*not run yet*"
    lines = [
        "| layer | entropy of the class token's attention, of received | most important quarter holds, of received "
        "| all full | important | random | least important | important − random, points (95 %) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for layer in LAYERS:
        ours, theirs = reference["importance"][layer]
        arms = [f"6-4/0.25/{order}/{layer}" for order in (IMPORTANT, RANDOM, INVERSE)]
        kept = [pairs(rows, NATURAL, 6, arm, arms[0]) for arm in ("6/uniform", *arms[1:])]
        if all(kept):
            accuracy = [
                tops(a for a, _ in kept[0]),
                tops(b for _, b in kept[0]),
                *(tops(a for a, _ in k) for k in kept[1:]),
            ]
            lines.append(
                f"| {layer} | {ours['entropy']:.3f}, {theirs['entropy']:.3f} | {ours['quarter']:.2f}, "
                f"{theirs['quarter']:.2f} | {' | '.join(accuracy)} | {change_text(mean_change(kept[1]))} |"
            )
    return "\n".join(lines)


def both_table(rows: Sequence[Row]) -> str:
    """Frontier widths with token groups against those without, at equal cost; Holm over the table."""
    found = {
        f"{KIND_NAMES[kind]} | {bits} bits": pairs(rows, NATURAL, bits, f"{kind}/output", f"{kind}/{PATCHED}")
        for kind, bits in product(KINDS, BUDGETS)
    }
    return change_table("equal | as much as | frontier, top-1 % | frontier and token groups, top-1 % | change", found)


def _top(row: Row | None) -> str:
    return "–" if row is None else f"{100 * row['top1']:.2f}"


if __name__ == "__main__":
    sys.exit(main())
