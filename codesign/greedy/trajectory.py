"""What a greedy walk goes through: components with widths, states, moves, and the state that any target takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from accelsim.problems import AccelsimError, InfeasibleError, Problem

BUDGET_PLACE = "greedy budget"  # where an error of a target says that it is
State = tuple[int, ...]  # bits of every component


def with_width(state: State, component: int, bits: int) -> State:
    """The state with another width of one component."""
    return (*state[:component], bits, *state[component + 1 :])


@dataclass(frozen=True)
class Component:
    """Something that has one width; `widths` in bits, descending, the first one is where a walk starts."""

    name: str
    widths: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.widths or any(a <= b for a, b in zip(self.widths, self.widths[1:], strict=False)):
            raise AccelsimError(Problem(f"component {self.name}", f"has the widths {self.widths}", "bits, descending"))


class WidthProblem(Protocol):
    """What a walk needs to know.  Equal states must give equal numbers."""

    @property
    def components(self) -> tuple[Component, ...]:
        """The components in a fixed order, which breaks ties."""
        ...

    def loss(self, state: State) -> float:
        """How bad a state is; expensive."""
        ...

    def cost(self, state: State) -> float:
        """What a state costs.  Raises InfeasibleError for a state that cannot be had at all."""
        ...

    def settle(self, state: State) -> None:
        """The walk goes on from here: the next states differ from it in one component."""
        ...


@dataclass(frozen=True)
class Move:
    """One component made narrower.  `loss` and `cost` are those of the state after it.

    `rise` is how much the loss rises above the highest one so far (0 when it does not), `gain` how much the cost falls.
    """

    component: int
    from_bits: int
    to_bits: int
    loss: float
    cost: float
    rise: float
    gain: float
    score: float

    def applied(self, state: State) -> State:
        """The state after the move."""
        return with_width(state, self.component, self.to_bits)


@dataclass(frozen=True)
class Step:
    """The move that was made, and all whose loss was known in this state (with the one that was made)."""

    move: Move
    tried: tuple[Move, ...]


@dataclass(frozen=True)
class Point:
    """A state of a walk; `running_loss` is the highest loss on the way to it."""

    state: State
    loss: float
    running_loss: float
    cost: float


@dataclass(frozen=True)
class Trajectory:
    """A walk: where it began, its steps, how often loss and cost were asked for new states, and wall-clock seconds.

    `score` and `search` are those of its settings.
    """

    components: tuple[Component, ...]
    start: Point
    steps: tuple[Step, ...]
    score: str
    search: str
    evaluations: int
    cost_evaluations: int
    wall_s: float

    def points(self) -> Iterator[Point]:
        """All states, the start first."""
        here = self.start
        yield here
        for step in self.steps:
            here = after(here, step.move)
            yield here

    @property
    def end(self) -> Point:
        """The last state."""
        return list(self.points())[-1]

    def at(self, target: float) -> Point:
        """Where a walk with this target ends: the first state that costs no more, its last move by `filled`.

        Raises InfeasibleError when this walk did not come so low.
        """
        here = self.start
        for step in self.steps:
            if here.cost <= target:
                return here
            if step.move.cost <= target:
                return after(here, filled(step, target, self.score))
            here = after(here, step.move)
        if here.cost <= target:
            return here
        raise too_low(min(point.cost for point in self.points()), target)

    def to_json(self) -> dict[str, Any]:
        """Plain data without the seconds: the same walk gives the same bytes."""
        return {
            "components": [{"name": one.name, "widths": list(one.widths)} for one in self.components],
            "score": self.score,
            "search": self.search,
            "evaluations": self.evaluations,
            "cost_evaluations": self.cost_evaluations,
            "start": asdict(self.start),
            "moves": [{**asdict(step.move), "component": self._name(step.move)} for step in self.steps],
        }

    def _name(self, move: Move) -> str:
        return self.components[move.component].name


def after(here: Point, move: Move) -> Point:
    """The point that a move leads to."""
    return Point(move.applied(here.state), move.loss, here.running_loss + move.rise, move.cost)


def filled(step: Step, target: float, score: str) -> Move:
    """The last move of a walk: of those tried that reach the target, the one of the least loss.

    A score that looks at one term only keeps its own move.
    """
    if score != "combined":
        return step.move
    reaching = [move for move in step.tried if move.cost <= target]
    return min(reaching, key=lambda move: (move.rise, -move.gain, move.component))


def too_low(least: float, target: float) -> InfeasibleError:
    """The error for a target below the least cost of a walk."""
    levers = ("a larger budget", "more narrow widths", "more components")
    return InfeasibleError(Problem(BUDGET_PLACE, f"the least cost is {least:.6g}", f"at most {target:.6g}", levers))
