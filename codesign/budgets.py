"""Budgets of a quantization: the first plan of a method's candidates, best first, that costs no more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from accelsim.problems import AccelsimError, InfeasibleError, Problem

if TYPE_CHECKING:
    from accelsim.arch import Accelerator
    from accelsim.ir import Workload
    from accelsim.plan import QuantPlan

SIMULATED = ("latency_s", "energy_pj", "edp_pj_s")
KINDS = ("bops", "size_bits", "avg_bits", *SIMULATED, "uniform")


@dataclass(frozen=True)
class Budget:
    """An upper bound of one cost.  ``uniform`` is given in bits: the bit operations of that
    width everywhere but in the image, which has 8 bits.
    """

    kind: str
    value: float

    def limit(self, workload: Workload) -> float:
        """The bound in the unit of `cost`."""
        if self.kind != "uniform":
            return self.value
        from accelsim.formats import Format, Scheme
        from accelsim.plan import QuantPlan, Rule, WeightShare, apply_plan
        from accelsim.workloads.rank import RANK
        from quant.costs import bit_operations

        fmt = Format(Scheme.UNIFORM, int(self.value))
        image = Rule(workload.ops[0].name, (WeightShare(fmt),), Format.parse("u8"), fmt, fmt)
        rest = Rule("*", (WeightShare(fmt),), fmt, fmt, fmt)
        words = Rule(f"class:{RANK}", output=Format.parse("u16"))  # no operand of a product
        return bit_operations(apply_plan(workload, QuantPlan("uniform", (words, image, rest))))


def parse_budget(text: str, kinds: tuple[str, ...] = KINDS) -> Budget:
    """The budget of ``KIND=VALUE``, one of `kinds`.  Raises AccelsimError with the kinds otherwise."""
    kind, _, number = text.partition("=")
    where = f"--budget {text}"
    if kind not in kinds:
        raise AccelsimError(Problem(where, f"unknown kind {kind!r}", f"KIND=VALUE with one of {', '.join(kinds)}"))
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf") or (kind == "uniform" and value not in range(2, 17)):
        expected = "2 … 16 bits" if kind == "uniform" else "a number above 0"
        raise AccelsimError(Problem(where, f"found the value {number!r}", expected, (f"--budget {kind}=8",)))
    return Budget(kind, value)


def cost(budget: Budget, workload: Workload, plan: QuantPlan, accelerator: Accelerator) -> float:
    """What a plan costs in the budget's unit (`uniform`: bit operations)."""
    if budget.kind in SIMULATED:
        from accelsim.api import simulate
        from accelsim.optable import op_table

        return float(simulate(op_table(workload, plan), accelerator).to_json()[budget.kind])
    from accelsim.plan import apply_plan
    from quant.costs import average_bits, bit_operations, size_bits

    measure = {"size_bits": size_bits, "avg_bits": average_bits}.get(budget.kind, bit_operations)
    return measure(apply_plan(workload, plan))


def within(
    budget: Budget, workload: Workload, accelerator: Accelerator, candidates: Iterable[tuple[str, QuantPlan]]
) -> tuple[str, float, float]:
    """Name, cost and limit of the first candidate plan that costs no more than the budget.

    Raises InfeasibleError with the cheapest one's cost when none does.
    """
    limit = budget.limit(workload)
    best: tuple[float, str] | None = None
    for name, plan in candidates:
        try:
            spent = cost(budget, workload, plan, accelerator)
        except InfeasibleError:
            continue  # this plan cannot run on the accelerator at all
        if spent <= limit:
            return name, spent, limit
        if best is None or spent < best[0]:
            best = (spent, name)
    found = "no candidate runs on this accelerator" if best is None else f"the cheapest, {best[1]}, needs {best[0]:.6g}"
    levers = ("a larger budget", "another method or accelerator")
    raise InfeasibleError(Problem(f"--budget {budget.kind}={budget.value:g}", found, f"at most {limit:.6g}", levers))
