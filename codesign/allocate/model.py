"""A knapsack prepared for solvers: variables sorted by group, the tree of groups, stages that need no makespan.

Two exact reformulations make relaxations tighter.  Loads of a branch move to the options of one of its items on the
same stage (exactly one of them is chosen if the branch is).  A stage on which at most one variable can be active lasts
as long as that variable's busiest unit: its latency is an amount of the variable, and its rows disappear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csr_array

from accelsim.problems import AccelsimError, Problem
from codesign.allocate.goal import Flags, Floats, Goal, Ints, Limits
from codesign.allocate.problem import Knapsack

LATENCY = 1  # column of the totals; the penalty is column 0


@dataclass(frozen=True, eq=False)
class Model:
    """`problem` with V sorted variables, G groups, M totals (penalty, latency_cycles, resources), S shared stages.

    Variable v of the model is `order[v]` of the problem.  Group g has the variables start[g]..start[g + 1] - 1 and
    hangs under variable `parent[g]` (-1: none), `levels` are the groups by depth, roots first.  A plan's totals are
    constant + sum of `linear` [V, M] + `per_cycle` [M] × sum of the makespans of the shared stages; a makespan is the
    largest of 0 and its `loads` [V, rows]; `stage` [rows] is rising.
    """

    problem: Knapsack
    order: Ints
    group: Ints
    start: Ints
    parent: Ints
    levels: tuple[Ints, ...]
    names: tuple[str, ...]
    linear: Floats
    per_cycle: Floats
    constant: Floats
    loads: csr_array
    stage: Ints
    stages: int

    @property
    def size(self) -> int:
        """Number of variables."""
        return len(self.order)

    @property
    def groups(self) -> int:
        """Number of groups."""
        return len(self.parent)

    def column(self, name: str) -> int:
        """Position of a total (M for edp).  Raises AccelsimError for a name that the problem does not have."""
        known = (*self.names, *(("edp",) if "energy_pj" in self.names else ()))
        if name not in known:
            raise AccelsimError(Problem("allocation", f"no total {name!r}", expected=f"one of {', '.join(known)}"))
        return known.index(name)

    def goal(self, objective: str, limits: Limits) -> Goal:
        """Objective and limits as arrays."""
        wanted = limits.all()
        if any(np.isnan(value) for value in wanted.values()):
            raise AccelsimError(Problem("allocation", f"limits {wanted}", "numbers"))
        rows = np.zeros((len(wanted), len(self.names) + 1))
        for place, name in enumerate(wanted):
            rows[place, self.column(name)] = 1.0
        weights = np.zeros(len(self.names) + 1)
        weights[self.column(objective)] = 1.0
        return Goal(weights, rows, np.array(list(wanted.values()), np.float64))

    def chosen(self, pick: Ints) -> Ints:
        """Variables of the problem that are chosen, rising, when every group that must choose takes `pick` [G]."""
        found: Ints = np.sort(self.order[pick[self.active(pick)]])
        return found

    def active(self, pick: Ints) -> Flags:
        """Which groups must choose [G]."""
        on = np.ones(self.groups, np.bool_)
        for level in self.levels[1:]:
            above = self.parent[level]
            upper = self.group[above]
            on[level] = on[upper] & (pick[upper] == above)
        return on

    def cheapest(self, costs: Floats) -> tuple[float, Floats, Floats]:
        """Least sum of costs [V] over all plans; the least of every group [G]; costs with what hangs below [V]."""
        full = costs.copy()
        least = np.zeros(self.groups)
        for level in self.levels[::-1]:
            least[level] = np.minimum.reduceat(full, self.start[:-1])[level]
            below = level[self.parent[level] >= 0]
            np.add.at(full, self.parent[below], least[below])
        return float(least[self.levels[0]].sum()) if self.levels else 0.0, least, full

    def first_at(self, full: Floats, least: Floats) -> Ints:
        """The first variable of every group whose cost is the least [G]."""
        hits = np.flatnonzero(full <= least[self.group])
        found: Ints = hits[np.searchsorted(self.group[hits], np.arange(self.groups))]
        return found


def prepare(problem: Knapsack) -> Model:
    """The model of a problem.  Raises AccelsimError when the groups are no forest or an amount is not finite."""
    amounts = (problem.penalty, problem.resources, problem.loads.data, problem.offset_cycles, problem.constant)
    if not problem.size or not all(np.isfinite(part).all() for part in amounts):
        raise AccelsimError(Problem("allocation", "no variables, or an amount that is not finite", "finite amounts"))
    order = np.argsort(problem.group, kind="stable")
    _, first, group = np.unique(problem.group[order], return_index=True, return_inverse=True)
    place = np.empty(problem.size, np.int64)
    place[order] = np.arange(problem.size)
    above = problem.parent[order]
    parent_of = np.where(above >= 0, place[above], -1) if problem.size else above
    parent = parent_of[first]
    if (parent_of != parent[group]).any():
        raise AccelsimError(Problem("allocation", "variables of one group have several parents", "one parent"))
    levels = _levels(parent, group)
    loads, stage, latency, shared = _stages(problem, order, group, parent, levels)
    linear = np.column_stack((problem.penalty[order], latency, problem.resources[order]))
    per_cycle = np.zeros(2 + len(problem.names))
    per_cycle[LATENCY] = 1.0
    offset = float(problem.offset_cycles.sum())
    constant = np.concatenate(((problem.constant_penalty, offset), problem.constant))
    if "energy_pj" in problem.names:
        energy = 2 + problem.names.index("energy_pj")
        per_cycle[energy] = problem.static_pj_per_cycle
        linear[:, energy] += problem.static_pj_per_cycle * latency
        constant[energy] += problem.static_pj_per_cycle * offset
    start = np.append(first, problem.size).astype(np.int64)
    names_all = ("penalty", "latency_cycles", *problem.names)
    return Model(
        problem, order, group, start, parent, levels, names_all, linear, per_cycle, constant, loads, stage, shared
    )


def _levels(parent: Ints, group: Ints) -> tuple[Ints, ...]:
    """Groups by depth, roots first."""
    depth = np.zeros(len(parent), np.int64)
    hanging = np.flatnonzero(parent >= 0)
    for _ in range(len(parent) + 1):
        deeper = depth[group[parent[hanging]]] + 1
        if (deeper == depth[hanging]).all():
            top = int(depth.max()) if len(depth) else -1
            return tuple(np.flatnonzero(depth == level) for level in range(top + 1))
        depth[hanging] = deeper
    raise AccelsimError(Problem("allocation", "a group hangs under itself", "a forest of groups"))


def _stages(
    problem: Knapsack, order: Ints, group: Ints, parent: Ints, levels: tuple[Ints, ...]
) -> tuple[csr_array, Ints, Floats, int]:
    """Loads and stages of the rows that stay, the latency of every variable by itself, number of shared stages."""
    loads = _fold(problem.loads[order], problem.stage, group, parent, levels)
    entries = loads.tocoo()
    of_stage = problem.stage[entries.col]
    single = _exclusive(group[entries.row], of_stage, group, parent, len(problem.offset_cycles))
    alone = single[of_stage]
    longest = np.zeros(problem.size)
    keys = entries.row[alone].astype(np.int64) * len(single) + of_stage[alone]
    pairs, inverse = np.unique(keys, return_inverse=True)
    busiest = np.zeros(len(pairs))
    np.maximum.at(busiest, inverse, entries.data[alone])
    np.add.at(longest, pairs // max(len(single), 1), busiest)
    kept_rows = np.flatnonzero(~single[problem.stage])
    kept_rows = kept_rows[np.argsort(problem.stage[kept_rows], kind="stable")]
    stages, stage = np.unique(problem.stage[kept_rows], return_inverse=True)
    return loads[:, kept_rows].tocsr(), stage.astype(np.int64), longest, len(stages)


def _fold(loads: csr_array, stage: Ints, group: Ints, parent: Ints, levels: tuple[Ints, ...]) -> csr_array:
    """Loads of branches, moved to the options of the first item below that works on the same stage, if any."""
    stages = int(stage.max()) + 1 if len(stage) else 0
    for level in levels[:-1]:
        entries = loads.tocoo()
        touched = np.unique(group[entries.row].astype(np.int64) * stages + stage[entries.col])
        touched = touched[parent[touched // stages] >= 0]
        keys, first = np.unique(parent[touched // stages] * stages + touched % stages, return_index=True)
        below = touched[first] // stages
        wanted = entries.row.astype(np.int64) * stages + stage[entries.col]
        spot = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
        moves = np.isin(group[entries.row], level) & np.isin(wanted, keys)
        if not moves.any():
            continue
        bounds = np.searchsorted(group, np.arange(len(parent) + 1))
        target = below[spot[moves]]
        sizes = bounds[target + 1] - bounds[target]
        ends = np.cumsum(sizes)
        rows = np.arange(ends[-1]) - np.repeat(ends - sizes, sizes) + np.repeat(bounds[target], sizes)
        data = np.concatenate((entries.data[~moves], np.repeat(entries.data[moves], sizes)))
        row = np.concatenate((entries.row[~moves], rows))
        col = np.concatenate((entries.col[~moves], np.repeat(entries.col[moves], sizes)))
        loads = coo_array((data, (row, col)), shape=loads.shape).tocsr()
    return loads


def _exclusive(of_group: Ints, of_stage: Ints, group: Ints, parent: Ints, stages: int) -> Flags:
    """Stages [S] on which at most one variable is active in any plan."""
    if not len(of_group):
        return np.ones(stages, np.bool_)
    pairs = np.unique(of_stage.astype(np.int64) * len(parent) + of_group)
    at, who = pairs // len(parent), pairs % len(parent)
    above = parent[who]
    # Groups below different branches of one group exclude each other.
    root = np.where(above >= 0, group[above], -1 - who)
    low, high = np.full(stages, len(parent)), np.full(stages, -len(parent) - 1)
    np.minimum.at(low, at, root)
    np.maximum.at(high, at, root)
    branches = np.unique(at * (len(group) + 1) + np.where(above >= 0, above, len(group)))
    distinct = np.bincount(branches // (len(group) + 1), minlength=stages)
    result: Flags = (low >= high) & (distinct == np.bincount(at, minlength=stages))
    return result
