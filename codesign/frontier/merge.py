"""The exact frontier of sums: one option of every group, all choices that are best for what they cost.

The frontier of the first groups grows by one group at a time: every point is joined with every option of the next
group, and of these sums those stay that no other one dominates (PMQ, arXiv 2305.06559, names a Pareto frontier; that
it is made this way, as in HAWQ-V2, arXiv 1911.03852, is an interpretation).

Binning.  Where a frontier has more than `bins` points, its range of costs is cut into `bins` equal bins and of each
bin the point of least error stays (it is the dearest of the bin, and is kept with its exact cost and error).  Let w_i
be the largest cost by which a point that stayed exceeds one that its bin lost at merge i; w_i is at most the width of
a bin.  Then for every choice of cost c and error e the result has a point of cost at most c + Σ w_i and error at most
e.  Proof: true before the first merge.  Let q stand for the choice p of the first groups; with the same option added to
both, q + o has no larger error than p + o and is dearer by no more than q was.  What dominates q + o is no dearer and
no worse; what stays of its bin is no worse and dearer by at most w_i.  Hence the pick at a budget B is at least as good
as the exact one at B - Σ w_i.  The sum is the frontier's `slack`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.problems import AccelsimError, InfeasibleError, Problem

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Costs = NDArray[Any]  # int64 where all costs are integers, else float64
PLACE = "frontier budget"  # where an error of a budget says that it is
MOST_POINTS = 2_000_000  # of a merge without bins


@dataclass(frozen=True, eq=False)
class Group:
    """Options of which one is chosen: errors [K], finite, and costs [K]; an option of infinite cost cannot be had."""

    errors: Floats
    costs: Costs


@dataclass(frozen=True, eq=False)
class Frontier:
    """Points in order of cost, strictly rising, with strictly falling errors [P]; `choices` [P, G] are their options.

    For every choice there is a point that is no worse and dearer by at most `slack` (0: the frontier is exact).
    """

    costs: Costs
    errors: Floats
    choices: Ints
    slack: float = 0.0

    def __len__(self) -> int:
        return len(self.costs)

    def pick(self, budget: float) -> int:
        """The point of least error whose cost is at most the budget.  Raises InfeasibleError where none is."""
        found = int(np.searchsorted(self.costs, budget, side="right")) - 1
        if found < 0:
            what, levers = f"the least cost is {self.costs[0]:.6g}", ("a larger budget", "more narrow widths")
            raise InfeasibleError(Problem(PLACE, what, f"at most {budget:.6g}", levers))
        return found


def monotone(errors: Floats) -> Floats:
    """Errors [K] of one component's widths, descending, made to rise: no width is better than a wider one."""
    return np.maximum.accumulate(np.asarray(errors, np.float64))


def able_groups(groups: Sequence[Group]) -> list[tuple[Floats, Costs, Ints]]:
    """Errors, costs and numbers of every group's options that can be had; integer costs only where all are integers.

    Raises AccelsimError without groups, for other shapes, for errors that are not finite and groups without options.
    """
    whole = all(np.issubdtype(np.asarray(one.costs).dtype, np.integer) for one in groups)
    found, problems = [], []
    for number, one in enumerate(groups):
        errors = np.asarray(one.errors, np.float64)
        costs = np.asarray(one.costs, np.int64 if whole else np.float64)
        where = f"frontier: group {number}"
        if errors.ndim != 1 or errors.shape != costs.shape:
            problems.append(Problem(where, f"has errors {errors.shape} and costs {costs.shape}", "one of each, [K]"))
            continue
        able = np.flatnonzero(np.isfinite(costs))
        if not len(able) or not np.isfinite(errors[able]).all():
            problems.append(Problem(where, "has no option, or errors that are not finite", "finite numbers"))
        found.append((errors[able], costs[able], able))
    if not groups:
        problems.append(Problem("frontier", "has no groups", "at least one component with widths"))
    if problems:
        raise AccelsimError(problems)
    return found


def merge(groups: Sequence[Group], bins: int | None = None) -> Frontier:
    """The frontier of all sums of one option of every group: exact, or with `bins` within `Frontier.slack`.

    O(G · K · P) numbers for P points (at most `bins` + 1).  Sums are formed in the order of the groups; of equal points
    the first one found stays.  Raises AccelsimError for fewer than two bins, for what `able_groups` refuses, and for
    more than `MOST_POINTS` points without bins.
    """
    if bins is not None and bins < 2:
        raise AccelsimError(Problem("frontier bins", f"found {bins}", "at least 2, or none for the exact frontier"))
    options = able_groups(groups)
    costs, errors = np.zeros(1, options[0][1].dtype), np.zeros(1)
    trace: list[tuple[Ints, Ints]] = []
    slack = 0.0
    for more_errors, more_costs, numbers in options:
        sums = (costs[:, None] + more_costs).ravel(), (errors[:, None] + more_errors).ravel()
        kept = _undominated(*sums)
        if bins is not None and len(kept) > bins:
            kept, lost = _binned(sums[0], kept, bins)
            slack += lost
        elif len(kept) > MOST_POINTS:
            what = f"has more than {MOST_POINTS:,} points"
            raise AccelsimError(Problem("frontier", what, "fewer, or bins", ("bins=100000", "the convex hull")))
        trace.append((kept // len(numbers), numbers[kept % len(numbers)]))
        costs, errors = sums[0][kept], sums[1][kept]
    return Frontier(costs, errors, _choices(trace), slack)


def _undominated(costs: Costs, errors: Floats) -> Ints:
    """Numbers of the points that none dominates, cheapest first; the first of equal ones."""
    order = np.lexsort((errors, costs))
    least = np.minimum.accumulate(errors[order])
    stays = np.append(True, errors[order][1:] < least[:-1])
    result: Ints = order[stays]
    return result


def _binned(costs: Costs, kept: Ints, bins: int) -> tuple[Ints, float]:
    """Of frontier points (numbers, cheapest first) the last one of every bin, and the most that one lost is cheaper.

    The cheapest point stays too: it decides whether a budget can be met.
    """
    values = costs[kept].astype(np.float64)
    place = np.minimum(((values - values[0]) * (bins / (values[-1] - values[0]))).astype(np.int64), bins - 1)
    last = np.flatnonzero(np.append(place[1:] != place[:-1], True))
    stands_in = values[last][np.searchsorted(last, np.arange(len(kept)))]
    lost = float((stands_in - values)[1:].max())
    return kept[np.union1d([0], last)], lost


def _choices(trace: Sequence[tuple[Ints, Ints]]) -> Ints:
    """Options [P, G] of the last frontier's points, from every merge's (point before, option) of its points."""
    here = np.arange(len(trace[-1][0]))
    found = np.empty((len(here), len(trace)), np.int64)
    for number in range(len(trace) - 1, -1, -1):
        before, option = trace[number]
        found[:, number] = option[here]
        here = before[here]
    return found
