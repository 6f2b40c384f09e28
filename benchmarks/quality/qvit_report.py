"""Tables and the picture of qvit.py's results.

    python benchmarks/quality/qvit_report.py [--results FILE] [--page docs/qvit.md] [--picture FILE]

Without --page the tables are printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, median

from cells import Row, correct
from pages import make_page
from paired import Pair, change_table, change_text, mean_change, of, pairs, seeds_of
from qvit import COMPOSABLE, LATENCIES, MODEL, PARTS, PLAIN, RANDOM, RESULTS, SINGLE
from qvit_picture import draw

WIDTHS = ("mean_bits_of_products", "mean_bits_of_weights")
# Widths within bit operations, and the budget of latency that takes about as long.
SAME_LATENCY = (
    (4, "lsq", "latency_100"),
    (4, "head", "latency_100"),
    (3, "lsq", "latency_80"),
    (3, "head", "latency_80"),
)
LEARNED = ("head", "one_scale", *SINGLE)
NAMES = {
    "lsq": "one width, learned scales (LSQ)", "head": "learned, by head (Q-ViT)", "one_scale": "the same, one scale",
    "layer": "learned, by layer", "code_axis": "learned, the code's axes of weights",
    "without_msa": "attention in floating point", "without_gelu": "values after GELU in floating point",
    "gelu_signed": "values after GELU signed, no offset", "gelu_unsigned": "values after GELU unsigned, no offset",
}  # fmt: skip


def main() -> int:
    """Print the tables, or write them into a page; draw the picture."""
    return make_page(__doc__, {"results": RESULTS}, all_tables, draw)


def all_tables(rows: Sequence[Row]) -> dict[str, str]:
    """The tables by the names of their markers."""
    return {
        "arms": arm_table(rows),
        "pairs": pair_table(rows),
        "widths": width_table(rows),
        "random": random_table(rows),
        "parts": part_table(rows),
        "hardware": hardware_table(rows),
        "latency": latency_table(rows),
    }


def arm_table(rows: Sequence[Row]) -> str:
    """Learned widths against one width at equal bit operations; Holm over all tests of the table."""
    found = {
        f"{bits} bits | {NAMES[arm]}": pairs(rows, MODEL, bits, "lsq", arm) for bits in (4, 3, 2) for arm in LEARNED
    }
    return change_table("bit operations of | arm | LSQ, top-1 % | arm, top-1 % | arm − LSQ", found)


def pair_table(rows: Sequence[Row]) -> str:
    """What each part of the method is worth: head-wise widths with seven scales against it without one of them."""
    found = {
        f"{bits} bits | {NAMES[arm]}": pairs(rows, MODEL, bits, arm, "head") for bits in (4, 3) for arm in LEARNED[1:]
    }
    return change_table("bit operations of | instead | instead, top-1 % | Q-ViT, top-1 % | Q-ViT − instead", found)


def width_table(rows: Sequence[Row]) -> str:
    """Realised budgets, mean widths, flips of widths and time; means over checkpoints."""
    lines = [
        "| bit operations of | arm | checkpoints | top-1, % | share of the budget | mean width of products "
        "| of weights | changes of widths | of these after half of the steps | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for bits in (4, 3, 2):
        for arm in ("lsq", *LEARNED):
            found = [row for seed in seeds_of(rows, MODEL, bits, arm) if (row := of(rows, MODEL, bits, arm, seed))]
            if not found:
                continue
            late = [sum(row["flips"][len(row["flips"]) // 2 :]) for row in found]
            cells = [
                f"{100 * mean(row['top1'] for row in found):.2f}",
                f"{min(row['spent'] for row in found):.3f} … {max(row['spent'] for row in found):.3f}",
                *(f"{mean(row[name] for row in found):.2f}" for name in WIDTHS),
                f"{mean(sum(row['flips']) for row in found):.0f}", f"{mean(late):.0f}",
                f"{mean(row['cpu_s'] for row in found):.0f}",
            ]  # fmt: skip
            lines.append(f"| {bits} bits | {NAMES[arm]} | {len(found)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def random_table(rows: Sequence[Row]) -> str:
    """Random widths at the same bit operations, trained alike, beside learned ones; first checkpoint."""
    lines = [
        "| bit operations of | random widths | median top-1, % | worst | best | LSQ | Q-ViT | Q-ViT − mean of random, "
        "points (95 %) | random ones at least as good as Q-ViT | as LSQ |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for bits in (4, 3):
        drawn = [row for arm in RANDOM if (row := of(rows, MODEL, bits, arm))]
        base, ours = of(rows, MODEL, bits, "lsq"), of(rows, MODEL, bits, "head")
        if not drawn or base is None or ours is None:
            continue
        tops = [row["top1"] for row in drawn]
        values = (median(tops), min(tops), max(tops), base["top1"], ours["top1"])
        change = mean_change([pair for arm in RANDOM for pair in pairs(rows, MODEL, bits, arm, "head")[:1]])
        counts = [sum(top >= row["top1"] for top in tops) for row in (ours, base)]
        cells = " | ".join(f"{100 * value:.2f}" for value in values)
        lines.append(f"| {bits} bits | {len(drawn)} | {cells} | {change_text(change)} | {counts[0]} | {counts[1]} |")
    return "\n".join(lines)


def part_table(rows: Sequence[Row]) -> str:
    """One width everywhere but in one part; first checkpoint."""
    found = {f"{bits} bits | {NAMES[arm]}": pairs(rows, MODEL, bits, "lsq", arm) for bits in (3, 2) for arm in PARTS}
    return change_table("width | instead | everything, top-1 % | instead, top-1 % | instead − everything", found)


def hardware_table(rows: Sequence[Row]) -> str:
    """Simulated figures of the widths on both arrays, relative to one width of 4 bits; first checkpoint."""
    lines = [
        f"| budget | arm | top-1, % | bit operations | latency on {COMPOSABLE} | energy | EDP | latency on {PLAIN} "
        "| energy | EDP |",
        "|---" * 10 + "|",
    ]
    base = of(rows, MODEL, 4, "lsq")
    for bits in (4, 3, 2):
        for arm in ("lsq", "head", "layer", *LATENCIES):
            row = of(rows, MODEL, bits, arm)
            if row is None or base is None or "simulated" not in row:
                continue
            share = f"{arm.split('_')[1]} % of the latency of 4 bits" if arm in LATENCIES else f"{bits} bits"
            cells = [f"{100 * row['top1']:.2f}", f"{row['bit_operations'] / base['bit_operations']:.3f}"]
            for arch in (COMPOSABLE, PLAIN):
                cells += [
                    f"{value / base['simulated'][arch][kind]:.3f}" for kind, value in row["simulated"][arch].items()
                ]
            lines.append(f"| {share} | {NAMES['head' if arm in LATENCIES else arm]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def latency_table(rows: Sequence[Row]) -> str:
    """A budget of latency against one width, and widths within bit operations, of about the same latency."""
    found: dict[str, list[Pair]] = {}
    for bits, arm, ours in SAME_LATENCY:
        cells = [
            tuple(of(rows, MODEL, of_bits, name, seed) for of_bits, name in ((4, "lsq"), (bits, arm), (4, ours)))
            for seed in seeds_of(rows, MODEL, 4, ours)
        ]
        full = [(base, first, second) for base, first, second in cells if base and first and second]
        if full:
            shares = (mean(_latency(cell[k]) / _latency(cell[0]) for cell in full) for k in (1, 2))
            name = f"{NAMES[arm]}, {bits} bits | {ours.split('_')[1]} % of 4 bits"
            found[" | ".join((name, *(f"{share:.3f}" for share in shares)))] = [
                (correct(first), correct(second)) for _, first, second in full
            ]
    head = "within bit operations | within latency | latency of the first | of the second | first, top-1 %"
    return change_table(f"{head} | second, top-1 % | second − first", found)


def _latency(row: Row) -> float:
    return float(row["simulated"][COMPOSABLE]["latency_s"])


if __name__ == "__main__":
    raise SystemExit(main())
