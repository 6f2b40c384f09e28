"""The best plan of an allocation problem within limits: exactly, or fast with a certified gap."""

from __future__ import annotations

import math
import time

from accelsim.problems import AccelsimError, InfeasibleError, Problem
from codesign.allocate.edp import minimise_edp, minimise_under_edp
from codesign.allocate.goal import LIMIT_ROUNDING, Limits, Solution, relative_gap
from codesign.allocate.linear import Found, Kit, solve_exact, solve_fast
from codesign.allocate.model import Model, prepare
from codesign.allocate.problem import Knapsack

__all__ = ["Limits", "Solution", "minimise"]
METHODS = ("exact", "fast")
UNITS = {"penalty": "nats", "latency_cycles": "cycles", "edp": "pJ × cycles"}
# Numbers of a problem are integers; what is small is told in millionths.
SMALL = 1e4


def minimise(
    problem: Knapsack | Model,
    objective: str,
    limits: Limits | None = None,
    method: str = "exact",
    gap: float = 1e-4,
    time_limit_s: float = 60.0,
) -> Solution:
    """The plan of least `objective` ("penalty", "latency_cycles", "edp", a resource) within the limits.

    "exact" stops at the relative gap or when its time is up; the solution's gap is what was proven.  "fast" takes
    milliseconds, and its bound is certified (see `relaxation`); when it finds no plan, "exact" is asked.  The answer
    depends on the machine only where time runs out.
    Raises InfeasibleError with the least reachable value of the limit that cannot be met, AccelsimError for unknown
    names and when time ends before a plan is found.
    """
    started = time.perf_counter()
    limits = limits or Limits()
    if method not in METHODS:
        raise AccelsimError(Problem("allocation", f"no method {method!r}", f"one of {', '.join(METHODS)}"))
    kit = Kit(problem if isinstance(problem, Model) else prepare(problem))
    deadline = started + time_limit_s
    found = _found(kit, objective, limits, method == "exact", gap, deadline)
    if found.pick is None and found.bound < math.inf and method == "fast":
        method = "exact"
        found = _found(kit, objective, limits, True, gap, deadline)
    if found.pick is None:
        raise _failure(kit, limits, found, gap, time_limit_s)
    chosen = kit.model.chosen(found.pick)
    totals = kit.model.problem.totals(chosen)
    value = totals[objective]
    bound = min(found.bound, value)
    taken = time.perf_counter() - started
    return Solution(chosen, totals, objective, value, bound, relative_gap(value, bound), taken, method)


def _found(kit: Kit, objective: str, limits: Limits, exact: bool, gap: float, deadline: float) -> Found:
    """The solver that fits the goal, asked."""
    goal = kit.model.goal(objective, limits)
    if objective == "edp":
        return minimise_edp(kit, goal, exact, gap, deadline)
    if "edp" in limits.all():
        return minimise_under_edp(kit, goal, limits.all()["edp"], exact, gap, deadline)
    return solve_exact(kit, goal, gap, deadline) if exact else solve_fast(kit, goal)


def _failure(kit: Kit, limits: Limits, found: Found, gap: float, time_limit_s: float) -> AccelsimError:
    """Why there is no plan: the first limit that cannot be met beside those before it."""
    kept: dict[str, float] = {}
    for name, limit in limits.all().items():
        least = _found(kit, name, Limits(**kept), True, gap, time.perf_counter() + time_limit_s)
        reached = least.value if least.pick is not None else least.bound
        if reached > limit + LIMIT_ROUNDING * abs(limit):
            return _infeasible(name, reached, limit, kept)
        kept[name] = limit
    return AccelsimError(
        Problem(
            "allocation",
            f"no plan within the limits found in {time_limit_s:g} s, and no proof that none exists",
            levers=("more time", "looser limits"),
        )
    )


def _infeasible(name: str, reached: float, limit: float, kept: dict[str, float]) -> InfeasibleError:
    """The error that names the limit, the least value reachable and the limits that hold beside it."""
    unit, scale = UNITS.get(name, name), 1.0
    if abs(limit) < SMALL:
        unit, scale = f"millionths of {unit}", 1e6
    beside = ", ".join(f"{other} <= {value:g}" for other, value in kept.items())
    what = f"no plan has {name} <= {limit:.9g}: the least is {reached:.9g}" + (f" with {beside}" if beside else "")
    return InfeasibleError(
        Problem(
            "allocation",
            what,
            levers=(f"a limit of {name} of at least {reached:.9g}", "other limits" if kept else "more options"),
            demand=math.ceil(reached * scale),
            bound=math.floor(limit * scale),
            unit=unit,
        )
    )
