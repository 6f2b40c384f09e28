"""Certified lower bounds: the linear relaxation's prices, and the Lagrangian function at them.

HiGHS solves the relaxation to its tolerances, so its objective is no proof.  Its prices are: for any prices of the
limits (>= 0) and of the rows of every shared stage (>= 0, adding up to at most the price of a cycle) the Lagrangian
function, a sum of minima over groups, is below every plan within the limits.  It is computed here in float64, and what
its sums may have been rounded by is subtracted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import block_array, coo_array, csr_array

from accelsim.problems import AccelsimError, Problem
from codesign.allocate.goal import LIMIT_ROUNDING, Floats, Goal, Ints, Limits
from codesign.allocate.model import Model, prepare
from codesign.allocate.problem import Knapsack


@dataclass(frozen=True, eq=False)
class Relaxed:
    """A certified bound and what it rests on: inf where no plan can meet the limits.

    `limit_prices` [L], `row_prices` [rows of shared stages], `excess` [V]: by how much the bound rises at least when a
    variable is chosen.  `full` [V] are the priced costs with what hangs below.  `share` [V] is the (fractional) plan
    of the relaxation, None when HiGHS found none.  `totals` [M + 1] are its totals with EDP last.
    """

    bound: float
    limit_prices: Floats
    row_prices: Floats
    excess: Floats
    full: Floats
    least: Floats
    share: Floats | None
    totals: Floats | None


class Relaxation:
    """The linear relaxation of a model: prepared once, solved for many objectives and limits."""

    def __init__(self, model: Model) -> None:
        self.model = model
        rows, stages = model.loads.shape[1], model.stages
        variables = np.arange(model.size)
        hanging = np.flatnonzero(model.parent >= 0)
        signs = np.concatenate((np.ones(model.size), -np.ones(len(hanging))))
        at = np.concatenate((model.group, hanging))
        who = np.concatenate((variables, model.parent[hanging]))
        self.choose = coo_array((signs, (at, who)), shape=(model.groups, model.size + stages)).tocsr()
        self.choose_rhs = (model.parent < 0).astype(np.float64)
        # A shared stage counts in units of its greatest load: tolerances then mean the same on all of them.
        self.unit = np.ones(stages)
        if model.loads.nnz:
            entries = model.loads.tocoo()
            np.maximum.at(self.unit, model.stage[entries.col], np.abs(entries.data))
        scaled = model.loads.T.tocsr().multiply(1.0 / self.unit[model.stage][:, None]).tocsr()
        ends = coo_array((-np.ones(rows), (np.arange(rows), model.stage)), shape=(rows, stages))
        self.busy = block_array([[scaled, ends]], format="csr") if rows else csr_array((0, model.size + stages))
        self.latest = np.concatenate((np.ones(model.size), np.full(stages, np.inf)))

    def bound(self, weights: Mapping[str, float], limits: Limits | None = None) -> float:
        """Certified lower bound of the weighted sum of totals over all plans within the limits, inf where none exists.

        `weights` by name: "penalty", "latency_cycles" and resources ("energy_pj" with static energy).  Limits on EDP
        are left out: the bound then holds all the more.  Raises AccelsimError for EDP or an unknown name as a weight.
        """
        model = self.model
        vector = np.zeros(len(model.names) + 1)
        for name, weight in weights.items():
            vector[model.column(name)] = weight
        if vector[-1]:
            raise AccelsimError(Problem("allocation", "EDP is not linear", "weights of linear totals"))
        return self.solve(model.goal("penalty", limits or Limits()).without_edp().minimising(vector)).bound

    def columns(self, weights: Floats) -> Floats:
        """Cost of every variable and of every shared stage for weights [M + 1] over totals (EDP's must be 0)."""
        model = self.model
        result: Floats = np.concatenate((model.linear @ weights[:-1], self.unit * (model.per_cycle @ weights[:-1])))
        return result

    def limit_rows(self, goal: Goal) -> tuple[Floats, Floats, Floats]:
        """Limits as rows [L, V + S] <= rhs [L], divided by scale [L], which is returned as well."""
        matrix = np.array([self.columns(row) for row in goal.rows]).reshape(len(goal.rhs), self.busy.shape[1])
        room = slackened(goal) - goal.rows[:, :-1] @ self.model.constant
        largest = np.abs(matrix).max(axis=1, initial=0.0)
        scale = np.maximum(np.abs(room), largest)
        scale[scale == 0] = 1.0
        return matrix / scale[:, None], room / scale, scale

    def solve(self, goal: Goal) -> Relaxed:
        """The relaxation of a goal without EDP.  Raises AccelsimError when more latency is wanted, not less."""
        if goal.weights[:-1] @ self.model.per_cycle < 0:
            raise AccelsimError(Problem("allocation", "negative weight on latency", "weights that want less latency"))
        limits, room, scale = self.limit_rows(goal)
        costs = self.columns(goal.weights)
        size = float(np.abs(costs).max(initial=0.0)) or 1.0
        found = self._linprog(costs / size, limits, room)
        if found is not None:
            share, limit_prices, row_prices = found
            return self._certify(goal, limit_prices * size / scale, row_prices * size, share[: self.model.size])
        if self._impossible(goal, limits, room, scale):
            return self._certify(goal, np.zeros(len(scale)), np.zeros(len(self.model.stage)), None, np.inf)
        return self._certify(goal, np.zeros(len(scale)), np.zeros(len(self.model.stage)), None)

    def _linprog(self, costs: Floats, limits: Floats, room: Floats) -> tuple[Floats, Floats, Floats] | None:
        """Share of variables and stages, prices of limits and rows in scaled units; None when there is no solution."""
        extra = len(costs) - self.busy.shape[1]
        busy, choose = self.busy, self.choose
        if extra:
            busy = block_array([[busy, csr_array((busy.shape[0], extra))]], format="csr")
            choose = block_array([[choose, csr_array((choose.shape[0], extra))]], format="csr")
        above = block_array([[csr_array(limits)], [busy]], format="csr") if len(limits) else busy
        upper = np.concatenate((room, np.zeros(busy.shape[0])))
        latest = np.concatenate((self.latest, np.full(extra, np.inf)))
        found = linprog(
            costs,
            A_ub=above if above.shape[0] else None,
            b_ub=upper if above.shape[0] else None,
            A_eq=choose,
            b_eq=self.choose_rhs,
            bounds=np.column_stack((np.zeros(len(costs)), latest)),
            method="highs",
        )
        if found.x is None or found.status != 0:
            return None
        prices = np.maximum(-np.asarray(found.ineqlin.marginals, np.float64), 0.0)
        return np.asarray(found.x), prices[: len(room)], prices[len(room) :]

    def _impossible(self, goal: Goal, limits: Floats, room: Floats, scale: Floats) -> bool:
        """True when prices prove that the limits cannot be met together: the least excess over them is positive."""
        columns = limits.shape[1]
        eased = np.column_stack((limits, -np.ones(len(room))))
        found = self._linprog(np.append(np.zeros(columns), 1.0), eased, room)
        if found is None:
            return False
        nothing = goal.minimising(np.zeros_like(goal.weights))
        return self._certify(nothing, found[1] / scale, found[2], None).bound > 0.0

    def _certify(
        self, goal: Goal, limit_prices: Floats, row_prices: Floats, share: Floats | None, bound: float | None = None
    ) -> Relaxed:
        """The Lagrangian function at clipped prices, less what rounding may have added."""
        model = self.model
        weights = (goal.weights + limit_prices @ goal.rows)[:-1]
        cycle_price = max(float(weights @ model.per_cycle), 0.0)
        per_row = row_prices / self.unit[model.stage]
        sums = np.bincount(model.stage, per_row, model.stages) if model.stages else np.zeros(0)
        # A little less than allowed, so that no rounding makes the price of a makespan negative.
        shrink = np.minimum(cycle_price / np.maximum(sums, 1e-300), 1.0) * (1.0 - 1e-13)
        per_row = per_row * shrink[model.stage]
        costs = model.linear @ weights + model.loads @ per_row
        least_sum, least, full = model.cheapest(costs)
        fixed = model.constant @ weights - slackened(goal) @ limit_prices
        if bound is None:
            bound = float(least_sum + fixed) - self._rounding(goal, weights, per_row, limit_prices)
        totals = None if share is None else self.totals(share)
        excess = full - least[model.group]
        # Choosing below a branch means choosing the branch.
        for level in model.levels[1:]:
            members = np.flatnonzero(np.isin(model.group, level))
            excess[members] += excess[model.parent[model.group[members]]]
        return Relaxed(bound, limit_prices, per_row, excess, full, least, share, totals)

    def _rounding(self, goal: Goal, weights: Floats, per_row: Floats, limit_prices: Floats) -> float:
        """An upper bound of the rounding error of the Lagrangian function: terms × eps × sum of magnitudes."""
        model = self.model
        sizes = np.abs(model.linear) @ np.abs(weights) + abs(model.loads) @ per_row
        largest = np.maximum.reduceat(sizes, model.start[:-1]).sum() if model.size else 0.0
        fixed = np.abs(model.constant) @ np.abs(weights) + np.abs(goal.rhs) @ limit_prices
        terms = 16 + len(weights) + len(goal.rhs) + len(per_row) + 2 * model.groups
        return float(terms * np.finfo(np.float64).eps * (largest + fixed))

    def totals(self, share: Floats) -> Floats:
        """Totals [M + 1] of a fractional plan, EDP last."""
        model = self.model
        busiest = np.zeros(model.stages)
        np.maximum.at(busiest, model.stage, model.loads.T @ share)
        return with_edp(model, model.constant + share @ model.linear + model.per_cycle * busiest.sum())


def with_edp(model: Model, totals: Floats) -> Floats:
    """Totals [..., M] with EDP as one more column, 0 where the problem has no energy."""
    if "energy_pj" not in model.names:
        edp = np.zeros_like(totals[..., :1])
    else:
        energy = model.names.index("energy_pj")
        edp = totals[..., energy : energy + 1] * totals[..., 1:2]
    result: Floats = np.concatenate((totals, edp), axis=-1)
    return result


def slackened(goal: Goal) -> Floats:
    """Limits with what the rounding of sums may add."""
    result: Floats = goal.rhs + LIMIT_ROUNDING * np.abs(goal.rhs)
    return result


def lower_bound(problem: Knapsack | Model, weights: Mapping[str, float], limits: Limits | None = None) -> float:
    """`Relaxation.bound` of a problem.  Where many bounds of one problem are wanted, keep the relaxation."""
    return Relaxation(problem if isinstance(problem, Model) else prepare(problem)).bound(weights, limits)


def rounded(model: Model, relaxed: Relaxed) -> Ints:
    """What every group takes when the relaxation is rounded [G]: the largest share, else the cheapest at its prices."""
    pick = model.first_at(relaxed.full, relaxed.least)
    if relaxed.share is None:
        return pick
    most = np.maximum.reduceat(relaxed.share, model.start[:-1])
    hits = np.flatnonzero(relaxed.share >= most[model.group])
    largest = hits[np.searchsorted(model.group[hits], np.arange(model.groups))]
    found: Ints = np.where(most > 1e-6, largest, pick)
    return found
