"""The arms of a study: the loop's own designs and the baselines, as candidates to verify.

* `codesign`: for every limit of the predicted loss the best hardware of the outer searches (also of those for uniform
  widths: a plan of the loop may be the best for it), its plan chosen again exactly.
* `uniformB`: weights of B bits everywhere, on the hardware that its own search found best.
* `sequential`: the best hardware for uniform 8 bits; then formats by layer with an additive table, made once (in the
  manner of HAQ, arXiv 1811.08886: layer-wise widths, a table of single changes, no feedback, hardware fixed).
* `m2vit_rule`: half (or another share) of the filters powers of two, depthwise filters 4 bits, on fixed hardware
  (`hardware.rule`): the rule of M²-ViT as interpreted in `quant.methods.m2q`.
* `random`: random choices with a predicted loss of at most the largest limit, on the loop's hardware.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

from accelsim.api import simulate
from accelsim.arch import Accelerator
from accelsim.config import load_plan
from accelsim.optable import op_table
from accelsim.plan import QuantPlan
from accelsim.problems import AccelsimError, InfeasibleError
from codesign.allocate.feedback import Allocation, LoopSettings, allocate
from codesign.allocate.goal import Limits
from codesign.allocate.options import OptionSpace, Selection, option_space
from codesign.loop.bench import Bench
from codesign.loop.designs import ALLOCATED, UNIFORM, PlanMaker, uniform_plan
from codesign.loop.final import Candidate, over_limits
from codesign.loop.folder import StudyFolder
from codesign.loop.outer import LOOP, Looked, best_of, catalog_of, looked_at, ranked, rule_hardware
from codesign.loop.spec import CodesignSpec

SEQUENTIAL, RULE, RANDOM = "sequential", "m2vit_rule", "random"
# Hardware of the search whose plans are chosen again exactly, for every limit.
BEST_HARDWARE = 2
FINAL_ROUNDS, FINAL_TRIES = 8, 200


class Arms:
    """Candidates of a study."""

    def __init__(self, spec: CodesignSpec, folder: StudyFolder, maker: PlanMaker, bench: Bench | None) -> None:
        self.spec, self.maker, self.bench = spec, maker, bench
        self.looked = {name: looked_at(spec, folder, name) for name in self._names()}

    def _names(self) -> Iterator[str]:
        yield LOOP
        yield from (f"{UNIFORM}{bits}" for bits in self.spec.baselines.uniform)

    def loop(self, level: float) -> Candidate:
        """The loop's design at a limit of the predicted loss.  Raises InfeasibleError when the search has none."""
        settings = replace(self.maker.loop, rounds=FINAL_ROUNDS, tries=FINAL_TRIES, method=self.spec.final.solver)
        best: tuple[tuple[bool, float], Looked, Accelerator, Allocation] | None = None
        for one in self._hardware(level):
            accelerator = one.accelerator(self.maker)
            for loop in (settings, self.maker.loop):
                found = self.maker.allocation(accelerator, level, loop)
                rank = self._exact(self._plan(accelerator, found.selection, False), accelerator)
                if best is None or rank < best[0]:
                    best = (rank, one, accelerator, found)
        assert best is not None
        _, one, accelerator, found = best
        extra = {
            "rounds": [asdict(row) for row in found.rounds], "stable": found.stable, "table_gap": found.gap,
            "simulations": found.simulations, "polished": found.polished,
        }  # fmt: skip
        return self._candidate(
            f"{LOOP}-{level:g}", LOOP, accelerator, one.values, self._plan(accelerator, found.selection), level, extra
        )

    def uniform(self, bits: int) -> Candidate:
        """Weights of one width on their best hardware.  Raises InfeasibleError when the search found none."""
        name = f"{UNIFORM}{bits}"
        one = self._of_uniform(bits)
        plan = uniform_plan(self.maker.penalties.base, self.maker.workload, bits)
        return self._candidate(name, name, one.accelerator(self.maker), one.values, plan)

    def _of_uniform(self, bits: int) -> Looked:
        """The best hardware for a width: as the loop's, the best of the search's first ones by the final mapper."""
        looked = self.looked[f"{UNIFORM}{bits}"]
        best_of(looked)
        plan = uniform_plan(self.maker.penalties.base, self.maker.workload, bits)
        first = ranked([one for one in looked if one.within])[:BEST_HARDWARE]
        return min(first, key=lambda one: self._exact(plan, one.accelerator(self.maker)))

    def _exact(self, plan: QuantPlan, accelerator: Accelerator) -> tuple[bool, float]:
        """Whether a design misses limits, and its EDP, mapped by the final mapper: what is least is best."""
        report = simulate(op_table(self.maker.workload, plan), accelerator, mapper=self.spec.final.mapper)
        return bool(over_limits(report, self.spec.limits)), float(report.metrics()["edp_pj_s"])

    def sequential(self, level: float) -> Candidate:
        """Hardware for uniform 8 bits, then layer-wise formats by an additive table."""
        one = self._of_uniform(8)
        accelerator = one.accelerator(self.maker)
        settings = replace(self.maker.options, mixtures=0)
        space = option_space(self.maker.workload, self.maker.penalties, accelerator, settings)
        once = LoopSettings(self.maker.loop.objective, rounds=1, tries=0, method=self.maker.loop.method)
        found = allocate(space, accelerator, Limits(penalty=level), once)
        name = f"{SEQUENTIAL}-{level:g}"
        return self._candidate(name, SEQUENTIAL, accelerator, one.values, space.plan(found.selection, name), level)

    def rule(self) -> Candidate:
        """The fixed ratio of M²-ViT on the hardware as it comes."""
        share = self.spec.baselines.m2vit_rule
        assert share is not None
        accelerator = rule_hardware(self.spec, catalog_of(self.maker))
        plan = load_plan(f"m2q:{share:g}") if self.bench is None else self._m2q(self.bench, share)
        return self._candidate(RULE, RULE, accelerator, self.spec.hardware.rule, plan)

    def _m2q(self, bench: Bench, share: float) -> QuantPlan:
        from quant.methods.m2q import M2Q
        from quant.quantize import gather, make_plan

        method = M2Q(ratio=share)
        return make_plan(bench.network, method, gather(bench.network, bench.calibration, method))

    def random(self, number: int) -> Candidate:
        """A random choice within the largest limit of the predicted loss, on the loop's best hardware there."""
        level = self.spec.losses[-1]
        one = next(iter(self._hardware(level)))
        accelerator = one.accelerator(self.maker)
        space = option_space(self.maker.workload, self.maker.penalties, accelerator, self.maker.options)
        draw = random.Random(f"{self.spec.seed}/{number}")
        plan = space.plan(random_choice(space, level, draw), f"{RANDOM}-{number}")
        return self._candidate(f"{RANDOM}-{number}", RANDOM, accelerator, one.values, plan, level)

    def _hardware(self, level: float) -> list[Looked]:
        """Hardware to choose a plan on: the best of the search for this limit (or the nearest ones) and of the uniform
        widths, by the EDP of the plan that the loop finds for it at this limit.
        """
        searched = level in self.spec.losses
        nearest = sorted(self.spec.losses, key=lambda other: (abs(_log(other) - _log(level)), other))
        candidates: list[Looked] = []
        for other in [level] if searched else nearest[:2]:
            there = [one for one in self.looked[LOOP] if one.within and one.plan == f"{ALLOCATED}{other:g}"]
            candidates += ranked(there)[:BEST_HARDWARE]
        known = {_name(one): (float(one.metrics["edp_pj_s"]), one) for one in candidates if searched}
        for name, designs in self.looked.items():
            there = [one for one in designs if one.within]
            candidates += [best_of(there)] if name != LOOP and there else []
        for one in candidates:
            if _name(one) not in known:
                with contextlib.suppress(InfeasibleError):
                    found = self.maker.allocation(one.accelerator(self.maker), level)
                    known[_name(one)] = (float(found.report.metrics()["edp_pj_s"]), one)
        if not known:
            return [best_of(self.looked[LOOP], f"{ALLOCATED}{level:g}")]
        order = sorted(known.values(), key=lambda item: (item[0], item[1].point.index))
        return [one for _, one in order[:BEST_HARDWARE]]

    def _plan(self, accelerator: Accelerator, chosen: Selection, channels: bool = True) -> QuantPlan:
        space = option_space(self.maker.workload, self.maker.penalties, accelerator, self.maker.options)
        return space.plan(chosen, channels=channels)

    def _candidate(
        self, name: str, origin: str, accelerator: Accelerator, values: Mapping[str, Any], plan: QuantPlan,
        level: float | None = None, extra: Mapping[str, Any] | None = None,
    ) -> Candidate:  # fmt: skip
        label = origin if level is None else f"{origin} ≤ {level:g}"
        return Candidate(
            name, origin, label, accelerator, values, plan, predicted_loss(self.maker, plan), level, extra or {}
        )


