"""One machine: sequencer, engine, two operand memories and bus run double-buffered tiles with the kernel's times."""

from pathlib import Path

import numpy as np
import pytest

from accelsim.formats import Format
from accelsim.ir import Loop
from accelsim.rtl.system import build_system, run_system
from accelsim.rtl.tiles import random_job
from accelsim.rtl.validate import SMALL_ENGINES, kernel_times

TILES = {
    "bus-bound": (Loop(1, 4, 1, 3, 9), "u8"),
    "engine-bound": (Loop(1, 9, 1, 8, 20, 2, 1), "u8"),
    "two products": (Loop(2, 5, 1, 11, 6), "u4"),
    "depthwise": (Loop(7, 5, 3, 1, 1, 3, 3), "u4"),
}


@pytest.mark.parametrize("name", TILES)
def test_times_and_values_of_a_double_buffered_run(name: str, rtl_folder: Path) -> None:
    """Loads arrive at the last moment: the engine reads a line in the cycle after the edge that wrote it."""
    engine = SMALL_ENGINES[0]
    tile, weight = TILES[name]
    made = [random_job(tile, Format.parse(weight), seed) for seed in range(8)]
    program, found = run_system(engine, [job for job, _ in made], build_system(engine, rtl_folder))
    assert np.array_equal(found.times, kernel_times(program))
    for (_, expected), outputs in zip(made, found.outputs, strict=True):
        assert np.array_equal(outputs, expected)
    # Some tile starts in the very cycle in which its weights become usable, else this test would show little.
    starts, weights = found.times[program.templates[:, 0] == 0, 0], found.times[:, 2]
    assert set(starts.tolist()) & set(weights.tolist())
