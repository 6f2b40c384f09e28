"""How much of the true front a search finds, against the designs that it looked at.

    python benchmarks/search_quality.py [--quick] [--json FILE] [--plot FILE.png] [--study FILE.sqlite] [--seeds N]

All 10,000 designs of examples/search_b1.yaml are swept first, so the true front is known and every later search finds
its designs in the study: it runs as `accelsim search` does, but nothing is simulated.  The hypervolume is a share of
that of the true front.  The reference point is 1.1 x the worst value of each objective, on the true front, or with
`--reference all` among all designs within the limits: a larger box, of which any search finds most.  `--study` keeps
the sweep and reuses it.  Needs the extra `search`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Before numpy is loaded: its libraries read it once.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from timing import benchmark_parser, print_machine, table, write_numbers

from codesign.pareto import pareto_front
from codesign.runner import run_sweep
from codesign.search import REFERENCE_MARGIN, Search, hypervolume, run_search
from codesign.space import Space, load_space
from codesign.store import open_study, program_version

SPACE = Path(__file__).parents[1] / "examples" / "search_b1.yaml"
BUDGETS = (50, 100, 200, 500, 1_000)
SEEDS = 21
QUARTILES = (25, 50, 75)
# Whose worst values make the reference point: those on the true front, or all within the limits.
CORNERS = ("front", "all")


@dataclass(frozen=True)
class Task:
    """What is searched for, and by whom."""

    title: str
    objectives: tuple[str, ...]
    limits: Mapping[str, float]
    searchers: tuple[str, ...]


@dataclass(frozen=True)
class Truth:
    """The true front of a task: how many designs are on it and how many within the limits, and the reference point."""

    front: int
    allowed: int
    reference: dict[str, float]
    hypervolume: float


TASKS = (
    Task("latency and energy, area ≤ 4 mm²", ("latency_s", "energy_pj"), {"area_mm2": 4.0}, ("nsga2", "random")),
    Task("latency, EDP and area", ("latency_s", "edp_pj_s", "area_mm2"), {}, ("nsga3", "nsga2", "random")),
)


def truth_of(rows: Sequence[Mapping[str, Any]], task: Task, corner: str) -> Truth:
    """Front of all designs of the study within the limits of a task; `corner` (`CORNERS`) makes the reference point."""
    allowed = [
        [float(row[name]) for name in task.objectives]
        for row in rows
        if row["status"] == "ok" and all(row[name] <= limit for name, limit in task.limits.items())
    ]
    points = np.array(allowed)
    front = np.unique(points[pareto_front(points)], axis=0)
    reference = (front if corner == CORNERS[0] else points).max(axis=0) * REFERENCE_MARGIN
    named = dict(zip(task.objectives, reference.tolist(), strict=True))
    return Truth(len(front), len(points), named, hypervolume(front, reference))


def searched(space: Space, study: Path, task: Task, truth: Truth, searcher: str, seed: int, budget: int) -> float:
    """Share of the true hypervolume that one search finds with a budget."""
    search = Search(searcher, task.objectives, budget, seed, task.limits, reference=truth.reference)
    found = run_search(space, study, search, workers=1)
    if found.evaluated:
        raise RuntimeError(f"{found.evaluated} designs were not in the study")
    return float(found.history[-1]["hypervolume"]) / truth.hypervolume


@contextlib.contextmanager
def swept(space: Space, kept: str | None, workers: int | None) -> Iterator[Path]:
    """A study of the whole grid: the file `kept`, or one that is removed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        study = Path(kept) if kept else Path(folder) / "grid.sqlite"
        print(run_sweep(space, study, workers), "\n", flush=True)
        yield study


def smaller(space: Space) -> Space:
    """Every other value of the axes that have more than two: 540 designs of the 10,000."""
    return replace(space, axes=tuple(replace(a, values=a.values[::2]) if len(a.values) > 2 else a for a in space.axes))


