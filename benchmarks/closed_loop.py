"""Tables of co-design studies: EDP against every baseline at equal accuracy, bounds, errors of prices, times.

python -m benchmarks.closed_loop STUDY… [--json benchmarks/data/closed_loop.json] [--page docs/codesign.md]

Studies of one network and several seeds (`accelsim codesign examples/codesign_glyphs.yaml --seed N -o STUDY`) are one
line each.  With `--json` the figures that the tables need are kept, and later runs add to them or replace them.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from accelsim.api import simulate
from accelsim.config import load_accelerator, load_plan
from accelsim.mapping import mapping_from_json
from accelsim.optable import op_table
from accelsim.workloads.from_json import load_workload
from codesign.allocate.op_costs import op_costs

START, END = "<!-- results -->", "<!-- /results -->"
ARMS = ("uniform8", "uniform6", "uniform4", "sequential", "m2vit_rule", "random")
MARKS = (25, 50, 100, 200)


def facts(study: Path) -> dict[str, Any]:
    """The figures of one study that the tables need."""
    result = json.loads((study / "result.json").read_text())
    kept = ("id", "predicted_loss", "edp_pj_s", "shift_share", "average_weight_bits", "validation", "test")
    best = next((one for one in result["designs"] if one["id"] == result["best"]), None)
    named = {result["best"], *(row["design"] for row in result["comparison"])}
    rows = next(one["rows"] for one in result["history"] if one["search"] == "codesign")
    errors: dict[str, list[float]] = {}
    for row in result["table_error"]:
        errors.setdefault(row["design"], []).append(row["predicted_cycles"] / row["simulated_cycles"] - 1)
    return {
        "name": result["name"], "model": result["model"], "seed": result["seed"], "best": result["best"],
        "designs": [{key: one[key] for key in kept} for one in result["designs"] if one["id"] in named],
        "comparison": result["comparison"], "bounds": [row for row in result["bounds"] if row["design"] in named],
        "table_error": [[one[0], one[-1]] for one in errors.values()],
        "history": [[row["evaluations"], row["hypervolume"], row["elapsed_s"]] for row in marked(rows)],
        "seconds": result["seconds"], "looked_at": len(result["cloud"]),
        "both_busy": None if best is None else both_busy(study / best["folder"]),
    }  # fmt: skip


def marked(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last generation up to each mark, and the last of all."""
    found = [next((row for row in reversed(rows) if row["evaluations"] <= mark), None) for mark in MARKS]
    return [row for row in found if row is not None] + [rows[-1]]


def both_busy(folder: Path) -> float | None:
    """Busy share of the engines during ops that several of them share, weighted by MACs; None without such ops.

    Of an op the share is the mean busy time of its engines over that of the busiest.
    """
    workload = load_workload(folder / "workload.json")
    accelerator = load_accelerator(folder / "accelerator.yaml")
    mapping = mapping_from_json(json.loads((folder / "mapping.json").read_text()), "mapping.json")
    report = simulate(op_table(workload, load_plan(folder / "plan.yaml")), accelerator, mapping)
    loads = op_costs(report).loads[:, : len(accelerator.engines)]
    macs = shared = 0.0
    for item, row in zip(report.table.quantized.ops, loads, strict=True):
        busy = row[row > 0]
        if len(busy) > 1:
            macs += item.op.macs
            shared += item.op.macs * float(busy.mean() / busy.max())
    return shared / macs if macs else None


def geomean(values: Iterable[float]) -> float:
    """Geometric mean."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def span(values: Sequence[float], form: Callable[[float], str]) -> str:
    """Geometric mean and range."""
    if form(min(values)) == form(max(values)):
        return form(values[0])
    return f"{form(geomean(values))} ({form(min(values))} … {form(max(values))})"


def by_model(studies: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Studies of every network, by seed."""
    found: dict[str, list[dict[str, Any]]] = {}
    for one in sorted(studies, key=lambda one: (one["model"], one["seed"])):
        found.setdefault(one["model"], []).append(one)
    return found


