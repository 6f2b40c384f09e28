"""The worked example of docs/contract.md: two tiles through load, array, vector unit and store, and its drawing."""

from __future__ import annotations

from accelsim.program import CAUSES, Program, Row
from tests.support.hand_programs import Run, hand_program

TICKS_PER_CYCLE = 2
UNITS = ("array", "vector", "dram")
REGIONS = {"in0": (0, 0, 8), "in1": (0, 8, 8), "mid": (0, 16, 4), "out": (0, 20, 4)}
_LOAD = {"unit": "dram", "ticks": (5, 9), "op": 0}
_ARRAY = {"unit": "array", "ticks": (6, 10), "op": 0, "write": "mid"}
_VECTOR = {"unit": "vector", "ticks": (4, 6), "op": 1, "reads": ("mid",), "write": "out"}
_STORE = {"unit": "dram", "ticks": (5, 5), "op": 1, "reads": ("out",)}
ROWS = (
    {"name": "L0", **_LOAD, "write": "in0"},
    {"name": "L1", **_LOAD, "write": "in1"},
    {"name": "A0", **_ARRAY, "reads": ("in0",)},
    {"name": "V0", **_VECTOR},
    {"name": "A1", **_ARRAY, "reads": ("in1",)},
    {"name": "S0", **_STORE},
    {"name": "V1", **_VECTOR},
    {"name": "S1", **_STORE},
)
NAMES = tuple(str(row["name"]) for row in ROWS)


def example_program() -> Program:
    """Eight rows in program order on three units; `mid` and `out` are single, so the pipeline has to wait for them."""
    return hand_program(UNITS, REGIONS, ROWS, TICKS_PER_CYCLE)


def render(program: Program, run: Run) -> str:
    """Drawing (one character per tick), table of rows and attribution, as they stand in docs/contract.md."""
    return "\n".join([*_drawing(program, run), "", *_table(program, run), "", *_attribution(program, run)])


def _drawing(program: Program, run: Run) -> list[str]:
    cycles = range(run.total // program.ticks_per_cycle)
    pad = " " * (program.ticks_per_cycle - 1)
    lines = [
        "cycle   " + "".join((str(c // 10) if c % 10 == 0 else " ") + pad for c in cycles),
        "        " + "".join(str(c % 10) + pad for c in cycles),
    ]
    rows = list(program.expand())
    for unit, name in enumerate(program.units):
        line = ["."] * run.total
        for number, times in enumerate(run.rows):
            if rows[number].unit == unit:
                if times.cause is not None:
                    line[times.start - times.waited : times.start] = times.cause[0] * times.waited
                line[times.start : times.free] = NAMES[number][1] * (times.free - times.start)
        lines.append(f"{name:8}" + "".join(line))
    for region, name in enumerate(REGIONS):
        line = ["."] * run.total
        for first, usable, closed in _generations(program, rows, run, region):
            line[first:usable] = "w" * (usable - first)
            line[usable:closed] = "=" * (closed - usable)
        lines.append(f"{name:8}" + "".join(line))
    return [line.rstrip() for line in lines]


def _generations(program: Program, rows: list[Row], run: Run, region: int) -> list[list[int]]:
    """First writer's start, usable and closed, of every generation of a region, from the rows' times alone."""
    found: list[list[int]] = []
    for row, times in zip(rows, run.rows, strict=True):
        if row.write == region:
            if row.opens:
                found.append([times.start, 0, 0])
            found[-1][1:] = [max(found[-1][1], times.finish), max(found[-1][2], times.finish)]
        if region in row.reads:
            ticks = program.ticks_per_cycle
            released = -(-times.free // ticks) * ticks
            found[-1][2] = max(found[-1][2], released)
    return found


def _table(program: Program, run: Run) -> list[str]:
    lines = ["row  unit    start  free  usable  waited  for"]
    for number, (row, times) in enumerate(zip(program.expand(), run.rows, strict=True)):
        reason = f"{times.cause}, row {NAMES[times.blocker]}" if times.blocker is not None else "-"
        unit = program.units[row.unit]
        numbers = f"{times.start:5}  {times.free:4}  {times.finish:6}  {times.waited:6}"
        lines.append(f"{NAMES[number]}   {unit:6}  {numbers}  {reason}")
    return lines


def _attribution(program: Program, run: Run) -> list[str]:
    lines = ["unit    busy  " + "  ".join(CAUSES) + "  drained  total"]
    for unit, name in enumerate(program.units):
        waits = "  ".join(f"{int(w):{len(cause)}}" for w, cause in zip(run.waits[unit], CAUSES, strict=True))
        total = int(run.busy[unit] + run.waits[unit].sum() + run.drained[unit])
        lines.append(f"{name:6}  {int(run.busy[unit]):4}  {waits}  {int(run.drained[unit]):7}  {total:5}")
    return lines
