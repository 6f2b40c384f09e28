"""Every chain that a network allows: where it may begin and end, what it reads from outside, what may stay on chip.

Nothing here depends on the accelerator.  docs/decisions/0010-exhaustive-mapper.md has the definitions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from accelsim.kernels.chain_path import NO_TWIN, STEP_COLUMNS
from accelsim.kernels.mapper import reads_whole_views, widest_weight_bits
from accelsim.optable import (
    AXIS_GROUPS,
    AXIS_ROWS,
    KIND_CONV,
    KIND_VECTOR,
    O_AXES,
    O_GROUP_EXTENT,
    O_IN0_ROOT0,
    O_IN1_ROOT1,
    O_IN_H,
    O_KERNEL_H,
    O_KIND,
    O_OUT,
    O_ROWS_H,
    O_STRIDE,
    OFF_CHIP,
    S_COMBO,
    T_BITS,
    T_FIRST,
    T_INPUT,
    T_LAST,
    T_OUTPUT,
    T_POSITIONS,
    T_TWIN,
    OpTable,
)  # fmt: skip
from accelsim.program import Int64

# Tensors that may be on chip at the same time: more are left in DRAM, longest lives first.
MAX_SLOTS = 8
# Longest extent of which every tile size is tried; beyond it the breakpoints of ⌈extent / tiles⌉ and steps of a word.
EVERY_SIZE = 256
SIZE_STEP = 16
# Regions that a tile can read (docs/contract.md).
READS = 3
_ROOTS = slice(O_IN0_ROOT0, O_IN1_ROOT1 + 1)


@dataclass(frozen=True, eq=False)
class ChainStart:
    """The chains along one axis that begin with op `first`: they may end after op first + e where `ends[e]` is 1.

    `roots` are the tensors read from outside that may be on chip, in order of their first reader; `n_roots[e]` of them
    are read by the chain that ends after op first + e.  Starts with one `key` are alike in everything that counts.
    """

    first: int
    axis: int
    ends: Int64
    roots: tuple[int, ...]
    n_roots: Int64
    sizes: Int64
    weights: Int64  # [ends]: weight bits of the chain that ends there
    key: bytes


@dataclass(frozen=True, eq=False)
class ChainSpace:
    """All chains of a network as steps of a path (columns of `chain_path`), without their lists of ways."""

    starts: tuple[ChainStart, ...]
    first_step: Int64  # [ops + 1]
    steps: Int64  # [steps, columns]
    root_slots: Int64  # [steps, roots]
    step_start: Int64  # [steps]: its ChainStart
    step_end: Int64  # [steps]: its ops less one
    step_output: Int64  # [steps]: tensor that its last op writes
    step_weights: Int64  # [steps]: weight bits of chains of several ops, else 0
    slot_bits: Int64  # [ops + 1, slots]
    keep: Int64  # [ops + 1]
    slot_of: Int64  # [tensors]: −1 when always in DRAM


@lru_cache(maxsize=64)
def chain_space(table: OpTable) -> ChainSpace:
    """The chains of a network; cached, because every design of a sweep asks for the same."""
    slot_of = _slots(table)
    starts: list[ChainStart] = []
    steps, root_slots, owners, weights, ends, outputs, first_step = [], [], [], [], [], [], [0]
    for first in range(len(table.op_names)):
        for axis in (AXIS_ROWS, AXIS_GROUPS):
            if not table.ops[first, O_AXES] & axis:
                continue
            start = _chain_start(table, first, axis, slot_of)
            for end in np.flatnonzero(start.ends):
                steps.append(_step(table, start, int(end), slot_of))
                slots = [int(slot_of[t]) for t in start.roots[: start.n_roots[end]]]
                root_slots.append(slots + [-1] * (MAX_SLOTS - len(slots)))
                owners.append(len(starts))
                weights.append(int(start.weights[end]) if end > 0 else 0)
                ends.append(int(end))
                outputs.append(int(table.ops[first + end, O_OUT]))
            starts.append(start)
        first_step.append(len(steps))
    slot_bits, keep = _alive(table, slot_of)
    return ChainSpace(
        tuple(starts), np.array(first_step), np.array(steps), np.array(root_slots), np.array(owners),
        np.array(ends), np.array(outputs), np.array(weights), slot_bits, keep, slot_of,
    )  # fmt: skip


def tile_sizes(extent: int) -> Int64:
    """Tile sizes that are tried along an axis: all up to `EVERY_SIZE`, beyond it those of docs/decisions/0010."""
    if extent <= EVERY_SIZE:
        return np.arange(1, extent + 1)
    counts = np.arange(1, extent + 1)
    steps = np.arange(SIZE_STEP, extent, SIZE_STEP)
    return np.unique(np.concatenate([-(-extent // counts), steps]))


def _slots(table: OpTable) -> Int64:
    """Slot of every tensor that may stay on chip while others do, −1 for those that live in DRAM."""
    rows = table.tensors
    free = (rows[:, T_INPUT] == 0) & (rows[:, T_OUTPUT] == 0) & (rows[:, T_TWIN] != OFF_CHIP)
    free &= rows[:, T_LAST] > rows[:, T_FIRST]
    free[_too_many_to_read(table)] = False
    slot_of = np.full(len(rows), -1, np.int64)
    busy_until = [-1] * MAX_SLOTS
    banned: set[int] = set()
    for t in sorted(np.flatnonzero(free).tolist(), key=lambda t: (rows[t, T_FIRST], rows[t, T_LAST])):
        slot = next((s for s in range(MAX_SLOTS) if busy_until[s] <= rows[t, T_FIRST]), -1)
        if slot < 0 or t in banned:
            banned |= {t, int(rows[t, T_TWIN])}
            continue
        slot_of[t], busy_until[slot] = slot, int(rows[t, T_LAST])
    for t in banned - {-1}:
        slot_of[t] = -1
    return slot_of


def _too_many_to_read(table: OpTable) -> list[int]:
    """Twins that some op cannot read from two places, because a tile reads at most three regions."""
    found: set[int] = set()
    for k, op in enumerate(table.ops):
        pairs = op[_ROOTS].reshape(2, 2).tolist()
        weights = int(widest_weight_bits(table.ops, table.slices, k) > 0)
        if sum(root >= 0 for pair in pairs for root in pair) + weights > READS:
            found.update(root for pair in pairs if pair[1] >= 0 for root in pair)
    return sorted(found)


def _alive(table: OpTable, slot_of: Int64) -> tuple[Int64, Int64]:
    """Bits of the tensor in every slot before every op, and the mask of slots that are read at that op or later."""
    n = len(table.op_names)
    bits, keep = np.zeros((n + 1, MAX_SLOTS), np.int64), np.zeros(n + 1, np.int64)
    for t in np.flatnonzero(slot_of >= 0):
        begin, end = int(table.tensors[t, T_FIRST]) + 1, int(table.tensors[t, T_LAST]) + 1
        bits[begin:end, slot_of[t]] = table.tensors[t, T_BITS]
        keep[begin:end] |= 1 << int(slot_of[t])
    return bits, keep


def _extent(table: OpTable, k: int, axis: int) -> int:
    return int(table.ops[k, O_ROWS_H if axis == AXIS_ROWS else O_GROUP_EXTENT])


def _may_follow(table: OpTable, first: int, k: int, axis: int) -> bool:
    """Whether op k may run tile by tile behind the ops from `first` on, whatever they produce."""
    op = table.ops[k]
    if not op[O_AXES] & axis or _extent(table, k, axis) != _extent(table, first, axis):
        return False
    if not reads_whole_views(table.ops, first, k):
        return False
    if axis == AXIS_GROUPS:
        return bool(op[O_KIND] != KIND_CONV and table.ops[first, O_KIND] != KIND_CONV)
    return bool(op[O_KERNEL_H] == 1 and op[O_STRIDE] == 1 and op[O_IN_H] == op[O_ROWS_H])


def _may_end(table: OpTable, first: int, last: int) -> bool:
    """Whether everything made before the last op is read inside the chain, and nowhere else."""
    for k in range(first, last):
        out = int(table.ops[k, O_OUT])
        if table.tensors[out, T_LAST] > last or table.tensors[out, T_OUTPUT]:
            return False
        if out not in table.ops[k + 1 : last + 1, _ROOTS]:
            return False
    return True


def _chain_start(table: OpTable, first: int, axis: int, slot_of: Int64) -> ChainStart:
    n = len(table.op_names)
    stop = first + 1
    while stop < n and _may_follow(table, first, stop, axis):
        stop += 1
    ends = [int(_may_end(table, first, k)) for k in range(first, stop)]
    while not ends[-1]:
        ends.pop()
    made: set[int] = set()
    roots: list[int] = []
    n_roots = []
    for k in range(first, first + len(ends)):
        for column in (O_IN0_ROOT0, O_IN0_ROOT0 + 2):
            root = int(table.ops[k, column])
            if root >= 0 and root not in made and slot_of[root] >= 0 and root not in roots:
                roots.append(root)
        made.add(int(table.ops[k, O_OUT]))
        n_roots.append(len(roots))
    sizes = tile_sizes(_extent(table, first, axis))
    weights = np.cumsum([int(widest_weight_bits(table.ops, table.slices, first + k)) for k in range(len(ends))])
    key = _key(table, first, len(ends), axis, roots) + bytes(ends)
    return ChainStart(
        first, axis, np.array(ends, np.int64), tuple(roots), np.array(n_roots, np.int64), sizes, weights, key
    )


def _key(table: OpTable, first: int, n: int, axis: int, roots: list[int]) -> bytes:
    """What the cost of the chains depends on, without the names of tensors: equal layers have equal keys."""
    ops = table.ops[first : first + n].copy()
    names: dict[int, int] = {-1: -1}
    columns = [*range(O_IN0_ROOT0, O_IN1_ROOT1 + 1), O_OUT]
    for row in ops:
        for column in columns:
            row[column] = names.setdefault(int(row[column]), len(names))
    tensors = [t for t in names if t >= 0]
    facts = table.tensors[tensors][:, (T_BITS, T_POSITIONS)]
    inputs = np.array([names[t] for t in roots], np.int64)
    slices = table.slices[first : first + n].copy()
    used = np.unique(slices[:, :, S_COMBO])
    slices[:, :, S_COMBO] = np.searchsorted(used, slices[:, :, S_COMBO])
    formats = repr([table.combos[c] for c in used] if table.combos else [])
    is_vector = table.ops[first : first + n, O_KIND] == KIND_VECTOR
    arrays: tuple[Any, ...] = (
        np.array([axis, n]),
        ops,
        facts,
        inputs,
        slices,
        table.vector[first : first + n][is_vector],
    )
    return b"|".join(array.tobytes() for array in arrays) + formats.encode()


def _step(table: OpTable, start: ChainStart, end: int, slot_of: Int64) -> list[int]:
    out = int(table.ops[start.first + end, O_OUT])
    tensor = table.tensors[out]
    slot, twin = int(slot_of[out]), int(tensor[T_TWIN])
    twin_slot = NO_TWIN
    if slot >= 0 and twin >= 0 and table.tensors[twin, T_FIRST] < tensor[T_FIRST]:
        twin_slot = int(slot_of[twin])
    row = dict.fromkeys(STEP_COLUMNS, 0)
    row["end"], row["roots"], row["slot"] = start.first + end + 1, int(start.n_roots[end]), slot
    row["twin_slot"], row["may_stay"], row["bits"] = twin_slot, int(slot >= 0), int(tensor[T_BITS])
    return [row[name] for name in STEP_COLUMNS]
