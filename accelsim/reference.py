"""The oracle: the timing contract stepped one tick at a time in plain Python.

Slow and obvious on purpose.  It shares no code and no precomputed lists with the kernel: generations and overlaps are
found here from the region table, so it also checks what lowering wrote.  Used by tests only, but public, so that a
reader can step a small program by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from accelsim.program import REGION_BITS, REGION_BUFFER, REGION_OFFSET, Program, Row


@dataclass
class _Generation:
    region: int
    conflicts: list[_Generation]
    writers: list[int] = field(default_factory=list)
    readers: list[int] = field(default_factory=list)


@dataclass
class _Plan:
    """What one row waits for, resolved to generations."""

    row: Row
    reads: list[_Generation]
    reads_writers: list[list[int]]
    write: _Generation | None


@dataclass(frozen=True)
class OracleRow:
    """Times of one row in ticks: start, unit free again, result usable by other units."""

    start: int
    free: int
    finish: int


def _resolve(program: Program, rows: list[Row]) -> list[_Plan]:
    regions = program.regions.tolist()
    live: dict[int, _Generation] = {}
    history: list[_Generation] = []
    plans = []
    for number, row in enumerate(rows):
        write = None
        if row.write >= 0:
            if row.opens:
                mine = regions[row.write]
                conflicts = [other for other in history if _overlap(regions[other.region], mine)]
                write = _Generation(row.write, conflicts)
                # A generation that this one covers entirely need not be looked at again: it closed before.
                history = [other for other in history if not _covers(mine, regions[other.region])]
                history.append(write)
                live[row.write] = write
            else:
                write = live[row.write]
            write.writers.append(number)
        reads = [live[region] for region in row.reads]
        for generation in reads:
            generation.readers.append(number)
        plans.append(_Plan(row, reads, [[w for w in g.writers if w != number] for g in reads], write))
    return plans


def _overlap(a: list[int], b: list[int]) -> bool:
    return (
        a[REGION_BUFFER] == b[REGION_BUFFER]
        and a[REGION_OFFSET] < b[REGION_OFFSET] + b[REGION_BITS]
        and b[REGION_OFFSET] < a[REGION_OFFSET] + a[REGION_BITS]
    )


def _covers(outer: list[int], inner: list[int]) -> bool:
    return (
        outer[REGION_BUFFER] == inner[REGION_BUFFER]
        and outer[REGION_OFFSET] <= inner[REGION_OFFSET]
        and inner[REGION_OFFSET] + inner[REGION_BITS] <= outer[REGION_OFFSET] + outer[REGION_BITS]
    )


def simulate_by_stepping(program: Program, images: int = 1, limit_ticks: int = 10_000_000) -> list[OracleRow]:
    """Times of every row of `program`, found by stepping time tick by tick.

    Raises RuntimeError when nothing can ever start (a deadlock, which lowering never produces) or past `limit_ticks`.
    """
    rows = list(program.expand(images))
    plans = _resolve(program, rows)
    dram = len(program.units) - 1
    queues: list[list[int]] = [[] for _ in program.units]
    for number, row in enumerate(rows):
        queues[row.unit].append(number)
    position = [0] * len(queues)
    unit_free = [0] * len(queues)
    done: dict[int, OracleRow] = {}
    tick = 0

    def finished(number: int) -> bool:
        return number in done and done[number].finish <= tick

    def released(number: int) -> bool:
        if number not in done:
            return False
        end = done[number].free
        return _visible(end, rows[number].unit == dram, program.ticks_per_cycle) <= tick

    def closed(generation: _Generation) -> bool:
        return all(finished(w) for w in generation.writers) and all(released(r) for r in generation.readers)

    def may_start(number: int) -> bool:
        plan = plans[number]
        if any(not finished(dep) for dep in plan.row.deps):
            return False
        if any(not finished(w) for writers in plan.reads_writers for w in writers):
            return False
        return plan.write is None or all(closed(g) for g in plan.write.conflicts)

    while len(done) < len(rows):
        for unit, queue in enumerate(queues):
            if position[unit] == len(queue) or unit_free[unit] > tick or not may_start(queue[position[unit]]):
                continue
            number = queue[position[unit]]
            row = rows[number]
            position[unit] += 1
            unit_free[unit] = tick + row.occupancy_ticks
            finish = _visible(tick + row.latency_ticks, unit == dram, program.ticks_per_cycle)
            done[number] = OracleRow(tick, unit_free[unit], finish)
        tick += 1
        if tick > limit_ticks:
            raise RuntimeError(f"no end after {limit_ticks} ticks: {len(rows) - len(done)} rows never started")
    return [done[number] for number in range(len(rows))]


def _visible(tick: int, on_bus: bool, ticks_per_cycle: int) -> int:
    """Bus times are rounded up to a whole cycle when another unit sees them."""
    return -(-tick // ticks_per_cycle) * ticks_per_cycle if on_bus else tick
