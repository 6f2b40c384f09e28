"""Every distance of the banked DRAM is tight: a command one device clock early is illegal, on time it is sent.

First the table of the oracle, command by command; then programs in which one timing decides when a transfer ends, so
that it ends exactly one clock later or earlier when this timing is one clock longer or shorter, in kernel and oracle.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from accelsim.dram import DRAM_COLUMNS, DramDevice
from accelsim.reference_dram import Bank, Command, Issued, Rules
from tests.support.dram_programs import BURST_BITS, device
from tests.support.hand_programs import Times, hand_program, play

UNITS = ("a", "dram")
REGIONS = {"x": (0, 0, 8), "y": (0, 8, 8)}
ACT, PRE, RD, WR, REF = Command
HERE, BESIDE, AWAY = Bank(0, 0), Bank(0, 1), Bank(1, 0)

# Previous command, next command, their banks, and the distance as the standards write it.
DISTANCES = [
    (ACT, ACT, HERE, "tras + trp"),
    (ACT, ACT, BESIDE, "trrd_l"),
    (ACT, ACT, AWAY, "trrd_s"),
    (ACT, RD, HERE, "trcd"),
    (ACT, WR, HERE, "trcd"),
    (ACT, PRE, HERE, "tras"),
    (RD, PRE, HERE, "trtp"),
    (WR, PRE, HERE, "cwl + burst + twr"),
    (PRE, ACT, HERE, "trp"),
    (RD, RD, HERE, "tccd_l"),
    (RD, RD, BESIDE, "tccd_l"),
    (RD, RD, AWAY, "tccd_s"),
    (WR, WR, BESIDE, "tccd_l"),
    (WR, WR, AWAY, "tccd_s"),
    (RD, WR, HERE, "cl + burst + trtw_bubble - cwl"),
    (RD, WR, AWAY, "cl + burst + trtw_bubble - cwl"),
    (WR, RD, BESIDE, "cwl + burst + twtr_l"),
    (WR, RD, AWAY, "cwl + burst + twtr_s"),
    (PRE, REF, BESIDE, "trp"),
    (REF, ACT, BESIDE, "trfc"),
    (REF, REF, HERE, "trfc"),
]
# No distance: other banks are not concerned, and a row is opened once.
FREE = [(ACT, RD, BESIDE), (ACT, PRE, AWAY), (RD, PRE, BESIDE), (WR, PRE, AWAY), (PRE, ACT, BESIDE), (PRE, RD, AWAY)]


def rules(made: DramDevice) -> Rules:
    return Rules(dict(zip(DRAM_COLUMNS, made.timing(1, 1).tolist(), strict=True)))


@pytest.mark.parametrize(("first", "then", "bank", "distance"), DISTANCES)
def test_one_clock_early_is_illegal(first: Command, then: Command, bank: Bank, distance: str) -> None:
    made = device()
    clocks = eval(distance, {name.removesuffix("_nck"): getattr(made, name) for name in vars(made)})
    history = [Issued(100, first, HERE)]
    assert not rules(made).allow(history, then, bank, 100 + clocks - 1)
    assert rules(made).allow(history, then, bank, 100 + clocks)


@pytest.mark.parametrize(("first", "then", "bank"), FREE)
def test_other_banks_are_not_concerned(first: Command, then: Command, bank: Bank) -> None:
    assert rules(device()).allow([Issued(100, first, HERE)], then, bank, 100)


def test_fifth_activate_waits_for_the_window_of_four() -> None:
    made = device(tfaw=25)
    history = [Issued(100 + 5 * k, ACT, Bank(k % 2, k // 2)) for k in range(4)]
    assert not rules(made).allow(history, ACT, Bank(0, 7), 124)
    assert rules(made).allow(history, ACT, Bank(0, 7), 125)
    assert rules(made).allow(history[1:], ACT, Bank(0, 7), 118)


def place(made: DramDevice, group: int, bank: int, row: int, column: int = 0) -> int:
    """Address in bits."""
    stripe = row * made.banks_per_group + bank
    return ((stripe * made.row_bursts + column) * made.bank_groups + group) * BURST_BITS


def ends(made: DramDevice, *transfers: tuple[str, list[int]], start: int = 0, ticks: int = 1) -> list[Times]:
    """Transfers (R or W, addresses of their equally spaced bursts) back to back, the first not before `start`."""
    rows: list[dict[str, Any]] = [{"name": "a", "unit": "a", "ticks": (max(1, start), max(1, start))}]
    for number, (kind, bursts) in enumerate(transfers):
        stride = bursts[1] - bursts[0] if len(bursts) > 1 else 0
        assert bursts == [bursts[0] + stride * k for k in range(len(bursts))]
        one_run = stride == BURST_BITS
        shape = (len(bursts) * BURST_BITS, 1, 0) if one_run else (BURST_BITS, len(bursts), stride)
        row: dict[str, Any] = {"unit": "dram", "address": (bursts[0], *shape)}
        if number == 0 and start:
            row["deps"] = ("a",)
        if kind == "R":
            row["write"] = ("x", "y")[number % 2]
        rows.append(row)
    return play(hand_program(UNITS, REGIONS, rows, 1, made.timing(1, ticks))).rows[1:]


def last_finish(made: DramDevice, case: str) -> int:
    """When the last beat of the last transfer of a case is on the bus."""
    base = place(made, 0, 0, 0)
    other_group, other_bank, other_row = place(made, 1, 0, 0), place(made, 0, 1, 0), place(made, 0, 0, 1)
    long = [base + k * BURST_BITS for k in range(2 * made.row_bursts)]
    banks = [place(made, 0, 0, 0) + k * (other_bank - base) for k in range(5)]
    transfers: dict[str, list[tuple[str, list[int]]]] = {
        "read": [("R", [base])],
        "write": [("W", [base])],
        "hit": [("R", [base, place(made, 0, 0, 0, 1)])],
        "write hit": [("W", [base, place(made, 0, 0, 0, 1)])],
        "groups": [("R", [base, other_group])],
        "banks": [("R", [base, other_bank])],
        "conflict": [("R", [base]), ("R", [other_row])],
        "write conflict": [("W", [base]), ("R", [other_row])],
        "five banks": [("R", banks)],
        "write, read": [("W", [base]), ("R", [place(made, 0, 0, 0, 1)])],
        "write, read in other group": [("W", [base]), ("R", [other_group])],
        "read, write": [("R", [base]), ("W", [base])],
        "long write, read": [("W", long), ("R", [place(made, 1, 0, 0)])],
    }
    return ends(made, *transfers[case])[-1].finish


# The timing, the case, and what makes this timing the one that decides.
TIGHT = [
    ("cl", "read", {}),
    ("trcd", "read", {}),
    ("burst", "read", {"burst": 3, "tccd_s": 5, "tccd_l": 5}),
    ("cwl", "write", {}),
    ("trcd", "write", {}),
    ("tccd_l", "hit", {}),
    ("tccd_l", "write hit", {}),
    ("tccd_s", "groups", {"tccd_s": 4, "tccd_l": 6, "trrd_s": 1}),
    ("trrd_s", "groups", {"trrd_s": 9, "trrd_l": 12}),
    ("trrd_l", "banks", {"trrd_l": 9}),
    ("tfaw", "five banks", {"tfaw": 50, "banks_per_group": 8}),
    ("trp", "conflict", {}),
    ("tras", "conflict", {"tras": 30}),
    ("trtp", "conflict", {"tras": 1, "trtp": 12}),
    ("twr", "write conflict", {}),
    ("cwl", "write conflict", {}),
    ("twtr_l", "write, read", {"twtr_l": 9}),
    ("twtr_s", "write, read in other group", {"twtr_s": 20, "twtr_l": 25}),
    ("trtw_bubble", "read, write", {"trtw_bubble": 9}),
    ("twtr_l", "long write, read", {"twtr_l": 9}),
]


@pytest.mark.parametrize(("timing", "case", "binding"), TIGHT)
def test_a_transfer_ends_one_clock_later_for_one_clock_more(timing: str, case: str, binding: dict[str, int]) -> None:
    made = device(**binding)
    before = last_finish(made, case)
    value = getattr(made, f"{timing}_nck")
    for step in (-1, 1):
        changed = replace(made, **{f"{timing}_nck": value + step})
        assert not list(changed.faults())
        assert last_finish(changed, case) == before + step


def test_refresh_that_is_due_goes_ahead_and_one_that_is_not_does_not() -> None:
    made = device(trefi=200)
    base = place(made, 0, 0, 0)
    unloaded = made.trcd_nck + made.cl_nck + made.burst_nck
    for start, begin in ((199, 199), (200, 200 + made.trfc_nck), (201, 200 + made.trfc_nck), (400, 430), (399, 399)):
        assert ends(made, ("R", [base]), start=start)[0].finish == begin + unloaded


def test_refresh_that_is_due_at_the_start_goes_ahead_of_a_hit() -> None:
    first = [place(device(), 0, 0, 0)]
    hit = [place(device(), 0, 0, 0, 1)]
    # The second read may start at 40 + tRCD + a slot = 48, in the open row.
    for due, ahead in ((47, True), (48, True), (49, False)):
        made = device(trefi=due)
        second = ends(made, ("R", first), ("R", hit), start=40)[1]
        refreshed = 40 + made.tras_nck + made.trp_nck + made.trfc_nck
        begin = refreshed + made.trcd_nck if ahead else 49  # tCCD_L
        assert second.start == 48
        assert second.finish == begin + made.cl_nck + made.burst_nck


@pytest.mark.parametrize("step", [-1, 0, 1])
def test_refresh_takes_trfc_behind_the_precharge_of_an_open_row(step: int) -> None:
    made = replace(device(trefi=200), trfc_nck=30 + step)
    base = place(made, 0, 0, 0)
    # The first read opens a row at 193; the refresh is due at 200 and waits for tRAS, then tRP.
    first, second = ends(made, ("R", [base]), ("R", [place(made, 0, 0, 0, 1)]), start=193)
    assert first.free == 193 + 6 + 2
    refreshed = 193 + 14 + 5 + 30 + step
    assert second.finish == refreshed + 6 + 7 + 2


def test_refresh_waits_for_a_run_of_hits_but_not_for_a_miss() -> None:
    made = device(trefi=200, row_bytes=256)
    hits = [place(made, 0, 0, 0) + k * BURST_BITS for k in range(12)]
    alone = ends(device(row_bytes=256), ("R", hits), start=195)[0]
    assert ends(made, ("R", hits), start=195)[0] == alone
    rows = [place(made, 0, 0, row) for row in range(2)]
    late = ends(made, ("R", rows), start=195)[0].finish - ends(device(), ("R", rows), start=195)[0].finish
    assert late == made.trfc_nck  # the precharge before the refresh is the one that the conflict needs anyway


def test_commands_wait_for_the_edge_of_the_device_clock() -> None:
    made = device()
    unloaded = made.trcd_nck + made.cl_nck + made.burst_nck
    for start, edge in ((6, 6), (7, 9), (8, 9), (9, 9)):
        times = ends(made, ("R", [0]), start=start, ticks=3)[0]
        assert times.start == start
        assert times.finish == edge + 3 * unloaded


def test_a_transfer_looks_ahead_but_not_beyond_its_end() -> None:
    made = device(banks_per_group=4)
    banks = [place(made, 0, bank, 0) for bank in range(2)]
    together = ends(made, ("R", banks))[-1].finish
    apart = ends(made, ("R", banks[:1]), ("R", banks[1:]))[-1].finish
    assert together == made.trrd_l_nck + made.trcd_nck + made.cl_nck + made.burst_nck
    assert apart == 2 * made.trcd_nck + made.slot_nck + made.cl_nck + made.burst_nck
