"""What the benchmarks share: timing of calls and processes, Markdown tables, slopes, the machine."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from accelsim.workloads.reference_models import NAMES
from accelsim.workloads.registry import model_names

Clock = Callable[[], float]


@dataclass(frozen=True)
class Timing:
    """Seconds per repetition, and how many units of work one repetition does."""

    name: str
    best_s: float
    median_s: float
    repetitions: int
    work: int
    unit: str

    def line(self) -> str:
        """One row of the Markdown table."""
        rate = f"{self.work / self.best_s:,.0f} {self.unit}/s" if self.unit else ""
        return f"| {self.name} | {seconds(self.best_s)} | {seconds(self.median_s)} | {self.repetitions} | {rate} |"


def published_networks() -> tuple[str, ...]:
    """Names of the built-in networks without this project's own small ones."""
    return tuple(name for name in model_names() if name not in NAMES)


def seconds(value: float) -> str:
    """A time with three digits and a unit."""
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def measured(name: str, samples: Sequence[float], work: int = 1, unit: str = "") -> Timing:
    """Best and median of repetitions that were timed one by one."""
    return Timing(name, min(samples), statistics.median(samples), len(samples), work, unit)


def repeated(action: Callable[[], Any], budget_s: float, clock: Clock = time.perf_counter) -> list[float]:
    """Times of single calls until the budget is used (at least five), after one call that is not counted."""
    action()
    samples: list[float] = []
    stop = time.perf_counter() + budget_s
    while len(samples) < 5 or time.perf_counter() < stop:
        start = clock()
        action()
        samples.append(clock() - start)
    return samples


def process_times(
    command: list[str], repetitions: int, clock: Clock = time.perf_counter, **environment: str
) -> list[float]:
    """Time of whole processes by a clock: wall time, or `children_cpu_s`."""
    samples = []
    for _ in range(repetitions):
        start = clock()
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | environment
        )
        samples.append(clock() - start)
    return samples


def children_cpu_s() -> float:
    """CPU seconds, user and system, of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Exponent b of the least-squares fit y = a·x^b: 1 is proportional, 0 does not depend on x.

    Raises ValueError for fewer than two different x or values that are not positive.
    """
    if len(set(x)) < 2 or min(*x, *y) <= 0:
        raise ValueError("a fit on logarithms needs two different points of positive values")
    logs = [math.log(value) for value in x]
    return float(np.polyfit(logs, [math.log(value) for value in y], 1)[0])


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a Markdown table."""
    names = list(head)
    print("| " + " | ".join(names) + " |")
    print("|" + "---|" * len(names))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def benchmark_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the two options of every benchmark."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller cases: a glance")
    parser.add_argument("--json", help="also write the numbers to this file")
    return parser


def print_machine() -> dict[str, Any]:
    """Print what the numbers depend on, and return it."""
    about = machine()
    print("Machine: " + ", ".join(f"{key} {value}" for key, value in about.items()) + "\n", flush=True)
    return about


def write_numbers(path: str | None, about: dict[str, Any], **numbers: Any) -> None:
    """Write the machine and the numbers as JSON, if a path is given."""
    if path:
        with open(path, "w", encoding="utf-8") as stream:
            json.dump({"machine": about, **numbers}, stream, indent=1)


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "architecture": platform.machine(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "numba": numba.__version__,
        "numpy": np.__version__,
        "threads": 1,
    }
