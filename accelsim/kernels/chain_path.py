"""Which chains a network is cut into, and which tensors stay on chip between them: a shortest path.

A state is the op reached and the set of resident tensors that a later op still reads, as a bit mask over slots.  A
step runs one chain; its resident neighbours and its own tiles must fit the activation buffer together.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from accelsim.kernels.chain_cost import W_BITS, W_ENERGY, W_TICKS
from accelsim.kernels.jit import inner, jit

# A chain as a step: op behind it, its first list, number of inputs that may be on chip, slot and twin's slot of its
# output (−1: none), whether the output may stay on chip, bits of the output.
STEP_COLUMNS: tuple[str, ...] = ("end", "list", "roots", "slot", "twin_slot", "may_stay", "bits")
S_END, S_LIST, S_ROOTS, S_SLOT, S_TWIN, S_STAY, S_BITS = range(len(STEP_COLUMNS))
NO_TWIN = -1
# What led to a state: the step, the way, the state before.
FROM_STEP, FROM_WAY, FROM_MASK = range(3)


@inner
def _inputs(steps: Any, root_slots: Any, n: int, mask: int) -> int:
    """The set of resident tensors as seen by step n: one bit for every input of its chain that may be on chip."""
    seen = 0
    for r in range(steps[n, S_ROOTS]):
        slot = root_slots[n, r]
        if slot >= 0 and mask >> slot & 1:
            seen |= 1 << r
    return seen


@inner
def _best_way(ways: Any, start: int, end: int, free: int, per_tick: float, per_energy: float) -> Any:
    """(way, cost) of the cheapest way that fits `free` bits; the way is −1 when none does."""
    best, best_cost = -1, 0.0
    for w in range(start, end):
        if ways[w, W_BITS] > free:
            break
        cost = ways[w, W_TICKS] * per_tick + ways[w, W_ENERGY] * per_energy
        if best < 0 or cost < best_cost:
            best, best_cost = w, cost
    return best, best_cost


@jit
def cheapest_path(
    first_step: Any, steps: Any, root_slots: Any, lists: Any, ways: Any, slot_bits: Any, keep: Any, capacity: int,
    per_tick: float, per_energy: float, came: Any,
) -> float:  # fmt: skip
    """Least cost of all ops; `came[op, mask]` tells how every state was reached.  −1 when there is no way through.

    `first_step[op]` … `first_step[op + 1]` are the steps from an op, `slot_bits[op, slot]` the bits of the tensor in a
    slot before that op, `keep[op]` the slots whose tensors are read at that op or later.
    """
    n_ops, n_masks = came.shape[0] - 1, came.shape[1]
    cost = np.full((n_ops + 1, n_masks), -1.0)
    cost[0, 0] = 0.0
    for op in range(n_ops):
        for mask in range(n_masks):
            if cost[op, mask] < 0:
                continue
            taken = 0
            for slot in range(slot_bits.shape[1]):
                if mask >> slot & 1:
                    taken += slot_bits[op, slot]
            for n in range(first_step[op], first_step[op + 1]):
                seen = _inputs(steps, root_slots, n, mask)
                for stays in range(2):
                    if stays == 1 and steps[n, S_STAY] == 0:
                        continue
                    twin = steps[n, S_TWIN]
                    if twin >= 0 and mask >> twin & 1 != stays:
                        continue
                    free = capacity - taken - (steps[n, S_BITS] if stays == 1 else 0)
                    place = steps[n, S_LIST] + 2 * seen + stays
                    way, added = _best_way(ways, lists[place, 0], lists[place, 1], free, per_tick, per_energy)
                    if way < 0:
                        continue
                    end = steps[n, S_END]
                    after = mask & keep[end]
                    if steps[n, S_SLOT] >= 0:
                        after &= ~(1 << steps[n, S_SLOT])
                    if stays == 1:
                        after |= 1 << steps[n, S_SLOT]
                    total = cost[op, mask] + added
                    if cost[end, after] < 0 or total < cost[end, after]:
                        cost[end, after] = total
                        came[end, after, FROM_STEP], came[end, after, FROM_WAY] = n, way
                        came[end, after, FROM_MASK] = mask
    return float(cost[n_ops, 0])
