"""`codesign`: penalties, outer searches, verification of all arms, bounds, the answer.  Every step is resumed."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from accelsim.ir import Workload
from accelsim.problems import AccelsimError, InfeasibleError, Problem
from codesign.allocate.feedback import LoopSettings
from codesign.allocate.options import OptionSettings, check_penalties
from codesign.loop.arms import RULE, Arms
from codesign.loop.bench import Bench, workload_of
from codesign.loop.designs import PlanMaker
from codesign.loop.final import Candidate, Verifier
from codesign.loop.folder import PENALTIES, StudyFolder, open_folder
from codesign.loop.outcome import best_design, conclude
from codesign.loop.outer import Workers, check_hardware, run_searches
from codesign.loop.spec import CodesignSpec
from quant.penalties.table import PenaltyTable, load_penalties

Say = Callable[[str], None]
# The loop inside the outer search; verified designs are chosen again with more rounds and the exact solver.
IN_SEARCH = LoopSettings(rounds=1, tries=8)


def say_to_stderr(text: str) -> None:
    """Progress of a study, one line per step."""
    print(text, file=sys.stderr, flush=True)


def run_codesign(
    spec: CodesignSpec, path: str | Path, workers: Workers | None = None, say: Say = say_to_stderr
) -> dict[str, Any]:
    """Run a co-design, or go on with it; returns what `result.json` holds.

    Raises AccelsimError when the study cannot be used or the specification does not fit the model, InfeasibleError
    when no design meets the limits.
    """
    check_hardware(spec)
    bench = None if spec.data is None else Bench(spec, spec.data)
    options = OptionSettings(
        spec.options.weight_formats, spec.options.activation_formats, spec.options.divisions, spec.options.mixtures
    )
    workload = workload_of(spec, bench)
    if spec.penalties.file is not None:
        check_table(load_penalties(spec.penalties.file), spec, workload, options, bench)
    if bench is not None and not (Path(path) / PENALTIES).exists():
        bench.check_margin()
    folder = open_folder(path, spec)
    clock = _Clock(folder)
    with clock.step("penalties"):
        say(f"1 of 4  predicted losses of every filter and tensor of {workload.name}")
        penalties = penalty_table(spec, folder, workload, bench)
        check_table(penalties, spec, workload, options, bench)
    maker = PlanMaker(workload, penalties, options, IN_SEARCH).fixed()
    with clock.step("search"):
        say(f"2 of 4  outer searches: {spec.search.evaluations} designs each")
        found = run_searches(spec, folder, maker, workers or Workers(), say)
    with clock.step("designs"):
        say("3 of 4  designs chosen again exactly, mapped, simulated" + ("" if bench is None else ", measured"))
        records, refusals = verify_all(spec, folder, maker, bench, say)
    with clock.step("bounds"):
        say("4 of 4  bounds, comparison")
        result = conclude(spec, folder, maker, bench, found, records, refusals)
    result["seconds"] = {**clock.seconds, "total": round(sum(clock.seconds.values()), 3)}
    folder.write(folder.result, result)
    return result


class _Clock:
    """Seconds of every step, added up over the runs of a study."""

    def __init__(self, folder: StudyFolder) -> None:
        self.folder, self.path = folder, folder.path / "seconds.json"
        self.seconds: dict[str, float] = folder.read(self.path) or {}

    def step(self, name: str) -> _Step:
        """A context that adds its time to a step, also when it is interrupted."""
        return _Step(self, name)


class _Step:
    def __init__(self, clock: _Clock, name: str) -> None:
        self.clock, self.name = clock, name

    def __enter__(self) -> None:
        self.started_s = time.monotonic()

    def __exit__(self, *_: object) -> None:
        spent = time.monotonic() - self.started_s
        self.clock.seconds[self.name] = round(self.clock.seconds.get(self.name, 0.0) + spent, 3)
        self.clock.folder.write(self.clock.path, self.clock.seconds)


def penalty_table(spec: CodesignSpec, folder: StudyFolder, workload: Workload, bench: Bench | None) -> PenaltyTable:
    """The study's table: read, measured (resumably), or from the weights alone."""
    if folder.penalties.exists():
        return load_penalties(folder.penalties)
    if spec.penalties.file is not None:
        table = load_penalties(spec.penalties.file)
        table.save(folder.penalties)
        return table
    # One table serves every uniform baseline, too.
    widths = tuple(f"u{bits}" for bits in spec.baselines.uniform)
    formats = tuple(dict.fromkeys((*spec.options.weight_formats, *widths)))
    if spec.penalties.weights_only or bench is None:
        from quant.penalties.weights_only import network_penalties, workload_penalties

        if bench is None and spec.weights is None and ":" not in spec.model:
            table = workload_penalties(workload, formats)
        else:
            table = network_penalties(_network(spec), formats)
    else:
        from quant.penalties.measure import Settings, measure_penalties

        settings = Settings(formats, tuple(spec.options.activation_formats), tuple(spec.options.divisions))
        images = bench.images(spec.penalties.images)
        table = measure_penalties(bench.network, images, None, settings, folder.path / "penalties.cache", _bar())
    table.save(folder.penalties)
    return table


