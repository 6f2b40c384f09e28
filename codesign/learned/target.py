"""The budget of a run: bit operations, or a simulated cost of a target with what its widths can reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from accelsim.arch import Accelerator
from accelsim.problems import InfeasibleError, Problem
from codesign.budgets import SIMULATED, Budget
from codesign.learned.costs import TargetCost
from quant.learned import budget as learned
from quant.learned.quantizer import HIGHEST_BITS, LOWEST_BITS
from quant.learned.sites import SiteOptions, sites_of
from quant.network import Network

SAME = 1e-3  # relative difference of uniform costs that are as good as one


@dataclass(frozen=True)
class Limits:
    """The budget in the loss, the lowest uniform width above it (8 at most) and what to note about the target."""

    kind: str
    budget: learned.Budget
    start_bits: int
    target: dict[str, Any]


def limits_of(budget: Budget, network: Network, accelerator: Accelerator, sites: SiteOptions, modes: str) -> Limits:
    """The limits of a budget of the command.

    Raises InfeasibleError for a simulated cost below that of every uniform width, with the least one.
    """
    if budget.kind not in SIMULATED:
        bits = int(budget.value)
        cost = learned.BitOperations(network.workload)
        limit = cost.exact(learned.uniform_widths(sites_of(network.workload, sites), bits))
        return Limits(budget.kind, learned.Budget(cost, limit), min(bits + 1, HIGHEST_BITS), {})
    target = TargetCost(budget.kind, network, accelerator, sites, modes)
    uniform = {bits: target.uniform(bits) for bits in range(LOWEST_BITS, HIGHEST_BITS + 1)}
    least, most = min(uniform.values()), max(uniform.values())
    flat = most - least <= SAME * most
    if budget.value < least:
        what = f"{least:.6g} is the least that uniform widths of {LOWEST_BITS} … {HIGHEST_BITS} bits reach"
        if flat:
            what = f"every width of {LOWEST_BITS} … {HIGHEST_BITS} bits costs {least:.6g}: this array gains nothing"
        levers = ("a larger budget", "--arch bitfusion_edge, whose array has narrow modes", "--budget uniform=B")
        where = f"--budget {budget.kind}={budget.value:g} on {accelerator.name}"
        raise InfeasibleError(Problem(where, what, f"at least {least:.6g}", levers))
    start = next((bits for bits, spent in uniform.items() if spent > budget.value), HIGHEST_BITS)
    low, high = target.ratio[1] / target.ratio[0], target.ratio[2] / target.ratio[0]
    note = {
        "arch": accelerator.name, "modes": modes, "left_modes": list(target.modes[0]),
        "right_modes": list(target.modes[1]), "uniform": {str(bits): cost for bits, cost in uniform.items()},
        "flat": flat, "binds": budget.value < most, "simulated_over_estimate": [low, high],
    }  # fmt: skip
    return Limits(budget.kind, learned.Budget(target, budget.value), start, note)
