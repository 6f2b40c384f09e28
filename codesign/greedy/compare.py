"""What a greedy walk is compared with: random walks, one width for all, and the knapsack of single losses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from accelsim.problems import InfeasibleError
from codesign.allocate.flat import exact_groups
from codesign.allocate.problem import Floats
from codesign.greedy.rounds import Priced, Proposal, cost_of, settled
from codesign.greedy.trajectory import Component, State, WidthProblem, too_low, with_width


def random_state(problem: Priced, target: float, rng: np.random.Generator) -> State:
    """Where a walk ends that makes a random component one width narrower until the cost is at most the target.

    Raises InfeasibleError when the narrowest state costs more.
    """
    state, costs = [one.widths[0] for one in problem.components], []
    while True:
        costs.append(cost_of(problem, tuple(state)))
        if costs[-1] <= target:
            return tuple(state)
        open_ = [k for k, one in enumerate(problem.components) if state[k] > one.widths[-1]]
        if not open_:
            raise too_low(min(costs), target)
        k = int(rng.choice(open_))
        state[k] = next(bits for bits in problem.components[k].widths if bits < state[k])


def uniform_states(components: tuple[Component, ...]) -> dict[int, State]:
    """The state of every width: each component at its widest that is no wider, at its narrowest where there is none."""
    every = sorted({bits for one in components for bits in one.widths}, reverse=True)
    return {bits: tuple(_at_most(one, bits) for one in components) for bits in every}


def _at_most(component: Component, bits: int) -> int:
    return next((one for one in component.widths if one <= bits), component.widths[-1])


@dataclass(frozen=True)
class KnapsackChoice:
    """A state whose summed single losses are least, what they add up to, its cost, and losses measured for it."""

    state: State
    predicted_rise: float
    cost: float
    evaluations: int


def knapsack(problem: WidthProblem, target: float) -> KnapsackChoice:
    """The state of the least sum of single losses within the target.

    The loss of a component at a width is what it alone adds to the widest state, never below 0 nor below that of a
    wider one; they are taken to add up.  Costs are those of single changes.  Where costs add up the choice is exact
    (`codesign.allocate.flat.exact_groups`).  Where they do not (bit operations, simulated costs) changes are priced
    anew around every choice until none is better (`codesign.greedy.rounds`).  Raises InfeasibleError when no choice
    that was tried meets the target.
    """
    first = tuple(one.widths[0] for one in problem.components)
    problem.settle(first)
    here = problem.loss(first)
    count = max(len(one.widths) for one in problem.components)
    rises = np.full((len(problem.components), count), np.inf)
    for k, one in enumerate(problem.components):
        losses = [0.0, *(problem.loss(with_width(first, k, bits)) - here for bits in one.widths[1:])]
        rises[k, : len(losses)] = np.maximum.accumulate(losses)
    best = settled(problem, target, first, lambda context, limit: _choice(problem, context, limit, rises))
    evaluations = 1 + sum(len(one.widths) - 1 for one in problem.components)
    return KnapsackChoice(best.state, best.rise, best.cost, evaluations)


def _choice(problem: WidthProblem, context: State, limit: float, rises: Floats) -> Proposal:
    """The state of the least sum of rises whose changes of a context's cost fit the limit, and what both add up to.

    Where none fits it is the cheapest.
    """
    here = problem.cost(context)
    changes = np.full(rises.shape, np.inf)
    for k, one in enumerate(problem.components):
        changes[k, : len(one.widths)] = [cost_of(problem, with_width(context, k, bits)) - here for bits in one.widths]
    able = np.isfinite(changes) & np.isfinite(rises)
    least = np.where(able, changes, np.inf).min(axis=1)
    room = limit - here - float(least.sum())
    try:
        if room <= 0:
            raise too_low(here + float(least.sum()), limit)
        costs = np.where(able, changes - least[:, None], 0.0) / room
        choice = exact_groups(np.where(able, rises, np.inf), costs[None], np.ones(1))
    except InfeasibleError:
        choice = np.argmin(np.where(able, changes, np.inf), axis=1)
    state = tuple(one.widths[int(k)] for one, k in zip(problem.components, choice, strict=True))
    rise = sum(float(rises[k, one.widths.index(state[k])]) for k, one in enumerate(problem.components))
    return Proposal(state, here + float(changes[np.arange(len(choice)), choice].sum()), rise)
