"""Optuna's tree-structured Parzen estimator (Bergstra et al. 2011), several objectives, with constraints.

Known where the extra `optuna` is installed.  It weighs all that it has seen for every design that it proposes, tens to
hundreds of milliseconds each, so it is meant for points that cost a second and more.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import numpy as np

from codesign.searchers.registry import Floats, Genes, Setup, searcher

if TYPE_CHECKING:
    import optuna

LATER_SHARE, LEAST = 0.25, 4
# Proposals in a row that were asked before, after which the next design is drawn at random.
TRIES = 4


@searcher("tpe")
class Tpe:
    """A quarter of the population at a time, after a first generation at random; no design twice."""

    def __init__(self, setup: Setup) -> None:
        # Imported here: it takes a second, which a search with another searcher does not need.
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._setup, self._sizes = setup, setup.variables.sizes
        self._random = np.random.default_rng(setup.seed)
        self._spaces: dict[str, optuna.distributions.BaseDistribution] = {}
        for axis, (size, ordered) in enumerate(zip(self._sizes, setup.variables.ordered, strict=True)):
            whole = optuna.distributions.IntDistribution(0, size - 1)
            choices = optuna.distributions.CategoricalDistribution(tuple(range(size)))
            self._spaces[f"x{axis}"] = whole if ordered else choices
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                seed=setup.seed, n_startup_trials=setup.population // 2, multivariate=True, constant_liar=True
            )
        self._failed = optuna.trial.TrialState.FAIL
        self._study = optuna.create_study(directions=["minimize"] * setup.objectives, sampler=sampler)
        self._trials: list[optuna.Trial] = []
        self._asked: set[tuple[int, ...]] = set()

    def ask(self) -> Genes:
        """The next generation; no rows when every design was asked for."""
        population = self._setup.population
        share = population * LATER_SHARE if self._asked else population / 2
        left = math.prod(self._sizes) - len(self._asked)
        count = min(left, max(LEAST, round(share)))
        genes = np.empty((count, len(self._sizes)), np.int64)
        self._trials = []
        for row in range(count):
            genes[row] = self._new()
            self._asked.add(tuple(genes[row].tolist()))
        return genes

    def _new(self) -> tuple[int, ...]:
        """A proposal that was not asked before, as the last of `_trials`."""
        for _ in range(TRIES):
            trial = self._study.ask(self._spaces)
            digits = tuple(int(trial.params[name]) for name in self._spaces)
            if digits not in self._asked:
                self._trials.append(trial)
                return digits
            self._study.tell(trial, state=self._failed)
        while digits in self._asked:
            digits = tuple(int(self._random.integers(size)) for size in self._sizes)
        self._study.enqueue_trial(dict(zip(self._spaces, digits, strict=True)))
        self._trials.append(self._study.ask(self._spaces))
        return digits

    def tell(self, genes: Genes, objectives: Floats, violations: Floats) -> None:
        """Ends the trials of the generation."""
        for trial, costs, broken in zip(self._trials, objectives.tolist(), violations.tolist(), strict=True):
            for number, violation in enumerate(broken):
                trial.set_constraint(f"c{number}", violation)
            self._study.tell(trial, costs)
