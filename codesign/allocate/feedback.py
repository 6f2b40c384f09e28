"""The closed loop: choose with the table's prices, simulate exactly, make the table anew around the result, repeat.

It ends when the choice repeats itself; what is kept is the best exactly simulated choice.  Then single changes are
tried with exact simulation (`polish`).  How far the table was off is part of the answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from accelsim.api import Report
from accelsim.arch import Accelerator
from accelsim.problems import InfeasibleError, Problem
from codesign.allocate.cost_table import CYCLES, ENERGY, CostTable, cost_table, run_choice
from codesign.allocate.goal import Limits
from codesign.allocate.neighbours import neighbours
from codesign.allocate.options import OptionSpace, Selection
from codesign.allocate.pricing import priced
from codesign.allocate.solve import minimise

SIMULATED = ("edp", "latency_cycles", "energy_pj")
OBJECTIVES = (*SIMULATED, "penalty")


@dataclass(frozen=True)
class LoopSettings:
    """How the loop runs: the objective (one of `OBJECTIVES`), rounds at most, exact tries of changes, the solver."""

    objective: str = "edp"
    rounds: int = 6
    tries: int = 48
    method: str = "fast"


@dataclass(frozen=True)
class Round:
    """What the table predicted for the choice of a round, and what its simulation gave."""

    predicted_cycles: float
    simulated_cycles: int
    predicted_energy_pj: float
    simulated_energy_pj: float
    penalty: float
    simulations: int

    @property
    def cycles_error(self) -> float:
        """Predicted over simulated cycles, less one."""
        return self.predicted_cycles / self.simulated_cycles - 1.0


@dataclass(frozen=True, eq=False)
class Allocation:
    """The best choice found within the limits, its exact simulation, and how it was found.

    `gap` is how far the table's solution may be from the optimum of the table's problem; it says nothing about other
    mappings or the table's error.  `stable` tells that the loop ended because the choice repeated itself.
    """

    selection: Selection
    report: Report
    penalty: float
    rounds: tuple[Round, ...]
    stable: bool
    gap: float
    polished: int
    simulations: int

    def value(self, objective: str) -> float:
        """An objective of the simulated design: cycles, pJ, pJ × cycles, or the penalty."""
        return self.penalty if objective == "penalty" else _simulated(self.report)[objective]


def allocate(
    space: OptionSpace,
    accelerator: Accelerator,
    limits: Limits,
    settings: LoopSettings | None = None,
    first: CostTable | None = None,
    starts: Sequence[Selection] = (),
) -> Allocation:
    """The choice of least objective within the limits (the predicted loss, latency in cycles, energy, EDP, size).

    `first` is the table around the base plan, if it is there already.  `starts` are choices that are simulated before
    the loop begins, as those of one format are: no result is worse than they are.  Limits hold for the simulated
    design.  Raises InfeasibleError when no choice meets them.
    """
    chosen = LoopSettings() if settings is None else settings
    table = cost_table(space, accelerator) if first is None else first
    loop = _Loop(space, accelerator, limits, chosen)
    simulations = loop.begin((*space.uniform, *starts))
    for number in range(chosen.rounds):
        simulations += table.simulations
        selection = loop.round(table)
        if selection is None or number + 1 == chosen.rounds:
            break
        table = cost_table(space, accelerator, selection)
    if loop.best is None:
        raise loop.refusal
    # Small changes are ranked by what they save, which is no help when the loss is to be least.
    polished, tries = loop.polish(table) if chosen.objective != "penalty" else (0, 0)
    best, report = loop.best
    return Allocation(
        best, report, space.penalty(best), tuple(loop.rounds), loop.stable, loop.gap, polished, simulations + tries
    )


class _Loop:
    """State of one call of `allocate`."""

    def __init__(self, space: OptionSpace, accelerator: Accelerator, limits: Limits, settings: LoopSettings) -> None:
        self.space, self.accelerator, self.limits, self.settings = space, accelerator, limits, settings
        self.best: tuple[Selection, Report] | None = None
        self.rounds: list[Round] = []
        self.seen: set[str] = set()
        self.stable, self.gap, self.tightened = False, 0.0, 1.0
        self.refusal: InfeasibleError

    def begin(self, starts: Sequence[Selection]) -> int:
        """Simulate those of the choices that lose little enough: no result is worse than they are."""
        limit = np.inf if self.limits.penalty is None else self.limits.penalty
        able = [one for one in starts if self.space.penalty(one) <= limit]
        for one in able:
            with contextlib.suppress(InfeasibleError):
                self.consider(one, run_choice(self.space, one, self.accelerator))
        self.tightened = 1.0  # what they miss of a limit says nothing about the table
        return len(able)

    def round(self, table: CostTable) -> Selection | None:
        """One turn; the new choice, or None when the loop has ended."""
        pricing = priced(self.space, table)
        try:
            solution = minimise(
                pricing.problem, self.settings.objective, _scaled(self.limits, self.tightened), self.settings.method
            )
        except InfeasibleError as error:
            self.refusal = error
            return None
        selection = pricing.selection(solution.chosen)
        try:
            report = run_choice(self.space, selection, self.accelerator)
        except InfeasibleError as error:  # each choice can run, not all of them together
            self.refusal = error
            return None
        cycles, energy = report.result.cycles_total, report.prices.arithmetic.energy_pj
        predicted = table.predict(selection, self.space)
        predicted_energy = float(predicted[ENERGY] + table.static_pj_per_cycle * predicted[CYCLES])
        self.rounds.append(
            Round(
                float(predicted[CYCLES]), cycles, predicted_energy, energy, self.space.penalty(selection),
                table.simulations,
            )
        )  # fmt: skip
        if self.consider(selection, report):
            self.gap = solution.gap
        name = selection.fingerprint()
        if name in self.seen:
            self.stable = True
            return None
        self.seen.add(name)
        return selection

    def consider(self, selection: Selection, report: Report) -> bool:
        """Keep a simulated choice when it meets the limits and is better; tighten the limits when it misses them."""
        over = _over(self.limits, report)
        if over > 1.0:
            self.refusal = _missed(self.limits, report)
            self.tightened /= over
            return False
        if self.best is not None and self.value(selection, report) >= self.value(*self.best):
            return False
        self.best = (selection, report)
        return True

    def value(self, selection: Selection, report: Report) -> float:
        """The objective of a simulated choice."""
        if self.settings.objective == "penalty":
            return self.space.penalty(selection)
        return _simulated(report)[self.settings.objective]

    def polish(self, table: CostTable) -> tuple[int, int]:
        """Exact tries of small changes, the most promising first; (improvements, simulations)."""
        improvements = tries = 0
        tried: set[str] = set()
        found = True
        while found and tries < self.settings.tries:
            assert self.best is not None
            found = False
            for candidate in neighbours(self.space, table, self.best[0], self.limits.penalty):
                name = candidate.fingerprint()
                if tries >= self.settings.tries:
                    break
                if name in tried:
                    continue
                tried.add(name)
                tries += 1
                try:
                    report = run_choice(self.space, candidate, self.accelerator)
                except InfeasibleError:
                    continue
                if self.consider(candidate, report):
                    improvements, found = improvements + 1, True
                    break
        return improvements, tries


def _simulated(report: Report) -> dict[str, float]:
    cycles, energy = float(report.result.cycles_total), report.prices.arithmetic.energy_pj
    return {"latency_cycles": cycles, "energy_pj": energy, "edp": cycles * energy}


def _over(limits: Limits, report: Report) -> float:
    """How far a simulated design is over the worst of its limits: 1.0 or less when it meets all."""
    found = _simulated(report)
    return max((found[name] / limit for name, limit in limits.all().items() if name in found), default=0.0)


def _scaled(limits: Limits, factor: float) -> Limits:
    """Limits of time and energy times a factor: tightened by what the table missed them by."""
    if factor == 1.0:
        return limits
    scaled = {name: limit * (factor if name in SIMULATED else 1.0) for name, limit in limits.all().items()}
    return Limits(**scaled)


def _missed(limits: Limits, report: Report) -> InfeasibleError:
    found = _simulated(report)
    name = max((n for n in limits.all() if n in found), key=lambda n: found[n] / limits.all()[n])
    return InfeasibleError(
        Problem("allocation", f"no simulated choice meets the limit of {name}", demand=round(found[name]),
                bound=round(limits.all()[name]), unit={"edp": "pJ·cycles", "energy_pj": "pJ"}.get(name, "cycles"),
                levers=("a higher limit", "a higher limit of the penalty", "faster hardware"))
    )  # fmt: skip
