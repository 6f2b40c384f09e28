"""Places for a few labels of a picture, so that they hide neither each other nor the points: geometry in pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
OUTSIDE = 1e4
HIDDEN = 1e3
CROSSED = 1e2
RADII = (36.0, 52.0, 70.0, 95.0, 125.0, 160.0)
DIRECTIONS = 16
MAX_LABELS = 5


@dataclass(frozen=True)
class Box:
    """An upright rectangle."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlaps(self, other: Box) -> bool:
        """True when the two share an area."""
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1

    def holds(self, points: Floats) -> NDArray[np.bool_]:
        """Which of `points` [n, 2] lie inside."""
        x, y = points[:, 0], points[:, 1]
        return (x > self.x0) & (x < self.x1) & (y > self.y0) & (y < self.y1)


@dataclass(frozen=True)
class _Place:
    """A candidate: centre and box of a label, points along the line to its anchor, and its cost on its own."""

    centre: tuple[float, float]
    box: Box
    leader: Floats
    cost: float


def place_labels(
    anchors: Floats,
    sizes: Floats,
    inside: Box,
    obstacles: Sequence[Box],
    points: Floats,
    weights: Floats,
    scale: float = 1.0,
) -> list[tuple[float, float]]:
    """Centres of labels of `sizes` [n, 2] for `anchors` [n, 2].

    Every order of placing the labels greedily is tried and the cheapest kept.  It costs most to leave `inside`, then to
    overlap a label or an obstacle, then lines that cross; then to cover `points` (by their weights) and distance.
    `scale` is pixels per point.  Raises ValueError for more than five labels (the orders are too many).
    """
    if len(anchors) > MAX_LABELS:
        raise ValueError(f"at most {MAX_LABELS} labels, got {len(anchors)}")
    choices = [
        _choices(anchor, size, inside, obstacles, points, weights, scale)
        for anchor, size in zip(anchors, sizes, strict=True)
    ]
    best: dict[int, _Place] = {}
    best_cost = math.inf
    for order in permutations(range(len(anchors))):
        placed: dict[int, _Place] = {}
        total = 0.0
        for label in order:
            costs = [place.cost + sum(_conflict(place, other) for other in placed.values()) for place in choices[label]]
            cheapest = int(np.argmin(costs))
            placed[label] = choices[label][cheapest]
            total += costs[cheapest]
        if total < best_cost:
            best, best_cost = placed, total
    return [best[label].centre for label in range(len(anchors))]


def _choices(
    anchor: Floats,
    size: Floats,
    inside: Box,
    obstacles: Sequence[Box],
    points: Floats,
    weights: Floats,
    scale: float,
) -> list[_Place]:
    places = []
    steps = np.linspace(0.05, 1.0, 20)[:, None]
    for radius in RADII:
        for direction in range(DIRECTIONS):
            angle = math.tau * direction / DIRECTIONS
            # Labels are wide and low, so the ring around the anchor is too.
            x = float(anchor[0]) + 1.5 * radius * scale * math.cos(angle)
            y = float(anchor[1]) + radius * scale * math.sin(angle)
            box = Box(x - size[0] / 2, y - size[1] / 2, x + size[0] / 2, y + size[1] / 2)
            leader = anchor + steps * (np.array([x, y]) - anchor)
            leaves = box.x0 < inside.x0 or box.x1 > inside.x1 or box.y0 < inside.y0 or box.y1 > inside.y1
            cost = OUTSIDE * leaves + HIDDEN * sum(box.overlaps(other) for other in obstacles)
            cost += float(weights[box.holds(points)].sum()) + radius / 10
            places.append(_Place((x, y), box, leader, cost))
    return places


def _conflict(one: _Place, other: _Place) -> float:
    if one.box.overlaps(other.box):
        return HIDDEN
    crossed = one.box.holds(other.leader).any() or other.box.holds(one.leader).any() or _cross(one.leader, other.leader)
    return CROSSED if crossed else 0.0


def _cross(one: Floats, other: Floats) -> bool:
    """True when the straight lines from first to last point cut each other."""

    def side(a: Floats, b: Floats, c: Floats) -> float:
        return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))

    a, b, c, d = one[0], one[-1], other[0], other[-1]
    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0
