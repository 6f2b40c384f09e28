"""The allocation problem as arrays: a knapsack of nested choices with makespans.  What solvers and bounds share.

A *variable* is chosen (1) or not (0).  There are two kinds:

* a branch: the format of a group of activations.  Of the branches of one group exactly one is chosen.
* an option: what the filters of an op have (formats and how many filters of each).  An item is an op under one branch;
  exactly one of its options is chosen if that branch is, none otherwise.

Every variable has a penalty (predicted loss), amounts of additive resources, and loads: work for the units of a stage.
A stage lasts as long as its busiest unit plus an offset; the latency is the sum over stages.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Knapsack:
    """V variables, R resources, rows of loads (one per stage and unit), S stages.

    `group[v]`: number of the choice that variable v belongs to; exactly one of a group's variables is chosen, or none
    when the group's branch is not.  `parent[v]`: the branch variable under which v may be chosen, -1 for none
    (branches, and options of ops that read no group); all variables of a group have one parent.  `penalty` [V],
    `resources` [V, R] named by `names`, `loads` [V, rows] in cycles.  `stage[row]` is the stage of a row,
    `offset_cycles` [S] what a stage lasts beyond its busiest unit (may be negative).  `constant` [R] is what every plan
    needs of a resource, `constant_penalty` what every plan loses.  Energy is the resource "energy_pj" +
    `static_pj_per_cycle` × latency.
    """

    group: Ints
    parent: Ints
    penalty: Floats
    resources: Floats
    names: tuple[str, ...]
    loads: csr_array
    stage: Ints
    offset_cycles: Floats
    constant: Floats
    static_pj_per_cycle: float = 0.0
    constant_penalty: float = 0.0

    @property
    def size(self) -> int:
        """Number of variables."""
        return len(self.penalty)

    def totals(self, chosen: Ints) -> dict[str, float]:
        """Penalty, latency_cycles, every resource, energy_pj with static energy, edp (pJ × cycles) of chosen variables.

        `chosen` are the numbers of the chosen variables.
        """
        amounts = self.constant + self.resources[chosen].sum(axis=0)
        rows = np.asarray(self.loads[chosen].sum(axis=0), np.float64).ravel()
        busiest = np.zeros(len(self.offset_cycles))
        np.maximum.at(busiest, self.stage, rows)
        latency = float((busiest + self.offset_cycles).sum())
        found = {name: float(amount) for name, amount in zip(self.names, amounts, strict=True)}
        found["penalty"] = self.constant_penalty + float(self.penalty[chosen].sum())
        found["latency_cycles"] = latency
        if "energy_pj" in found:
            found["energy_pj"] += self.static_pj_per_cycle * latency
            found["edp"] = found["energy_pj"] * latency
        return found

    def is_complete(self, chosen: Ints) -> bool:
        """True when every group that must choose has exactly one chosen variable and no other has any."""
        taken = np.zeros(self.size, np.bool_)
        taken[chosen] = True
        groups = int(self.group.max()) + 1 if self.size else 0
        count = np.bincount(self.group[taken], minlength=groups)
        needed = np.zeros(groups, np.int64)
        needed[self.group] = np.where(self.parent < 0, 1, taken[self.parent])
        return bool((count == needed).all()) and len(chosen) == int(taken.sum())
