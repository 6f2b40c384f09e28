"""How fast is it: the kernel, a design end to end, the command line.  Prints a table; `--json FILE` keeps the numbers.

    python benchmarks/speed.py [--quick] [--json FILE]

One process and one thread.  Times are the best and the median of the repetitions; a busy machine shows in their gap.
The second table has designs per CPU second by model and mapper.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

# Before numpy is loaded: its libraries read it once.
os.environ["OMP_NUM_THREADS"] = "1"

from mapped import evaluated
from timing import Timing, benchmark_parser, measured, print_machine, process_times, repeated, table, write_numbers

from accelsim.api import simulate
from accelsim.arch import Accelerator, Buffer, Dram
from accelsim.config import load_accelerator, load_plan
from accelsim.lowering import Lowered
from accelsim.mappers.choice import MAPPER_NAMES, Mapper, mapper_of
from accelsim.mappers.heuristic import map_and_lower
from accelsim.mappers.memo import Memo
from accelsim.optable import OpTable, op_table
from accelsim.result import run_program
from accelsim.workloads import build_workload

KERNEL_CASES = (("efficientvit_b1", "trio_vit", "uniform8"), ("efficientvit_b1", "m2vit", "m2q"),
                ("deit_small", "trio_vit", "uniform8"), ("deit_small", "m2vit", "m2q"),
                ("efficientvit_b1", "m2vit_ddr4_banked", "m2q"),
                ("deit_small", "m2vit_ddr4_banked", "m2q"))  # fmt: skip
MAPPED_CASES = (("efficientvit_b1", "trio_vit", "uniform8"), ("efficientvit_b1", "m2vit", "m2q"),
                ("deit_small", "trio_vit", "uniform8"), ("deit_small", "m2vit", "m2q"))  # fmt: skip
MAPPERS = tuple(name for name in MAPPER_NAMES if not name.endswith(":energy"))
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
    base, plan = load_accelerator(arch), load_plan(plan_name)
    assert base.activation_buffer.capacity_bits == base.weight_buffer.capacity_bits == KIB_256
    network = op_table(build_workload("efficientvit_b1"), plan)
    designs = variants(base, n + 1)
    assert len({design.fingerprint() for design in designs}) == n + 1
    simulate(network, designs.pop()).metrics()
    samples, cycles = [], set()
    for design in designs:
        start = time.process_time()
        report = simulate(network, design)
        report.metrics()
        samples.append(time.process_time() - start)
        cycles.add(report.result.cycles_total)
    assert len(cycles) > n // 2, "the designs do not differ"
    # A sweep pays the mean, not the best.
    mean = statistics.fmean(samples)
    name = f"design end to end, efficientvit_b1 on {arch}, {plan_name} (CPU time; best column: mean)"
    return Timing(name, mean, statistics.median(samples), n, 1, "designs")


def bandwidths(base: Accelerator, n: int) -> list[Accelerator]:
    """Designs that differ in the bandwidth of the DRAM."""
    assert isinstance(base.dram, Dram)
    return [base.replace(dram=replace(base.dram, bandwidth_bits_per_s=(100 + 3 * k) * 10**9)) for k in range(n)]


def buffers(base: Accelerator, n: int) -> list[Accelerator]:
    """Designs that differ in both buffers (256 to 384 KiB) and in bandwidth."""
    step = KIB_256 // 2 // n
    return [
        design.replace(activation_buffer=Buffer(KIB_256 + step * k), weight_buffer=Buffer(KIB_256 + step * (n - k)))
        for k, design in enumerate(bandwidths(base, n))
    ]


def engine_sizes(base: Accelerator, n: int) -> list[Accelerator]:
    """Designs that differ in pixel groups and lanes of the first engine."""
    first, *others = base.engines
    return [
        base.replace(engines=(replace(first, pixel_groups=10 + k // 4, lanes=6 + k % 4), *others)) for k in range(n)
    ]


SWEEPS: dict[str, Callable[[Accelerator, int], list[Accelerator]]] = {
    "bandwidth": bandwidths, "buffers and bandwidth": buffers, "lanes and pixel groups": engine_sizes,
}  # fmt: skip


def cpu_times(network: OpTable, designs: Sequence[Accelerator], mapper: Mapper, memo: Memo | None) -> list[float]:
    """CPU seconds of every design: mapped, lowered, simulated, priced under both conventions."""
    samples = []
    for design in designs:
        start = time.process_time()
        evaluated(network, design, mapper, memo).metrics()
        samples.append(time.process_time() - start)
    return samples


def mapped_case(case: tuple[str, str, str], name: str, n: int) -> list[dict[str, Any]]:
    """CPU seconds of one design in sweeps of `n` designs, with a fresh memo for each or one memo for all.

    With one memo the first design, which fills it, is not counted.  `again`: the sweep a second time.
    """
    model, arch, plan = case
    base, network, mapper = load_accelerator(arch), op_table(build_workload(model), load_plan(plan)), mapper_of(name)
    found: list[dict[str, Any]] = []

    def add(sweep: str, state: str, samples: list[float], memo: Memo | None) -> None:
        reused = memo.hits / (memo.hits + memo.misses) if memo is not None and memo.hits + memo.misses else None
        found.append({"model": model, "arch": arch, "plan": plan, "mapper": name, "sweep": sweep, "memo": state,
                      "designs": len(samples), "cpu_s": statistics.fmean(samples), "reused": reused})  # fmt: skip

    evaluated(network, base, mapper).metrics()
    for sweep, make in SWEEPS.items():
        designs = make(base, n + 1)
        assert len({design.fingerprint() for design in designs}) == n + 1
        add(sweep, "fresh", cpu_times(network, designs[1:], mapper, None), None)
        if not mapper.exhaustive:
            continue
        memo = Memo()
        evaluated(network, designs[0], mapper, memo)
        memo.hits = memo.misses = 0
        add(sweep, "shared", cpu_times(network, designs[1:], mapper, memo), memo)
        memo.hits = memo.misses = 0
        add(sweep, "again", cpu_times(network, designs[1:], mapper, memo), memo)
    return found


def mapper_table(found: Sequence[dict[str, Any]]) -> None:
    """Designs per CPU second: a line per case and mapper, a column per sweep and state of the memo."""
    columns = [(sweep, state) for sweep in SWEEPS for state in ("fresh", "shared", "again")]
    lines = []
    for case in dict.fromkeys((row["model"], row["arch"], row["plan"], row["mapper"]) for row in found):
        rates = {(row["sweep"], row["memo"]): 1 / row["cpu_s"] for row in found
                 if (row["model"], row["arch"], row["plan"], row["mapper"]) == case}  # fmt: skip
        cells = (f"{rates[column]:,.3g}" if column in rates else "" for column in columns)
        lines.append([f"{case[0]} on {case[1]}, {case[2]}", f"`{case[3]}`", *cells])
    table(["network and base", "mapper", *(f"{sweep}: {state}" for sweep, state in columns)], lines)


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
    search = [*run, "--mapper", "exhaustive:edp"]
    process_times(search, 1)
    name = "`accelsim run efficientvit_b1 --mapper exhaustive:edp`, new process"
    timings.append(measured(name, process_times(search, repetitions)))
    if not quick:
        with tempfile.TemporaryDirectory() as folder:
            first = process_times(run, 1, NUMBA_CACHE_DIR=folder)
            more = process_times(search, 1, NUMBA_CACHE_DIR=folder)
        timings.append(measured("`accelsim run efficientvit_b1`, first run (kernels are compiled)", first))
        timings.append(measured("… then with `--mapper exhaustive:edp`, first run (its kernels are compiled)", more))
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
    print("\n### Designs per CPU second, mapped, lowered, simulated and priced\n")
    mapped = [
        row
        for case in (MAPPED_CASES[:1] if arguments.quick else MAPPED_CASES)
        for name in MAPPERS
        for row in mapped_case(case, name, 2 if arguments.quick else 5)
    ]
    mapper_table(mapped)
    write_numbers(arguments.json, about, timings=[asdict(row) for row in timings], mapped=mapped)
    return 0


if __name__ == "__main__":
    sys.exit(main())
