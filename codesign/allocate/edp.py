"""Energy-delay products: as objective by the corners of a hull, as limit by cells of latency.

A plan's EDP is T × E, both linear in what is chosen (E holds the static energy, which is linear in T).

Objective.  T × E is quasi-concave where both are positive, so over the hull of all plans within linear limits it is
least at a corner, and a corner is a plan: nothing is lost by looking at weighted sums αT + βE only.  Every sum solved
gives a half-plane that holds all plans; the least product over the corners of their intersection is a bound.

Limit.  The plans with T × E <= X and T in [a, b] lie below the chord of the curve X / T from a to b, since the curve is
convex.  The chord is one linear limit.  A plan below it but above the curve splits the cell at its T, and no half
allows it any more; a plan below the chord and outside [a, b] is below the curve.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable

import numpy as np

from accelsim.problems import AccelsimError, Problem
from codesign.allocate.goal import LIMIT_ROUNDING, Floats, Goal, Ints
from codesign.allocate.linear import Found, Kit, solve_exact, solve_fast
from codesign.allocate.model import LATENCY
from codesign.allocate.relaxation import Relaxed

# Weighted sums for an objective, cells for a limit: at most, and where only the fast solver is asked.
MOST_STEPS, FAST_STEPS = 200, 16
# A relaxed plan that breaks the limit by more than this splits its cell before anything exact is solved in it.
RELAXED_EXCESS = 1e-3
# Half-planes whose slopes differ by less than FLAT have no corner, and what that and rounding may take from a bound.
FLAT, CORNER_ROUNDING = 1e-7, 1e-6
Solve = Callable[[Goal], Found]


class Incumbent:
    """The best plan so far for a goal that speaks of EDP."""

    def __init__(self, kit: Kit, goal: Goal) -> None:
        self.kit, self.goal = kit, goal
        self.value = np.inf
        self.pick: Ints | None = None
        self._seen: set[tuple[bytes, bool]] = set()

    def offer(self, pick: Ints | None, relaxed: Relaxed, pairs: bool = False) -> None:
        """Takes a plan, improved by exchanges, if it meets the limits and is better."""
        if pick is None or (pick.tobytes(), pairs) in self._seen:
            return
        self._seen.add((pick.tobytes(), pairs))
        for plan in (pick, self.kit.polished(pick, self.goal, relaxed, pairs)):
            if plan is None:
                continue
            totals = self.kit.exchanges.totals(plan)
            value = float(totals @ self.goal.weights)
            if value < self.value and self.goal.excess(totals) == 0.0:
                self.value, self.pick = value, plan

    def found(self, bound: float, relaxed: Relaxed) -> Found:
        """What was found, with the bound that was proven."""
        return self.kit.found(self.pick, self.goal, bound, relaxed)


def energy_column(kit: Kit) -> int:
    """Position of energy_pj among the totals."""
    return kit.model.column("energy_pj")


def _weights(kit: Kit, latency: float, energy: float) -> Floats:
    """Weights of totals [M + 1] that price latency and energy."""
    weights = np.zeros(len(kit.model.names) + 1)
    weights[LATENCY], weights[energy_column(kit)] = latency, energy
    return weights


def _least(kit: Kit, goal: Goal, exact: Solve | None) -> tuple[Found, Found]:
    """Least latency and least energy, with positive bounds.  Raises AccelsimError where a plan may have neither."""
    sides = []
    for name, weights in (("latency", _weights(kit, 1.0, 0.0)), ("energy", _weights(kit, 0.0, 1.0))):
        side = solve_fast(kit, goal.minimising(weights), pairs=False)
        if side.bound <= 0.0 and exact is not None:
            side = exact(goal.minimising(weights))
        if side.bound <= 0.0:
            what = f"the {name} of a plan may be {side.bound:.6g}: EDP has no least value by corners"
            raise AccelsimError(Problem("allocation", what, f"a positive {name} of every plan"))
        sides.append(side)
    return sides[0], sides[1]


def minimise_edp(kit: Kit, goal: Goal, exact: bool, gap: float, deadline: float) -> Found:
    """Least EDP within linear limits, with a bound for every plan; exact, its gap is at most `gap` if time suffices."""
    linear = goal.without_edp()
    hard = _exact(kit, 0.25 * gap, deadline)
    best = Incumbent(kit, goal)
    sides = _least(kit, linear, hard)
    relaxed = sides[0].relaxed
    if np.inf in (sides[0].bound, sides[1].bound):
        return best.found(np.inf, relaxed)
    hull = _Hull((1.0, 0.0, sides[0].bound), (0.0, 1.0, sides[1].bound))
    for side in sides:
        best.offer(side.pick, side.relaxed)
        hull.point(side.totals, energy_column(kit))
    _corners(kit, linear, best, hull, lambda asked: solve_fast(kit, asked, pairs=False), gap, FAST_STEPS, deadline)
    best.offer(best.pick, relaxed, pairs=True)
    if exact:
        _corners(kit, linear, best, hull, hard, gap, MOST_STEPS, deadline)
    return best.found(np.inf if hull.empty else hull.corner()[0] * (1.0 - CORNER_ROUNDING), relaxed)


def _exact(kit: Kit, gap: float, deadline: float) -> Solve:
    """The exact solver with its gap and deadline."""
    return lambda asked: solve_exact(kit, asked, gap, deadline)


def _corners(
    kit: Kit, goal: Goal, best: Incumbent, hull: _Hull, solve: Solve, gap: float, steps: int, deadline: float
) -> None:
    """Solves weighted sums that cut the corner of least product until the best plan is within the gap of it."""
    asked: set[tuple[int, ...]] = set()
    for _ in range(steps):
        product, latency, energy = hull.corner()
        if hull.empty or best.value <= product * (1.0 + gap) or time.perf_counter() > deadline:
            return
        for slope in hull.slopes(latency, energy):
            # Slopes that agree to eight digits are one question.
            key = tuple(np.round(np.log(slope), 8) * 1e8)
            if key not in asked:
                break
        else:
            return
        asked.add(key)
        found = solve(goal.minimising(_weights(kit, *slope)))
        if found.bound == np.inf:
            hull.empty = True
            return
        hull.cuts.append((*slope, found.bound))
        hull.point(found.totals, energy_column(kit))
        best.offer(found.pick, found.relaxed)


class _Hull:
    """Half-planes αT + βE >= bound that hold all plans, and plans found; `empty`: proven that there is none."""

    def __init__(self, *cuts: tuple[float, float, float]) -> None:
        self.cuts = list(cuts)
        self.points: list[tuple[float, float]] = []
        self.empty = False

    def point(self, totals: Floats | None, energy: int) -> None:
        """Adds a plan."""
        if totals is not None:
            self.points.append((float(totals[LATENCY]), float(totals[energy])))

    def corner(self) -> tuple[float, float, float]:
        """The least product T × E over the corners of the half-planes' intersection, and that corner."""
        cuts = np.array(self.cuts)
        one, two = np.triu_indices(len(cuts), 1)
        det = cuts[one, 0] * cuts[two, 1] - cuts[two, 0] * cuts[one, 1]
        scale = cuts[one, 0] * cuts[two, 1] + cuts[two, 0] * cuts[one, 1]
        # Cuts of nearly one slope meet nowhere exactly; without their corner the hull moves by less than it is flat.
        apart = np.abs(det) > FLAT * scale
        one, two, det = one[apart], two[apart], det[apart]
        latency = (cuts[one, 2] * cuts[two, 1] - cuts[two, 2] * cuts[one, 1]) / det
        energy = (cuts[two, 2] * cuts[one, 0] - cuts[one, 2] * cuts[two, 0]) / det
        inside = np.outer(latency, cuts[:, 0]) + np.outer(energy, cuts[:, 1]) >= cuts[:, 2] * (1.0 - 1e-8)
        kept = np.flatnonzero(inside.all(axis=1))
        place = int(kept[np.argmin((latency * energy)[kept])])
        return float(latency[place] * energy[place]), float(latency[place]), float(energy[place])

    def slopes(self, latency: float, energy: float) -> list[tuple[float, float]]:
        """Weights worth asking at a corner: normal to the chord of the plans beside it, then the product's gradient."""
        found = []
        left = [point for point in self.points if point[0] <= latency * (1 + 1e-12)]
        right = [point for point in self.points if point[1] <= energy * (1 + 1e-12)]
        if left and right:
            one = min(left, key=lambda point: (energy * point[0] + latency * point[1], point))
            two = min(right, key=lambda point: (energy * point[0] + latency * point[1], point))
            if two[0] > one[0] and one[1] > two[1]:
                found.append((one[1] - two[1], two[0] - one[0]))
        found.append((energy, latency))
        size = [max(alpha * latency, beta * energy) for alpha, beta in found]
        return [(alpha / most, beta / most) for (alpha, beta), most in zip(found, size, strict=True)]


