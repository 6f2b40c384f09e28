"""The hardware-aware assignment: the map of least summed SQNR difference within a budget of time, energy or EDP.

The metric is MNQ's; that it may be summed over layers is an interpretation (it has no such use in the paper).  Costs
are simulated: every method of every slot around the best map at hand, then the choice.  What single changes add up to
is not quite what a map costs, so the limit of the choice is bisected between one that was kept and one that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from accelsim.problems import InfeasibleError, Problem
from codesign.allocate.flat import exact_groups
from codesign.allocate.problem import Floats, Ints
from codesign.budgets import Budget
from codesign.nonlinear.price import MapCost
from quant.nonlinear.assign import Candidates, by_difference, of_candidates
from quant.nonlinear.sqnr import SqnrTable

ROUNDS = 12
LEAST_STEP = 1e-3  # of the budget, when a limit is raised
Pricer = Callable[[Mapping[str, str]], MapCost]


def spent(cost: MapCost, kind: str) -> float:
    """The cost in a budget's unit (latency_s, energy_pj or edp_pj_s)."""
    return float(getattr(cost, kind))


def choose_within(
    table: SqnrTable, price: Pricer, budget: Budget, candidates: Candidates
) -> tuple[dict[str, str], MapCost]:
    """The map and its simulated cost; a map that names some ops only has the others in real numbers.

    Raises InfeasibleError when no map that was tried keeps the budget, and when the accelerator runs no method.
    """
    allowed = runnable(table, price, candidates)
    free = by_difference(table, allowed)
    search = _Search(budget, free)
    least = _penalty(table, free, allowed)
    around, changes = None, np.zeros(0)
    for _ in range(ROUNDS):
        if around != search.context:
            around, changes = search.context, _changes(table, price, budget.kind, allowed, search.context)
        chosen = _allocate(table, changes, search.limit, allowed)
        search.tried(chosen, price(chosen), _penalty(table, chosen, allowed))
        if search.best is not None and search.best[0] <= least:
            break
    if search.best is None:
        what = f"the cheapest map that was found needs {search.cheapest:.6g}"
        levers = ("a larger budget", "another accelerator")
        raise InfeasibleError(
            Problem(f"--budget {budget.kind}={budget.value:g}", what, f"at most {budget.value:g}", levers)
        )
    return search.best[1], search.best[2]


class _Search:
    """Which map changes are priced around, and which limit the choice has.

    The context is the best map that keeps the budget; before there is one, the last map that was tried.
    """

    def __init__(self, budget: Budget, context: dict[str, str]) -> None:
        self.budget, self.context, self.limit = budget, context, budget.value
        self.best: tuple[float, dict[str, str], MapCost] | None = None
        self.cheapest = np.inf
        self.kept = -np.inf  # limits around this context: the last one whose map kept the budget,
        self.missed = np.inf  # and the last one whose map did not

    def tried(self, chosen: dict[str, str], cost: MapCost, penalty: float) -> None:
        """Note what a map costs, and set the next limit and context."""
        used = spent(cost, self.budget.kind)
        over = used - self.budget.value
        self.cheapest = min(self.cheapest, used)
        if over <= 0 and (self.best is None or penalty < self.best[0]):
            self.best = (penalty, chosen, cost)
            self.context, self.limit = chosen, self.budget.value
            self.kept, self.missed = used, np.inf
        elif self.best is None:
            self.context, self.limit = chosen, self.limit - over
        else:
            if over > 0:
                self.missed = self.limit
            else:
                self.kept = self.limit
            wider = self.limit + max(-over, LEAST_STEP * self.budget.value)
            self.limit = wider if self.missed == np.inf else (self.kept + self.missed) / 2


def _penalty(table: SqnrTable, chosen: Mapping[str, str], candidates: Candidates) -> float:
    values = table.difference_db
    return sum(of_candidates(table, values, k, candidates)[chosen[slot.op]] for k, slot in enumerate(table.slots))


def runnable(table: SqnrTable, price: Pricer, candidates: Candidates) -> Candidates:
    """The candidates that the accelerator can run.  Raises InfeasibleError when a function has none."""
    allowed = {}
    for function in dict.fromkeys(slot.function for slot in table.slots):
        kept = []
        for name in candidates[function]:
            try:
                price({slot.op: name for slot in table.slots if slot.function == function})
            except InfeasibleError as error:
                missing = error
            else:
                kept.append(name)
        if not kept:
            raise missing
        allowed[function] = tuple(kept)
    return allowed


def _changes(table: SqnrTable, price: Pricer, kind: str, candidates: Candidates, context: Mapping[str, str]) -> Floats:
    """What a map costs [slots, candidates] by single changes of a context: each slot's part, of EDP to first order.

    The parts of the context add up to its cost.  Candidates that a slot lacks have 0.
    """
    here = price(context)
    costs = np.zeros((len(table.slots), max(len(names) for names in candidates.values())))
    for k, slot in enumerate(table.slots):
        for j, name in enumerate(candidates[slot.function]):
            there = here if name == context[slot.op] else price({**context, slot.op: name})
            costs[k, j] = _change(here, there, kind) + spent(here, kind) / len(table.slots)
    return costs


def _allocate(table: SqnrTable, costs: Floats, limit: float, candidates: Candidates) -> dict[str, str]:
    """The knapsack: the map of least penalty whose parts of `costs` add up to no more than the limit."""
    penalties = np.full(costs.shape, np.inf)
    for k, slot in enumerate(table.slots):
        values = of_candidates(table, table.difference_db, k, candidates)
        penalties[k, : len(candidates[slot.function])] = [values[name] for name in candidates[slot.function]]
    least = np.where(np.isfinite(penalties), costs, np.inf).min(axis=1)
    choice = _solve(penalties, costs - least[:, None], limit - float(least.sum()))
    return {slot.op: candidates[slot.function][int(choice[k])] for k, slot in enumerate(table.slots)}


def _solve(penalties: Floats, costs: Floats, room: float) -> Ints:
    """The choice [slots] of least penalty whose costs fit the room; the cheapest one where there is none."""
    if room <= 0:
        return np.asarray(np.argmin(np.where(np.isfinite(penalties), costs, np.inf), axis=1))
    return exact_groups(penalties - penalties.min(), costs[None] / room, np.ones(1))


def _change(here: MapCost, there: MapCost, kind: str) -> float:
    """What a change adds in the budget's unit; of EDP the first-order part, so that changes add up."""
    if kind != "edp_pj_s":
        return spent(there, kind) - spent(here, kind)
    energy, time = there.energy_pj - here.energy_pj, there.latency_s - here.latency_s
    return here.energy_pj * time + here.latency_s * energy
