"""Heuristic choice of what stays on chip and of tile sizes, weight blocks and engine shares of every chain."""

from __future__ import annotations

from typing import Any

import numpy as np

from accelsim.kernels.engine_forms import ceil_div
from accelsim.kernels.jit import inner, jit
from accelsim.kernels.mapper import (
    C_AXIS,
    C_BLOCKS,
    C_FIRST,
    C_N,
    C_TILE,
    C_WEIGHT_OUTER,
    N_PART,
    N_WORK,
    P_ENGINE,
    P_SLICE,
    P_UNITS,
    W_LOADS,
    W_TOTAL,
    axis_extent,
    external_input,
    input_tile_bits,
    output_tile_bits,
    part_granule,
    part_weight_bits,
    split_op,
    vector_tile_cycles,
    widest_weight_bits,
    working_bits,
)  # fmt: skip
from accelsim.kernels.part_forms import part_cycles
from accelsim.optable import (
    AXIS_GROUPS,
    AXIS_ROWS,
    KIND_VECTOR,
    M_MODE,
    O_KIND,
    O_OUT,
    O_ROWS_H,
    O_ROWS_W,
    O_SLICES,
    O_UNIT_WEIGHTS,
    O_UNITS,
    S_COMBO,
    T_BITS,
    T_FIRST,
    T_INPUT,
    T_LAST,
    T_OUTPUT,
    T_TWIN,
)  # fmt: skip

STATUS_OK, STATUS_ACTIVATIONS, STATUS_WEIGHTS = range(3)


@inner
def chain_index(chains: Any, n_chains: int, index: Any) -> None:
    """Write the chain of every op."""
    for c in range(n_chains):
        for k in range(chains[c, C_FIRST], chains[c, C_FIRST] + chains[c, C_N]):
            index[k] = c


@inner
def _modest_tile(ops: Any, chain: Any) -> int:
    """A tile of about 64 positions (or one head): what a chain should at least get when tensors compete for space."""
    extent = axis_extent(ops, chain[C_FIRST], chain[C_AXIS])
    if chain[C_AXIS] != AXIS_ROWS:
        return 1
    return min(extent, max(1, ceil_div(64, max(1, ops[chain[C_FIRST], O_ROWS_W]))))


@jit
def choose_residents(
    ops: Any, tensors: Any, chains: Any, n_chains: int, capacity: int, banned: Any, order: Any, resident: Any
) -> None:
    """Mark tensors that stay on chip, tried in the given order, while every chain can still tile.

    `banned` tensors stay off chip, and those whose twin is OFF_CHIP (−2).  Twins (read through one view) go together.
    """
    _choose_residents(
        ops, tensors, chains, n_chains, capacity, banned, order, resident, np.zeros(ops.shape[0], np.int64),
        np.zeros(n_chains, np.int64),
    )  # fmt: skip


@inner
def _choose_residents(
    ops: Any, tensors: Any, chains: Any, n_chains: int, capacity: int, banned: Any, order: Any, resident: Any,
    index: Any, live: Any,
) -> None:  # fmt: skip
    chain_index(chains, n_chains, index)
    for t in order:
        if resident[t] == 1 or banned[t] == 1 or tensors[t, T_INPUT] == 1 or tensors[t, T_OUTPUT] == 1:
            continue
        if index[tensors[t, T_FIRST]] == index[tensors[t, T_LAST]]:
            continue
        twin = tensors[t, T_TWIN]
        if twin < -1 or (twin >= 0 and banned[twin] == 1):
            continue
        fits = True
        members = 2 if twin >= 0 else 1
        resident[t] = 1
        if twin >= 0:
            resident[twin] = 1
        for which in range(members):
            member = t if which == 0 else twin
            for c in range(index[tensors[member, T_FIRST]], index[tensors[member, T_LAST]] + 1):
                live[c] += tensors[member, T_BITS]
        for which in range(members):
            member = t if which == 0 else twin
            for c in range(index[tensors[member, T_FIRST]], index[tensors[member, T_LAST]] + 1):
                need = working_bits(ops, tensors, resident, chains[c], _modest_tile(ops, chains[c]))
                if live[c] + need > capacity:
                    fits = False
        if not fits:
            resident[t] = 0
            if twin >= 0:
                resident[twin] = 0
            for which in range(members):
                member = t if which == 0 else twin
                for c in range(index[tensors[member, T_FIRST]], index[tensors[member, T_LAST]] + 1):
                    live[c] -= tensors[member, T_BITS]


