"""All ways to run the chains that begin with one op: tile sizes, engine shares, weight blocks, and what they cost.

`chain_table` does not read buffers of activations or the bus, so that designs which differ in those share its rows.
"""

from __future__ import annotations

from typing import Any

from accelsim.kernels.chain_search import F_BLOCKS, F_BURSTS, F_CYCLES, F_ENERGY, add_result, beaten, combine
from accelsim.kernels.engine_forms import ceil_div
from accelsim.kernels.jit import inner, jit
from accelsim.kernels.mapper import (
    N_PART,
    P_ENGINE,
    P_LANES,
    P_PIXELS,
    P_SLICE,
    P_UNITS,
    P_WIDTH,
    axis_extent,
    widest_weight_bits,
)  # fmt: skip
from accelsim.kernels.part_forms import used_size
from accelsim.kernels.splits import Scratch, given_last, op_options, part_energy, round_energy, set_items
from accelsim.kernels.sub_array import I_ROWS, I_TIMES, I_UNITS, least_load, load_cycles
from accelsim.kernels.systolic_forms import FORM_TREE
from accelsim.kernels.tables import BURST_BITS, Tables
from accelsim.kernels.tiling import block_units, block_weight_bits, used_blocks
from accelsim.optable import (
    AXIS_ROWS,
    E_FORM,
    E_LANES,
    E_PIPELINE,
    E_WIDTH,
    KIND_VECTOR,
    O_DEPTHWISE,
    O_KIND,
    O_OBITS,
    O_ROWS_W,
    O_SLICES,
    O_UNIT_CHANNELS,
    O_UNITS,
)  # fmt: skip

# A row: ops of the chain, tile size, weight blocks, most lanes used (0: all), cycles, weight bursts of one pass,
# femtojoules of the units, and which of the results at this size it is.  Of weights in blocks also their bits, and the
# bursts that store a position block by block: of all blocks and of the last.  The energy of a row of uncut weights has
# their way into the buffer.
ROW_COLUMNS: tuple[str, ...] = (
    "ops", "size", "blocks", "lanes", "cycles", "bursts", "energy", "choice", "bits", "stored", "last",
)  # fmt: skip
(
    R_OPS, R_SIZE, R_BLOCKS, R_LANES, R_CYCLES, R_BURSTS, R_ENERGY, R_CHOICE, R_BITS, R_STORED, R_LAST,
) = range(len(ROW_COLUMNS))  # fmt: skip
STATUS_ROOM = -1


@inner
def set_parts(
    tables: Tables, k: int, axis: int, size: int, full: int, rest: int, share: Any, items: Any, parts: Any
) -> int:
    """Parts of op k from the units per engine and slice, each on its fastest sub-array; returns their number."""
    n_slices = tables.slices.shape[1]
    count, left = 0, rest
    for part in range(tables.ops[k, O_SLICES]):
        for e in range(tables.engines.shape[0]):
            units = share[e * n_slices + part]
            if units == 0:
                continue
            n_items = set_items(tables, k, axis, size, full, rest, units, left, items)
            left -= given_last(axis, n_items, items)
            best = least_load(tables, k, e, part, items, n_items, 0, 0)
            parts[count, P_ENGINE], parts[count, P_SLICE], parts[count, P_UNITS] = e, part, units
            parts[count, P_LANES], parts[count, P_WIDTH], parts[count, P_PIXELS] = best[1], best[2], best[3]
            count += 1
    return count


@inner
def blocks_needed(tables: Tables, k: int, parts: Any, n_parts: int, capacity: int) -> int:
    """Fewest weight blocks of op k of which three fit the buffer (if none is so small: two); 0 when there are none."""
    total = block_weight_bits(tables.ops, tables.slices, tables.engines, tables.modes, k, parts, n_parts, 1, 0)
    for copies in (3, 2):
        blocks = max(2, ceil_div(total * copies, capacity))
        while blocks <= tables.ops[k, O_UNITS]:
            bits = block_weight_bits(
                tables.ops, tables.slices, tables.engines, tables.modes, k, parts, n_parts, blocks, 0
            )
            if bits * copies <= capacity:
                return used_blocks(tables.ops, tables.engines, tables.modes, tables.slices, k, parts, n_parts, blocks)
            largest, finest = 0, True
            for p in range(n_parts):
                units = block_units(tables.ops, tables.engines, tables.modes, tables.slices, k, parts[p], blocks)
                one = block_units(
                    tables.ops, tables.engines, tables.modes, tables.slices, k, parts[p], tables.ops[k, O_UNITS]
                )
                finest &= units <= one
                largest = max(largest, units)
            if finest:
                break
            blocks += 1
    return 0