def predicted_loss(maker: PlanMaker, plan: QuantPlan) -> float | None:
    """The table's loss of a plan; None when it has formats or filters that the table cannot price."""
    try:
        return maker.penalties.loss_of(plan)
    except AccelsimError:
        return None


def random_choice(space: OptionSpace, level: float, draw: random.Random) -> Selection:
    """Ops and groups in random order take random options that leave the predicted loss within the limit."""
    chosen, spent = space.start, space.penalty(space.start)
    places: list[tuple[str, str]] = [("op", one.op) for one in space.ops] + [
        ("group", one.name) for one in space.groups
    ]
    draw.shuffle(places)
    for kind, name in places:
        if kind == "op":
            penalties = [float(value) for value in space.by_op[name].penalty]
            now = penalties[chosen.options[name]]
            fitting = [k for k, value in enumerate(penalties) if spent - now + value <= level]
            if fitting:
                taken = draw.choice(fitting)
                chosen = replace(chosen, options={**chosen.options, name: taken})
                spent += penalties[taken] - now
        else:
            losses = space.penalties.activations[name]
            now = losses[chosen.groups[name]]
            names = [fmt for fmt in space.group_formats[name] if spent - now + losses[fmt] <= level]
            if names:
                fmt = draw.choice(names)
                chosen = replace(chosen, groups={**chosen.groups, name: fmt})
                spent += losses[fmt] - now
    return chosen


def _name(one: Looked) -> str:
    return str(sorted(one.values.items()))


def _log(level: float) -> float:
    return math.log(max(level, 1e-12))
