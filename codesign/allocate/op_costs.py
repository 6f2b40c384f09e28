"""What every op of a simulated design took: cycles, loads of the units, energy, bits over the bus.  Exact, additive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from accelsim.api import Report
from accelsim.energy import price_per_op, static_pj_per_cycle
from accelsim.program import COUNT, FIRST_TEMPLATE, OCCUPANCY, OP, PHASE_ROWS, UNIT, Int64, Program
from codesign.allocate.problem import Floats


@dataclass(frozen=True, eq=False)
class OpCosts:
    """Costs by op of one image, rows in the order of `Report.table.op_names`.

    `cycles` [n] are the op's own cycles: those in which it is the oldest unfinished op; they sum to the latency.
    `loads` [n, units] are the busy cycles of every unit (engines, vector, dram).  `energy_pj` [n] is dynamic energy
    less the idle energy that busy units save, so that the design's energy is its sum + `static_pj_per_cycle` × latency.
    `bus_bits` [n] cross the bus.
    """

    cycles: Floats
    loads: Floats
    energy_pj: Floats
    bus_bits: Floats
    static_pj_per_cycle: float

    @property
    def stacked(self) -> Floats:
        """[n, 3 + units]: cycles, energy, bus bits, loads."""
        return np.column_stack([self.cycles, self.energy_pj, self.bus_bits, self.loads])


def op_costs(report: Report) -> OpCosts:
    """The costs of a design's ops.

    With a banked DRAM the bus load is that of the rows as written, before rows and refreshes are known.
    """
    result, accelerator = report.result, report.accelerator
    ticks = result.program.ticks_per_cycle
    loads = unit_loads(result.program) / ticks
    idle, leakage = static_pj_per_cycle(accelerator)
    saved = np.array([idle.get(unit, 0.0) for unit in result.program.units])
    energy = price_per_op(result.counts, accelerator) - loads @ saved
    return OpCosts(
        result.op_own_ticks / ticks, loads, energy, result.counts[:, -2:].sum(axis=1).astype(np.float64),
        leakage + float(sum(idle.values())),
    )  # fmt: skip


def unit_loads(program: Program) -> Int64:
    """[n_ops, units] ticks during which an op's rows occupy a unit, one image."""
    phases, templates = program.phases, program.templates
    rows = phases[:, PHASE_ROWS]
    starts = np.repeat(phases[:, FIRST_TEMPLATE] - np.cumsum(rows) + rows, rows)
    used = starts + np.arange(len(starts))
    ticks = templates[used, OCCUPANCY] * np.repeat(phases[:, COUNT], rows)
    n_units = len(program.units)
    cells = templates[used, OP] * n_units + templates[used, UNIT]
    # Sums of integers below 2^53: exact in the floats of bincount.
    flat = np.bincount(cells, ticks, len(program.op_names) * n_units)
    return np.asarray(flat, np.int64).reshape(-1, n_units)
