"""The Program: loop-compressed rows that units execute in order, and the regions of the buffers they touch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]

# One column table for templates; kernels index it by these positions.  A region reference is (base, ring, shift): in
# iteration i of a phase it means region base + (i + shift) mod ring; base -1 means none.
TEMPLATE_COLUMNS: tuple[str, ...] = (
    "unit",
    "op",
    "occupancy_ticks",  # until the unit is free again
    "latency_ticks",  # until the result is usable, at least the occupancy
    "read0",
    "read0_ring",
    "read0_shift",
    "read1",
    "read1_ring",
    "read1_shift",
    "read2",
    "read2_ring",
    "read2_shift",
    "write",
    "write_ring",
    "write_shift",
    "opens",  # 1: opens a generation of the written region; 0: adds to the open one
    "dep0",  # explicit dependency on the row that is this many rows earlier, at most 63; 0: none
    "dep1",
    "dram_base_bits",  # DRAM descriptor; all zero for rows that are not transfers
    "dram_step_bits",  # base moves by this much per iteration
    "run_bits",
    "runs",
    "stride_bits",
    "lead_ticks",  # of a unit with an output stage: from the start to the first result that the stage takes; 0: none
)
N_COLUMNS = len(TEMPLATE_COLUMNS)
(
    UNIT, OP, OCCUPANCY, LATENCY, READ0, READ0_RING, READ0_SHIFT, READ1, READ1_RING, READ1_SHIFT, READ2, READ2_RING,
    READ2_SHIFT, WRITE, WRITE_RING, WRITE_SHIFT, OPENS, DEP0, DEP1, DRAM_BASE, DRAM_STEP, RUN_BITS, RUNS, STRIDE,
    LEAD,
) = range(N_COLUMNS)  # fmt: skip

# A phase repeats `rows` consecutive templates `count` times; iterations are numbered from `first_iteration`.
FIRST_TEMPLATE, PHASE_ROWS, COUNT, FIRST_ITERATION = range(4)

REGION_BUFFER, REGION_OFFSET, REGION_BITS = range(3)
BUFFERS: tuple[str, ...] = ("activation", "weight")

CAUSES: tuple[str, ...] = ("region", "bus", "input", "dependency", "output")


@dataclass(frozen=True)
class Row:
    """One expanded row, as the oracle, the RTL and the trace see it.  `label` counts the iterations of its phase."""

    unit: int
    op: int
    occupancy_ticks: int
    latency_ticks: int
    reads: tuple[int, ...]
    write: int
    opens: bool
    deps: tuple[int, ...]
    iteration: int
    dram_base_bits: int = 0
    run_bits: int = 0
    runs: int = 0
    stride_bits: int = 0
    lead_ticks: int = 0


@dataclass(frozen=True, eq=False)
class Program:
    """What the units execute.

    `units` ends with "dram", the only unit whose times may be fractions of a cycle.  All times are ticks of
    1/`ticks_per_cycle` of a core cycle.  `before`/`before_start` list (CSR by region) the regions whose generations
    must be closed when a region is opened for the first time in the first image; `wrap`/`wrap_start` the same for later
    images of a batch.  `dram` is the timing of a banked DRAM (`accelsim.dram.DRAM_COLUMNS`), whose rows then take what
    their addresses and the state of the banks make of them, at least the occupancy and latency written here; None for
    fixed bandwidth.
    """

    units: tuple[str, ...]
    op_names: tuple[str, ...]
    ticks_per_cycle: int
    templates: Int64
    phases: Int64
    regions: Int64
    before_start: Int64
    before: Int64
    wrap_start: Int64
    wrap: Int64
    dram: Int64 | None = None

    @property
    def n_rows(self) -> int:
        """Rows of one image after expansion."""
        return int((self.phases[:, PHASE_ROWS] * self.phases[:, COUNT]).sum())

    def expand(self, images: int = 1) -> Iterator[Row]:
        """The rows of `images` images in program order; dependencies become absolute row numbers."""
        number = 0
        for _ in range(images):
            for first, rows, count, iteration0 in self.phases.tolist():
                for iteration in range(iteration0, iteration0 + count):
                    for template in range(first, first + rows):
                        yield _row(self.templates[template], iteration, number)
                        number += 1


def _row(template: Int64, iteration: int, number: int) -> Row:
    def region(column: int) -> int:
        base, ring, shift = (int(x) for x in template[column : column + 3])
        return base if base < 0 else base + (iteration + shift) % ring

    reads = tuple(region(column) for column in (READ0, READ1, READ2) if template[column] >= 0)
    deps = tuple(number - int(template[column]) for column in (DEP0, DEP1) if template[column] > 0)
    return Row(
        unit=int(template[UNIT]),
        op=int(template[OP]),
        occupancy_ticks=int(template[OCCUPANCY]),
        latency_ticks=int(template[LATENCY]),
        reads=reads,
        write=region(WRITE),
        opens=bool(template[OPENS]),
        deps=tuple(dep for dep in deps if dep >= 0),
        iteration=iteration,
        dram_base_bits=int(template[DRAM_BASE] + template[DRAM_STEP] * iteration),
        run_bits=int(template[RUN_BITS]),
        runs=int(template[RUNS]),
        stride_bits=int(template[STRIDE]),
        lead_ticks=int(template[LEAD]),
    )
