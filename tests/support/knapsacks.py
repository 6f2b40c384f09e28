"""Random allocation problems and their answers by trying every plan."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.sparse import csr_array

from codesign.allocate.problem import Knapsack


def random_knapsack(rng, nested=True, integers=False, items=4, stages=3, units=2) -> Knapsack:
    """A small problem: two groups of activations, ops below and beside them, shared stages, offsets of either sign."""
    group, parent, stage_of = [], [], []
    groups = itertools.count()

    def choice(above, options, stage):
        number = next(groups)
        start = len(group)
        for _ in range(options):
            group.append(number)
            parent.append(above)
            stage_of.append(stage)
        return range(start, start + options)

    def item(above, depth=0):
        options = choice(above, int(rng.integers(1, 4)), int(rng.integers(stages)))
        if depth and rng.random() < 0.5:
            item(options[0], depth - 1)

    for _ in range(2 if nested else 0):
        branches = choice(-1, 2, int(rng.integers(stages)))
        below = int(rng.integers(1, 3))
        places = rng.integers(stages, size=below)
        for branch in branches:
            for place in places:
                choice(branch, int(rng.integers(1, 4)), int(place))
        if rng.random() < 0.3:
            item(branches[0], depth=1)
    for _ in range(items - 2 * nested):
        item(-1)
    return _filled(rng, np.array(group), np.array(parent), np.array(stage_of), integers, stages, units)


def _filled(rng, group, parent, stage_of, integers, stages, units) -> Knapsack:
    size = len(group)

    def amounts(*shape):
        return rng.integers(0, 6, shape).astype(np.float64) if integers else rng.gamma(1.0, 2.0, shape)

    loads = np.zeros((size, stages, units))
    loads[np.arange(size), stage_of] = amounts(size, units)
    elsewhere = rng.random(size) < 0.2
    loads[elsewhere, rng.integers(stages, size=size)[elsewhere]] += amounts(int(elsewhere.sum()), units)
    rows = rng.permutation(stages * units)
    # Variables are not given group by group.
    order = rng.permutation(size)
    place = np.argsort(order)
    return Knapsack(
        group=group[order],
        parent=np.where(parent[order] >= 0, place[parent[order]], -1),
        penalty=amounts(size) - (0.0 if integers else 0.5),
        resources=np.column_stack((amounts(size) + 1.0, amounts(size))),
        names=("energy_pj", "size_bits"),
        loads=csr_array(loads.reshape(size, -1)[order][:, rows]),
        stage=np.repeat(np.arange(stages), units)[rows],
        # Some negative; their sum is positive.
        offset_cycles=np.append(float(stages), rng.integers(-1, 2, stages - 1)),
        constant=np.array([3.0, 1.0]),
        static_pj_per_cycle=float(rng.choice([0.0, 0.4])),
        constant_penalty=float(rng.choice([0.0, 0.25])),
    )


def every_plan(problem: Knapsack) -> list[np.ndarray]:
    """All complete choices of a small problem."""
    members = {number: np.flatnonzero(problem.group == number) for number in np.unique(problem.group)}
    below: dict[int, list[int]] = {}
    for number, variables in members.items():
        below.setdefault(int(problem.parent[variables[0]]), []).append(number)

    def plans(above):
        parts = [
            [(int(variable), *rest) for variable in members[number] for rest in plans(int(variable))]
            for number in below.get(above, [])
        ]
        return [tuple(itertools.chain(*part)) for part in itertools.product(*parts)]

    return [np.array(sorted(plan), np.int64) for plan in plans(-1)]


def all_totals(problem: Knapsack) -> dict[str, np.ndarray]:
    """Totals of every plan, by name."""
    totals = [problem.totals(plan) for plan in every_plan(problem)]
    return {name: np.array([one[name] for one in totals]) for name in totals[0]}


def typical_knapsack(seed: int, ops: int = 24, options: int = 10, shared: float = 0.5) -> Knapsack:
    """What a network gives: groups of three ops, two activation formats each, four units, shifts beside multipliers.

    Option i of an op puts a rising share of its filters on the second unit, which costs penalty and saves energy and
    bits.  `shared` is the probability that an op is on the stage of the op before it.
    """
    rng = np.random.default_rng(seed)
    stage = np.cumsum(rng.random(ops) > shared)
    stage -= stage[0]
    units, stages = 4, int(stage[-1]) + 1
    share = np.linspace(0.0, 1.0, options)
    group, parent, penalty, resources, loads = [], [], [], [], []

    def choice(above, penalties, energy, bits, work, at):
        number = group[-1] + 1 if group else 0
        for option in range(len(penalties)):
            group.append(number)
            parent.append(above)
            penalty.append(penalties[option])
            resources.append((energy[option], bits[option]))
            row = np.zeros((stages, units))
            row[at] = work[option]
            loads.append(row.ravel())

    for start in range(0, ops, 3):
        first = len(group)
        choice(-1, (0.0, 10 ** rng.uniform(-4, -2)), (2e5, 1e5), (0.0, 0.0), np.zeros((2, units)), 0)
        for op in range(start, min(ops, start + 3)):
            macs, sensitivity = 10 ** rng.uniform(5.5, 7.5), 10 ** rng.uniform(-4, -1.5)
            bend, transfer = rng.uniform(1.5, 3), rng.uniform(0.5, 1.5)
            for branch in range(2):
                bits = macs / 50 * (8 - 4 * share)
                work = [np.ceil(macs * (1 - share) / 256), np.ceil(macs * share / 300), np.ceil(bits / 128 * transfer)]
                work.append(np.full(options, np.ceil(macs / 2000)))
                energy = macs * (1 - 0.55 * share) * 0.4 * (1 - 0.2 * branch)
                loss = sensitivity * share**bend * (1 + 0.3 * branch)
                choice(first + branch, loss, energy, bits, np.column_stack(work), stage[op])
    return Knapsack(
        np.array(group),
        np.array(parent),
        np.array(penalty),
        np.array(resources),
        ("energy_pj", "size_bits"),
        csr_array(np.array(loads)),
        np.repeat(np.arange(stages), units),
        rng.integers(-50, 200, stages).astype(np.float64),
        np.array([1e6, 0.0]),
        static_pj_per_cycle=50.0,
    )