@inner
def resident_bits(tensors: Any, chains: Any, n_chains: int, resident: Any, index: Any, live: Any) -> None:
    """Write the chain of every op, and the bits of resident tensors alive during every chain."""
    chain_index(chains, n_chains, index)
    for t in range(tensors.shape[0]):
        if resident[t] == 1:
            for c in range(index[tensors[t, T_FIRST]], index[tensors[t, T_LAST]] + 1):
                live[c] += tensors[t, T_BITS]


@inner
def _flexible(slices: Any, modes: Any, k: int, n_slices: int) -> bool:
    """True when more than one engine can execute op k."""
    able = 0
    for e in range(modes.shape[1]):
        for part in range(n_slices):
            if modes[slices[k, part, S_COMBO], e, M_MODE] >= 0:
                able += 1
                break
    return able > 1


@inner
def split_chain(
    ops: Any, slices: Any, engines: Any, modes: Any, chain: Any, size: int, parts: Any, n_parts: Any, work: Any
) -> None:
    """Engine shares of every array op of a chain; ops bound to one engine load it before the others are split.

    Tiles of a chain overlap, so the loads add up over its ops; with a single tile nothing overlaps and each op is
    split on its own.
    """
    for e in range(engines.shape[0]):
        work[W_LOADS, e] = 0
    single = size >= axis_extent(ops, chain[C_FIRST], chain[C_AXIS])
    for flexible in (False, True):
        for k in range(chain[C_FIRST], chain[C_FIRST] + chain[C_N]):
            if ops[k, O_KIND] == KIND_VECTOR or _flexible(slices, modes, k, ops[k, O_SLICES]) != flexible:
                continue
            if single:
                for e in range(engines.shape[0]):
                    work[W_LOADS, e] = 0
            n_parts[k] = split_op(ops, slices, engines, modes, k, chain[C_AXIS], size, work, parts)


@inner
def block_units(ops: Any, engines: Any, modes: Any, slices: Any, k: int, part: Any, blocks: int) -> int:
    """Units of a part in every weight block but the last: an equal share, rounded up to the engine's granule."""
    granule = part_granule(ops, slices, engines, modes, k, part)
    return ceil_div(ceil_div(part[P_UNITS], blocks), granule) * granule


@inner
def block_weight_bits(
    ops: Any, slices: Any, engines: Any, modes: Any, k: int, parts: Any, n_parts: int, blocks: int, block: int
) -> int:
    """Bits of weights, biases, scales and index entries that one weight block of op k loads."""
    if ops[k, O_KIND] == KIND_VECTOR:
        return widest_weight_bits(ops, slices, k)
    if ops[k, O_UNIT_WEIGHTS] == 0:
        return 0
    if ops[k, O_SLICES] == 1 and blocks == 1:
        # The parts of an op that is cut along its groups are those of a tile; its weights are loaded for all tiles.
        return part_weight_bits(ops, slices, k, 0, ops[k, O_UNITS])
    total = 0
    for p in range(n_parts):
        size = block_units(ops, engines, modes, slices, k, parts[p], blocks)
        units = max(0, min(size, parts[p, P_UNITS] - block * size))
        total += part_weight_bits(ops, slices, k, parts[p, P_SLICE], units)
    return total


@inner
def _blocks_for(
    ops: Any, slices: Any, engines: Any, modes: Any, k: int, axis: int, parts: Any, n_parts: int, capacity: int
) -> int:
    """Weight blocks of a single op: one if three quarters of the buffer hold all, else blocks of at most a third.

    Returns 0 when even the smallest block does not fit half the buffer, or when an op whose weights are not cut
    (a vector op, an op cut along its groups) does not fit.
    """
    total = block_weight_bits(ops, slices, engines, modes, k, parts, n_parts, 1, 0)
    if ops[k, O_KIND] == KIND_VECTOR or axis == AXIS_GROUPS:
        return 1 if total <= capacity else 0
    if total * 4 <= capacity * 3:
        return 1
    blocks = max(2, ceil_div(total * 3, capacity))
    while True:
        bits = block_weight_bits(ops, slices, engines, modes, k, parts, n_parts, blocks, 0)
        if bits * 3 <= capacity:
            return blocks
        finest = True
        for p in range(n_parts):
            granule = part_granule(ops, slices, engines, modes, k, parts[p])
            if block_units(ops, engines, modes, slices, k, parts[p], blocks) > granule:
                finest = False
        if finest:
            return blocks if bits * 2 <= capacity else 0
        blocks += 1


