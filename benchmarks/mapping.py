"""The exhaustive mapper beside the heuristic one on every built-in network and preset, and the gap to the bound.

    python benchmarks/mapping.py [--quick] [--json FILE]

Latency and EDP of the mapping that is kept over that of the heuristic, simulated cycles over the design bound, and the
optimum of the objective over what its mapping takes when simulated.  All of these are exact and repeat; only the CPU
seconds of a search (fresh memo, compiled kernels) depend on the machine.  docs/mapping.md holds the output and says how
to read it.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

# Before numpy is loaded: its libraries read it once.
os.environ["OMP_NUM_THREADS"] = "1"

from timing import benchmark_parser, print_machine, published_networks, seconds, table, write_numbers

from accelsim.arch import Accelerator
from accelsim.bounds import design_bound
from accelsim.config import load_accelerator, load_plan, preset_names
from accelsim.mappers.exhaustive import find_mapping
from accelsim.mappers.memo import Memo
from accelsim.optable import OpTable, op_table
from accelsim.problems import InfeasibleError
from accelsim.workloads.registry import build_workload

OBJECTIVES = ("latency", "edp")
# Plans and the presets that are made for them; every preset runs uniform8.
UNIFORM = "uniform8"
OTHER_PLANS = {
    "m2q": ("m2vit", "m2vit_ddr4_banked", "m2vit_hbm2_banked", "m2vit_iso_area", "m2vit_lpddr5_banked"),
    "uniform4": ("bitfusion_256", "bitfusion_edge"),
}
QUICK_MODELS, QUICK_PRESETS = ("efficientvit_b0", "levit_128"), ("trio_vit", "m2vit", "nvdla_small", "vitcod_dense")


@dataclass(frozen=True)
class Row:
    """One search.  Values are cycles, or picojoules × cycles for EDP; None where no mapping was found or none tried.

    `fraction_placed` is the share of the activation buffer with which a mapping could be placed at fixed addresses.
    """

    model: str
    preset: str
    plan: str
    objective: str
    kept: str | None
    heuristic: float | None
    exhaustive: float | None
    optimum: float | None
    heuristic_cycles: float | None
    exhaustive_cycles: float | None
    bound_cycles: int
    fraction_placed: float
    cpu_s: float

    @property
    def ratio(self) -> float | None:
        """Kept over heuristic: at most 1; None when either is missing."""
        if self.heuristic is None:
            return None
        return min(1.0, (self.exhaustive or self.heuristic) / self.heuristic)


def searched(network: OpTable, accelerator: Accelerator, plan: str, objective: str) -> Row:
    """Search one design with nothing remembered."""
    model, capacity = network.quantized.workload.name, accelerator.activation_buffer.capacity_bits
    start_s = time.process_time()
    try:
        found = find_mapping(network, accelerator, objective, memo=Memo())
    except InfeasibleError:
        used_s = time.process_time() - start_s
        return Row(model, accelerator.name, plan, objective, None, None, None, None, None, None, 0, 1.0, used_s)
    used_s = time.process_time() - start_s
    bound = design_bound(network, found.engines, accelerator).cycles
    heuristic, exhaustive = found.heuristic, found.exhaustive
    return Row(
        model, accelerator.name, plan, objective, found.kept.origin,
        None if heuristic is None else heuristic.value(objective),
        None if exhaustive is None else exhaustive.value(objective),
        found.optimum,
        None if heuristic is None else heuristic.cycles,
        None if exhaustive is None else exhaustive.cycles,
        bound, found.placed_capacity_bits / capacity, used_s,
    )  # fmt: skip


def geometric(values: Iterable[float | None]) -> str:
    """Geometric mean with three digits behind the point, or – of nothing."""
    there = [value for value in values if value is not None]
    return f"{statistics.geometric_mean(there):.3f}" if there else "–"


def over(value: float | None, base: float | None) -> float | None:
    """Quotient of two numbers that may be missing."""
    return None if value is None or base is None else value / base


def to_bound(row: Row, mapper: str) -> float | None:
    """Simulated cycles of a mapper over the design bound."""
    return over(row.heuristic_cycles if mapper == "heuristic" else row.exhaustive_cycles, row.bound_cycles)


def predicted(row: Row) -> float | None:
    """Optimum of the objective over the simulated value of its mapping."""
    return over(row.optimum, row.exhaustive)


def cell(row: Row) -> str:
    """Kept over heuristic; – nothing fits, * only the exhaustive mapper finds a mapping, = the heuristic was kept."""
    if row.kept is None:
        return "–"
    if row.ratio is None:
        return "*"
    return "=" if row.kept == "heuristic" else f"{row.ratio:.2f}"


def ratio_table(rows: Sequence[Row], plan: str, objective: str) -> None:
    """Networks by presets."""
    chosen = [row for row in rows if (row.plan, row.objective) == (plan, objective)]
    name = {"latency": "Latency", "edp": "EDP"}[objective]
    print(f"### {name} of `exhaustive:{objective}` over `heuristic`, plan {plan}\n")
    presets = list(dict.fromkeys(row.preset for row in chosen))
    lines = []
    for model in dict.fromkeys(row.model for row in chosen):
        lines.append([model, *(cell(row) for row in chosen if row.model == model)])
    means = [geometric(row.ratio for row in chosen if row.preset == preset) for preset in presets]
    lines.append(["**geometric mean**", *means])
    table(["network", *presets], lines)


def summary_table(rows: Sequence[Row]) -> None:
    """One line per preset and plan: how much is gained, how far the bound is, how well the objectives predict."""
    print("### Gain, distance from the design bound and from the optimum of the objective: geometric means\n")
    lines = []
    for preset, plan in dict.fromkeys((row.preset, row.plan) for row in rows):
        lines.append([preset, plan, *summary([row for row in rows if (row.preset, row.plan) == (preset, plan)])])
    lines.append(["**all**", "", *summary(rows)])
    head = ["preset", "plan", "networks that fit", "latency over heuristic", "EDP over heuristic",
            "heuristic / bound", "exhaustive / bound", "optimum / simulated, latency", "optimum / simulated, EDP",
            "heuristic kept, latency; EDP", "buffer shrunk", "CPU per search, median", "CPU, most"]  # fmt: skip
    table(head, lines)


def summary(rows: Sequence[Row]) -> list[str]:
    """Cells of one line of the summary."""
    latency, edp = ([row for row in rows if row.objective == name] for name in OBJECTIVES)
    fit = [row for row in latency if row.kept is not None]
    only = sum(row.heuristic is None for row in fit)
    kept = "; ".join(str(sum(row.kept == "heuristic" for row in half)) for half in (latency, edp))
    times = [row.cpu_s for row in rows if row.kept is not None]
    return [
        f"{len(fit)} of {len(latency)}" + (f" ({only} only exhaustive)" if only else ""),
        geometric(row.ratio for row in latency),
        geometric(row.ratio for row in edp),
        geometric(to_bound(row, "heuristic") for row in latency),
        geometric(to_bound(row, "exhaustive") for row in latency),
        geometric(predicted(row) for row in latency),
        geometric(predicted(row) for row in edp),
        kept,
        str(sum(row.fraction_placed < 1 for row in rows)),
        seconds(statistics.median(times)) if times else "–",
        seconds(max(times)) if times else "–",
    ]


def extremes_table(rows: Sequence[Row]) -> None:
    """Smallest and largest of every figure, with its case."""
    print("### Smallest and largest\n")
    latency, edp = ([row for row in rows if row.objective == name and row.kept is not None] for name in OBJECTIVES)
    figures: list[tuple[str, list[Row], Callable[[Row], float | None]]] = [
        ("latency over heuristic", latency, lambda row: row.ratio),
        ("EDP over heuristic", edp, lambda row: row.ratio),
        ("heuristic / bound", latency, lambda row: to_bound(row, "heuristic")),
        ("exhaustive / bound", latency, lambda row: to_bound(row, "exhaustive")),
        ("optimum / simulated, latency", latency, predicted),
        ("optimum / simulated, EDP", edp, predicted),
        ("CPU seconds of a search", latency + edp, lambda row: row.cpu_s),
    ]
    lines = []
    for name, chosen, figure in figures:
        there = [(value, row) for row in chosen if (value := figure(row)) is not None]
        ends = (min(there, key=lambda pair: pair[0]), max(there, key=lambda pair: pair[0]))
        lines.append([name, *(f"{value:.3f}, {row.model} on {row.preset}, {row.plan}" for value, row in ends)])
    table(["figure", "smallest", "largest"], lines)


def cases(quick: bool) -> list[tuple[str, str, str]]:
    """(plan, preset, network)."""
    models = QUICK_MODELS if quick else published_networks()
    presets = QUICK_PRESETS if quick else tuple(preset_names())
    plans = {UNIFORM: presets, **{plan: [p for p in made if p in presets] for plan, made in OTHER_PLANS.items()}}
    return [(plan, preset, model) for plan, made in plans.items() for model in models for preset in made]


def main() -> int:
    arguments = benchmark_parser("The exhaustive mapper beside the heuristic one").parse_args()
    about = print_machine()
    chosen = cases(arguments.quick)
    networks = {
        (model, plan): op_table(build_workload(model), load_plan(plan)) for plan, _, model in dict.fromkeys(chosen)
    }
    # The first search of a process loads the compiled kernels: not part of any figure.
    for objective in OBJECTIVES:
        searched(next(iter(networks.values())), load_accelerator(chosen[0][1]), chosen[0][0], objective)
    rows = [
        searched(networks[model, plan], load_accelerator(preset), plan, objective)
        for plan, preset, model in chosen
        for objective in OBJECTIVES
    ]
    for plan in dict.fromkeys(plan for plan, _, _ in chosen):
        for objective in reversed(OBJECTIVES):
            ratio_table(rows, plan, objective)
    summary_table(rows)
    extremes_table(rows)
    write_numbers(arguments.json, about, rows=[asdict(row) for row in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
