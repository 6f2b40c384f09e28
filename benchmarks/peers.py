"""Our cycles and CPU seconds beside other simulators' on one GEMM and on DeiT-S, with 1,024 multipliers.

    python benchmarks/peers.py [--quick] [--json FILE] [--mapper NAME]

Every row says what its cycles hold; docs/benchmarks.md says how to read the tables.  The peers' numbers are data
(benchmarks/data/peers.csv), taken on another machine.  CPU seconds are user and system time: of a whole new process
with compiled kernels, and of one evaluation inside a running one, from the sizes of the layers to the cycles.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

# Before numpy is loaded: its libraries read it once.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from gemms import GEMM, Gemm, deit_small_gemms, gemm_network, one_gemm, one_tile
from mapped import evaluated
from timing import (
    benchmark_parser,
    children_cpu_s,
    print_machine,
    process_times,
    repeated,
    seconds,
    table,
    write_numbers,
)

from accelsim.api import Report, simulate
from accelsim.arch import Accelerator, Buffer, Dram, Engine, EngineKind, OutputStage
from accelsim.config import load_accelerator, load_plan
from accelsim.ir import Workload
from accelsim.kernels.chain_table import R_BLOCKS, R_OPS
from accelsim.mappers.chain_ways import Search, prepare, ways_of
from accelsim.mappers.choice import mapper_of
from accelsim.mappers.memo import Memo
from accelsim.mapping import Mapping
from accelsim.optable import OpTable, engine_table, op_table
from accelsim.validation.scalesim import results
from accelsim.validation.scalesim_files import Layer
from accelsim.workloads import build_workload

PEERS = Path(__file__).parent / "data" / "peers.csv"
SLOTS = 1024
DATAFLOWS = ("ws", "os", "is")
# Lanes (output channels) x inputs of the adder tree x positions.
TREES = ((32, 32, 1), (8, 16, 8))
# Room for every operand of the largest GEMM at once, and a bus that any of them crosses in a few cycles.
ENDLESS_BUFFER = Buffer(2**30)
ENDLESS_DRAM = Dram(10**15, 512, 0.0)
WORKLOADS = ("gemm", "gemms", "gemm_network", "deit_small")

CALL_BUDGET_S = 0.5
PROCESSES = 3

# Maps (unless a mapping is given), lowers and simulates: `accelsim.api.simulate` with a mapper chosen.
Run = Callable[..., Report]


def exhaustively(layers: OpTable, accelerator: Accelerator, mapping: Mapping | None = None) -> Report:
    """The exhaustive mapper, for latency, with a fresh memo: as in the peers, no layer knows of the one before."""
    if mapping is not None:
        return simulate(layers, accelerator, mapping)
    return evaluated(layers, accelerator, mapper_of("exhaustive:latency"))


MAPPERS: dict[str, Run] = {"heuristic": simulate, "exhaustive": exhaustively}


@dataclass(frozen=True)
class System:
    """An accelerator and what its cycles hold.

    `as_scalesim`: every GEMM is one tile and only the array's cycles count, as SCALE-Sim does; there are no such
    numbers for networks with other ops.
    """

    name: str
    accelerator: Accelerator
    contains: str
    as_scalesim: bool = False

    def workloads(self) -> tuple[str, ...]:
        """The workloads for which this system has a number."""
        return WORKLOADS[:2] if self.as_scalesim else WORKLOADS


def endless(accelerator: Accelerator) -> Accelerator:
    """The same with buffers and a DRAM that hold nothing up."""
    return accelerator.replace(activation_buffer=ENDLESS_BUFFER, weight_buffer=ENDLESS_BUFFER, dram=ENDLESS_DRAM)


def tree(base: Accelerator, lanes: int, inputs: int, positions: int) -> Accelerator:
    """`base` with an adder-tree array of that geometry, whose ports deliver every operand in every cycle."""
    engine = Engine(
        "array", EngineKind.MAC_ARRAY, lanes, inputs, positions,
        OutputStage(lanes * positions, base.engines[0].output_stage.latency_cycles), base.engines[0].modes,
        activation_port_bits_per_cycle=8 * inputs * positions, weight_port_bits_per_cycle=8 * lanes * inputs,
    )  # fmt: skip
    return base.replace(name=f"tree_{lanes}x{inputs}x{positions}", engines=(engine,))


def systems() -> dict[str, System]:
    """All systems by name.

    Unless endless, memory is that of the systolic presets: DRAM of 76.8 Gb/s, two buffers of 256 KiB, 500 MHz.
    """
    found = []
    for dataflow in DATAFLOWS:
        preset, name = load_accelerator(f"systolic_{dataflow}"), f"systolic {dataflow}"
        folds = "fill and drain once per op" if dataflow == "os" else "fill and drain once per op, weights preloaded"
        serial = preset.replace(engines=(replace(preset.engines[0], timing="scalesim"),))
        found += [
            System(f"{name}, timing scalesim", endless(serial), "fill and drain on every fold, no memory stalls", True),
            System(f"{name}, endless memory", endless(preset), f"{folds}, no memory stalls"),
            System(name, preset, f"{folds}, memory stalls"),
        ]
    base = load_accelerator("systolic_ws")
    for shape in TREES:
        design, name = tree(base, *shape), f"adder tree {' x '.join(map(str, shape))}"
        found += [
            System(f"{name}, endless memory", endless(design), "pipeline filled once per op, no memory stalls"),
            System(name, design, "pipeline filled once per op, memory stalls"),
        ]
    assert all(system.accelerator.engines[0].slots == SLOTS for system in found)
    return {system.name: system for system in found}


def network_table(workload: Workload) -> OpTable:
    return op_table(workload, load_plan("uniform8"))


def gemm_cycles(system: System, gemm: Gemm, run: Run) -> int:
    """Cycles of one GEMM alone."""
    layers = network_table(one_gemm(gemm))
    if system.as_scalesim:
        return run(layers, system.accelerator, one_tile(gemm)).result.busy_cycles()["array"]
    return run(layers, system.accelerator).result.cycles_total


def cycles_of(system: System, workload: str, run: Run) -> int:
    """Cycles of a workload: `gemm`, `gemms` (194 one after the other, none reused), or a network as one program."""
    if workload == "gemm":
        return gemm_cycles(system, GEMM, run)
    if workload == "gemms":
        return sum(gemm_cycles(system, gemm, run) for gemm, count in deit_small_gemms().items() for _ in range(count))
    network = gemm_network() if workload == "gemm_network" else build_workload("deit_small")
    return run(network_table(network), system.accelerator).result.cycles_total


def closed_form(dataflow: str, gemm: Gemm) -> int:
    """What SCALE-Sim reports, from the closed form that `accelsim validate` compares with 162 of its runs."""
    layer = Layer("gemm", gemm.positions, gemm.depth, gemm.channels)
    return results(layer, 32, 32, dataflow)["scalesim_cycles"]


@dataclass(frozen=True)
class Row:
    """Cycles of a system by workload, and CPU seconds (None: not measured) of new processes and within one."""

    system: System
    cycles: dict[str, int]
    process_cpu_s: dict[str, float | None]
    call_cpu_s: dict[str, float]


def own_row(system: System, run: Run, arguments: argparse.Namespace) -> Row:
    """Run and time every workload of a system."""
    cycles: dict[str, int] = {}
    process: dict[str, float | None] = {}
    call: dict[str, float] = {}
    for workload in system.workloads():
        action = partial(cycles_of, system, workload, run)
        start_s = time.process_time()
        cycles[workload] = action()
        call[workload], process[workload] = time.process_time() - start_s, None
        if not arguments.quick:
            call[workload] = statistics.median(repeated(action, CALL_BUDGET_S, time.process_time))
            process[workload] = cold_cpu_s(system, workload, arguments.mapper)
    return Row(system, cycles, process, call)


def cold_cpu_s(system: System, workload: str, mapper: str) -> float:
    """Median CPU seconds of new processes that evaluate one workload and print its cycles; kernels are compiled."""
    command = [sys.executable, __file__, "--mapper", mapper, "--only", system.name, workload]
    return statistics.median(process_times(command, PROCESSES, children_cpu_s))


def peers() -> list[dict[str, str]]:
    """The peers' numbers: one entry per tool, setting and workload."""
    with open(PEERS, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def shown(cycles: int, rounded_to: int) -> str:
    """Cycles with as many digits as are known."""
    return f"{cycles:,}" if rounded_to == 1 else f"{cycles / 1e6:.2f} M"


def beside_peers(rows: list[Row]) -> None:
    """Every tool's cycles and CPU seconds on the GEMM and on the 194 GEMMs."""
    print("### One GEMM (M 196, K 384, N 1152) and the 194 GEMMs of DeiT-S on 1,024 multipliers\n")
    macs = {"gemm": GEMM.macs, "gemms": sum(gemm.macs * count for gemm, count in deit_small_gemms().items())}
    lines = [["ideal: MACs / 1024", *(cell for name in macs for cell in (f"{macs[name] // SLOTS:,}", "")), ""]]
    found: dict[str, dict[str, dict[str, str]]] = {}
    for peer in peers():
        name = " ".join(part for part in (peer["tool"], peer["version"].replace("not recorded", "")) if part)
        found.setdefault(f"{name}, {peer['setting']}", {})[peer["workload"]] = peer
    for name, given in found.items():
        cells = []
        for workload in macs:
            peer = given.get(workload, {})
            cells += [shown(int(peer["cycles"]), int(peer["rounded_to"])), peer["cpu_s"]] if peer else ["–", "–"]
        lines.append([name, *cells, given["gemm"]["contains"]])
    for row in rows:
        cells = []
        for workload in macs:
            cells += [f"{row.cycles[workload]:,}", cpu(row.process_cpu_s[workload])]
        lines.append([f"**{row.system.name}**", *cells, row.system.contains])
    table(["tool", "cycles, GEMM", "CPU s", "cycles, 194 GEMMs", "CPU s", "what the cycles hold"], lines)


def cpu(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def own_details(rows: list[Row]) -> None:
    """Our cycles on both networks, and CPU time inside a running process."""
    print("### The same arrays on DeiT-S as one program, and CPU time of one evaluation in a running process\n")
    lines = []
    for row in rows:
        cycles = (f"{row.cycles[name]:,}" if name in row.cycles else "–" for name in WORKLOADS[2:])
        times = (seconds(row.call_cpu_s[name]) if name in row.call_cpu_s else "–" for name in WORKLOADS)
        lines.append([row.system.name, *cycles, *times])
    head = ["array", "cycles, GEMMs as one network", "cycles, whole DeiT-S", "CPU, GEMM", "CPU, 194 GEMMs",
            "CPU, GEMM network", "CPU, whole DeiT-S"]  # fmt: skip
    table(head, lines)


def priced(search: Search) -> tuple[int, int]:
    """Rows of chain tables and mappings of single chains that the search of a design prices with a fresh memo.

    A row is a tile size with engine shares and weight blocks; it is priced with blocks innermost and outermost, with
    every set of its inputs on chip, and its output on chip and not.  Equal layers are priced, and counted, once.  Not
    counted: kept halos (no op of these networks has one), shares and sub-arrays dropped on the way, and the paths
    through the chains.
    """
    n_rows = n_mappings = 0
    # The memo gives equal starts the same object.
    for start, ways in {id(ways := ways_of(search, start)): (start, ways) for start in search.space.starts}.values():
        rows = ways.rows
        orders = np.where(rows[:, R_BLOCKS] > 1, 2, 1)
        n_rows += len(rows)
        n_mappings += int((orders * 2 ** (start.n_roots[rows[:, R_OPS] - 1] + 1)).sum())
    return n_rows, n_mappings


def search_rates(rows: list[Row]) -> list[dict[str, Any]]:
    """Mappings priced per CPU second of a whole evaluation: it also simulates what was chosen."""
    print("### Mappings of single chains priced by the exhaustive mapper\n")
    networks = {"gemm": one_gemm(GEMM), "deit_small": build_workload("deit_small")}
    found: list[dict[str, Any]] = []
    for row in (row for row in rows if not row.system.as_scalesim):
        for name, network in networks.items():
            layers, accelerator = network_table(network), row.system.accelerator
            search = prepare(layers, engine_table(accelerator, layers), accelerator, False, Memo())
            n_rows, n_mappings = priced(search)
            found.append({"system": row.system.name, "workload": name, "rows": n_rows, "mappings": n_mappings,
                          "cpu_s": row.call_cpu_s[name]})  # fmt: skip
    lines = [
        [one["system"], one["workload"], f"{one['rows']:,}", f"{one['mappings']:,}", seconds(one["cpu_s"]),
         f"{one['mappings'] / one['cpu_s']:,.0f}"] for one in found
    ]  # fmt: skip
    table(["array", "workload", "rows of chain tables", "mappings priced", "CPU", "mappings per CPU s"], lines)
    return found


def beside_scalesim(rows: list[Row]) -> list[dict[str, Any]]:
    """SCALE-Sim's reported cycles, its closed form, and our array's cycles with its timing."""
    print("### Timing scalesim against SCALE-Sim 3.0.0\n")
    reported = {(peer["setting"], peer["workload"]): peer for peer in peers() if peer["tool"] == "SCALE-Sim"}
    layers = {"gemm": {GEMM: 1}, "gemms": deit_small_gemms()}
    checks: list[dict[str, Any]] = []
    for row in (row for row in rows if row.system.as_scalesim):
        dataflow = row.system.accelerator.engines[0].dataflow
        for workload, gemms in layers.items():
            peer = reported[dataflow, workload]
            form = sum(closed_form(dataflow, gemm) * count for gemm, count in gemms.items())
            checks.append({"dataflow": dataflow, "workload": workload, "reported": int(peer["cycles"]),
                           "rounded_to": int(peer["rounded_to"]), "closed_form": form,
                           "simulated": row.cycles[workload]})  # fmt: skip
    lines = [
        [c["dataflow"], c["workload"], shown(c["reported"], c["rounded_to"]), f"{c['closed_form']:,}",
         f"{c['simulated']:,}"] for c in checks
    ]  # fmt: skip
    table(["dataflow", "workload", "reported by SCALE-Sim", "its closed form", "simulated"], lines)
    return checks


def main() -> int:
    parser = benchmark_parser("Cycles and CPU seconds beside other simulators")
    parser.add_argument("--mapper", default="heuristic", choices=list(MAPPERS), help="which of our mappers")
    parser.add_argument("--only", nargs=2, metavar=("SYSTEM", "WORKLOAD"), help="print the cycles of one pair")
    arguments = parser.parse_args()
    run, known = MAPPERS[arguments.mapper], systems()
    if arguments.only:
        system, workload = arguments.only
        if system not in known or workload not in known[system].workloads():
            parser.error(f"--only {system!r} {workload!r}: one of {', '.join(known)} and of {', '.join(WORKLOADS)}")
        print(cycles_of(known[system], workload, run))
        return 0
    about = print_machine()
    rows = [own_row(system, run, arguments) for system in known.values()]
    beside_peers(rows)
    own_details(rows)
    checks = beside_scalesim(rows)
    rates = search_rates(rows) if arguments.mapper == "exhaustive" else []
    numbers = [{**vars(row), "system": row.system.name, "contains": row.system.contains} for row in rows]
    write_numbers(arguments.json, about, peers=peers(), ours=numbers, scalesim=checks, rates=rates)
    return 0


if __name__ == "__main__":
    sys.exit(main())
