"""Tables and the accuracy-EDP picture from the results of matrix.py.

    python benchmarks/quality/matrix_report.py [--results FILE] [--page docs/quality.md] [--picture FILE]

Without --page the tables are printed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from cells import HERE, Row, correct, read_results
from matrix import RESULTS
from pages import add_outputs, show
from paired import p_text, pair_text

from quant.statistics import compare, holm


def main() -> int:
    """Print the tables, or write them into a page; draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", default=str(RESULTS))
    parser.add_argument("--matrix", default=str(HERE / "matrix.yaml"))
    add_outputs(parser)
    arguments = parser.parse_args()
    rows = read_results(arguments.results)
    matrix = yaml.safe_load(Path(arguments.matrix).read_text(encoding="utf-8"))
    text = {"gate": gate_table(rows, matrix)}
    for model in matrix["models"]:
        text[model] = arm_table(rows, model)
    text["pairs"] = pair_table(rows, matrix)
    show(text, arguments.page)
    if arguments.picture:
        from matrix_picture import draw

        draw(rows, matrix, arguments.picture)
    return 0


def of(rows: Sequence[Row], model: str, arm: str, seed: int = 0) -> Row | None:
    """The row of a cell, None when it has not been run."""
    return next((r for r in rows if (r["model"], r["arm"], r["seed"]) == (model, arm, seed)), None)


def gate_table(rows: Sequence[Row], matrix: Row) -> str:
    """The gate on validation images: what every arm must lose at most or at least."""
    lines = ["| model | arm | loss on validation, points | must be | holds |", "|---|---|---|---|---|"]
    for rule in matrix["gate"]:
        row, float_row = of(rows, rule["model"], rule["arm"]), of(rows, rule["model"], "float")
        if row is None or float_row is None:
            lines.append(f"| {rule['model']} | {rule['arm']} | not run | | no |")
            continue
        loss = 100 * (float_row["val"]["top1"] - row["val"]["top1"])
        most = "at_most" in rule
        bound = rule["at_most"] if most else rule["at_least"]
        holds = round(loss, 2) <= bound if most else round(loss, 2) >= bound
        verdict = f"{'≤' if most else '≥'} {bound} | {'yes' if holds else 'no'}"
        lines.append(f"| {rule['model']} | {rule['arm']} | {loss:.2f} | {verdict} |")
    return "\n".join(lines)


def arm_table(rows: Sequence[Row], model: str) -> str:
    """All arms of a model: accuracy on test images with paired statistics against float, and its hardware."""
    chosen = [row for row in rows if row["model"] == model]
    reference = of(rows, model, "float")
    if reference is None:
        return f"*{model}: not run yet*"
    pairs = [
        None if row["arm"] == "float" else compare(correct(reference["test"]), correct(row["test"])) for row in chosen
    ]
    tested = [k for k, pair in enumerate(pairs) if pair is not None]
    adjusted = dict(zip(tested, holm([pairs[k].p_value for k in tested]), strict=True))  # type: ignore[union-attr]
    lines = [
        f"{reference['test']['images']:,} test and {reference['val']['images']:,} validation images.\n",
        "| arm | seed | top-1 % | change, points (95 %) | p (Holm) | equal | cross-entropy | agree % | SQNR dB | "
        "kcycles | energy µJ | EDP pJ·s | design | calibration, CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for k, (row, pair) in enumerate(zip(chosen, pairs, strict=True)):
        test, hardware = row["test"], row["hardware"]
        start = f"| {row['arm']} | {row['seed']} | {100 * test['top1']:.2f} "
        if pair is None:
            lines.append(f"{start}| – | – | – | {test['cross_entropy']:.4f} | – | – | – | – | – | – | – |")
            continue
        price = "| – | – | – | none runs it " if hardware is None else (
            f"| {hardware['cycles'] / 1e3:.1f} | {hardware['energy_pj'] / 1e6:.2f} | {hardware['edp_pj_s']:.1f} "
            f"| {hardware['design']} "
        )  # fmt: skip
        lines.append(
            f"{start}| {pair_text(pair)} | {p_text(adjusted[k])} | {'yes' if pair.non_inferior else 'no'} "
            f"| {test['cross_entropy']:.4f} | {100 * test['agreement']:.2f} | {test['logit_sqnr_db']:.1f} {price}"
            f"| {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def pair_table(rows: Sequence[Row], matrix: Row) -> str:
    """Methods against each other on the same test images, Holm's correction over the whole table."""
    found = []
    for rule in matrix["pairs"]:
        for model in matrix["models"]:
            left, right = of(rows, model, rule["reference"]), of(rows, model, rule["candidate"])
            if left is not None and right is not None:
                found.append((model, rule, compare(correct(left["test"]), correct(right["test"]))))
    adjusted = holm([pair.p_value for _, _, pair in found])
    lines = ["| model | reference | candidate | change, points (95 %) | p (Holm) | at most half a point worse |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for (model, rule, pair), p in zip(found, adjusted, strict=True):
        lines.append(
            f"| {model} | {rule['reference']} | {rule['candidate']} | {pair_text(pair)} | {p_text(p)} "
            f"| {'yes' if pair.non_inferior else 'no'} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
