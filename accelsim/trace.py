"""Execution traces as Chrome trace-event JSON, which ui.perfetto.dev and chrome://tracing open."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accelsim.files import write_text_atomic

PROCESS_ID = 1


@dataclass(frozen=True)
class TraceRow:
    """One row of a simulated program, times in core cycles (DRAM rows may start and end between two cycles).

    The unit is occupied from `start_cycles` to `release_cycles`; the result is usable at `finish_cycles`.  Before the
    start the unit was free but waited `wait_cycles` for `wait_cause`; `blocking_row` is the index of the row that
    ended the wait, −1 when none did.  `label` names the tile within `op`.
    """

    unit: str
    op: str
    label: str
    start_cycles: float
    release_cycles: float
    finish_cycles: float
    wait_cause: str
    wait_cycles: float
    blocking_row: int = -1


def perfetto_trace(
    rows: Sequence[TraceRow],
    counters: Mapping[str, Iterable[tuple[float, float]]],
    clock_hz: float,
    arch: str = "",
    model: str = "",
) -> dict[str, Any]:
    """Chrome trace-event JSON (the "JSON Object Format") of a run.

    One process, one lane per unit in order of first appearance, complete events ("X") for occupied time with a
    further one for the wait before it, and counter events ("C") from `counters` (name → (cycles, value) steps, for
    example occupied bits per buffer).  `ts` and `dur` are microseconds as the format demands; cycles are in `args`.
    Raises ValueError when `clock_hz` is not positive.
    """
    if not clock_hz > 0:
        raise ValueError(f"clock_hz must be positive, got {clock_hz}")
    us_per_cycle = 1e6 / clock_hz
    lanes = {unit: lane for lane, unit in enumerate(dict.fromkeys(row.unit for row in rows), start=1)}
    name = " ".join(part for part in ("accelsim", arch, model) if part)
    events = _metadata(name, lanes)
    released = dict.fromkeys(lanes, 0.0)
    for index, row in enumerate(rows):
        events.extend(_row_events(index, row, rows, lanes[row.unit], released[row.unit], us_per_cycle))
        released[row.unit] = row.release_cycles
    for counter, steps in counters.items():
        for cycles, value in steps:
            events.append(
                {
                    "ph": "C",
                    "pid": PROCESS_ID,
                    "name": counter,
                    "ts": cycles * us_per_cycle,
                    "args": {"value": value},
                }
            )
    return {
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": {"arch": arch, "model": model, "clock_hz": clock_hz},
    }


def _metadata(process: str, lanes: Mapping[str, int]) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": PROCESS_ID, "name": "process_name", "args": {"name": process}},
    ]
    for unit, lane in lanes.items():
        common = {"ph": "M", "pid": PROCESS_ID, "tid": lane}
        events.append({**common, "name": "thread_name", "args": {"name": unit}})
        events.append({**common, "name": "thread_sort_index", "args": {"sort_index": lane}})
    return events


def _row_events(
    index: int, row: TraceRow, rows: Sequence[TraceRow], lane: int, free_cycles: float, us_per_cycle: float
) -> list[dict[str, Any]]:
    """The wait (if any) and the occupied time of one row.

    A wait never reaches back before the lane's previous row released the unit: viewers drop overlapping slices.
    """
    common = {"ph": "X", "pid": PROCESS_ID, "tid": lane}
    events = []
    wait_start = max(free_cycles, row.start_cycles - row.wait_cycles)
    blocking = _blocking(row, rows)
    if row.start_cycles > wait_start:
        events.append(
            {
                **common,
                "name": f"wait: {row.wait_cause}",
                "cat": "wait",
                "ts": wait_start * us_per_cycle,
                "dur": (row.start_cycles - wait_start) * us_per_cycle,
                "args": {"for_op": row.op, "for_tile": row.label, "for_row": index, **blocking},
            }
        )
    args: dict[str, Any] = {
        "row": index,
        "op": row.op,
        "tile": row.label,
        "start_cycles": row.start_cycles,
        "release_cycles": row.release_cycles,
        "finish_cycles": row.finish_cycles,
        "wait_cause": row.wait_cause,
        "wait_cycles": row.wait_cycles,
        **blocking,
    }
    events.append(
        {
            **common,
            "name": row.op,
            "cat": "busy",
            "ts": row.start_cycles * us_per_cycle,
            "dur": (row.release_cycles - row.start_cycles) * us_per_cycle,
            "args": args,
        }
    )
    return events


def _blocking(row: TraceRow, rows: Sequence[TraceRow]) -> dict[str, Any]:
    if row.blocking_row < 0:
        return {}
    other = rows[row.blocking_row]
    return {"blocking_row": row.blocking_row, "blocked_by": f"{other.unit}: {other.op} {other.label}".rstrip()}


def write_json(path_or_dash: str | os.PathLike[str], data: Any, indent: int | None = None) -> None:
    """Write `data` as JSON, atomically; ``-`` prints it.

    Raises AccelsimError when it cannot be written, ValueError when `data` holds a NaN or an infinity (not JSON).
    """
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(data, indent=indent, separators=separators, allow_nan=False, ensure_ascii=False)
    write_text_atomic(path_or_dash, text + "\n")
