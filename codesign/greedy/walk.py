"""Greedy mixed precision: one component at a time loses bits, by a score of performance and compressibility.

MPTQ-ViT (Tai and Wu 2024, arXiv 2401.14895) says that its greedy search combines the two; the score is not public, so
all of this is an interpretation.  From all components at their widest, the move of the best score is made until the
cost meets the target:

    combined          ΔC/C / (ΔP/P + ε)
    performance       −ΔP/P
    compressibility   ΔC/C

ΔP is how much the loss rises above the highest one so far, never below 0 (a narrower network that seems better is
noise); ΔC how much the cost falls; P and C the loss and cost of the state with everything at its widest and narrowest
apart.  ε is the share of P below which a rise is noise: there ΔC alone decides.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from accelsim.problems import AccelsimError, InfeasibleError, Problem
from codesign.greedy.trajectory import (
    Component,
    Move,
    Point,
    State,
    Step,
    Trajectory,
    WidthProblem,
    filled,
    too_low,
    with_width,
)
from codesign.greedy.trajectory import after as point_after

SCORES = ("combined", "performance", "compressibility")
SEARCHES = ("exact", "lazy")
LEAST_GAIN = 1e-12  # of the cost at the start; less is rounding


@dataclass(frozen=True)
class WalkSettings:
    """How moves are ranked and how often their losses are measured.

    "exact" measures all moves at every step.  "lazy" (Minoux 1978) keeps the scores of earlier steps and measures
    the best one again until one stays the best: it makes the same moves if scores only fall on the way, which nothing
    guarantees here.
    """

    score: str = "combined"
    search: str = "lazy"
    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        problems = []
        for name, given, known in (("score", self.score, SCORES), ("search", self.search, SEARCHES)):
            if given not in known:
                problems.append(Problem(f"greedy {name}", f"unknown {name} {given!r}", f"one of {', '.join(known)}"))
        if not 0 < self.epsilon < math.inf:
            problems.append(Problem("greedy epsilon", f"found {self.epsilon}", "a number above 0"))
        if problems:
            raise AccelsimError(problems)


def walk(
    problem: WidthProblem,
    target: float | None,
    settings: WalkSettings | None = None,
    progress: Callable[[Point], None] | None = None,
) -> Trajectory:
    """Walk down until the cost is at most `target`; None: until everything is at its narrowest.

    A move goes to the next width that lowers the cost (on an array of 8 and 4 bits from 8 to 4, where 7, 6 and 5 cost
    the same).  Where no component has one, all go one width down for comparison and the least rise of the loss is
    taken, so that costs which only fall together do not end the walk.  When the best move meets the target the last
    one is chosen by `filled`.  Raises InfeasibleError when the narrowest state costs more than the target, or the
    widest one cannot be had.
    """
    begin = time.perf_counter()
    search = _Search(problem, WalkSettings() if settings is None else settings)
    steps: list[Step] = []
    while target is None or search.here.cost > target:
        step = search.step()
        if step is None:
            if target is None:
                break
            raise too_low(search.least, target)
        if target is not None and step.move.cost <= target:
            step = Step(filled(step, target, search.settings.score), step.tried)
        steps.append(step)
        search.make(step.move)
        if progress is not None:
            progress(search.here)
    counts, seconds = search.asked, time.perf_counter() - begin
    chosen = search.settings
    return Trajectory(
        search.components, search.start, tuple(steps), chosen.score, chosen.search, len(counts.losses),
        len(counts.costs), seconds,
    )  # fmt: skip


class _Asked:
    """A problem's answers, each asked for once; the cost of what cannot be had is infinite."""

    def __init__(self, problem: WidthProblem) -> None:
        self.problem = problem
        self.losses: dict[State, float] = {}
        self.costs: dict[State, float] = {}

    def loss(self, state: State) -> float:
        if state not in self.losses:
            found = self.problem.loss(state)
            if not math.isfinite(found):
                raise AccelsimError(Problem("greedy loss", f"is {found} at the widths {state}", "a finite number"))
            self.losses[state] = found
        return self.losses[state]

    def cost(self, state: State) -> float:
        if state not in self.costs:
            try:
                self.costs[state] = self.problem.cost(state)
            except InfeasibleError:
                self.costs[state] = math.inf
        return self.costs[state]


