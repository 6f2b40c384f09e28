"""The RTL sequencer executes random programs with the kernel's start, unit-free and finish time of every row."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from accelsim.api import evaluate
from accelsim.config import load_accelerator, load_plan
from accelsim.problems import AccelsimError
from accelsim.program import LATENCY, OCCUPANCY, Program
from accelsim.rtl.sequencer import SequencerSize, build_sequencer, instructions, run_programs
from accelsim.rtl.validate import kernel_times
from tests.support.hand_programs import hand_program
from tests.support.random_programs import flat_program, ring_program

SIZE = SequencerSize()


def cases(count: int, first: int = 0) -> list[tuple[Program, int]]:
    """`count` programs of each kind, and half as many batches."""
    found = []
    for seed in range(first, first + count):
        found += [(flat_program(seed), 1), (ring_program(seed), 1)]
        if seed % 4 == 0:
            found += [(flat_program(seed), 2), (ring_program(seed), 3)]
    return found


@pytest.fixture(scope="module")
def executable(rtl_folder: Path) -> Path:
    return build_sequencer(SIZE, rtl_folder)


def test_every_row_of_2500_random_programs_equals_the_kernel(executable: Path) -> None:
    programs = cases(1000)
    assert len(programs) == 2500
    runs = run_programs(programs, SIZE, executable)
    wrong = [
        k for k, ((program, images), times) in enumerate(zip(programs, runs.times, strict=True))
        if not np.array_equal(times, kernel_times(program, images))
    ]  # fmt: skip
    assert wrong == []


@pytest.mark.parametrize("fault", ["PLANT_LATE_RELEASE", "PLANT_NO_LEAD"])
def test_a_fault_in_the_rtl_is_caught(rtl_folder: Path, fault: str) -> None:
    bad = build_sequencer(SIZE, rtl_folder, (fault,))
    programs = cases(100, 5000)
    runs = run_programs(programs, SIZE, bad)
    assert any(
        not np.array_equal(times, kernel_times(program, images))
        for (program, images), times in zip(programs, runs.times, strict=True)
    )


def test_a_cycle_more_in_the_simulator_is_caught(executable: Path) -> None:
    program = ring_program(3)
    late = program.templates.copy()
    late[0, [OCCUPANCY, LATENCY]] += program.ticks_per_cycle
    times = run_programs([(program, 1)], SIZE, executable).times[0]
    assert np.array_equal(times, kernel_times(program))
    assert not np.array_equal(times, kernel_times(replace(program, templates=late)))


def hand_over(ticks_per_cycle: int) -> Program:
    rows = [
        {"unit": "dram", "ticks": (1, 2), "write": "in"},
        {"unit": "array", "ticks": (ticks_per_cycle, 4 * ticks_per_cycle), "reads": ["in"], "write": "out"},
        {"unit": "dram", "ticks": (1, 1), "write": "in"},
        {"unit": "dram", "ticks": (1, 1), "reads": ["out"]},
    ]
    return hand_program(["array", "dram"], {"in": (0, 0, 8), "out": (0, 8, 8)}, rows, ticks_per_cycle)


@pytest.mark.parametrize(("ticks", "starts"), [(1, [0, 2, 3, 6]), (3, [0, 3, 6, 15])])
def test_rows_start_in_the_cycle_in_which_the_last_condition_is_met(
    executable: Path, ticks: int, starts: list[int]
) -> None:
    """Usable at 2 (rounded up to 3): read at once; released after one cycle: overwritten at once; usable: stored."""
    times = run_programs([(hand_over(ticks), 1)], SIZE, executable).times[0]
    assert times[:, 0].tolist() == starts


def test_what_does_not_fit_or_takes_no_time_is_refused() -> None:
    program = ring_program(3)
    with pytest.raises(AccelsimError, match="too few rows of a unit"):
        run_programs([(program, 1)], replace(SIZE, n_rows=1), Path("never run"))
    nothing = program.templates.copy()
    nothing[0, OCCUPANCY] = 0
    with pytest.raises(AccelsimError, match="whole cycles, at least 1"):
        instructions(replace(program, templates=nothing))


def test_the_whole_program_of_b1_equals_the_kernel(rtl_folder: Path) -> None:
    size = SequencerSize(n_rows=1024, n_waits=32, n_semaphores=1024)
    program = evaluate("efficientvit_b1", 224, load_accelerator("trio_vit"), load_plan("uniform8")).result.program
    runs = run_programs([(program, 1)], size, build_sequencer(size, rtl_folder))
    assert runs.ticks == 391_709 * program.ticks_per_cycle
    assert np.array_equal(runs.times[0], kernel_times(program))
