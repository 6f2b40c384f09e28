"""Totals of a plan after every single exchange at once, and a search that walks along them.

An exchange lets one group take another of its variables; a branch brings along what its items would take.  Only the
stages that a group works on can become longer or shorter, so all exchanges of a plan cost a few array operations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codesign.allocate.goal import Floats, Goal, Ints
from codesign.allocate.model import LATENCY, Model
from codesign.allocate.relaxation import with_edp

# Two-step exchanges try this many first steps, those that cost least at the relaxation's prices.
FIRST_STEPS = 24


@dataclass(frozen=True, eq=False)
class _Slots:
    """A slot is a group on a shared stage; a pair is a variable in a slot of its group.

    `group`, `stage`, `first` [slots]: number of the pair of the group's first variable.  `variable`, `slot` [pairs],
    `load` [pairs, units].  `above` [slots]: pair of the group's branch on that stage, -1 for roots.
    """

    group: Ints
    stage: Ints
    first: Ints
    above: Ints
    variable: Ints
    slot: Ints
    load: Floats


class Exchanges:
    """Exchanges of a model's plans.  A plan is `pick` [G]: what every group takes if it must choose."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.slots = _slots(model)
        depth = np.zeros(model.groups, np.int64)
        for number, level in enumerate(model.levels):
            depth[level] = number
        self._slot_levels = [np.flatnonzero(depth[self.slots.group] == n) for n in range(len(model.levels))]

    def after(self, pick: Ints) -> tuple[Floats, Floats]:
        """Totals [M + 1] of a plan, and [V, M + 1] after each exchange; inf where there is nothing to exchange."""
        model, slots = self.model, self.slots
        linear, load = model.linear.copy(), slots.load.copy()
        current = slots.first + pick[slots.group] - model.start[slots.group]
        for number in range(len(model.levels) - 1, 0, -1):
            level, here = model.levels[number], self._slot_levels[number]
            np.add.at(linear, model.parent[level], linear[pick[level]])
            np.add.at(load, slots.above[here], load[current[here]])
        roots = self._slot_levels[0] if self._slot_levels else current
        work = np.zeros((model.stages, slots.load.shape[1]))
        np.add.at(work, slots.stage[roots], load[current[roots]])
        makespan = np.maximum(work.max(axis=1, initial=0.0), 0.0)
        base = model.constant + linear[pick[model.levels[0]]].sum(axis=0) if model.levels else model.constant
        now = base + model.per_cycle * makespan.sum()
        rest = work[slots.stage] - load[current]
        longest = np.maximum((rest[slots.slot] + load).max(axis=1, initial=0.0), 0.0)
        change = np.bincount(slots.variable, longest - makespan[slots.stage][slots.slot], model.size)
        after = now + (linear - linear[pick][model.group]) + model.per_cycle * change[:, None]
        after[~model.active(pick)[model.group]] = np.inf
        after[pick] = np.inf
        return with_edp(model, now), with_edp(model, after)

    def totals(self, pick: Ints) -> Floats:
        """Totals [M + 1] of a plan, from the problem itself."""
        found = self.model.problem.totals(self.model.chosen(pick))
        return np.array([*(found[name] for name in self.model.names), found.get("edp", 0.0)])

    def improve(self, pick: Ints, goal: Goal, excess: Floats, evaluations: int, pairs: bool) -> tuple[Ints, bool]:
        """Exchanges until the plan meets the limits and none helps, nor (with `pairs`) two; whether it meets them.

        `excess` [V] orders first steps of pairs.  A plan that breaks limits is always given pairs.  At most about
        `evaluations` looks at all exchanges.
        """
        pick = pick.copy()
        left = evaluations
        while left > 0:
            step, over = self._step(pick, goal)
            left -= 1
            if step >= 0:
                pick[self.model.group[step]] = step
                continue
            if over == 0.0 and not pairs:
                break
            pair, used = self._pair(pick, goal, excess, over, left)
            left -= used
            if pair is None:
                break
            pick[self.model.group[list(pair)]] = pair
        return pick, bool(goal.excess(self.totals(pick)) == 0.0)

    def _step(self, pick: Ints, goal: Goal) -> tuple[int, float]:
        """The best exchange, -1 when none helps, and by how much the plan breaks the limits."""
        now, after = self.after(pick)
        usable = np.isfinite(after[:, LATENCY])
        candidates = np.flatnonzero(usable)
        over_now, value_now = float(goal.excess(now)), float(now @ goal.weights)
        if not len(candidates):
            return -1, over_now
        over, value = goal.excess(after[candidates]), after[candidates] @ goal.weights
        if over_now > 0.0:
            relief = over_now - over
            price = np.maximum(value - value_now, 0.0) + 1e-9 * abs(value_now) + 1e-300
            best = int(np.argmax(np.where(relief > 1e-12 * over_now, relief / price, -np.inf)))
            return (int(candidates[best]), over_now) if relief[best] > 1e-12 * over_now else (-1, over_now)
        value = np.where(over == 0.0, value, np.inf)
        best = int(np.argmin(value))
        better = value[best] < value_now - 1e-12 * abs(value_now)
        return (int(candidates[best]) if better else -1), over_now

    def _pair(
        self, pick: Ints, goal: Goal, excess: Floats, over: float, left: int
    ) -> tuple[tuple[int, int] | None, int]:
        """Two exchanges that help together, the first found, and how many looks at all exchanges it took."""
        model = self.model
        now = float(self.totals(pick) @ goal.weights)
        rise = excess - excess[pick][model.group]
        rise[pick] = np.inf
        rise[~model.active(pick)[model.group]] = np.inf
        order = np.argsort(rise, kind="stable")[: min(FIRST_STEPS, left)]
        for used, first in enumerate(order[np.isfinite(rise[order])], 1):
            trial = pick.copy()
            trial[model.group[first]] = first
            _, after = self.after(trial)
            candidates = np.flatnonzero(np.isfinite(after[:, LATENCY]))
            broken, value = goal.excess(after[candidates]), after[candidates] @ goal.weights
            better = (broken == 0.0) & (value < now - 1e-12 * abs(now))
            good, merit = (broken < over * (1 - 1e-12), broken) if over > 0.0 else (better, value)
            if good.any():
                second = candidates[np.flatnonzero(good)[np.argmin(merit[good])]]
                if model.group[second] != model.group[first]:
                    return (int(first), int(second)), used
        return None, len(order)


