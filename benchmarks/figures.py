"""The closing figures: the baseline beside its authors' cycle count, and every built-in network on every preset.

    python benchmarks/figures.py

Prints Markdown tables; docs/performance.md holds the output and says how to read it.  What the mixed scheme saves in
EDP is a command of its own, `accelsim ablation` (docs/ablation.md).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from functools import cache
from typing import TypeVar

# Before numpy is loaded: its libraries read it once.
os.environ["OMP_NUM_THREADS"] = "1"

from timing import published_networks, table

from accelsim.analysis.trio_vit_model import ALL, NONE, PIXEL_GROUPS, authors_cycles
from accelsim.api import Report, evaluate, simulate
from accelsim.arch import Accelerator, Dram
from accelsim.config import load_accelerator, load_plan, preset_names
from accelsim.counts import ENGINE_COUNTS, count_columns
from accelsim.engines.registry import rules_of
from accelsim.optable import OpTable, op_table
from accelsim.problems import InfeasibleError
from accelsim.workloads.registry import build_workload

BASELINE = ("trio_vit", "uniform8")
TIMED_RUNS = 3
Key = TypeVar("Key")
# No wait of DRAM can be left: one image crosses such a bus in a few cycles.
ENDLESS_BITS_PER_S = 10**15


@cache
def report_of(arch: str, plan: str, model: str, resolution: int) -> Report:
    return evaluate(model, resolution, load_accelerator(arch), load_plan(plan))


def head_cycles(report: Report) -> float:
    """Cycles in which the oldest unfinished op belongs to the head, which the authors leave out."""
    return float(sum(row["cycles"] for row in report.op_rows() if row["name"].startswith("head.")))


def slot_cycles(report: Report) -> float:
    """Cycles if every slot worked all the time: work of all products over the number of slots."""
    columns, accelerator = count_columns(report.accelerator), report.accelerator
    totals = dict(zip(columns, report.result.counts.sum(axis=0).tolist(), strict=True))
    work: float = 0.0
    for engine in accelerator.engines:
        rules = rules_of(engine)
        for mode in range(rules.columns(engine)):
            rate = rules.rate(engine, mode)
            macs = totals[f"{engine.name}.{ENGINE_COUNTS[mode]}"]
            work += macs * rate.passes / (rate.products * rate.inputs)
    return float(work / sum(engine.slots for engine in accelerator.engines))


def idle_share(report: Report, causes: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
    """Mean over the engines, in cycles: busy, waiting by group of causes, and drained."""
    result, n = report.result, len(report.accelerator.engines)
    ticks = result.program.ticks_per_cycle * n
    shares = {"busy": int(result.unit_busy_ticks[:n].sum()) / ticks}
    for name, group in causes.items():
        shares[name] = sum(result.waits(unit)[cause] for unit in range(n) for cause in group) / n
    shares["drained"] = int(result.unit_drained_ticks[:n].sum()) / ticks
    return shares


def beside_the_authors() -> None:
    """Figure (a): the authors count compute cycles of one pixel group; 16 groups work on different pixels."""
    print(f"### The baseline beside its authors' count: {BASELINE[0]}, {BASELINE[1]}, cycles\n")
    columns = [("efficientvit_b1", 224), ("efficientvit_b2", 224)]
    rows: dict[str, list[str]] = {}

    def add(name: str, value: float) -> None:
        rows.setdefault(name, []).append(f"{value:,.0f}")

    for model, resolution in columns:
        report = report_of(*BASELINE, model, resolution)
        accelerator, workload = report.accelerator, report.table.quantized
        dram = accelerator.dram
        endless = accelerator.replace(dram=Dram(ENDLESS_BITS_PER_S, dram.burst_bits, 0.0, dram.type))
        fast = simulate(op_table(workload.workload, workload.plan), endless)
        head = head_cycles(report)
        causes = {"waiting for DRAM data": ("bus",), "waiting for another unit": ("input", "dependency"),
                  "waiting for buffer space": ("region",), "waiting for the output stage": ("output",)}  # fmt: skip
        shares = idle_share(report, causes)
        add("authors' count / 16 (no head, no DRAM)", authors_cycles(model, resolution, ALL).cycles / PIXEL_GROUPS)
        add("their model, every quirk corrected / 16 (with head)",
            authors_cycles(model, resolution, NONE).cycles / PIXEL_GROUPS)  # fmt: skip
        add("**simulated**", report.result.cycles_total)
        add("of it while the head is the oldest op", head)
        add("simulated without those", report.result.cycles_total - head)
        add("simulated with endless DRAM bandwidth (mapped anew)", fast.result.cycles_total)
        add("simulated, mean of both engines: every slot at work", slot_cycles(report))
        add("… busy with slots empty (tile and array rounding)", shares["busy"] - slot_cycles(report))
        for name, value in shares.items():
            if name != "busy":
                add(f"… {name}", value)
    table(["", *(f"{model} {resolution}" for model, resolution in columns)], ([n, *v] for n, v in rows.items()))


def outcome(network: OpTable, accelerator: Accelerator) -> tuple[int, float] | None:
    """Cycles of a network and the best wall time of mapping, lowering and simulating it; None when infeasible."""
    try:
        report, times = simulate(network, accelerator), []
        for _ in range(TIMED_RUNS):
            start = time.perf_counter()
            simulate(network, accelerator)
            times.append(time.perf_counter() - start)
    except InfeasibleError:
        return None
    return report.result.cycles_total, min(times)


def every_network() -> None:
    """Figure (b): all built-in networks on all presets, and the fastest and the slowest."""
    plan, presets = load_plan("uniform8"), [load_accelerator(name) for name in preset_names()]
    tables = {name: op_table(build_workload(name), plan) for name in published_networks()}
    found = {(name, preset.name): outcome(tables[name], preset) for name in tables for preset in presets}
    runs = {pair: cell for pair, cell in found.items() if cell is not None}
    clocks = {preset.name: preset.clock_hz for preset in presets}
    print("### Every built-in network on every preset, plan uniform8: latency in ms (–: does not fit)\n")
    rows = []
    for name in tables:
        ran = ((found[name, preset], clock) for preset, clock in clocks.items())
        rows.append([name, *("–" if cell is None else f"{cell[0] / clock * 1e3:,.3g}" for cell, clock in ran)])
    table(["network", *clocks], rows)
    print("### The fastest and the slowest network of every preset\n")
    rows = []
    for preset in clocks:
        own = {name: cell for (name, where), cell in runs.items() if where == preset}
        cells = [f"{name}, {own[name][0]:,}" for name in extremes(own, 0)]
        cells += [f"{name}, {own[name][1] * 1e3:.1f} ms" for name in extremes(own, 1)]
        rows.append([preset, f"{len(own)} of {len(tables)}", *cells])
    head = ["preset", "networks that fit", "fewest cycles", "most cycles", "fastest to simulate", "slowest to simulate"]
    table(head, rows)
    few, many = extremes(runs, 0)
    print(
        f"Fewest cycles of all: {' on '.join(few)}, {runs[few][0]:,}; most: {' on '.join(many)}, {runs[many][0]:,}.\n"
    )


def extremes(runs: Mapping[Key, tuple[int, float]], column: int) -> tuple[Key, Key]:
    """Keys of the smallest and the largest value of a column."""
    order = sorted(runs, key=lambda key: runs[key][column])
    return order[0], order[-1]


def main() -> int:
    beside_the_authors()
    every_network()
    return 0


if __name__ == "__main__":
    sys.exit(main())
