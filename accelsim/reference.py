"""The oracle: the timing contract stepped one tick at a time in plain Python.

Slow and obvious on purpose.  It shares no code and no precomputed lists with the kernel: generations and overlaps are
found here from the region table, so it also checks what lowering wrote.  Used by tests only, but public, so that a
reader can step a small program by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from accelsim.program import REGION_BITS, REGION_BUFFER, REGION_OFFSET, Program, Row
from accelsim.reference_dram import Controller


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


class _Clock:
    """The rows that have started, and the questions asked about them at the tick `now`."""

    def __init__(self, program: Program, images: int) -> None:
        self.rows = list(program.expand(images))
        self.plans = _resolve(program, self.rows)
        self.dram = len(program.units) - 1
        self.ticks_per_cycle = program.ticks_per_cycle
        self.done: dict[int, OracleRow] = {}
        self.now = 0
        last: dict[int, int] = {}
        self.previous: list[int] = []  # the row before on the same unit, or -1
        for number, row in enumerate(self.rows):
            self.previous.append(last.get(row.unit, -1))
            last[row.unit] = number

    def end(self, number: int, start: int, free: int, finish: int) -> None:
        """Record the times of a row."""
        finish = _visible(finish, self.rows[number].unit == self.dram, self.ticks_per_cycle)
        self.done[number] = OracleRow(start, free, finish)

    def finished(self, number: int) -> bool:
        """Is the result of a row usable?"""
        return number in self.done and self.done[number].finish <= self.now

    def released(self, number: int) -> bool:
        """Has a row let go of what it read?"""
        if number not in self.done:
            return False
        end = self.done[number].free
        return _visible(end, self.rows[number].unit == self.dram, self.ticks_per_cycle) <= self.now

    def closed(self, generation: _Generation) -> bool:
        """Are all writers and readers of a generation through?"""
        return all(map(self.finished, generation.writers)) and all(map(self.released, generation.readers))

    def output_free(self, number: int) -> bool:
        """Will the unit's output stage be through with the previous row when this one's first result comes?"""
        row, before = self.rows[number], self.previous[number]
        return row.lead_ticks == 0 or before < 0 or self.done[before].finish <= self.now + row.lead_ticks

    def may_start(self, number: int) -> bool:
        """Does every condition of a row hold but that its unit is free?"""
        plan = self.plans[number]
        if not all(map(self.finished, plan.row.deps)) or not self.output_free(number):
            return False
        if not all(self.finished(w) for writers in plan.reads_writers for w in writers):
            return False
        return plan.write is None or all(map(self.closed, plan.write.conflicts))


def simulate_by_stepping(
    program: Program, images: int = 1, limit_ticks: int = 10_000_000, controller: Controller | None = None
) -> list[OracleRow]:
    """Times of every row of `program`, found by stepping time tick by tick.

    `controller` is that of a banked DRAM, for a caller who wants to look at its commands afterwards.  Raises
    RuntimeError when nothing can ever start (a deadlock, which lowering never produces) or past `limit_ticks`.
    """
    clock = _Clock(program, images)
    rows = clock.rows
    queues: list[list[int]] = [[] for _ in program.units]
    for number, row in enumerate(rows):
        queues[row.unit].append(number)
    position, unit_free = [0] * len(queues), [0] * len(queues)
    if program.dram is not None and controller is None:
        controller = Controller(program.dram)
    moving, moving_start = -1, 0  # the row that the controller has
    while len(clock.done) < len(rows):
        for unit, queue in enumerate(queues):
            if position[unit] == len(queue) or unit_free[unit] > clock.now:
                continue
            number = queue[position[unit]]
            if not clock.may_start(number):
                continue
            row = rows[number]
            position[unit] += 1
            if unit == clock.dram and controller is not None:
                controller.begin(row)
                moving, moving_start, unit_free[unit] = number, clock.now, limit_ticks + 1
            else:
                unit_free[unit] = clock.now + row.occupancy_ticks
                clock.end(number, clock.now, unit_free[unit], clock.now + row.latency_ticks)
        if controller is not None and clock.now % controller.nck_ticks == 0:
            ended = controller.step(clock.now // controller.nck_ticks)
            if ended is not None:
                unit_free[clock.dram], finish = (nck * controller.nck_ticks for nck in ended)
                clock.end(moving, moving_start, unit_free[clock.dram], finish)
        clock.now += 1
        if clock.now > limit_ticks:
            raise RuntimeError(f"no end after {limit_ticks} ticks: {len(rows) - len(clock.done)} rows never started")
    return [clock.done[number] for number in range(len(rows))]


def _visible(tick: int, on_bus: bool, ticks_per_cycle: int) -> int:
    """Bus times are rounded up to a whole cycle when another unit sees them."""
    return -(-tick // ticks_per_cycle) * ticks_per_cycle if on_bus else tick
