"""Goals without EDP: the fast solver (relaxation, rounding, exchanges) and the exact one (HiGHS on what is left)."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import block_array, csr_array

from codesign.allocate.exchanges import Exchanges
from codesign.allocate.goal import Flags, Floats, Goal, Ints, relative_gap
from codesign.allocate.model import Model
from codesign.allocate.quiet import quiet_stdout
from codesign.allocate.relaxation import Relaxation, Relaxed, rounded

# Looks at all exchanges of a plan that one rounding may cost.
EVALUATIONS = 120
# HiGHS meets a scaled limit to 1e-7; a limit this much lower cannot be broken by that.
TIGHTER = 4e-7


@dataclass(frozen=True, eq=False)
class Found:
    """The best plan found for a goal (None: none), its value, and a bound: inf when no plan can meet the limits.

    `totals` [M + 1] are those of the plan, `relaxed` the relaxation that it came from.
    """

    pick: Ints | None
    value: float
    bound: float
    totals: Floats | None
    relaxed: Relaxed

    @property
    def gap(self) -> float:
        """(value - bound) / |value|, inf without a plan."""
        return np.inf if self.pick is None else relative_gap(self.value, self.bound)


class Kit:
    """A model with what solvers prepare once."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.relaxation = Relaxation(model)
        self.exchanges = Exchanges(model)

    def found(self, pick: Ints | None, goal: Goal, bound: float, relaxed: Relaxed) -> Found:
        """A plan with its totals."""
        if pick is None:
            return Found(None, np.inf, bound, None, relaxed)
        totals = self.exchanges.totals(pick)
        value = float(totals @ goal.weights)
        return Found(pick, value, min(bound, value), totals, relaxed)

    def polished(self, pick: Ints, goal: Goal, relaxed: Relaxed, pairs: bool = True) -> Ints | None:
        """The plan after exchanges; None when none is found that meets the goal's limits (EDP among them).

        Without `pairs` two exchanges at once are tried only while the plan breaks limits.
        """
        better, meets = self.exchanges.improve(pick, goal, relaxed.excess, EVALUATIONS, pairs)
        return better if meets else None


def solve_fast(kit: Kit, goal: Goal, pairs: bool = True) -> Found:
    """Relaxation, rounding, exchanges: a plan that meets the limits where one is found, and the certified bound."""
    relaxed = kit.relaxation.solve(goal)
    if relaxed.bound == np.inf:
        return kit.found(None, goal, np.inf, relaxed)
    pick = kit.polished(rounded(kit.model, relaxed), goal, relaxed, pairs)
    if pick is None:
        pick = kit.polished(kit.model.first_at(relaxed.full, relaxed.least), goal, relaxed, pairs)
    return kit.found(pick, goal, relaxed.bound, relaxed)


def solve_exact(kit: Kit, goal: Goal, gap: float, deadline: float) -> Found:
    """The fast solver's plan, improved by HiGHS over the variables that a better plan can have.

    A variable whose choice alone lifts the certified bound above the plan's value (less half of the gap) is left out.
    `deadline` is a value of time.perf_counter(); when it passes, the best plan so far and its bound are the answer.
    """
    found = solve_fast(kit, goal)
    if found.bound == np.inf or found.gap <= gap:
        return found
    keep = np.ones(kit.model.size, np.bool_)
    threshold = np.inf
    if found.pick is not None:
        threshold = found.value - 0.5 * gap * abs(found.value)
        keep = found.bound + found.relaxed.excess <= threshold
    best, bound = found, found.bound
    for tighter in (0.0, TIGHTER):
        share, dual = _highs(kit, goal, best, keep, 0.5 * gap, deadline, tighter)
        if tighter == 0.0:
            bound = max(bound, min(dual, threshold))
        if share is None:
            break
        pick = rounded(kit.model, replace(found.relaxed, share=share))
        within = goal.excess(kit.exchanges.totals(pick)) == 0.0
        other = kit.found(kit.polished(pick, goal, found.relaxed), goal, bound, found.relaxed)
        best = other if other.value < best.value else best
        # Else HiGHS used its tolerance on a limit, and the next try may not.
        if within or best.gap <= gap:
            break
    return replace(best, bound=min(bound, best.value))


def _highs(
    kit: Kit, goal: Goal, best: Found, keep: Flags, gap: float, deadline: float, tighter: float
) -> tuple[Floats | None, float]:
    """Shares of the variables in HiGHS's plan (None: none) and its bound, inf where it proves that there is no plan.

    Of the variables only those in `keep` may be chosen; the gap asked for is relative to the value of the best plan.
    """
    model, relaxation = kit.model, kit.relaxation
    limits, room, _ = relaxation.limit_rows(goal)
    costs = relaxation.columns(goal.weights)
    constant = float(model.constant @ goal.weights[:-1])
    reached = best.value if best.pick is not None else best.bound
    # HiGHS stops at an absolute gap of 1e-6, so costs count in units of the value; the constant is not in its gap.
    unit = abs(reached) or float(np.abs(costs).max(initial=0.0)) or 1.0
    rows = block_array([[csr_array(limits)], [relaxation.busy]], format="csr") if len(room) else relaxation.busy
    upper = np.concatenate((room - tighter * np.maximum(np.abs(room), 1.0), np.zeros(relaxation.busy.shape[0])))
    constraints = [LinearConstraint(relaxation.choose, relaxation.choose_rhs, relaxation.choose_rhs)]
    if len(upper):
        constraints.append(LinearConstraint(rows, -np.inf, upper))
    latest = relaxation.latest.copy()
    latest[: model.size] = keep
    with quiet_stdout():
        found = milp(
            costs / unit,
            integrality=np.concatenate((np.ones(model.size), np.zeros(model.stages))),
            bounds=Bounds(0.0, latest),
            constraints=constraints,
            options={
                "mip_rel_gap": gap * abs(reached) / (abs(reached - constant) or 1.0),
                "time_limit": max(deadline - time.perf_counter(), 0.01),
            },
        )
    if found.status == 2:
        return None, np.inf
    dual = -np.inf if found.mip_dual_bound is None else found.mip_dual_bound * unit + constant
    return (None if found.x is None else np.asarray(found.x)[: model.size]), float(dual)
