"""What is asked of an allocation (objective and limits), and what comes back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

# What the rounding of a sum may add to a limit, relative: a plan's own totals as limits let that plan through.
LIMIT_ROUNDING = 1e-9
# A difference that is none, in nats, cycles, pJ or bits: a penalty of 0 is proven to be the least to rounding only.
NOTHING = 1e-9


@dataclass(frozen=True, init=False)
class Limits:
    """Upper limits of a plan: penalty in nats, latency in cycles, EDP in pJ × cycles, resources by their names.

    `Limits(penalty=0.05, energy_pj=1e9, size_bits=8e6)`.  None or inf: no limit.  Energy is dynamic and static energy.
    """

    penalty: float | None
    latency_cycles: float | None
    edp: float | None
    resources: tuple[tuple[str, float], ...]

    def __init__(
        self,
        penalty: float | None = None,
        latency_cycles: float | None = None,
        edp: float | None = None,
        **resources: float | None,
    ) -> None:
        given = tuple(sorted((name, value) for name, value in resources.items() if value is not None))
        for name, value in (
            ("penalty", penalty),
            ("latency_cycles", latency_cycles),
            ("edp", edp),
            ("resources", given),
        ):
            object.__setattr__(self, name, value)

    def linear(self) -> dict[str, float]:
        """Every limit but that of EDP, by the name of what is limited."""
        found = {"penalty": self.penalty, "latency_cycles": self.latency_cycles, **dict(self.resources)}
        return {name: float(value) for name, value in found.items() if value is not None and value != math.inf}

    def all(self) -> dict[str, float]:
        """Every limit by the name of what is limited, EDP last."""
        found = self.linear()
        if self.edp is not None and self.edp != math.inf:
            found["edp"] = float(self.edp)
        return found


@dataclass(frozen=True, eq=False)
class Solution:
    """A plan within the limits, and how far from the best it can be.

    `chosen`: numbers of the chosen variables, rising.  `totals`: as `Knapsack.totals`.  No plan within the limits has
    less of `objective` than `bound`; `gap` is (value - bound) / |value|.  `seconds` is wall-clock time.
    """

    chosen: Ints
    totals: Mapping[str, float]
    objective: str
    value: float
    bound: float
    gap: float
    seconds: float
    method: str


def relative_gap(value: float, bound: float) -> float:
    """(value - bound) / |value|, 0 below NOTHING; infinite where the value is 0 and the bound is well below it."""
    difference = value - bound
    if difference <= NOTHING:
        return 0.0
    return difference / abs(value) if value else math.inf


@dataclass(frozen=True, eq=False)
class Goal:
    """Objective and limits as numbers over totals: minimise totals @ weights with rows @ totals <= rhs.

    `weights` [M + 1], `rows` [L, M + 1], `rhs` [L]: M linear totals in the order of `Model.names`, then EDP.
    """

    weights: Floats
    rows: Floats
    rhs: Floats

    @property
    def linear(self) -> bool:
        """True when neither objective nor limits speak of EDP."""
        return not self.weights[-1] and not self.rows[:, -1].any()

    def with_row(self, row: Floats, rhs: float) -> Goal:
        """With one more limit."""
        return Goal(self.weights, np.vstack((self.rows, row)), np.append(self.rhs, rhs))

    def without_edp(self) -> Goal:
        """Without the limits that speak of EDP."""
        kept = self.rows[:, -1] == 0
        return Goal(self.weights, self.rows[kept], self.rhs[kept])

    def minimising(self, weights: Floats) -> Goal:
        """The same limits, another objective."""
        return Goal(weights, self.rows, self.rhs)

    def excess(self, totals: Floats) -> Floats:
        """By how much totals [..., M + 1] break the limits, relative to each limit, summed; 0 when none is broken."""
        if not len(self.rhs):
            return np.zeros(totals.shape[:-1])
        over = totals @ self.rows.T - self.rhs
        scale = np.maximum(np.abs(self.rhs), NOTHING)
        result: Floats = (np.maximum(over - LIMIT_ROUNDING * scale, 0.0) / scale).sum(axis=-1)
        return result
