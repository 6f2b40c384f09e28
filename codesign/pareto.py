"""Pareto fronts: which designs are not beaten, where the front bends, how much it covers.  All objectives are costs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def pareto_front(points: Floats) -> Mask:
    """Mask of the rows of `points` [n, k] that no other row dominates; every column is minimised.

    A row dominates another when it is nowhere larger and somewhere smaller, so equal rows keep each other: ties stay.
    Two and three columns take O(n log n) steps (Kung et al. 1975), other numbers of columns O(n · front).  Raises
    ValueError when `points` is not a table or holds a NaN.
    """
    values = _table(points)
    mask = np.zeros(len(values), dtype=bool)
    if not len(values):
        return mask
    # In lexicographic order a row can only be dominated by an earlier one, and equal rows are neighbours.
    order = np.lexsort(values.T[::-1])
    ordered = values[order]
    is_new = np.append(True, np.any(ordered[1:] != ordered[:-1], axis=1))
    distinct = ordered[is_new]
    find = {2: _front_of_pairs, 3: _front_of_triples}.get(values.shape[1], _front_of_rows)
    mask[order] = find(distinct)[np.cumsum(is_new) - 1]
    return mask


def _front_of_pairs(pairs: Floats) -> Mask:
    """Front of distinct pairs in lexicographic order: the second value is below all before it."""
    lowest = np.minimum.accumulate(pairs[:, 1])
    return np.append(True, pairs[1:, 1] < lowest[:-1])


def _front_of_triples(triples: Floats) -> Mask:
    """Front of distinct triples in lexicographic order, with the staircase of the last two values seen so far."""
    front = np.zeros(len(triples), dtype=bool)
    seconds: list[float] = []  # ascending
    thirds: list[float] = []  # descending: the least third value among rows whose second value is not larger
    for row, (second, third) in enumerate(triples[:, 1:].tolist()):
        place = bisect_right(seconds, second)
        if place and thirds[place - 1] <= third:
            continue
        front[row] = True
        first = place - 1 if place and seconds[place - 1] == second else place
        last = place
        while last < len(thirds) and thirds[last] >= third:
            last += 1
        seconds[first:last], thirds[first:last] = [second], [third]
    return front


def _front_of_rows(rows: Floats) -> Mask:
    """Front of distinct rows in lexicographic order: each row meets the kept rows only."""
    front = np.zeros(len(rows), dtype=bool)
    for row, values in enumerate(rows):
        front[row] = not np.all(rows[:row][front[:row]] <= values, axis=1).any()
    return front


def knee(front: Floats) -> int:
    """Row of a two-objective `front` [n, 2] that bends most.

    Both objectives are scaled to 0 … 1 between the front's extremes; the knee is the row furthest below the chord that
    joins them (Branke et al. 2004 discuss knees; this is the plain chord rule).  The first row wins ties, and a front
    without a bend returns its first row.  Raises ValueError for an empty front or another number of objectives.
    """
    values = _table(front)
    if not len(values) or values.shape[1] != 2:
        raise ValueError(f"a knee needs at least one row of two objectives, got shape {values.shape}")
    low = values.min(axis=0)
    span = values.max(axis=0) - low
    scaled = (values - low) / np.where(span > 0, span, 1.0)
    below_chord = 1.0 - scaled.sum(axis=1)
    return int(np.argmax(below_chord))


def front_mask(rows: Sequence[Mapping[str, Any]], objectives: Sequence[str] = ("latency_s", "energy_pj")) -> list[bool]:
    """Which rows of a study are on the front of their own workload (model and resolution).

    Designs that run different networks do not compete.  Rows without numbers (infeasible designs) are not on a front.
    """
    groups: dict[tuple[Any, Any], list[int]] = {}
    for index, row in enumerate(rows):
        if all(row.get(objective) is not None for objective in objectives):
            groups.setdefault((row.get("model"), row.get("resolution")), []).append(index)
    mask = [False] * len(rows)
    for members in groups.values():
        table = np.array([[float(rows[index][name]) for name in objectives] for index in members])
        for index, on_front in zip(members, pareto_front(table), strict=True):
            mask[index] = bool(on_front)
    return mask


def kind_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """(arch, plan) of a design, and its mapper where the study names it."""
    return tuple(str(row.get(name)) for name in ("arch", "plan", "mapper") if name != "mapper" or row.get(name))


def best_edp_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Per workload, the designs of least EDP under both energy conventions, and whether the winner flips."""
    lines = []
    priced = [row for row in rows if row.get("edp_pj_s") is not None]
    for workload in dict.fromkeys((row["model"], row["resolution"]) for row in priced):
        own = [row for row in priced if (row["model"], row["resolution"]) == workload]
        winners = [min(own, key=lambda row: float(row[name])) for name in ("edp_pj_s", "edp_pj_s_synthesized")]
        texts = [
            f"design {row['point']} ({', '.join(kind_of(row))}, {float(row['latency_s']) * 1e3:.3f} ms)"
            for row in winners
        ]
        name = f"{workload[0]}" if workload[1] is None else f"{workload[0]} at {workload[1]}"
        if winners[0] is winners[1]:
            lines.append(f"{name}: least EDP: {texts[0]}, under both energy conventions")
        else:
            lines.append(f"{name}: least EDP: {texts[0]} (arithmetic), but {texts[1]} (synthesized): the winner flips")
    return lines


def _table(points: Floats) -> Floats:
    values = np.asarray(points, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] < 1:
        raise ValueError(f"expected a table of points [rows, objectives], got shape {values.shape}")
    if np.isnan(values).any():
        raise ValueError("points hold a NaN, which has no place in an order")
    return values
