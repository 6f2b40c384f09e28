"""How fast is it: the kernel, a design end to end, the command line.  Prints a table; `--json FILE` keeps the numbers.

    python benchmarks/speed.py [--quick] [--json FILE]

One process and one thread.  Times are the best and the median of the repetitions; a busy machine shows in their gap.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, replace
from functools import partial

# Before numpy is loaded: its libraries read it once.
os.environ["OMP_NUM_THREADS"] = "1"

from timing import Timing, benchmark_parser, measured, print_machine, process_times, repeated, write_numbers

from accelsim.arch import Accelerator, Dram
from accelsim.config import load_accelerator, load_plan
from accelsim.lowering import Lowered
from accelsim.mappers.heuristic import map_and_lower
from accelsim.optable import op_table
from accelsim.result import run_program
from accelsim.workloads import build_workload

KERNEL_CASES = (("efficientvit_b1", "trio_vit", "uniform8"), ("efficientvit_b1", "m2vit", "m2q"),
                ("deit_small", "trio_vit", "uniform8"), ("deit_small", "m2vit", "m2q"),
                ("efficientvit_b1", "m2vit_ddr4_banked", "m2q"),
                ("deit_small", "m2vit_ddr4_banked", "m2q"))  # fmt: skip
KIB_256 = 2_097_152
MEASURE_S = 1.0


def lowered_of(model: str, arch: str, plan: str) -> Lowered:
    accelerator = load_accelerator(arch)
    return map_and_lower(op_table(build_workload(model), load_plan(plan)), accelerator)[2]


def kernel(budget_s: float) -> list[Timing]:
    """The `schedule` kernel alone on compressed phases, one image."""
    timings = []
    for model, arch, plan in KERNEL_CASES:
        lowered = lowered_of(model, arch, plan)
        program = lowered.program
        name = f"kernel, {model} on {arch}, {plan}: {program.n_rows:,} rows from {len(program.templates):,} templates"
        samples = repeated(partial(run_program, lowered), budget_s)
        timings.append(measured(name, samples, program.n_rows, "rows"))
        timings.append(
            replace(timings[-1], name=f"kernel, {model} on {arch}, {plan}: networks", work=1, unit="networks")
        )
    return timings


def variants(base: Accelerator, n: int) -> list[Accelerator]:
    """`n` different designs with 256 KiB buffers: no cache that is keyed by the design can help."""
    designs = []
    for k in range(n):
        first, *others = base.engines
        engine = replace(first, pixel_groups=12 + k % 9)
        design = base.replace(engines=(engine, *others))
        if isinstance(base.dram, Dram):
            dram = replace(base.dram, bandwidth_bits_per_s=100_000_000_000 + 64_000_000 * k)
            designs.append(design.replace(dram=dram))
        else:
            designs.append(design.replace(clock_hz=base.clock_hz + 100_000 * k))
    return designs


def designs_end_to_end(arch: str, plan_name: str, n: int) -> Timing:
    """Every design mapped, lowered, simulated and priced under both conventions, reports not written."""
    from accelsim.api import simulate

    base, plan = load_accelerator(arch), load_plan(plan_name)
    assert base.activation_buffer.capacity_bits == base.weight_buffer.capacity_bits == KIB_256
    table = op_table(build_workload("efficientvit_b1"), plan)
    designs = variants(base, n + 1)
    assert len({design.fingerprint() for design in designs}) == n + 1
    simulate(table, designs.pop())
    samples, cycles = [], set()
    for design in designs:
        start = time.perf_counter()
        report = simulate(table, design)
        samples.append(time.perf_counter() - start)
        cycles.add(report.result.cycles_total)
    assert len(cycles) > n // 2, "the designs do not differ"
    # Total time over all designs: unlike the best, it holds every pause.
    mean = statistics.fmean(samples)
    name = f"design end to end, efficientvit_b1 on {arch}, {plan_name} (best column: mean)"
    return Timing(name, mean, statistics.median(samples), n, 1, "designs")


def command_line(repetitions: int, quick: bool) -> list[Timing]:
    """Start-up of Python, imports, a run with compiled kernels, and the first run of all."""
    run = [sys.executable, "-m", "codesign.cli", "run", "efficientvit_b1"]
    process_times(run, 1)
    timings = [
        measured("`python -c pass`", process_times([sys.executable, "-c", "pass"], repetitions)),
        measured("`import accelsim`", process_times([sys.executable, "-c", "import accelsim"], repetitions)),
        measured("`import accelsim.api`", process_times([sys.executable, "-c", "import accelsim.api"], repetitions)),
        measured("`accelsim run efficientvit_b1`, new process", process_times(run, repetitions)),
    ]
    if not quick:
        with tempfile.TemporaryDirectory() as folder:
            first = process_times(run, 1, NUMBA_CACHE_DIR=folder)
        timings.append(measured("the same, first run (kernels are compiled)", first))
    return timings


def main() -> int:
    arguments = benchmark_parser("Speed of the simulator").parse_args()
    about = print_machine()
    print("| what | best | median | repetitions | rate of the best |")
    print("|---|---|---|---|---|")
    timings: list[Timing] = []
    n = 20 if arguments.quick else 300

    def show(rows: list[Timing]) -> None:
        timings.extend(rows)
        for row in rows:
            print(row.line(), flush=True)

    show(kernel(MEASURE_S / 10 if arguments.quick else MEASURE_S))
    cases = (("trio_vit", "uniform8"), ("m2vit", "m2q"), ("m2vit_ddr4_banked", "m2q"))
    show([designs_end_to_end(arch, plan, n) for arch, plan in cases])
    show(command_line(2 if arguments.quick else 5, arguments.quick))
    write_numbers(arguments.json, about, timings=[asdict(row) for row in timings])
    return 0


if __name__ == "__main__":
    sys.exit(main())
