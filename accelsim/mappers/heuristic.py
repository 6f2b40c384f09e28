"""The heuristic mapper: a legal mapping in under a millisecond, or an infeasibility with numbers.

Decisions, in order: fuse consecutive ops whose intermediates nobody else needs; keep on chip the tensors that save most
traffic for their time of life; choose for every chain the tile size, weight blocks and engine shares with the least
estimated time.  A chain whose smallest tile does not fit runs op by op, a depthwise op whose rows do not fit by
channels.  The estimate ignores contention between chains; the simulation does not.
"""

from __future__ import annotations

import numpy as np

from accelsim.arch import Accelerator
from accelsim.kernels.mapper import C_AXIS, C_BLOCKS, C_FIRST, C_N, CHAIN_COLUMNS, N_PART, find_chains
from accelsim.kernels.tiling import STATUS_OK, STATUS_WEIGHTS, choose_residents, choose_tiles
from accelsim.lowering import DoesNotFitError, Lowered, lower
from accelsim.mapping import MappingArrays, max_parts
from accelsim.optable import (
    AXIS_GROUPS,
    AXIS_ROWS,
    O_AXES,
    T_BITS,
    T_FIRST,
    T_LAST,
    T_TWIN,
    EngineTable,
    OpTable,
    engine_table,
)
from accelsim.problems import InfeasibleError, Problem


class _ChainTooLargeError(InfeasibleError):
    """The smallest tile of a chain does not fit; a chain of several ops may still fit op by op."""

    def __init__(self, problem: Problem, chain: int) -> None:
        self.chain = chain
        super().__init__(problem)


def map_and_lower(
    table: OpTable, accelerator: Accelerator, fuse: bool = True
) -> tuple[MappingArrays, EngineTable, Lowered]:
    """Mapping, engine table and lowered program of a design.

    `fuse=False` makes every op its own chain (for ablations).  Raises InfeasibleError with the chain, what it needs and
    what is there.
    """
    engines = engine_table(accelerator, table)
    chains = fused_chains(table, accelerator, fuse)
    banned = np.zeros(len(table.tensor_names), np.int64)
    while True:
        try:
            arrays = choose_mapping(table, engines, accelerator, chains, banned)
            return arrays, engines, lower(table, engines, accelerator, arrays)
        except _ChainTooLargeError as error:
            if chains[error.chain, C_N] > 1:
                chains = _split_chain(table, chains, error.chain)
            elif not _cut_by_channels(table, chains[error.chain]):
                raise
        except DoesNotFitError as error:
            victim = _largest_alive(table, arrays, error.chains)
            if victim < 0:
                raise
            banned[victim] = 1
            if table.tensors[victim, T_TWIN] >= 0:
                banned[table.tensors[victim, T_TWIN]] = 1


def fused_chains(table: OpTable, accelerator: Accelerator, fuse: bool = True) -> np.ndarray:
    """Which consecutive ops run as one chain (columns of CHAIN_COLUMNS; tiles are still open)."""
    n = len(table.op_names)
    chains = np.zeros((n, len(CHAIN_COLUMNS)), np.int64)
    count = find_chains(table.ops, table.slices, table.tensors, accelerator.weight_buffer.capacity_bits, fuse, chains)
    return chains[:count]


