"""Allocation from the frontier against every state of small problems: costs that add up, multiply, or do neither."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.problems import AccelsimError, InfeasibleError, Problem
from codesign.frontier.allocation import Errors, allocate, error_table
from codesign.greedy.compare import knapsack
from codesign.greedy.trajectory import Component, State

WIDTHS = ((8, 6, 4), (8, 4), (8, 7, 6, 5), (6, 4, 3))


class Sums:
    """Costs add up over the components."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.components = tuple(Component(f"c{k}", widths) for k, widths in enumerate(WIDTHS))
        self.coupled: tuple[tuple[int, ...], ...] = ((0,), (1,), (2,), (3,))
        self.errors: Errors = {(one.name, bits): rng.uniform(0, 10) for one in self.components for bits in one.widths}
        self.weights = rng.integers(1, 50, len(WIDTHS))
        self.asked = 0

    def cost(self, state: State) -> float:
        self.asked += 1
        return float(self.weights @ np.array(state))

    def error(self, state: State) -> float:
        """What the frontier adds up: errors made to rise as widths fall."""
        pairs = zip(self.components, state, strict=True)
        return sum(max(self.errors[one.name, wider] for wider in one.widths if wider >= bits) for one, bits in pairs)

    def target(self, share: float) -> float:
        costs = [self.cost(state) for state in product(*WIDTHS)]
        return min(costs) + share * (max(costs) - min(costs))

    def best(self, target: float) -> float:
        return min(self.error(state) for state in product(*WIDTHS) if self.cost(state) <= target)

    # What the knapsack asks for beside: losses of single changes.
    def loss(self, state: State) -> float:
        return self.error(state)

    def settle(self, state: State) -> None:
        pass


