"""Brute force, part two: every chain, tile size, block, place and halo, and every set of residents (decision 0010)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain as flat
from itertools import combinations, product

from accelsim.arch import Accelerator
from accelsim.optable import KIND_CONV, OFF_CHIP, OpTable
from tests.support.brute_shares import GROUPS, ROWS, Hardware, Op, Option, Part, Shares, fixed_energy_fj, up

T_BITS, T_FIRST, T_LAST, T_POSITIONS, T_INPUT, T_OUTPUT, T_TWIN = range(7)


@dataclass(frozen=True)
class Run:
    """What the units do in a chain: cycles, weight blocks as (weight bits, stored bits per position), femtojoules."""

    cycles: int
    bursts: int
    energy_fj: float
    blocks: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Way:
    """Buffer bits, ticks and femtojoules of one way to run a chain."""

    bits: int
    ticks: int
    energy_fj: float


class Brute:
    """The declared space of one design and network."""

    def __init__(self, table: OpTable, accelerator: Accelerator, fine: bool) -> None:
        self.table, self.accelerator, self.fine = table, accelerator, fine
        self.hardware = Hardware(table, accelerator)
        self.ops = [Op(table, k) for k in range(len(table.op_names))]
        self.tensors = table.tensors.tolist()
        self.bus = accelerator.bus_ticks()
        self.burst_bits = accelerator.dram.burst_bits
        self.weight_capacity = accelerator.weight_buffer.capacity_bits
        self.static_fj_per_tick = self.hardware.static / self.bus.per_cycle
        self.in_dram = self._too_many_to_read()
        self.options = lru_cache(maxsize=None)(self._options)
        self.runs = lru_cache(maxsize=None)(self._runs)
        self.ways = lru_cache(maxsize=None)(self._ways)

    # Chains.

    def legal(self, first: int, last: int, axis: int) -> bool:
        """Whether ops first … last may run tile by tile along an axis."""
        ops = [self.ops[k].f for k in range(first, last + 1)]
        if any(not f["axes"] & axis for f in ops):
            return False
        if len({self.ops[k].extent(axis) for k in range(first, last + 1)}) > 1:
            return False
        outputs = [f["output"] for f in ops]
        for n, f in enumerate(ops):
            if len(ops) > 1 and axis == GROUPS and f["kind"] == KIND_CONV:
                return False
            if n and axis == ROWS and (f["kernel_h"] != 1 or f["stride"] != 1 or f["in_h"] != f["rows_h"]):
                return False
            for a, b in self._roots(f):
                if a >= 0 and b >= 0 and (a in outputs[:n]) != (b in outputs[:n]):
                    return False
        for n, out in enumerate(outputs[:-1]):
            readers = [root for f in ops[n + 1 :] for pair in self._roots(f) for root in pair]
            if out not in readers or self.tensors[out][T_LAST] > last or self.tensors[out][T_OUTPUT]:
                return False
        weights = sum(self.ops[k].widest_bits for k in range(first, last + 1))
        if first == last:
            cuttable = axis == ROWS and not self.ops[first].is_vector
            return cuttable or weights <= self.weight_capacity
        return weights * 4 <= self.weight_capacity * 3

    @staticmethod
    def _roots(f: dict[str, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        return (f["in0_root0"], f["in0_root1"]), (f["in1_root0"], f["in1_root1"])

    def _too_many_to_read(self) -> set[int]:
        """Tensors read as one by an op that would then read more than three regions."""
        found: set[int] = set()
        for op in self.ops:
            pairs = self._roots(op.f)
            if sum(root >= 0 for pair in pairs for root in pair) + (op.widest_bits > 0) > 3:
                found.update(root for pair in pairs if pair[1] >= 0 for root in pair)
        return found

    def _options(self, k: int, axis: int, size: int) -> list[Option]:
        return Shares(self.hardware, self.ops[k], axis, size, self.fine).options()

    def _runs(self, first: int, last: int, axis: int, size: int) -> list[Run]:
        op = self.ops[first]
        if first == last and axis == ROWS and not op.is_vector and op.widest_bits * 4 > self.weight_capacity * 3:
            return list(dict.fromkeys(self._block_runs(op, size)))
        runs = []
        for chosen in product(*(self.options(k, axis, size) for k in range(first, last + 1))):
            units = [sum(o.loads[u] or o.tile for o in chosen) for u in range(len(self.hardware.engines) + 1)]
            cycles = max(*units, sum(o.tile for o in chosen))
            bursts = sum(up(o.weight_bits, self.burst_bits) for o in chosen)
            runs.append(Run(cycles, bursts, sum(o.energy_fj for o in chosen)))
        return list(dict.fromkeys(runs))

    def _block_runs(self, op: Op, size: int) -> Iterator[Run]:
        """Weight blocks on all lanes and on fewer of them (depthwise: lane inputs), which make the blocks finer."""
        hardware = self.hardware
        shares = Shares(hardware, op, ROWS, size, self.fine)
        axis = 1 if op.f["depthwise"] else 0
        most = max(hardware.whole(e)[axis] for e in range(len(hardware.engines)))
        for split in shares.splits():
            for limit in range(most, 0, -1):
                parts = []
                for e, s, units in split:
                    sizes = list(hardware.whole(e))
                    if hardware.is_tree(e):
                        sizes[axis] = min(limit, sizes[axis])
                    parts.append(Part(e, s, units, (sizes[0], sizes[1], sizes[2])))
                blocks = self._fewest_blocks(op, parts)
                if blocks:
                    yield self._block_run(op, parts, shares, blocks)

    def _block_units(self, op: Op, part: Part, blocks: int) -> int:
        granule = self.hardware.granule(op, part.slice, part.engine, part.sizes)
        return up(up(part.units, blocks), granule) * granule

    def _in_block(self, op: Op, part: Part, blocks: int, block: int) -> int:
        units = self._block_units(op, part, blocks)
        return max(0, min(units, part.units - block * units))

    def _fewest_blocks(self, op: Op, parts: list[Part]) -> int:
        """Fewest blocks of which three fit the weight buffer, else two, else none."""
        for copies in (3, 2):
            for blocks in range(2, op.f["units"] + 1):
                bits = sum(op.part_bits(p.slice, self._in_block(op, p, blocks, 0)) for p in parts)
                if bits * copies <= self.weight_capacity:
                    return max(up(p.units, self._block_units(op, p, blocks)) for p in parts)
        return 0

    def _fastest(self, op: Op, part: Part, shares: Shares, blocks: int) -> Part:
        """The part on the sub-array that takes least of those with the same blocks."""
        if not self.hardware.is_tree(part.engine):
            return part
        width, items = op.f["rows_w"], []
        for block in range(blocks):
            units = self._in_block(op, part, blocks, block)
            items += [(units, shares.size * width, shares.full), (units, shares.rest * width, 1)]
        lanes, widths, pixels = (range(size, 0, -1) for size in self.hardware.whole(part.engine))
        lanes, widths = (lanes, [part.sizes[1]]) if op.f["depthwise"] else ([part.sizes[0]], widths)
        tried = [replace(part, sizes=(n, w, p)) for w in widths for n in lanes for p in pixels]
        return min(tried, key=lambda one: self.hardware.total(op, one.slice, one.engine, items, one.sizes))

    def _block_run(self, op: Op, parts: list[Part], shares: Shares, blocks: int) -> Run:
        hardware, loads, energy, width = self.hardware, [0] * len(self.hardware.engines), 0.0, op.f["rows_w"]
        kinds, tiles = [], [0] * len(hardware.engines)
        parts = [self._fastest(op, part, shares, blocks) for part in parts]
        for block in range(blocks):
            bits = stored = 0
            for part in parts:
                units = self._in_block(op, part, blocks, block)
                items = [(units, shares.size * width, shares.full), (units, shares.rest * width, 1)]
                load = hardware.total(op, part.slice, part.engine, items, part.sizes)
                loads[part.engine] += load
                tiles[part.engine] += hardware.total(op, part.slice, part.engine, [(*items[0][:2], 1)], part.sizes)
                energy += hardware.energy(op, part, items) - hardware.idle[part.engine] * load
                bits += op.part_bits(part.slice, units)
                stored += units * op.f["unit_channels"] * op.f["output_bits"]
            kinds.append((bits, stored))
        engines = [e for e in range(len(loads)) if loads[e]]
        cycles = max(max(loads[e], tiles[e] + hardware.pipeline(e)) for e in engines)
        return Run(cycles, 0, energy, tuple(kinds))

    # Ways.

    def _ways(self, first: int, last: int, axis: int, resident: frozenset[int]) -> list[Way]:
        extent = self.ops[first].extent(axis)
        found = []
        for size in range(1, extent + 1):
            for run in self.runs(first, last, axis, size):
                for outer in (False, True) if run.blocks else (False,):
                    for keep in (False, True):
                        if not keep or self._may_keep(first, axis, size, resident):
                            found.append(self._way(first, last, axis, size, run, outer, keep, resident))
        return list(dict.fromkeys(found))

    def _may_keep(self, first: int, axis: int, size: int, resident: frozenset[int]) -> bool:
        f = self.ops[first].f
        shared = f["kernel_h"] - f["stride"]
        if axis != ROWS or f["kind"] != KIND_CONV or size >= f["rows_h"] or f["in0_root0"] in resident:
            return False
        return 0 < shared <= size * f["stride"]

    def _bursts(self, bits: int, runs: int) -> int:
        return runs * up(up(bits, runs), self.burst_bits)

    def _way(
        self, first: int, last: int, axis: int, size: int, run: Run, outer: bool, keep: bool, resident: frozenset[int]
    ) -> Way:
        full, rest = divmod(self.ops[first].extent(axis), size)
        tiles, rate = full + (rest > 0), self.hardware.rate
        passes = tiles if run.blocks and not outer else 1
        bursts = run.bursts + passes * sum(up(bits, self.burst_bits) for bits, _ in run.blocks)
        energy = run.energy_fj + passes * sum(bits for bits, _ in run.blocks) * rate["weight_write_bits"]
        read, edges, first_loads = bursts, 0, 0
        need = self._inner_bits(first, last, axis, size, tiles)
        for k, operand, root in self._loads(first, last, resident):
            halo = keep and k == first and operand == 0
            runs = 1 if axis == ROWS else max(1, self.tensors[root][T_POSITIONS])
            sizes = [size] * full + [rest] * (rest > 0)
            bits = [self._load(k, operand, axis, s, halo, n) for n, s in enumerate(sizes)]
            times = len(run.blocks) if outer else 1
            need += bits[0] * min(3 if halo else 2, tiles)
            read += times * sum(self._bursts(b, runs) for b in bits)
            energy += times * sum(bits) * rate["activation_write_bits"]
            if k == first:
                edges, first_loads = edges + self._bursts(bits[0], runs) * self.bus.burst, 1
        edges += first_loads * self.bus.read_latency
        energy += read * self.burst_bits * rate["dram_read_bits"]
        stored = 0
        if self.ops[last].f["output"] not in resident:
            need += self.ops[last].output_bits(axis, size) * min(2, tiles)
            stored, final, bits = self._stores(last, axis, size, full, rest, run if outer else None)
            edges += final * self.bus.burst + self.bus.write_latency
            energy += stored * self.burst_bits * rate["dram_write_bits"] + bits * rate["activation_read_bits"]
        ticks = max((read + stored) * self.bus.burst, run.cycles * self.bus.per_cycle + edges)
        return Way(need, ticks, energy)

    def _loads(self, first: int, last: int, resident: frozenset[int]) -> Iterator[tuple[int, int, int]]:
        made: set[int] = set()
        for k in range(first, last + 1):
            for operand, (root, _) in enumerate(self._roots(self.ops[k].f)):
                if root >= 0 and root not in made and root not in resident:
                    yield k, operand, root
            made.add(self.ops[k].f["output"])

    def _load(self, k: int, operand: int, axis: int, size: int, halo: bool, tile: int) -> int:
        if not halo:
            return self.ops[k].input_bits(operand, axis, size)
        f = self.ops[k].f
        rows = size * f["stride"] + (f["kernel_h"] - f["stride"] if tile == 0 else 0)
        return f["in0_elements"] // f["in_h"] * rows * f["activation_bits"]

    def _inner_bits(self, first: int, last: int, axis: int, size: int, tiles: int) -> int:
        total = 0
        for k in range(first, last):
            out, slots = self.ops[k].f["output"], 1
            for later in range(k + 1, last + 1):
                if any(out in pair for pair in self._roots(self.ops[later].f)):
                    slots = later - k + 1
            total += self.ops[k].output_bits(axis, size) * min(slots, tiles)
        return total

    def _stores(self, last: int, axis: int, size: int, full: int, rest: int, cut: Run | None) -> tuple[int, int, int]:
        """(bursts of all stores, of the last one, bits)."""
        op, total, final, bits = self.ops[last], 0, 0, 0
        positions = max(1, self.tensors[op.f["output"]][T_POSITIONS])
        for s in [size] * full + [rest] * (rest > 0):
            whole = op.output_bits(axis, s)
            bits += whole
            if cut is None:
                final = self._bursts(whole, 1 if axis == ROWS else positions)
                total += final
                continue
            for _, stored in cut.blocks:
                runs = s * op.f["rows_w"]
                final = self._bursts(stored * runs, runs if stored * runs < whole else 1)
                total += final
        return total, final, bits

    # Networks.

    def cuts(self, first: int = 0) -> Iterator[list[tuple[int, int, int]]]:
        """All lists of (first op, last op, axis)."""
        if first == len(self.ops):
            yield []
        for last in range(first, len(self.ops)):
            for axis in (ROWS, GROUPS):
                if self.legal(first, last, axis):
                    for others in self.cuts(last + 1):
                        yield [(first, last, axis), *others]

    def residents(self, cut: list[tuple[int, int, int]]) -> Iterator[frozenset[int]]:
        """All sets of tensors that may stay on chip between the chains of a cut."""
        outputs = {self.ops[last].f["output"] for _, last, _ in cut} - self.in_dram
        free = []
        for t in outputs:
            tensor = self.tensors[t]
            in_dram = tensor[T_INPUT] or tensor[T_OUTPUT] or tensor[T_TWIN] == OFF_CHIP
            if not in_dram and tensor[T_LAST] > tensor[T_FIRST]:
                free.append(t)
        for chosen in flat.from_iterable(combinations(free, n) for n in range(len(free) + 1)):
            together = all(self.tensors[t][T_TWIN] < 0 or self.tensors[t][T_TWIN] in chosen for t in chosen)
            if together:
                yield frozenset(chosen)

    def everything(self, capacity_bits: int) -> Iterator[list[list[Way]]]:
        """For every cut and set of residents the ways of each chain that fit."""
        for cut in self.cuts():
            for resident in self.residents(cut):
                ways = []
                for first, last, axis in cut:
                    alive = [
                        t for t in resident if self.tensors[t][T_FIRST] <= last and self.tensors[t][T_LAST] >= first
                    ]
                    room = capacity_bits - sum(self.tensors[t][T_BITS] for t in alive)
                    used = frozenset(t for t in alive)
                    ways.append([way for way in self.ways(first, last, axis, used) if way.bits <= room])
                if all(ways):
                    yield ways

    def least(self, objective: str) -> float | None:
        """The optimum over the space, in ticks or femtojoules or both; None when nothing fits."""
        best: float | None = None
        fixed = fixed_energy_fj(self.hardware, self.ops)
        for ways in self.everything(self.accelerator.activation_buffer.capacity_bits):
            if objective == "latency":
                value = float(sum(min(way.ticks for way in chain) for chain in ways))
            elif objective == "energy":
                value = fixed + sum(min(w.energy_fj + self.static_fj_per_tick * w.ticks for w in c) for c in ways)
            else:
                value = min(t * (fixed + e + self.static_fj_per_tick * t) for t, e in sums(ways))
            best = value if best is None else min(best, value)
        return best


def sums(ways: list[list[Way]]) -> list[tuple[int, float]]:
    """Sums of ticks and energy over one way of every chain, those left out that are worse in both."""
    total = [(0, 0.0)]
    for chain in ways:
        every = sorted((t + way.ticks, e + way.energy_fj) for t, e in total for way in chain)
        total = []
        for ticks, energy in every:
            if not total or energy < total[-1][1]:
                total.append((ticks, energy))
    return total
