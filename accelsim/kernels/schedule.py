"""The simulation kernel: one pass over the compressed rows, max-plus recurrences, integers only.

Rows are visited in program order, in which every unit issues its own rows in order and every condition of a row points
backwards, so one pass gives the start of every row.  `docs/contract.md` states the semantics; `reference.py` steps them
one tick at a time.  The loop body is one long function on purpose: split into functions (inlined ones, too) it runs at
a third of the speed (`python benchmarks/speed.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from accelsim.kernels.dram import transfer
from accelsim.kernels.jit import inner, jit
from accelsim.program import (
    CAUSES,
    COUNT,
    DEP0,
    DEP1,
    DRAM_BASE,
    DRAM_STEP,
    FIRST_ITERATION,
    FIRST_TEMPLATE,
    LATENCY,
    LEAD,
    OCCUPANCY,
    OP,
    OPENS,
    PHASE_ROWS,
    READ0,
    RUN_BITS,
    RUNS,
    STRIDE,
    UNIT,
    WRITE,
)

_CAUSES = len(CAUSES)
# State of a region (columns of one array, so that a region is one cache line).
_USABLE, _USABLE_ROW, _USABLE_BUS, _RELEASED, _RELEASED_ROW, _OPEN, _OPEN_ROW, _IMAGE = range(8)


@inner
def _region_index(templates: Any, t: int, column: int, iteration: int) -> int:
    ring = templates[t, column + 1]
    if ring <= 1:
        return templates[t, column]
    return templates[t, column] + (iteration + templates[t, column + 2]) % ring


@inner
def _close_time(state: Any, region: int) -> Any:
    """When the current generation of a region is closed, and the row that closes it."""
    if state[region, _RELEASED] > state[region, _USABLE]:
        return state[region, _RELEASED], state[region, _RELEASED_ROW]
    return state[region, _USABLE], state[region, _USABLE_ROW]


@inner
def _open_region(state: Any, region: int, image: int, start_lists: Any, lists: Any) -> None:
    """Begin a new generation: it is open once its own last generation and all it overlaps are closed."""
    time, row = _close_time(state, region)
    if state[region, _IMAGE] != image:
        for k in range(start_lists[region], start_lists[region + 1]):
            other_time, other_row = _close_time(state, lists[k])
            if other_time > time:
                time = other_time
                row = other_row
        state[region, _IMAGE] = image
    state[region, _OPEN] = time
    state[region, _OPEN_ROW] = row
    state[region, _USABLE] = 0
    state[region, _USABLE_ROW] = -1
    state[region, _USABLE_BUS] = 0
    state[region, _RELEASED] = 0
    state[region, _RELEASED_ROW] = -1


@jit
def schedule(
    templates: Any,
    phases: Any,
    before_start: Any,
    before: Any,
    wrap_start: Any,
    wrap: Any,
    n_units: int,
    n_ops: int,
    ticks_per_cycle: int,
    images: int,
    record: bool,
    banked: Any,
) -> Any:
    """Start, finish and waits of everything.

    `banked` is None for fixed-bandwidth DRAM, else (timing, state) of `kernels.dram`, whose state it moves on.  The two
    types give two compiled kernels, so fixed bandwidth pays nothing for the other.

    Returns (unit_busy[u], unit_wait[u, cause], unit_free[u], op_start[o], op_finish[o], op_wait[o, cause],
    image_finish[i], rows[n, 6]) in ticks; the last unit is the DRAM bus.  `rows` has start, unit free, result usable,
    cause, blocking row and waiting time of every row when `record` is set, else no rows.  Op arrays are of the first
    image only; unit arrays of all images.
    """
    n_regions = before_start.size - 1
    dram = n_units - 1
    state = np.zeros((n_regions, 8), np.int64)
    state[:, _IMAGE] = -1
    free = np.zeros(n_units, np.int64)
    busy = np.zeros(n_units, np.int64)
    wait = np.zeros((n_units, _CAUSES), np.int64)
    finished = np.zeros(n_units, np.int64)
    finished_row = np.full(n_units, -1, np.int64)
    op_start = np.full(n_ops, -1, np.int64)
    op_finish = np.zeros(n_ops, np.int64)
    op_wait = np.zeros((n_ops, _CAUSES), np.int64)
    image_finish = np.zeros(images, np.int64)
    ring = np.zeros(64, np.int64)
    n_rows = 0
    if record:
        for p in range(phases.shape[0]):
            n_rows += phases[p, PHASE_ROWS] * phases[p, COUNT]
        n_rows *= images
    rows = np.zeros((n_rows, 6), np.int64)
    number = 0
    last = 0
    for image in range(images):
        starts = before_start if image == 0 else wrap_start
        lists = before if image == 0 else wrap
        for p in range(phases.shape[0]):
            first = phases[p, FIRST_TEMPLATE]
            stop = first + phases[p, PHASE_ROWS]
            iteration0 = phases[p, FIRST_ITERATION]
            for iteration in range(iteration0, iteration0 + phases[p, COUNT]):
                for t in range(first, stop):
                    unit = templates[t, UNIT]
                    start = free[unit]
                    cause = -1
                    blocker = -1
                    write = -1
                    # Ties: in the order of CAUSES. A later test replaces an earlier one only if it is greater.
                    if templates[t, WRITE] >= 0:
                        write = _region_index(templates, t, WRITE, iteration)
                        if templates[t, OPENS] == 1:
                            _open_region(state, write, image, starts, lists)
                        if state[write, _OPEN] > start:
                            start = state[write, _OPEN]
                            cause = 0
                            blocker = state[write, _OPEN_ROW]
                    for k in range(3):
                        column = READ0 + 3 * k
                        if templates[t, column] >= 0:
                            read = _region_index(templates, t, column, iteration)
                            usable = state[read, _USABLE]
                            by_bus = state[read, _USABLE_BUS]
                            if usable > start or (usable == start and cause == 2 and by_bus == 1):
                                start = usable
                                cause = 1 if by_bus == 1 else 2
                                blocker = state[read, _USABLE_ROW]
                    for k in range(2):
                        distance = templates[t, DEP0 if k == 0 else DEP1]
                        if 0 < distance <= number and ring[(number - distance) & 63] > start:
                            start = ring[(number - distance) & 63]
                            cause = 3
                            blocker = number - distance
                    lead = templates[t, LEAD]
                    if lead > 0 and finished[unit] - lead > start:
                        start = finished[unit] - lead
                        cause = 4
                        blocker = finished_row[unit]
                    op = templates[t, OP]
                    waited = start - free[unit]
                    if waited > 0:
                        wait[unit, cause] += waited
                        if image == 0:
                            op_wait[op, cause] += waited
                    end = start + templates[t, OCCUPANCY]
                    finish = start + templates[t, LATENCY]
                    if banked is not None:  # noqa: SIM102 (only this form leaves the other kernel without the branch)
                        if unit == dram:
                            end, finish = transfer(
                                banked[0],
                                banked[1],
                                start,
                                templates[t, DRAM_BASE] + templates[t, DRAM_STEP] * iteration,
                                templates[t, RUN_BITS],
                                templates[t, RUNS],
                                templates[t, STRIDE],
                                write < 0,
                            )
                    released = end
                    if unit == dram and ticks_per_cycle > 1:
                        released = (end + ticks_per_cycle - 1) // ticks_per_cycle * ticks_per_cycle
                        finish = (finish + ticks_per_cycle - 1) // ticks_per_cycle * ticks_per_cycle
                    free[unit] = end
                    busy[unit] += end - start
                    ring[number & 63] = finish
                    finished[unit] = finish
                    finished_row[unit] = number
                    for k in range(3):
                        column = READ0 + 3 * k
                        if templates[t, column] >= 0:
                            read = _region_index(templates, t, column, iteration)
                            if released > state[read, _RELEASED]:
                                state[read, _RELEASED] = released
                                state[read, _RELEASED_ROW] = number
                    if write >= 0 and finish > state[write, _USABLE]:
                        state[write, _USABLE] = finish
                        state[write, _USABLE_ROW] = number
                        state[write, _USABLE_BUS] = 1 if unit == dram else 0
                    if image == 0:
                        if op_start[op] < 0 or start < op_start[op]:
                            op_start[op] = start
                        if finish > op_finish[op]:
                            op_finish[op] = finish
                    if finish > last:
                        last = finish
                    if record:
                        rows[number, 0] = start
                        rows[number, 1] = end
                        rows[number, 2] = finish
                        rows[number, 3] = cause
                        rows[number, 4] = blocker
                        rows[number, 5] = waited
                    number += 1
        image_finish[image] = last
    return busy, wait, free, op_start, op_finish, op_wait, image_finish, rows
