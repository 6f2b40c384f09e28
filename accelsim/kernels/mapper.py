"""Heuristic mapping decisions as array code: chains, engine split, tile sizes, weight blocks.

Every function reads the tables of `optable.py`; none allocates objects.  `mappers/heuristic.py` is the API.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from accelsim.kernels.engine_forms import ceil_div
from accelsim.kernels.jit import inner, jit
from accelsim.kernels.part_forms import part_cycles, unit_granule
from accelsim.optable import (
    AXIS_GROUPS,
    AXIS_ROWS,
    KIND_CONV,
    KIND_MATMUL,
    KIND_VECTOR,
    M_MODE,
    O_ABITS,
    O_AXES,
    O_GROUP_EXTENT,
    O_IN0,
    O_IN0_ROOT0,
    O_IN1,
    O_IN1_ROOT1,
    O_IN_H,
    O_KERNEL_H,
    O_KIND,
    O_OUT,
    O_PARAM_BITS,
    O_PASSES,
    O_RBITS,
    O_ROWS_H,
    O_ROWS_W,
    O_SLICES,
    O_STRIDE,
    O_UNIT_EXTRA,
    O_UNIT_WEIGHTS,
    O_UNITS,
    S_COMBO,
    S_STORED,
    S_UNITS,
    T_BITS,
    T_LAST,
    T_OUTPUT,
    T_POSITIONS,
)  # fmt: skip

# A part of an op; the last three are the sub-array that it uses (adder-tree engines), 0 for all of the engine.
P_ENGINE, P_SLICE, P_UNITS, P_LANES, P_WIDTH, P_PIXELS = range(6)
N_PART = 6
# A chain: ops [first, first + n_ops) cut along `axis` into tiles of `tile` units; single ops may have weight blocks.
# halo: 0 loads the rows that tiles of a first convolution share again, 1 keeps them on chip.
CHAIN_COLUMNS: tuple[str, ...] = ("first", "n_ops", "axis", "tile", "blocks", "weight_outer", "halo")
C_FIRST, C_N, C_AXIS, C_TILE, C_BLOCKS, C_WEIGHT_OUTER, C_HALO = range(7)
# Rows of the scratch array [N_WORK, engines + 1] of the mapper: one allocation for all candidates of a design.
W_LOADS, W_POOL, W_TAKEN, W_COST, W_GRANULE, W_TOTAL = range(6)
N_WORK = 6


@inner
def axis_extent(ops: Any, k: int, axis: int) -> int:
    """Units of op k along a tile axis: output rows, or groups (heads)."""
    return ops[k, O_ROWS_H] if axis == AXIS_ROWS else ops[k, O_GROUP_EXTENT]


@inner
def input_tile_bits(ops: Any, k: int, operand: int, axis: int, size: int) -> int:
    """Bits of an input that `size` units of op k need; the rows of a convolution include the halo."""
    if operand == 0 and ops[k, O_KIND] == KIND_CONV and axis == AXIS_ROWS:
        rows = min(ops[k, O_IN_H], (size - 1) * ops[k, O_STRIDE] + ops[k, O_KERNEL_H])
        return ops[k, O_IN0] // ops[k, O_IN_H] * rows * ops[k, O_ABITS]
    elements = ops[k, O_IN0] if operand == 0 else ops[k, O_IN1]
    bits = ops[k, O_ABITS] if operand == 0 else ops[k, O_RBITS]
    return ceil_div(elements * size, axis_extent(ops, k, axis)) * bits


@inner
def keeps_halo(chain: Any, k: int, operand: int) -> bool:
    """True for an input whose tiles leave the rows that the next tile shares on chip."""
    return chain[C_HALO] == 1 and k == chain[C_FIRST] and operand == 0


@inner
def load_bits(ops: Any, chain: Any, k: int, operand: int, size: int, first_tile: bool) -> int:
    """Bits that the DMA loads of an input of op k for `size` units; of a kept halo only the first tile loads any."""
    if not keeps_halo(chain, k, operand):
        return input_tile_bits(ops, k, operand, chain[C_AXIS], size)
    rows = size * ops[k, O_STRIDE]
    if first_tile:
        rows += ops[k, O_KERNEL_H] - ops[k, O_STRIDE]
    return ops[k, O_IN0] // ops[k, O_IN_H] * rows * ops[k, O_ABITS]


@inner
def load_runs(ops: Any, tensors: Any, k: int, operand: int, axis: int) -> int:
    """Runs in DRAM of a tile of an input: one along rows, else one for every position of the tensor.

    A product with one row reads one position of its left operand: that of the class token.
    """
    if axis == AXIS_ROWS or (
        operand == 0 and ops[k, O_KIND] == KIND_MATMUL and ops[k, O_ROWS_H] * ops[k, O_ROWS_W] == 1
    ):
        return 1
    return max(1, tensors[ops[k, O_IN0_ROOT0 + 2 * operand], T_POSITIONS])


@inner
def load_slots(ops: Any, chain: Any, k: int, operand: int, size: int) -> int:
    """Slots of the ring of loaded tiles of `size` units: two, or three of a kept halo, and no more than tiles."""
    extent = axis_extent(ops, chain[C_FIRST], chain[C_AXIS])
    if keeps_halo(chain, k, operand) and 2 * size < extent:
        return 3
    return 2 if size < extent else 1


@inner
def output_tile_bits(ops: Any, tensors: Any, k: int, axis: int, size: int) -> int:
    """Bits that `size` units of op k write."""
    return ceil_div(tensors[ops[k, O_OUT], T_BITS] * size, axis_extent(ops, k, axis))


@inner
def vector_tile_cycles(
    ops: Any, tensors: Any, vector: Any, throughput: Any, port_bits: int, latency: int, k: int, axis: int, size: int
) -> Any:
    """(occupancy, latency) of `size` units of vector op k: the law of `engine_forms.vector_cycles`, without arrays."""
    return narrowed_tile_cycles(ops, tensors, vector, throughput, port_bits, latency, k, axis, size, 0)


@inner
def narrowed_tile_cycles(
    ops: Any, tensors: Any, vector: Any, throughput: Any, port_bits: int, latency: int, k: int, axis: int, size: int,
    saved: int,
) -> Any:  # fmt: skip
    """As `vector_tile_cycles`, of a tile that writes `saved` bits less: some of its tokens are narrow."""
    extent = axis_extent(ops, k, axis)
    occupancy = 0
    passes = ops[k, O_PASSES]
    for p in range(passes):
        bits = input_tile_bits(ops, k, 0, axis, size)
        if p == 0 and ops[k, O_IN1] > 0:
            bits += input_tile_bits(ops, k, 1, axis, size)
        if p == passes - 1:
            bits += output_tile_bits(ops, tensors, k, axis, size) - saved
        longest = max(1, ceil_div(bits, port_bits))
        for kind in range(vector.shape[2]):
            if vector[k, p, kind] > 0:
                count = ceil_div(vector[k, p, kind] * size, extent)
                longest = max(longest, ceil_div(count, throughput[kind]))
        occupancy += longest
    return occupancy, occupancy + latency


@inner
def part_granule(ops: Any, slices: Any, engines: Any, modes: Any, k: int, part: Any) -> int:
    """Units that one pass of a part's sub-array holds: its weight blocks are multiples of it."""
    combo = slices[k, part[P_SLICE], S_COMBO]
    return unit_granule(ops, engines, modes, k, combo, part[P_ENGINE], part[P_LANES], part[P_WIDTH])