@inner
def _block_load(
    tables: Tables, k: int, size: int, full: int, rest: int, parts: Any, n_parts: int, blocks: int, s: Scratch
) -> int:
    """Cycles of all tiles and weight blocks of op k, at least one tile and the pipeline; `s.energy[0, 0]` gets energy.

    Lanes set the size of a block (of a depthwise op the width), so a part keeps those that it has; the other sizes of
    its sub-array, which are written to `parts`, are those that take least.
    """
    n_engines = tables.engines.shape[0]
    s.energy[0, 0] = 0
    for e in range(n_engines):
        s.load[0, 0, e] = s.tile[0, 0, e] = 0
    for p in range(n_parts):
        e, units = parts[p, P_ENGINE], parts[p, P_UNITS]
        share = block_units(tables.ops, tables.engines, tables.modes, tables.slices, k, parts[p], blocks)
        whole = units // share
        n = 0
        for rows, times in ((size, full), (rest, 1)):
            s.items[n, I_UNITS], s.items[n, I_TIMES] = share, times * whole
            s.items[n + 1, I_UNITS], s.items[n + 1, I_TIMES] = units - whole * share, times
            s.items[n, I_ROWS] = s.items[n + 1, I_ROWS] = rows * tables.ops[k, O_ROWS_W]
            n += 2
        engine, wide = tables.engines[e], tables.ops[k, O_DEPTHWISE] == 1
        lanes = 0 if wide else used_size(parts[p, P_LANES], engine[E_LANES])
        width = used_size(parts[p, P_WIDTH], engine[E_WIDTH]) if wide else 0
        load, lanes, width, pixels = least_load(tables, k, e, parts[p, P_SLICE], s.items, n, lanes, width)
        parts[p, P_LANES] = lanes if lanes < engine[E_LANES] else 0
        parts[p, P_WIDTH] = width if width < engine[E_WIDTH] else 0
        parts[p, P_PIXELS] = pixels
        # One tile is the first half of the list.
        s.items[0, I_TIMES], s.items[1, I_TIMES] = whole, 1
        s.tile[0, 0, e] += load_cycles(tables, k, e, parts[p, P_SLICE], s.items, 2, lanes, width, pixels)
        s.items[0, I_TIMES], s.items[1, I_TIMES] = whole * full, full
        s.load[0, 0, e] += load
        if s.rates.size > 0:
            for column in range(N_PART):
                s.part[column] = parts[p, column]
            s.energy[0, 0] += part_energy(tables, k, n, s) - int(s.idle[e] * load)
    longest = 0
    for e in range(n_engines):
        if s.load[0, 0, e] > 0:
            longest = max(longest, s.load[0, 0, e], s.tile[0, 0, e] + tables.engines[e, E_PIPELINE])
    return longest


@inner
def _set_block_parts(tables: Tables, k: int, share: Any, most: int, parts: Any) -> int:
    """Parts of op k on at most `most` lanes of every engine (depthwise: lane inputs); returns their number."""
    n_slices = tables.slices.shape[1]
    count = 0
    for part in range(tables.ops[k, O_SLICES]):
        for e in range(tables.engines.shape[0]):
            if share[e * n_slices + part] > 0:
                parts[count, P_ENGINE], parts[count, P_SLICE] = e, part
                parts[count, P_UNITS] = share[e * n_slices + part]
                wide = tables.ops[k, O_DEPTHWISE] == 1
                fewer = (
                    tables.engines[e, E_FORM] == FORM_TREE and most < tables.engines[e, E_WIDTH if wide else E_LANES]
                )
                parts[count, P_LANES] = most if fewer and not wide else 0
                parts[count, P_WIDTH] = most if fewer and wide else 0
                parts[count, P_PIXELS] = 0
                count += 1
    return count


