"""The oracle of the banked DRAM: a controller stepped one device clock at a time, with every distance in one table.

It shares no code with `kernels/dram.py` and computes nothing ahead: in every clock it asks of every command whether it
may be issued now.  The rules are those of docs/decisions/0006-banked-dram.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from accelsim.dram import DRAM_COLUMNS
from accelsim.program import Int64, Row


class Command(StrEnum):
    """What the controller sends.  A refresh, and the precharge in front of it, go to all banks."""

    ACTIVATE = "ACT"
    PRECHARGE = "PRE"
    READ = "RD"
    WRITE = "WR"
    REFRESH = "REF"


@dataclass(frozen=True)
class Bank:
    """A bank and the group it belongs to."""

    group: int
    number: int


@dataclass(frozen=True)
class Burst:
    """Where a burst lies."""

    bank: Bank
    row: int


@dataclass(frozen=True)
class Issued:
    """A command on the bus of commands."""

    time: int
    command: Command
    bank: Bank


class Rules:
    """Least distances between two commands, by what the banks have in common."""

    def __init__(self, timing: dict[str, int]) -> None:
        act, pre, rd, wr, ref = Command
        t = timing
        self.same_bank = {
            (act, act): t["activate_to_precharge"] + t["precharge_to_activate"],
            (act, rd): t["activate_to_column"],
            (act, wr): t["activate_to_column"],
            (act, pre): t["activate_to_precharge"],
            (rd, pre): t["read_to_precharge"],
            (wr, pre): t["write_to_precharge"],
            (pre, act): t["precharge_to_activate"],
        }
        self.same_group = {
            (act, act): t["activate_group"],
            (rd, rd): t["column_group"],
            (wr, wr): t["column_group"],
            (wr, rd): t["write_to_read_group"],
        }
        self.any_bank = {
            (act, act): t["activate"],
            (rd, rd): t["slot"],
            (wr, wr): t["slot"],
            (rd, wr): t["read_to_write"],
            (wr, rd): t["write_to_read"],
            (pre, ref): t["precharge_to_activate"],
            (ref, act): t["refresh"],
            (ref, ref): t["refresh"],
        }
        self.four_activates = t["four_activates"]
        tables = (self.same_bank, self.same_group, self.any_bank)
        self.longest = max(self.four_activates, *(distance for table in tables for distance in table.values()))

    def allow(self, history: list[Issued], command: Command, bank: Bank, now: int) -> bool:
        """May `command` be sent to `bank` in this clock, given all that was sent before?"""
        for old in history:
            pair, distance = (old.command, command), 0
            distance = max(distance, self.any_bank.get(pair, 0))
            if old.bank.group == bank.group:
                distance = max(distance, self.same_group.get(pair, 0))
            if old.bank == bank:
                distance = max(distance, self.same_bank.get(pair, 0))
            if now < old.time + distance:
                return False
        activates = [old.time for old in history if old.command is Command.ACTIVATE]
        window = len(activates) >= 4 and now < activates[-4] + self.four_activates
        return not (command is Command.ACTIVATE and window)


class Controller:
    """One transfer at a time.  `step` is called in every clock; `history` keeps every command.

    `recent` are the commands that can still hold up another one.
    """

    def __init__(self, timing: Int64) -> None:
        self.timing = dict(zip(DRAM_COLUMNS, timing.tolist(), strict=True))
        self.nck_ticks = self.timing["nck_ticks"]
        self.rules = Rules(self.timing)
        groups, per_group = self.timing["bank_groups"], self.timing["banks_per_group"]
        self.banks = [Bank(g, n) for g in range(groups) for n in range(per_group)]
        self.open_row: dict[Bank, int | None] = dict.fromkeys(self.banks)
        self.history: list[Issued] = []
        self.recent: list[Issued] = []
        self.due = self.timing["refresh_interval"]
        self.events = {"row_hits": 0, "row_closed": 0, "row_conflicts": 0, "refreshes": 0}
        self.waiting: deque[Burst] = deque()  # not begun
        self.begun: deque[Burst] = deque()  # begun, no data yet
        self.missing: deque[Burst] = deque()  # begun, the activate still to come
        self.planned: dict[Bank, int | None] = dict.fromkeys(self.banks)  # open row once all begun bursts have it
        self.write = False
        self.first_due = -1

    def begin(self, row: Row) -> None:
        """Take the transfer of a DRAM row, which must not start before the one before it has sent its last command."""
        self.write = row.write < 0
        self.waiting.extend(self._bursts(row))
        self.first_due = -1

    def _bursts(self, row: Row) -> Iterator[Burst]:
        size = self.timing["burst_bits"]
        for run in range(row.runs):
            first = (row.dram_base_bits + run * row.stride_bits) // size
            for number in range(first, first - (-row.run_bits // size)):
                rest, group = divmod(number, self.timing["bank_groups"])
                rest, _ = divmod(rest, self.timing["row_bursts"])
                page, bank = divmod(rest, self.timing["banks_per_group"])
                yield Burst(Bank(group, bank), page)

    def step(self, now: int) -> tuple[int, int] | None:
        """Send what may be sent in this clock.

        Returns the clock of the next transfer and that of the last beat's end when this was the last command of a
        transfer, else None.
        """
        moving = bool(self.waiting or self.begun)
        if moving and self.first_due < 0:
            # Refreshes that are due when a transfer starts go ahead of it.
            self.first_due = now
        while self._send(now):
            if moving and not self.waiting and not self.begun:
                data = self.timing["write_data" if self.write else "read_data"]
                return now + self.timing["slot"], now + data
        return None

    def _send(self, now: int) -> bool:
        if self.due <= now and self._refresh_has_turn():
            return self._refresh(now)
        return self._column(now) or self._activate(now) or self._begin_next(now)

    def _refresh_has_turn(self) -> bool:
        """A refresh goes ahead of a transfer, or between a burst that is done and a miss that is not begun."""
        if self.due <= self.first_due or not (self.waiting or self.begun):
            return True
        return not self.begun and self.planned[self.waiting[0].bank] != self.waiting[0].row

    def _refresh(self, now: int) -> bool:
        opened = [bank for bank in self.banks if self.open_row[bank] is not None]
        command = Command.PRECHARGE if opened else Command.REFRESH
        targets = opened or self.banks
        if not all(self.rules.allow(self.recent, command, bank, now) for bank in targets):
            return False
        for bank in targets:
            self._issue(now, command, bank)
            self.open_row[bank] = self.planned[bank] = None
        if command is Command.REFRESH:
            self.due += self.timing["refresh_interval"]
            self.events["refreshes"] += 1
        return True

    def _column(self, now: int) -> bool:
        """The data of the first burst that has none yet."""
        command = Command.WRITE if self.write else Command.READ
        if not self.begun or self.open_row[self.begun[0].bank] != self.begun[0].row:
            return False
        if not self.rules.allow(self.recent, command, self.begun[0].bank, now):
            return False
        self._issue(now, command, self.begun.popleft().bank)
        return True

    def _activate(self, now: int) -> bool:
        """The row of the first burst that is begun and has none."""
        if not self.missing or not self.rules.allow(self.recent, Command.ACTIVATE, self.missing[0].bank, now):
            return False
        burst = self.missing.popleft()
        self._issue(now, Command.ACTIVATE, burst.bank)
        self.open_row[burst.bank] = burst.row
        return True

    def _begin_next(self, now: int) -> bool:
        """Begin the next burst: a hit at once, a miss with its first command unless a refresh is due."""
        if not self.waiting:
            return False
        burst = self.waiting[0]
        planned = self.planned[burst.bank]
        if planned == burst.row:
            self.events["row_hits"] += 1
        elif self.due <= now:
            return False
        elif planned is None:
            # The first command is the activate, and activates keep their order.
            if self.missing or not self.rules.allow(self.recent, Command.ACTIVATE, burst.bank, now):
                return False
            self.events["row_closed"] += 1
            self.missing.append(burst)
            self._activate(now)
        else:
            used = any(earlier.bank == burst.bank for earlier in self.begun)
            if used or not self.rules.allow(self.recent, Command.PRECHARGE, burst.bank, now):
                return False
            self.events["row_conflicts"] += 1
            self._issue(now, Command.PRECHARGE, burst.bank)
            self.open_row[burst.bank] = None
            self.missing.append(burst)
        self.planned[burst.bank] = burst.row
        self.begun.append(self.waiting.popleft())
        return True

    def _issue(self, now: int, command: Command, bank: Bank) -> None:
        issued = Issued(now, command, bank)
        self.history.append(issued)
        self.recent = [old for old in self.recent if now < old.time + self.rules.longest] + [issued]
