"""The kernel gives the oracle's start, unit-free and finish time of every row, on random programs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.program import Program
from accelsim.reference import simulate_by_stepping
from tests.support.kernel import run_kernel
from tests.support.random_programs import flat_program, ring_program


def assert_equal(program: Program, images: int) -> None:
    oracle = simulate_by_stepping(program, images)
    rows = run_kernel(program, images)[-1]
    expected = np.array([[row.start, row.free, row.finish] for row in oracle]).reshape(-1, 3)
    np.testing.assert_array_equal(rows[:, :3], expected)


@given(st.integers(0, 2**60))
@settings(max_examples=500, deadline=None)
def test_flat_programs_equal_oracle(seed: int) -> None:
    # 12 programs an example: 6,000 programs in all.
    for k in range(12):
        assert_equal(flat_program(seed + k), 1)


@given(st.integers(0, 2**60))
@settings(max_examples=250, deadline=None)
def test_ring_programs_equal_oracle(seed: int) -> None:
    # 12 programs an example: 3,000 programs in all.
    for k in range(12):
        assert_equal(ring_program(seed + k), 1)


@given(st.integers(0, 2**60))
@settings(max_examples=125, deadline=None)
def test_batches_equal_oracle(seed: int) -> None:
    # 12 programs an example: 1,500 programs of two or three images.
    for k in range(6):
        assert_equal(flat_program(seed + k), 2)
        assert_equal(ring_program(seed + k), 3)


@given(st.integers(0, 2**60))
@settings(max_examples=200, deadline=None)
def test_every_tick_is_attributed(seed: int) -> None:
    for make in (flat_program, ring_program):
        program = make(seed)
        busy, wait, free, *_, image_finish, rows = run_kernel(program, 2)
        for unit in range(len(program.units)):
            assert busy[unit] + wait[unit].sum() == free[unit] <= image_finish[-1]
        assert (rows[rows[:, 5] > 0, 3] >= 0).all()
        blocked = rows[rows[:, 5] > 0]
        assert (rows[blocked[:, 4], 1:3].max(axis=1) >= blocked[:, 0] - program.ticks_per_cycle + 1).all()


@given(st.integers(0, 2**60), st.integers(0, 13), st.sampled_from([2, 3]))
@settings(max_examples=400, deadline=None)
def test_shortening_a_row_never_delays_any_row(seed: int, which: int, column: int) -> None:
    program = flat_program(seed)
    before = run_kernel(program)[-1]
    templates = program.templates.copy()
    row = which % len(templates)
    step = 1 if templates[row, 0] == len(program.units) - 1 else program.ticks_per_cycle
    if column == 2:  # a shorter occupancy with the same drain
        if templates[row, 2] <= step:
            return
        templates[row, 2] -= step
        templates[row, 3] -= step
    elif templates[row, 3] - step >= templates[row, 2]:
        templates[row, 3] -= step
    from dataclasses import replace

    after = run_kernel(replace(program, templates=templates))[-1]
    assert (after[:, :3] <= before[:, :3]).all()


def test_oracle_reports_deadlock() -> None:
    program = flat_program(1)
    with pytest.raises(RuntimeError, match="no end"):
        simulate_by_stepping(program, 1, limit_ticks=0)
