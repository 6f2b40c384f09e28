"""Every way to share a tile of an op among the engines: the options from which the exhaustive mapper builds chains.

docs/decisions/0010-exhaustive-mapper.md defines the objective and says why these shares suffice.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from accelsim.kernels.engine_forms import ceil_div
from accelsim.kernels.jit import inner
from accelsim.kernels.mapper import (
    P_ENGINE,
    P_LANES,
    P_PIXELS,
    P_SLICE,
    P_WIDTH,
    part_weight_bits,
    vector_tile_cycles,
    widest_weight_bits,
)  # fmt: skip
from accelsim.kernels.part_forms import unit_granule
from accelsim.kernels.sub_array import I_ROWS, I_TIMES, I_UNITS, least_load, whole_is_best
from accelsim.kernels.tables import BURST_BITS, VECTOR_LATENCY, VECTOR_PORT, Tables
from accelsim.kernels.tile_counts import PER_ENGINE, WEIGHT_READ, WEIGHT_WRITE, count_part
from accelsim.optable import (
    AXIS_GROUPS,
    E_PIPELINE,
    KIND_VECTOR,
    M_MODE,
    O_KIND,
    O_PARAM_BITS,
    O_ROWS_H,
    O_ROWS_W,
    O_SLICES,
    O_UNIT_WEIGHTS,
    O_UNITS,
    S_COMBO,
    S_UNITS,
)  # fmt: skip

# Energies of options are exact to one part in this: the bracket of the optimum of energy and EDP.
ENERGY_STEPS = 256


class Scratch(NamedTuple):
    """Room for the options of the ops of one chain, and for their combinations (`chain_search`).

    n is the number of engines; the n + 4 columns of `x` are cycles per engine, of the vector unit, of a tile's way
    through the chain, weight bursts and femtojoules.
    """

    items: Any  # [MAX_ITEMS, 3]
    able: Any  # [engines]: slice that an engine would execute, or -1
    points: Any  # candidate shares of the first able engine
    odometer: Any  # [engines]
    load: Any  # [2, options, engines]: cycles of all tiles, of options under construction
    tile: Any  # [2, options, engines]: cycles of one tile
    bits: Any  # [2, options]: weight bits
    energy: Any  # [2, options]: femtojoules
    share: Any  # [2, options, engines * slices]: units
    x: Any  # [ops, options, engines + 4]
    x_share: Any  # [ops, options, engines * slices]
    n: Any  # [ops]: number of options
    labels: Any  # [2, labels, engines + 4]
    back: Any  # [ops, labels, 2]: label before, option
    flexible: Any  # [ops]: ops with more than one option
    rest: Any  # [ops, engines + 4]: least that the ops from here on add
    found: Any  # [results, 4]: cycles, weight bursts, femtojoules, weight blocks
    found_option: Any  # [results, ops]: option of every op
    part: Any  # [part columns]
    counts: Any  # [count columns]
    rates: Any  # [count columns]: femtojoules; empty when energy is not asked for
    idle: Any  # [engines + 1]: femtojoules of an idle cycle, vector unit last


@inner
def set_items(
    tables: Tables, k: int, axis: int, size: int, full: int, rest: int, units: int, left: int, items: Any
) -> int:
    """The tiles that a share of `units` of op k is executed as; returns the length of the list.

    Along the groups axis `units` is per full tile, and a shorter last tile gives its part of it, rounded up, while
    `left` units of that tile last.
    """
    if axis == AXIS_GROUPS:
        rows = tables.ops[k, O_ROWS_H] * tables.ops[k, O_ROWS_W]
        items[0, I_UNITS], items[0, I_ROWS], items[0, I_TIMES] = units, rows, full
        items[1, I_UNITS], items[1, I_ROWS], items[1, I_TIMES] = min(left, ceil_div(units * rest, size)), rows, 1
    else:
        width = tables.ops[k, O_ROWS_W]
        items[0, I_UNITS], items[0, I_ROWS], items[0, I_TIMES] = units, size * width, full
        items[1, I_UNITS], items[1, I_ROWS], items[1, I_TIMES] = units, rest * width, 1
    return 2 if rest > 0 else 1


@inner
def given_last(axis: int, n_items: int, items: Any) -> int:
    """Units of a shorter last tile that a share has taken along the groups axis."""
    return items[1, I_UNITS] if axis == AXIS_GROUPS and n_items == 2 else 0


@inner
def _points(
    tables: Tables, k: int, axis: int, size: int, full: int, rest: int, e: int, units: int, room: int, s: Scratch
) -> int:
    """Shares of engine e at which another unit would make it take longer; −1 when there are more than `room`.

    Multiples of the granule, of a full tile and of a shorter last one, and all but one, while ports keep up with the
    array; else every number.
    """
    part = s.able[e]
    granule = unit_granule(tables.ops, tables.engines, tables.modes, k, tables.slices[k, part, S_COMBO], e, 0, 0)
    n_items = set_items(tables, k, axis, size, full, rest, min(units, granule), rest, s.items)
    step = granule if whole_is_best(tables, k, e, part, s.items, n_items) else 1
    count = 0
    for share in range(units):
        # All but one: an engine left without units would be charged with the op's tile.
        ends = share % step == 0 or share == units - 1
        if axis == AXIS_GROUPS and not ends:
            last = ceil_div(share * rest, size)
            ends = last % step == 0 and ceil_div((share + 1) * rest, size) > last
        if ends and count + 2 > room:
            return -1
        if ends:
            s.points[e, count] = share
            count += 1
    s.points[e, count] = units
    return count + 1


@inner
def _add_share(
    tables: Tables, k: int, axis: int, size: int, full: int, rest: int, e: int, units: int, left: int, now: int, n: int,
    s: Scratch,
) -> int:  # fmt: skip
    """Extend the option at n of the new generation by `units` on engine e; returns what is left of the last tile."""
    part = s.able[e]
    n_items = set_items(tables, k, axis, size, full, rest, units, left, s.items)
    left -= given_last(axis, n_items, s.items)
    load, lanes, width, pixels = least_load(tables, k, e, part, s.items, n_items, 0, 0)
    if s.rates.size > 0:
        s.part[P_ENGINE], s.part[P_SLICE] = e, part
        s.part[P_LANES], s.part[P_WIDTH], s.part[P_PIXELS] = lanes, width, pixels
        s.energy[now, n] += part_energy(tables, k, n_items, s) - int(s.idle[e] * load)
    s.items[0, I_TIMES] = 1
    tile = least_load(tables, k, e, part, s.items, 1, 0, 0)[0]
    s.load[now, n, e] += load
    s.tile[now, n, e] += tile
    s.share[now, n, e * tables.slices.shape[1] + part] = units
    s.bits[now, n] += part_weight_bits(tables.ops, tables.slices, k, part, units)
    return left


@inner
def part_energy(tables: Tables, k: int, n_items: int, s: Scratch) -> int:
    """Femtojoules of the tiles of `s.items` as part `s.part`, without DRAM and idle time."""
    for c in range(s.counts.size):
        s.counts[c] = 0
    for n in range(n_items):
        if s.items[n, I_UNITS] > 0 and s.items[n, I_ROWS] > 0:
            count_part(tables, s.counts, k, s.part, s.items[n, I_UNITS], s.items[n, I_ROWS], s.items[n, I_TIMES])
    energy = 0.0
    for c in range(s.counts.size):
        energy += s.counts[c] * s.rates[c]
    return int(energy)


@inner
def _copy(s: Scratch, old: int, m: int, now: int, n: int) -> None:
    s.bits[now, n], s.energy[now, n] = s.bits[old, m], s.energy[old, m]
    for e in range(s.load.shape[2]):
        s.load[now, n, e], s.tile[now, n, e] = s.load[old, m, e], s.tile[old, m, e]
    for p in range(s.share.shape[2]):
        s.share[now, n, p] = s.share[old, m, p]


@inner
def _share_out(
    tables: Tables, k: int, axis: int, size: int, full: int, rest: int, units: int, old: int, count: int, s: Scratch
) -> int:
    """All shares of `units` among the engines of `s.able`, combined with `count` options of generation `old`.

    Returns their number in the other generation, −1 when there is no room, 0 when no engine is able.
    """
    now = 1 - old
    n_engines = s.able.shape[0]
    last, able = -1, 0
    for e in range(n_engines):
        if s.able[e] >= 0:
            last = e
            able += 1
    room = s.points.shape[1]
    if able == 0:
        return 0
    for e in range(n_engines):
        s.odometer[e, 1] = 1
        s.odometer[e, 0] = 0
        if s.able[e] >= 0 and e != last:
            s.odometer[e, 1] = _points(tables, k, axis, size, full, rest, e, units, room, s)
            if s.odometer[e, 1] < 0:
                return -1
    made = 0
    while True:
        left = units
        for e in range(n_engines):
            if s.able[e] >= 0 and e != last:
                left -= s.points[e, s.odometer[e, 0]]
        if left >= 0:
            for m in range(count):
                if made >= room:
                    return -1
                _copy(s, old, m, now, made)
                last_left = rest
                for e in range(n_engines):
                    share = left if e == last else (s.points[e, s.odometer[e, 0]] if s.able[e] >= 0 else 0)
                    if share > 0:
                        last_left = _add_share(tables, k, axis, size, full, rest, e, share, last_left, now, made, s)
                made += 1
        # The next combination of points.
        e = 0
        while e < n_engines and (s.odometer[e, 0] + 1 >= s.odometer[e, 1]):
            s.odometer[e, 0] = 0
            e += 1
        if e == n_engines:
            return made
        s.odometer[e, 0] += 1


@inner
def _array_options(tables: Tables, k: int, axis: int, size: int, full: int, rest: int, s: Scratch) -> Any:
    """(options, generation) of an array op: its slices of fixed size one after the other, then the balanced ones."""
    n_engines = tables.engines.shape[0]
    s.bits[0, 0] = s.energy[0, 0] = 0
    for e in range(n_engines):
        s.load[0, 0, e] = s.tile[0, 0, e] = 0
    for p in range(s.share.shape[2]):
        s.share[0, 0, p] = 0
    count, now = 1, 0
    balanced = False
    for part in range(tables.ops[k, O_SLICES]):
        units = size if axis == AXIS_GROUPS else tables.slices[k, part, S_UNITS]
        balanced |= units < 0
        if units <= 0:
            continue
        for e in range(n_engines):
            s.able[e] = part if tables.modes[tables.slices[k, part, S_COMBO], e, M_MODE] >= 0 else -1
        count, now = _share_out(tables, k, axis, size, full, rest, units, now, count, s), 1 - now
        if count <= 0:
            return count, now
    if balanced:
        for e in range(n_engines):
            s.able[e] = -1
            for part in range(tables.ops[k, O_SLICES] - 1, -1, -1):
                mode = tables.modes[tables.slices[k, part, S_COMBO], e, M_MODE]
                if tables.slices[k, part, S_UNITS] < 0 and mode >= 0:
                    s.able[e] = part
        count, now = _share_out(tables, k, axis, size, full, rest, tables.ops[k, O_UNITS], now, count, s), 1 - now
    return count, now


@inner
def op_options(tables: Tables, k: int, place: int, axis: int, size: int, full: int, rest: int, s: Scratch) -> int:
    """Write the options of op k at a tile size to `s.x[place]` and `s.x_share[place]`.

    Returns their number, −1 when there is no room for all, 0 when no engine can execute the op.
    """
    n_engines = tables.engines.shape[0]
    burst = tables.scalars[BURST_BITS]
    if tables.ops[k, O_KIND] == KIND_VECTOR:
        port, delay = tables.scalars[VECTOR_PORT], tables.scalars[VECTOR_LATENCY]
        load, tile = vector_tile_cycles(
            tables.ops, tables.tensors, tables.vector, tables.throughput, port, delay, k, axis, size
        )
        load *= full
        if rest > 0:
            load += vector_tile_cycles(
                tables.ops, tables.tensors, tables.vector, tables.throughput, port, delay, k, axis, rest
            )[0]
        for e in range(n_engines):
            s.x[place, 0, e] = tile
        s.x[place, 0, n_engines], s.x[place, 0, n_engines + 1] = load, tile
        s.x[place, 0, n_engines + 2] = ceil_div(widest_weight_bits(tables.ops, tables.slices, k), burst)
        s.x[place, 0, n_engines + 3] = 0
        if s.rates.size > 0:
            # What depends on the tiles: parameters are read for each; all else of a vector op is always the same.
            read = tables.ops[k, O_PARAM_BITS] * (full + (rest > 0)) * s.rates[n_engines * PER_ENGINE + WEIGHT_READ]
            written = tables.ops[k, O_PARAM_BITS] * s.rates[n_engines * PER_ENGINE + WEIGHT_WRITE]
            s.x[place, 0, n_engines + 3] = int(read + written - s.idle[n_engines] * load)
        s.n[place] = 1
        return 1
    count, now = _array_options(tables, k, axis, size, full, rest, s)
    s.n[place] = count
    whole_weights = tables.ops[k, O_SLICES] == 1
    for m in range(count):
        tile = 0
        for e in range(n_engines):
            if s.tile[now, m, e] > 0:
                tile = max(tile, s.tile[now, m, e] + tables.engines[e, E_PIPELINE])
        for e in range(n_engines):
            s.x[place, m, e] = s.load[now, m, e] if s.tile[now, m, e] > 0 else tile
        s.x[place, m, n_engines] = s.x[place, m, n_engines + 1] = tile
        bits = s.bits[now, m]
        if tables.ops[k, O_UNIT_WEIGHTS] == 0:
            bits = 0
        elif whole_weights:
            bits = widest_weight_bits(tables.ops, tables.slices, k)
        if s.rates.size > 0:
            s.energy[now, m] += int(bits * s.rates[n_engines * PER_ENGINE + WEIGHT_WRITE])
        s.x[place, m, n_engines + 2], s.x[place, m, n_engines + 3] = ceil_div(bits, burst), s.energy[now, m]
        for p in range(s.share.shape[2]):
            s.x_share[place, m, p] = s.share[now, m, p]
    return count


@inner
def round_energy(place: int, s: Scratch) -> None:
    """Round the energies of the options of an op down by at most 1 / ENERGY_STEPS of the least of them.

    Shares differ in energy by traces; as many combinations as there are shares would be kept for their sake.
    """
    last = s.x.shape[2] - 1
    least = s.x[place, 0, last]
    for m in range(1, s.n[place]):
        least = min(least, s.x[place, m, last])
    quantum = max(1, abs(least) // ENERGY_STEPS)
    for m in range(s.n[place]):
        s.x[place, m, last] = s.x[place, m, last] // quantum * quantum
