"""Widths from the frontier: the choice of least summed error within a budget of any kind of cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from math import inf
from typing import Protocol

import numpy as np

from accelsim.problems import AccelsimError, InfeasibleError, Problem
from codesign.frontier.hull import bound, hull
from codesign.frontier.merge import Floats, Frontier, Group, merge, monotone
from codesign.greedy.compare import uniform_states
from codesign.greedy.rounds import Priced, Proposal, cost_of, settled
from codesign.greedy.trajectory import Component, State, too_low

Errors = Mapping[tuple[str, int], float]  # by component and bits
Widths = tuple[int, ...]
MOST_OPTIONS = 10_000  # of a coupled group
ROUNDING = 1e-13  # of the cost: changes are differences, which may not add up in the last bits


class WidthCosts(Priced, Protocol):
    """Priced states, and over which groups of components (by number) their costs add up."""

    @property
    def coupled(self) -> tuple[tuple[int, ...], ...]:
        """Groups whose changes are priced together; every component is in one."""
        ...


@dataclass(frozen=True, eq=False)
class FrontierChoice:
    """A state within the budget: its summed error, its cost, and how it was found.

    `least_error` is a bound from below of what any state reaches at the last prices (the hull at the budget), or the
    error that was reached, where those prices are wrong about it.
    `points` counts those of the last frontier; `slack` is what bins may cost (0: exact); `rounds` are those of pricing.
    """

    state: State
    error: float
    cost: float
    least_error: float
    points: int
    slack: float
    rounds: int


def allocate(
    problem: WidthCosts, errors: Errors, target: float, bins: int | None = None, on_hull: bool = False
) -> FrontierChoice:
    """The state of least summed error whose cost is at most the target.

    A component's errors are made to rise as its width falls.  Changes of the cost are those of one coupled group at a
    time, from the widest state.  Where they add up (storage, widths, bit operations) the choice is exact, with `bins`
    to within the slack, and `on_hull` the best of the supported ones.  Where they do not (simulated costs) they are
    priced anew around every choice until none is better, from the widest state and from every state of one width that
    meets the target; the best choice is then widened, one component at a time, while the target is met.  So it is
    never worse than one width by its summed error.  Raises InfeasibleError when no choice that was tried meets the
    target, AccelsimError for missing errors and groups of too many options.
    """
    table = error_table(problem.components, errors)
    rounds: list[tuple[Frontier, float]] = []

    def choose(context: State, limit: float) -> Proposal:
        groups, options = priced(problem, table, context)
        here = cost_of(problem, context)
        spare = ROUNDING * abs(here) - here
        points = hull(groups) if on_hull else merge(groups, bins)
        # The limit may lie below the target, of which the bound is.
        found = points.pick(limit + spare) if limit + spare >= points.costs[0] else 0
        corners = points if on_hull else hull(groups)
        possible = target + spare >= corners.costs[0]
        rounds.append((points, bound(corners, target + spare) if possible else float(corners.errors[0])))
        widths: dict[int, int] = {}
        for members, some, option in zip(problem.coupled, options, points.choices[found], strict=True):
            widths.update(zip(members, some[option], strict=True))
        state = tuple(widths[k] for k in range(len(problem.components)))
        return Proposal(state, here + float(points.costs[found]), float(points.errors[found]))

    widest = tuple(one.widths[0] for one in problem.components)
    try:
        best = settled(problem, target, widest, choose)
    except InfeasibleError:
        best = None
    last, least = rounds[-1]
    if best is None or len(rounds) > 1:
        best = _from_one_width(problem, table, target, choose, best)
        best = _widened(problem, table, target, best)
    # Where costs do not add up the last prices may say that what was found cannot be.
    return FrontierChoice(best.state, best.rise, best.cost, min(least, best.rise), len(last), last.slack, len(rounds))


def _from_one_width(
    problem: WidthCosts,
    table: Sequence[Floats],
    target: float,
    choose: Callable[[State, float], Proposal],
    best: Proposal | None,
) -> Proposal:
    """The best of a choice, of the states of one width within the target, and of what is found around those.

    Raises InfeasibleError when there is none.
    """
    least = inf
    for state in uniform_states(problem.components).values():
        cost = cost_of(problem, state)
        least = min(least, cost)
        if cost > target:
            continue
        found = [Proposal(state, cost, _error(problem, table, state))]
        with suppress(InfeasibleError):
            found.append(settled(problem, target, state, choose))
        best = min([*found, *([] if best is None else [best])], key=lambda one: (one.rise, one.cost))
    if best is None:
        raise too_low(least, target)
    return best


def _widened(problem: WidthCosts, table: Sequence[Floats], target: float, best: Proposal) -> Proposal:
    """The choice with single components made wider, those first that lower the error most, while the target is met."""
    while True:
        found = best
        for k, one in enumerate(problem.components):
            for bits in one.widths[: one.widths.index(best.state[k])]:
                state = _with(best.state, (k,), (bits,))
                error = _error(problem, table, state)
                if error < found.rise and cost_of(problem, state) <= target:
                    found = Proposal(state, cost_of(problem, state), error)
        if found is best:
            return best
        best = found


def _error(problem: WidthCosts, table: Sequence[Floats], state: State) -> float:
    """The summed error of a state."""
    parts = zip(problem.components, table, state, strict=True)
    return sum(float(errors[one.widths.index(bits)]) for one, errors, bits in parts)


def error_table(components: Sequence[Component], errors: Errors) -> tuple[Floats, ...]:
    """Errors of every component by width [K], made to rise as widths fall.  Raises AccelsimError for missing ones."""
    missing = [f"{one.name} at {bits}" for one in components for bits in one.widths if (one.name, bits) not in errors]
    if missing:
        raise AccelsimError(Problem("errors of components", f"lack {missing[0]} bits", "one per component and width"))
    return tuple(monotone(np.array([errors[one.name, bits] for bits in one.widths])) for one in components)


def priced(
    problem: WidthCosts, table: Sequence[Floats], context: State
) -> tuple[tuple[Group, ...], tuple[tuple[Widths, ...], ...]]:
    """Of every coupled group all widths of its members: errors, changes of the context's cost, and the widths."""
    here = problem.cost(context)
    groups, options = [], []
    for members in problem.coupled:
        widths = [problem.components[k].widths for k in members]
        if np.prod([len(one) for one in widths], dtype=float) > MOST_OPTIONS:
            what = f"{len(members)} components from {problem.components[members[0]].name} on meet in products"
            raise AccelsimError(
                Problem("frontier", what, f"at most {MOST_OPTIONS:,} choices together", ("fewer widths",))
            )
        some = tuple(product(*widths))
        sums = [sum(values) for values in product(*(table[k].tolist() for k in members))]
        costs = [cost_of(problem, _with(context, members, one)) - here for one in some]
        groups.append(Group(np.array(sums), np.array(costs)))
        options.append(some)
    return tuple(groups), tuple(options)


def _with(context: State, members: Sequence[int], widths: Widths) -> State:
    """The context with other widths of some components."""
    state = list(context)
    for k, bits in zip(members, widths, strict=True):
        state[k] = bits
    return tuple(state)
