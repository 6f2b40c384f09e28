"""Lower bounds of latency, energy and EDP that no plan of an option space and no mapping can beat.

They bound the *predicted* loss model: they hold for plans whose additive predicted loss is within a limit, and say
nothing about accuracy.  docs/decisions/0015-plan-bound.md has the proofs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from accelsim.arch import Accelerator
from accelsim.bound_cut import Way, longest_way, spills_of, walk
from accelsim.bound_energy import spill_pj_per_bit
from accelsim.bound_tiles import most_vector_cycles
from accelsim.bounds import design_bound
from accelsim.energy import static_pj_per_cycle
from accelsim.optable import OpTable, engine_table
from accelsim.problems import InfeasibleError, Problem
from codesign.allocate.bound_cells import StaticEnergy, least_edp
from codesign.allocate.bound_facts import least_idle, op_facts
from codesign.allocate.bound_terms import SpaceTerms, space_terms
from codesign.allocate.goal import Limits
from codesign.allocate.model import LATENCY, Model, prepare
from codesign.allocate.options import OptionSpace
from codesign.allocate.problem import Floats, Knapsack
from codesign.allocate.relaxation import Relaxation, Relaxed, rounded

# Cuts that a bound may have, and how much longer one must be than the bound to become a row of it.
MAX_WAYS = 12
MAX_ROUNDS = 4  # of cells and cuts at the plan that the EDP bound is found with
_WORTH_A_ROW = 1e-4


@dataclass(frozen=True)
class PlanBounds:
    """What no plan with predicted loss ≤ `penalty_limit` (None: any plan) and no mapping can beat on an accelerator.

    A bound in the additive model of predicted loss, not of accuracy.  `latency_cycles`, `energy_pj` (dynamic, idle and
    leakage, per image) and `edp_pj_s` hold one by one: the three need not be reached by one plan.  `cells` is how many
    cells of latency the EDP bound was found with, `seconds` the wall-clock time.
    """

    latency_cycles: float
    energy_pj: float
    edp_pj_s: float
    penalty_limit: float | None
    cells: int
    seconds: float


def plan_bounds_of(table: OpTable, accelerator: Accelerator) -> PlanBounds:
    """Bounds of one plan, whatever the mapping.  Raises InfeasibleError when the accelerator cannot run the plan."""
    begin = time.perf_counter()
    cycles = float(design_bound(table, engine_table(accelerator, table), accelerator).cycles)
    facts = op_facts(table, accelerator)
    spilled = spills_of(facts.table, accelerator.activation_buffer.capacity_bits).bits
    dynamic = float((facts.own_pj + facts.second_pj + facts.written_pj).sum()) + spilled * spill_pj_per_bit(accelerator)
    busy = float(most_vector_cycles(table, accelerator.vector).sum())
    idle = least_idle([facts], busy, accelerator)
    _, leakage = static_pj_per_cycle(accelerator)
    energy = dynamic + (leakage + idle.unused_pj_per_cycle) * cycles + idle.vector_pj(cycles)
    edp = energy * cycles / accelerator.clock_hz
    return PlanBounds(cycles, energy, edp, None, 1, time.perf_counter() - begin)


def plan_bounds(
    space: OptionSpace,
    accelerator: Accelerator,
    penalty_limit: float | None,
    incumbent_edp_pj_s: float | None = None,
) -> PlanBounds:
    """Bounds of every plan of a space with predicted loss ≤ `penalty_limit`, whatever the mapping.

    With the EDP of a design that is known, latencies at which even the least energy is too much are not looked at, and
    the EDP bound is at most that.  Raises InfeasibleError when no plan is within the limit or none can run.
    """
    begin = time.perf_counter()
    lowest = _Lowest(space_terms(space, accelerator), accelerator, penalty_limit)
    latency = lowest.latency()
    clock = accelerator.clock_hz
    incumbent = None if incumbent_edp_pj_s is None else incumbent_edp_pj_s * clock
    edp, cells = 0.0, 0
    for _ in range(MAX_ROUNDS):
        found = least_edp(latency, lowest.slowest(), lowest.dynamic_pj, lowest.static, incumbent)
        edp, cells = max(edp, found.value), cells + found.cells
        if not lowest.cut(found.high):
            break
    return PlanBounds(
        latency, lowest.energy(latency), edp / clock, penalty_limit, cells, time.perf_counter() - begin
    )  # fmt: skip


class _Lowest:
    """Linear programs over the terms of a space: rows of one stage are what the latency is at least."""

    def __init__(self, space: SpaceTerms, accelerator: Accelerator, penalty_limit: float | None) -> None:
        self.space, self.penalty_limit = space, penalty_limit
        terms = space.terms
        self.variable, self.op = np.array(terms.variable), np.array(terms.op)
        self.facts = np.array(terms.facts)
        work = self.facts[:, :-4]
        totals = np.column_stack([self._by_variable(column) for column in work.T])
        self.per_bit = space.cut.cycles_per_bit
        bus = np.array(terms.bus_bits) * self.per_bit
        self.rows = [*totals.T[totals.any(axis=0)], bus]
        leakage = static_pj_per_cycle(accelerator)[1]
        self.static = StaticEnergy(leakage + space.idle.unused_pj_per_cycle, space.idle.vector_pj)
        self._prepare()

    def _by_variable(self, values: Floats) -> Floats:
        return np.asarray(np.bincount(self.variable, values, len(self.space.terms.group)), np.float64)

    def _prepare(self) -> None:
        terms = self.space.terms
        loads = csr_array(np.column_stack(self.rows))
        self.problem = Knapsack(
            np.array(terms.group), np.array(terms.parent), np.array(terms.penalty),
            np.array(terms.energy_pj)[:, None], ("energy_pj",), loads, np.zeros(loads.shape[1], np.int64), np.zeros(1),
            np.zeros(1),
        )  # fmt: skip
        self.model: Model = prepare(self.problem)
        self.relaxation = Relaxation(self.model)

    def _solve(self, energy: float, cycles: float, limit_cycles: float | None = None) -> Relaxed:
        """Least of energy × dynamic energy + cycles × latency over plans within the limits."""
        limits = Limits(penalty=self.penalty_limit, latency_cycles=limit_cycles)
        weights = np.zeros(len(self.model.names) + 1)
        weights[self.model.column("energy_pj")] = energy
        weights[LATENCY] = cycles
        return self.relaxation.solve(self.model.goal("penalty", limits).minimising(weights))

    def latency(self) -> float:
        """Bound of the latency; adds the cuts of the plans that it is found with."""
        for _ in range(MAX_WAYS):
            found = self._solve(0.0, 1.0)
            if not np.isfinite(found.bound):
                what = f"no plan has a predicted loss of at most {self.penalty_limit}"
                raise InfeasibleError(Problem("plan bounds", what, "a larger limit", ("a larger penalty limit",)))
            if not self._cut(found):
                break
        return found.bound

    def cut(self, limit_cycles: float | None) -> bool:
        """Add the cut of the plan of least energy within a latency as a row; False if it is no longer than the rows."""
        return self._cut(self._solve(1.0, 0.0, limit_cycles))

    def _cut(self, found: Relaxed) -> bool:
        chosen = self.model.chosen(rounded(self.model, found))
        work, times, weights = self.space.facts_of(chosen)
        walked = walk(self.space.cut, work, times, weights, self.space.between(weights))
        if walked.cycles <= max(row[chosen].sum() for row in self.rows) * (1 + _WORTH_A_ROW):
            return False
        self.rows.append(self._row(longest_way(self.space.cut, walked, work)))
        self._prepare()
        return True

    def _row(self, way: Way) -> Floats:
        """A way's cycles of every variable."""
        work, (own, drain, tile, weights) = self.facts[:, :-4], self.facts[:, -4:].T
        cycles = (way.work[self.op] * work).sum(axis=1) + way.own[self.op] * own + way.drain[self.op] * drain
        cycles += way.tile[self.op] * tile
        row = self._by_variable(cycles + way.weights[self.op] * weights * self.per_bit)
        row[0] += way.constant_cycles
        return row

    def dynamic_pj(self, limit_cycles: float | None) -> tuple[float, float]:
        """Bound of the dynamic energy of plans within a latency (infinite: there is none), and the price of a cycle."""
        found = self._solve(1.0, 0.0, limit_cycles)
        # Limits are in the order of `Limits.all`: latency is the last.
        return found.bound, 0.0 if limit_cycles is None else float(found.limit_prices[-1])

    def energy(self, latency_cycles: float) -> float:
        """Bound of the whole energy; `latency_cycles` is a bound of the latency."""
        return self._solve(1.0, self.static.pj_per_cycle).bound + self.static.idle_pj(latency_cycles)

    def slowest(self) -> float:
        """Latency of the relaxed plan of least dynamic energy."""
        totals = self._solve(1.0, 0.0).totals
        return 0.0 if totals is None else float(totals[LATENCY])
