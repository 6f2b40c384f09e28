"""Tables and the accuracy-EDP picture from the results of run.py.

    python benchmarks/quality/report.py [--results FILE] [--page docs/quality.md] [--picture docs/images/quality.png]

Without --page the tables are printed.
"""

from __future__ import annotations

import argparse
import base64
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from run import HERE, read_results

from quant.statistics import compare, holm

Row = dict[str, Any]


def main() -> int:
    """Print the tables, or write them into a page; draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", default=str(HERE / "results.jsonl"))
    parser.add_argument("--matrix", default=str(HERE / "matrix.yaml"))
    parser.add_argument("--page", help="replace the tables between the page's markers")
    parser.add_argument("--picture", help="draw accuracy against EDP (.png or .svg)")
    arguments = parser.parse_args()
    rows = read_results(arguments.results)
    matrix = yaml.safe_load(Path(arguments.matrix).read_text(encoding="utf-8"))
    text = {"gate": gate_table(rows, matrix)}
    for model in matrix["models"]:
        text[model] = arm_table(rows, model)
    text["pairs"] = pair_table(rows, matrix)
    show(text, arguments.page)
    if arguments.picture:
        from picture import draw

        draw(rows, matrix, arguments.picture)
    return 0


def correct(row: Row, split: str) -> NDArray[np.bool_]:
    """Which images of a split an arm classified correctly."""
    packed = np.frombuffer(base64.b64decode(row[split]["correct"]), np.uint8)
    return np.unpackbits(packed)[: row[split]["images"]].astype(bool)


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
        None if row["arm"] == "float" else compare(correct(reference, "test"), correct(row, "test")) for row in chosen
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
        low, high = pair.interval
        paired = f"{100 * pair.difference:+.2f} ({100 * low:+.2f} … {100 * high:+.2f})"
        price = "| – | – | – | none runs it " if hardware is None else (
            f"| {hardware['cycles'] / 1e3:.1f} | {hardware['energy_pj'] / 1e6:.2f} | {hardware['edp_pj_s']:.1f} "
            f"| {hardware['design']} "
        )  # fmt: skip
        lines.append(
            f"{start}| {paired} | {_p(adjusted[k])} | {'yes' if pair.non_inferior else 'no'} "
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
                found.append((model, rule, compare(correct(left, "test"), correct(right, "test"))))
    adjusted = holm([pair.p_value for _, _, pair in found])
    lines = ["| model | reference | candidate | change, points (95 %) | p (Holm) | at most half a point worse |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for (model, rule, pair), p in zip(found, adjusted, strict=True):
        low, high = pair.interval
        lines.append(
            f"| {model} | {rule['reference']} | {rule['candidate']} | {100 * pair.difference:+.2f} "
            f"({100 * low:+.2f} … {100 * high:+.2f}) | {_p(p)} | {'yes' if pair.non_inferior else 'no'} |"
        )
    return "\n".join(lines)


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def show(text: dict[str, str], page: str | None) -> None:
    """Write tables into a page (`write_page`), or print them without one."""
    if page:
        write_page(Path(page), text)
    else:
        print("\n\n".join(text.values()))


def write_page(path: Path, text: dict[str, str]) -> None:
    """Replace what stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``; every marker must be there."""
    page = path.read_text(encoding="utf-8")
    for name, table in text.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if start not in page or end not in page:
            raise SystemExit(f"{path}: no place for {name!r} (<!-- {name} --> … <!-- /{name} -->)")
        before, after = page.split(start)[0], page.split(end)[1]
        page = f"{before}{start}\n{table}\n{end}{after}"
    path.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
