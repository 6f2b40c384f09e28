"""What a greedy walk is compared with: random walks, one width for all, and the knapsack of single losses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from accelsim.problems import InfeasibleError
from codesign.allocate.flat import exact_groups
from codesign.allocate.problem import Floats
from codesign.greedy.trajectory import Component, State, WidthProblem, too_low, with_width

ROUNDS = 12
ROUNDING = 1e-9  # of the cost at the start: a predicted cost this close is exact


def random_state(problem: WidthProblem, target: float, rng: np.random.Generator) -> State:
    """Where a walk ends that makes a random component one width narrower until the cost is at most the target.

    Raises InfeasibleError when the narrowest state costs more.
    """
    state, costs = [one.widths[0] for one in problem.components], []
    while True:
        costs.append(_cost(problem, tuple(state)))
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
    anew around every choice until none is better.  Raises InfeasibleError when no choice that was tried meets the
    target.
    """
    first = tuple(one.widths[0] for one in problem.components)
    problem.settle(first)
    here = problem.loss(first)
    count = max(len(one.widths) for one in problem.components)
    rises = np.full((len(problem.components), count), np.inf)
    for k, one in enumerate(problem.components):
        losses = [0.0, *(problem.loss(with_width(first, k, bits)) - here for bits in one.widths[1:])]
        rises[k, : len(losses)] = np.maximum.accumulate(losses)
    search = _Rounds(problem, target, first)
    for _ in range(ROUNDS):
        state, predicted = _choice(problem, search.context, search.limit, rises)
        rise = sum(float(rises[k, one.widths.index(state[k])]) for k, one in enumerate(problem.components))
        if search.done(state, predicted, rise):
            break
    if search.best is None:
        raise too_low(search.least, target)
    evaluations = 1 + sum(len(one.widths) - 1 for one in problem.components)
    return KnapsackChoice(search.best[1], search.best[0], search.best[2], evaluations)


class _Rounds:
    """Around which state changes are priced (the last one), and what they may add up to."""

    def __init__(self, problem: WidthProblem, target: float, first: State) -> None:
        self.problem, self.target, self.context, self.limit = problem, target, first, target
        self.start = self.least = problem.cost(first)
        self.best: tuple[float, State, float] | None = None
        self.dear: set[State] = set()  # choices that cost more than the target

    def done(self, state: State, predicted: float, rise: float) -> bool:
        """Note a choice with its predicted cost and rise; True when another round would find nothing better.

        Around a choice that costs too much changes are priced anew; when it comes again the limit falls by the excess.
        """
        used = _cost(self.problem, state)
        self.least = min(self.least, used)
        if math.isfinite(used):
            self.context = state
        if used > self.target:
            if state in self.dear:
                self.limit -= min(used - self.target, abs(self.target))
            self.dear.add(state)
            return False
        if self.best is not None and rise >= self.best[0]:
            return True
        self.best, self.limit = (rise, state, used), self.target
        return abs(used - predicted) <= ROUNDING * abs(self.start)


def _choice(problem: WidthProblem, context: State, limit: float, rises: Floats) -> tuple[State, float]:
    """The state of the least sum of rises whose changes of a context's cost fit the limit, and what they add up to.

    Where none fits it is the cheapest.
    """
    here = problem.cost(context)
    changes = np.full(rises.shape, np.inf)
    for k, one in enumerate(problem.components):
        changes[k, : len(one.widths)] = [_cost(problem, with_width(context, k, bits)) - here for bits in one.widths]
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
    return state, here + float(changes[np.arange(len(choice)), choice].sum())


def _cost(problem: WidthProblem, state: State) -> float:
    """The cost; infinite where the state cannot be had."""
    try:
        return problem.cost(state)
    except InfeasibleError:
        return math.inf
