"""The hardware-aware map under an EDP budget, whose costs do not add up, against every map there is."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np

from codesign.budgets import Budget
from codesign.nonlinear.choose import choose_within
from codesign.nonlinear.price import MapCost
from quant.methods.mnq import WITH_TABLE
from quant.nonlinear.assign import of_candidates
from quant.nonlinear.sqnr import Slot, SqnrTable

SLOTS = (
    Slot("n1", "layernorm"),
    Slot("s", "softmax"),
    Slot("n2", "layernorm"),
    Slot("g", "gelu"),
    Slot("n", "layernorm"),
)
METHODS = ("ibert", "ivit", "fqvit")
MAPS = [
    dict(zip((slot.op for slot in SLOTS), names, strict=True))
    for names in product(*(WITH_TABLE[slot.function] for slot in SLOTS))
]


class Problem:
    """Random differences, and cycles and energy of every slot and method beside what the rest of a network costs."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        differences = rng.uniform(-2, 12, (len(SLOTS), len(METHODS)))
        self.table = SqnrTable(SLOTS, METHODS, differences, np.zeros_like(differences), 1)
        self.cycles = {slot.op: dict(zip((*METHODS, "table"), rng.integers(1, 70, 4), strict=True)) for slot in SLOTS}
        self.energy = {slot.op: dict(zip((*METHODS, "table"), rng.uniform(1, 20, 4), strict=True)) for slot in SLOTS}
        self.rest = int(rng.integers(0, 200)), float(rng.uniform(0, 60))
        least, most = (pick(self.edp(one) for one in MAPS) for pick in (min, max))
        self.budget = Budget("edp_pj_s", least + rng.uniform(0.05, 0.6) * (most - least))

    def price(self, chosen: Mapping[str, str]) -> MapCost:
        cycles = self.rest[0] + sum(int(self.cycles[op][name]) for op, name in chosen.items())
        energy = self.rest[1] + sum(float(self.energy[op][name]) for op, name in chosen.items())
        return MapCost(cycles, energy, energy * cycles / 1e6, 1_000_000, float(cycles), energy)

    def edp(self, chosen: Mapping[str, str]) -> float:
        return self.price(chosen).edp_pj_s

    def penalty(self, chosen: Mapping[str, str]) -> float:
        values = self.table.difference_db
        return sum(of_candidates(self.table, values, k, WITH_TABLE)[chosen[slot.op]] for k, slot in enumerate(SLOTS))

    def best(self) -> float:
        return min(self.penalty(one) for one in MAPS if self.edp(one) <= self.budget.value)


def test_an_edp_budget_is_kept_and_the_best_map_is_nearly_always_found() -> None:
    missed = []
    for seed in range(30, 70):
        one = Problem(seed)
        chosen, cost = choose_within(one.table, one.price, one.budget, WITH_TABLE)
        assert cost.edp_pj_s == one.edp(chosen) <= one.budget.value
        best = one.best()
        assert one.penalty(chosen) >= best - 1e-9
        if one.penalty(chosen) > best + 1e-9:
            missed.append(seed)
    assert len(missed) <= 1