@jit
def used_blocks(ops: Any, engines: Any, modes: Any, slices: Any, k: int, parts: Any, n_parts: int, blocks: int) -> int:
    """Blocks that hold at least one unit after rounding to granules."""
    used = 1
    for p in range(n_parts):
        used = max(used, ceil_div(parts[p, P_UNITS], block_units(ops, engines, modes, slices, k, parts[p], blocks)))
    return used


@inner
def _op_tile(
    ops: Any, slices: Any, tensors: Any, vector: Any, engines: Any, modes: Any, throughput: Any, vector_port: int,
    vector_latency: int, k: int, axis: int, size: int, full: int, times: int, parts: Any, n_parts: int, work: Any,
) -> int:  # fmt: skip
    """Add `times` tiles of op k to W_TOTAL (engines, then the vector unit); returns the latency of one."""
    if ops[k, O_KIND] == KIND_VECTOR:
        occupancy, latency = vector_tile_cycles(
            ops, tensors, vector, throughput, vector_port, vector_latency, k, axis, size
        )
        work[W_TOTAL, engines.shape[0]] += occupancy * times
        return latency
    longest = 0
    for p in range(n_parts):
        units = parts[k, p, P_UNITS]
        rows = size * ops[k, O_ROWS_W]
        if axis == AXIS_GROUPS:
            units = ceil_div(units * size, full)
            rows = ops[k, O_ROWS_H] * ops[k, O_ROWS_W]
        occupancy, latency = part_cycles(
            ops, slices, engines, modes, k, parts[k, p, P_ENGINE], parts[k, p, P_SLICE], units, rows
        )
        work[W_TOTAL, parts[k, p, P_ENGINE]] += occupancy * times
        longest = max(longest, latency)
    return longest


@inner
def _estimate(
    ops: Any, slices: Any, tensors: Any, vector: Any, engines: Any, modes: Any, throughput: Any, vector_port: int,
    vector_latency: int, bits_per_kilocycle: int, resident: Any, chain: Any, size: int, blocks: int,
    weight_outer: bool, parts: Any, n_parts: Any, work: Any,
) -> int:  # fmt: skip
    """Cycles of a chain at this tile size: the busiest unit over all tiles, plus filling and draining the pipeline.

    A sixteenth of the DRAM time is added, so that of two equally fast mappings the one with less traffic wins.
    """
    axis = chain[C_AXIS]
    first = chain[C_FIRST]
    last = first + chain[C_N] - 1
    extent = axis_extent(ops, first, axis)
    full_tiles = extent // size
    rest = extent - full_tiles * size
    n_engines = engines.shape[0]
    for unit in range(n_engines + 1):
        work[W_TOTAL, unit] = 0
    fill = 0
    longest = 0
    traffic = 0
    for k in range(first, last + 1):
        latency = _op_tile(
            ops, slices, tensors, vector, engines, modes, throughput, vector_port, vector_latency, k, axis, size, size,
            full_tiles, parts, n_parts[k], work,
        )  # fmt: skip
        fill += latency
        longest = max(longest, latency)
        if rest > 0:
            _op_tile(
                ops, slices, tensors, vector, engines, modes, throughput, vector_port, vector_latency, k, axis, rest,
                size, 1, parts, n_parts[k], work,
            )  # fmt: skip
        weights = block_weight_bits(ops, slices, engines, modes, k, parts[k], n_parts[k], 1, 0)
        tiles = full_tiles + (rest > 0)
        traffic += weights * (tiles if blocks > 1 and not weight_outer else 1)
        for operand in range(2):
            root = external_input(ops, tensors, chain, k, operand)
            if root >= 0 and resident[root] == 0:
                load = input_tile_bits(ops, k, operand, axis, size)
                traffic += load * full_tiles * (blocks if weight_outer else 1)
                if rest > 0:
                    traffic += input_tile_bits(ops, k, operand, axis, rest) * (blocks if weight_outer else 1)
                fill += load * 1000 // bits_per_kilocycle
    if resident[ops[last, O_OUT]] == 0:
        traffic += tensors[ops[last, O_OUT], T_BITS]
        fill += output_tile_bits(ops, tensors, last, axis, size) * 1000 // bits_per_kilocycle
    dram = traffic * 1000 // bits_per_kilocycle
    busiest = dram
    for unit in range(n_engines + 1):
        busiest = max(busiest, work[W_TOTAL, unit])
    return busiest + fill - longest + dram // 16


