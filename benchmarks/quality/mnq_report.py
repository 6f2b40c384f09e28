"""Tables and the picture of mnq.py's results.

    python benchmarks/quality/mnq_report.py [--results FILE] [--page docs/mnq.md] [--picture docs/images/mnq.png]

Without --page the tables are printed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import product
from statistics import mean

from cells import Row, correct
from glyph_models import NATURAL
from mnq import MODELS, RESULTS
from mnq_picture import draw
from pages import make_page
from paired import change_text, holm_texts, mean_change, of, p_text, pair_text, pairs, seeds_of, tops

from quant.methods.mnq import CANDIDATES, METHODS
from quant.statistics import compare

BITS = (8, 6)
ARMS = ("float", *METHODS, "output_only", "own_error")
NAMES = {
    "float": "float non-linear operations", "ibert": "I-BERT everywhere", "ivit": "I-ViT everywhere",
    "fqvit": "FQ-ViT everywhere", "output_only": "output SQNR only", "own_error": "own error", "mnq": "MNQ",
}  # fmt: skip


def main() -> int:
    """Print the tables, or write them into a page; draw the picture."""
    return make_page(__doc__, {"results": RESULTS}, all_tables, draw)


def all_tables(rows: Sequence[Row]) -> dict[str, str]:
    """The tables by the names of their markers."""
    return {
        "accuracy": accuracy_table(rows),
        "random": random_table(rows),
        "map": map_table(rows),
        "layers": layer_table(rows),
        "cost": cost_table(rows),
        "tuned": tuned_table(rows),
    }


def accuracy_table(rows: Sequence[Row]) -> str:
    """MNQ against every other arm on the same images, by checkpoint; Holm's correction over all tests of the table.

    The interval of the mean over checkpoints is a bootstrap over images: an image stays one image on all checkpoints.
    """
    found = []
    for model, bits in product(MODELS, BITS):
        for arm in ARMS:
            kept = pairs(rows, model, bits, arm, "mnq")
            if kept:
                found.append((model, bits, arm, kept))
    p_cells = iter(holm_texts([kept for *_, kept in found]))
    lines = [
        "| model | bits | against | its top-1 %, by checkpoint | MNQ | MNQ − arm, mean, points (95 %) "
        "| p by checkpoint (Holm) |",
        "|---|---|---|---|---|---|---|",
    ]
    for model, bits, arm, kept in found:
        theirs, ours = (tops(pair[k] for pair in kept) for k in range(2))
        change = change_text(mean_change(kept))
        lines.append(f"| {model} | {bits} | {NAMES[arm]} | {theirs} | {ours} | {change} | {next(p_cells)} |")
    return "\n".join(lines)


def random_table(rows: Sequence[Row]) -> str:
    """Random maps beside MNQ on the images that the random maps were measured on."""
    lines = [
        "| bits | checkpoint | random maps | mean top-1 % | worst | best | MNQ, same images | at least as good |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for bits in BITS:
        for seed in seeds_of(rows, NATURAL, bits, "mnq"):
            drawn = [
                r
                for r in rows
                if (r["model"], r["bits"], r["seed"]) == (NATURAL, bits, seed) and r["arm"].startswith("random")
            ]
            one = of(rows, NATURAL, bits, "mnq_random_images", seed)
            if not drawn or one is None:
                continue
            tops = [r["top1"] for r in drawn]
            lines.append(
                f"| {bits} | {seed} | {len(tops)} | {100 * mean(tops):.2f} | {100 * min(tops):.2f} "
                f"| {100 * max(tops):.2f} | {100 * one['top1']:.2f} | {sum(t >= one['top1'] for t in tops)} |"
            )
    return "\n".join(lines)


def map_table(rows: Sequence[Row]) -> str:
    """How often MNQ chose each method, by function."""
    lines = ["| model | bits | checkpoint | softmax | GELU | LayerNorm |", "|---|---|---|---|---|---|"]
    for model in MODELS:
        for bits in BITS:
            for seed in seeds_of(rows, model, bits, "mnq"):
                row, table = of(rows, model, bits, "mnq", seed), of(rows, model, bits, "sqnr", seed)
                if row is None or table is None:
                    continue
                cells = []
                for function in ("softmax", "gelu", "layernorm"):
                    names = [row["methods"][s["op"]] for s in table["slots"] if s["function"] == function]
                    cells.append(", ".join(f"{m} {names.count(m)}" for m in CANDIDATES[function] if m in names))
                lines.append(f"| {model} | {bits} | {seed} | {' | '.join(cells)} |")
    return "\n".join(lines)


def layer_table(rows: Sequence[Row]) -> str:
    """SQNR difference of every layer under every method, the first checkpoint of the natural model."""
    tables = [of(rows, NATURAL, bits, "sqnr") for bits in BITS]
    if any(table is None for table in tables):
        return "*not run yet*"
    heads = [f"{name}, {bits} bit" for bits in BITS for name in METHODS]
    lines = [f"| layer | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for k, slot in enumerate(tables[0]["slots"]):  # type: ignore[index]
        cells = []
        for table in tables:
            values = dict(zip(METHODS, table["slots"][k]["difference_db"], strict=True))  # type: ignore[index]
            least = min(CANDIDATES[slot["function"]], key=lambda name: values[name])
            cells += [f"**{values[name]:.1f}**" if name == least else f"{values[name]:.1f}" for name in METHODS]
        lines.append(f"| {slot['op']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cost_table(rows: Sequence[Row]) -> str:
    """Costs of the arms, the first checkpoint of the natural model."""
    lines = [
        "| bits | arm | vector unit, kcycles | vector unit, µJ | latency, kcycles | energy, µJ | EDP, nJ·s |",
        "|---|---|---|---|---|---|---|",
    ]
    for bits in BITS:
        for arm in ("float", *METHODS, "mnq", "output_only", "own_error"):
            row = of(rows, NATURAL, bits, arm)
            if row is None:
                continue
            cost = row["cost"]
            cells = f"cannot run: {row['reason']} | | | |" if cost is None else (
                f"{cost['vector_cycles'] / 1e3:.1f} | {cost['vector_energy_pj'] / 1e6:.2f} "
                f"| {cost['latency_cycles'] / 1e3:.1f} | {cost['energy_pj'] / 1e6:.1f} | {cost['edp_pj_s'] / 1e3:.2f}"
            )  # fmt: skip
            lines.append(f"| {bits} | {NAMES[arm]} | {cells} |")
    return "\n".join(lines)


def tuned_table(rows: Sequence[Row]) -> str:
    """Arms before and after short training; afterwards each against MNQ on the same images."""
    lines = [
        "| bits | arm | steps | before, top-1 % | after | cross-entropy | MNQ − arm after, points (95 %) | p |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for bits in BITS:
        ours = of(rows, NATURAL, bits, "tuned_mnq")
        for arm in ("mnq", *METHODS, "own_error"):
            before, after = of(rows, NATURAL, bits, arm), of(rows, NATURAL, bits, f"tuned_{arm}")
            if before is None or after is None or ours is None:
                continue
            cells = "– | –"
            if arm != "mnq":
                pair = compare(correct(after), correct(ours))
                cells = f"{pair_text(pair)} | {p_text(pair.p_value)}"
            lines.append(
                f"| {bits} | {NAMES[arm]} | {after['steps']} | {100 * before['top1']:.2f} | {100 * after['top1']:.2f} "
                f"| {before['cross_entropy']:.3f} → {after['cross_entropy']:.3f} | {cells} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