def _slots(model: Model) -> _Slots:
    """Slots and pairs of a model: every group on every shared stage on which it or what hangs below it works."""
    entries = model.loads.tocoo()
    stages = max(model.stages, 1)
    touched = np.unique(model.group[entries.row].astype(np.int64) * stages + model.stage[entries.col])
    for level in model.levels[:0:-1]:
        below = touched[np.isin(touched // stages, level)]
        upper = model.group[model.parent[below // stages]]
        touched = np.union1d(touched, upper * stages + below % stages)
    group, stage = touched // stages, touched % stages
    sizes = np.diff(model.start)[group]
    first = np.cumsum(sizes) - sizes
    slot = np.repeat(np.arange(len(touched)), sizes)
    variable = np.arange(len(slot)) - first[slot] + model.start[group[slot]]
    unit = np.arange(len(model.stage)) - np.searchsorted(model.stage, model.stage)
    width = int(unit.max()) + 1 if len(unit) else 1
    load = np.zeros((len(slot), width))
    at = np.searchsorted(touched, model.group[entries.row].astype(np.int64) * stages + model.stage[entries.col])
    pair = first[at] + entries.row - model.start[model.group[entries.row]]
    np.add.at(load, (pair, unit[entries.col]), entries.data)
    branch = model.parent[group]
    upper_slot = np.searchsorted(touched, model.group[branch] * stages + stage)
    above = np.where(branch >= 0, first[np.minimum(upper_slot, max(len(first) - 1, 0))] + branch, -1)
    above = np.where(branch >= 0, above - model.start[model.group[branch]], -1)
    return _Slots(group, stage, first, above, variable, slot, load)
