"""NSGA-II (Deb et al. 2002) and NSGA-III (Deb and Jain 2014) of pymoo on the axes of a space.

Ordered axes are integers: simulated binary crossover and polynomial mutation (Deb's operators) on the value's number,
rounded.  Other axes are categories: uniform crossover, and mutation to any value.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.algorithms.moo.nsga3 import NSGA3
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.evaluator import Evaluator
from pymoo.core.mutation import Mutation
from pymoo.core.problem import Problem
from pymoo.core.sampling import Sampling
from pymoo.core.termination import NoTermination
from pymoo.operators.crossover.sbx import cross_sbx
from pymoo.operators.mutation.pm import mut_pm
from pymoo.operators.selection.tournament import TournamentSelection
from pymoo.problems.static import StaticProblem
from pymoo.util.ref_dirs import get_reference_directions

from codesign.searchers.registry import Floats, Genes, Setup, searcher

# Few values lie between two numbers of an axis, so the operators spread wide: pymoo's own choice for integers.
ETA = 3.0


class _Draw(Sampling):  # type: ignore[misc]
    def _do(self, problem: Any, n_samples: int, *args: Any, random_state: Any = None, **kwargs: Any) -> Genes:
        return np.asarray(random_state.integers(0, problem.xu + 1, (n_samples, problem.n_var)), np.int64)


class _Cross(Crossover):  # type: ignore[misc]
    def __init__(self, ordered: Any) -> None:
        super().__init__(2, 2, prob=0.9)
        self._ordered = ordered

    def _do(self, problem: Any, X: Genes, *args: Any, random_state: Any = None, **kwargs: Any) -> Genes:
        children = np.array(X)
        swap = ~self._ordered & (random_state.random(X.shape[1:]) < 0.5)
        children[:, swap] = children[::-1][:, swap]
        k = np.flatnonzero(self._ordered)
        if len(k):
            parents = X[:, :, k].astype(np.float64)
            chance = np.full((X.shape[1], 1), 0.5)
            mixed = cross_sbx(parents, problem.xl[k], problem.xu[k], np.full((X.shape[1], 1), ETA), chance, chance,
                              random_state=random_state)  # fmt: skip
            children[:, :, k] = np.rint(mixed).astype(np.int64)
        return children


class _Mutate(Mutation):  # type: ignore[misc]
    def __init__(self, ordered: Any) -> None:
        super().__init__()
        self._ordered = ordered

    def _do(self, problem: Any, X: Genes, *args: Any, random_state: Any = None, **kwargs: Any) -> Genes:
        mutants = np.array(X)
        n, chance = len(X), 1.0 / problem.n_var
        hit = ~self._ordered & (random_state.random(X.shape) < chance)
        mutants[hit] = random_state.integers(0, problem.xu + 1, X.shape)[hit]
        k = np.flatnonzero(self._ordered)
        if len(k):
            numbers = X[:, k].astype(np.float64)
            moved = mut_pm(numbers, problem.xl[k], problem.xu[k], np.full(n, ETA), np.full(n, chance),
                           at_least_once=False, random_state=random_state)  # fmt: skip
            mutants[:, k] = np.rint(moved).astype(np.int64)
        return mutants


def _seeded_tournament(pop: Any, P: Any, random_state: Any, **kwargs: Any) -> Any:
    """Less violation wins, else chance.  pymoo's own draws its ties from a generator that nobody seeded."""
    violation = pop.get("CV")[:, 0]
    first, second = P[:, 0], P[:, 1]
    tie = violation[first] == violation[second]
    chosen = np.where(tie, random_state.random(len(P)) < 0.5, violation[first] < violation[second])
    return np.where(chosen, first, second)[:, None]


class _NewOnly(DuplicateElimination):  # type: ignore[misc]
    """Keeps designs that were never asked before, so that a small space does not end in repetitions."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[tuple[int, ...]] = set()

    def do(self, pop: Any, *others: Any, **kwargs: Any) -> Any:
        """The new designs of `pop`; `others` are the generation so far and the survivors."""
        taken = {tuple(genes) for other in others if len(other) for genes in other.get("X").tolist()}
        kept = []
        for row, genes in enumerate(pop.get("X").tolist()):
            if tuple(genes) not in self.asked and tuple(genes) not in taken:
                taken.add(tuple(genes))
                kept.append(row)
        return pop[kept]


class _Pymoo:
    """A pymoo algorithm behind the interface of a searcher."""

    def __init__(self, setup: Setup, algorithm: Any) -> None:
        sizes = np.array(setup.variables.sizes)
        self._problem = Problem(n_var=len(sizes), n_obj=setup.objectives, n_ieq_constr=setup.constraints,
                                xl=np.zeros_like(sizes), xu=sizes - 1, vtype=int)  # fmt: skip
        self._algorithm = algorithm.setup(self._problem, seed=setup.seed, termination=NoTermination())
        self._new: _NewOnly = algorithm.eliminate_duplicates
        self._asked: Any = None

    def ask(self) -> Genes:
        """The next generation; no rows when crossover and mutation find nothing new."""
        self._asked = self._algorithm.ask()
        if self._asked is None:
            return np.empty((0, self._problem.n_var), np.int64)
        genes = np.asarray(self._asked.get("X"), np.int64)
        self._new.asked.update(map(tuple, genes.tolist()))
        return genes

    def tell(self, genes: Genes, objectives: Floats, violations: Floats) -> None:
        """Survival of the generation."""
        Evaluator().eval(StaticProblem(self._problem, F=objectives, G=violations), self._asked)
        self._algorithm.tell(infills=self._asked)


def _operators(setup: Setup) -> dict[str, Any]:
    ordered = np.array(setup.variables.ordered)
    operators = {"sampling": _Draw(), "crossover": _Cross(ordered), "mutation": _Mutate(ordered)}
    return {**operators, "eliminate_duplicates": _NewOnly()}


@searcher("nsga2")
def nsga2(setup: Setup) -> _Pymoo:
    """Non-dominated sorting and crowding distance: two or three objectives."""
    return _Pymoo(setup, NSGA2(pop_size=setup.population, **_operators(setup)))


@searcher("nsga3")
def nsga3(setup: Setup) -> _Pymoo:
    """Non-dominated sorting and reference directions (Das and Dennis 1998), as many as the population allows."""
    partitions, count = 1, setup.objectives
    while count <= setup.population:
        partitions += 1
        count = math.comb(partitions + setup.objectives - 1, setup.objectives - 1)
    directions = get_reference_directions("das-dennis", setup.objectives, n_partitions=max(1, partitions - 1))
    population = max(setup.population, len(directions))
    selection = TournamentSelection(func_comp=_seeded_tournament)
    return _Pymoo(setup, NSGA3(directions, pop_size=population, selection=selection, **_operators(setup)))