def check_table(
    table: PenaltyTable, spec: CodesignSpec, workload: Workload, options: OptionSettings, bench: Bench | None
) -> None:
    """Raise AccelsimError unless a table is one of this network, its weights included, with all formats of options."""
    check_penalties(workload, table, options)
    if bench is not None or spec.weights is not None or ":" in spec.model:
        from quant.sensitivity.measure import network_fingerprint

        network = _network(spec) if bench is None else bench.network
        here, there = network_fingerprint(network), table.fingerprints["network"]
        if here != there and there != workload.fingerprint():
            what = f"was made for a network of other weights or layers ({there}, this is {here})"
            levers = ("accelsim penalties for this model", "another folder when the weights have changed")
            raise AccelsimError(Problem("penalty table", what, f"the table of {spec.model}", levers))


def _network(spec: CodesignSpec) -> Any:
    from codesign.models import load_model

    return load_model(spec.model, spec.weights)[0]


def _bar() -> Callable[[str, int, int], None]:
    from tqdm import tqdm

    bar: Any = None

    def show(what: str, done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=total, desc=what, file=sys.stderr, disable=not sys.stderr.isatty(), mininterval=0.5)
        bar.update(done - bar.n)
        if done >= total:
            bar.close()

    return show


def verify_all(
    spec: CodesignSpec, folder: StudyFolder, maker: PlanMaker, bench: Bench | None, say: Say
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Records of all arms, and why an arm has no design."""
    arms = Arms(spec, folder, maker, bench)
    verifier = Verifier(folder, maker.workload, spec.final.mapper, bench, spec.limits)
    records: list[dict[str, Any]] = []
    refusals: dict[str, str] = {}

    def attempt(name: str, make: Callable[[], Candidate]) -> dict[str, Any] | None:
        record = verifier.stored(name)
        if record is None:
            try:
                record = verifier.verify(make())
            except InfeasibleError as error:
                refusals[name] = str(error)
                say(f"        {name}: {error.problems[0]}")
                return None
        records.append(record)
        say(f"        {summary(record)}")
        return record

    def ladder(name: str, make: Callable[[float], Candidate]) -> None:
        rungs = {level: attempt(f"{name}-{level:g}", partial(make, level)) for level in spec.losses}
        for _ in range(spec.final.refine if bench is not None else 0):
            level = between(rungs.values())
            if level is None or level in rungs:
                break
            rungs[level] = attempt(f"{name}-{level:g}", partial(make, level))

    ladder("codesign", arms.loop)
    if not records:
        raise InfeasibleError([Problem(f"{spec.where}: {name}", text) for name, text in refusals.items()])
    for bits in spec.baselines.uniform:
        record = attempt(f"uniform{bits}", partial(arms.uniform, bits))
        # The loop at the predicted loss of the uniform plan, which is one of its choices.
        level = 0.0 if record is None else float(f"{1.001 * record['predicted_loss']:.4g}")
        if level > 0 and level not in spec.losses:
            attempt(f"codesign-{level:g}", partial(arms.loop, level))
    if spec.baselines.sequential:
        ladder("sequential", arms.sequential)
    if spec.baselines.m2vit_rule is not None:
        attempt(RULE, arms.rule)
    for number in range(spec.baselines.random):
        attempt(f"random-{number}", partial(arms.random, number))
    return records, refusals


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
