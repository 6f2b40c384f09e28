"""Small changes of a choice, the most promising first: what exact simulation tries when the table says no more."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from codesign.allocate.cost_table import CYCLES, ENERGY, CostTable
from codesign.allocate.options import OptionSpace, Selection

# Changes that are paired: the best ones that are too coarse alone, each with the best that makes room.
PAIRED = 24
ROUNDING = 1e-12


@dataclass(frozen=True)
class _Change:
    """One op's option, one group's choice or one switch; `gain` is its relative change of EDP (less is better)."""

    kind: str
    name: str
    value: int | str
    gain: float
    penalty: float


def neighbours(
    space: OptionSpace, table: CostTable, current: Selection, penalty_limit: float | None
) -> list[Selection]:
    """Choices that differ from `current` in one or two places and keep the limit of the predicted loss.

    Two places: a change that gains but loses too much alone, and one elsewhere that makes room for it.
    """
    room = np.inf if penalty_limit is None else penalty_limit - space.penalty(current) + ROUNDING
    changes = [one for one in _changes(space, table, current) if np.isfinite(one.gain)]
    found = [(one.gain, _with(current, one)) for one in changes if one.penalty <= room]
    gaining = sorted((one for one in changes if one.gain < 0 and one.penalty > room), key=lambda one: one.gain)
    relieving = sorted((one for one in changes if one.penalty < 0), key=lambda one: one.gain)
    for one in gaining[:PAIRED]:
        other = next(
            (o for o in relieving if (o.kind, o.name) != (one.kind, one.name) and one.penalty + o.penalty <= room), None
        )
        if other is not None:
            found.append((one.gain + other.gain, _with(_with(current, one), other)))
    found.sort(key=lambda item: item[0])
    return [choice for _, choice in found]


def _with(choice: Selection, change: _Change) -> Selection:
    if change.kind == "op":
        return replace(choice, options={**choice.options, change.name: int(change.value)})
    if change.kind == "group":
        return replace(choice, groups={**choice.groups, change.name: str(change.value)})
    return replace(choice, switches={**choice.switches, change.name: str(change.value)})


def _changes(space: OptionSpace, table: CostTable, current: Selection) -> list[_Change]:
    now = table.predict(current, space)
    cycles = float(now[CYCLES])
    energy = float(now[ENERGY]) + table.static_pj_per_cycle * cycles

    def gain(row: np.ndarray) -> float:
        more = float(row[CYCLES])
        return more / cycles + (float(row[ENERGY]) + table.static_pj_per_cycle * more) / energy

    found = []
    for one in space.ops:
        block, chosen = table.options[one.op, space.read_by(one, current)], current.options[one.op]
        for k in range(len(one.counts)):
            if k != chosen:
                loss = float(one.penalty[k] - one.penalty[chosen])
                found.append(_Change("op", one.op, k, gain(block[k] - block[chosen]), loss))
    for name, choice in current.groups.items():
        losses, stored = space.group_penalties[name], space.stored_names[name]
        for other in space.group_formats[name]:
            if other != choice:
                row = table.groups[name, other] - table.groups[name, choice]
                before, after = stored[choice], stored[other]
                for one in space.ops:
                    if one.reads == name and before != after:
                        k = current.options[one.op]
                        row = row + table.options[one.op, after][k] - table.options[one.op, before][k]
                found.append(_Change("group", name, other, gain(row), losses[other] - losses[choice]))
    for name, value in current.switches.items():
        losses = space.switch_penalties[name]
        for other in space.switches[name]:
            if other != value:
                row = table.switches[name, other] - table.switches[name, value]
                found.append(_Change("switch", name, other, gain(row), losses[other] - losses[value]))
    return found
