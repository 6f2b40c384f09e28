"""The flat form: tens of thousands of groups, one option each, a few budgets, no stages.

One budget or several, the method is one: the Lagrangian dual in as many prices as budgets, maximised by cutting planes
that are asked half-way between the best prices and those the planes propose; then the choice at the best prices is
made to fit (what relieves most per penalty first) and filled (what costs least at the prices first).  Groups are many
and each is small, so what is lost by not solving the integer problem is about one option of one group.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array

from accelsim.problems import AccelsimError, Problem
from codesign.allocate.goal import LIMIT_ROUNDING, Floats, Ints, Limits, relative_gap
from codesign.allocate.problem import Knapsack
from codesign.allocate.solve import minimise

MOST_PLANES = 200
# The dual is good enough when the planes leave no more than this above it, relative to the penalty.
DUAL_GAP = 1e-8
# Moves considered when the choice is filled: those that cost least at the prices.
NEAR_MOVES = 20_000
# Prices may reach this many times the whole span of penalties before the budgets count as very tight.
STEEPEST = 1e6


@dataclass(frozen=True, eq=False)
class FlatSolution:
    """Option of every group [G], their total penalty, a certified bound, (penalty - bound) / |penalty|, spent [R]."""

    choice: Ints
    penalty: float
    bound: float
    gap: float
    spent: Floats


@dataclass(frozen=True, eq=False)
class _Flat:
    """Penalties [G, K] and costs [R, G, K] in units of the budgets, room [R] in those units."""

    penalties: Floats
    costs: Floats
    room: Floats

    def at(self, prices: Floats) -> tuple[float, Floats, Ints, Floats]:
        """Lagrangian function at prices [R], its slope [R], the choice [G] and the priced penalties [G, K]."""
        priced = self.penalties + np.tensordot(prices, self.costs, 1)
        choice = np.argmin(priced, axis=1)
        least = np.take_along_axis(priced, choice[:, None], 1)[:, 0]
        return float(least.sum() - prices @ self.room), self.spent(choice) - self.room, choice, priced

    def spent(self, choice: Ints) -> Floats:
        """Costs of a choice [R]."""
        result: Floats = self.costs[:, np.arange(len(choice)), choice].sum(axis=1)
        return result

    def rounding(self, prices: Floats) -> float:
        """What the Lagrangian function may be too large by."""
        terms = np.where(np.isfinite(self.penalties), np.abs(self.penalties), 0.0) + np.tensordot(
            prices, np.abs(self.costs), 1
        )
        magnitude = float(terms.max(axis=1).sum() + prices @ np.abs(self.room))
        return (16 + len(self.room) + len(terms)) * float(np.finfo(np.float64).eps) * magnitude


def allocate_groups(penalties: Floats, costs: Floats, budgets: Floats) -> FlatSolution:
    """One option of each group with the least total penalty and total costs within the budgets, with a certified bound.

    `penalties` [G, K], `costs` [G, K, R], `budgets` [R]; groups with fewer options are padded with penalties of inf.
    Raises InfeasibleError when no choice fits, AccelsimError for a group without options.
    """
    penalties, budgets = np.asarray(penalties, np.float64), np.asarray(budgets, np.float64)
    if not np.isfinite(penalties).any(axis=1).all():
        raise AccelsimError(Problem("flat allocation", "a group has no option", "a finite penalty in every group"))
    columns = np.ascontiguousarray(np.moveaxis(np.asarray(costs, np.float64), 2, 0))
    columns = np.where(np.isfinite(penalties), columns, 0.0)
    unit = np.where(budgets == 0.0, np.maximum(np.abs(columns).max(axis=(1, 2)), 1e-300), np.abs(budgets))
    flat = _Flat(penalties, columns / unit[:, None, None], budgets / unit * (1 + np.sign(budgets) * LIMIT_ROUNDING))
    prices, value = _best_prices(flat)
    choice = _filled(flat, prices, _fitted(flat, prices))
    if (flat.spent(choice) > flat.room).any():
        # For budgets so tight that moves found none.
        choice = exact_groups(penalties, columns, budgets)
    total = float(penalties[np.arange(len(choice)), choice].sum())
    bound = min(value - flat.rounding(prices), total)
    spent = columns[:, np.arange(len(choice)), choice].sum(axis=1)
    return FlatSolution(choice, total, bound, relative_gap(total, bound), spent)


def _best_prices(flat: _Flat) -> tuple[Floats, float]:
    """Prices [R] that maximise the Lagrangian function, and its value."""
    finite = np.where(np.isfinite(flat.penalties), flat.penalties, -np.inf)
    span = float((finite.max(axis=1) - flat.penalties.min(axis=1)).sum()) or 1.0
    most = np.full(len(flat.room), span)
    best = np.zeros(len(flat.room))
    value, slope, _, _ = flat.at(best)
    planes, levels = [slope], [value]
    rise = span
    for _ in range(MOST_PLANES):
        above = np.array(levels) + np.array(planes) @ best - value
        proposed, rise = _proposal(np.array(planes), above, best, most, max(rise, 1e-10 * span))
        if rise <= DUAL_GAP * abs(value):
            at_edge = proposed >= most * (1 - 1e-9)
            if not at_edge.any() or most.max() > STEEPEST * span:
                break
            most = np.where(at_edge, 100.0 * most, most)
            continue
        asked = 0.5 * (best + proposed)
        level, slope, _, _ = flat.at(asked)
        planes.append(slope)
        levels.append(level - float(slope @ asked))
        if level > value:
            best, value = asked, level
    return best, value


def _proposal(planes: Floats, above: Floats, best: Floats, most: Floats, rise: float) -> tuple[Floats, float]:
    """Prices for which the planes allow the greatest rise over the best value, and that rise.

    `above`: how far each plane lies above the value at the best prices.  Everything counts in units of the last rise,
    so that the tolerances of the solver shrink with it.
    """
    size, unit = float(np.abs(planes).max()) or 1.0, rise
    matrix = np.column_stack((-planes / size, np.ones(len(planes))))
    costs = np.append(np.zeros(planes.shape[1]), -1.0)
    step = size / unit
    bounds = [*((-low * step, (top - low) * step) for low, top in zip(best, most, strict=True)), (0.0, None)]
    found = linprog(costs, A_ub=matrix, b_ub=above / unit, bounds=bounds, method="highs")
    if found.x is None:
        return best, 0.0
    return np.clip(best + np.asarray(found.x[:-1]) / step, 0.0, most), float(found.x[-1]) * unit


def _fitted(flat: _Flat, prices: Floats) -> Ints:
    """The choice at the prices, moved until it fits or nothing relieves it: most relief per priced penalty first."""
    _, _, choice, priced = flat.at(prices)
    rows = np.arange(len(choice))
    floor = 1e-12 * float(np.abs(priced[rows, choice]).mean()) + 1e-300
    for _ in range(MOST_PLANES):
        over = flat.spent(choice) - flat.room
        if (over <= 0).all():
            break
        change = flat.costs - flat.costs[:, rows, choice][:, :, None]
        urgent = np.maximum(over, 0.0)
        # What breaks another budget is no relief.
        after = np.maximum(over[:, None, None] + change, 0.0)
        relief = urgent.sum() - after.sum(axis=0)
        price = np.maximum(priced - priced[rows, choice][:, None], 0.0) + floor
        ratio = np.where((relief > 0) & np.isfinite(flat.penalties), relief / price, -np.inf)
        option = np.argmax(ratio, axis=1)
        order = np.argsort(-ratio[rows, option], kind="stable")
        order = order[np.isfinite(ratio[order, option[order]])]
        if not len(order):
            break
        gained = np.cumsum(relief[order, option[order]])
        take = order[: int(np.searchsorted(gained, urgent.sum())) + 1]
        # Half of a long list at a time: the rest is judged by what is then over.
        take = take[: max(1, (len(take) + 1) // 2)]
        choice[take] = option[take]
    return choice


def _filled(flat: _Flat, prices: Floats, choice: Ints) -> Ints:
    """The choice after moves that lower the penalty and fit in the room left, cheapest at the prices first."""
    rows = np.arange(len(choice))
    choice = choice.copy()
    priced = flat.penalties + np.tensordot(prices, flat.costs, 1)
    rise = priced - priced[rows, choice][:, None]
    gain = flat.penalties[rows, choice][:, None] - flat.penalties
    group, option = np.nonzero(gain > 0)
    nearest = np.argsort(rise[group, option], kind="stable")[:NEAR_MOVES]
    group, option = group[nearest], option[nearest]
    room = flat.room - flat.spent(choice)
    while len(group) and (room >= 0).all():
        now = choice[group]
        change = flat.costs[:, group, option] - flat.costs[:, group, now]
        helps = (flat.penalties[group, option] < flat.penalties[group, now]) & (change <= room[:, None]).all(axis=0)
        group, option, change = group[helps], option[helps], change[:, helps]
        if not len(group):
            break
        rise = priced[group, option] - priced[group, choice[group]]
        order = np.argsort(rise, kind="stable")
        order = order[np.sort(np.unique(group[order], return_index=True)[1])]
        fits = (np.cumsum(change[:, order], axis=1) <= room[:, None]).all(axis=0)
        take = order[: int(np.argmin(fits)) if not fits.all() else len(order)]
        choice[group[take]] = option[take]
        room = flat.room - flat.spent(choice)
    return choice


def exact_groups(penalties: Floats, columns: Floats, budgets: Floats) -> Ints:
    """The choice [G] by the exact solver, costs as `columns` [R, G, K].  Raises InfeasibleError when none fits."""
    group, option = np.nonzero(np.isfinite(penalties))
    names = tuple(f"budget_{number}" for number in range(len(budgets)))
    problem = Knapsack(
        group,
        np.full(len(group), -1),
        penalties[group, option],
        columns[:, group, option].T,
        names,
        csr_array((len(group), 0)),
        np.zeros(0, np.int64),
        np.zeros(0),
        np.zeros(len(budgets)),
    )
    found = minimise(problem, "penalty", Limits(**dict(zip(names, budgets.tolist(), strict=True))))
    return option[found.chosen]