def measure(space: Space, study: Path, task: Task, corner: str, budgets: Sequence[int], seeds: int) -> dict[str, Any]:
    """Shares of the true hypervolume by searcher, budget and seed."""
    with open_study(study, space.fingerprint(), program_version()) as opened:
        truth = truth_of(opened.rows(), task, corner)
    shares = {
        name: {
            budget: [searched(space, study, task, truth, name, seed, budget) for seed in range(seeds)]
            for budget in budgets
        }
        for name in task.searchers
    }
    return {"task": task.title, "front": truth.front, "allowed": truth.allowed, "reference": truth.reference,
            "hypervolume": truth.hypervolume, "shares": shares}  # fmt: skip


def print_found(found: Mapping[str, Any], seeds: int) -> None:
    """A table: median and quartiles of the share by searcher and budget."""
    print(f"### Share of the true hypervolume, {found['task']}: median (quartiles) of {seeds} seeds, in %\n")
    print(f"{found['front']} of {found['allowed']:,} designs within the limits are on the true front.\n")
    lines = []
    for name, by_budget in found["shares"].items():
        cells = []
        for shares in by_budget.values():
            low, middle, high = np.percentile(shares, QUARTILES) * 100
            cells.append(f"{middle:.1f} ({low:.1f} … {high:.1f})")
        lines.append([f"`{name}`", *cells])
    budgets = next(iter(found["shares"].values()))
    table(["searcher", *(f"{budget:,} designs" for budget in budgets)], lines)


def draw(path: str, results: Sequence[Mapping[str, Any]], seeds: int) -> None:
    """Median and quartile band of every searcher over evaluations, one panel per task."""
    from codesign.plots.frame import COLOURS, MARKERS, new_figure, picture_path, save

    styles = dict(zip(("nsga2", "nsga3", "random"), zip(COLOURS, MARKERS, strict=True), strict=False))
    figure = new_figure(8.0, 3.2)
    for axes, found in zip(figure.subplots(1, len(results), squeeze=False)[0], results, strict=True):
        for name, by_budget in found["shares"].items():
            colour, marker = styles[name]
            budgets = list(by_budget)
            low, middle, high = np.percentile(list(by_budget.values()), QUARTILES, axis=1) * 100
            axes.fill_between(budgets, low, high, color=colour, alpha=0.2, linewidth=0)
            axes.plot(budgets, middle, color=colour, marker=marker, markersize=4, label=name)
        axes.set(xscale="log", xlabel="designs evaluated", ylabel="share of the true hypervolume, %")
        axes.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
        axes.minorticks_off()
        axes.set_title(found["task"], fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend(title=f"median and quartiles\nof {seeds} seeds", fontsize=8, title_fontsize=8)
    save(figure, picture_path(path))


def main() -> int:
    parser = benchmark_parser("Hypervolume of searches against the designs that they looked at")
    parser.add_argument("--plot", help="also draw the curves into this file (.png)")
    parser.add_argument("--study", help="keep the sweep of the grid in this file, or use the one that is there")
    parser.add_argument("--reference", default=CORNERS[0], choices=CORNERS, help="the worst of which designs")
    parser.add_argument("--seeds", type=int, default=None, help=f"searches per point (default {SEEDS}, quick 3)")
    arguments = parser.parse_args()
    space = smaller(load_space(SPACE)) if arguments.quick else load_space(SPACE)
    budgets = BUDGETS[:2] if arguments.quick else BUDGETS
    seeds = arguments.seeds or (3 if arguments.quick else SEEDS)
    about, results = print_machine(), []
    with swept(space, arguments.study, 1 if arguments.quick else None) as study:
        for task in TASKS:
            results.append(measure(space, study, task, arguments.reference, budgets, seeds))
            print_found(results[-1], seeds)
    if arguments.plot:
        draw(arguments.plot, results, seeds)
    write_numbers(arguments.json, about, results=results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
