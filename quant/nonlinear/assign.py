"""Maps of methods: which method computes which non-linear layer, by a metric, by one name, or at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from quant.methods.mnq import CANDIDATES, INSTEAD
from quant.nonlinear.sqnr import Floats, Slot, SqnrTable

Candidates = Mapping[str, tuple[str, ...]]


def by_difference(table: SqnrTable, candidates: Candidates = CANDIDATES) -> dict[str, str]:
    """MNQ: every slot the candidate of the least SQNR difference (ties: the first).  Source: MNQ, its assignment."""
    return _least(table, table.difference_db, candidates)


def by_output(table: SqnrTable, candidates: Candidates = CANDIDATES) -> dict[str, str]:
    """The ablation: every slot the candidate of the highest SQNR of its output, whatever it inherits."""
    return _least(table, -table.outputs_db, candidates)


def _least(table: SqnrTable, values: Floats, candidates: Candidates) -> dict[str, str]:
    chosen = {}
    for k, slot in enumerate(table.slots):
        row = of_candidates(table, values, k, candidates)
        chosen[slot.op] = min(row, key=lambda name: row[name])
    return chosen


def of_candidates(table: SqnrTable, values: Floats, slot: int, candidates: Candidates) -> dict[str, float]:
    """Values [slots, methods] of the candidates of a slot; what stands in for a method has that method's column."""
    function = table.slots[slot].function
    column = {INSTEAD.get((function, name), name): k for k, name in enumerate(table.methods)}
    return {name: float(values[slot, column[name]]) for name in candidates[function]}


def single(slots: Sequence[Slot], method: str) -> dict[str, str]:
    """One method everywhere (FQ-ViT's GELU, a float function, from a table)."""
    return {slot.op: INSTEAD.get((slot.function, method), method) for slot in slots}


def random_maps(slots: Sequence[Slot], count: int, seed: int) -> list[dict[str, str]]:
    """`count` maps, every slot one of its candidates with equal chances, drawn by seed."""
    rng = np.random.default_rng(seed)
    return [
        {slot.op: CANDIDATES[slot.function][int(rng.integers(len(CANDIDATES[slot.function])))] for slot in slots}
        for _ in range(count)
    ]


def counts(slots: Sequence[Slot], chosen: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """How often a map uses each method, by function ("float": no method)."""
    found: dict[str, dict[str, int]] = {}
    for slot in slots:
        row = found.setdefault(slot.function, {})
        name = chosen.get(slot.op, "") or "float"
        row[name] = row.get(name, 0) + 1
    return found