@inner
def _combine_blocks(
    tables: Tables, k: int, size: int, full: int, rest: int, capacity: int, s: Scratch, parts: Any
) -> int:
    """As `combine` for one op whose weights pass in blocks.

    The choice of a result is its option and its lanes.  Fewer lanes make finer blocks; they are tried where whole
    blocks are not the fewest possible, or not as fast as uncut weights.
    """
    n_engines = tables.engines.shape[0]
    most = 0
    for e in range(n_engines):
        most = max(most, tables.engines[e, E_WIDTH if tables.ops[k, O_DEPTHWISE] == 1 else E_LANES])
    n_found = 0
    for m in range(s.n[0]):
        ideal = 0
        for e in range(n_engines):
            for part in range(tables.slices.shape[1]):
                if s.x_share[0, m, e * tables.slices.shape[1] + part] > 0:
                    ideal = max(ideal, s.x[0, m, e])
        least_bursts, fewest = 0, 0
        for lanes in range(most, 0, -1):
            n_parts = _set_block_parts(tables, k, s.x_share[0, m], lanes, parts)
            if fewest == 0:
                total = block_weight_bits(
                    tables.ops, tables.slices, tables.engines, tables.modes, k, parts, n_parts, 1, 0
                )
                fewest = max(2, ceil_div(total * 2, capacity))
                least_bursts = ceil_div(total, tables.scalars[BURST_BITS])
            if s.rates.size == 0 and beaten(s, n_found, ideal, least_bursts, 0, fewest):
                break
            blocks = blocks_needed(tables, k, parts, n_parts, capacity)
            if blocks == 0:
                continue
            cycles = _block_load(tables, k, size, full, rest, parts, n_parts, blocks, s)
            bursts = _block_bursts(tables, k, parts, n_parts, blocks)
            if beaten(s, n_found, cycles, bursts, s.energy[0, 0], blocks):
                continue
            n_found = add_result(s, n_found, cycles, bursts, s.energy[0, 0], blocks)
            if n_found < 0:
                return STATUS_ROOM
            s.found_option[n_found, 0], s.found_option[n_found, 1] = m, lanes
            n_found += 1
    return n_found


@inner
def _block_bursts(tables: Tables, k: int, parts: Any, n_parts: int, blocks: int) -> int:
    """Bursts of one pass of all weight blocks of op k."""
    total = 0
    for block in range(blocks):
        bits = block_weight_bits(
            tables.ops, tables.slices, tables.engines, tables.modes, k, parts, n_parts, blocks, block
        )
        total += ceil_div(bits, tables.scalars[BURST_BITS])
    return total


@inner
def _set_block_row(tables: Tables, k: int, parts: Any, n_parts: int, row: Any) -> None:
    """Columns of a row of op k that depend on how its blocks divide weights and output channels."""
    blocks = row[R_BLOCKS]
    channel_bits = tables.ops[k, O_UNIT_CHANNELS] * tables.ops[k, O_OBITS]
    for block in range(blocks):
        units = 0
        for p in range(n_parts):
            share = block_units(tables.ops, tables.engines, tables.modes, tables.slices, k, parts[p], blocks)
            units += max(0, min(share, parts[p, P_UNITS] - block * share))
        row[R_LAST] = ceil_div(units * channel_bits, tables.scalars[BURST_BITS])
        row[R_STORED] += row[R_LAST]
        row[R_BITS] += block_weight_bits(
            tables.ops, tables.slices, tables.engines, tables.modes, k, parts, n_parts, blocks, block
        )


@inner
def must_cut(tables: Tables, first: int, axis: int, capacity: int) -> bool:
    """True when the weights of an op take more than three quarters of the buffer and can be cut into blocks."""
    cuttable = tables.ops[first, O_KIND] != KIND_VECTOR and axis == AXIS_ROWS
    return cuttable and widest_weight_bits(tables.ops, tables.slices, first) * 4 > capacity * 3


