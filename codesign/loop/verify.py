"""Verification of all arms of a study: their designs at every limit, with more limits where accuracy is lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from accelsim.problems import InfeasibleError, Problem
from codesign.loop.arms import RULE, Arms
from codesign.loop.bench import Bench
from codesign.loop.designs import PlanMaker
from codesign.loop.final import Candidate, Verifier
from codesign.loop.folder import StudyFolder
from codesign.loop.outcome import best_design
from codesign.loop.spec import CodesignSpec

Say = Callable[[str], None]


def verify_all(
    spec: CodesignSpec, folder: StudyFolder, maker: PlanMaker, bench: Bench | None, say: Say
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Records of all arms, and why an arm has no design."""
    arms = Arms(spec, folder, maker, bench)
    workloads = {name: one.workload for name, one in maker.variants.items()}
    verifier = Verifier(folder, workloads, spec.final.mapper, bench, spec.limits)
    tries = _Tries(spec, verifier, 0 if bench is None else spec.final.refine, say)
    for name, arm in arms.allocated.items():
        tries.ladder(name, arm.design)
        if not tries.records:
            raise InfeasibleError([Problem(f"{spec.where}: {name}", text) for name, text in tries.refusals.items()])
    for name in maker.learned:
        tries.attempt(f"learned-{name}", partial(arms.learned, name))
    for bits in spec.baselines.uniform:
        record = tries.attempt(f"uniform{bits}", partial(arms.uniform, bits))
        # Every arm at the predicted loss of the uniform plan, which is one of its choices.
        level = 0.0 if record is None else float(f"{1.001 * record['predicted_loss']:.4g}")
        if level > 0 and level not in spec.losses:
            for name, arm in arms.allocated.items():
                tries.attempt(f"{name}-{level:g}", partial(arm.design, level))
    if spec.baselines.sequential:
        tries.ladder("sequential", arms.sequential)
    if spec.baselines.m2vit_rule is not None:
        tries.attempt(RULE, arms.rule)
    for number in range(spec.baselines.random):
        tries.attempt(f"random-{number}", partial(arms.random, number))
    return list(tries.records.values()), tries.refusals


class _Tries:
    """Designs that are tried one after the other: `records` of those that there are, `refusals` of the others."""

    def __init__(self, spec: CodesignSpec, verifier: Verifier, refine: int, say: Say) -> None:
        self.spec, self.verifier, self.refine, self.say = spec, verifier, refine, say
        self.records: dict[str, dict[str, Any]] = {}
        self.refusals: dict[str, str] = {}

    def attempt(self, name: str, make: Callable[[], Candidate]) -> dict[str, Any] | None:
        """The record of a design, verified unless it is there; None when it cannot be made."""
        if name in self.records:  # limits of one arm may meet: refined ones, and losses of uniform plans
            return self.records[name]
        record = self.verifier.stored(name)
        if record is None:
            try:
                record = self.verifier.verify(make())
            except InfeasibleError as error:
                self.refusals[name] = str(error)
                self.say(f"        {name}: {error.problems[0]}")
                return None
        self.records[name] = record
        self.say(f"        {summary(record)}")
        return record

    def ladder(self, name: str, make: Callable[[float], Candidate]) -> None:
        """An arm at every limit, then at more of them where accuracy is lost."""
        rungs = {level: self.attempt(f"{name}-{level:g}", partial(make, level)) for level in self.spec.losses}
        for _ in range(self.refine):
            level = between(rungs.values())
            if level is None or level in rungs:
                break
            rungs[level] = self.attempt(f"{name}-{level:g}", partial(make, level))


def between(records: Iterable[dict[str, Any] | None]) -> float | None:
    """A limit between the best design of equal accuracy and the next one that loses too much; None without such."""
    there = sorted((one for one in records if one is not None), key=lambda one: one["level"])
    best = best_design(there)
    if best is None or best["validation"] is None:
        return None
    worse = [one["level"] for one in there if one["level"] > best["level"] and not one["validation"]["non_inferior"]]
    if not worse:
        return None
    low, high = best["level"], min(worse)
    level = math.sqrt(low * high) if low > 0 else high / 4
    return float(f"{level:.3g}")


def summary(record: dict[str, Any]) -> str:
    """A verified design in one line."""
    text = (
        f"{record['id']}: {record['cycles']:,} cycles, {record['energy_pj'] / 1e6:.4g} µJ, {record['area_mm2']:.3g} mm²"
    )
    text += f", EDP {record['edp_pj_s']:.4g} pJ·s"
    if record["over_limits"]:
        text += f", over the limit of {' and '.join(record['over_limits'])}"
    measured = record["validation"]
    if measured is not None:
        verdict = "" if measured["non_inferior"] else " (not shown to be equal)"
        text += f", top-1 {measured['top1']:.2%}, {100 * measured['change']:+.2f} points{verdict}"
    return text
