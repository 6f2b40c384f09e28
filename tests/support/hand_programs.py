"""Programs written by hand: rows and regions by name, one phase per row, times in ticks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from accelsim.kernels.alloc import overlap_lists
from accelsim.program import (
    CAUSES,
    DEP0,
    DEP1,
    DRAM_BASE,
    LATENCY,
    LEAD,
    N_COLUMNS,
    OCCUPANCY,
    OP,
    OPENS,
    READ0,
    RUN_BITS,
    RUNS,
    STRIDE,
    UNIT,
    WRITE,
    Int64,
    Program,
)
from accelsim.reference import simulate_by_stepping
from tests.support.kernel import run_kernel

Region = tuple[int, int, int]  # buffer, offset_bits, bits


def hand_program(
    units: Sequence[str],
    regions: Mapping[str, Region],
    rows: Sequence[Mapping[str, Any]],
    ticks_per_cycle: int = 1,
    dram: Int64 | None = None,
) -> Program:
    """A program of `rows`, which are dicts.

    Keys: `unit`, `ticks` = (occupancy, latency) and, where needed, `name`, `reads`, `write`, `opens` (default true),
    `deps` (names of earlier rows), `lead` (default 0) and `op` (default 0).  The last unit is the bus; with the timing
    of a banked `dram` its rows have `address` = (base bits, run bits, runs, stride bits) instead of `ticks`.
    """
    names = list(regions)
    templates = np.zeros((len(rows), N_COLUMNS), np.int64)
    templates[:, [READ0, READ0 + 3, READ0 + 6, WRITE]] = -1
    opened: list[int] = []
    numbers: dict[str, int] = {}
    for number, row in enumerate(rows):
        t = templates[number]
        t[UNIT], t[OP] = units.index(row["unit"]), row.get("op", 0)
        t[OCCUPANCY], t[LATENCY] = row.get("ticks", (0, 0))
        t[LEAD] = row.get("lead", 0)
        t[DRAM_BASE], t[RUN_BITS], t[RUNS], t[STRIDE] = row.get("address", (0, 0, 0, 0))
        for k, region in enumerate(row.get("reads", ())):
            t[READ0 + 3 * k], t[READ0 + 3 * k + 1] = names.index(region), 1
        if "write" in row:
            t[WRITE], t[WRITE + 1], t[OPENS] = names.index(row["write"]), 1, row.get("opens", True)
            if t[OPENS] and t[WRITE] not in opened:
                opened.append(int(t[WRITE]))
        for column, dep in zip((DEP0, DEP1), row.get("deps", ()), strict=False):
            t[column] = number - numbers[dep]
        numbers[row.get("name", str(number))] = number
    table = np.array([regions[name] for name in names], np.int64).reshape(-1, 3)
    lists = overlap_lists(table, np.array(opened, np.int64))
    return Program(
        units=tuple(units),
        op_names=tuple(f"op{k}" for k in range(int(templates[:, OP].max()) + 1)),
        ticks_per_cycle=ticks_per_cycle,
        templates=templates,
        phases=np.array([[k, 1, 1, 0] for k in range(len(rows))], np.int64),
        regions=table,
        before_start=lists[0],
        before=lists[1],
        wrap_start=lists[2],
        wrap=lists[3],
        dram=dram,
    )


@dataclass(frozen=True)
class Times:
    """What one row did, in ticks; `cause` and `blocker` (a row number) are None when it did not wait."""

    start: int
    free: int
    finish: int
    waited: int = 0
    cause: str | None = None
    blocker: int | None = None


@dataclass(frozen=True)
class Run:
    """Rows of a recorded run; busy, waits by cause and drained ticks by unit; the total."""

    rows: list[Times]
    busy: Int64
    waits: Int64
    drained: Int64
    total: int


def play(program: Program, images: int = 1) -> Run:
    """The kernel's answer, after checking that the oracle gives the same times."""
    busy, wait, free, _, _, _, image_finish, rows = run_kernel(program, images)
    times = []
    for start, end, finish, cause, blocker, waited in rows.tolist():
        times.append(Times(start, end, finish, waited, *((CAUSES[cause], blocker) if cause >= 0 else (None, None))))
    oracle = [(row.start, row.free, row.finish) for row in simulate_by_stepping(program, images)]
    assert [(row.start, row.free, row.finish) for row in times] == oracle, "kernel and oracle differ"
    return Run(times, busy, wait, image_finish[-1] - free, int(image_finish[-1]))
