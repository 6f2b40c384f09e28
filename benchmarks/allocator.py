"""Time and gap of the allocator: the flat form beside plain HiGHS, and problems as networks give them, exact and fast.

    python benchmarks/allocator.py [--quick] [--json FILE] [--highs-seconds N] [--exact-seconds N] [--seeds N]

Flat: 40,000 groups of 6 options under 1 and 3 budgets.  Networks: 24 to 60 ops with 15 options each under two formats
of activations, four units; half of the ops share a stage with the op before.  All problems are drawn from seeds.
Times are CPU time of one process, so that a busy machine does not change them; time limits are wall-clock time.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

# Before numpy is loaded: its libraries read it once.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array
from timing import benchmark_parser, print_machine, seconds, table, write_numbers

sys.path.insert(0, str(Path(__file__).parents[1]))

from codesign.allocate.flat import allocate_groups
from codesign.allocate.model import prepare
from codesign.allocate.solve import Limits, minimise
from tests.support.knapsacks import typical_knapsack

Row = dict[str, Any]


def flat_instance(seed: int, groups: int, options: int, budgets: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Penalties that fall and costs that rise from option to option; budgets of about half of the mean cost."""
    rng = np.random.default_rng(seed)
    penalties = np.sort(rng.lognormal(0, 1.5, (groups, options)), 1)[:, ::-1] * rng.lognormal(0, 1, (groups, 1))
    costs = np.sort(rng.lognormal(0, 1, (groups, options, budgets)), 1) * rng.lognormal(0, 1, (groups, 1, budgets))
    return penalties, costs, costs.mean((0, 1)) * groups * np.array([0.5, 0.55, 0.6])[:budgets]


def plain_highs(penalties: np.ndarray, costs: np.ndarray, budgets: np.ndarray, limit_s: float) -> tuple[float, float]:
    """Seconds and gap of `scipy.optimize.milp` on the same arrays, asked for a gap of 1e-6."""
    groups, options = penalties.shape
    size = groups * options
    choose = coo_array((np.ones(size), (np.repeat(np.arange(groups), options), np.arange(size)))).tocsr()
    spend = costs.reshape(size, -1).T / budgets[:, None]
    start = time.process_time()
    found = milp(
        penalties.ravel(),
        integrality=np.ones(size),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(choose, 1, 1), LinearConstraint(spend, -np.inf, 1)],
        options={"mip_rel_gap": 1e-6, "time_limit": limit_s},
    )
    taken = time.process_time() - start
    return taken, float("inf") if found.x is None else (found.fun - found.mip_dual_bound) / abs(found.fun)


def flat_rows(groups: int, limit_s: float, seeds: int) -> list[Row]:
    """Both solvers on instances with one and with three budgets."""
    rows = []
    for budgets in (1, 3):
        for seed in range(seeds):
            instance = flat_instance(seed, groups, 6, budgets)
            start = time.process_time()
            found = allocate_groups(*instance)
            taken = time.process_time() - start
            # Plain HiGHS takes long: once per number of budgets.
            highs_s, highs_gap = plain_highs(*instance, limit_s) if limit_s and not seed else (None, None)
            rows.append(
                {"groups": groups, "budgets": budgets, "seed": seed, "seconds": taken, "gap": found.gap}
                | {"highs_seconds": highs_s, "highs_gap": highs_gap}
            )
    return rows


def network_rows(sizes: tuple[int, ...], seeds: int, limit_s: float) -> list[Row]:
    """Exact and fast on goals in the middle between the plans of least penalty and of least EDP."""
    rows = []
    for ops in sizes:
        for seed in range(seeds):
            model = prepare(typical_knapsack(seed, ops, options=15))
            best, quick = minimise(model, "penalty", method="fast"), minimise(model, "edp", method="fast")
            middle = {name: 0.5 * (best.totals[name] + quick.totals[name]) for name in best.totals}
            goals = (
                ("penalty", Limits(latency_cycles=middle["latency_cycles"])),
                ("penalty", Limits(edp=middle["edp"])),
                ("edp", Limits(penalty=middle["penalty"])),
            )
            for objective, limits in goals:
                row: Row = {"ops": ops, "seed": seed, "variables": model.size}
                row["goal"] = f"{objective} under {', '.join(limits.all())}"
                for method in ("fast", "exact"):
                    start = time.process_time()
                    found = minimise(model, objective, limits, method, time_limit_s=limit_s)
                    taken = time.process_time() - start
                    row |= {f"{method}_seconds": taken, f"{method}_gap": found.gap, method: found.value}
                rows.append(row)
    return rows


def print_flat(rows: list[Row]) -> None:
    def plain(row: Row) -> tuple[str, str]:
        if row["highs_seconds"] is None:
            return "", ""
        return seconds(row["highs_seconds"]), f"{row['highs_gap']:.1e}"

    print("## Flat form, 6 options per group\n")
    head = ("groups", "budgets", "seed", "CPU time", "certified gap", "plain HiGHS", "its gap")
    lines = [
        (f"{row['groups']:,}", f"{row['budgets']}", f"{row['seed']}", seconds(row["seconds"]), f"{row['gap']:.1e}")
        for row in rows
    ]
    table(head, [(*line, *plain(row)) for line, row in zip(lines, rows, strict=True)])


def print_networks(rows: list[Row]) -> None:
    print("\n## Networks, median (worst) over seeds\n")
    head = ("ops", "variables", "goal", "fast", "its gap", "above exact", "exact", "its gap")
    lines = []
    for ops, goal in dict.fromkeys((row["ops"], row["goal"]) for row in rows):
        of = [row for row in rows if row["ops"] == ops and row["goal"] == goal]

        def both(values: list[float], form: str) -> str:
            return f"{statistics.median(values):{form}} ({max(values):{form}})"

        lines.append(
            (
                str(ops),
                f"{of[0]['variables']:,}",
                goal,
                both([1e3 * row["fast_seconds"] for row in of], ".0f") + " ms",
                both([row["fast_gap"] for row in of], ".1e"),
                both([row["fast"] / row["exact"] - 1 for row in of], ".1e"),
                both([row["exact_seconds"] for row in of], ".2f") + " s",
                both([row["exact_gap"] for row in of], ".1e"),
            )
        )
    table(head, lines)


def main() -> None:
    parser = benchmark_parser("Time and gap of the allocator.")
    parser.add_argument("--highs-seconds", type=float, default=60.0, help="time limit of plain HiGHS, 0: leave it out")
    parser.add_argument("--exact-seconds", type=float, default=20.0, help="time limit of the exact solver")
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    about = print_machine()
    seeds = 1 if asked.quick else asked.seeds
    flat = flat_rows(4_000 if asked.quick else 40_000, 5.0 if asked.quick else asked.highs_seconds, seeds)
    print_flat(flat)
    networks = network_rows((24,) if asked.quick else (24, 60), seeds, asked.exact_seconds)
    print_networks(networks)
    write_numbers(asked.json, about, flat=flat, networks=networks)


if __name__ == "__main__":
    main()