@inner
def set_options(tables: Tables, first: int, n_ops: int, axis: int, size: int, s: Scratch) -> int:
    """Options of `n_ops` ops from `first` at a tile size; returns how many ops from the first on have any, or
    STATUS_ROOM.
    """
    extent = axis_extent(tables.ops, first, axis)
    full = extent // size
    for place in range(n_ops):
        n = op_options(tables, first + place, place, axis, size, full, extent - full * size, s)
        if n <= 0:
            return place if n == 0 else STATUS_ROOM
        if s.rates.size > 0:
            round_energy(place, s)
    return n_ops


@inner
def set_results(
    tables: Tables, first: int, n_ops: int, axis: int, size: int, cut: bool, capacity: int, s: Scratch, parts: Any
) -> int:
    """Best combinations of the first `n_ops` ops, whose options are there; for a cut op those of its blocks."""
    if not cut:
        return combine(s, n_ops)
    extent = axis_extent(tables.ops, first, axis)
    full = extent // size
    return _combine_blocks(tables, first, size, full, extent - full * size, capacity, s, parts)


@jit
def chain_table(
    tables: Tables, first: int, n_ops: int, axis: int, ends: Any, sizes: Any, capacity: int, s: Scratch, parts: Any,
    rows: Any,
) -> int:  # fmt: skip
    """Write the rows of all chains of up to `n_ops` ops from `first`; `ends[i]` says that a chain may end after op i.

    `capacity` is that of the weight buffer.  Returns the number of rows, or STATUS_ROOM when an array is too small.
    """
    count = 0
    cut_first = must_cut(tables, first, axis, capacity)
    if not cut_first and widest_weight_bits(tables.ops, tables.slices, first) > capacity:
        return 0
    for size in sizes:
        there = set_options(tables, first, n_ops, axis, size, s)
        if there == STATUS_ROOM:
            return STATUS_ROOM
        for end in range(there):
            if ends[end] == 0:
                continue
            cut = cut_first and end == 0
            n_found = set_results(tables, first, end + 1, axis, size, cut, capacity, s, parts)
            if n_found < 0 or count + n_found > rows.shape[0]:
                return STATUS_ROOM
            for r in range(n_found):
                rows[count, R_OPS], rows[count, R_SIZE], rows[count, R_CHOICE] = end + 1, size, r
                rows[count, R_CYCLES], rows[count, R_BURSTS] = s.found[r, F_CYCLES], s.found[r, F_BURSTS]
                rows[count, R_ENERGY], rows[count, R_BLOCKS] = s.found[r, F_ENERGY], s.found[r, F_BLOCKS]
                rows[count, R_LANES] = rows[count, R_BITS] = rows[count, R_STORED] = rows[count, R_LAST] = 0
                if cut:
                    rows[count, R_LANES] = s.found_option[r, 1]
                    n_parts = _set_block_parts(
                        tables, first, s.x_share[0, s.found_option[r, 0]], rows[count, R_LANES], parts
                    )
                    _set_block_row(tables, first, parts, n_parts, rows[count])
                count += 1
    return count


@jit
def chain_parts(
    tables: Tables, first: int, n_ops: int, axis: int, size: int, choice: int, capacity: int, s: Scratch, parts: Any,
    n_parts: Any,
) -> int:  # fmt: skip
    """Write the parts of the ops of one row of `chain_table`, by place in the chain; returns STATUS_ROOM or 0."""
    extent = axis_extent(tables.ops, first, axis)
    full = extent // size
    rest = extent - full * size
    cut = n_ops == 1 and must_cut(tables, first, axis, capacity)
    if set_options(tables, first, n_ops, axis, size, s) < n_ops:
        return STATUS_ROOM
    if set_results(tables, first, n_ops, axis, size, cut, capacity, s, parts[0]) < 0:
        return STATUS_ROOM
    if cut:
        share = s.x_share[0, s.found_option[choice, 0]]
        blocks = s.found[choice, F_BLOCKS]
        n_parts[0] = _set_block_parts(tables, first, share, s.found_option[choice, 1], parts[0])
        _block_load(tables, first, size, full, rest, parts[0], n_parts[0], blocks, s)
        return 0
    for place in range(n_ops):
        n_parts[place] = 0
        if tables.ops[first + place, O_KIND] != KIND_VECTOR:
            share = s.x_share[place, s.found_option[choice, place]]
            n_parts[place] = set_parts(tables, first + place, axis, size, full, rest, share, s.items, parts[place])
    return 0
