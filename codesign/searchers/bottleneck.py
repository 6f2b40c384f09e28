"""Bottleneck-guided search: the busiest unit of a design says which change of the hardware to try next.

Every design of the front proposes all single and double steps along its axes.  `codesign.what_if` estimates what each
would give from the busy shares, energies and areas of the design's run; what was observed of earlier proposals
corrects the estimate, and is all that is known of axes such as the plan.  The proposals that reach farthest beyond the
front are asked.  One in five is a random mutation instead, so that a wrong estimate excludes nothing for ever.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from codesign.pareto import pareto_front
from codesign.searchers.registry import Design, Floats, Genes, Setup, searcher
from codesign.what_if import Change, State, effects, predicted, role_of, state_of

Digits = tuple[int, ...]
# A change of an axis, as experience remembers it: axis and direction of a quantity, axis and both values of a category.
Step = tuple[int, int, int]

# Of the population: designs of the first and of any later generation.
FIRST_SHARE, LATER_SHARE = 0.5, 0.25
# Of a generation: random mutations, more of them with every generation that did not move the front.
EXPLORING_SHARE, MOST_EXPLORING_SHARE = 0.2, 0.6
LEAST = 4
# Steps along an ordered axis that a proposal may take.
FARTHEST = 2
# A category's value that was never tried is hoped to gain this much (logarithm).
HOPE = 0.05
# Observations that weigh as much as the estimate.
CAUTION = 1.0
# Parents when no design is within the limits, and the most that propose in a generation.
MOST_REPAIRED, MOST_PARENTS = 5, 24
# Random mutations to draw before any design is taken.
TRIES = 20
# Beside any gain: a proposal that is expected to break a limit comes last.
BROKEN = 1e3


@dataclass(frozen=True)
class _Known:
    """A design that was looked at: logarithms of its costs and of its limited metrics ÷ limits."""

    state: State
    costs: Floats
    limited: Floats
    simulated: bool

    @property
    def allowed(self) -> bool:
        return self.simulated and bool((self.limited <= 0).all())


@dataclass
class _Proposal:
    """Designs near a parent with what is expected of them."""

    parent: Digits
    digits: list[Digits]
    steps: list[tuple[Step, ...]]
    costs: Floats
    limited: Floats


@searcher("bottleneck")
class Bottleneck:
    """See the module; an `Informed` searcher."""

    def __init__(self, setup: Setup) -> None:
        self._setup, self._sizes = setup, setup.variables.sizes
        self._metrics = (*setup.costs, *setup.limits)
        self._random = np.random.default_rng(setup.seed)
        self._asked: set[Digits] = set()
        self._known: dict[Digits, _Known] = {}
        self._designs: list[Design] = []
        self._expected: dict[Digits, tuple[Digits, tuple[Step, ...], Floats]] = {}
        self._residuals: dict[Step, list[Floats]] = {}
        self._front: list[Digits] = []
        self._stale = 0

    def ask(self) -> Genes:
        """The next generation; no rows when every design was asked for."""
        share = LATER_SHARE if self._known else FIRST_SHARE
        left = math.prod(self._sizes) - len(self._asked)
        wanted = min(left, max(LEAST, round(share * self._setup.population)))
        chosen: list[Digits] = []
        parents = self._parents()
        if parents:
            share = min(MOST_EXPLORING_SHARE, EXPLORING_SHARE * (1 + self._stale))
            explored = max(1, round(share * wanted))
            chosen = self._proposed(wanted - explored, parents)
            self._asked.update(chosen)
        while len(chosen) < wanted:
            digits = self._drawn(parents)
            self._asked.add(digits)
            chosen.append(digits)
        return np.array(chosen, np.int64).reshape(len(chosen), len(self._sizes))

    def learn(self, designs: Sequence[Design]) -> None:
        """Keeps them for `tell`."""
        self._designs = list(designs)

    def tell(self, genes: Genes, objectives: Floats, violations: Floats) -> None:
        """Remembers the designs that were simulated or measured, and how far the estimates were off."""
        for row, digits in enumerate(map(tuple, genes.tolist())):
            accelerator, outcome = self._designs[row]
            # What has no area met a fault or cannot run: nothing is learned from it.
            if accelerator is None or outcome is None or outcome.get("area_mm2") is None:
                continue
            simulated = outcome["status"] == "ok"
            limited = np.log(np.maximum(1e-12, 1.0 + violations[row, 1:]))
            state = state_of(accelerator, outcome)
            known = _Known(state, np.log(np.maximum(1e-300, objectives[row])), limited, simulated)
            self._known[digits] = known
            if simulated and digits in self._expected:
                self._compare(digits, known)
        before, self._front = self._front, self._best()
        self._stale = self._stale + 1 if self._front == before else 0

    def _compare(self, digits: Digits, known: _Known) -> None:
        """Add to experience: what the design has beyond the estimate, shared by the steps that led to it."""
        _, steps, estimate = self._expected.pop(digits)
        missed = (np.concatenate([known.costs, known.limited]) - estimate) / len(steps)
        for step in steps:
            self._residuals.setdefault(step, []).append(missed)

    def _drawn(self, parents: Sequence[Digits]) -> Digits:
        """A new design: two parents crossed and mutated, or any when there are none or nothing new is near."""
        for _ in range(TRIES if parents else 0):
            pair = [parents[k] for k in self._random.integers(len(parents), size=2)]
            digits = [pair[k][axis] for axis, k in enumerate(self._random.integers(2, size=len(self._sizes)))]
            for axis in np.flatnonzero(self._random.random(len(digits)) < 1.0 / len(digits)):
                digits[axis] = int(self._random.integers(self._sizes[axis]))
            if tuple(digits) not in self._asked:
                return tuple(digits)
        while True:
            any_design = tuple(int(self._random.integers(size)) for size in self._sizes)
            if any_design not in self._asked:
                return any_design

    def _parents(self) -> list[Digits]:
        """Designs of the front and, if it stands still, of those behind it; or those that break the limits least."""
        if not self._front:
            broken = {digits: float(np.maximum(0, known.limited).sum()) for digits, known in self._known.items()}
            return sorted(broken, key=lambda digits: (broken[digits], digits))[:MOST_REPAIRED]
        if len(self._front) > MOST_PARENTS:
            order = self._random.permutation(len(self._front))[:MOST_PARENTS]
            return [self._front[k] for k in sorted(order)]
        found = list(self._front)
        # Where the front does not move, another family of designs may lie behind it.
        for _ in range(self._stale):
            found += self._best(besides=found)[: MOST_PARENTS - len(found)]
        return found

    def _best(self, besides: Sequence[Digits] = ()) -> list[Digits]:
        """Designs within the limits that no other of them beats, `besides` some left out."""
        left_out = set(besides)
        allowed = [digits for digits, known in self._known.items() if known.allowed and digits not in left_out]
        costs = np.array([self._known[digits].costs for digits in allowed]).reshape(
            len(allowed), self._setup.objectives
        )
        return [digits for digits, best in zip(allowed, pareto_front(costs), strict=True) if best]

    def _proposed(self, count: int, parents: Sequence[Digits]) -> list[Digits]:
        """The `count` most promising new designs near the parents, each judged with the better ones already asked."""
        proposals = [self._near(parent) for parent in parents]
        proposals = [proposal for proposal in proposals if proposal.digits]
        if not proposals:
            return []
        costs = np.concatenate([proposal.costs for proposal in proposals])
        broken = np.maximum(0, np.concatenate([proposal.limited for proposal in proposals])).sum(axis=1)
        places = [(proposal, k) for proposal in proposals for k in range(len(proposal.digits))]
        gains = _gains(costs, [self._known[digits].costs for digits in self._front or parents])
        chosen: list[Digits] = []
        while len(chosen) < count:
            scores = np.where(broken > 0, -BROKEN - broken, gains)
            best = int(np.argmax(scores))
            if scores[best] == -np.inf:
                break
            proposal, k = places[best]
            digits = proposal.digits[k]
            broken[best], gains[best] = 0.0, -np.inf
            if digits in chosen:
                continue
            chosen.append(digits)
            expected = np.concatenate([proposal.costs[k], proposal.limited[k]])
            self._expected[digits] = (proposal.parent, proposal.steps[k], expected)
            gains = np.minimum(gains, _gains(costs, [costs[best]]))
        return chosen

    def _near(self, parent: Digits) -> _Proposal:
        """New designs one or two steps from a parent."""
        known = self._known[parent]
        singles = list(self._singles(parent, known))
        pairs = [(i, j) for i, j in itertools.combinations(range(len(singles)), 2) if singles[i][0] != singles[j][0]]
        nothing = len(singles)
        singles_and_pairs = [(i, nothing) for i in range(nothing)] + pairs
        alone = effects(known.state, [*(change for *_, change in singles), None])
        first, second = np.array(singles_and_pairs, np.int64).reshape(-1, 2).T
        estimates = self._estimates(known, predicted(known.state, alone.both(first, second)), len(first))
        corrections = np.array([*(self._correction(step, change) for *_, step, change in singles), self._zero()])
        estimates += corrections[first] + corrections[second]
        digits, steps, rows = [], [], []
        for row, chosen in enumerate(singles_and_pairs):
            moves = [singles[k] for k in chosen if k != nothing]
            moved = list(parent)
            for axis, value, *_ in moves:
                moved[axis] = value
            if tuple(moved) not in self._asked:
                rows.append(row)
                digits.append(tuple(moved))
                steps.append(tuple(step for _, _, step, _ in moves))
        k = len(self._setup.costs)
        return _Proposal(parent, digits, steps, estimates[rows, :k], estimates[rows, k:])

    def _singles(self, parent: Digits, known: _Known) -> Iterator[tuple[int, int, Step, Change | None]]:
        """(axis, new value number, step, change) of every single step: near values of quantities, all of categories."""
        variables = self._setup.variables
        for axis, (size, ordered) in enumerate(zip(self._sizes, variables.ordered, strict=True)):
            old = parent[axis]
            near = range(max(0, old - FARTHEST), min(size, old + FARTHEST + 1)) if ordered else range(size)
            for value in near:
                if value != old:
                    step = (axis, -1, 1 if value > old else 0) if ordered else (axis, old, value)
                    yield axis, value, step, self._change(axis, old, value, known)

    def _change(self, axis: int, old: int, new: int, known: _Known) -> Change | None:
        """What the step means for the hardware; None when only experience can tell."""
        name, values = self._setup.variables.names[axis], self._setup.variables.values[axis]
        role = role_of(name, known.state.units)
        numbers = [v for v in (values[old], values[new]) if isinstance(v, int | float) and not isinstance(v, bool)]
        if role is None or len(numbers) < 2 or numbers[0] <= 0 or numbers[1] < 0:
            return None
        return Change(role, numbers[1] / numbers[0])

    def _estimates(self, known: _Known, changes: Mapping[str, Any], count: int) -> Floats:
        """Logarithms [n, metrics] of what is expected: the parent's and the estimated changes."""
        base: Floats = np.concatenate([known.costs, known.limited])
        columns = [changes[name] if name in changes else np.zeros(count) for name in self._metrics]
        moved: Floats = np.stack(columns, axis=1)
        return base + moved

    def _correction(self, step: Step, change: Change | None) -> Floats:
        """What experience adds to the estimate of a step; hope for what was never tried and cannot be estimated."""
        seen = self._residuals.get(step)
        if seen is None:
            return np.full(len(self._metrics), -HOPE if change is None else 0.0)
        total: Floats = np.sum(seen, axis=0)
        return total / (len(seen) + CAUTION)

    def _zero(self) -> Floats:
        return np.zeros(len(self._metrics))


def _gains(costs: Floats, front: Sequence[Floats]) -> Floats:
    """How far each row of `costs` [n, k] is beyond the front: the least over the front of the largest gain."""
    gains = np.full(len(costs), np.inf)
    for row in front:
        gains = np.minimum(gains, (row - costs).max(axis=1))
    return gains