def minimise_under_edp(kit: Kit, goal: Goal, edp: float, exact: bool, gap: float, deadline: float) -> Found:
    """The goal within a limit of EDP (and its linear limits), by cells of latency, the most promising first."""
    linear = goal.without_edp()
    hard = _exact(kit, 0.5 * gap, deadline)
    best = Incumbent(kit, goal)
    sides = _least(kit, linear, hard)
    relaxed = sides[0].relaxed
    edp *= 1.0 + LIMIT_ROUNDING
    first, last = sides[0].bound, edp / sides[1].bound
    if first > last:
        return best.found(np.inf, relaxed)
    for side in sides:
        best.offer(side.pick, side.relaxed)
    cells = [(-np.inf, first, last)]
    closed = np.inf
    for _ in range(MOST_STEPS if exact else FAST_STEPS):
        if not cells or time.perf_counter() > deadline:
            break
        bound, low, high = heapq.heappop(cells)
        if bound >= best.value - 0.5 * gap * abs(best.value):
            heapq.heappush(cells, (bound, low, high))
            break
        asked = linear.with_row(_weights(kit, edp / (low * high), 1.0), edp * (low + high) / (low * high))
        found, at = _cell(kit, asked, edp, exact, hard, best)
        bound = max(bound, found.bound)
        if at is not None and low * (1 + 1e-9) < at < high * (1 - 1e-9):
            heapq.heappush(cells, (bound, low, at))
            heapq.heappush(cells, (bound, at, high))
        else:
            closed = min(closed, bound)
    best.offer(best.pick, relaxed, pairs=True)
    return best.found(min([closed, *(cell[0] for cell in cells)]), relaxed)


def _cell(kit: Kit, asked: Goal, edp: float, exact: bool, hard: Solve, best: Incumbent) -> tuple[Found, float | None]:
    """The answer in a cell, and the latency to split it at, None when the answer meets the limit of EDP."""
    found = solve_fast(kit, asked, pairs=False)
    best.offer(found.pick, found.relaxed)
    relaxed = found.relaxed.totals
    if found.bound == np.inf:
        return found, None
    if relaxed is not None and relaxed[-1] > edp * (1.0 + RELAXED_EXCESS):
        return found, float(relaxed[LATENCY])
    if not exact:
        return found, None
    found = hard(asked)
    best.offer(found.pick, found.relaxed)
    if found.totals is not None and found.totals[-1] > edp:
        return found, float(found.totals[LATENCY])
    return found, None