class _Search:
    """Where the walk is, and what it knows about the moves from there."""

    def __init__(self, problem: WidthProblem, settings: WalkSettings) -> None:
        self.problem, self.settings, self.asked = problem, settings, _Asked(problem)
        self.components: tuple[Component, ...] = tuple(problem.components)
        first = tuple(one.widths[0] for one in self.components)
        cost = problem.cost(first)  # what cannot be had says why
        self.asked.costs[first] = cost
        problem.settle(first)
        loss = self.asked.loss(first)
        self.start = self.here = Point(first, loss, loss, cost)
        self.least = cost
        last = tuple(one.widths[-1] for one in self.components)
        self.loss_scale = _scale(self.asked.loss(last) - loss, 1.0)
        self.cost_scale = _scale(cost - self.asked.cost(last), abs(cost) or 1.0)
        self.known: dict[int, Move] = {}  # the last measured move of a component, perhaps of an earlier state

    def step(self) -> Step | None:
        """The best move from here, None at the narrowest state."""
        if self.settings.score == "compressibility":
            found = self._by_cost()
        else:
            found = self._exact() if self.settings.search == "exact" else self._lazy()
        return found or self._sideways()

    def make(self, move: Move) -> None:
        """Make a move."""
        self.here = point_after(self.here, move)
        self.least = min(self.least, self.here.cost)
        self.problem.settle(self.here.state)

    def _by_cost(self) -> Step | None:
        """The move that saves most: no loss is measured but its own."""
        priced = [(self._gain(k, bits), -k, bits) for k in self._all if (bits := self._lower(k)) is not None]
        if not priced:
            return None
        _, minus_k, bits = max(priced)
        move = self._measured(-minus_k, bits)
        return Step(move, (move,))

    def _exact(self) -> Step | None:
        moves = [self._measured(k, bits) for k in self._all if (bits := self._lower(k)) is not None]
        return Step(max(moves, key=self._rank), tuple(moves)) if moves else None

    def _lazy(self) -> Step | None:
        """The best by the scores at hand, measured again until it is one of this state."""
        fresh: dict[int, Move] = {}
        for k in self._all:
            if k not in self.known:
                self._renew(k, fresh)
        while self.known:
            best = max(self.known.values(), key=self._rank)
            if best.component in fresh:
                return Step(best, tuple(fresh[k] for k in sorted(fresh)))
            self._renew(best.component, fresh)
        return None

    def _renew(self, k: int, fresh: dict[int, Move]) -> None:
        """Measure a component's move here.  One without a move is asked again at every step: that measures no loss."""
        self.known.pop(k, None)
        bits = self._lower(k)
        if bits is not None:
            self.known[k] = fresh[k] = self._measured(k, bits)

    def _sideways(self) -> Step | None:
        """The move of the least rise where no move lowers the cost."""
        able = {k: [bits for bits in self._below(k) if self._gain(k, bits) > -math.inf] for k in self._all}
        moves = [self._measured(k, widths[0]) for k, widths in able.items() if widths]
        if not moves:
            return None
        return Step(min(moves, key=lambda move: (move.rise, -move.gain, move.component)), tuple(moves))

    @property
    def _all(self) -> range:
        return range(len(self.components))

    def _below(self, k: int) -> tuple[int, ...]:
        """Narrower widths of a component."""
        return tuple(bits for bits in self.components[k].widths if bits < self.here.state[k])

    def _lower(self, k: int) -> int | None:
        """The next width of a component that lowers the cost."""
        least = LEAST_GAIN * abs(self.start.cost)
        return next((bits for bits in self._below(k) if self._gain(k, bits) > least), None)

    def _gain(self, k: int, bits: int) -> float:
        return self.here.cost - self.asked.cost(with_width(self.here.state, k, bits))

    def _measured(self, k: int, bits: int) -> Move:
        state = with_width(self.here.state, k, bits)
        loss, gain = self.asked.loss(state), self._gain(k, bits)
        rise = max(0.0, loss - self.here.running_loss)
        score = self._score(rise / self.loss_scale, gain / self.cost_scale)
        return Move(k, self.here.state[k], bits, loss, self.asked.cost(state), rise, gain, score)

    def _score(self, rise: float, gain: float) -> float:
        if self.settings.score == "performance":
            return -rise
        if self.settings.score == "compressibility":
            return gain
        return gain / (rise + self.settings.epsilon)

    @staticmethod
    def _rank(move: Move) -> tuple[float, float, int]:
        """Better moves are larger; among equals the one that saves more, then the first component."""
        return move.score, move.gain, -move.component


def _scale(span: float, otherwise: float) -> float:
    """The unit of a term: the span, or another number where there is none (nothing lost, or the end cannot be had)."""
    return span if 0 < span < math.inf else otherwise
