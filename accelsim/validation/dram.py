"""Banked DRAM: unloaded latency, peak and refresh-limited bandwidth of every preset that has one, against closed forms.

Compared, on the controller kernel of the simulator:

* a single burst with its row open, with no row open, and with another row open: CL + burst, tRCD + CL + burst and tRP +
  tRCD + CL + burst device clocks, demanded equal; and at the preset's clock, rounded up once to a core cycle;
* a long read stream without refresh at the preset's clock and channels: one burst per slot, so the bits of the
  stream take bits ÷ peak bandwidth; ticks are rational, and rounding must lose nothing;
* the same stream with refresh: its rate is at least the peak less the time of refreshes and of closing and reopening
  the rows around them, and at most 1 − tRFC / tREFI of the peak plus one refresh that the end of the stream saves.

The timing parameters come from DRAMsim3 and gem5 (accelsim/tech/dram_timing.csv names the source of each).  The closed
forms use the same parameters: this checks the controller, not a device.  Writes, turnaround and short bursts in many
rows are checked against a stepped model in the tests.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from accelsim.arch import Accelerator, BankedDram
from accelsim.config import load_accelerator, preset_names
from accelsim.dram import D_REFRESH_INTERVAL, DramDevice, load_device
from accelsim.program import DRAM_BASE, LATENCY, N_COLUMNS, OPENS, READ0, RUN_BITS, RUNS, STRIDE, WRITE, Int64
from accelsim.validation.case import Case, Demand, Suite, ceil_div

NEVER = 1 << 40
STREAM_BURSTS = 200_000


def presets() -> list[tuple[str, Accelerator, BankedDram]]:
    """Presets with a banked DRAM."""
    found = []
    for name in preset_names():
        accelerator = load_accelerator(name)
        if isinstance(accelerator.dram, BankedDram):
            found.append((name, accelerator, accelerator.dram))
    return found


def reads(timing: Int64, ticks_per_cycle: int, transfers: list[tuple[int, int]]) -> Int64:
    """Start, end of the bus time and finish in ticks of reads one after the other, each (first burst, bursts)."""
    from accelsim.kernels.alloc import overlap_lists
    from accelsim.kernels.dram import new_state
    from accelsim.kernels.schedule import schedule

    n, burst_bits = len(transfers), int(timing[1])
    rows = np.zeros((n, N_COLUMNS), np.int64)
    for column in (READ0, READ0 + 3, READ0 + 6):
        rows[:, column] = -1
    rows[:, WRITE], rows[:, WRITE + 1], rows[:, OPENS], rows[:, LATENCY] = np.arange(n), 1, 1, 0
    rows[:, [DRAM_BASE, RUN_BITS]] = np.array(transfers, np.int64) * burst_bits
    rows[:, RUNS], rows[:, STRIDE] = 1, 0
    regions = np.array([(0, 8 * k, 8) for k in range(n)], np.int64)
    phases = np.array([(k, 1, 1, 0) for k in range(n)], np.int64)
    lists: Any = overlap_lists(regions, np.arange(n))
    state = new_state(timing)
    kernel: Any = schedule
    result = kernel(rows, phases, *lists, 1, 1, ticks_per_cycle, 1, True, (timing, state))
    return np.asarray(result[-1][:, :3], np.int64)


def unloaded(device: DramDevice, dram: BankedDram) -> dict[str, int]:
    """Device clocks from the command to the last beat of a burst whose row is open, not open, or in the way."""
    timing = dram.timing(device.clock_hz)
    assert timing is not None
    timing[D_REFRESH_INTERVAL] = NEVER
    stripe = device.bank_groups * device.row_bursts
    far = stripe * device.banks_per_group
    closed = reads(timing, 1, [(0, 1)])[-1]
    hit = reads(timing, 1, [(0, stripe), (0, 1)])[-1]
    conflict = reads(timing, 1, [(0, stripe), (far, 1)])[-1]
    return {"row open": int(hit[2] - hit[0]), "no row open": int(closed[2] - closed[0]),
            "other row open": int(conflict[2] - conflict[0])}  # fmt: skip


def _of_preset(name: str, accelerator: Accelerator, dram: BankedDram) -> list[Case]:
    device, ticks = load_device(dram.device), accelerator.bus_ticks().per_cycle
    timing = dram.timing(accelerator.clock_hz)
    assert timing is not None
    quiet = timing.copy()
    quiet[D_REFRESH_INTERVAL] = NEVER
    beats = device.cl_nck + device.burst_nck
    closed = beats + device.trcd_nck
    found = [
        Case(name, f"latency, {what}", "device clocks", form, ours)
        for (what, ours), form in zip(
            unloaded(device, dram).items(), (beats, closed, closed + device.trp_nck), strict=True
        )
    ]
    ((_, _, finish),) = reads(quiet, ticks, [(0, 1)])
    seen = ceil_div(closed * int(timing[0]), ticks)
    found.append(Case(name, "latency seen by the core, no row open", "core cycles", seen, int(finish) // ticks))
    # Twice as long a stream takes longer by its bursts only: the first rows are opened in both.
    (short,), (long,) = (reads(quiet, ticks, [(0, k * STREAM_BURSTS)]) for k in (1, 2))
    seconds = int(long[1] - short[1]) / (ticks * accelerator.clock_hz)
    gbit = STREAM_BURSTS * dram.burst_bits / 1e9
    peak = dram.bandwidth_bits_per_s / 1e9
    found.append(Case(name, "bandwidth, no refresh", "Gbit/s", peak, gbit / seconds, Demand.WITHIN, 0.0))
    ((_, end, _),) = reads(timing, ticks, [(0, STREAM_BURSTS)])
    limited = gbit / (int(end) / (ticks * accelerator.clock_hz))
    around = device.trtp_nck + device.trp_nck + device.trcd_nck + device.trrd_l_nck * device.bank_groups
    lost = (device.trfc_nck + around + device.tras_nck) / device.trefi_nck
    saved = device.trefi_nck / (STREAM_BURSTS * device.slot_nck)
    share = device.trfc_nck / device.trefi_nck
    found += [
        Case(name, "bandwidth with refresh, least", "Gbit/s", peak * (1 - lost), limited, Demand.AT_LEAST),
        Case(name, "bandwidth with refresh, most", "Gbit/s", peak * (1 - share * (1 - saved)), limited, Demand.AT_MOST),
    ]
    return found


def cases() -> list[Case]:
    """Rows of the suite."""
    return [case for preset in presets() for case in _of_preset(*preset)]


SUITE = Suite(
    name="dram",
    title="Banked DRAM of the presets",
    source="closed forms; parameters of umd-memsys/DRAMsim3@2981759 and gem5/gem5@1db206b",
    text=__doc__ or "",
    run=cases,
)
