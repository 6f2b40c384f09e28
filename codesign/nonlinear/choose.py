"""The hardware-aware assignment: the map of least summed SQNR difference within a budget of time, energy or EDP.

The metric is MNQ's; that it may be summed over layers is an interpretation (it has no such use in the paper).  Costs
are simulated: every method of every slot around the map at hand, then the choice, until the choice repeats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from accelsim.problems import InfeasibleError, Problem
from codesign.allocate.flat import allocate_groups
from codesign.allocate.problem import Floats
from codesign.budgets import Budget
from codesign.nonlinear.price import MapCost
from quant.nonlinear.assign import Candidates, by_difference, of_candidates
from quant.nonlinear.sqnr import SqnrTable

ROUNDS = 8
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
    best: tuple[float, dict[str, str], MapCost] | None = None
    allowed = runnable(table, price, candidates)
    context = by_difference(table, allowed)
    limit, seen = budget.value, set()
    cheapest = np.inf
    for _ in range(ROUNDS):
        chosen = _allocate(table, price, replace(budget, value=limit), allowed, context)
        cost = price(chosen)
        total, used = _penalty(table, chosen, allowed), spent(cost, budget.kind)
        cheapest = min(cheapest, used)
        if used <= budget.value and (best is None or total < best[0]):
            best = (total, chosen, cost)
        key = tuple(chosen.items())
        if key in seen and used <= budget.value:
            break
        if used > budget.value:
            limit -= used - budget.value
        seen.add(key)
        context = chosen
    if best is None:
        what = f"the cheapest map that was found needs {cheapest:.6g}"
        levers = ("a larger budget", "another accelerator")
        raise InfeasibleError(
            Problem(f"--budget {budget.kind}={budget.value:g}", what, f"at most {budget.value:g}", levers)
        )
    return best[1], best[2]


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


def _allocate(
    table: SqnrTable, price: Pricer, budget: Budget, candidates: Candidates, context: Mapping[str, str]
) -> dict[str, str]:
    """The knapsack around a context: differences of single changes, EDP to first order."""
    here = price(context)
    most = max(len(names) for names in candidates.values())
    penalties = np.full((len(table.slots), most), np.inf)
    costs = np.zeros((len(table.slots), most, 1))
    for k, slot in enumerate(table.slots):
        values = of_candidates(table, table.difference_db, k, candidates)
        for j, name in enumerate(candidates[slot.function]):
            there = here if name == context[slot.op] else price({**context, slot.op: name})
            penalties[k, j] = values[name]
            costs[k, j, 0] = _change(here, there, budget.kind)
    least = np.where(np.isfinite(penalties), costs[:, :, 0], np.inf).min(axis=1)
    costs[:, :, 0] -= least[:, None]
    room = budget.value - spent(here, budget.kind) - float(least.sum())
    choice = _solve(penalties, costs, room)
    return {slot.op: candidates[slot.function][int(choice[k])] for k, slot in enumerate(table.slots)}


def _solve(penalties: Floats, costs: Floats, room: float) -> Floats:
    """The choice of least penalty within the room; the cheapest one where there is none."""
    cheapest = np.where(np.isfinite(penalties), costs[:, :, 0], np.inf)
    if room <= 0:
        return np.asarray(np.argmin(cheapest, axis=1), np.float64)
    return np.asarray(allocate_groups(penalties - np.nanmin(penalties), costs, np.array([room])).choice, np.float64)


def _change(here: MapCost, there: MapCost, kind: str) -> float:
    """What a change adds in the budget's unit; of EDP the first-order part, so that changes add up."""
    if kind != "edp_pj_s":
        return spent(there, kind) - spent(here, kind)
    energy, time = there.energy_pj - here.energy_pj, there.latency_s - here.latency_s
    return here.energy_pj * time + here.latency_s * energy
