"""What a map of non-linear methods costs on an accelerator: the whole network, and the vector unit alone."""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.api import simulate
from accelsim.arch import Accelerator
from accelsim.ir import Workload
from accelsim.optable import op_table
from accelsim.plan import QuantPlan


@dataclass(frozen=True)
class MapCost:
    """Costs of one image.  The vector unit's: busy cycles, and energy with its idle and leakage."""

    latency_cycles: int
    energy_pj: float
    edp_pj_s: float
    clock_hz: int
    vector_cycles: float
    vector_energy_pj: float

    @property
    def latency_s(self) -> float:
        """Latency in seconds."""
        return self.latency_cycles / self.clock_hz


def map_cost(workload: Workload, plan: QuantPlan, accelerator: Accelerator) -> MapCost:
    """Simulate a plan.  Raises InfeasibleError when the accelerator lacks what a method needs."""
    report = simulate(op_table(workload, plan), accelerator)
    result, price = report.result, report.prices.arithmetic
    unit = result.program.units.index("vector")
    of_vector = sum(value for name, value in price.energy_by_component_pj.items() if name.startswith("vector."))
    return MapCost(
        result.cycles_total,
        price.energy_pj,
        price.edp_pj_s,
        accelerator.clock_hz,
        float(result.unit_busy_ticks[unit]) / result.program.ticks_per_cycle,
        of_vector,
    )
