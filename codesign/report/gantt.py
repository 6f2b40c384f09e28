"""What every unit does over time in one recorded run, as few segments: rows merged until a page can hold them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from accelsim.api import Report
from accelsim.program import CAUSES, COUNT, FIRST_TEMPLATE, OP, PHASE_ROWS, UNIT, Program

# Parts of a segment: busy, then a wait of every cause.
PARTS = 1 + len(CAUSES)
SEVERAL_OPS = -1
# Merging starts with pieces of this share of the run: about a pixel of a wide screen.
FINEST_SHARE = 1 / 2048


@dataclass
class Segment:
    """A piece of time of one unit, in ticks: its op (or `SEVERAL_OPS`), and how long it is busy and waits by cause."""

    start: int
    end: int
    op: int
    amounts: list[int]


def segments_of(report: Report, most: int) -> tuple[list[list[Segment]], int]:
    """Segments of every unit, at most `most` in all, and the ticks up to which pieces were merged (0: none were).

    `report` is a recorded run of one image.  A unit does one thing at a time, so the amounts of a segment sum to its
    length at most; what is left is idle.
    """
    lanes = [merged(lane, 0) for lane in _spans(report)]
    piece, total = 0, report.result.total_ticks
    while sum(map(len, lanes)) > most:
        piece = 2 * piece or max(1, int(total * FINEST_SHARE))
        lanes = [merged(lane, piece) for lane in lanes]
    return lanes, piece


def merged(segments: Iterable[Segment], piece_ticks: int) -> list[Segment]:
    """Neighbours joined while they last no longer than a piece together, or are the same thing without a break."""
    joined: list[Segment] = []
    for item in segments:
        last = joined[-1] if joined else None
        if last is not None and (item.end - last.start <= piece_ticks or _continues(last, item)):
            last.op = last.op if last.op == item.op else SEVERAL_OPS
            last.amounts = [a + b for a, b in zip(last.amounts, item.amounts, strict=True)]
            last.end = item.end
        else:
            joined.append(Segment(item.start, item.end, item.op, list(item.amounts)))
    return joined


def _continues(last: Segment, item: Segment) -> bool:
    """True when both are wholly one part of one op and nothing lies between them."""
    whole = [part for part, amount in enumerate(item.amounts) if amount == item.end - item.start]
    same = last.op == item.op and last.end == item.start and len(whole) == 1
    return same and last.amounts[whole[0]] == last.end - last.start


def _spans(report: Report) -> list[list[Segment]]:
    """Every row of every unit as its wait and its occupied time."""
    program = report.result.program
    lanes: list[list[Segment]] = [[] for _ in program.units]
    free = [0] * len(program.units)
    for (unit, op), (start, end, _, cause, _, waited) in zip(
        _units_and_ops(program), report.result.rows.tolist(), strict=True
    ):
        # A wait never reaches back before the unit's previous row.
        wait = max(free[unit], start - waited)
        if cause >= 0 and wait < start:
            lanes[unit].append(_whole(wait, start, op, 1 + cause))
        if end > start:
            lanes[unit].append(_whole(start, end, op, 0))
        free[unit] = max(free[unit], end)
    return lanes


def _units_and_ops(program: Program) -> Iterator[tuple[int, int]]:
    """Unit and op of every row of one image, in program order."""
    for phase in program.phases:
        first, rows, count = int(phase[FIRST_TEMPLATE]), int(phase[PHASE_ROWS]), int(phase[COUNT])
        pairs = [(int(row[UNIT]), int(row[OP])) for row in program.templates[first : first + rows]]
        for _ in range(count):
            yield from pairs


def _whole(start: int, end: int, op: int, part: int) -> Segment:
    amounts = [0] * PARTS
    amounts[part] = end - start
    return Segment(start, end, op, amounts)


def gantt_data(report: Report, most: int) -> dict[str, Any]:
    """`segments_of` as compact plain data.

    A lane is a list of [cycles since the last segment, cycles, op, part or percentages of the parts]; edges are rounded
    to hundredths of a cycle where the run is short, else to cycles.
    """
    program = report.result.program
    lanes, piece = segments_of(report, most)
    digits = 0 if report.result.cycles_total > 10_000 else 2
    return {
        "units": list(program.units),
        "cycles": report.result.cycles_total,
        "rows": len(report.result.rows),
        "piece_cycles": piece / program.ticks_per_cycle,
        "lanes": [list(_entries(lane, program.ticks_per_cycle, digits)) for lane in lanes],
    }


def _entries(lane: list[Segment], ticks: int, digits: int) -> Iterator[list[Any]]:
    last = 0.0
    for item in lane:
        start, end = round(item.start / ticks, digits), round(item.end / ticks, digits)
        if end <= start:
            continue
        length = item.end - item.start
        whole = [part for part, amount in enumerate(item.amounts) if amount == length]
        share = whole[0] if whole else np.round(100 * np.array(item.amounts) / length).astype(int).tolist()
        yield [_short(start - last, digits), _short(end - start, digits), item.op, share]
        last = end


def _short(value: float, digits: int) -> float:
    rounded = round(value, digits)
    return int(rounded) if rounded == int(rounded) else rounded
