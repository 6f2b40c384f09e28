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
    records: dict[str, dict[str, Any]] = {}
    refusals: dict[str, str] = {}

    def attempt(name: str, make: Callable[[], Candidate]) -> dict[str, Any] | None:
        if name in records:  # limits of one arm may meet: refined ones, and losses of uniform plans
            return records[name]
        record = verifier.stored(name)
        if record is None:
            try:
                record = verifier.verify(make())
            except InfeasibleError as error:
                refusals[name] = str(error)
                say(f"        {name}: {error.problems[0]}")
                return None
        records[name] = record
        say(f"        {summary(record)}")
        return record

    def ladder(name: str, make: Callable[[float], Candidate]) -> None:
        rungs = {level: attempt(f"{name}-{level:g}", partial(make, level)) for level in spec.losses}
        for _ in range(spec.final.refine if bench is not None else 0):
            level = between(rungs.values())
            if level is None or level in rungs:
                break
            rungs[level] = attempt(f"{name}-{level:g}", partial(make, level))

    for name, arm in arms.allocated.items():
        ladder(name, arm.design)
        if not records:
            raise InfeasibleError([Problem(f"{spec.where}: {name}", text) for name, text in refusals.items()])
    for name in maker.learned:
        attempt(f"learned-{name}", partial(arms.learned, name))
    for bits in spec.baselines.uniform:
        record = attempt(f"uniform{bits}", partial(arms.uniform, bits))
        # Every arm at the predicted loss of the uniform plan, which is one of its choices.
        level = 0.0 if record is None else float(f"{1.001 * record['predicted_loss']:.4g}")
        if level > 0 and level not in spec.losses:
            for name, arm in arms.allocated.items():
                attempt(f"{name}-{level:g}", partial(arm.design, level))
    if spec.baselines.sequential:
        ladder("sequential", arms.sequential)
    if spec.baselines.m2vit_rule is not None:
        attempt(RULE, arms.rule)
    for number in range(spec.baselines.random):
        attempt(f"random-{number}", partial(arms.random, number))
    return list(records.values()), refusals


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