class Products(Sums):
    """Costs of pairs multiply, as bit operations of Q·Kᵀ and A·V do, beside a part that never changes."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.coupled = ((0, 3), (1,), (2,))

    def cost(self, state: State) -> float:
        self.asked += 1
        rest = self.weights[1] * state[1] + self.weights[2] * state[2] ** 2
        return float(self.weights[0] * state[0] * state[3] + rest + 100)


class Steps(Sums):
    """An array of 8 and 4 bits whose stages wait for each other: nothing adds up."""

    def cost(self, state: State) -> float:
        self.asked += 1
        modes = [8 if bits > 4 else 4 for bits in state]
        if state[0] == 6:
            raise InfeasibleError(Problem("array", "has no 6 bits", "8 or 4"))
        return float(
            max(self.weights[0] * modes[0], self.weights[1] * modes[1]) * modes[2] + self.weights[3] * modes[3]
        )

    def target(self, share: float) -> float:
        costs = [self.cost(state) for state in product(*WIDTHS) if state[0] != 6]
        return min(costs) + share * (max(costs) - min(costs))

    def best(self, target: float) -> float:
        able = [state for state in product(*WIDTHS) if state[0] != 6]
        return min(self.error(state) for state in able if self.cost(state) <= target)


@pytest.mark.parametrize("kind", [Sums, Products])
@given(seed=st.integers(0, 5000), share=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_it_is_exact_where_costs_add_up_over_coupled_groups(kind: type[Sums], seed: int, share: float) -> None:
    problem = kind(seed)
    target = problem.target(share)
    best = problem.best(target)
    found = allocate(problem, problem.errors, target)
    assert found.error == pytest.approx(best) == problem.error(found.state)
    assert found.cost == problem.cost(found.state) <= target
    assert found.least_error <= best + 1e-9
    assert (found.slack, found.rounds) == (0, 1)
    binned = allocate(problem, problem.errors, target, bins=8)
    assert best - 1e-9 <= binned.error
    if target - binned.slack >= problem.target(0):
        assert binned.error <= problem.best(target - binned.slack) + 1e-9
    supported = allocate(problem, problem.errors, target, on_hull=True)
    assert supported.cost <= target
    assert best - 1e-9 <= supported.error


@given(seed=st.integers(0, 5000), share=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_it_agrees_with_the_knapsack_of_single_losses(seed: int, share: float) -> None:
    problem = Sums(seed)
    target = problem.target(share)
    start = problem.error(tuple(one[0] for one in WIDTHS))
    assert allocate(problem, problem.errors, target).error == pytest.approx(
        start + knapsack(problem, target).predicted_rise, abs=1e-6
    )


def test_simulated_costs_are_priced_anew_around_every_choice() -> None:
    """Never over the target; of 40 problems nearly all at the best state although nothing adds up."""
    equal, more = 0, 0
    for seed in range(40):
        problem = Steps(seed)
        target = problem.target(0.1 + 0.8 * seed / 40)
        found = allocate(problem, problem.errors, target)
        assert problem.cost(found.state) == found.cost <= target
        assert 6 not in found.state[:1]
        equal += found.error == pytest.approx(problem.best(target))
        more += found.rounds > 1
    assert equal >= 30
    assert more >= 5


@pytest.mark.parametrize("seed", [90, 175, 262])
def test_the_bound_is_that_of_the_target_and_not_above_what_was_found(seed: int) -> None:
    """In 90 and 175 the limit of the last round lies below the target; in 262 the last prices are wrong."""
    problem = Steps(seed)
    found = allocate(problem, problem.errors, problem.target(0.1 + 0.8 * (seed % 40) / 40))
    assert found.least_error <= found.error


def test_a_group_prices_all_widths_of_its_members() -> None:
    problem = Products(1)
    target = problem.target(0.5)
    problem.asked = 0
    allocate(problem, problem.errors, target)
    # The widest twice, every option of a group (3 · 3, 2 and 4), the base of the changes, the choice.
    assert problem.asked == 9 + 2 + 4 + 4


def test_sums_in_the_last_bits_do_not_lose_an_exact_budget() -> None:
    class Mean(Sums):
        def cost(self, state: State) -> float:
            return sum(state) / 7

    problem = Mean(3)
    for state in product(*WIDTHS):
        target = problem.cost(state)
        assert allocate(problem, problem.errors, target).error == pytest.approx(problem.best(target))


def test_faults_are_named() -> None:
    problem = Sums(0)
    with pytest.raises(InfeasibleError, match="the least cost is"):
        allocate(problem, problem.errors, problem.target(0) - 1)
    del problem.errors["c2", 5]  # type: ignore[attr-defined]
    with pytest.raises(AccelsimError, match="lack c2 at 5 bits"):
        allocate(problem, problem.errors, 1e9)
    many = Sums(0)
    many.components = tuple(Component(f"d{k}", tuple(range(16, 5, -1))) for k in range(4))
    many.coupled = ((0, 1, 2, 3),)
    with pytest.raises(AccelsimError, match="4 components from d0 on"):
        allocate(many, {(one.name, bits): 1.0 for one in many.components for bits in one.widths}, 1e9)
    assert prod(len(one.widths) for one in many.components) == 11**4


class Rough:
    """Costs that do not add up: narrow widths pay only when all components have them."""

    components = tuple(Component(f"c{k}", (8, 6, 4)) for k in range(4))
    coupled = tuple((k,) for k in range(4))

    def cost(self, state: State) -> float:
        """The sum, and ten for every component wider than the narrowest of all."""
        return sum(state) + 10.0 * sum(bits > min(state) for bits in state)


def test_a_budget_that_one_width_meets_is_met() -> None:
    """Prices of single changes from the widest state say that no change pays; one width everywhere does."""
    errors = {(f"c{k}", bits): (8 - bits) * (k + 1.0) for k in range(4) for bits in (8, 6, 4)}
    problem = Rough()
    for bits in (8, 6, 4):
        found = allocate(problem, errors, problem.cost((bits,) * 4))
        assert problem.cost(found.state) == found.cost <= problem.cost((bits,) * 4)
        assert found.error <= sum(errors[f"c{k}", bits] for k in range(4))
    with pytest.raises(InfeasibleError, match="the least cost is 16"):
        allocate(problem, errors, 15.0)


class Roofline:
    """The slower one of moving and computing; work is done in a narrow mode or in a wide one."""

    components = tuple(Component(f"c{k}", (8, 6, 5, 4)) for k in range(5))
    coupled = tuple((k,) for k in range(5))

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.move, self.work = rng.integers(1, 20, 5), rng.integers(1, 20, 5)
        cells = [(one.name, bits) for one in self.components for bits in one.widths]
        self.errors: Errors = {cell: rng.uniform(0, 2.0 ** -cell[1]) for cell in cells}

    def cost(self, state: State) -> float:
        """Single changes are free below the other roof."""
        bits = np.array(state)
        return float(max(self.move @ bits, self.work @ np.where(bits > 4, 8, 4)))


@pytest.mark.parametrize("seed", range(60))
def test_what_is_left_of_a_budget_is_spent(seed: int) -> None:
    """No single component of a choice can be wider, with a smaller error, within the budget."""
    problem = Roofline(seed)
    target = 0.6 * problem.cost((8,) * 5)
    found = allocate(problem, problem.errors, target)
    table = error_table(problem.components, problem.errors)

    def error(state: State) -> float:
        return sum(float(row[(8, 6, 5, 4).index(bits)]) for row, bits in zip(table, state, strict=True))

    assert found.error == pytest.approx(error(found.state))
    for k, bits in product(range(5), (8, 6, 5)):
        wider = (*found.state[:k], bits, *found.state[k + 1 :])
        if bits > found.state[k] and problem.cost(wider) <= target:
            assert error(wider) >= found.error
