"""The chains of one design and the ways to run them: what the exhaustive mapper searches, and reading off a mapping.

For every chain that a network allows, `ways_of` tries every tile size, engine share, block order and place of inputs
and output, and keeps the ways that no other beats.  docs/decisions/0010 defines space and objective, and proves what
is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelsim.arch import Accelerator
from accelsim.energy import static_pj_per_cycle, unit_energies
from accelsim.kernels.chain_cost import W_HALO, W_OUTER, W_ROW, WAY_COLUMNS, CostScratch, chain_ways
from accelsim.kernels.chain_path import S_SLOT
from accelsim.kernels.chain_table import (
    R_BLOCKS,
    R_CHOICE,
    R_OPS,
    R_SIZE,
    ROW_COLUMNS,
    STATUS_ROOM,
    chain_parts,
    chain_table,
)
from accelsim.kernels.mapper import CHAIN_COLUMNS, N_PART
from accelsim.kernels.splits import Scratch
from accelsim.kernels.sub_array import MAX_ITEMS
from accelsim.kernels.tables import Tables
from accelsim.lowering import make_tables
from accelsim.mappers.chains import ChainSpace, ChainStart, chain_space
from accelsim.mappers.memo import Memo
from accelsim.mapping import MappingArrays, max_parts
from accelsim.optable import EngineTable, OpTable
from accelsim.problems import AccelsimError, Problem
from accelsim.program import Int64

Float64 = npt.NDArray[np.float64]
FJ_PER_PJ = 1000.0
# Room for the options of an op at first; it grows when that is too little.
FIRST_OPTIONS, MOST_OPTIONS = 512, 512 * 4**4


@dataclass(frozen=True, eq=False)
class Rates:
    """Femtojoules of every count, of an idle cycle of every engine and the vector unit, and of any cycle.

    Empty arrays when the objective does not ask for energy.
    """

    counts: Float64
    idle: Float64
    per_cycle: float

    def key(self) -> bytes:
        """What rows of chains depend on."""
        return self.counts.tobytes() + self.idle.tobytes()


def rates_of(accelerator: Accelerator, with_energy: bool) -> Rates:
    """Energy rates of a design (arithmetic convention).  Raises AccelsimError as `accelsim.energy.price` does."""
    if not with_energy:
        return Rates(np.zeros(0), np.zeros(len(accelerator.engines) + 1), 0.0)
    idle_by_unit, leakage = static_pj_per_cycle(accelerator)
    idle = [idle_by_unit[engine.name] for engine in accelerator.engines] + [idle_by_unit["vector"]]
    rates = np.array(idle) * FJ_PER_PJ
    return Rates(unit_energies(accelerator) * FJ_PER_PJ, rates, float(rates.sum()) + leakage * FJ_PER_PJ)


@dataclass(frozen=True, eq=False)
class Search:
    """What a design adds to the chain space: tables, rates, the memo of slices and its own keys there."""

    space: ChainSpace
    table: OpTable
    engines: EngineTable
    tables: Tables
    accelerator: Accelerator
    rates: Rates
    memo: Memo
    hardware: int
    bus: int

    @property
    def most_parts(self) -> int:
        """Most parts that an op can have."""
        return max_parts(self.accelerator, self.table)

    @property
    def with_energy(self) -> bool:
        """Whether ways have energies; otherwise that column has bus time and a cycle for every tile of every op."""
        return len(self.rates.counts) > 0

    @property
    def weight_capacity(self) -> int:
        """Bits of the weight buffer."""
        return self.accelerator.weight_buffer.capacity_bits


@dataclass(frozen=True, eq=False)
class Ways:
    """The ways to run the chains of one start: rows of its table, lists by end, inputs on chip, output on chip."""

    rows: Int64
    lists: Int64
    ways: Int64

    @property
    def n_bytes(self) -> int:
        """Memory that it holds."""
        return int(self.rows.nbytes + self.lists.nbytes + self.ways.nbytes)


def prepare(table: OpTable, engines: EngineTable, accelerator: Accelerator, with_energy: bool, memo: Memo) -> Search:
    """Everything that the search of one design reads."""
    n = len(table.op_names)
    empty = MappingArrays(
        np.zeros((1, len(CHAIN_COLUMNS)), np.int64),
        np.zeros((n, max_parts(accelerator, table), N_PART), np.int64),
        np.zeros(n, np.int64),
        np.zeros(len(table.tensor_names), np.int64),
    )
    tables = make_tables(table, engines, accelerator, empty)
    rates = rates_of(accelerator, with_energy)
    hardware = memo.name((accelerator.engines, accelerator.vector, accelerator.dram.burst_bits, rates.key()))
    bus = memo.name((hardware, tuple(tables.scalars.tolist())))
    return Search(chain_space(table), table, engines, tables, accelerator, rates, memo, hardware, bus)


def ways_of(search: Search, start: ChainStart) -> Ways:
    """Table rows and lists of ways of a chain start, from the memo if an equal one has been seen."""
    capacity = search.weight_capacity
    n_ops = ops_that_fit(search, start)
    cut = capacity if start.weights[0] * 4 > capacity * 3 else 0
    name = search.memo.name(start.key)
    row_key = ("rows", name, n_ops, cut, search.hardware)
    rows = search.memo.get(row_key)
    if rows is None:
        rows = _rows(search, start, n_ops)
        search.memo.put(row_key, rows, int(rows.nbytes))
    key = ("ways", name, n_ops, cut, search.bus)
    ways: Ways | None = search.memo.get(key)
    if ways is None:
        ways = _ways(search, start, n_ops, rows)
        search.memo.put(key, ways, ways.n_bytes)
    return ways


def ops_that_fit(search: Search, start: ChainStart) -> int:
    """Ops of the longest chain from a start whose weights take at most three quarters of the buffer; at least one."""
    return max(1, int(np.searchsorted(start.weights, search.weight_capacity * 3 // 4, side="right")))


def _rows(search: Search, start: ChainStart, n_ops: int) -> Int64:
    parts = np.zeros((search.most_parts, N_PART), np.int64)
    options, size = FIRST_OPTIONS, len(start.sizes) * n_ops * 2 + 16
    while True:
        rows = np.empty((size, len(ROW_COLUMNS)), np.int64)
        count = chain_table(
            search.tables, start.first, n_ops, start.axis, start.ends, start.sizes, search.weight_capacity,
            scratch(search, n_ops, options), parts, rows,
        )  # fmt: skip
        if count != STATUS_ROOM:
            return rows[:count].copy()
        options, size = _more(search, start, options), size * 4


def _more(search: Search, start: ChainStart, options: int) -> int:
    """More room for options.  Raises AccelsimError when there are too many to look at."""
    if options >= MOST_OPTIONS:
        name = search.table.op_names[start.first]
        what = f"more than {options:,} ways to share {name} (and the ops behind it) among the engines"
        levers = ("the heuristic mapper", "fewer engines that can share an op", "wider ports")
        raise AccelsimError(Problem(f"exhaustive mapper on {search.accelerator.name}", what, "fewer", levers))
    return options * 4


def _ways(search: Search, start: ChainStart, n_ops: int, rows: Int64) -> Ways:
    most = int(start.n_roots[n_ops - 1])
    room = max(16, 4 * len(rows))
    roots = np.array(start.roots or (-1,), np.int64)
    terms = CostScratch(
        np.zeros(len(CHAIN_COLUMNS), np.int64), np.empty((room, 3), np.int64), np.empty((room, 4), np.int64),
        np.empty(room, np.int64), np.empty((room, 4), np.int64), np.empty((room, max(1, most), 4), np.int64),
        search.rates.counts,
    )  # fmt: skip
    size = 1024
    while True:
        lists = np.zeros((n_ops, 1 << most, 2, 2), np.int64)
        ways = np.empty((size, len(WAY_COLUMNS)), np.int64)
        count = chain_ways(
            search.tables, start.first, start.axis, rows, len(rows), n_ops, start.ends, roots, start.n_roots, terms,
            lists, ways,
        )  # fmt: skip
        if count >= 0:
            return Ways(rows, lists, ways[:count].copy())
        size *= 4


def scratch(search: Search, n_ops: int, options: int) -> Scratch:
    """Room for the search of one chain of `n_ops` ops."""
    n, shares, labels, results = len(search.accelerator.engines), search.most_parts, 8 * options, options
    most = max(2, n_ops)
    return Scratch(
        items=np.empty((MAX_ITEMS, 3), np.int64), able=np.empty(n, np.int64), points=np.empty((n, options), np.int64),
        odometer=np.empty((n, 2), np.int64), load=np.empty((2, options, n), np.int64),
        tile=np.empty((2, options, n), np.int64), bits=np.empty((2, options), np.int64),
        energy=np.zeros((2, options), np.int64),
        share=np.empty((2, options, shares), np.int64), x=np.empty((most, options, n + 4), np.int64),
        x_share=np.zeros((most, options, shares), np.int64), n=np.empty(most, np.int64),
        labels=np.empty((2, labels, n + 4), np.int64), back=np.empty((most, labels, 2), np.int64),
        flexible=np.empty(most, np.int64), rest=np.empty((most + 1, n + 4), np.int64),
        found=np.empty((results, 4), np.int64), found_option=np.zeros((results, most), np.int64),
        part=np.zeros(N_PART, np.int64), counts=np.zeros(len(search.rates.counts), np.int64),
        rates=search.rates.counts, idle=search.rates.idle,
    )  # fmt: skip


def mapping_of(search: Search, found: list[Ways], steps: tuple[tuple[int, int, int], ...]) -> MappingArrays:
    """The decisions of a path as the arrays that lowering reads; `steps` are (step, way, resident mask before)."""
    space = search.space
    n = len(space.keep) - 1
    chains = np.zeros((len(steps), len(CHAIN_COLUMNS)), np.int64)
    parts, n_parts = np.zeros((n, search.most_parts, N_PART), np.int64), np.zeros(n, np.int64)
    resident = np.zeros(len(space.slot_of), np.int64)
    masks = [mask for _, _, mask in steps] + [0]
    for number, (step, way, _) in enumerate(steps):
        owner = int(space.step_start[step])
        start, item = space.starts[owner], found[owner]
        row = item.rows[item.ways[way, W_ROW]]
        outer, halo = item.ways[way, [W_OUTER, W_HALO]]
        chains[number] = (start.first, row[R_OPS], start.axis, row[R_SIZE], row[R_BLOCKS], outer, halo)
        ops = slice(start.first, start.first + int(row[R_OPS]))
        parts[ops], n_parts[ops] = _parts(search, start, row)
        slot = int(space.steps[step, S_SLOT])
        if slot >= 0 and masks[number + 1] >> slot & 1:
            resident[space.step_output[step]] = 1
    return MappingArrays(chains, parts, n_parts, resident)


def _parts(search: Search, start: ChainStart, row: Int64) -> tuple[Int64, Int64]:
    """Engine shares of the ops of one row of a chain table: the search at this tile size once more, then remembered."""
    cut = search.weight_capacity if start.weights[0] * 4 > search.weight_capacity * 3 else 0
    key = ("parts", search.memo.name(start.key), cut, search.hardware, row.tobytes())
    found: tuple[Int64, Int64] | None = search.memo.get(key)
    if found is not None:
        return found
    n_ops = int(row[R_OPS])
    parts, n_parts = np.zeros((n_ops, search.most_parts, N_PART), np.int64), np.zeros(n_ops, np.int64)
    options = FIRST_OPTIONS
    while chain_parts(
        search.tables, start.first, n_ops, start.axis, int(row[R_SIZE]), int(row[R_CHOICE]), search.weight_capacity,
        scratch(search, n_ops, options), parts, n_parts,
    ) == STATUS_ROOM:  # fmt: skip
        options = _more(search, start, options)
    search.memo.put(key, (parts, n_parts), int(parts.nbytes + n_parts.nbytes))
    return parts, n_parts
