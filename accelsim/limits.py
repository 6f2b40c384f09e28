"""What int64 can hold: designs whose counts or times could leave it are refused before a kernel sees them.

The kernels multiply sizes by each other and times by ticks without looking for overflow.  The checks here use floats,
which cannot overflow, and bounds that no tile of any mapping exceeds, with room for the sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

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


def check_times(table: OpTable, accelerator: Accelerator) -> None:
    """Refuse designs in which one row could take 2^58 ticks or more.  Raises InfeasibleError, naming the op.

    A transfer moves at most a whole tensor, in as many runs as it has positions; an engine takes at most one step per
    MAC and term pass, a step at most as long as its port needs for all slots; the vector unit does at most everything
    one after the other.
    """
    from accelsim import optable as o

    burst = accelerator.burst_cycles()
    ticks = float(burst.denominator)
    tensors, ops = table.tensors.astype(np.float64), table.ops.astype(np.float64)
    bursts = tensors[:, o.T_BITS] / accelerator.dram.burst_bits + tensors[:, o.T_POSITIONS] + 1
    weights = ops[:, o.O_UNITS] * (ops[:, o.O_UNIT_WEIGHTS] * WIDEST_BITS + ops[:, o.O_UNIT_EXTRA])
    weight_bursts = (weights + ops[:, o.O_PARAM_BITS]) / accelerator.dram.burst_bits + 1
    bus = max(bursts.max(), weight_bursts.max()) * float(burst.numerator)
    macs = np.prod(ops[:, [o.O_GROUPS, o.O_ROWS_H, o.O_ROWS_W, o.O_COLS, o.O_TAPS, o.O_DEPTH]], axis=1)
    step = max(
        4 + WIDEST_BITS * 16.0 * engine.slots
        / min(engine.activation_port_bits_per_cycle, engine.weight_port_bits_per_cycle)
        for engine in accelerator.engines
    )  # fmt: skip
    moved = ops[:, o.O_PASSES] * (ops[:, o.O_IN0] + ops[:, o.O_IN1] + 1) * WIDEST_BITS
    element_wise = table.vector.sum(axis=(1, 2)) + moved / accelerator.vector.port_bits_per_cycle
    computing = (np.where(ops[:, o.O_KIND] == o.KIND_VECTOR, element_wise, macs * step)).max() * ticks
    if max(bus, computing) >= MAX_ROW_TICKS:
        what = "a transfer" if bus >= computing else "a tile"
        raise InfeasibleError(
            Problem(accelerator.name, f"{what} may take {max(bus, computing):.3g} ticks", "less than 2^58 ticks",
                    ("a rounder ratio of clock to bandwidth", "wider ports", "a smaller network"))
        )  # fmt: skip