def mean_points(values: Sequence[float]) -> str:
    """Mean change of accuracy in points."""
    return f"{100 * sum(values) / len(values):+.2f}" if values else "–"


def arm_rows(model: str, studies: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of one network: every baseline beside the loop's designs that are not inferior to it."""
    lines = []
    for arm in ARMS:
        edps, ratios, changes, tests, equal = [], [], [], [], 0
        for one in studies:
            row = next((row for row in one["comparison"] if row["baseline"] == arm), None)
            if row is None:
                continue
            rival = next(design for design in one["designs"] if design["id"] == row["design"])
            edps.append(rival["edp_pj_s"])
            equal += bool(rival["validation"] and rival["validation"]["non_inferior"])
            ratios += [] if row["edp_ratio"] is None else [row["edp_ratio"]]
            changes += [] if row["accuracy_change"] is None else [row["accuracy_change"]]
            tests += [] if row["test"] is None else [row["test"]]
        if edps:
            confirmed = f"{sum(test['non_inferior'] for test in tests)} of {len(tests)}" if tests else "–"
            cells = [
                model, arm, str(len(edps)), f"{equal} of {len(edps)}" if changes else "not measured",
                span(edps, lambda v: f"{v:.4g}"), span(ratios, lambda v: f"{v:.3f}") if ratios else "–",
                mean_points(changes), mean_points([test["change"] for test in tests]), confirmed,
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def best_rows(groups: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The loop's best designs that are not inferior to the float network."""
    titles = ("network", "seeds", "with such a design", "EDP, pJ·s", "bits of a weight", "validation", "test")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for model, ones in groups.items():
        best = [row for one in ones for row in one["designs"] if row["id"] == one["best"] and row["validation"]]
        if not best:
            continue
        changes = [row["validation"]["change"] for row in best]
        tests = [row["test"]["change"] for row in best if row["test"]]
        bits = sum(row["average_weight_bits"] for row in best) / len(best)
        edp = span([row["edp_pj_s"] for row in best], lambda v: f"{v:.4g}")
        shown = [model, str(len(ones)), str(len(best)), edp, f"{bits:.2f}", mean_points(changes), mean_points(tests)]
        lines.append(f"| {' | '.join(shown)} |")
    return lines


def results(studies: Sequence[dict[str, Any]]) -> str:
    """All tables as Markdown."""
    groups = by_model(studies)
    titles = ("network", "baseline", "seeds", "as accurate as float", "its EDP, pJ·s", "loop / baseline",
              "points, validation", "points, test", "confirmed on test")  # fmt: skip
    text = [
        "For every baseline its best design (its most accurate one, if none is as accurate as the float network) and",
        "the loop's design of least EDP that is not inferior to it on validation images: ratio of their EDPs,",
        "geometric mean and range over seeds; accuracy of the loop's design less the baseline's; how often test images",
        "confirm it.",
        "",
        f"| {' | '.join(titles)} |",
        "|---" * len(titles) + "|",
    ]
    for model, ones in groups.items():
        text += arm_rows(model, ones)
    text += ["", "The loop's designs of least EDP that are not inferior to the float network:", "", *best_rows(groups)]
    text += ["", *overall(groups), "", *bound_lines(groups), "", *search_lines(groups), "", *time_lines(groups)]
    return "\n".join(text)


def overall(groups: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Geometric mean over networks of the ratios, arm by arm."""
    lines = ["Over measured networks (geometric mean of the networks' geometric means):"]
    lines += ["", "| baseline | networks | loop / baseline |", "|---|---|---|"]
    for arm in ARMS:
        means = []
        for ones in groups.values():
            rows = [row for one in ones for row in one["comparison"] if row["baseline"] == arm]
            ratios = [row["edp_ratio"] for row in rows if row["accuracy_change"] is not None]
            if ratios:
                means.append(geomean(ratios))
        if means:
            lines.append(f"| {arm} | {len(means)} | {geomean(means):.3f} |")
    return lines


def bound_lines(groups: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Certified gaps, shift shares and errors of the table, by network."""
    titles = ("certified EDP gap of the best design", "latency gap", "energy gap", "MACs with powers of two",
              "both engines busy in shared ops", "error of the table's cycles, first round", "last round")  # fmt: skip
    lines = [f"| network | {' | '.join(titles)} |", "|---|" + "---|" * len(titles)]
    for model, ones in groups.items():
        gaps, latency, energy, shares, busy, first, last = [], [], [], [], [], [], []
        for one in ones:
            row = next((row for row in one["bounds"] if row["design"] == one["best"]), None)
            if row is not None:
                gaps.append(row["gap"])
                latency.append(1 - row["latency_bound_cycles"] / row["latency_cycles"])
                energy.append(1 - row["energy_bound_pj"] / row["energy_pj"])
            shares += [design["shift_share"] for design in one["designs"] if design["id"] == one["best"]]
            busy += [] if one["both_busy"] is None else [one["both_busy"]]
            first += [abs(error) for error, _ in one["table_error"]]
            last += [abs(error) for _, error in one["table_error"]]
        cells = [percents(values) for values in (gaps, latency, energy, shares, busy, first, last)]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return lines


def percents(values: Sequence[float]) -> str:
    """Mean and largest as percentages."""
    if not values:
        return "–"
    return f"{sum(values) / len(values):.1%} (≤ {max(values):.1%})"


def search_lines(groups: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Hypervolume of the loop's search over evaluations, as a share of its last value; seconds to get there."""
    lines = [f"| network | {' | '.join(f'{mark} designs' for mark in MARKS)} | seconds of the search |",
             "|---|" + "---|" * (len(MARKS) + 1)]  # fmt: skip
    for model, ones in groups.items():
        cells = []
        for mark in MARKS:
            shares = []
            for one in ones:
                there = [volume for seen, volume, _ in one["history"] if seen <= mark]
                seen, last, _ = one["history"][-1]
                if there and seen >= mark and last:
                    shares.append(there[-1] / last)
            cells.append(f"{sum(shares) / len(shares):.1%}" if shares else "–")
        spent = [one["history"][-1][2] for one in ones]
        lines.append(f"| {model} | {' | '.join(cells)} | {sum(spent) / len(spent):.0f} |")
    return lines


def time_lines(groups: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Seconds of the steps, means over seeds."""
    steps = ("penalties", "search", "designs", "bounds", "total")
    lines = [f"| network | designs looked at | {' | '.join(f'{step}, s' for step in steps)} |",
             "|---|---|" + "---|" * len(steps)]  # fmt: skip
    for model, ones in groups.items():
        cells = [f"{sum(one['seconds'].get(step, 0) for one in ones) / len(ones):.0f}" for step in steps]
        lines.append(f"| {model} | {sum(one['looked_at'] for one in ones) / len(ones):.0f} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="*", type=Path)
    parser.add_argument("--json", type=Path, help="keep the figures here")
    parser.add_argument("--page", type=Path, help="replace what stands between the markers")
    arguments = parser.parse_args()
    there = arguments.json is not None and arguments.json.exists()
    kept: list[dict[str, Any]] = json.loads(arguments.json.read_text()) if there else []
    found = [facts(study) for study in arguments.studies]
    names = {(one["name"], one["seed"]) for one in found}
    studies = [one for one in kept if (one["name"], one["seed"]) not in names] + found
    studies.sort(key=lambda one: (one["name"], one["seed"]))
    if arguments.json:
        arguments.json.write_text("[\n" + ",\n".join(json.dumps(one) for one in studies) + "\n]\n")
    text = results(studies)
    if arguments.page:
        page = arguments.page.read_text()
        pattern = re.compile(f"{START}.*{END}", re.DOTALL)
        arguments.page.write_text(pattern.sub(lambda _: f"{START}\n{text}\n{END}", page))
    else:
        print(text)


if __name__ == "__main__":
    main()
