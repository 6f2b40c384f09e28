"""How time grows: with tiles, with layers, with the designs of a sweep, with workers.  Slopes are fitted, not asserted.

    python benchmarks/scaling.py [--quick] [--json FILE] [--only tiles layers designs workers]

A slope is the exponent b of time = a·x^b, fitted on logarithms: 1 is proportional, 0 does not depend on x.  It is
fitted over all points of a curve, and over its upper half, where fixed costs weigh less.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

# Before numpy is loaded: its libraries read it once.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from gemms import Gemm, one_gemm, one_tile
from timing import benchmark_parser, children_cpu_s, print_machine, repeated, seconds, slope, table, write_numbers

from accelsim.api import Report, simulate
from accelsim.arch import Accelerator, Buffer
from accelsim.config import load_accelerator, load_plan
from accelsim.lowering import lower
from accelsim.mappers.heuristic import choose_mapping, fused_chains, map_and_lower
from accelsim.optable import OpTable, engine_table, op_table
from accelsim.plan import QuantPlan
from accelsim.result import run_program
from accelsim.workloads.vit import VARIANTS, Variant, build_variant
from codesign.runner import run_sweep
from codesign.space import Space, load_space

SPACE = Path(__file__).parents[1] / "examples" / "search_b1.yaml"
# One op of 65,536 positions; every tile count is a power of two.
POSITIONS = 1 << 16
# Any tile of that op fits twice.
ROOM = Buffer(2**30)
BUDGET_S = 0.3
STEPS = ("network", "map", "lower", "simulate", "price")


@dataclass(frozen=True)
class Point:
    """One point of a curve: x, sizes at it, and seconds by what was timed."""

    x: int
    sizes: dict[str, int]
    times_s: dict[str, float]


def best_s(action: Callable[[], object], budget_s: float) -> float:
    """Best time of single calls: other work on the machine only adds."""
    return min(repeated(action, budget_s))


def tiles(counts: Sequence[int], budget_s: float) -> list[Point]:
    """One op cut into more and more tiles: rows, templates, and the time to lower and to simulate it."""
    gemm = Gemm(POSITIONS, 64, 64)
    preset = load_accelerator("systolic_ws")
    design = preset.replace(activation_buffer=ROOM, weight_buffer=ROOM)
    network = op_table(one_gemm(gemm), load_plan("uniform8"))
    (chain,) = one_tile(gemm).chains
    points = []
    for count in counts:
        mapping = replace(one_tile(gemm), chains=(replace(chain, tile=POSITIONS // count),))
        report = simulate(network, design, mapping)
        program = report.lowered.program
        times = {
            "lower": best_s(partial(lower, network, report.engines, design, report.arrays), budget_s),
            "kernel": best_s(partial(run_program, report.lowered), budget_s),
        }
        points.append(Point(count, {"rows": program.n_rows, "templates": len(program.templates)}, times))
    return points


def layers(depths: Sequence[int], budget_s: float) -> list[Point]:
    """DeiT-S with other numbers of blocks: every step from the model's name to its price."""
    plan, design = load_plan("uniform8"), load_accelerator("trio_vit")
    points = []
    for depth in depths:
        variant = replace(VARIANTS["deit_small"], depth=depth)
        build = partial(new_table, f"deit_{depth}", variant, plan)
        network = build()
        arrays, engines, lowered = map_and_lower(network, design)
        report = simulate(network, design)
        times = {
            "network": best_s(build, budget_s),
            "map": best_s(partial(mapped, network, design), budget_s),
            "lower": best_s(partial(lower, network, engines, design, arrays), budget_s),
            "simulate": best_s(partial(run_program, lowered), budget_s),
            "price": best_s(partial(price, report), budget_s),
        }
        sizes = {"ops": len(network.op_names), "rows": lowered.program.n_rows, "cycles": report.result.cycles_total}
        points.append(Point(depth, sizes, times))
    return points


def new_table(name: str, variant: Variant, plan: QuantPlan) -> OpTable:
    """A network from its sizes to the arrays that the mapper reads."""
    return op_table(build_variant(name, variant, 224), plan)


def mapped(network: OpTable, design: Accelerator) -> object:
    """The heuristic mapper alone.  Raises InfeasibleError where it would try again, which the cases here do not."""
    engines, chains = engine_table(design, network), fused_chains(network, design)
    return choose_mapping(network, engines, design, chains, np.zeros(len(network.tensor_names), np.int64))


def price(report: Report) -> object:
    """Energy and area under both conventions; a copy of the report, because each keeps its prices."""
    return replace(report).metrics()


