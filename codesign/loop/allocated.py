"""An arm whose plans are allocated: the loop with all options, or without a family of them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from accelsim.api import simulate
from accelsim.arch import Accelerator
from accelsim.optable import op_table
from accelsim.plan import QuantPlan
from accelsim.problems import InfeasibleError
from codesign.allocate.feedback import Allocation
from codesign.loop.designs import ALLOCATED, PlanMaker, prepared
from codesign.loop.final import Candidate, over_limits
from codesign.loop.outer import Looked, best_of, ranked
from codesign.loop.spec import CodesignSpec
from codesign.loop.variants import Variant

# Hardware of the search whose plans are chosen again exactly, for every limit.
BEST_HARDWARE = 2
FINAL_ROUNDS, FINAL_TRIES = 8, 200


@dataclass(frozen=True)
class Place:
    """Hardware on which an arm chooses a plan, for a form of the network."""

    variant: str
    looked: Looked

    @property
    def key(self) -> str:
        """The form and the values of the hardware."""
        return f"{self.variant} {sorted(self.looked.values.items())}"


class AllocatedArm:
    """Candidates of one arm.

    `looked` are designs of all searches by name, `searches` those with allocated plans whose hardware the arm may use,
    its own first.  It may also use what the searches for uniform widths found: its options contain these plans.
    """

    def __init__(
        self, name: str, spec: CodesignSpec, maker: PlanMaker, looked: Mapping[str, list[Looked]],
        searches: Sequence[str],
    ) -> None:  # fmt: skip
        self.name, self.spec, self.maker, self.searches = name, spec, maker, searches
        self.looked = looked

    def design(self, level: float) -> Candidate:
        """The arm's design at a limit of the predicted loss.  Raises InfeasibleError when the search has none."""
        settings = replace(self.maker.loop, rounds=FINAL_ROUNDS, tries=FINAL_TRIES, method=self.spec.final.solver)
        best: tuple[tuple[bool, float], Place, Accelerator, Allocation] | None = None
        for place in self.hardware(level):
            accelerator = place.looked.accelerator(self.maker)
            variant = self.maker.variants[place.variant]
            for loop in (settings, self.maker.loop):
                found = self.maker.allocation(place.variant, accelerator, level, loop)
                plan = prepared(variant, accelerator)[0].plan(found.selection, channels=False)
                rank = exact_rank(self.spec, variant, plan, accelerator)
                if best is None or rank < best[0]:
                    best = (rank, place, accelerator, found)
        assert best is not None
        _, place, accelerator, found = best
        plan = prepared(self.maker.variants[place.variant], accelerator)[0].plan(found.selection)
        extra = {
            "rounds": [asdict(row) for row in found.rounds], "stable": found.stable, "table_gap": found.gap,
            "simulations": found.simulations, "polished": found.polished,
        }  # fmt: skip
        return Candidate(
            f"{self.name}-{level:g}", self.name, f"{self.name} ≤ {level:g}", accelerator, place.looked.values, plan,
            found.penalty, level, place.variant, extra,
        )  # fmt: skip

    def hardware(self, level: float) -> list[Place]:
        """Hardware to choose a plan on: the best of the searches for this limit (or the nearest ones) and of the
        uniform widths, by the EDP of the plan that the loop finds for it at this limit.
        """
        searched = level in self.spec.losses
        known: dict[str, tuple[float, Place]] = {}
        for place in [*self._allocated(level), *self._uniform()]:
            priced = searched and place.looked.plan == f"{ALLOCATED[place.variant]}{level:g}"
            if priced and place.looked.edp_pj_s < known.get(place.key, (math.inf,))[0]:
                known[place.key] = (place.looked.edp_pj_s, place)
            elif not priced and place.key not in known:
                with contextlib.suppress(InfeasibleError):
                    accelerator = place.looked.accelerator(self.maker)
                    found = self.maker.allocation(place.variant, accelerator, level)
                    known[place.key] = (float(found.report.metrics()["edp_pj_s"]), place)
        if not known:
            best_of([], f"{self.name} ≤ {level:g}")  # says that there is none
        order = sorted(known.values(), key=lambda item: (item[0], item[1].looked.point.index, item[1].variant))
        return [place for _, place in order[:BEST_HARDWARE]]

    def _allocated(self, level: float) -> Iterator[Place]:
        """The best designs of the searches with allocated plans: two of its own for each limit, one of the others."""
        near = sorted(self.spec.losses, key=lambda other: (abs(_log(other) - _log(level)), other))
        for search in self.searches:
            own = search == self.searches[0]
            for variant in self.maker.variants:
                for other in near[:1] if level in self.spec.losses or not own else near[:2]:
                    name = f"{ALLOCATED[variant]}{other:g}"
                    there = [one for one in self.looked[search] if one.within and one.plan == name]
                    yield from (Place(variant, one) for one in ranked(there)[: BEST_HARDWARE if own else 1])

    def _uniform(self) -> Iterator[Place]:
        """The best hardware for every uniform width."""
        for name in (f"uniform{bits}" for bits in self.spec.baselines.uniform):
            there = [one for one in self.looked[name] if one.within]
            if there:
                yield from (Place(variant, best_of(there)) for variant in self.maker.variants)


def exact_rank(spec: CodesignSpec, variant: Variant, plan: QuantPlan, accelerator: Accelerator) -> tuple[bool, float]:
    """Whether a design misses limits, and its EDP, mapped by the final mapper: what is least is best."""
    report = simulate(op_table(variant.workload, plan), accelerator, mapper=spec.final.mapper)
    return bool(over_limits(report, spec.limits)), float(report.metrics()["edp_pj_s"])


def _log(level: float) -> float:
    return math.log(max(level, 1e-12))
