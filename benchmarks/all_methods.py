"""One search over all methods: tables and picture of studies on several networks and kinds of hardware.

python -m benchmarks.all_methods STUDY… [--json benchmarks/data/all_methods.json] [--page docs/all_methods.md]
    [--picture docs/images/all_methods.png]

A study is a folder of `accelsim codesign examples/codesign_all_*.yaml -o STUDY`; its name ends with ", NETWORK,
HARDWARE".  With `--json` the figures that tables and picture need are kept, and later runs add to them or replace them.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from accelsim.config import load_plan
from accelsim.formats import Scheme
from accelsim.plan import QuantPlan
from benchmarks.all_methods_picture import draw
from benchmarks.closed_loop import span
from codesign.loop.outer import LOOP, WITHOUT

BEGIN, END = "<!-- {} -->", "<!-- /{} -->"
KEPT = ("id", "origin", "level", "edp_pj_s", "area_mm2", "shift_share", "average_weight_bits", "on_front")
MEASURED = ("top1", "reference", "images", "change", "low", "high", "non_inferior")
Study = dict[str, Any]


def facts(study: Path) -> Study:
    """The figures of one study that tables and picture need."""
    result = json.loads((study / "result.json").read_text())
    network, hardware = result["name"].split(", ")[-2:]
    plans = {one["id"]: load_plan(study / one["folder"] / "plan.yaml") for one in result["designs"]}
    return {
        "network": network, "hardware": hardware, "model": result["model"], "seed": result["seed"],
        "best": result["best"], "comparison": result["comparison"], "families": result["families"],
        "seconds": result["seconds"], "looked_at": len(result["cloud"]),
        "margin_points": result["spec"]["final"]["margin_points"],
        "gaps": {row["design"]: row["gap"] for row in result["bounds"]},
        "designs": [_design(one, plans[one["id"]]) for one in result["designs"]],
    }  # fmt: skip


def _design(one: Study, plan: QuantPlan) -> Study:
    shown = {key: one[key] for key in KEPT} | {"uses": uses(plan), "over_limits": sorted(one["over_limits"])}
    for split in ("validation", "test"):
        shown[split] = None if one[split] is None else {key: one[split][key] for key in MEASURED}
    return shown


def uses(plan: QuantPlan) -> dict[str, Any]:
    """How often a plan uses each family of options: ops, and the methods by name."""
    rules = [rule for rule in plan.rules if rule.match != "*"]
    methods: dict[str, int] = {}
    for rule in rules:
        if rule.nonlinear:
            methods[rule.nonlinear] = methods.get(rule.nonlinear, 0) + 1
    return {
        "channels": sum(len(rule.weights) > 1 for rule in rules),
        "schemes": sum(any(part.format.is_shift for part in rule.weights) for rule in rules),
        "regions": sum(rule.output.scheme is Scheme.TWO_REGION for rule in rules),
        "heads": sum(rule.heads is not None or rule.weight_heads is not None for rule in rules),
        "tokens": len({rule.tokens.layer for rule in rules if rule.tokens is not None}),
        "methods": methods, "division": plan.division,
    }  # fmt: skip


def points(row: Study | None, sign: str = "+") -> str:
    """A paired change in points with its interval."""
    if row is None:
        return "–"
    return f"{100 * row['change']:{sign}.2f} ({100 * row['low']:{sign}.2f} … {100 * row['high']:{sign}.2f})"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    head = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    return head + [f"| {' | '.join(cells)} |" for cells in rows]


def cells_of(studies: Sequence[Study]) -> dict[tuple[str, str], list[Study]]:
    """Studies of every network and hardware, by seed."""
    found: dict[tuple[str, str], list[Study]] = {}
    for one in studies:
        found.setdefault((one["network"], one["hardware"]), []).append(one)
    return found


def design_of(study: Study, name: str | None) -> Study | None:
    """A design by its name."""
    return next((one for one in study["designs"] if one["id"] == name), None)


def best_lines(studies: Sequence[Study]) -> list[str]:
    """The design of least EDP that is not inferior to the float network, study by study."""
    titles = ("network", "hardware", "seed", "design", "EDP, pJ·s", "bits of a weight", "validation, points (95 %)",
              "test, points (95 %)", "certified EDP gap", "what it uses")  # fmt: skip
    rows = []
    for study in studies:
        best = design_of(study, study["best"])
        start = [study["network"], study["hardware"], str(study["seed"])]
        if best is None:
            rows.append([*start, "none", *["–"] * 6])
            continue
        gap = study["gaps"].get(best["id"])
        rows.append([
            *start, best["id"], f"{best['edp_pj_s']:.4g}", f"{best['average_weight_bits']:.2f}",
            points(best["validation"]), points(best["test"]), "–" if gap is None else f"{gap:.0%}", used(best["uses"]),
        ])  # fmt: skip
    return table(titles, rows)


def used(found: Study) -> str:
    """The families of options that a plan uses, in words."""
    counts = (("channels", "ops with several formats"), ("schemes", "with powers of two"), ("regions", "two-region"),
              ("heads", "with head widths"), ("tokens", "layers with token groups"))  # fmt: skip
    said = [f"{found[key]} {text}" for key, text in counts if found[key]]
    said += [f"{count} {name}" for name, count in sorted(found["methods"].items())]
    said += ["log2 division"] * (found["division"] == "log2_shift")
    return ", ".join(said) or "widths only"


def comparison_lines(studies: Sequence[Study]) -> list[str]:
    """Every baseline beside the full search's design of least EDP that is not inferior to it."""
    return _rows(studies, "comparison", "baseline", ("baseline", "full / baseline"))


