"""DRAM devices as data: geometry and timing of one channel in clocks of the device, from `tech/dram_timing.csv`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache

import numpy as np

from accelsim.problems import AccelsimError, Problem
from accelsim.program import Int64
from accelsim.technology import read_csv

FILE = "dram_timing.csv"

# What the controller kernel and its oracle read, an int64 each; times are in device clocks (nCK).
DRAM_COLUMNS: tuple[str, ...] = (
    "nck_ticks",  # ticks of the program per device clock
    "burst_bits",  # of all channels together
    "bank_groups",
    "banks_per_group",
    "row_bursts",  # bursts in the open row of one bank
    "slot",  # between two bursts: the data of one, or tCCD_S
    "read_data",  # from a read command to its last beat
    "write_data",
    "read_to_write",
    "write_to_read",  # to another bank group
    "write_to_read_group",
    "column_group",  # tCCD_L
    "activate_to_column",
    "activate_to_precharge",
    "precharge_to_activate",
    "read_to_precharge",
    "write_to_precharge",
    "activate",  # tRRD_S
    "activate_group",  # tRRD_L
    "four_activates",
    "refresh",
    "refresh_interval",
)  # fmt: skip
(
    D_TICKS, D_BURST_BITS, D_GROUPS, D_BANKS, D_ROW_BURSTS, D_SLOT, D_READ_DATA, D_WRITE_DATA, D_READ_TO_WRITE,
    D_WRITE_TO_READ, D_WRITE_TO_READ_GROUP, D_COLUMN_GROUP, D_ACTIVATE_TO_COLUMN, D_ACTIVATE_TO_PRECHARGE,
    D_PRECHARGE_TO_ACTIVATE, D_READ_TO_PRECHARGE, D_WRITE_TO_PRECHARGE, D_ACTIVATE, D_ACTIVATE_GROUP,
    D_FOUR_ACTIVATES, D_REFRESH, D_REFRESH_INTERVAL,
) = range(len(DRAM_COLUMNS))  # fmt: skip

# What the controller counts: bursts by the state in which they found their row, and all-bank refreshes.
DRAM_EVENTS: tuple[str, ...] = ("row_hits", "row_closed", "row_conflicts", "refreshes")


@dataclass(frozen=True)
class DramDevice:
    """One channel: all devices that answer a command together.  Times are whole device clocks of 1 / `clock_hz`.

    `row_bytes` is the open row of one bank across the channel.  `trtw_bubble_nck` is the gap on the data bus between
    the last beat of a read and the first of a write.  tRC is tRAS + tRP.
    """

    name: str
    energy_type: str
    clock_hz: int
    bus_bits: int
    burst_length: int
    burst_nck: int
    bank_groups: int
    banks_per_group: int
    row_bytes: int
    cl_nck: int
    cwl_nck: int
    trcd_nck: int
    trp_nck: int
    tras_nck: int
    trfc_nck: int
    trefi_nck: int
    tfaw_nck: int
    trrd_s_nck: int
    trrd_l_nck: int
    tccd_s_nck: int
    tccd_l_nck: int
    twr_nck: int
    trtp_nck: int
    twtr_s_nck: int
    twtr_l_nck: int
    trtw_bubble_nck: int

    @property
    def burst_bits(self) -> int:
        """Bits of one burst on one channel."""
        return self.bus_bits * self.burst_length

    @property
    def slot_nck(self) -> int:
        """Clocks between two bursts of one direction in different bank groups."""
        return max(self.burst_nck, self.tccd_s_nck)

    @property
    def row_bursts(self) -> int:
        """Bursts in the open row of one bank."""
        return self.row_bytes * 8 // self.burst_bits

    @property
    def bandwidth_bits_per_s(self) -> int:
        """Peak of one channel."""
        return self.burst_bits * self.clock_hz // self.slot_nck

    def timing(self, channels: int, nck_ticks: int) -> Int64:
        """The numbers of `DRAM_COLUMNS` for `channels` in lock step and `nck_ticks` program ticks per device clock."""
        slot, write_data = self.slot_nck, self.cwl_nck + self.burst_nck
        values = {
            "nck_ticks": nck_ticks,
            "burst_bits": self.burst_bits * channels,
            "bank_groups": self.bank_groups,
            "banks_per_group": self.banks_per_group,
            "row_bursts": self.row_bursts,
            "slot": slot,
            "read_data": self.cl_nck + self.burst_nck,
            "write_data": write_data,
            "read_to_write": max(slot, self.cl_nck + self.burst_nck + self.trtw_bubble_nck - self.cwl_nck),
            "write_to_read": max(slot, write_data + self.twtr_s_nck),
            "write_to_read_group": max(slot, write_data + self.twtr_l_nck),
            "column_group": max(slot, self.tccd_l_nck),
            "activate_to_column": self.trcd_nck,
            "activate_to_precharge": self.tras_nck,
            "precharge_to_activate": self.trp_nck,
            "read_to_precharge": self.trtp_nck,
            "write_to_precharge": write_data + self.twr_nck,
            "activate": self.trrd_s_nck,
            "activate_group": self.trrd_l_nck,
            "four_activates": self.tfaw_nck,
            "refresh": self.trfc_nck,
            "refresh_interval": self.trefi_nck,
        }
        return np.array([values[name] for name in DRAM_COLUMNS], np.int64)

    def faults(self) -> Iterator[str]:
        """What the controller does not accept: it needs address bits, and streams that run at the peak."""
        for name in ("bank_groups", "banks_per_group", "row_bursts"):
            value = getattr(self, name)
            if value < 1 or value.bit_count() != 1:
                yield f"{name} {value} is not a power of two"
        for member in fields(self):
            value = getattr(self, member.name)
            if member.name.endswith("_nck") and value < (0 if member.name.startswith(("twtr", "trtw")) else 1):
                yield f"{member.name} is {value}"
        for name in ("trrd", "tccd", "twtr"):
            if getattr(self, f"{name}_l_nck") < getattr(self, f"{name}_s_nck"):
                yield f"{name}_l_nck is below {name}_s_nck"
        if self.tccd_l_nck > self.slot_nck * self.bank_groups:
            yield "tccd_l_nck is too long for bursts that alternate between the bank groups"
        if self.trefi_nck <= self.trfc_nck + self.trp_nck:
            yield "trefi_nck is too short for a refresh"
        if self.burst_bits * self.clock_hz % max(1, self.slot_nck):
            yield "the peak bandwidth is no whole number of bits per second"


def slowdown(timing: Int64 | None) -> int:
    """How many times longer than without any wait a transfer can take: every burst waits for everything at once."""
    return 1 if timing is None else int(timing[D_SLOT:D_REFRESH_INTERVAL].sum() // timing[D_SLOT]) + 1


def device_names() -> tuple[str, ...]:
    """Names of the devices of `tech/dram_timing.csv`."""
    return tuple(_devices())


def load_device(name: str) -> DramDevice:
    """A device by name.  Raises AccelsimError with the list of devices when there is none."""
    devices = _devices()
    if name not in devices:
        raise AccelsimError(Problem("dram.device", f"no timing for {name!a}", "one of " + ", ".join(devices)))
    return devices[name]


@cache
def _devices() -> dict[str, DramDevice]:
    found: dict[str, dict[str, int | str]] = {}
    for row in read_csv(FILE):
        device = found.setdefault(row["device"], {"name": row["device"], "energy_type": row["energy_type"]})
        device[row["parameter"]] = int(row["value"])
    devices = {name: DramDevice(**values) for name, values in found.items()}  # type: ignore[arg-type]
    problems = [Problem(f"{FILE}: {name}", fault) for name, device in devices.items() for fault in device.faults()]
    if problems:
        raise AccelsimError(problems)
    return devices
