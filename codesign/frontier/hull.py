"""The convex hull of the frontier of sums: what min Σ (error + λ · cost) finds for all prices λ, without a merge.

A choice that is best at a price takes in every group an option that is best there.  So the hull of the sums walks the
edges of all groups' hulls in order of their slopes (Minkowski sum), from the cheapest options to those of least error.
What lies between two neighbours of the hull is missed; `bound` says how much that can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from codesign.frontier.merge import Costs, Floats, Frontier, Group, able_groups


def hull(groups: Sequence[Group]) -> Frontier:
    """All supported points of the frontier of sums: those that are best at some price, in order of cost.

    O(E log E) for E edges.  Edges of one slope are walked group by group: the points between lie on the hull's edge.
    Raises AccelsimError for what `codesign.frontier.merge.able_groups` refuses.
    """
    options = able_groups(groups)
    rises, drops, owners, ends = [], [], [], []
    start = []
    for number, (errors, costs, names) in enumerate(options):
        corners = lower_hull(costs, errors)
        start.append(corners[0])
        for a, b in pairwise(corners):
            rises.append(costs[b] - costs[a])
            drops.append(errors[a] - errors[b])
            owners.append(number)
            ends.append(names[b])
    slopes = np.array([drop / float(rise) for drop, rise in zip(drops, rises, strict=True)])
    order = np.argsort(-slopes, kind="stable")
    first = np.array([names[k] for k, (_, _, names) in zip(start, options, strict=True)], np.int64)
    choices = np.tile(first, (1 + len(order), 1))
    for row, edge in enumerate(order, 1):
        choices[row:, owners[edge]] = ends[edge]
    return _summed(groups, choices)


def lower_hull(costs: Costs, errors: Floats) -> list[int]:
    """Corners of the lower left convex hull of points [K]: from the cheapest (of these the best) to the least error."""
    corners: list[int] = []
    for k in np.lexsort((errors, costs)).tolist():
        if corners and errors[k] >= errors[corners[-1]]:
            continue
        while len(corners) > 1 and not _turns(costs, errors, corners[-2], corners[-1], k):
            corners.pop()
        corners.append(k)
    return corners


def _turns(costs: Costs, errors: Floats, a: int, b: int, c: int) -> bool:
    """True when b lies below the line from a to c."""
    before = (errors[b] - errors[a]) * float(costs[c] - costs[b])
    after = (errors[c] - errors[b]) * float(costs[b] - costs[a])
    return bool(before < after)


def _summed(groups: Sequence[Group], choices: Costs) -> Frontier:
    """The frontier of choices [P, G] in order of cost; sums in the order of the groups, as `merge` forms them."""
    costs: Costs = np.zeros(len(choices), np.int64)
    errors = np.zeros(len(choices))
    for number, one in enumerate(groups):
        costs = costs + np.asarray(one.costs)[choices[:, number]]
        errors = errors + np.asarray(one.errors, np.float64)[choices[:, number]]
    # Rounding may leave an edge that adds nothing.
    least = np.minimum.accumulate(errors)
    stays = np.append(True, (errors[1:] < least[:-1]) & (costs[1:] > costs[:-1]))
    return Frontier(costs[stays], errors[stays], choices[stays])


def bound(points: Frontier, budget: float) -> float:
    """No choice within the budget has a smaller error than this: the hull at the budget.

    `points` is what `hull` gave.  Raises InfeasibleError where the budget is below the least cost.
    """
    points.pick(budget)
    return float(np.interp(budget, points.costs.astype(np.float64), points.errors))