@jit
def choose_tiles(
    ops: Any, slices: Any, tensors: Any, vector: Any, engines: Any, modes: Any, throughput: Any, vector_port: int,
    vector_latency: int, bits_per_kilocycle: int, capacity: int, weight_capacity: int, resident: Any, chains: Any,
    n_chains: int, parts: Any, n_parts: Any,
) -> Any:  # fmt: skip
    """Tile size, blocks, order and engine shares of every chain.

    Candidates are all sizes ⌈extent / T⌉ for T = 1 … extent whose working set fits beside the resident tensors.
    Returns (status, chain, bits needed, bits there); on failure the chain is the first that cannot be tiled.
    """
    return _choose_tiles(
        ops, slices, tensors, vector, engines, modes, throughput, vector_port, vector_latency, bits_per_kilocycle,
        capacity, weight_capacity, resident, chains, n_chains, parts, n_parts,
        np.zeros((ops.shape[0], parts.shape[1], N_PART), np.int64), np.zeros(ops.shape[0], np.int64),
        np.zeros((N_WORK, engines.shape[0] + 1), np.int64), np.zeros(ops.shape[0], np.int64),
        np.zeros(n_chains, np.int64),
    )  # fmt: skip


@inner
def _choose_tiles(
    ops: Any, slices: Any, tensors: Any, vector: Any, engines: Any, modes: Any, throughput: Any, vector_port: int,
    vector_latency: int, bits_per_kilocycle: int, capacity: int, weight_capacity: int, resident: Any, chains: Any,
    n_chains: int, parts: Any, n_parts: Any, trial: Any, n_trial: Any, work: Any, index: Any, live: Any,
) -> Any:  # fmt: skip
    resident_bits(tensors, chains, n_chains, resident, index, live)
    for c in range(n_chains):
        first, last = chains[c, C_FIRST], chains[c, C_FIRST] + chains[c, C_N] - 1
        extent = axis_extent(ops, first, chains[c, C_AXIS])
        best = -1
        short_weights = False
        previous = 0
        for tiles in range(1, extent + 1):
            size = ceil_div(extent, tiles)
            if size == previous:
                continue
            previous = size
            if live[c] + working_bits(ops, tensors, resident, chains[c], size) > capacity:
                continue
            split_chain(ops, slices, engines, modes, chains[c], size, trial, n_trial, work)
            blocks = 1
            if chains[c, C_N] == 1:
                blocks = _blocks_for(
                    ops, slices, engines, modes, first, chains[c, C_AXIS], trial[first], n_trial[first], weight_capacity
                )
                if blocks == 0:
                    short_weights = True
                    continue
                if blocks > 1:
                    blocks = used_blocks(ops, engines, modes, slices, first, trial[first], n_trial[first], blocks)
            for outer in range(2 if blocks > 1 else 1):
                cost = _estimate(
                    ops, slices, tensors, vector, engines, modes, throughput, vector_port, vector_latency,
                    bits_per_kilocycle, resident, chains[c], size, blocks, outer == 1, trial, n_trial, work,
                )  # fmt: skip
                if best < 0 or cost < best:
                    best = cost
                    chains[c, C_TILE] = size
                    chains[c, C_BLOCKS] = blocks
                    chains[c, C_WEIGHT_OUTER] = outer
                    for k in range(first, last + 1):
                        n_parts[k] = n_trial[k]
                        for p in range(n_trial[k]):
                            for column in range(N_PART):
                                parts[k, p, column] = trial[k, p, column]
        if best < 0:
            if short_weights:
                whole = ops[first, O_KIND] == KIND_VECTOR or chains[c, C_AXIS] == AXIS_GROUPS
                smallest = block_weight_bits(
                    ops, slices, engines, modes, first, trial[first], n_trial[first], 1 if whole else 1 << 20, 0
                )
                return STATUS_WEIGHTS, c, smallest * (1 if whole else 2), weight_capacity
            need = working_bits(ops, tensors, resident, chains[c], 1)
            return STATUS_ACTIVATIONS, c, live[c] + need, capacity
    return STATUS_OK, -1, 0, 0
