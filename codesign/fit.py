"""Which built-in networks an accelerator can run, and what it would take to run the others."""

from __future__ import annotations

from dataclasses import dataclass, replace

from accelsim.arch import Accelerator
from accelsim.mappers.heuristic import map_and_lower
from accelsim.optable import OpTable, op_table
from accelsim.plan import QuantPlan
from accelsim.problems import InfeasibleError, Problem
from accelsim.workloads.registry import build_workload, model_names

BUFFERS = ("activation", "weight")
MAX_ENLARGEMENTS = 16


@dataclass(frozen=True)
class Fit:
    """One network on one accelerator: `problems` is empty when it fits.

    `peak_activation_bits` is the highest address that the mapping uses (None: infeasible).  `remedy_bits` are buffer
    capacities (field → bits, whole macros) with which it was tried again and does fit; empty when it fits as it is, or
    when larger buffers do not help.
    """

    model: str
    resolution: int
    problems: tuple[Problem, ...]
    peak_activation_bits: int | None
    remedy_bits: dict[str, int]


def fit_networks(accelerator: Accelerator, plan: QuantPlan) -> list[Fit]:
    """Map every built-in network at its own resolution under `plan`; nothing is simulated."""
    return [_fit(op_table(build_workload(name), plan), accelerator) for name in model_names()]


def _fit(table: OpTable, accelerator: Accelerator) -> Fit:
    workload = table.quantized.workload
    try:
        peak = map_and_lower(table, accelerator)[2].peak_activation_bits
    except InfeasibleError as error:
        return Fit(workload.name, workload.resolution, error.problems, None, _remedy(table, accelerator, error))
    return Fit(workload.name, workload.resolution, (), peak, {})


def _remedy(table: OpTable, accelerator: Accelerator, error: InfeasibleError) -> dict[str, int]:
    """Buffer capacities that were tried and suffice: each shortage is filled, to whole macros, until the rest fits."""
    changed: dict[str, int] = {}
    for _ in range(MAX_ENLARGEMENTS):
        problem = error.problems[0]
        short = [name for name in BUFFERS if f"{name}_buffer.capacity_bits" in " ".join(problem.levers)]
        if problem.demand is None or not problem.gap or len(short) != 1:
            return {}
        field = f"{short[0]}_buffer"
        buffer = getattr(accelerator, field)
        capacity = -(-problem.demand // buffer.macro_bits) * buffer.macro_bits
        accelerator = accelerator.replace(**{field: replace(buffer, capacity_bits=capacity)})
        changed[f"{field}.capacity_bits"] = capacity
        try:
            map_and_lower(table, accelerator)
        except InfeasibleError as again:
            error = again
            continue
        return changed
    return {}


def fit_lines(fits: list[Fit], accelerator: Accelerator, plan: QuantPlan) -> list[str]:
    """The answer as text, a line per network and per problem."""
    possible = sum(not fit.problems for fit in fits)
    lines = [f"{possible} of {len(fits)} built-in networks fit {accelerator.name} with plan {plan.name}:"]
    for fit in fits:
        title = f"  {fit.model} at {fit.resolution}".ljust(28)
        if not fit.problems:
            lines.append(
                f"{title} fits: {fit.peak_activation_bits:,} of {accelerator.activation_buffer.capacity_bits:,} bits "
                "of activation buffer used"
            )
            continue
        lines += [f"{title} does not fit: {problem}" for problem in fit.problems[:1]]
        more = len(fit.problems) - 1
        if more:
            lines.append(f"{'':28} and {more} more ops of the kind")
        if fit.remedy_bits:
            needed = ", ".join(f"{field}: {bits:_}" for field, bits in fit.remedy_bits.items())
            lines.append(f"{'':28} fits with {needed} (tried)")
    return lines
