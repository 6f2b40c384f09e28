"""What a state costs: weight storage, widths, bit operations, or simulated time and energy of its plan."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from accelsim.arch import Accelerator
from accelsim.ir import Workload
from accelsim.plan import QuantPlan
from codesign.budgets import KINDS, SIMULATED, Budget, cost
from codesign.greedy.trajectory import State

LAYER_BITS = "layer_bits"
COSTS = (*KINDS, LAYER_BITS)


class PlanCosts:
    """Costs of the plans of states by kind, in the units of `codesign.budgets.cost`; each state is simulated once.

    "layer_bits" is the mean width of the components, weights and activations alike, each counted once.
    """

    def __init__(self, workload: Workload, accelerator: Accelerator, plan: Callable[[State], QuantPlan]) -> None:
        self._workload, self._accelerator, self._plan = workload, accelerator, plan
        self._simulated: dict[State, dict[str, float]] = {}

    def of(self, kind: str) -> Callable[[State], float]:
        """The cost of a kind.  Asked for a state that the accelerator cannot run it raises InfeasibleError."""
        if kind == LAYER_BITS:
            return fmean
        if kind in SIMULATED:
            return lambda state: self._of_simulation(state)[kind]
        budget = Budget(kind, 0.0)
        return lambda state: cost(budget, self._workload, self._plan(state), self._accelerator)

    def _of_simulation(self, state: State) -> dict[str, float]:
        from accelsim.api import simulate
        from accelsim.optable import op_table

        if state not in self._simulated:
            report = simulate(op_table(self._workload, self._plan(state)), self._accelerator).to_json()
            self._simulated[state] = {kind: float(report[kind]) for kind in SIMULATED}
        return self._simulated[state]
