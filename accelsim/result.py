"""SimResult: what the kernel counted, as integers with names, and the rows of a recorded run."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from accelsim.dram import DRAM_EVENTS
from accelsim.lowering import Lowered
from accelsim.program import CAUSES, Int64, Program


@dataclass(frozen=True, eq=False)
class SimResult:
    """Times in ticks (`program.ticks_per_cycle` to a core cycle) and counts.

    Op arrays belong to the first image; unit arrays to all `images`.  For every unit, busy + waits + drained =
    `total_ticks`.  `op_own_ticks` are the ticks during which an op is the oldest unfinished one; they sum to the
    finish of the first image.  `rows` is empty unless the run was recorded.  `dram_events` are the numbers of
    `DRAM_EVENTS` over all images; all zero for fixed bandwidth.
    """

    program: Program
    counts: Int64
    images: int
    unit_busy_ticks: Int64
    unit_wait_ticks: Int64
    unit_drained_ticks: Int64
    op_start_ticks: Int64
    op_finish_ticks: Int64
    op_own_ticks: Int64
    op_wait_ticks: Int64
    image_finish_ticks: Int64
    rows: Int64
    dram_events: Int64

    @property
    def total_ticks(self) -> int:
        """Finish of the last image."""
        return int(self.image_finish_ticks[-1])

    @property
    def cycles_total(self) -> int:
        """Core cycles until everything has finished."""
        return -(-self.total_ticks // self.program.ticks_per_cycle)

    @property
    def first_image_cycles(self) -> int:
        """Core cycles until the first image has finished."""
        return -(-int(self.image_finish_ticks[0]) // self.program.ticks_per_cycle)

    @property
    def initiation_interval_cycles(self) -> Fraction:
        """Distance of the finishes of the last two images (of one image: its finish), exact."""
        if self.images == 1:
            return Fraction(self.total_ticks, self.program.ticks_per_cycle)
        last, before = int(self.image_finish_ticks[-1]), int(self.image_finish_ticks[-2])
        return Fraction(last - before, self.program.ticks_per_cycle)

    def busy_cycles(self) -> dict[str, int]:
        """Busy core cycles of every unit; the bus is rounded up."""
        ticks = self.program.ticks_per_cycle
        return {
            unit: -(-int(busy) // ticks) for unit, busy in zip(self.program.units, self.unit_busy_ticks, strict=True)
        }

    def named_dram_events(self) -> dict[str, int]:
        """Bursts that found their row open, no row, another row, and refreshes, over all images."""
        return {name: int(count) for name, count in zip(DRAM_EVENTS, self.dram_events, strict=True)}

    def waits(self, unit: int) -> dict[str, float]:
        """Waiting cycles of a unit by cause."""
        ticks = self.program.ticks_per_cycle
        return {cause: int(w) / ticks for cause, w in zip(CAUSES, self.unit_wait_ticks[unit], strict=True)}


def run_program(lowered: Lowered, images: int = 1, record: bool = False) -> SimResult:
    """Simulate `images` images of a lowered program; `record` keeps the times of every row."""
    from accelsim.kernels.dram import new_state
    from accelsim.kernels.schedule import schedule

    program = lowered.program
    dram = None if program.dram is None else (program.dram, new_state(program.dram))
    busy, wait, free, op_start, op_finish, op_wait, image_finish, rows = schedule(
        program.templates, program.phases, program.before_start, program.before, program.wrap_start, program.wrap,
        len(program.units), len(program.op_names), program.ticks_per_cycle, images, record, dram,
    )  # fmt: skip
    oldest = np.maximum.accumulate(op_finish)
    return SimResult(
        program=program,
        counts=lowered.counts,
        images=images,
        unit_busy_ticks=busy,
        unit_wait_ticks=wait,
        unit_drained_ticks=image_finish[-1] - free,
        op_start_ticks=op_start,
        op_finish_ticks=op_finish,
        op_own_ticks=np.diff(oldest, prepend=0),
        op_wait_ticks=op_wait,
        image_finish_ticks=image_finish,
        rows=rows,
        dram_events=np.zeros(len(DRAM_EVENTS), np.int64) if dram is None else dram[1][: len(DRAM_EVENTS)],
    )


def named_counts(values: Int64, columns: tuple[str, ...]) -> dict[str, int]:
    """Counts by name, zeros left out."""
    return {name: int(value) for name, value in zip(columns, values, strict=True) if value}
