"""Pareto fronts: which designs are not beaten, where the front bends, how much it covers.  All objectives are costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def pareto_front(points: Floats) -> Mask:
    """Mask of the rows of `points` [n, k] that no other row dominates; every column is minimised.

    A row dominates another when it is nowhere larger and somewhere smaller, so equal rows keep each other: ties stay.
    Raises ValueError when `points` is not a table or holds a NaN.
    """
    values = _table(points)
    mask = np.zeros(len(values), dtype=bool)
    # In lexicographic order a row can only be dominated by an earlier one, so each row meets the kept rows only.
    order = np.lexsort(values.T[::-1])
    if values.shape[1] == 2:
        mask[order] = _front_of_sorted_pairs(values[order])
        return mask
    kept: list[int] = []
    for row in order:
        others = values[kept]
        beaten = np.all(others <= values[row], axis=1) & np.any(others < values[row], axis=1)
        if not beaten.any():
            kept.append(int(row))
    mask[kept] = True
    return mask


def _front_of_sorted_pairs(pairs: Floats) -> Mask:
    """Front of lexicographically sorted pairs: the second value is below all before it, or the pair is a tie."""
    best = np.inf
    front: list[bool] = []
    last: Floats | None = None
    for pair in pairs:
        tie = last is not None and bool(np.array_equal(pair, last))
        on_front = tie or last is None or bool(pair[1] < best)
        if on_front:
            best, last = float(pair[1]), pair
        front.append(on_front)
    return np.array(front, dtype=bool)


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


def hypervolume_2d(points: Floats, reference: tuple[float, float]) -> float:
    """Area between `points` [n, 2] and `reference`, the corner that every counted point must beat in both objectives.

    The unit is the product of the two columns' units.  Points that do not beat the reference add nothing.  Raises
    ValueError for another number of objectives or a NaN.
    """
    values = _table(points)
    if values.shape[1] != 2:
        raise ValueError(f"hypervolume_2d needs two objectives, got {values.shape[1]}")
    inside = values[(values[:, 0] < reference[0]) & (values[:, 1] < reference[1])]
    if not len(inside):
        return 0.0
    front = np.unique(inside[pareto_front(inside)], axis=0)
    right = np.append(front[1:, 0], reference[0])
    return float(np.sum((right - front[:, 0]) * (reference[1] - front[:, 1])))


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


def best_edp_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Per workload, the designs of least EDP under both energy conventions, and whether the winner flips."""
    lines = []
    priced = [row for row in rows if row.get("edp_pj_s") is not None]
    for workload in dict.fromkeys((row["model"], row["resolution"]) for row in priced):
        own = [row for row in priced if (row["model"], row["resolution"]) == workload]
        winners = [min(own, key=lambda row: float(row[name])) for name in ("edp_pj_s", "edp_pj_s_synthesized")]
        texts = [
            f"design {row['point']} ({row['arch']}, {row['plan']}, {float(row['latency_s']) * 1e3:.3f} ms)"
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
