"""From a Program to the instructions of the RTL sequencer, and the row times that the RTL gives.

Every region read, written or overlapped becomes thresholds on semaphores: one semaphore for the writes of a unit to a
region, one for the releases of a region by a unit, one flag per row that others depend on.  Thresholds are counted
here from the rows and the addresses of the regions; nothing is taken from the kernel or from lowering's lists.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from accelsim.problems import AccelsimError, Problem
from accelsim.program import REGION_BITS, REGION_BUFFER, REGION_OFFSET, Int64, Program, Row
from accelsim.rtl.build import build, run

MODULES = ("sequencer_pkg", "semaphores", "sequencer", "timed_unit", "program_top")
SEMAPHORE_BITS, INDEX_BITS, TIME_BITS, N_RELEASES, N_FINISHES = 12, 16, 32, 3, 2  # as in sequencer_pkg.sv
SIGNAL_BITS = SEMAPHORE_BITS + INDEX_BITS

Signal = tuple[int, int]  # (semaphore, index)


@dataclass(frozen=True)
class Instruction:
    """One row as the sequencer sees it; times in cycles of its unit (bus: ticks)."""

    number: int
    occupancy: int
    latency: int
    lead: int
    waits: tuple[Signal, ...]
    finishes: tuple[Signal, ...]
    releases: tuple[Signal, ...]


@dataclass
class _Semaphores:
    """Semaphores by what they count, how many rows have signalled so far, and the highest wait of every unit."""

    numbers: dict[tuple[str, int, int], int] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)
    waited: dict[tuple[int, int], int] = field(default_factory=dict)

    def signal(self, kind: str, what: int, unit: int) -> Signal:
        """The next signal of this kind."""
        number = self.numbers.setdefault((kind, what, unit), len(self.numbers) + 1)
        index = self.counts.get(number, 0)
        self.counts[number] = index + 1
        return number, index

    def all_so_far(self, kind: str, what: int, n_units: int) -> list[Signal]:
        """Waits for everything of this kind ahead in program order."""
        numbers = (self.numbers.get((kind, what, unit), 0) for unit in range(n_units))
        return [(number, self.counts[number]) for number in numbers if number]

    def new_waits(self, unit: int, waits: Iterable[Signal]) -> tuple[Signal, ...]:
        """The waits without those that an earlier row of the unit has passed."""
        fresh: dict[int, int] = {}
        for number, index in waits:
            if index > max(self.waited.get((unit, number), 0), fresh.get(number, 0)):
                fresh[number] = index
        for number, index in fresh.items():
            self.waited[unit, number] = index
        return tuple(fresh.items())


@dataclass
class _Places:
    """Who has used the addresses of a buffer: regions in use, and what opening each of them waited for."""

    regions: list[list[int]]
    used: dict[int, None] = field(default_factory=dict)
    opening: dict[int, list[Signal]] = field(default_factory=dict)

    def open(self, region: int, semaphores: _Semaphores, n_units: int) -> None:
        """A generation of `region` begins: all overlapping generations must be closed."""
        waits = []
        buffer, low, bits = self._extent(region)
        covered = []
        for other in self.used:
            other_buffer, other_low, other_bits = self._extent(other)
            if other_buffer == buffer and low < other_low + other_bits and other_low < low + bits:
                waits += semaphores.all_so_far("write", other, n_units)
                waits += semaphores.all_so_far("read", other, n_units)
                if low <= other_low and other_low + other_bits <= low + bits:
                    covered.append(other)  # whoever comes next will overlap this region as well
        for other in covered:
            del self.used[other]
        self.used[region] = None
        self.opening[region] = waits

    def _extent(self, region: int) -> tuple[int, int, int]:
        row = self.regions[region]
        return row[REGION_BUFFER], row[REGION_OFFSET], row[REGION_BITS]


def instructions(program: Program, images: int = 1) -> tuple[list[list[Instruction]], int]:
    """Instructions of every unit in order, and the number of semaphores used.

    Raises AccelsimError for a row that takes no time: hardware needs a cycle to do anything.
    """
    rows = list(program.expand(images))
    n_units = len(program.units)
    semaphores, places = _Semaphores(), _Places(program.regions.tolist())
    depended = {dep for row in rows for dep in row.deps}
    flags: dict[int, Signal] = {}
    queues: list[list[Instruction]] = [[] for _ in program.units]
    for number, row in enumerate(rows):
        waits = [(flag, index + 1) for flag, index in (flags[dep] for dep in row.deps)]
        if row.write >= 0:
            if row.opens:
                places.open(row.write, semaphores, n_units)
            waits += places.opening[row.write]
        for region in row.reads:
            waits += semaphores.all_so_far("write", region, n_units)
        finishes = [semaphores.signal("write", row.write, row.unit)] if row.write >= 0 else []
        if number in depended:
            flags[number] = semaphores.signal("flag", number, row.unit)
            finishes.append(flags[number])
        releases = [semaphores.signal("read", region, row.unit) for region in row.reads]
        times = _times(row, number, n_units - 1, program.ticks_per_cycle)
        queues[row.unit].append(
            Instruction(number, *times, semaphores.new_waits(row.unit, waits), tuple(finishes), tuple(releases))
        )
    return queues, len(semaphores.numbers) + 1


def _times(row: Row, number: int, bus: int, ticks_per_cycle: int) -> tuple[int, int, int]:
    scale = 1 if row.unit == bus else ticks_per_cycle
    times = (row.occupancy_ticks, row.latency_ticks, row.lead_ticks)
    if row.occupancy_ticks < 1 or any(time % scale for time in times):
        raise AccelsimError(Problem(f"row {number}", f"takes {row.occupancy_ticks} ticks", "whole cycles, at least 1"))
    return row.occupancy_ticks // scale, row.latency_ticks // scale, row.lead_ticks // scale


@dataclass(frozen=True)
class SequencerSize:
    """Parameters of `program_top`: what fits it, fits in hardware."""

    n_units: int = 4
    n_rows: int = 256
    n_waits: int = 16
    n_semaphores: int = 256
    slots: int = 16

    @property
    def instruction_bits(self) -> int:
        """Width of an instruction."""
        return 3 * TIME_BITS + (N_RELEASES + N_FINISHES + self.n_waits) * SIGNAL_BITS

    def check(self, queues: list[list[Instruction]], n_semaphores: int) -> None:
        """AccelsimError when a program is larger than the hardware."""
        waits = max((len(item.waits) for queue in queues for item in queue), default=0)
        rows = max(map(len, queues))
        found = {"units": (len(queues), self.n_units), "rows of a unit": (rows, self.n_rows),
                 "waits of a row": (waits, self.n_waits), "semaphores": (n_semaphores, self.n_semaphores)}  # fmt: skip
        problems = [
            Problem("rtl sequencer", f"too few {name}", demand=need, bound=have, unit=name)
            for name, (need, have) in found.items()
            if need > have
        ]
        if problems:
            raise AccelsimError(problems)


def instruction_words(item: Instruction, size: SequencerSize) -> list[int]:
    """An instruction as 32-bit words, lowest first: packed {waits, occupancy, latency, lead, finishes, releases}."""
    value = 0
    for number, index in _padded(item.waits, size.n_waits):
        value = value << SIGNAL_BITS | number << INDEX_BITS | index
    for time in (item.occupancy, item.latency, item.lead):
        value = value << TIME_BITS | time
    for number, index in [*_padded(item.finishes, N_FINISHES), *_padded(item.releases, N_RELEASES)]:
        value = value << SIGNAL_BITS | number << INDEX_BITS | index
    return [value >> 32 * word & 0xFFFFFFFF for word in range(-(-size.instruction_bits // 32))]


def _padded(signals: tuple[Signal, ...], length: int) -> list[Signal]:
    return [*signals, *[(0, 0)] * (length - len(signals))]


def build_sequencer(size: SequencerSize, folder: Path | None = None, defines: tuple[str, ...] = ()) -> Path:
    """The simulation of `program_top` in this size."""
    parameters = {"N_UNITS": size.n_units, "N_ROWS": size.n_rows, "N_WAITS": size.n_waits,
                  "N_SEMAPHORES": size.n_semaphores, "SLOTS": size.slots}  # fmt: skip
    constants = {"N_UNITS": size.n_units, "SLOTS": size.slots, "INSTRUCTION_BITS": size.instruction_bits,
                 "NUMBER_BITS": (size.n_rows - 1).bit_length() + 1}  # fmt: skip
    return build("program_top", MODULES, parameters, constants, folder, defines)


@dataclass(frozen=True, eq=False)
class RtlRuns:
    """Row times [rows, 3] = start, unit free, result usable in ticks of every program; ticks and seconds of all."""

    times: list[Int64]
    ticks: int
    seconds: float


def run_programs(
    programs: Iterable[tuple[Program, int]], size: SequencerSize, executable: Path, limit_ticks: int = 10_000_000
) -> RtlRuns:
    """Execute (program, images) one after the other on the RTL.

    Raises AccelsimError when a program does not fit, never ends, or has more rows in flight than slots.
    """
    numbers: list[int] = []
    orders: list[list[int]] = []
    for program, images in programs:
        queues, n_semaphores = instructions(program, images)
        size.check(queues, n_semaphores)
        # The bus is the last unit of the hardware, whatever the number of units.
        queues = [*queues[:-1], *([[]] * (size.n_units - len(queues))), queues[-1]]
        numbers += [program.ticks_per_cycle, limit_ticks]
        for queue in queues:
            numbers.append(len(queue))
            for item in queue:
                numbers += instruction_words(item, size)
        orders.append([item.number for queue in queues for item in queue])
    output, ticks, seconds = run(executable, np.array(numbers, np.int64))
    return RtlRuns(_parse(output, orders), ticks, seconds)


def _parse(output: Int64, orders: list[list[int]]) -> list[Int64]:
    times: list[Int64] = []
    place = 0
    for order in orders:
        if output[place] < 0:
            what = "does not end" if output[place] == -1 else "has more rows in flight than the hardware holds"
            raise AccelsimError(Problem("rtl sequencer", f"program {len(times)} {what}"))
        table = np.zeros((len(order), 3), np.int64)
        table[order] = output[place + 1 : place + 1 + 3 * len(order)].reshape(-1, 3)
        times.append(table)
        place += 1 + 3 * len(order)
    return times
