"""Calling the schedule kernel with a Program, every row recorded."""

from __future__ import annotations

from typing import Any

from accelsim.kernels.dram import new_state
from accelsim.kernels.schedule import schedule
from accelsim.program import Program


def run_kernel(program: Program, images: int = 1) -> Any:
    """What `schedule` returns."""
    return run_kernel_with_dram(program, images)[0]


def run_kernel_with_dram(program: Program, images: int = 1) -> tuple[Any, list[int]]:
    """What `schedule` returns, and the state of the DRAM afterwards (counts of DRAM_EVENTS first)."""
    state = None if program.dram is None else new_state(program.dram)
    result = schedule(
        program.templates,
        program.phases,
        program.before_start,
        program.before,
        program.wrap_start,
        program.wrap,
        len(program.units),
        len(program.op_names),
        program.ticks_per_cycle,
        images,
        True,
        None if state is None else (program.dram, state),
    )
    return result, [] if state is None else state.tolist()
