"""Search a design space: a searcher proposes designs, the study remembers them, the hypervolume says how far it got.

A search is a deterministic function of its settings and of the designs' results, so it is resumed by replaying it: what
the study holds costs nothing, whoever put it there.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from accelsim.arch import Accelerator
from accelsim.area import accelerator_area
from accelsim.config_walk import near
from accelsim.ir import digest
from accelsim.problems import AccelsimError, Problem
from codesign.catalog import Catalog, default_catalog
from codesign.chunks import Evaluate, Task
from codesign.executors import Crew, open_crew, rows_of
from codesign.pareto import pareto_front
from codesign.runner import BATCH_SIZE, TaskMaker, store_rows
from codesign.searchers.registry import Design, Floats, Informed, Setup, Variables, missing_extra, searchers
from codesign.space import DESIGN_FIELDS, Space
from codesign.store import METRICS, Study, open_study, program_version

# A design beyond the area limit, which is known without simulating it: it is not stored.
OVER_LIMIT = "over_limit"
COSTS = tuple(name for name, _, _ in METRICS if name not in ("clock_hz", "macs"))
# The default reference point is this much worse than the worst of the first designs.
REFERENCE_MARGIN = 1.1
# Generations without a new design after which a search ends before its budget: the space is used up.
STALLED = 50
# A design that is none is worse than any that lacks something.
NO_DESIGN = 1e3
NO_NUMBERS = 10.0


@dataclass(frozen=True)
class Search:
    """Settings of a search; with the space they decide its sequence of designs.

    `budget` counts the distinct designs looked at, stored or not.  `limits` are upper bounds of metrics.  `reference`
    is the corner of the hypervolume, one value per objective (None: 1.1 × the worst of the first generation that has
    designs within the limits).
    """

    searcher: str
    objectives: tuple[str, ...]
    budget: int
    seed: int = 0
    limits: Mapping[str, float] = field(default_factory=dict)
    population: int = 40
    reference: Mapping[str, float] | None = None

    def identity(self) -> str:
        """Hash of what decides the sequence; a larger budget continues the same one."""
        limits, reference = sorted(self.limits.items()), sorted((self.reference or {}).items())
        return digest([self.searcher, list(self.objectives), self.seed, limits, self.population, reference])


@dataclass(frozen=True)
class Found:
    """What a search found.  `history` has a row per generation (`codesign.store.HISTORY`), `front` keys of designs.

    Hypervolume is the share of the box from 0 to `reference` that the front dominates, every objective divided by its
    reference value.  `failed` designs met a fault of the program; they are tried again by the next run.  `over_limit`
    designs were looked at, but not simulated, because their area is beyond its limit.
    """

    history: list[dict[str, Any]]
    front: dict[str, dict[str, Any]]
    reference: dict[str, float]
    evaluated: int
    looked_at: int
    failed: int
    over_limit: int = 0


@dataclass
class _State:
    """What a running search knows."""

    seen: dict[str, dict[str, Any]] = field(default_factory=dict)
    front: dict[str, Floats] = field(default_factory=dict)
    reference: Floats | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    evaluated: int = 0
    stalled: int = 0


def check_search(search: Search, space: Space) -> None:
    """Raise AccelsimError with every fault of the settings, or when the extra `search` is missing."""
    problems = []
    names = list(searchers())
    if search.searcher not in names:
        unknown = f"unknown searcher {search.searcher!r}"
        problem = Problem("--searcher", unknown, " | ".join(names), near(search.searcher, names))
        problems.append(missing_extra(search.searcher) or problem)
    for place, value in (("--budget", search.budget), ("--population", search.population)):
        if value < 1:
            problems.append(Problem(place, f"is {value}", "a positive number"))
    if not 2 <= len(set(search.objectives)) == len(search.objectives):
        problems.append(Problem("--objectives", f"are {', '.join(search.objectives)}", "two or more different ones"))
    metrics = {"--objectives": search.objectives, "--limit": search.limits, "--reference": search.reference or {}}
    for place, chosen in metrics.items():
        for name in chosen:
            if name not in COSTS:
                problems.append(Problem(place, f"unknown metric {name!r}", " | ".join(COSTS), near(name, COSTS)))
    for place, values in (("--limit", search.limits), ("--reference", search.reference or {})):
        for name, bound in values.items():
            if not 0 < bound < float("inf"):
                problems.append(Problem(place, f"{name} is {bound}", "a positive number"))
    if search.reference is not None and set(search.reference) != set(search.objectives):
        problems.append(Problem("--reference", f"names {', '.join(search.reference)}", ", ".join(search.objectives)))
    for axis in space.axes:
        if axis.field in ("model", "resolution") and len(axis.values) > 1:
            what = "designs that run different networks do not compete"
            problems.append(Problem(f"{space.where}: axes.{axis.field}", what, "one value, and a search for each"))
    if problems:
        raise AccelsimError(problems)


def run_search(
    space: Space,
    study_path: str | Path,
    search: Search,
    workers: int | None = None,
    evaluate: Evaluate | None = None,
    catalog: Catalog | None = None,
    executor: Executor | None = None,
    dask: str | None = None,
    area_mm2: Callable[[Accelerator], float] | None = None,
) -> Found:
    """Look at `search.budget` designs of `space`; the same call again resumes, a larger budget goes on.

    Designs are points of the full grid, whatever `sampling` says.  Who does the work is chosen as for `run_sweep` and
    does not change the designs.  `area_mm2` gives the stored metric of that name without a simulation, so that designs
    over its limit are not simulated (the program's own area, unless there is an `evaluate`).  Raises AccelsimError as
    `check_search` and `run_sweep` do.
    """
    check_search(search, space)
    catalog = catalog or default_catalog()
    if area_mm2 is None and evaluate is None:
        area_mm2 = _program_area_mm2
    setup = setup_of(search, space)
    sizes, state = setup.variables.sizes, _State()
    searcher = searchers()[search.searcher](setup)
    with (
        open_crew(workers, executor, dask) as crew,
        open_study(study_path, space.fingerprint(), program_version(), space.to_json()) as study,
    ):
        maker = TaskMaker(catalog, study.program)
        past = {row["generation"]: row for row in study.history(search.identity())}
        while len(state.seen) < search.budget and state.stalled < STALLED:
            started_s = time.monotonic()
            genes = searcher.ask()
            if not len(genes):
                break
            tasks = [maker.task(space.point(_index(row, sizes))) for row in genes.tolist()]
            complete = _look_at(tasks, state, search, study, crew, evaluate, area_mm2)
            if complete and isinstance(searcher, Informed):
                searcher.learn([_design(task, state) for task in tasks])
            if complete:
                searcher.tell(genes, *_results(tasks, state, search))
            _remember(state, search, study, past, started_s)
    failed, over = (sum(one["status"] == status for one in state.seen.values()) for status in ("failed", OVER_LIMIT))
    front = {key: state.seen[key] for key in sorted(state.front)}
    reference = {} if state.reference is None else dict(zip(search.objectives, state.reference.tolist(), strict=True))
    return Found(state.history, front, reference, state.evaluated, len(state.seen), failed, over)


def setup_of(search: Search, space: Space) -> Setup:
    """What a searcher of these settings starts from."""
    axes = space.axes
    variables = Variables(
        tuple(len(axis.values) for axis in axes), tuple(_is_ordered(axis.field, axis.values) for axis in axes),
        tuple(axis.field for axis in axes), tuple(axis.values for axis in axes),
    )  # fmt: skip
    return Setup(variables, len(search.objectives), 1 + len(search.limits), search.population, search.seed,
                 search.objectives, tuple(search.limits))  # fmt: skip


def _design(task: Task | None, state: _State) -> Design:
    return Design(None, None) if task is None else Design(task.accelerator, state.seen[task.key])


def _program_area_mm2(accelerator: Accelerator) -> float:
    return accelerator_area(accelerator).total_mm2


def _over_limit(
    tasks: Sequence[Task], search: Search, area_mm2: Callable[[Accelerator], float] | None
) -> dict[str, dict[str, Any]]:
    """Outcomes of the designs that are too large; what has no area (a buffer that is too slow) is left to the run."""
    found: dict[str, dict[str, Any]] = {}
    limit = search.limits.get("area_mm2")
    if limit is None or area_mm2 is None:
        return found
    for task in tasks:
        if task.accelerator is not None:
            with contextlib.suppress(AccelsimError):
                area = area_mm2(task.accelerator)
                if area > limit:
                    found[task.key] = {"status": OVER_LIMIT, "shortage": None, "area_mm2": area}
    return found


def _is_ordered(name: str, values: Sequence[Any]) -> bool:
    """Whether an axis is a quantity: numbers in rising or falling order."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return name not in DESIGN_FIELDS and numbers and sorted(values) in (list(values), list(values)[::-1])


def _index(digits: Sequence[int], sizes: Sequence[int]) -> int:
    """Place in the grid of a value number per axis; the last axis varies fastest, as in `Space.point`."""
    index = 0
    for digit, size in zip(digits, sizes, strict=True):
        index = index * size + digit
    return index


def _look_at(
    tasks: Sequence[Task | None], state: _State, search: Search, study: Study, crew: Crew, evaluate: Evaluate | None,
    area_mm2: Callable[[Accelerator], float] | None,
) -> bool:  # fmt: skip
    """Evaluate what neither the search has seen nor the study holds; False when the budget ended within."""
    room = search.budget - len(state.seen)
    new = list({task.key: task for task in tasks if task is not None and task.key not in state.seen}.values())
    complete, new = len(new) <= room, new[:room]
    over = _over_limit(new, search, area_mm2)
    small = [task for task in new if task.key not in over]
    known = study.outcomes(task.key for task in small)
    missing = [task for task in small if known.get(task.key, {"status": "failed"})["status"] == "failed"]
    with contextlib.closing(rows_of(missing, crew, evaluate, BATCH_SIZE)) as rows:
        state.evaluated += store_rows(study, rows, BATCH_SIZE)
    outcomes = over | study.outcomes(task.key for task in small)
    _check_numbers(search, outcomes)
    state.seen |= outcomes
    state.stalled = 0 if new else state.stalled + 1
    _extend_front(state, search, outcomes)
    return complete


def _check_numbers(search: Search, outcomes: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise AccelsimError for metrics that these designs do not have: only a loop's have a predicted loss."""
    run = [outcome for outcome in outcomes.values() if outcome["status"] == "ok"]
    wanted = dict.fromkeys((*search.objectives, *search.limits))
    missing = [name for name in wanted if any(outcome[name] is None for outcome in run)]
    if missing:
        there = " | ".join(name for name in COSTS if all(outcome[name] is not None for outcome in run))
        raise AccelsimError([Problem("search", f"designs of this space have no {name}", there) for name in missing])


def _results(tasks: Sequence[Task | None], state: _State, search: Search) -> tuple[Floats, Floats]:
    """Objectives and violations of the asked designs, in the asked order.

    The first violation says that a design cannot run: 1 + what is missing as a share of what is there.
    """
    objectives = np.full((len(tasks), len(search.objectives)), np.finfo(np.float64).max ** 0.25)
    violations = np.zeros((len(tasks), 1 + len(search.limits)))
    for row, task in enumerate(tasks):
        outcome = None if task is None else state.seen[task.key]
        if outcome is not None and outcome["status"] == "ok":
            objectives[row] = [outcome[name] for name in search.objectives]
            violations[row, 1:] = [outcome[name] / limit - 1.0 for name, limit in search.limits.items()]
        elif outcome is not None and outcome["status"] == OVER_LIMIT:
            violations[row, 1:] = [outcome.get(name, limit) / limit - 1.0 for name, limit in search.limits.items()]
        elif outcome is not None and outcome["status"] == "infeasible":
            violations[row, 0] = 1.0 + (NO_NUMBERS if outcome["shortage"] is None else outcome["shortage"])
        else:
            violations[row, 0] = NO_DESIGN
    return objectives, violations


def _extend_front(state: _State, search: Search, outcomes: Mapping[str, Mapping[str, Any]]) -> None:
    """Add new designs within the limits, and fix the reference point with the first of them."""
    allowed = {
        key: np.array([float(outcome[name]) for name in search.objectives])
        for key, outcome in outcomes.items()
        if outcome["status"] == "ok" and all(outcome[name] <= limit for name, limit in search.limits.items())
    }
    if not allowed:
        return
    if state.reference is None:
        given = search.reference
        worst = np.max(list(allowed.values()), axis=0) * REFERENCE_MARGIN
        state.reference = worst if given is None else np.array([given[name] for name in search.objectives])
    together = {**state.front, **allowed}
    mask = pareto_front(np.array(list(together.values())))
    state.front = {key: costs for (key, costs), kept in zip(together.items(), mask, strict=True) if kept}


def _remember(
    state: _State, search: Search, study: Study, past: Mapping[int, dict[str, Any]], started_s: float
) -> None:
    """One row of history; the time of a generation that an earlier run finished is the one it took then."""
    generation = len(state.history)
    before_s = state.history[-1]["elapsed_s"] if state.history else 0.0
    row = {
        "generation": generation,
        "evaluations": len(state.seen),
        "elapsed_s": before_s + time.monotonic() - started_s,
        "hypervolume": hypervolume(state.front.values(), state.reference),
        "front_size": len(state.front),
        "least": min((float(costs[0]) for costs in state.front.values()), default=None),
    }
    earlier = past.get(generation)
    if earlier is not None and earlier["evaluations"] == row["evaluations"]:
        row = earlier
    else:
        study.add_history(search.identity(), row)
    state.history.append(row)


def hypervolume(front: Any, reference: Floats | None) -> float:
    """Share of the box between 0 and `reference` [k] that the rows of `front` [n, k] dominate, in 0 … 1."""
    costs = [row / reference for row in front] if reference is not None else []
    if not costs:
        return 0.0
    from pymoo.indicators.hv import HV

    return float(HV(ref_point=np.ones(len(costs[0])))(np.array(costs)))
