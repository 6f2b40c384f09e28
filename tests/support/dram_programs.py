"""Random DRAM devices and programs whose bus rows have addresses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from accelsim.dram import DramDevice
from accelsim.program import DRAM_BASE, DRAM_STEP, LATENCY, OCCUPANCY, RUN_BITS, RUNS, STRIDE, UNIT, Program
from tests.support.random_programs import flat_program, ring_program

BURST_BITS = 64


def device(**changes: int) -> DramDevice:
    """A small regular device; `changes` are fields, times without their `_nck`."""
    known: dict[str, Any] = {
        "clock_hz": 600_000_000, "bus_bits": 16, "burst_length": 4, "burst": 2, "bank_groups": 2,
        "banks_per_group": 2, "row_bytes": 32, "cl": 7, "cwl": 4, "trcd": 6, "trp": 5, "tras": 14, "trfc": 30,
        "trefi": 100_000, "tfaw": 8, "trrd_s": 2, "trrd_l": 3, "tccd_s": 2, "tccd_l": 3, "twr": 8, "trtp": 3,
        "twtr_s": 2, "twtr_l": 4, "trtw_bubble": 1,
    }  # fmt: skip
    plain = ("clock_hz", "bus_bits", "burst_length", "bank_groups", "banks_per_group", "row_bytes")
    known.update(changes)
    made = DramDevice(
        name="test", energy_type="DDR4", **{key if key in plain else f"{key}_nck": n for key, n in known.items()}
    )
    assert not list(made.faults())
    return made


def random_device(rng: np.random.Generator) -> DramDevice:
    """Any geometry and any times that `DramDevice.faults` accepts, small enough that they meet each other."""

    def draw(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    groups, burst, short = 1 << draw(0, 2), draw(1, 4), draw(1, 5)
    rrd, wtr, refresh, precharge = draw(1, 6), draw(0, 5), draw(1, 40), draw(1, 9)
    return device(
        burst=burst,
        bank_groups=groups,
        banks_per_group=1 << draw(0, 2),
        row_bytes=8 << draw(0, 3),
        cl=draw(1, 12),
        cwl=draw(1, 12),
        trcd=draw(1, 12),
        trp=precharge,
        tras=draw(1, 30),
        trfc=refresh,
        trefi=refresh + precharge + draw(1, 150),
        tfaw=draw(1, 40),
        trrd_s=rrd,
        trrd_l=rrd + draw(0, 4),
        tccd_s=short,
        tccd_l=draw(short, max(short, max(burst, short) * groups)),
        twr=draw(1, 15),
        trtp=draw(1, 8),
        twtr_s=wtr,
        twtr_l=wtr + draw(0, 6),
        trtw_bubble=draw(0, 3),
    )


def with_dram(program: Program, made: DramDevice, nck_ticks: int, rng: np.random.Generator) -> Program:
    """The program on a banked DRAM, its bus rows at random addresses: runs, strides, steps, few rows and banks."""
    templates = program.templates.copy()
    span = int(made.bank_groups * made.banks_per_group * made.row_bytes * 8 * rng.integers(1, 4))
    bus = templates[:, UNIT] == len(program.units) - 1
    for t in np.flatnonzero(bus):
        templates[t, [DRAM_BASE, DRAM_STEP, RUNS, RUN_BITS, STRIDE]] = (
            rng.integers(0, span), rng.integers(0, span // 2), rng.choice([1, 1, 2, 5]),
            rng.integers(1, BURST_BITS * rng.choice([2, 6, 24])), rng.integers(0, span // 2),
        )  # fmt: skip
        # Nobody may use these when the DRAM has banks.
        templates[t, [OCCUPANCY, LATENCY]] = 0
    return replace(program, templates=templates, dram=made.timing(1, nck_ticks))


def banked_program(seed: int) -> Program:
    """A random program of `random_programs` on a random device; one device clock is 1 … 4 ticks."""
    rng = np.random.default_rng(seed)
    program = (flat_program if rng.random() < 0.6 else ring_program)(seed)
    return with_dram(program, random_device(rng), int(rng.integers(1, 5)), rng)
