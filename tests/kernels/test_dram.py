"""The banked DRAM kernel gives the oracle's times of every row and its counts, on random programs and devices."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.dram import DRAM_EVENTS
from accelsim.program import Program
from accelsim.reference import simulate_by_stepping
from accelsim.reference_dram import Controller
from tests.support.dram_programs import banked_program
from tests.support.kernel import run_kernel_with_dram


def assert_equal(program: Program, images: int) -> None:
    assert program.dram is not None
    controller = Controller(program.dram)
    oracle = simulate_by_stepping(program, images, controller=controller)
    result, state = run_kernel_with_dram(program, images)
    expected = np.array([[row.start, row.free, row.finish] for row in oracle]).reshape(-1, 3)
    np.testing.assert_array_equal(result[-1][:, :3], expected)
    # Refreshes after the last transfer started are no longer simulated by the kernel.
    assert state[:3] == [controller.events[name] for name in DRAM_EVENTS[:3]]
    assert state[3] <= controller.events["refreshes"]


@given(st.integers(0, 2**60))
@settings(max_examples=150, deadline=None)
def test_banked_programs_equal_oracle(seed: int) -> None:
    # 8 programs an example: 1,200 programs in all.
    for k in range(8):
        assert_equal(banked_program(seed + k), 1)


@given(st.integers(0, 2**60))
@settings(max_examples=40, deadline=None)
def test_banked_batches_equal_oracle(seed: int) -> None:
    for k in range(4):
        assert_equal(banked_program(seed + k), 2 + k % 2)