def family_lines(studies: Sequence[Study]) -> list[str]:
    """Every search without a family, likewise."""
    return _rows(studies, "families", "family", ("without", "full / ablated"))


def _rows(studies: Sequence[Study], kind: str, key: str, named: tuple[str, str]) -> list[str]:
    titles = ("network", "hardware", named[0], "seeds", "its EDP, pJ·s", named[1],
              "full − it, validation, points (95 %)", "test, points (95 %)", "confirmed on test")  # fmt: skip
    lines = []
    for (network, hardware), ones in cells_of(studies).items():
        for name in dict.fromkeys(row[key] for one in ones for row in one[kind]):
            pairs = [(one, row) for one in ones for row in one[kind] if row[key] == name]
            lines.append([network, hardware, name, *_compared(pairs)])
    return table(titles, lines)


def _compared(pairs: Sequence[tuple[Study, Study]]) -> list[str]:
    """Seeds, EDP, ratio, change on both splits (of the first seed, with its interval), confirmations; of one rival."""
    edps, ratios, rows, tests = [], [], [], []
    for study, row in pairs:
        rival = design_of(study, row["design"])
        edps += [] if rival is None else [rival["edp_pj_s"]]
        ratios += [] if row["edp_ratio"] is None else [row["edp_ratio"]]
        rows += [] if row["accuracy_change"] is None else [{**row, "change": row["accuracy_change"]}]
        tests += [] if row["test"] is None else [row["test"]]
    confirmed = f"{sum(test['non_inferior'] for test in tests)} of {len(tests)}" if tests else "–"
    return [
        str(len(edps)), span(edps, lambda v: f"{v:.4g}") if edps else "–",
        span(ratios, lambda v: f"{v:.3f}") if ratios else "none is as accurate",
        points(rows[0] if rows else None), points(tests[0] if tests else None), confirmed,
    ]  # fmt: skip


