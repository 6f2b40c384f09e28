"""The closing figures: the baseline beside its authors' cycle count, and what the mixed scheme saves in EDP.

    python benchmarks/figures.py

Prints Markdown tables; docs/performance.md holds the output and says how to read it.  Everything is computed, except
two numbers from outside: 80 % is the average EDP saving of the abstract of M²-ViT (arXiv 2410.09113), 66 % the most
that shift-add arithmetic alone can give at equal area (1 − 1 / (1.69 · 1.74), the energy and area ratios of an 8-bit
multiply-accumulate to a two-term one from 45 nm unit costs).
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Iterable, Mapping
from functools import cache

# Before numpy is loaded: its libraries read it once.
os.environ["OMP_NUM_THREADS"] = "1"

from accelsim.analysis.trio_vit_model import ALL, NONE, PIXEL_GROUPS, authors_cycles
from accelsim.api import Report, evaluate, simulate
from accelsim.arch import EngineKind
from accelsim.area import accelerator_area, engine_area_mm2
from accelsim.config import load_accelerator, load_plan
from accelsim.counts import ENGINE_COUNTS, MAX_MODES, count_columns
from accelsim.optable import op_table

BASELINE = ("trio_vit", "uniform8")
DESIGNS = ("m2vit", "m2vit_iso_area")
NETWORKS = (
    ("efficientvit_b1", 224), ("efficientvit_b1", 256), ("efficientvit_b1", 288), ("efficientvit_b2", 224),
)  # fmt: skip
ARITHMETIC_BOUND = 1 - 1 / (1.69 * 1.74)
PUBLISHED = 0.80
# No wait of DRAM can be left: one image crosses such a bus in a few cycles.
ENDLESS_BITS_PER_S = 10**15


@cache
def report_of(arch: str, plan: str, model: str, resolution: int) -> Report:
    return evaluate(model, resolution, load_accelerator(arch), load_plan(plan))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a Markdown table."""
    names = list(head)
    print("| " + " | ".join(names) + " |")
    print("|" + "---|" * len(names))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def head_cycles(report: Report) -> float:
    """Cycles in which the oldest unfinished op belongs to the head, which the authors leave out."""
    return float(sum(row["cycles"] for row in report.op_rows() if row["name"].startswith("head.")))


def slot_cycles(report: Report) -> float:
    """Cycles if every slot worked all the time: work of all products over the number of slots."""
    columns, accelerator = count_columns(report.accelerator), report.accelerator
    totals = dict(zip(columns, report.result.counts.sum(axis=0).tolist(), strict=True))
    work: float = 0.0
    for engine in accelerator.engines:
        for mode in range(MAX_MODES):
            macs = totals[f"{engine.name}.{ENGINE_COUNTS[mode]}"]
            if engine.kind is EngineKind.MAC_ARRAY and mode < len(engine.modes):
                work += macs / engine.modes[mode].products
            elif engine.kind is EngineKind.SHIFT_ARRAY:
                work += macs * -(-(mode + 1) // engine.terms)
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
        endless = accelerator.replace(
            dram=type(accelerator.dram)(ENDLESS_BITS_PER_S, accelerator.dram.burst_bits, 0.0, accelerator.dram.type)
        )
        fast = simulate(op_table(workload.workload, workload.plan), endless)
        head = head_cycles(report)
        causes = {"waiting for DRAM data": ("bus",), "waiting for another unit": ("input", "dependency"),
                  "waiting for buffer space": ("region",)}  # fmt: skip
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


def areas() -> None:
    """Slots and silicon of the three designs."""
    print("### The designs\n")
    rows = []
    for arch in (BASELINE[0], *DESIGNS):
        accelerator = load_accelerator(arch)
        engines = [sum(engine_area_mm2(engine, accelerator.node_nm).values()) for engine in accelerator.engines]
        slots = " + ".join(f"{engine.slots}" for engine in accelerator.engines)
        rows.append([arch, slots, f"{sum(engines):.4f}", f"{accelerator_area(accelerator).total_mm2:.4f}"])
    table(["design", "slots", "engines mm²", "total mm²"], rows)


def savings() -> None:
    """Figure (b): EDP of the mixed scheme on the heterogeneous designs against the uniform baseline."""
    print(f"### EDP saved by m2q against {BASELINE[1]} on {BASELINE[0]}\n")
    rows: list[list[str]] = []
    every: dict[str, tuple[list[float], list[float]]] = {arch: ([], []) for arch in DESIGNS}
    for model, resolution in NETWORKS:
        base = report_of(*BASELINE, model, resolution).to_json(ops=False)
        for arch in DESIGNS:
            new = report_of(arch, "m2q", model, resolution).to_json(ops=False)
            row = [f"{model} {resolution}", arch, f"{base['cycles_total']:,}", f"{new['cycles_total']:,}"]
            found = []
            for k, suffix in enumerate(("", "_synthesized")):
                saving = 1 - new[f"edp_pj_s{suffix}"] / base[f"edp_pj_s{suffix}"]
                found.append(saving)
                every[arch][k].append(saving)
                row.append(f"{1 - new[f'energy_pj{suffix}'] / base[f'energy_pj{suffix}']:+.1%}")
                row.append(f"{base[f'edp_pj_s{suffix}'] / 1e3:,.0f} → {new[f'edp_pj_s{suffix}'] / 1e3:,.0f}")
                row.append(f"{saving:+.1%}")
            rows.append([*row, "yes" if (found[0] > 0) != (found[1] > 0) else "no"])
    names = [f"{what}, {convention}" for convention in ("arithmetic", "synthesized")
             for what in ("energy saved", "EDP nJ·s", "EDP saved")]  # fmt: skip
    table(["network", "design", "cycles uniform8", "cycles m2q", *names, "winner flips"], rows)
    means = [[arch, *(f"{statistics.fmean(values):+.1%}" for values in every[arch])] for arch in DESIGNS]
    means += [
        ["bound of the arithmetic alone, equal area, no memory", f"{ARITHMETIC_BOUND:.0%}", ""],
        ["published by M²-ViT (abstract)", f"{PUBLISHED:.0%}", ""],
    ]
    table(["mean EDP saved", "arithmetic", "synthesized"], means)


def steps() -> None:
    """What each part of the idea contributes on the way from the baseline to the heterogeneous design."""
    print("### Step by step, EDP against the baseline (arithmetic / synthesized), and cycles\n")
    cases = (("trio_vit", "w4a8"), ("m2vit", "uniform8"), ("m2vit", "w4a8"), ("m2vit", "m2q:0.0"), ("m2vit", "m2q:0.5"),
             ("m2vit", "m2q"), ("m2vit_iso_area", "m2q:0.5"), ("m2vit_iso_area", "m2q"))  # fmt: skip
    rows = []
    for arch, plan in cases:
        cells = [arch, plan]
        for model, resolution in NETWORKS:
            base = report_of(*BASELINE, model, resolution).to_json(ops=False)
            new = report_of(arch, plan, model, resolution).to_json(ops=False)
            ratios = [new[key] / base[key] - 1 for key in ("edp_pj_s", "edp_pj_s_synthesized")]
            cells.append(f"{ratios[0]:+.0%} / {ratios[1]:+.0%}, {new['cycles_total'] / base['cycles_total'] - 1:+.0%}")
        rows.append(cells)
    table(["design", "plan", *(f"{model.removeprefix('efficientvit_')} {size}" for model, size in NETWORKS)], rows)


def main() -> int:
    beside_the_authors()
    areas()
    savings()
    steps()
    return 0


if __name__ == "__main__":
    sys.exit(main())
