"""What a chain costs beside its neighbours: buffer bits and bus time, for every set of inputs that is on chip.

A list belongs to one chain, one set of resident inputs and one place of its output.  It holds the ways to run the
chain that no other beats in buffer bits, time and energy, fewest bits first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from accelsim.kernels.chain_table import (
    R_BITS,
    R_BLOCKS,
    R_BURSTS,
    R_CYCLES,
    R_ENERGY,
    R_LAST,
    R_OPS,
    R_SIZE,
    R_STORED,
)
from accelsim.kernels.engine_forms import ceil_div
from accelsim.kernels.jit import inner, jit
from accelsim.kernels.mapper import (
    C_AXIS,
    C_FIRST,
    C_HALO,
    C_N,
    axis_extent,
    external_input,
    load_bits,
    load_runs,
    load_slots,
    output_tile_bits,
    ring_size,
)  # fmt: skip
from accelsim.kernels.tables import BURST_BITS, BURST_TICKS, READ_LATENCY, TICKS, WRITE_LATENCY, Tables
from accelsim.kernels.tile_counts import ACT_READ, ACT_WRITE, DRAM_READ, DRAM_WRITE, PER_ENGINE, WEIGHT_WRITE
from accelsim.optable import (
    AXIS_ROWS,
    KIND_CONV,
    O_IN0_ROOT0,
    O_KERNEL_H,
    O_KIND,
    O_OUT,
    O_ROWS_H,
    O_ROWS_W,
    O_STRIDE,
    T_POSITIONS,
)

# A way to run a chain: row of its table, halo kept, weights outermost, buffer bits, ticks, femtojoules.
WAY_COLUMNS: tuple[str, ...] = ("row", "halo", "outer", "bits", "ticks", "energy_fj")
W_ROW, W_HALO, W_OUTER, W_BITS, W_TICKS, W_ENERGY = range(len(WAY_COLUMNS))


class CostScratch(NamedTuple):
    """Room for the terms of every way: without its inputs, and of every input (`roots`) that may be on chip."""

    chain: Any  # [chain columns]
    way: Any  # [ways, 3]: row, halo, outer
    fixed: Any  # [ways, 4]: the terms below
    cycles: Any  # [ways]: ticks of the units
    store: Any  # [ways, 4]: the terms of storing the output
    load: Any  # [ways, roots, 4]: the terms of loading an input
    rates: Any  # [count columns]: femtojoules of a count; empty when energy is not asked for


# Terms: buffer bits, bus ticks, ticks before the first tile without latency (of a store: behind the last), femtojoules.
_BITS, _BUS, _EDGE, _ENERGY = range(4)


@inner
def _bursts(tables: Tables, bits: int, runs: int) -> int:
    """Bursts of a transfer of `bits` in equal runs of whole bursts."""
    return 0 if bits == 0 else runs * ceil_div(ceil_div(bits, runs), tables.scalars[BURST_BITS])


@inner
def _move(tables: Tables, c: CostScratch, out: Any, bits: int, bursts: int, bus: int, sram: int) -> None:
    """Add a transfer to the terms: its bus time, and its energy at the `bus` and `sram` count columns."""
    out[_BUS] += bursts * tables.scalars[BURST_TICKS]
    if c.rates.size > 0:
        base = tables.engines.shape[0] * PER_ENGINE
        moved = bursts * tables.scalars[BURST_BITS]
        out[_ENERGY] += int(moved * c.rates[base + bus] + bits * c.rates[base + sram])


@inner
def _tiles(tables: Tables, k: int, axis: int, size: int) -> Any:
    extent = axis_extent(tables.ops, k, axis)
    return extent // size, extent - extent // size * size


@inner
def _load_terms(tables: Tables, c: CostScratch, k: int, operand: int, size: int, blocks: int, out: Any) -> None:
    """Add the terms of an input that is loaded tile by tile, all of it for every one of `blocks`."""
    axis = c.chain[C_AXIS]
    full, rest = _tiles(tables, k, axis, size)
    runs = load_runs(tables.ops, tables.tensors, k, operand, axis)
    largest = load_bits(tables.ops, c.chain, k, operand, size, True)
    out[_BITS] += largest * load_slots(tables.ops, c.chain, k, operand, size)
    edge = 0
    for part, times, is_first in ((size, 1, True), (size, full - 1, False), (rest, 1, False)):
        if part > 0 and times > 0:
            bits = load_bits(tables.ops, c.chain, k, operand, part, is_first)
            bursts = _bursts(tables, bits, runs)
            _move(tables, c, out, bits * times * blocks, bursts * times * blocks, DRAM_READ, ACT_WRITE)
            if is_first:
                edge = bursts * tables.scalars[BURST_TICKS]
    if k == c.chain[C_FIRST]:
        out[_EDGE] += edge


@inner
def _store_terms(tables: Tables, c: CostScratch, row: Any, outer: int, out: Any) -> None:
    """Write the terms of storing the output tile by tile; of outer blocks, the channels of a block at a time."""
    axis, k, size = c.chain[C_AXIS], c.chain[C_FIRST] + c.chain[C_N] - 1, row[R_SIZE]
    full, rest = _tiles(tables, k, axis, size)
    out[_BITS] = output_tile_bits(tables.ops, tables.tensors, k, axis, size) * (2 if full + (rest > 0) > 1 else 1)
    out[_BUS] = out[_EDGE] = out[_ENERGY] = 0
    for part, times in ((size, full), (rest, 1)):
        if part == 0:
            continue
        runs = 1 if axis == AXIS_ROWS else max(1, tables.tensors[tables.ops[k, O_OUT], T_POSITIONS])
        bits = output_tile_bits(tables.ops, tables.tensors, k, axis, part)
        bursts = last = _bursts(tables, bits, runs)
        if outer == 1:
            positions = part * tables.ops[k, O_ROWS_W]
            bursts, last = positions * row[R_STORED], positions * row[R_LAST]
        _move(tables, c, out, bits * times, bursts * times, DRAM_WRITE, ACT_READ)
        out[_EDGE] = last * tables.scalars[BURST_TICKS] + tables.scalars[WRITE_LATENCY]


@inner
def _may_keep_halo(tables: Tables, first: int, axis: int, size: int) -> bool:
    """Whether tiles of a first convolution share rows, all of them with the tile before."""
    if axis != AXIS_ROWS or tables.ops[first, O_KIND] != KIND_CONV or size >= tables.ops[first, O_ROWS_H]:
        return False
    shared = tables.ops[first, O_KERNEL_H] - tables.ops[first, O_STRIDE]
    return 0 < shared <= size * tables.ops[first, O_STRIDE]


@inner
def _set_way(
    tables: Tables, c: CostScratch, w: int, row: Any, number: int, outer: int, halo: int, roots: Any, n_roots: int
) -> None:
    """Fill the terms of one way to run the chain of `c.chain`."""
    size, blocks = row[R_SIZE], row[R_BLOCKS]
    axis, first = c.chain[C_AXIS], c.chain[C_FIRST]
    last = first + c.chain[C_N] - 1
    full, rest = _tiles(tables, first, axis, size)
    passes = full + (rest > 0) if blocks > 1 and outer == 0 else 1
    c.way[w, 0], c.way[w, 1], c.way[w, 2] = number, halo, outer
    c.chain[C_HALO] = halo
    c.cycles[w] = row[R_CYCLES] * tables.scalars[TICKS]
    for term in range(4):
        c.fixed[w, term] = 0
        for r in range(n_roots):
            c.load[w, r, term] = 0
    c.fixed[w, _ENERGY] = row[R_ENERGY]
    _move(tables, c, c.fixed[w], row[R_BITS] * passes, row[R_BURSTS] * passes, DRAM_READ, WEIGHT_WRITE)
    loads = blocks if outer == 1 else 1
    for k in range(first, last + 1):
        if k < last:
            slots = ring_size(tables.ops, c.chain, k, size)
            c.fixed[w, _BITS] += output_tile_bits(tables.ops, tables.tensors, k, axis, size) * slots
        for operand in range(2):
            root = external_input(tables.ops, tables.tensors, c.chain, k, operand)
            if root < 0:
                continue
            place = -1
            for r in range(n_roots):
                if roots[r] == root:
                    place = r
            if place < 0:
                _load_terms(tables, c, k, operand, size, loads, c.fixed[w])
            else:
                _load_terms(tables, c, k, operand, size, loads, c.load[w, place])
    _store_terms(tables, c, row, outer, c.store[w])


@inner
def _place(ways: Any, start: int, end: int, bits: int, ticks: int, energy: int) -> int:
    """Place of a way in the list [start, end), fewest bits first; −1 when another is no worse."""
    place = start
    while place < end and ways[place, W_BITS] <= bits:
        if ways[place, W_TICKS] <= ticks and ways[place, W_ENERGY] <= energy:
            return -1
        place += 1
    return place


@inner
def _add_way(ways: Any, start: int, end: int, way: Any, bits: int, ticks: int, energy: int) -> int:
    """Add a way to the list [start, end) unless another is no worse; returns the new end, or −1 without room."""
    place = _place(ways, start, end, bits, ticks, energy)
    if place < 0:
        return end
    # Those behind the place need as many bits or more.
    kept = place
    for other in range(place, end):
        if ways[other, W_TICKS] < ticks or ways[other, W_ENERGY] < energy:
            if kept < other:
                for column in range(ways.shape[1]):
                    ways[kept, column] = ways[other, column]
            kept += 1
    if kept + 1 > ways.shape[0]:
        return -1
    for other in range(kept, place, -1):
        for column in range(ways.shape[1]):
            ways[other, column] = ways[other - 1, column]
    ways[place, W_ROW], ways[place, W_HALO], ways[place, W_OUTER] = way[0], way[1], way[2]
    ways[place, W_BITS], ways[place, W_TICKS], ways[place, W_ENERGY] = bits, ticks, energy
    return kept + 1


@jit
def chain_ways(
    tables: Tables, first: int, axis: int, rows: Any, n_rows: int, n_ops: int, ends: Any, roots: Any, n_roots: Any,
    c: CostScratch, lists: Any, ways: Any,
) -> int:  # fmt: skip
    """Lists of the chains from op `first`: for every end, set of resident inputs, and output stored or resident.

    `roots` are the inputs from outside that may be on chip, in order of their first reader, `n_roots[e]` how many the
    chain that ends after op e has.  `lists[e, mask, resident output]` gets (start, end).  Returns the number of ways,
    −1 without room.
    """
    count = 0
    c.chain[C_FIRST], c.chain[C_AXIS] = first, axis
    window = tables.ops[first, O_IN0_ROOT0]
    for end in range(n_ops):
        if ends[end] == 0:
            continue
        c.chain[C_N] = end + 1
        n = 0
        for number in range(n_rows):
            if rows[number, R_OPS] != end + 1:
                continue
            halos = 2 if _may_keep_halo(tables, first, axis, rows[number, R_SIZE]) else 1
            for outer in range(2 if rows[number, R_BLOCKS] > 1 else 1):
                for halo in range(halos):
                    if n >= c.way.shape[0]:
                        return -1
                    _set_way(tables, c, n, rows[number], number, outer, halo, roots, n_roots[end])
                    n += 1
        for mask in range(1 << n_roots[end]):
            for resident in range(2):
                start = count
                for w in range(n):
                    # Nothing is loaded of a resident input, so there is no halo to keep.
                    if c.way[w, 1] == 1 and mask & 1 == 1 and n_roots[end] > 0 and roots[0] == window:
                        continue
                    bits, bus, edges, energy = c.fixed[w, 0], c.fixed[w, 1], c.fixed[w, 2], c.fixed[w, 3]
                    for r in range(n_roots[end]):
                        if mask >> r & 1 == 0:
                            bits += c.load[w, r, 0]
                            bus += c.load[w, r, 1]
                            edges += c.load[w, r, 2]
                            energy += c.load[w, r, 3]
                    # Loads follow each other on the bus: their latency counts once.
                    edges += tables.scalars[READ_LATENCY] if edges > 0 else 0
                    if resident == 0:
                        bits += c.store[w, 0]
                        bus += c.store[w, 1]
                        edges += c.store[w, 2]
                        energy += c.store[w, 3]
                    ticks = max(bus, edges + c.cycles[w])
                    if c.rates.size == 0:
                        # Of ways that take equally long, the one with less traffic and fewer tiles.
                        energy = bus + rows[c.way[w, 0], R_OPS] * tables.scalars[TICKS] * ceil_div(
                            axis_extent(tables.ops, first, axis), rows[c.way[w, 0], R_SIZE]
                        )
                    count = _add_way(ways, start, count, c.way[w], bits, ticks, energy)
                    if count < 0:
                        return -1
                lists[end, mask, resident, 0], lists[end, mask, resident, 1] = start, count
    return count