def limit_ratios(studies: Sequence[Study]) -> dict[tuple[str, str, str], list[float]]:
    """EDP of the full search over that of every ablated one at equal limits of the predicted loss.

    By network, hardware and family; no threshold of accuracy decides which designs are compared.
    """
    found: dict[tuple[str, str, str], list[float]] = {}
    for study in studies:
        ours = [one for one in study["designs"] if one["origin"] == LOOP and one["level"] is not None]
        full = {one["level"]: one["edp_pj_s"] for one in ours}
        for one in study["designs"]:
            if one["origin"].startswith(WITHOUT) and one["level"] in full:
                key = (study["network"], study["hardware"], one["origin"].removeprefix(WITHOUT))
                found.setdefault(key, []).append(full[one["level"]] / one["edp_pj_s"])
    return found


def limit_lines(studies: Sequence[Study]) -> list[str]:
    """`limit_ratios`: mean and range."""
    rows = [[*key, str(len(each)), span(each, lambda v: f"{v:.3f}")] for key, each in limit_ratios(studies).items()]
    return table(("network", "hardware", "without", "limits", "full / ablated at equal limits"), rows)


def mean_lines(studies: Sequence[Study]) -> list[str]:
    """Geometric means of the ratios to a baseline over all studies of a network."""
    found: dict[tuple[str, str], list[float]] = {}
    for study in studies:
        for row in study["comparison"]:
            if row["edp_ratio"] is not None:
                found.setdefault((study["network"], row["baseline"]), []).append(row["edp_ratio"])
    rows = [
        [network, name, str(len(ratios)), span(ratios, lambda v: f"{v:.3f}")]
        for (network, name), ratios in found.items()
    ]
    return table(("network", "against", "studies", "EDP of the full search / its EDP"), rows)


def time_lines(studies: Sequence[Study]) -> list[str]:
    """Wall-clock seconds of the steps."""
    steps = ("penalties", "search", "designs", "bounds", "total")
    rows = [
        [study["network"], study["hardware"], str(study["seed"]), str(study["looked_at"]), str(len(study["designs"])),
         *(f"{study['seconds'].get(step, 0):.0f}" for step in steps)]
        for study in studies
    ]  # fmt: skip
    titles = ("network", "hardware", "seed", "designs looked at", "verified", *(f"{step}, s" for step in steps))
    return table(titles, rows)


def blocks(studies: Sequence[Study]) -> dict[str, list[str]]:
    """What stands between the markers of the page."""
    return {
        "best": best_lines(studies), "baselines": comparison_lines(studies), "families": family_lines(studies),
        "limits": limit_lines(studies), "means": mean_lines(studies), "times": time_lines(studies),
    }  # fmt: skip


def fill(text: str, found: dict[str, list[str]]) -> str:
    """A page with its marked blocks replaced."""
    for name, lines in found.items():
        begin, end = BEGIN.format(name), END.format(name)
        whole = "\n".join([begin, *lines, end])
        text = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _, new=whole: new, text, flags=re.DOTALL)
    return text


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="*", type=Path)
    parser.add_argument("--json", type=Path, help="keep the figures here")
    parser.add_argument("--page", type=Path, help="replace what stands between the markers")
    parser.add_argument("--picture", type=Path, help="draw fronts and ablation")
    arguments = parser.parse_args()
    there = arguments.json is not None and arguments.json.exists()
    kept: list[Study] = json.loads(arguments.json.read_text()) if there else []
    found = [facts(study) for study in arguments.studies]
    keys = {(one["network"], one["hardware"], one["seed"]) for one in found}
    studies = [one for one in kept if (one["network"], one["hardware"], one["seed"]) not in keys] + found
    studies.sort(key=lambda one: (one["network"], one["hardware"], one["seed"]))
    if arguments.json:
        arguments.json.write_text("[\n" + ",\n".join(json.dumps(one) for one in studies) + "\n]\n")
    text = blocks(studies)
    if arguments.picture:
        draw(studies, limit_ratios(studies), arguments.picture)
    if arguments.page:
        arguments.page.write_text(fill(arguments.page.read_text(), text))
    else:
        print("\n\n".join("\n".join(lines) for lines in text.values()))


if __name__ == "__main__":
    main()
