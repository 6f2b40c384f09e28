"""What int64 can hold: designs whose counts or times could leave it are refused before a kernel sees them.

The kernels multiply sizes by each other and times by ticks without looking for overflow.  The checks here use floats,
which cannot overflow, and bounds that no tile of any mapping exceeds, with room for the sums.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from accelsim.dram import slowdown
from accelsim.ir import VECTOR_KINDS
from accelsim.problems import InfeasibleError, Problem

if TYPE_CHECKING:
    from accelsim.arch import Accelerator
    from accelsim.optable import OpTable

# A tile of a tensor is its bits × tile size ÷ extent of the axis: the product must fit.
MAX_PRODUCT = float(1 << 62)
# Ticks of one row; `lower` checks the sum over all rows against its own limit, the same.
MAX_ROW_TICKS = float(1 << 58)
WIDEST_BITS = 16


def check_products(table: OpTable) -> None:
    """Refuse ops for which bits × extent of an axis could leave int64.  Raises InfeasibleError with every such op."""
    from accelsim import optable as o

    ops = table.ops.astype(np.float64)
    outputs = table.tensors[table.ops[:, o.O_OUT], o.T_BITS].astype(np.float64)
    bits = np.maximum(outputs, np.maximum(ops[:, o.O_IN0], ops[:, o.O_IN1]) * WIDEST_BITS)
    extent = np.maximum(ops[:, o.O_GROUP_EXTENT], np.maximum(ops[:, o.O_ROWS_H], ops[:, o.O_UNITS]))
    problems = [
        Problem(f"op {table.op_names[k]}", f"a tensor of {bits[k]:.3g} bits cut into {extent[k]:.3g} parts",
                "bits × parts below 2^62", ("a smaller layer",))
        for k in np.flatnonzero(bits * extent >= MAX_PRODUCT)
    ]  # fmt: skip
    if problems:
        raise InfeasibleError(problems[:8])


def check_vector_kinds(table: OpTable, accelerator: Accelerator) -> None:
    """Refuse ops whose recipe needs a kind of functional unit that the vector unit lacks.  Raises InfeasibleError."""
    lacks = np.array(accelerator.vector.throughput()) < 1
    needed = table.vector.sum(axis=1) > 0
    problems = [
        Problem(f"op {table.op_names[k]}",
                f"needs {', '.join(kinds)}, which the vector unit of {accelerator.name} does not have",
                levers=tuple(f"vector.{kind}_per_cycle ≥ 1" for kind in kinds))
        for k in np.flatnonzero((needed & lacks).any(axis=1))
        if (kinds := [kind for kind, missing in zip(VECTOR_KINDS, needed[k] & lacks, strict=True) if missing])
    ]  # fmt: skip
    if problems:
        raise InfeasibleError(problems[:8])


@lru_cache(maxsize=64)
def _largest(table: OpTable) -> tuple[float, float, float, float, float, float]:
    """Largest tensor and positions, weights of an op, MACs, and of a vector op its operations and bits moved."""
    from accelsim import optable as o

    tensors, ops = table.tensors.astype(np.float64), table.ops.astype(np.float64)
    weights = ops[:, o.O_UNITS] * (ops[:, o.O_UNIT_WEIGHTS] * WIDEST_BITS + ops[:, o.O_UNIT_EXTRA])
    macs = np.prod(ops[:, [o.O_GROUPS, o.O_ROWS_H, o.O_ROWS_W, o.O_COLS, o.O_TAPS, o.O_DEPTH]], axis=1)
    arrays = ops[:, o.O_KIND] != o.KIND_VECTOR
    moved = ops[:, o.O_PASSES] * (ops[:, o.O_IN0] + ops[:, o.O_IN1] + 1) * WIDEST_BITS
    return (
        float(tensors[:, o.T_BITS].max()), float(tensors[:, o.T_POSITIONS].max()),
        float((weights + ops[:, o.O_PARAM_BITS]).max()), float((macs * arrays).max()),
        float(table.vector.sum(axis=(1, 2), dtype=np.float64).max()), float(moved.max()),
    )  # fmt: skip


def check_times(table: OpTable, accelerator: Accelerator) -> None:
    """Refuse designs in which one row could take 2^58 ticks or more.  Raises InfeasibleError.

    A transfer moves at most a whole tensor, in as many runs as it has positions; an engine takes at most one step per
    MAC and term pass, a step at most as long as its port needs for all slots and a systolic array to fill and drain;
    the vector unit does at most everything one after the other.
    """
    tensor_bits, positions, weight_bits, macs, operations, moved_bits = _largest(table)
    bus_ticks, dram = accelerator.bus_ticks(), accelerator.dram
    bursts = max(tensor_bits, weight_bits) / dram.burst_bits + positions + 1
    bus = bursts * float(bus_ticks.burst * slowdown(dram.timing(accelerator.clock_hz)))
    step = max(
        4
        + 4 * (engine.lanes + engine.lane_width) * (engine.dataflow != "none")
        + WIDEST_BITS
        * 16.0
        * engine.slots
        / min(engine.activation_port_bits_per_cycle, engine.weight_port_bits_per_cycle)
        for engine in accelerator.engines
    )
    element_wise = operations + moved_bits / accelerator.vector.port_bits_per_cycle
    ticks = max(bus, max(element_wise, macs * step) * bus_ticks.per_cycle)
    if ticks >= MAX_ROW_TICKS:
        what = "a transfer" if ticks == bus else "a tile"
        raise InfeasibleError(
            Problem(accelerator.name, f"{what} may take {ticks:.3g} ticks", "less than 2^58 ticks",
                    ("a rounder ratio of clock to bandwidth", "wider ports", "a smaller network"))
        )  # fmt: skip