def choose_mapping(
    table: OpTable, engines: EngineTable, accelerator: Accelerator, chains: np.ndarray, banned: np.ndarray
) -> MappingArrays:
    """Residents, tiles, weight blocks and engine shares for the given chains; `banned` tensors stay off chip.

    Raises InfeasibleError with the first chain whose smallest tile does not fit.
    """
    n = len(table.op_names)
    capacity = accelerator.activation_buffer.capacity_bits
    vector = accelerator.vector
    arrays = MappingArrays(
        chains,
        np.zeros((n, max_parts(accelerator, table), N_PART), np.int64),
        np.zeros(n, np.int64),
        np.zeros(len(banned), np.int64),
    )
    order = _residency_order(table, chains)
    choose_residents(table.ops, table.tensors, chains, len(chains), capacity, banned, order, arrays.resident)
    per_kilocycle = accelerator.dram.bandwidth_bits_per_s * 1000 // accelerator.clock_hz
    status, chain, need, bound = choose_tiles(
        table.ops, table.slices, table.tensors, table.vector, engines.engines, engines.modes,
        np.array(vector.throughput(), np.int64), vector.port_bits_per_cycle, vector.latency_cycles,
        max(1, per_kilocycle), capacity, accelerator.weight_buffer.capacity_bits, arrays.resident, chains, len(chains),
        arrays.parts, arrays.n_parts,
    )  # fmt: skip
    if status != STATUS_OK:
        raise _ChainTooLargeError(_problem(table, accelerator, chains[chain], status, int(need), int(bound)), chain)
    return arrays


def _split_chain(table: OpTable, chains: np.ndarray, number: int) -> np.ndarray:
    """The chains with one of them cut into single ops."""
    first, n = int(chains[number, C_FIRST]), int(chains[number, C_N])
    single = np.zeros((n, len(CHAIN_COLUMNS)), np.int64)
    single[:, C_FIRST] = np.arange(first, first + n)
    single[:, C_N] = single[:, C_BLOCKS] = 1
    by_rows = table.ops[first : first + n, O_AXES] & AXIS_ROWS > 0
    single[:, C_AXIS] = np.where(by_rows, AXIS_ROWS, AXIS_GROUPS)
    return np.concatenate([chains[:number], single, chains[number + 1 :]])


def _cut_by_channels(table: OpTable, chain: np.ndarray) -> bool:
    """Turn a chain of one depthwise op whose rows are too long to channel tiles; False when that is not possible."""
    if chain[C_AXIS] != AXIS_ROWS or not table.ops[chain[C_FIRST], O_AXES] & AXIS_GROUPS:
        return False
    chain[C_AXIS] = AXIS_GROUPS
    return True


def _residency_order(table: OpTable, chains: np.ndarray) -> np.ndarray:
    """Shortest lives (in chains) first, then smallest: most DRAM traffic saved per place and time."""
    chain_of = np.repeat(np.arange(len(chains)), chains[:, C_N])
    life = chain_of[table.tensors[:, T_LAST]] - chain_of[table.tensors[:, T_FIRST]] + 1
    return np.lexsort((np.arange(len(life)), table.tensors[:, T_BITS], life))


def _problem(
    table: OpTable, accelerator: Accelerator, chain: np.ndarray, status: int, need: int, bound: int
) -> Problem:
    first, last = int(chain[C_FIRST]), int(chain[C_FIRST] + chain[C_N] - 1)
    name = table.op_names[first] if first == last else f"{table.op_names[first]} … {table.op_names[last]}"
    kind = "weight" if status == STATUS_WEIGHTS else "activation"
    what = "its parameters or two of its smallest weight blocks do" if kind == "weight" else "its smallest tile does"
    levers = (f"{kind}_buffer.capacity_bits of at least {need}", "fewer bits", "a lower resolution")
    return Problem(
        f"{name} on {accelerator.name}", f"{what} not fit the {kind} buffer", "", levers, need, bound, "bits"
    )


def _largest_alive(table: OpTable, arrays: MappingArrays, chains: tuple[int, ...]) -> int:
    """The largest resident tensor that lives during one of `chains`, or -1."""
    best, best_bits = -1, 0
    firsts = arrays.chains[:, C_FIRST]
    for t in np.flatnonzero(arrays.resident):
        start = int(np.searchsorted(firsts, table.tensors[t, T_FIRST], side="right")) - 1
        stop = int(np.searchsorted(firsts, table.tensors[t, T_LAST], side="right")) - 1
        if any(start <= c <= stop for c in chains) and table.tensors[t, T_BITS] > best_bits:
            best, best_bits = int(t), int(table.tensors[t, T_BITS])
    return best