@inner
def _share(ops: Any, slices: Any, engines: Any, modes: Any, k: int, rows: int, units: int, work: Any) -> None:
    """Give `units` to engines so that the latest finish is earliest; W_POOL is the slice engine e would run, or -1.

    Binary search for the smallest makespan at which the engines together hold all units; W_LOADS are what they already
    have to do.  Adds to W_LOADS, writes W_TAKEN.
    """
    n = engines.shape[0]
    low = np.int64(1) << 60
    high = np.int64(0)
    able = 0
    for e in range(n):
        work[W_TAKEN, e] = 0
        part = work[W_POOL, e]
        if part >= 0:
            granule = unit_granule(ops, engines, modes, k, slices[k, part, S_COMBO], e, 0, 0)
            cost = part_cycles(ops, slices, engines, modes, k, e, part, min(granule, units), rows)[0]
            work[W_GRANULE, e], work[W_COST, e] = granule, cost
            low = min(low, work[W_LOADS, e])
            high = max(high, work[W_LOADS, e] + cost * ceil_div(units, granule))
            able += 1
    while able > 1 and low < high:
        middle = (low + high) // 2
        room = 0
        for e in range(n):
            if work[W_POOL, e] >= 0 and middle > work[W_LOADS, e]:
                room += (middle - work[W_LOADS, e]) // work[W_COST, e] * work[W_GRANULE, e]
        if room >= units:
            high = middle
        else:
            low = middle + 1
    left = units
    for e in range(n):
        if work[W_POOL, e] >= 0 and high > work[W_LOADS, e] and left > 0:
            granule, cost = work[W_GRANULE, e], work[W_COST, e]
            taken = min(left, (high - work[W_LOADS, e]) // cost * granule)
            work[W_TAKEN, e] = taken
            left -= taken
            work[W_LOADS, e] += ceil_div(taken, granule) * cost


@inner
def _set_part(parts: Any, k: int, p: int, engine: int, part: int, units: int) -> None:
    """Part p of op k is `units` units of a slice on a whole engine."""
    parts[k, p, P_ENGINE], parts[k, p, P_SLICE], parts[k, p, P_UNITS] = engine, part, units
    parts[k, p, P_LANES] = parts[k, p, P_WIDTH] = parts[k, p, P_PIXELS] = 0


@inner
def split_op(
    ops: Any, slices: Any, engines: Any, modes: Any, k: int, axis: int, size: int, work: Any, parts: Any
) -> int:
    """Parts (engine, slice, units) of a tile of array op k; returns their number and adds the work to W_LOADS.

    `size` is the tile size along `axis`: rows, or groups, whose parts are therefore groups per tile.
    Slices of a fixed size are shared among all engines that execute them; balanced slices form one pool in which every
    engine takes the first slice it can execute.
    """
    grouped = axis == AXIS_GROUPS
    rows = (ops[k, O_ROWS_H] if grouped else size) * ops[k, O_ROWS_W]
    n_engines = engines.shape[0]
    count = 0
    balanced = False
    for part in range(ops[k, O_SLICES]):
        units = size if grouped else slices[k, part, S_UNITS]
        if units < 0:
            balanced = True
            continue
        if units == 0:
            continue
        for e in range(n_engines):
            work[W_POOL, e] = part if modes[slices[k, part, S_COMBO], e, M_MODE] >= 0 else -1
        _share(ops, slices, engines, modes, k, rows, units, work)
        for e in range(n_engines):
            if work[W_TAKEN, e] > 0:
                _set_part(parts, k, count, e, part, work[W_TAKEN, e])
                count += 1
    if balanced:
        for e in range(n_engines):
            work[W_POOL, e] = -1
        for part in range(ops[k, O_SLICES] - 1, -1, -1):
            if slices[k, part, S_UNITS] < 0:
                for e in range(n_engines):
                    if modes[slices[k, part, S_COMBO], e, M_MODE] >= 0:
                        work[W_POOL, e] = part
        _share(ops, slices, engines, modes, k, rows, ops[k, O_UNITS], work)
        for part in range(ops[k, O_SLICES]):
            for e in range(n_engines):
                if work[W_POOL, e] == part and work[W_TAKEN, e] > 0:
                    _set_part(parts, k, count, e, part, work[W_TAKEN, e])
                    count += 1
    return count


@inner
def part_weight_bits(ops: Any, slices: Any, k: int, part: int, units: int) -> int:
    """Bits of weights, biases, scales and index entries of `units` units of a slice."""
    return units * (slices[k, part, S_STORED] + ops[k, O_UNIT_EXTRA])


@jit
def widest_weight_bits(ops: Any, slices: Any, k: int) -> int:
    """Upper limit of the weight bits of op k whatever the split (vector ops: their parameters)."""
    if ops[k, O_KIND] == KIND_VECTOR:
        return ops[k, O_PARAM_BITS]
    if ops[k, O_UNIT_WEIGHTS] == 0:
        return 0
    widest = 0
    for part in range(ops[k, O_SLICES]):
        widest = max(widest, part_weight_bits(ops, slices, k, part, ops[k, O_UNITS]))
    return widest


@inner
def _produced_within(ops: Any, first: int, last: int, root: int) -> bool:
    for k in range(first, last + 1):
        if ops[k, O_OUT] == root:
            return True
    return False


@jit
def reads_whole_views(ops: Any, first: int, k: int) -> bool:
    """False when op k reads two tensors as one of which only one is made by ops [first, k): it is in no place whole."""
    for operand in range(2):
        a, b = ops[k, O_IN0_ROOT0 + 2 * operand], ops[k, O_IN0_ROOT0 + 2 * operand + 1]
        if a >= 0 and b >= 0 and _produced_within(ops, first, k - 1, a) != _produced_within(ops, first, k - 1, b):
            return False
    return True


@inner
def _can_extend(ops: Any, slices: Any, first: int, k: int, axis: int, weights: int, limit: int) -> bool:
    """Whether op k may join a chain of ops [first, k) cut along `axis`."""
    if ops[k, O_AXES] & axis == 0 or axis_extent(ops, k, axis) != axis_extent(ops, first, axis):
        return False
    if not reads_whole_views(ops, first, k):
        return False
    if axis == AXIS_GROUPS and ops[k, O_KIND] == KIND_CONV:
        return False
    if axis == AXIS_ROWS and (ops[k, O_KERNEL_H] != 1 or ops[k, O_STRIDE] != 1 or ops[k, O_IN_H] != ops[k, O_ROWS_H]):
        return False
    if weights + widest_weight_bits(ops, slices, k) > limit:
        return False
    for column in range(O_IN0_ROOT0, O_IN1_ROOT1 + 1):
        if ops[k, column] == ops[k - 1, O_OUT]:
            return True
    return False


@jit
def find_chains(ops: Any, slices: Any, tensors: Any, weight_capacity: int, fuse: bool, chains: Any) -> int:
    """Cut the op list into chains whose intermediate tensors no later op needs; returns the number of chains."""
    n = ops.shape[0]
    count = 0
    first = 0
    limit = weight_capacity * 3 // 4
    while first < n:
        best_last, best_axis = first, AXIS_ROWS if ops[first, O_AXES] & AXIS_ROWS else AXIS_GROUPS
        for axis in (AXIS_ROWS, AXIS_GROUPS):
            if not fuse or ops[first, O_AXES] & axis == 0 or widest_weight_bits(ops, slices, first) > limit:
                continue
            if axis == AXIS_GROUPS and ops[first, O_KIND] == KIND_CONV:
                continue
            last = first
            weights = widest_weight_bits(ops, slices, first)
            while last + 1 < n and _can_extend(ops, slices, first, last + 1, axis, weights, limit):
                last += 1
                weights += widest_weight_bits(ops, slices, last)
            # Give back ops behind a tensor that is needed after the chain.
            changed = True
            while changed:
                changed = False
                for k in range(first, last):
                    out = ops[k, O_OUT]
                    if tensors[out, T_LAST] > last or tensors[out, T_OUTPUT] == 1:
                        last = k
                        changed = True
                        break
            if last > best_last:
                best_last, best_axis = last, axis
        chains[count, C_FIRST] = first
        chains[count, C_N] = best_last - first + 1
        chains[count, C_AXIS] = best_axis
        chains[count, C_BLOCKS] = 1
        count += 1
        first = best_last + 1
    return count


@inner
def external_input(ops: Any, tensors: Any, chain: Any, k: int, operand: int) -> int:
    """First root tensor of an input that comes from outside the chain, or -1."""
    root = ops[k, O_IN0_ROOT0 + 2 * operand]
    if root < 0 or _produced_within(ops, chain[C_FIRST], k - 1, root):
        return -1
    return root


@inner
def ring_size(ops: Any, chain: Any, k: int, tile: int) -> int:
    """Slots of the tile ring behind op k of a chain: the distance to its last consumer in the chain, plus one.

    No more than there are tiles of `tile` units: a slot that is never opened must not exist.
    """
    size = 1
    for later in range(k + 1, chain[C_FIRST] + chain[C_N]):
        for column in range(O_IN0_ROOT0, O_IN1_ROOT1 + 1):
            if ops[later, column] == ops[k, O_OUT]:
                size = later - k + 1
    return min(size, ceil_div(axis_extent(ops, k, chain[C_AXIS]), tile))


@inner
def working_bits(ops: Any, tensors: Any, resident: Any, chain: Any, size: int) -> int:
    """Activation buffer bits of a chain's tiles: rings of loaded tiles and of intermediates, tiles stored."""
    axis = chain[C_AXIS]
    last = chain[C_FIRST] + chain[C_N] - 1
    many = size < axis_extent(ops, chain[C_FIRST], axis)
    total = 0
    for k in range(chain[C_FIRST], last + 1):
        for operand in range(2):
            root = external_input(ops, tensors, chain, k, operand)
            if root >= 0 and resident[root] == 0:
                slots = load_slots(ops, chain, k, operand, size)
                total += load_bits(ops, chain, k, operand, size, True) * slots
        if k < last:
            total += output_tile_bits(ops, tensors, k, axis, size) * ring_size(ops, chain, k, size)
    if resident[ops[last, O_OUT]] == 0:
        total += output_tile_bits(ops, tensors, last, axis, size) * (2 if many else 1)
    return total
