"""A cost of learned widths on a target accelerator: simulated latency, energy or energy-delay product.  Ours.

The paper's budget is bit operations.  Here the loss has a surrogate that gradients pass (`codesign.learned.tables`),
and what is reported and kept to is the simulation of the plan that the widths give.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

import torch
from torch import Tensor

from accelsim.api import Report, simulate
from accelsim.arch import Accelerator
from accelsim.optable import build_op_table
from accelsim.plan import QuantPlan, apply_plan
from accelsim.problems import AccelsimError, Problem
from codesign.budgets import SIMULATED
from codesign.learned.command import MODES, SNAP
from codesign.learned.modes import knots_of, modes_of
from codesign.learned.tables import pairs_of, width_table
from quant.learned.budget import Widths, terms_of, uniform_widths
from quant.learned.plans import WidthPlans
from quant.learned.quantizer import HIGHEST_BITS, LOWEST_BITS
from quant.learned.sites import SiteOptions
from quant.network import Network

MIXED_PLANS = 16  # random plans on which the surrogate is compared with simulation
SAME = 1e-9  # relative difference of costs that are one


class TargetCost:
    """`kind` (latency_s, energy_pj or edp_pj_s) of one image of a network on an accelerator, heuristically mapped.

    `snap`: at the freeze widths go up as far as the target's cost stays the same.  `ratio` are the median and the
    extremes of simulated / estimated cost of random plans of the target's modes; the estimate is scaled by the median.
    Raises InfeasibleError when the accelerator cannot run such plans.
    """

    def __init__(
        self, kind: str, network: Network, accelerator: Accelerator, options: SiteOptions, modes: str = SNAP
    ) -> None:
        if kind not in SIMULATED or modes not in MODES:
            expected = f"one of {', '.join(SIMULATED)} with {' or '.join(MODES)}"
            raise AccelsimError(Problem("cost of learned widths", f"unknown {kind} with {modes}", expected))
        self.kind, self.accelerator, self.snap = kind, accelerator, modes == SNAP
        self.name = f"{kind} on {accelerator.name} ({accelerator.fingerprint()}), modes {modes}"
        self.plans = WidthPlans(network, options)
        self._simulated: dict[str, dict[str, float]] = {}
        sites = self.plans.sites
        terms = terms_of(network.workload)
        learned = [k for k, one in enumerate(terms) if not (sites[one.left].pinned and sites[one.right].pinned)]
        self.modes = modes_of(accelerator)
        knots = (knots_of(self.modes[0]), knots_of(self.modes[1]))
        self._pairs = pairs_of(terms, learned, sites)
        self._right = {(one.right, one.right_table) for one in terms}
        self.table = width_table(terms, learned, knots, lambda a, b: self._report(self.plans.of(self._pair(a, b))))
        self.scale = 1.0
        self.ratio = self._measured()
        self.scale = self.ratio[0]

    def of(self, widths: Widths) -> Tensor:
        """The estimate, with gradients for the widths."""
        pairs = self._pairs
        flat = pairs.flat(widths)
        found = self.table.at(pairs.term, flat[pairs.left], flat[pairs.right]) * pairs.share[:, None]
        cycles, energy = found.sum(0).unbind()
        latency = cycles / self.accelerator.clock_hz
        total = energy + self.table.static_pj_per_cycle * cycles
        value = {"latency_s": latency, "energy_pj": total, "edp_pj_s": total * latency}[self.kind]
        return self.scale * value

    def exact(self, widths: Widths) -> float:
        """The simulated figure of the plan of whole widths; every plan is simulated once."""
        return self.figures(widths)[self.kind]

    def figures(self, widths: Widths) -> dict[str, float]:
        """Simulated latency_s, energy_pj and edp_pj_s of whole widths."""
        plan = self.plans.of({name: one.detach() for name, one in widths.items()})
        key = plan.fingerprint()
        if key not in self._simulated:
            metrics = self._report(plan).metrics()
            self._simulated[key] = {kind: float(metrics[kind]) for kind in SIMULATED}
        return self._simulated[key]

    def uniform(self, bits: int) -> float:
        """The simulated figure of one width everywhere but in the pinned ends."""
        return self.exact(uniform_widths(self.plans.sites, bits))

    @property
    def simulations(self) -> int:
        """How many plans were simulated by `exact`."""
        return len(self._simulated)

    def raised(self, widths: Widths, fixed: Mapping[str, bool]) -> dict[str, Tensor]:
        """Whole widths raised to those of the target's modes where that costs nothing; as they are without `snap`.

        Only cycles can stay the same: a wider code always takes more energy to move.
        """
        found = {name: one.detach().clone() for name, one in widths.items()}
        if not self.snap or self.kind != "latency_s":
            return found
        limit = self.exact(found) * (1 + SAME)
        tops = sorted({*self.modes[0], *self.modes[1]})
        places = [
            (name, k)
            for name, one in found.items()
            if not fixed.get(name, False)
            for k, bits in enumerate(one.flatten().tolist())
            if bits not in tops
        ]
        self._raise(found, places, tops, limit)
        return found

    def _raise(self, found: dict[str, Tensor], places: list[tuple[str, int]], tops: list[int], limit: float) -> None:
        """Raise all of some widths if that costs no more, else each half of them."""
        if not places:
            return
        before = [float(found[name].view(-1)[k]) for name, k in places]
        for (name, k), bits in zip(places, before, strict=True):
            found[name].view(-1)[k] = float(next(top for top in tops if top >= bits))
        if self.exact(found) <= limit:
            return
        for (name, k), bits in zip(places, before, strict=True):
            found[name].view(-1)[k] = bits
        if len(places) > 1:
            half = len(places) // 2
            self._raise(found, places[:half], tops, limit)
            self._raise(found, places[half:], tops, limit)

    def _report(self, plan: QuantPlan) -> Report:
        return simulate(build_op_table(apply_plan(self.plans.network.workload, plan)), self.accelerator)

    def _pair(self, left: int, right: int) -> dict[str, Tensor]:
        """All learned left operands in one width, all right ones in the other."""
        found = uniform_widths(self.plans.sites, left)
        for name, table in self._right:
            if self.plans.sites[name].pinned:
                continue
            if table is None or len(found[name]) == 1:
                found[name][:] = right
            else:
                found[name][table] = right
        return found

    def _measured(self) -> tuple[float, float, float]:
        """Median, least and largest simulated / estimated cost of random plans of modes."""
        generator = torch.Generator().manual_seed(0)
        tops = torch.tensor(sorted({LOWEST_BITS, HIGHEST_BITS, *self.modes[0], *self.modes[1]}), dtype=torch.float32)
        ratios = []
        for _ in range(MIXED_PLANS):
            widths = uniform_widths(self.plans.sites, HIGHEST_BITS)
            for name, one in widths.items():
                if not self.plans.sites[name].pinned:
                    widths[name] = tops[torch.randint(len(tops), one.shape, generator=generator)]
            ratios.append(self.exact(widths) / float(self.of(widths)))
        return median(ratios), min(ratios), max(ratios)
