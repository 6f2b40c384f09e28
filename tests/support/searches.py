"""Searches of random small designs, and what the program of a mapping costs, chain by chain, read off its rows."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np

from accelsim.arch import Accelerator
from accelsim.config import load_plan
from accelsim.kernels.mapper import C_FIRST, C_N
from accelsim.lowering import Lowered
from accelsim.mappers.chain_ways import Search, prepare, ways_of
from accelsim.mappers.memo import Memo
from accelsim.mappers.paths import Network
from accelsim.mapping import MappingArrays
from accelsim.optable import E_PIPELINE, OpTable, engine_table, op_table
from accelsim.problems import AccelsimError
from accelsim.program import LATENCY, OCCUPANCY, OP, READ0, UNIT, WRITE, Int64
from tests.fuzz.networks import random_workload

PLANS = ("uniform8", "m2q", "w4a8")


def random_table(seed: int, most_elements: int = 1 << 14) -> OpTable | None:
    """A random network of one to ten ops under a plan; None where the draw is not a legal one or too large."""
    rng = Random(seed)
    plan = load_plan(rng.choice(PLANS))
    try:
        workload = random_workload(rng)
        table = op_table(workload, plan)
    except AccelsimError:
        return None
    return table if max(tensor.elements for tensor in workload.tensors) <= most_elements else None


def search_of(table: OpTable, accelerator: Accelerator, with_energy: bool = True) -> Search:
    """The search of a design with a memo of its own."""
    return prepare(table, engine_table(accelerator, table), accelerator, with_energy, Memo())


def network_of(search: Search) -> Network:
    """All chains of a search as a graph."""
    return Network(search, [ways_of(search, start) for start in search.space.starts])


@dataclass(frozen=True)
class ChainFigures:
    """Ticks of one chain in a program: busy ticks of every unit, and the objective of decision 0010 for them."""

    busy: tuple[int, ...]
    objective: int


def chain_figures(lowered: Lowered, arrays: MappingArrays, search: Search) -> list[ChainFigures]:
    """The objective of every chain from the rows of the program alone (fixed bandwidth)."""
    program, n_engines = lowered.program, len(search.engines.engines)
    busy = np.zeros((len(program.op_names), len(program.units)), np.int64)
    first_tile = np.zeros((len(program.op_names), n_engines + 1), np.int64)
    stage = {k: k - int(chain[C_FIRST]) + 1 for chain in arrays.chains for k in range(*_ops(chain).indices(len(busy)))}
    for start, rows, count, iteration in program.phases.tolist():
        for row in program.templates[start : start + rows]:
            op, unit = int(row[OP]), int(row[UNIT])
            busy[op, unit] += int(row[OCCUPANCY]) * count
            # The first tile of an op is that of its stage; with outer weight blocks once per block.
            if unit <= n_engines and iteration == stage[op]:
                first_tile[op, unit] += int(row[OCCUPANCY if unit < n_engines else LATENCY])
    return [
        ChainFigures(
            tuple(int(b) for b in busy[_ops(chain)].sum(axis=0)),
            _objective(chain, busy[_ops(chain)], first_tile[_ops(chain)], lowered, arrays, search),
        )
        for chain in arrays.chains
    ]


def _ops(chain: Int64) -> slice:
    return slice(int(chain[C_FIRST]), int(chain[C_FIRST] + chain[C_N]))


def _objective(
    chain: Int64, busy: Int64, first_tile: Int64, lowered: Lowered, arrays: MappingArrays, search: Search
) -> int:
    ticks, dram = search.accelerator.bus_ticks().per_cycle, busy.shape[1] - 1
    pipeline = search.engines.engines[:, E_PIPELINE] * ticks
    sums = np.zeros(dram + 1, np.int64)
    for loads, tiles in zip(busy[:, :dram], first_tile, strict=True):
        tile = int(tiles[dram - 1] or (tiles[:-1] + pipeline * (tiles[:-1] > 0)).max(initial=0))
        sums[:dram] += np.where(loads > 0, loads, tile)
        sums[dram] += tile
    units = int(sums.max())
    bus = int(busy[:, dram].sum())
    return max(bus, units + _edges(chain, lowered, search))


def _edges(chain: Int64, lowered: Lowered, search: Search) -> int:
    """First loads of the first op and last store of the last one."""
    program, n_dram = lowered.program, len(lowered.program.units) - 1
    first, last = int(chain[C_FIRST]), int(chain[C_FIRST] + chain[C_N] - 1)
    weights = {int(r) for r in np.flatnonzero(program.regions[:, 0] == 1)}
    loads, store, seen = 0, 0, set()
    latencies = 0
    for start, rows, _, _ in program.phases.tolist():
        for row in program.templates[start : start + rows]:
            if row[UNIT] != n_dram:
                continue
            stores = row[READ0] >= 0
            if stores and row[OP] == last:
                store = int(row[LATENCY])
            ring = int(row[WRITE])
            if not stores and row[OP] == first and ring not in weights and ring not in seen:
                seen.add(ring)
                loads += int(row[OCCUPANCY])
                latencies = int(row[LATENCY] - row[OCCUPANCY])
    return loads + latencies + store
