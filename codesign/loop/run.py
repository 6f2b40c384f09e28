"""`codesign`: penalties, outer searches, verification of all arms, bounds, the answer.  Every step is resumed."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from codesign.allocate.feedback import LoopSettings
from codesign.loop.bench import Bench, workload_of
from codesign.loop.designs import PlanMaker
from codesign.loop.folder import StudyFolder, open_folder
from codesign.loop.learned_networks import check_learned, digests, learned_networks
from codesign.loop.outcome import conclude
from codesign.loop.outer import Workers, check_hardware, run_searches
from codesign.loop.spec import CodesignSpec
from codesign.loop.tables import check_table, variants_of, workloads_of
from codesign.loop.verify import Say, verify_all
from quant.penalties.table import load_penalties

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
    options = spec.options.settings()
    workload = workload_of(spec, bench)
    workloads = workloads_of(spec, workload, bench)
    check_learned(spec, workload)
    if spec.penalties.file is not None:
        network = None if bench is None else bench.network
        check_table(load_penalties(spec.penalties.file), spec, workload, options, network)
    if bench is not None and not StudyFolder(Path(path)).penalties().exists():
        bench.check_margin()
    folder = open_folder(path, spec, digests(spec))
    clock = _Clock(folder)
    with clock.step("penalties"):
        say(f"1 of 4  predicted losses of every filter and tensor of {workload.name}")
        variants = variants_of(spec, folder, workloads, bench)
        maker = PlanMaker(variants, IN_SEARCH, learned_networks(spec, folder, bench)).fixed()
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
