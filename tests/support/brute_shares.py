"""Brute force, part one: every share of a tile of an op among the engines, in plain Python (docs/decisions/0010)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product

import numpy as np

from accelsim.arch import Accelerator
from accelsim.counts import count_columns
from accelsim.energy import static_pj_per_cycle, unit_energies
from accelsim.engines.registry import rules_of
from accelsim.ir import VECTOR_KINDS
from accelsim.kernels import engine_forms as forms
from accelsim.kernels import systolic_forms
from accelsim.optable import (
    KIND_CONV,
    KIND_MATMUL,
    KIND_VECTOR,
    M_MODE,
    OP_COLUMNS,
    SLICE_COLUMNS,
    OpTable,
    engine_table,
)

NO_LIMIT = 1 << 40
ROWS, GROUPS = 1, 2
Sizes = tuple[int, int, int]
# Tiles that a share is executed as: (units, output positions, how often).
Items = list[tuple[int, int, int]]


def up(numerator: int, denominator: int) -> int:
    """Division, rounded up."""
    return -(-numerator // denominator)


@dataclass(frozen=True)
class Part:
    """A slice of an op on (a sub-array of) an engine."""

    engine: int
    slice: int
    units: int
    sizes: Sizes


@dataclass(frozen=True)
class Option:
    """One way to share a tile: cycles of all tiles and of one by engine, weight bits, femtojoules, the parts."""

    loads: tuple[int, ...]
    tile: int
    weight_bits: int
    energy_fj: float


class Op:
    """Facts of op k of a table by name."""

    def __init__(self, table: OpTable, k: int) -> None:
        self.k, self.table = k, table
        self.f = dict(zip(OP_COLUMNS, table.ops[k].tolist(), strict=True))
        slices = table.slices[k, : self.f["slices"]].tolist()
        self.slices = [dict(zip(SLICE_COLUMNS, row, strict=True)) for row in slices]
        self.is_vector = self.f["kind"] == KIND_VECTOR

    def extent(self, axis: int) -> int:
        return self.f["rows_h"] if axis == ROWS else self.f["group_axis_extent"]

    def input_bits(self, operand: int, axis: int, size: int) -> int:
        """Bits that `size` units need of an input; rows of a convolution with the halo, no more than there are."""
        f = self.f
        if operand == 0 and f["kind"] == KIND_CONV and axis == ROWS:
            rows = min(f["in_h"], (size - 1) * f["stride"] + f["kernel_h"])
            return f["in0_elements"] // f["in_h"] * rows * f["activation_bits"]
        elements, width = (
            (f["in0_elements"], f["activation_bits"]) if operand == 0 else (f["in1_elements"], f["right_bits"])
        )
        return up(elements * size, self.extent(axis)) * width

    def output_bits(self, axis: int, size: int) -> int:
        return up(int(self.table.tensors[self.f["output"], 0]) * size, self.extent(axis))

    def part_bits(self, s: int, units: int) -> int:
        return units * (self.f["unit_weights"] * self.slices[s]["weight_bits"] + self.f["unit_extra_bits"])

    @cached_property
    def widest_bits(self) -> int:
        """Weight bits whatever the split."""
        if self.is_vector:
            return self.f["param_bits"]
        if self.f["unit_weights"] == 0:
            return 0
        return max(self.part_bits(s, self.f["units"]) for s in range(len(self.slices)))


class Hardware:
    """An accelerator's engines as seen by the ops of a table, and its energy rates (femtojoules)."""

    def __init__(self, table: OpTable, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.engines = accelerator.engines
        self.modes = engine_table(accelerator, table).modes
        self.rate = dict(zip(count_columns(accelerator), (unit_energies(accelerator) * 1000).tolist(), strict=True))
        idle, leakage = static_pj_per_cycle(accelerator)
        self.idle = [idle[engine.name] * 1000 for engine in self.engines] + [idle["vector"] * 1000]
        self.static = sum(self.idle) + leakage * 1000
        self.cycles = lru_cache(maxsize=None)(self._cycles)

    def able(self, op: Op, s: int) -> list[int]:
        return [e for e in range(len(self.engines)) if self.modes[op.slices[s]["combo"], e, M_MODE] >= 0]

    def is_tree(self, e: int) -> bool:
        return bool(rules_of(self.engines[e]).form(self.engines[e]) == systolic_forms.FORM_TREE)

    def pipeline(self, e: int) -> int:
        return int(rules_of(self.engines[e]).pipeline_cycles(self.engines[e]))

    def whole(self, e: int) -> Sizes:
        engine = self.engines[e]
        return engine.lanes, engine.lane_width, engine.pixel_groups

    def granule(self, op: Op, s: int, e: int, sizes: Sizes) -> int:
        """Units that one pass holds."""
        if op.f["depthwise"]:
            return sizes[1] if self.is_tree(e) else 1
        if not op.f["units_are_cols"]:
            return 1
        return sizes[0] * int(self.modes[op.slices[s]["combo"], e, 1])

    def _cycles(self, op: Op, s: int, e: int, units: int, rows: int, sizes: Sizes, limited: bool = True) -> int:
        """Occupancy of one tile; without limits as if ports and output stage kept up."""
        engine, f = self.engines[e], op.f
        _, products, passes, inputs = self.modes[op.slices[s]["combo"], e].tolist()
        lanes, width, pixels = sizes
        stage = (engine.activation_port_bits_per_cycle, engine.weight_port_bits_per_cycle)
        stage += (engine.output_stage.outputs_per_cycle,)
        tail = (*(stage if limited else (NO_LIMIT,) * 3), 0)
        widths = (f["activation_bits"], op.slices[s]["weight_bits"])
        groups, cols = (1, units) if f["units_are_cols"] else (units, f["cols"])
        if not self.is_tree(e):
            form = rules_of(engine).form(engine)
            nest = (form, groups, rows, cols, f["taps"] * f["depth"], engine.lane_width, engine.lanes, products)
            return int(
                systolic_forms.systolic_cycles(
                    *nest, int(engine.double_buffered), engine.accumulator_rows, *widths, *stage, self.pipeline(e)
                )[0]
            )
        if f["depthwise"]:
            steps, *words = forms.depthwise_word(f["taps"], inputs, *widths)
            return int(forms.depthwise_cycles(units, rows, steps, lanes, width, pixels, products, *words, *tail)[0])
        nest = (groups, rows, cols, f["taps"], f["depth"])
        return int(forms.dense_cycles(*nest, lanes, width * inputs, pixels, products, passes, *widths, *tail)[0])

    def total(self, op: Op, s: int, e: int, items: Items, sizes: Sizes, limited: bool = True) -> int:
        return sum(
            times * self.cycles(op, s, e, units, rows, sizes, limited) for units, rows, times in items if units and rows
        )

    def fastest(self, op: Op, s: int, e: int, items: Items) -> tuple[int, Sizes]:
        """(cycles, sizes) of the sub-array on which all tiles take least; of equal ones the largest."""
        whole = self.whole(e)
        if not self.is_tree(e):
            return self.total(op, s, e, items, whole), whole
        lanes, widths, pixels = (range(size, 0, -1) for size in whole)
        tried = [(lane, width, pixel) for width in widths for lane in lanes for pixel in pixels]
        return min(((self.total(op, s, e, items, sizes), sizes) for sizes in tried), key=lambda found: found[0])

    def energy(self, op: Op, part: Part, items: Items) -> float:
        """Femtojoules of the tiles of a part: products, output stage and SRAM, without idle time."""
        return sum(times * self._tile_energy(op, part, u, r) for u, r, times in items if u and r)

    def _tile_energy(self, op: Op, part: Part, units: int, rows: int) -> float:
        engine, f = self.engines[part.engine], op.f
        bits = op.slices[part.slice]["weight_bits"]
        mode, products, passes, inputs = self.modes[op.slices[part.slice]["combo"], part.engine].tolist()
        lanes, width, pixels = part.sizes
        groups, cols = (1, units) if f["units_are_cols"] else (units, f["cols"])
        outputs, reduction = groups * rows * cols, f["taps"] * f["depth"]
        if not self.is_tree(part.engine):
            form = rules_of(engine).form(engine)
            array = (engine.lane_width, engine.lanes, products, engine.accumulator_rows)
            nest = (form, groups, rows, cols, reduction)
            acts, weights = systolic_forms.systolic_reads(*nest, *array, f["activation_bits"], bits)
            updates = systolic_forms.systolic_accumulates(*nest, engine.lane_width)
            passed = weights * rows // (outputs * reduction * bits)
        elif f["depthwise"]:
            acts, weights = forms.depthwise_reads(
                units, rows, f["taps"], lanes, products, pixels, f["activation_bits"], bits
            )
            updates = forms.depthwise_accumulates(units, rows, up(f["taps"], inputs))
            passed = up(rows, pixels)
        else:
            nest = (groups, rows, cols, f["taps"], f["depth"])
            acts, weights = forms.dense_reads(*nest, lanes, products, pixels, f["activation_bits"], bits)
            updates = forms.dense_accumulates(*nest, width * inputs, passes)
            passed = up(rows, pixels)
        weights -= passed * units * f["right_implicit_cols"] * f["depth"] * f["right_bits"]
        right = "activation_read_bits" if f["kind"] == KIND_MATMUL else "weight_read_bits"
        own, rate = engine.name, self.rate
        return float(
            rate[f"{own}.products_{mode}"] * outputs * reduction
            + rate[f"{own}.outputs"] * outputs
            + rate[f"{own}.table_lookups"] * outputs * f["table"]
            + rate[f"{own}.accumulates"] * updates
            + rate["activation_read_bits"] * acts
            + rate["weight_read_bits"] * units * f["unit_extra_bits"]
            + rate[right] * weights
            + rate["activation_write_bits"] * outputs * f["output_bits"]
        )


class Shares:
    """All options of an op at a tile size.  `fine` tries every number of units, else the ends of passes."""

    def __init__(self, hardware: Hardware, op: Op, axis: int, size: int, fine: bool) -> None:
        self.h, self.op, self.axis, self.size, self.fine = hardware, op, axis, size, fine
        self.full, self.rest = divmod(op.extent(axis), size)

    def vector(self) -> Option:
        op, hardware = self.op, self.h
        load = sum(
            times * self._vector_cycles(size) for size, times in ((self.size, self.full), (self.rest, 1)) if size
        )
        tiles = self.full + (self.rest > 0)
        unit = hardware.accelerator.vector
        energy = op.f["param_bits"] * tiles * hardware.rate["weight_read_bits"] - hardware.idle[-1] * load
        loads = (*([0] * len(hardware.engines)), load)
        return Option(loads, self._vector_cycles(self.size) + unit.latency_cycles, op.widest_bits, energy)

    def _vector_cycles(self, size: int) -> int:
        op, unit = self.op, self.h.accelerator.vector
        cycles = 0
        for p in range(op.f["passes"]):
            moved = op.input_bits(0, self.axis, size)
            moved += op.input_bits(1, self.axis, size) if p == 0 and op.f["in1_elements"] else 0
            moved += op.output_bits(self.axis, size) if p == op.f["passes"] - 1 else 0
            work = [1, up(moved, unit.port_bits_per_cycle)]
            for kind, _ in enumerate(VECTOR_KINDS):
                count = up(int(op.table.vector[op.k, p, kind]) * size, op.extent(self.axis))
                work.append(up(count, unit.throughput()[kind]) if count else 0)
            cycles += max(work)
        return cycles

    def items(self, units: int, left: int) -> Items:
        """Tiles of a share; along groups a shorter last tile gives the share rounded up while `left` lasts."""
        f = self.op.f
        if self.axis == GROUPS:
            rows = f["rows_h"] * f["rows_w"]
            last = min(left, up(units * self.rest, self.size))
            return [(units, rows, self.full), (last, rows, 1)]
        width = f["rows_w"]
        return [(units, self.size * width, self.full), (units, self.rest * width, 1)]

    def splits(self) -> Iterator[list[tuple[int, int, int]]]:
        """All lists of (engine, slice, units)."""
        op, pools = self.op, []
        for s, facts in enumerate(op.slices):
            units = self.size if self.axis == GROUPS else facts["units"]
            if units > 0:
                pools.append(list(self._pool(dict.fromkeys(self.h.able(op, s), s), units)))
        balanced: dict[int, int] = {}
        for s, facts in enumerate(op.slices):
            if facts["units"] < 0:
                for e in self.h.able(op, s):
                    balanced.setdefault(e, s)
        if balanced and self.axis == ROWS:
            pools.append(list(self._pool(balanced, op.f["units"])))
        for chosen in product(*pools):
            yield sorted((part for pool in chosen for part in pool), key=lambda part: (part[1], part[0]))

    def _pool(self, able: dict[int, int], units: int) -> Iterator[list[tuple[int, int, int]]]:
        engines = sorted(able)
        points = [self._points(e, able[e], units) for e in engines[:-1]]
        for shares in product(*points):
            if sum(shares) <= units and engines:
                every = (*shares, units - sum(shares))
                yield [(e, able[e], share) for e, share in zip(engines, every, strict=True) if share]

    def _points(self, e: int, s: int, units: int) -> list[int]:
        granule = self.h.granule(self.op, s, e, self.h.whole(e))
        items = self.items(min(granule, units), NO_LIMIT)
        step = granule
        whole = self.h.whole(e)
        keeps_up = self.h.total(self.op, s, e, items, whole) == self.h.total(self.op, s, e, items, whole, False)
        if self.fine or (self.h.is_tree(e) and not keeps_up) or (self.axis == GROUPS and self.rest):
            step = 1
        # All but one: an engine left without units would be charged with the op's tile.
        return sorted({*range(0, units, step), units - 1, units})

    def options(self) -> list[Option]:
        """Every way to share the op's tiles."""
        if self.op.is_vector:
            return [self.vector()]
        return list(dict.fromkeys(self._option(split) for split in self.splits()))

    def _option(self, split: list[tuple[int, int, int]]) -> Option:
        op, hardware = self.op, self.h
        n = len(hardware.engines)
        loads, tiles, bits, energy, left = [0] * (n + 1), [0] * n, 0, 0.0, self.rest
        for e, s, units in split:
            items = self.items(units, left)
            left -= items[1][0] if self.axis == GROUPS else 0
            load, sizes = hardware.fastest(op, s, e, items)
            loads[e] += load
            tiles[e] += hardware.fastest(op, s, e, [(*items[0][:2], 1)])[0]
            bits += op.part_bits(s, units) if op.f["unit_weights"] else 0
            energy += hardware.energy(op, Part(e, s, units, sizes), items) - hardware.idle[e] * load
        if len(op.slices) == 1:
            bits = op.widest_bits
        tile = max(tiles[e] + hardware.pipeline(e) for e in range(n) if tiles[e])
        return Option(tuple(loads), tile, bits, energy + bits * hardware.rate["weight_write_bits"])


def fixed_energy_fj(hardware: Hardware, ops: list[Op]) -> float:
    """Vector operations, and what they read and write on chip: the same whatever the mapping."""
    rate, total = hardware.rate, 0.0
    for op in ops:
        if op.is_vector:
            counts = np.asarray(op.table.vector[op.k]).sum(axis=0)
            total += sum(int(n) * rate[f"vector_{kind}"] for kind, n in zip(VECTOR_KINDS, counts, strict=True))
            read = op.f["passes"] * op.f["in0_elements"] * op.f["activation_bits"]
            read += op.f["in1_elements"] * op.f["right_bits"]
            total += read * rate["activation_read_bits"]
            total += int(op.table.tensors[op.f["output"], 0]) * rate["activation_write_bits"]
    return total
