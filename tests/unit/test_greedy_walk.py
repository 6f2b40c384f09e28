"""Greedy walks on small problems: exact and lazy, near the optimum, monotone, within the budget, counted."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.problems import AccelsimError, InfeasibleError, Problem
from codesign.greedy.trajectory import Component, State
from codesign.greedy.walk import SCORES, SEARCHES, WalkSettings, walk

WIDTHS = (8, 6, 5, 4)
seeds = st.integers(0, 10_000)


@dataclass
class Separable:
    """Losses and costs that add up.  Losses are convex in the bits that are gone: the scores of a component fall."""

    size: int
    seed: int
    widths: tuple[int, ...] = WIDTHS
    asked: list[State] = field(default_factory=list)
    settled: list[State] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.components = tuple(Component(f"c{k}", self.widths) for k in range(self.size))
        self.weights = rng.integers(1, 100, self.size).astype(float)
        self.scales = rng.lognormal(0, 2, self.size)
        self.rates = rng.uniform(1.2, 4, self.size)

    def loss(self, state: State) -> float:
        assert state not in self.asked, "a loss is measured once"
        self.asked.append(state)
        return self.true_loss(state)

    def true_loss(self, state: State) -> float:
        gone = self.widths[0] - np.array(state)
        return float((self.scales * (self.rates**gone - 1)).sum() / 1e3)

    def cost(self, state: State) -> float:
        return float(self.weights @ np.array(state))

    def settle(self, state: State) -> None:
        self.settled.append(state)

    def states(self) -> list[State]:
        return list(product(*(one.widths for one in self.components)))

    def target(self, share: float) -> float:
        """Between the cheapest state (0) and the dearest (1)."""
        return (
            self.cost((self.widths[-1],) * self.size) * (1 - share) + self.cost((self.widths[0],) * self.size) * share
        )


class Coupled(Separable):
    """The loss is a product over the components: what a move does depends on all others, and it may fall again."""

    def true_loss(self, state: State) -> float:
        gone = np.abs((8 - np.array(state)) * self.rates - 6)
        return float(np.sin(gone * self.scales).sum() + gone.sum())


class Stairs(Separable):
    """Only 8 and 4 bits differ in cost."""

    def cost(self, state: State) -> float:
        return float(self.weights @ np.where(np.array(state) > 4, 8, 4))


class Balanced(Separable):
    """The cost is that of the largest component: it falls only when all of those have moved."""

    def cost(self, state: State) -> float:
        return float(max(state))


@given(seed=seeds, share=st.floats(0, 0.95))
@settings(max_examples=60, deadline=None)
def test_lazy_is_exact_where_scores_only_fall(seed: int, share: float) -> None:
    walks = {}
    for search in SEARCHES:
        problem = Separable(5, seed)
        walks[search] = walk(problem, problem.target(share), WalkSettings(search=search))
    exact, lazy = walks["exact"], walks["lazy"]
    assert [step.move for step in lazy.steps[:-1]] == [step.move for step in exact.steps[:-1]]
    assert lazy.evaluations <= exact.evaluations


@given(seed=seeds, share=st.floats(0.1, 0.9), search=st.sampled_from(SEARCHES))
@settings(max_examples=60, deadline=None)
def test_a_walk_is_near_the_best_state(seed: int, share: float, search: str) -> None:
    problem = Separable(4, seed)
    target = problem.target(share)
    found = walk(problem, target, WalkSettings(search=search)).end
    assert found.cost <= target
    losses = {state: problem.true_loss(state) for state in problem.states()}
    best = min(loss for state, loss in losses.items() if problem.cost(state) <= target)
    # The loss of one more narrow step of the component that loses most: what a greedy choice can miss at the end.
    spans = problem.scales * (problem.rates**4 - 1) / 1e3
    assert found.loss - best <= spans.max() + 1e-9


def test_walks_are_on_average_within_a_tenth_of_the_best() -> None:
    """The bound above is wide; this is what is seen over many problems."""
    excess = []
    for seed in range(150):
        problem = Separable(4, seed)
        target = problem.target(0.3)
        losses = {state: problem.true_loss(state) for state in problem.states()}
        best = min(loss for state, loss in losses.items() if problem.cost(state) <= target)
        whole = max(losses.values())
        excess.append((walk(problem, target, WalkSettings(search="exact")).end.loss - best) / whole)
    assert np.mean(excess) < 0.02
    assert np.mean(np.array(excess) < 0.01) > 0.7


@given(seed=seeds, score=st.sampled_from(SCORES), search=st.sampled_from(SEARCHES), coupled=st.booleans())
@settings(max_examples=60, deadline=None)
def test_costs_fall_and_running_losses_rise(seed: int, score: str, search: str, coupled: bool) -> None:
    problem = (Coupled if coupled else Separable)(4, seed)
    found = walk(problem, None, WalkSettings(score, search))
    points = list(found.points())
    assert points[-1].state == (4,) * 4
    for before, after in pairwise(points):
        assert after.cost < before.cost
        assert after.running_loss >= before.running_loss
        assert after.running_loss >= after.loss - 1e-9
        assert after.loss == problem.true_loss(after.state)
        assert after.cost == problem.cost(after.state)
    assert problem.settled == [point.state for point in points]
    assert found.evaluations == len(problem.asked)


@given(seed=seeds, score=st.sampled_from(SCORES), search=st.sampled_from(SEARCHES), share=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_one_walk_to_the_end_holds_every_target(seed: int, score: str, search: str, share: float) -> None:
    chosen = WalkSettings(score, search)
    whole = walk(Coupled(4, seed), None, chosen)
    target = Coupled(4, seed).target(share)
    assert whole.at(target) == walk(Coupled(4, seed), target, chosen).end
    assert whole.at(target).cost <= target


def test_the_last_move_loses_least_of_those_that_reach_the_target() -> None:
    # Component 0 has the best score; 1 reaches the target too, saves less and loses nearly nothing.
    problem = Separable(2, 0, (8, 4))
    problem.weights, problem.scales, problem.rates = np.array([1000.0, 10.0]), np.array([50.0, 1.0]), np.array([2.0, 2])
    best = walk(problem, None, WalkSettings(search="exact")).steps[0].move
    assert best.component == 0
    end = walk(fresh(problem), 8 * 1010 - 40, WalkSettings(search="exact")).end
    assert end.state == (8, 4)
    assert walk(fresh(problem), None, WalkSettings(search="exact")).at(8 * 1010 - 40).state == (8, 4)
    alone = walk(fresh(problem), 8 * 1010 - 40, WalkSettings("compressibility")).end
    assert alone.state == (4, 8)


def fresh(problem: Separable) -> Separable:
    """The same problem, asked by nobody."""
    new = Separable(problem.size, problem.seed, problem.widths)
    new.weights, new.scales, new.rates = problem.weights, problem.scales, problem.rates
    return new


@pytest.mark.parametrize("search", SEARCHES)
def test_moves_go_to_the_next_width_that_saves(search: str) -> None:
    problem = Stairs(3, 5)
    found = walk(problem, 4 * problem.weights.sum(), WalkSettings(search=search))
    assert [(step.move.from_bits, step.move.to_bits) for step in found.steps] == [(8, 4)] * 3


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("search", SEARCHES)
def test_costs_that_only_fall_together_do_not_end_a_walk(search: str, score: str) -> None:
    found = walk(Balanced(3, 1), 5.0, WalkSettings(score, search))
    assert max(found.end.state) == 5
    # Without a gain the component of the least rise goes first.
    problem = Balanced(3, 1)
    rises = problem.scales * (problem.rates**2 - 1)
    assert found.steps[0].move.component == int(np.argmin(rises))


def test_scores_are_the_stated_ones() -> None:
    for score in SCORES:
        problem = Separable(4, 3)
        found = walk(problem, None, WalkSettings(score, "exact", 0.01))
        whole_loss = problem.true_loss((4,) * 4) - problem.true_loss((8,) * 4)
        whole_cost = problem.cost((8,) * 4) - problem.cost((4,) * 4)
        points = list(found.points())
        for before, step in zip(points, found.steps, strict=False):
            moves = {}
            for k, bits in enumerate(before.state):
                if bits > 4:
                    state = (*before.state[:k], WIDTHS[WIDTHS.index(bits) + 1], *before.state[k + 1 :])
                    rise = max(0, problem.true_loss(state) - before.running_loss) / whole_loss
                    gain = (before.cost - problem.cost(state)) / whole_cost
                    moves[k] = {"combined": gain / (rise + 0.01), "performance": -rise, "compressibility": gain}[score]
            assert step.move.score == pytest.approx(moves[step.move.component])
            assert step.move.score == pytest.approx(max(moves.values()))


@pytest.mark.parametrize("score", SCORES)
def test_a_seeming_gain_of_a_narrower_network_is_none(score: str) -> None:
    class Noisy(Separable):
        def true_loss(self, state: State) -> float:
            return {(8, 8): 1.0, (4, 8): 0.5, (8, 4): 0.9, (4, 4): 2.0}[state]

    problem = Noisy(2, 0, (8, 4))
    problem.weights = np.array([1.0, 2.0])
    found = walk(problem, None, WalkSettings(score))
    # Neither loses anything, so the one that saves more is first; the rise of the second counts from the first loss.
    assert [step.move.component for step in found.steps] == [1, 0]
    assert [point.running_loss for point in found.points()] == [1.0, 1.0, 2.0]


def test_the_score_of_cost_alone_measures_one_loss_per_move() -> None:
    problem = Separable(5, 2)
    found = walk(problem, None, WalkSettings("compressibility"))
    assert found.evaluations == 1 + len(found.steps)  # the narrowest state is the last one


def test_targets_that_cannot_be_met() -> None:
    problem = Separable(3, 1)
    least = problem.cost((4,) * 3)
    with pytest.raises(InfeasibleError, match=f"least cost is {least:.6g}.*at most {0.5 * least:.6g}"):
        walk(problem, 0.5 * least)
    whole = walk(Separable(3, 1), None)
    with pytest.raises(InfeasibleError, match="least cost"):
        whole.at(0.5 * least)


def test_states_that_cannot_be_had_are_stepped_over() -> None:
    class Holes(Separable):
        def cost(self, state: State) -> float:
            if 6 in state or (state[0] == 8 and self.blocked):
                raise InfeasibleError(Problem("toy", "no 6 bits"))
            return super().cost(state)

        blocked = False

    problem = Holes(2, 4)
    found = walk(problem, None)
    assert {step.move.to_bits for step in found.steps} == {5, 4}
    problem = Holes(2, 4)
    problem.blocked = True
    with pytest.raises(InfeasibleError, match="no 6 bits"):
        walk(problem, None)


@pytest.mark.parametrize("search", SEARCHES)
def test_moves_for_comparison_step_over_them_too(search: str) -> None:
    class Holes(Balanced):
        def cost(self, state: State) -> float:
            if 6 in state:
                raise InfeasibleError(Problem("toy", "no 6 bits"))
            return super().cost(state)

    found = walk(Holes(3, 1), 5.0, WalkSettings(search=search))
    assert found.steps[0].move.to_bits == 5
    assert not any(step.move.to_bits == 6 for step in found.steps)


def test_a_target_that_is_met_needs_no_move() -> None:
    problem = Separable(3, 1)
    assert walk(problem, math.inf).steps == ()
    assert walk(Separable(3, 1), None).at(math.inf).state == (8, 8, 8)


def test_bad_settings_and_widths_are_refused() -> None:
    with pytest.raises(AccelsimError, match=r"score[^\n]*\n.*search[^\n]*\n.*epsilon"):
        WalkSettings("best", "fast", 0.0)
    with pytest.raises(AccelsimError, match="descending"):
        Component("c", (4, 8))
    with pytest.raises(AccelsimError, match="descending"):
        Component("c", ())

    class Broken(Separable):
        def true_loss(self, state: State) -> float:
            return math.nan

    with pytest.raises(AccelsimError, match="finite"):
        walk(Broken(2, 0), None)


def test_plain_data_are_the_same_every_time() -> None:
    first, again = (walk(Coupled(4, 9), None).to_json() for _ in range(2))
    assert first == again
    assert first["moves"][0]["component"] in ("c0", "c1", "c2", "c3")
