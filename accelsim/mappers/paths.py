"""The cheapest way through the chains of a design under an objective, and the supported front of time and energy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from accelsim.counts import ENGINE_COUNTS
from accelsim.ir import VECTOR_KINDS
from accelsim.kernels.chain_cost import W_ENERGY, W_TICKS
from accelsim.kernels.chain_path import FROM_MASK, FROM_STEP, FROM_WAY, S_LIST, cheapest_path
from accelsim.mappers.chain_ways import Search, Ways
from accelsim.mappers.chains import MAX_SLOTS
from accelsim.optable import (
    KIND_VECTOR,
    O_ABITS,
    O_IN0,
    O_IN1,
    O_KIND,
    O_OUT,
    O_PASSES,
    O_RBITS,
    T_BITS,
)
from accelsim.program import Int64

# What a tick of bus time (and a cycle for every tile of every op) costs when paths with less traffic and fewer tiles
# are looked for: the objective of latency counts the bus of a chain only where it is the limit, but chains share it.
BUS_PRICES = (1 / 16, 1 / 4, 1.0)


@dataclass(frozen=True, eq=False)
class Path:
    """Chains and residents that are optimal for `per_tick` · ticks + `per_energy` · energy within `capacity_bits`.

    `steps` are (step, way within its start, resident mask before).  `energy_fj` is 0 when energy was not asked for.
    """

    ticks: int
    energy_fj: float
    weights: tuple[float, float]
    capacity_bits: int
    steps: tuple[tuple[int, int, int], ...]

    @property
    def product(self) -> float:
        """Energy × time, in femtojoules and ticks."""
        return self.energy_fj * self.ticks


class Network:
    """The chains of a design joined into one graph, ready for `shortest` with any weights and capacity."""

    def __init__(self, search: Search, found: list[Ways]) -> None:
        self.search, self.found = search, found
        self.fixed_energy_fj = _fixed_energy_fj(search)
        ticks = search.accelerator.bus_ticks().per_cycle
        self.static_fj_per_tick = search.rates.per_cycle / ticks
        places, lists = [], [np.zeros((2 << MAX_SLOTS, 2), np.int64)]
        n_lists, n_ways = len(lists[0]), 0
        for item in found:
            places.append((n_lists, n_ways, item.lists.shape[1] * 2))
            lists.append(item.lists.reshape(-1, 2) + n_ways)
            n_lists, n_ways = n_lists + len(lists[-1]), n_ways + len(item.ways)
        space = search.space
        place = np.array(places, np.int64)[space.step_start]
        fits = space.step_weights <= search.weight_capacity * 3 // 4
        self.steps: Int64 = space.steps.copy()
        self.steps[:, S_LIST] = np.where(fits, place[:, 0] + space.step_end * place[:, 2], 0)
        self.first_way: Int64 = place[:, 1]
        self.lists: Int64 = np.concatenate(lists)
        self.ways: Int64 = np.concatenate([item.ways for item in found])
        # Of equally fast paths the one with less of the other column: all of it weighs less than half a tick.
        most = int(np.abs(self.ways[:, W_ENERGY]).max(initial=0)) * len(space.keep)
        self.tie_weight = 0.5 / (most + 1)

    def shortest(self, per_tick: float, per_energy: float, capacity_bits: int) -> Path | None:
        """The path of least weighted cost; None when no mapping of the space fits."""
        space = self.search.space
        came = np.empty((len(space.keep), 1 << MAX_SLOTS, 3), np.int64)
        cost = cheapest_path(
            space.first_step, self.steps, space.root_slots, self.lists, self.ways, space.slot_bits, space.keep,
            capacity_bits, per_tick, per_energy, came,
        )  # fmt: skip
        if cost < 0:
            return None
        taken, op, mask, ticks, energy = [], len(space.keep) - 1, 0, 0, self.fixed_energy_fj
        while op > 0:
            step, way, before = (int(came[op, mask, column]) for column in (FROM_STEP, FROM_WAY, FROM_MASK))
            taken.append((step, way - int(self.first_way[step]), before))
            ticks, energy = ticks + int(self.ways[way, W_TICKS]), energy + float(self.ways[way, W_ENERGY])
            op, mask = self.search.space.starts[int(space.step_start[step])].first, before
        energy = energy + self.static_fj_per_tick * ticks if self.search.with_energy else 0.0
        return Path(ticks, energy, (per_tick, per_energy), capacity_bits, tuple(reversed(taken)))

    def least(self, objective: str, capacity_bits: int) -> list[Path]:
        """Paths of least value of an objective, the optimum first; empty when none fits.

        `latency`: behind the optimum those that pay for bus time, too, by `BUS_PRICES`.  `energy`: the optimum.  `edp`:
        the corners looked at on the way to it, best first.  `front`: all corners, fastest first.
        """
        if objective == "latency":
            prices = (self.tie_weight, *BUS_PRICES) if not self.search.with_energy else (self.tie_weight,)
            paths = [self.shortest(1.0, price, capacity_bits) for price in prices]
            return [path for path in paths if path is not None]
        if objective == "energy":
            path = self.shortest(self.static_fj_per_tick, 1.0, capacity_bits)
            return [] if path is None else [path]
        supported = list(self._supported(objective == "edp", capacity_bits))
        return sorted(supported, key=lambda path: path.product if objective == "edp" else path.ticks)

    def _supported(self, product_only: bool, capacity_bits: int) -> Iterator[Path]:
        """Corners of the lower hull of (ticks, energy); with `product_only` those that may have the least product.

        Energy × time is quasi-concave, so its minimum over the hull, and so over all mappings, is at a corner.  Between
        two corners no product is below (ticks of the faster) × (energy of the other).
        """
        fast = self.shortest(1.0, self.tie_weight, capacity_bits)
        if fast is None:
            return
        frugal = self.shortest(self.static_fj_per_tick, 1.0, capacity_bits)
        assert frugal is not None
        yield fast
        if frugal.energy_fj >= fast.energy_fj:
            return
        yield frugal
        best = min(fast.product, frugal.product)
        open_edges = [(fast, frugal)]
        while open_edges:
            left, right = open_edges.pop()
            if right.ticks <= left.ticks or (product_only and left.ticks * right.energy_fj >= best):
                continue
            slope = (left.energy_fj - right.energy_fj) / (right.ticks - left.ticks)
            corner = self.shortest(self.static_fj_per_tick + slope, 1.0, capacity_bits)
            assert corner is not None
            below = corner.energy_fj + slope * corner.ticks
            on_edge = left.energy_fj + slope * left.ticks
            if below >= on_edge * (1 - 1e-12):
                continue
            yield corner
            best = min(best, corner.product)
            open_edges += [(left, corner), (corner, right)]


def _fixed_energy_fj(search: Search) -> float:
    """Dynamic energy of vector ops that no mapping changes: their operations and what they read and write on chip."""
    if not search.with_energy:
        return 0.0
    table = search.table
    shared = len(search.accelerator.engines) * len(ENGINE_COUNTS)
    rates = search.rates.counts[shared:]
    kinds = len(VECTOR_KINDS)
    chosen = table.ops[:, O_KIND] == KIND_VECTOR
    ops = table.ops[chosen]
    read = (ops[:, O_PASSES] * ops[:, O_IN0] * ops[:, O_ABITS] + ops[:, O_IN1] * ops[:, O_RBITS]).sum()
    written = table.tensors[ops[:, O_OUT], T_BITS].sum()
    work = table.vector[chosen].sum(axis=(0, 1)) @ rates[:kinds]
    return float(work + read * rates[kinds] + written * rates[kinds + 1])
