"""Tables and pictures of mptq.py's and mptq_greedy.py's results.

    python benchmarks/quality/mptq_report.py [--results FILE] [--greedy FILE] [--page docs/mptq.md] [--picture FILE]

Without --page the tables are printed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import product

from cells import Row
from glyph_models import NATURAL
from mptq import BITS, FIXED_SHIFTS, MODELS, POINTS, RESULTS, SMOOTHINGS
from mptq_greedy import RESULTS as GREEDY
from mptq_greedy_tables import (
    budget_table,
    cost_table,
    front_picture,
    random_widths_table,
    search_table,
    term_table,
)
from pages import make_page
from paired import change_text, holm_texts, mean_change, of, pairs, seeds_of, tops

SMOOTH_NAMES = {"none": "none", "smoothquant": "SmoothQuant", "sq_b": "SQ-b"}
POINT_NAMES = {"symmetric": "symmetric", "tensor": "zero point per tensor", "channel": "zero point per channel"}
REGION_NAMES = {
    "uniform": "uniform, symmetric (half of the codes of shares unused)",
    "uniform_points": "the same, GELU with zero point",
    "unsigned": "the same, and shares of one bit more (as unsigned)",
    **{f"fixed{m}": f"two regions, m = {m}" for m in FIXED_SHIFTS}, "closed_form": "OPT-m, closed form",
    "functions/ibert": "OPT-m, softmax and LayerNorm by I-BERT in integers",
    "functions/ivit": "OPT-m, softmax and LayerNorm by I-ViT in integers",
    "weighted": "OPT-m, weighted by gradients", "ptq4vit": "PTQ4ViT, untied steps", "opt": "OPT-m",
}  # fmt: skip


def main() -> int:
    """Print the tables, or write them into a page; draw the picture."""
    files = {"results": RESULTS, "greedy": GREEDY}
    return make_page(__doc__, files, all_tables, lambda _, greedy, path: front_picture(greedy, path))


def all_tables(rows: Sequence[Row], greedy: Sequence[Row]) -> dict[str, str]:
    """The tables by the names of their markers."""
    return {
        "smoothing": smoothing_table(rows, "mse"),
        "minmax": smoothing_table(rows, "minmax"),
        "skew": skew_table(rows),
        "granularity": granularity_table(rows),
        "regions": region_table(rows, ""),
        "regions_alone": region_table(rows, "alone/"),
        "shifts": shift_table(rows),
        "budgets": budget_table(greedy),
        "terms": term_table(greedy),
        "random": random_widths_table(greedy),
        "costs": cost_table(greedy),
        "search": search_table(greedy),
    }


def smoothing_table(rows: Sequence[Row], observer: str) -> str:
    """SQ-b against SmoothQuant and no smoothing under every kind of zero point; Holm over all tests of the table."""
    found = []
    for model, points, bits in product(MODELS, POINTS, BITS):
        arms = [f"{name}/{points}/{observer}" for name in SMOOTHINGS]
        compared = [pairs(rows, model, bits, arm, arms[-1]) for arm in arms[:-1]]
        if all(compared):
            found.append((model, points, bits, compared))
    p_cells = iter(holm_texts([kept for *_, compared in found for kept in compared]))
    lines = [
        "| model | LayerNorm outputs | bits | no smoothing | SmoothQuant | SQ-b | SQ-b − none, points (95 %) "
        "| p (Holm) | SQ-b − SmoothQuant, points (95 %) | p (Holm) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for model, points, bits, compared in found:
        values = [tops(a for a, _ in kept) for kept in compared] + [tops(b for _, b in compared[0])]
        cells = [f"{change_text(mean_change(kept))} | {next(p_cells)}" for kept in compared]
        lines.append(f"| {model} | {POINT_NAMES[points]} | {bits} | {' | '.join(values)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def skew_table(rows: Sequence[Row]) -> str:
    """Ranges and offsets of the LayerNorm outputs of the first checkpoint of every model: median and worst layer."""
    lines = [
        "| model | top-1 of the float network, % | widest / median channel range: median, worst LayerNorm "
        "| offset / half range of a channel: median, worst channel |",
        "|---|---|---|---|",
    ]
    for model in MODELS:
        row = of(rows, model, 32, "reference")
        if row is None:
            continue
        ranges = sorted(one["range_ratio"] for one in row["skew"])
        middle, worst = (sorted(one[name] for one in row["skew"]) for name in ("offset_median", "offset_max"))
        floats = " / ".join(
            f"{100 * one['top1']:.2f}"
            for seed in seeds_of(rows, model, 32, "reference")
            if (one := of(rows, model, 32, "reference", seed)) is not None
        )
        lines.append(
            f"| {model} | {floats} | {ranges[len(ranges) // 2]:.1f}, {ranges[-1]:.1f} "
            f"| {middle[len(middle) // 2]:.2f}, {worst[-1]:.2f} |"
        )
    return "\n".join(lines)


def granularity_table(rows: Sequence[Row]) -> str:
    """One weight scale per filter against one per layer, under every smoothing."""
    lines = [
        "| bits | smoothing | scale per filter | scale per layer | per layer − per filter, points (95 %) |",
        "|---|---|---|---|---|",
    ]
    for bits, name in product(BITS, SMOOTHINGS):
        arm = f"{name}/symmetric/mse"
        kept = pairs(rows, NATURAL, bits, arm, f"{arm}/tensor")
        if kept:
            cells = (tops(a for a, _ in kept), tops(b for _, b in kept), change_text(mean_change(kept)))
            lines.append(f"| {bits} | {SMOOTH_NAMES[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def region_table(rows: Sequence[Row], prefix: str) -> str:
    """OPT-m against other formats of softmax and GELU outputs; Holm over all tests of the table."""
    found = []
    for bits in BITS:
        for name in REGION_NAMES:
            kept = pairs(rows, NATURAL, bits, f"regions/{prefix}{name}", f"regions/{prefix}opt")
            if kept:
                found.append((bits, name, kept))
    p_cells = iter(holm_texts([kept for _, name, kept in found if name != "opt"]))
    lines = [
        "| bits | format of softmax and GELU outputs | top-1, % | OPT-m − it, points (95 %) | p (Holm) |",
        "|---|---|---|---|---|",
    ]
    for bits, name, kept in found:
        cells = "– | –"
        if name != "opt":
            cells = f"{change_text(mean_change(kept))} | {next(p_cells)}"
        lines.append(f"| {bits} | {REGION_NAMES[name]} | {tops(a for a, _ in kept)} | {cells} |")
    return "\n".join(lines)


def shift_table(rows: Sequence[Row]) -> str:
    """The ratios that OPT-m chose, first checkpoint."""
    lines = ["| bits | search | m after softmax, by block | m after GELU, by block |", "|---|---|---|---|"]
    for bits, name in product(BITS, ("opt", "closed_form", "weighted")):
        row = of(rows, NATURAL, bits, f"regions/{name}")
        if row is None:
            continue
        kinds = []
        for kind in ("p", "n"):
            chosen = [fmt.split(kind)[1] for fmt in row["formats"].values() if kind in fmt]
            kinds.append(" ".join(chosen))
        lines.append(f"| {bits} | {REGION_NAMES[name]} | {' | '.join(kinds)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
