"""Random legal programs for comparing the kernel with the oracle."""

from __future__ import annotations

import numpy as np

from accelsim.kernels.alloc import overlap_lists
from accelsim.program import (
    COUNT,
    DEP0,
    DEP1,
    FIRST_TEMPLATE,
    LATENCY,
    LEAD,
    N_COLUMNS,
    OCCUPANCY,
    OP,
    OPENS,
    PHASE_ROWS,
    READ0,
    UNIT,
    WRITE,
    Program,
)


class _Builder:
    """Draws rows one by one, keeping the rules of lowering: no read of a clobbered region, none before a write."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.n_units = int(self.rng.integers(2, 5))
        self.ticks = int(self.rng.choice([1, 1, 2, 3]))
        n_regions = int(self.rng.integers(1, 7))
        self.regions = np.zeros((n_regions, 3), np.int64)
        self.regions[:, 0] = self.rng.integers(0, 2, n_regions)
        self.regions[:, 1] = self.rng.integers(0, 12, n_regions)
        self.regions[:, 2] = self.rng.integers(1, 7, n_regions)
        self.dead: set[int] = set()
        self.opened: list[int] = []
        self.read_since_open: set[int] = set()
        self.written_by_phase: dict[int, int] = {}

    def _kill_overlapped(self, region: int) -> None:
        buffer, low, bits = self.regions[region]
        for other in list(self.opened):
            other_buffer, other_low, other_bits = self.regions[other]
            if other != region and other_buffer == buffer and low < other_low + other_bits and other_low < low + bits:
                self.dead.add(other)

    def row(self, ring: int) -> np.ndarray:
        rng = self.rng
        row = np.zeros(N_COLUMNS, np.int64)
        row[[READ0, READ0 + 3, READ0 + 6, WRITE]] = -1
        unit = int(rng.integers(0, self.n_units))
        scale = 1 if unit == self.n_units - 1 else self.ticks
        row[UNIT] = unit
        row[OP] = int(rng.integers(0, 3))
        row[OCCUPANCY] = int(rng.integers(1, 9)) * scale
        row[LATENCY] = row[OCCUPANCY] + int(rng.integers(0, 5)) * scale
        if unit < self.n_units - 1 and rng.random() < 0.5:
            row[LEAD] = int(rng.integers(1, 8)) * scale
        if rng.random() < 0.7:
            alive = [r for r in range(len(self.regions)) if r not in self.dead]
            if alive:
                region = int(rng.choice(alive))
                opens = region not in self.opened or region in self.read_since_open or rng.random() < 0.5
                if opens:
                    self._kill_overlapped(region)
                    if region not in self.opened:
                        self.opened.append(region)
                    self.read_since_open.discard(region)
                row[WRITE], row[WRITE + 1], row[OPENS] = region, 1, int(opens)
        readable = [r for r in self.opened if r not in self.dead and r != row[WRITE]]
        rng.shuffle(readable)
        for k, region in enumerate(readable[: int(rng.integers(0, 4))]):
            row[READ0 + 3 * k], row[READ0 + 3 * k + 1] = region, 1
            self.read_since_open.add(region)
        for column in (DEP0, DEP1):
            if rng.random() < 0.25:
                row[column] = int(rng.integers(1, 12))
        return row


def flat_program(seed: int) -> Program:
    """Up to 14 rows in one phase each, random overlapping regions, partial sums, dependencies."""
    builder = _Builder(seed)
    rows = [builder.row(1) for _ in range(int(builder.rng.integers(1, 15)))]
    return _program(builder, rows, [(k, 1, 1, 0) for k in range(len(rows))], builder.opened)


def ring_program(seed: int) -> Program:
    """A producer-consumer chain over rings, repeated in compressed phases, with prologue and epilogue."""
    rng = np.random.default_rng(seed)
    builder = _Builder(seed)
    n_units = builder.n_units
    stages = int(rng.integers(1, 4))
    rings = rng.integers(1, 4, stages + 1)
    base = np.concatenate([[0], np.cumsum(rings)])
    builder.regions = np.array([[0, 4 * k, 4] for k in range(int(base[-1]))], np.int64)
    rows = []
    for stage in range(stages + 1):
        row = np.zeros(N_COLUMNS, np.int64)
        row[[READ0, READ0 + 3, READ0 + 6, WRITE]] = -1
        unit = int(rng.integers(0, n_units))
        scale = 1 if unit == n_units - 1 else builder.ticks
        row[UNIT], row[OP] = unit, stage % 3
        row[OCCUPANCY] = int(rng.integers(1, 9)) * scale
        row[LATENCY] = row[OCCUPANCY] + int(rng.integers(0, 5)) * scale
        if unit < n_units - 1 and rng.random() < 0.5:
            row[LEAD] = int(rng.integers(1, 8)) * scale
        row[WRITE], row[WRITE + 1], row[WRITE + 2], row[OPENS] = base[stage], rings[stage], rng.integers(0, 4), 1
        if stage > 0:
            row[READ0], row[READ0 + 1], row[READ0 + 2] = base[stage - 1], rings[stage - 1], rows[-1][WRITE + 2]
        if rng.random() < 0.3:
            row[DEP0] = int(rng.integers(1, 8))
        rows.append(row)
    head, count = int(rng.integers(0, 3)), int(rng.integers(1, 7))
    phases = [(0, stages + 1, 1, i) for i in range(head)] + [(0, stages + 1, count, head)]
    opened: list[int] = []
    for first, n, repeat, start in phases:
        for iteration in range(start, start + repeat):
            for t in range(first, first + n):
                region = int(rows[t][WRITE] + (iteration + rows[t][WRITE + 2]) % rows[t][WRITE + 1])
                if region not in opened:
                    opened.append(region)
    return _program(builder, rows, phases, opened)


def _program(
    builder: _Builder, rows: list[np.ndarray], phases: list[tuple[int, int, int, int]], opened: list[int]
) -> Program:
    assert {FIRST_TEMPLATE, PHASE_ROWS, COUNT} == {0, 1, 2}
    lists = overlap_lists(builder.regions, np.array(opened, np.int64))
    return Program(
        units=(*(f"u{k}" for k in range(builder.n_units - 1)), "dram"),
        op_names=("a", "b", "c"),
        ticks_per_cycle=builder.ticks,
        templates=np.array(rows, np.int64),
        phases=np.array(phases, np.int64),
        regions=builder.regions,
        before_start=lists[0],
        before=lists[1],
        wrap_start=lists[2],
        wrap=lists[3],
    )
