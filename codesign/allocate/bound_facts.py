"""Context-free lower bounds of every op of a quantized workload: what plan bounds are made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from accelsim.arch import Accelerator
from accelsim.bound_compute import SliceCosts, slice_costs, vector_unit_cycles
from accelsim.bound_energy import ACTIVATION_WRITE, least_energies_pj
from accelsim.bound_graph import graph_of
from accelsim.bound_tiles import RowTimes, row_times
from accelsim.energy import static_pj_per_cycle
from accelsim.optable import OpTable, engine_arrays
from accelsim.token_bound import least_design
from codesign.allocate.problem import Floats

# Most ways of pricing the engines that share work; each is a row of every linear program.
MAX_PRICES = 48


@dataclass(frozen=True, eq=False)
class OpFacts:
    """Of every op of one plan, all at least: energies in pJ, cycles, bits; [n] each.

    `own_pj` is dynamic energy without `second_pj` (reads of the second operand) and `written_pj` (writes of the stored
    output), infinite where no engine executes a slice.
    """

    table: OpTable
    own_pj: Floats
    second_pj: Floats
    written_pj: Floats
    weights_bits: Floats
    vector_cycles: Floats
    times: RowTimes
    costs: SliceCosts

    def work(self, prices: Floats) -> Floats:
        """[n, P + 1] cycles: for each of P price vectors [engines] the least price of an op's slices; the vector unit.

        Prices are ≥ 0 and of sum 1, so a column's sum is at most the time that the engines need together.
        """
        n = len(self.table.ops)
        result = np.zeros((n, len(prices) + 1))
        for number, price in enumerate(prices):
            with np.errstate(invalid="ignore"):
                priced = np.where(self.costs.able, price * self.costs.cycles, np.inf).min(axis=1)
            result[:, number] = np.bincount(self.costs.owner, np.where(np.isfinite(priced), priced, 0.0), minlength=n)
        result[:, -1] = self.vector_cycles
        return result


def op_facts(table: OpTable, accelerator: Accelerator) -> OpFacts:
    """The facts of a plan on an accelerator; also of plans with slices that no engine executes.

    Of a plan with token groups or head widths those of `least_design`, whatever the counts.
    """
    table, engines = least_design(table, engine_arrays(accelerator, table), accelerator)
    energy, second = least_energies_pj(table, engines, accelerator)
    written = energy[:, ACTIVATION_WRITE]
    with np.errstate(divide="ignore"):  # slices that no engine executes take for ever
        times = row_times(table, engines, accelerator)
    return OpFacts(
        table, energy.sum(axis=1) - second - written, second, written,
        graph_of(table).weights_bits.astype(np.float64), vector_unit_cycles(table, accelerator.vector).astype(float),
        times, slice_costs(table, engines),
    )  # fmt: skip


def engine_prices(facts: list[OpFacts], accelerator: Accelerator) -> Floats:
    """[P, engines] price vectors: one engine, pairs at the break points of all facts, larger sets by their slots.

    For two engines the dual of perfect sharing has its maximum at a break point, so all of them make it exact; of more
    than `MAX_PRICES` evenly spread ones are taken, which is valid, too.
    """
    n = len(accelerator.engines)
    rows = list(np.eye(n))
    for a in range(n):
        for b in range(a + 1, n):
            points: list[float] = []
            for one in facts:
                both = one.costs.able[:, a] & one.costs.able[:, b]
                on_a, on_b = one.costs.cycles[both, a], one.costs.cycles[both, b]
                points += (on_b / (on_a + on_b)).tolist()
            distinct = sorted(set(points))
            if len(distinct) > MAX_PRICES:
                distinct = [distinct[round(k)] for k in np.linspace(0, len(distinct) - 1, MAX_PRICES)]
            for y in distinct:
                row = np.zeros(n)
                row[a], row[b] = y, 1 - y
                rows.append(row)
    slots = np.array([engine.slots for engine in accelerator.engines], np.float64)
    if n > 2:
        rows.append(slots / slots.sum())
    return np.array(rows)


@dataclass(frozen=True)
class Idle:
    """Least clock energy of units while they are idle: those that no op can use, and the vector unit.

    The vector unit is busy for at most `vector_busy_cycles`.  Engines that some op can use may be busy all the time.
    """

    unused_pj_per_cycle: float
    vector_pj_per_cycle: float
    vector_busy_cycles: float

    def vector_pj(self, cycles: float) -> float:
        """Idle energy of the vector unit in a run that takes at least `cycles`."""
        return self.vector_pj_per_cycle * max(0.0, cycles - self.vector_busy_cycles)


def least_idle(facts: Iterable[OpFacts], vector_busy_cycles: float, accelerator: Accelerator) -> Idle:
    """Idle energy whatever the plan: `facts` are of every context, `vector_busy_cycles` of the widest formats."""
    used = np.zeros(len(accelerator.engines), np.bool_)
    for one in facts:
        used |= one.costs.able.any(axis=0)
    idle, _ = static_pj_per_cycle(accelerator)
    unused = sum(idle[engine.name] for engine, able in zip(accelerator.engines, used, strict=True) if not able)
    return Idle(float(unused), idle["vector"], vector_busy_cycles)
