"""Choices from prices of single changes, where costs do not add up: changes are priced anew around every choice."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from accelsim.problems import InfeasibleError
from codesign.greedy.trajectory import Component, State, too_low

ROUNDS = 12
ROUNDING = 1e-9  # of the cost at the start: a predicted cost this close is exact


class Priced(Protocol):
    """Components with widths whose states cost something."""

    @property
    def components(self) -> tuple[Component, ...]:
        """The components, widths descending."""
        ...

    def cost(self, state: State) -> float:
        """What a state costs.  Raises InfeasibleError for a state that cannot be had at all."""
        ...


@dataclass(frozen=True)
class Proposal:
    """A state, what it is predicted to cost, and what it is predicted to lose."""

    state: State
    cost: float
    rise: float


def settled(problem: Priced, target: float, first: State, choose: Callable[[State, float], Proposal]) -> Proposal:
    """The best choice within the target, with its true cost.

    `choose` proposes the best state for the changes that it prices around a context (the state `first`, then every
    choice) and a limit of their sum.  It is asked again until its prediction is exact or no choice is better than the
    one before.  Raises InfeasibleError when no choice that was tried meets the target.
    """
    search = _Rounds(problem, target, first)
    for _ in range(ROUNDS):
        if search.done(choose(search.context, search.limit)):
            break
    if search.best is None:
        raise too_low(search.least, target)
    return search.best


def cost_of(problem: Priced, state: State) -> float:
    """The cost; infinite where the state cannot be had."""
    try:
        return problem.cost(state)
    except InfeasibleError:
        return math.inf


class _Rounds:
    """Around which state changes are priced (the last one), and what they may add up to."""

    def __init__(self, problem: Priced, target: float, first: State) -> None:
        self.problem, self.target, self.context, self.limit = problem, target, first, target
        self.start = self.least = problem.cost(first)
        self.best: Proposal | None = None
        self.dear: set[State] = set()  # choices that cost more than the target

    def done(self, found: Proposal) -> bool:
        """Note a choice; True when another round would find nothing better.

        Around a choice that costs too much changes are priced anew; when it comes again the limit falls by the excess.
        """
        used = cost_of(self.problem, found.state)
        self.least = min(self.least, used)
        if math.isfinite(used):
            self.context = found.state
        if used > self.target:
            if found.state in self.dear:
                self.limit -= min(used - self.target, abs(self.target))
            self.dear.add(found.state)
            return False
        if self.best is not None and found.rise >= self.best.rise:
            return True
        self.best, self.limit = Proposal(found.state, used, found.rise), self.target
        return abs(used - found.cost) <= ROUNDING * abs(self.start)