def sweep_times(space: Space, samples: int, workers: int, repetitions: int) -> dict[str, float]:
    """Medians of sweeps of `samples` random designs into new studies, start and end of their processes included.

    `sweep` is wall time, `CPU` user and system time of all processes: other work on the machine stretches it less.
    """
    found = []
    for _ in range(repetitions):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter(), time.process_time() + children_cpu_s()
            summary = run_sweep(replace(space, samples=samples), Path(folder) / "s.sqlite", workers, progress=False)
            stop = time.perf_counter(), time.process_time() + children_cpu_s()
        assert summary.evaluated == samples, summary
        found.append([after - before for before, after in zip(start, stop, strict=True)])
    wall_s, cpu_s = (statistics.median(times) for times in zip(*found, strict=True))
    return {"sweep": wall_s, "CPU": cpu_s}


def designs(counts: Sequence[int], repetitions: int) -> list[Point]:
    """Sweeps of more and more designs in this process, mapped, lowered, simulated, priced and stored."""
    space = load_space(SPACE)
    sweep_times(space, 1, 1, 1)
    return [Point(count, {}, sweep_times(space, count, 1, repetitions)) for count in counts]


def workers(counts: Sequence[int], samples: int, repetitions: int) -> list[Point]:
    """The same sweep on more and more processes, beside one with a design each: start and end of the processes."""
    space, points = load_space(SPACE), []
    sweep_times(space, 1, 1, 1)
    for count in counts:
        times = sweep_times(space, samples, count, repetitions)
        start_s = sweep_times(space, count, count, repetitions)["sweep"]
        points.append(Point(count, {"designs": samples}, {**times, "start and end": start_s}))
    return points


def print_curve(title: str, x: str, points: list[Point], rate: tuple[str, str, str]) -> dict[str, dict[str, float]]:
    """A table of a curve with its slopes; `rate` names a size (or x), what it is divided by, and the unit."""
    size, by, unit = rate
    print(f"### {title}\n")
    names = list(points[0].times_s)
    lines = []
    for point in points:
        amount = point.sizes.get(size, point.x)
        times = [seconds(point.times_s[name]) for name in names]
        lines.append([f"{point.x:,}", *(f"{value:,}" for value in point.sizes.values()), *times,
                      f"{amount / point.times_s[by]:,.0f} {unit}"])  # fmt: skip
    slopes = {}
    for label, part in (("slope, all", points), ("slope, upper half", points[len(points) // 2 :])):
        if len(part) > 1:
            at = [point.x for point in part]
            slopes[label] = {name: slope(at, [point.times_s[name] for point in part]) for name in names}
            gaps = [""] * len(points[0].sizes)
            lines.append([label, *gaps, *(f"{slopes[label][name]:.2f}" for name in names), ""])
    table([x, *points[0].sizes, *names, "rate"], lines)
    return slopes


CURVES: dict[str, tuple[str, str, tuple[str, str, str]]] = {
    "tiles": (f"Tiles: one op of {POSITIONS:,} x 64 by 64 x 64 on systolic_ws", "tiles", ("rows", "kernel", "rows/s")),
    "layers": ("Layers: DeiT-S of other depths on trio_vit, uniform8", "blocks", ("rows", "simulate", "rows/s")),
    "designs": (
        "Designs: one sweep of EfficientViT-B1, one process, stored",
        "designs",
        ("designs", "CPU", "designs/CPU s"),
    ),
    "workers": ("Workers: the same sweep on several processes", "processes", ("designs", "sweep", "designs/s")),
}


def curves(quick: bool) -> dict[str, Callable[[], list[Point]]]:
    """What measures every curve, at full size or at a glance."""
    if quick:
        return {
            "tiles": partial(tiles, [1 << k for k in range(0, 17, 4)], 0.0),
            "layers": partial(layers, (1, 4, 12), 0.0),
            "designs": partial(designs, (10, 100), 1),
            "workers": partial(workers, (1, 2), 100, 1),
        }
    return {
        "tiles": partial(tiles, [1 << k for k in range(17)], BUDGET_S),
        "layers": partial(layers, (1, 2, 3, 6, 12, 24, 48), BUDGET_S),
        "designs": partial(designs, (10, 100, 1_000, 10_000), 3),
        "workers": partial(workers, (1, 2, 4), 4_000, 3),
    }


def main() -> int:
    parser = benchmark_parser("How time grows with tiles, layers, designs and workers")
    parser.add_argument("--only", nargs="+", choices=list(CURVES), default=list(CURVES), help="these curves only")
    arguments = parser.parse_args()
    about, found = print_machine(), {}
    for name, measure in curves(arguments.quick).items():
        if name in arguments.only:
            points = measure()
            slopes = print_curve(*CURVES[name][:2], points, CURVES[name][2])
            found[name] = {"points": [asdict(point) for point in points], "slopes": slopes}
    write_numbers(arguments.json, about, curves=found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
