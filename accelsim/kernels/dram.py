"""The banked DRAM controller: one transfer at a time, its bursts in order, rows kept open, no look-ahead beyond it.

Addresses count bursts.  From the lowest: bank group, column, bank of the group, row; so a stream alternates between the
bank groups, stays in one row of each for a *stripe* of bank_groups × row_bursts bursts, and finds the next bank ready.
Inside a stripe every burst behind the first of its group is a hit that follows the one before by `slot`, so a stripe
costs as many steps as there are groups, however long it is.  docs/decisions/0006-banked-dram.md has the rules;
`reference_dram.py` steps them clock by clock.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from accelsim.dram import (
    D_ACTIVATE,
    D_ACTIVATE_GROUP,
    D_ACTIVATE_TO_COLUMN,
    D_ACTIVATE_TO_PRECHARGE,
    D_BANKS,
    D_BURST_BITS,
    D_COLUMN_GROUP,
    D_FOUR_ACTIVATES,
    D_GROUPS,
    D_PRECHARGE_TO_ACTIVATE,
    D_READ_DATA,
    D_READ_TO_PRECHARGE,
    D_READ_TO_WRITE,
    D_REFRESH,
    D_REFRESH_INTERVAL,
    D_ROW_BURSTS,
    D_SLOT,
    D_TICKS,
    D_WRITE_DATA,
    D_WRITE_TO_PRECHARGE,
    D_WRITE_TO_READ,
    D_WRITE_TO_READ_GROUP,
    DRAM_EVENTS,
)
from accelsim.kernels.jit import inner
from accelsim.program import Int64

# State, all times in device clocks: counts of DRAM_EVENTS first, then the channel, then every group, then every bank.
_HITS, _CLOSED, _CONFLICTS, _REFRESHES = range(len(DRAM_EVENTS))
_DUE, _REFRESHED, _BEGUN, _ACTIVATED, _OLDEST = range(4, 9)
_WINDOW = 9  # the last four activates
_READ_READY, _WRITE_READY = 13, 14
_HEADER = 15
_GROUP = 3
_G_ACTIVATE, _G_READ, _G_WRITE = range(_GROUP)
_BANK = 3
_B_ROW, _B_PRECHARGE, _B_COLUMN = range(_BANK)
_LONG_AGO = -(1 << 40)


def new_state(timing: Int64) -> Int64:
    """State of a channel with all rows closed, before the first command."""
    groups = int(timing[D_GROUPS])
    banks = groups * int(timing[D_BANKS])
    state = np.zeros(_HEADER + _GROUP * groups + _BANK * banks, np.int64)
    state[_DUE] = timing[D_REFRESH_INTERVAL]
    state[[_ACTIVATED, *range(_WINDOW, _WINDOW + 4)]] = _LONG_AGO
    state[_HEADER + _GROUP * groups + _B_ROW :: _BANK] = -1
    return state


@inner
def _refresh(timing: Any, state: Any) -> None:
    """Close all rows as soon as all banks allow it, and refresh; the next refresh is due an interval after this was."""
    first = _HEADER + _GROUP * timing[D_GROUPS]
    time = max(state[_DUE], state[_REFRESHED])
    opened = False
    for bank in range(first, state.size, _BANK):
        if state[bank + _B_ROW] >= 0:
            opened = True
            time = max(time, state[bank + _B_PRECHARGE])
            state[bank + _B_ROW] = -1
    if opened:
        time += timing[D_PRECHARGE_TO_ACTIVATE]
    state[_REFRESHED] = time + timing[D_REFRESH]
    state[_DUE] += timing[D_REFRESH_INTERVAL]
    state[_REFRESHES] += 1


@inner
def _open_row(timing: Any, state: Any, now: int, group: int, bank: int, row: int) -> None:
    """Open a row in a bank that has none or another one; a refresh that is due before the first command goes ahead."""
    while True:
        conflict = state[bank + _B_ROW] >= 0
        begin = max(now, state[_BEGUN])
        activate = max(
            state[_ACTIVATED] + timing[D_ACTIVATE],
            max(state[group + _G_ACTIVATE], state[_WINDOW + state[_OLDEST]] + timing[D_FOUR_ACTIVATES]),
        )
        if conflict:
            begin = max(begin, state[bank + _B_PRECHARGE])
            activate = max(activate, begin + timing[D_PRECHARGE_TO_ACTIVATE])
        else:
            activate = max(max(activate, begin), state[_REFRESHED])
            begin = activate
        if begin < state[_DUE]:
            break
        _refresh(timing, state)
    state[_CONFLICTS if conflict else _CLOSED] += 1
    state[_BEGUN] = begin
    state[_ACTIVATED] = activate
    state[_WINDOW + state[_OLDEST]] = activate
    state[_OLDEST] = (state[_OLDEST] + 1) & 3
    state[group + _G_ACTIVATE] = activate + timing[D_ACTIVATE_GROUP]
    state[bank + _B_ROW] = row
    state[bank + _B_PRECHARGE] = activate + timing[D_ACTIVATE_TO_PRECHARGE]
    state[bank + _B_COLUMN] = activate + timing[D_ACTIVATE_TO_COLUMN]


@inner
def _columns(timing: Any, state: Any, now: int, ready: int, burst: int, count: int, write: bool) -> int:
    """Read or write `count` bursts of one stripe from `burst` on; returns the time of the last column command."""
    groups = timing[D_GROUPS]
    stripe = burst // (groups * timing[D_ROW_BURSTS])
    row, bank_of_group = stripe // timing[D_BANKS], stripe % timing[D_BANKS]
    slot = timing[D_SLOT]
    direction = _G_WRITE if write else _G_READ
    to_precharge = timing[D_WRITE_TO_PRECHARGE] if write else timing[D_READ_TO_PRECHARGE]
    banks = _HEADER + _GROUP * groups
    command = ready - slot
    heads = 0
    known = 0  # bank groups whose row is open since the last refresh
    while heads < count and known < groups:
        g = (burst + heads) & (groups - 1)
        heads += 1
        known += 1
        group = _HEADER + _GROUP * g
        bank = banks + _BANK * (bank_of_group * groups + g)
        if state[bank + _B_ROW] == row:
            state[_HITS] += 1
        else:
            refreshes = state[_REFRESHES]
            _open_row(timing, state, now, group, bank, row)
            if state[_REFRESHES] > refreshes:
                known = 1
        command = max(max(command + slot, state[group + direction]), state[bank + _B_COLUMN])
        state[bank + _B_PRECHARGE] = max(state[bank + _B_PRECHARGE], command + to_precharge)
        state[group + direction] = command + timing[D_COLUMN_GROUP]
        if write:
            state[group + _G_READ] = max(state[group + _G_READ], command + timing[D_WRITE_TO_READ_GROUP])
    if count > heads:
        # Hits of the heads' rows, a slot apart; only the last of every group is seen by anything later.
        state[_HITS] += count - heads
        command += slot * (count - heads)
        for back in range(min(count - heads, groups)):
            g = (burst + count - 1 - back) & (groups - 1)
            group = _HEADER + _GROUP * g
            bank = banks + _BANK * (bank_of_group * groups + g)
            time = command - back * slot
            state[bank + _B_PRECHARGE] = max(state[bank + _B_PRECHARGE], time + to_precharge)
            state[group + direction] = time + timing[D_COLUMN_GROUP]
            if write:
                state[group + _G_READ] = max(state[group + _G_READ], time + timing[D_WRITE_TO_READ_GROUP])
    return command


@inner
def transfer(
    timing: Any, state: Any, start_ticks: int, base_bits: int, run_bits: int, runs: int, stride_bits: int, write: bool
) -> Any:
    """One row of the DRAM unit: `runs` runs of whole bursts, from the burst that holds the first bit of each.

    Returns, in ticks, when the next transfer may start and when the last beat is on the bus.
    """
    ticks, burst_bits = timing[D_TICKS], timing[D_BURST_BITS]
    now = (start_ticks + ticks - 1) // ticks
    while state[_DUE] <= now:
        _refresh(timing, state)
    in_stripe = timing[D_GROUPS] * timing[D_ROW_BURSTS]
    bursts = (run_bits + burst_bits - 1) // burst_bits
    slot = timing[D_SLOT]
    command = max(now, state[_WRITE_READY] if write else state[_READ_READY]) - slot
    for run in range(runs):
        burst = (base_bits + run * stride_bits) // burst_bits
        left = bursts
        while left > 0:
            count = min(left, in_stripe - burst % in_stripe)
            command = _columns(timing, state, now, command + slot, burst, count, write)
            burst += count
            left -= count
    if write:
        state[_WRITE_READY] = command + slot
        state[_READ_READY] = max(state[_READ_READY], command + timing[D_WRITE_TO_READ])
        finish = command + timing[D_WRITE_DATA]
    else:
        state[_READ_READY] = command + slot
        state[_WRITE_READY] = max(state[_WRITE_READY], command + timing[D_READ_TO_WRITE])
        finish = command + timing[D_READ_DATA]
    return (command + slot) * ticks, finish * ticks
