"""The outer search: hardware for allocated plans, and for every uniform width the hardware that suits it best."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from accelsim.arch import Accelerator
from accelsim.area import accelerator_area
from accelsim.problems import AccelsimError, InfeasibleError, Problem
from codesign.catalog import Catalog, default_catalog
from codesign.loop.designs import ALLOCATED, UNIFORM, PlanMaker
from codesign.loop.folder import StudyFolder
from codesign.loop.spec import CodesignSpec
from codesign.search import Found, Search, check_search, run_search
from codesign.space import PREFIX, Axis, Point, Space, check_names
from codesign.store import read_study

LOOP = "codesign"
OBJECTIVES = {LOOP: ("edp_pj_s", "predicted_loss"), UNIFORM: ("edp_pj_s", "area_mm2")}


@dataclass(frozen=True)
class Workers:
    """Who does the work; as the options of a sweep."""

    count: int | None = None
    dask: str | None = None


def searches(spec: CodesignSpec) -> dict[str, tuple[str, ...]]:
    """Searches of a study by name, with the plans that each may take."""
    named = {LOOP: tuple(f"{ALLOCATED}{level:g}" for level in spec.losses)}
    return named | {f"{UNIFORM}{bits}": (f"{UNIFORM}{bits}",) for bits in spec.baselines.uniform}


def space_of(spec: CodesignSpec, plans: tuple[str, ...]) -> Space:
    """The space of a search: hardware axes and plans."""
    base = {"arch": spec.hardware.arch, "model": spec.model, "resolution": spec.resolution}
    axes = [Axis(name, values, 0) for name, values in spec.hardware.axes.items()]
    return Space(spec.where, base, (Axis("plan", plans, 0), *axes))


def catalog_of(maker: PlanMaker) -> Catalog:
    """Names of the loop's designs: accelerators as ever, plans that are made for them, one network."""
    return replace(
        default_catalog(), plan=maker.request, workload_id=lambda model, resolution: maker.workload.fingerprint()
    )


def search_of(spec: CodesignSpec, name: str, plans: tuple[str, ...]) -> Search:
    """The settings of a search of a study."""
    objectives = OBJECTIVES[LOOP if name == LOOP else UNIFORM]
    budget = min(spec.search.evaluations, space_of(spec, plans).grid_size)
    population = min(spec.search.population, budget)
    return Search(spec.search.searcher, objectives, budget, spec.seed, spec.limits, population)


def check_hardware(spec: CodesignSpec) -> None:
    """Raise AccelsimError with every fault of the hardware, its axes and the search, before anything is computed."""
    named = replace(default_catalog(), plan=lambda name: name, workload_id=lambda model, resolution: model)
    space = space_of(spec, searches(spec)[LOOP])
    problems = check_names(space, named)
    if problems:
        raise AccelsimError([_placed(spec, one) for one in problems])
    for name, plans in searches(spec).items():
        check_search(search_of(spec, name, plans), space_of(spec, plans))
    if spec.baselines.m2vit_rule is not None:
        rule_hardware(spec, named)


def _placed(spec: CodesignSpec, problem: Problem) -> Problem:
    """A problem of the space, with its place in the file of the co-design."""
    where = problem.where.replace(f"{spec.where}:0: axes.{PREFIX}", f"{spec.where}: hardware.", 1)
    return replace(problem, where=where.replace(f"{spec.where}: base.arch", f"{spec.where}: hardware.arch", 1))


def rule_hardware(spec: CodesignSpec, catalog: Catalog) -> Accelerator:
    """The fixed hardware of the baseline `m2vit_rule`.  Raises AccelsimError for fields that it does not have."""
    hardware = spec.hardware
    point = Point(0, hardware.arch, "", spec.model, spec.resolution, dict(hardware.rule))
    found = point.accelerator(catalog)
    if found is None:
        what = f"{hardware.arch} lacks one of {', '.join(name.removeprefix(PREFIX) for name in hardware.rule)}"
        raise AccelsimError(Problem(f"{spec.where}: hardware.rule", what, "fields of the accelerator"))
    return found


def run_searches(
    spec: CodesignSpec, folder: StudyFolder, maker: PlanMaker, workers: Workers, say: Callable[[str], None]
) -> dict[str, Found]:
    """Run, or go on with, every search of a study; `say` gets a line for each."""
    found: dict[str, Found] = {}
    for name, plans in searches(spec).items():
        found[name] = run_search(
            space_of(spec, plans), folder.search(name), search_of(spec, name, plans), workers.count, maker,
            catalog_of(maker), dask=workers.dask, area_mm2=lambda accelerator: accelerator_area(accelerator).total_mm2,
        )  # fmt: skip
        say(f"        {name}: {_looked(found[name])}")
    return found


def _looked(found: Found) -> str:
    text = (
        f"{found.looked_at} designs looked at, {found.over_limit} over the area limit, {len(found.front)} on the front"
    )
    return text + (
        f", {found.failed} failed: a fault of the program, the next run tries them again" * bool(found.failed)
    )


@dataclass(frozen=True)
class Looked:
    """A design that a search looked at and that can run: plan, axis values, numbers."""

    plan: str
    values: Mapping[str, Any]
    metrics: Mapping[str, Any]
    point: Point
    within: bool

    def accelerator(self, maker: PlanMaker) -> Accelerator:
        """The accelerator of the design."""
        built = self.point.accelerator(catalog_of(maker))
        assert built is not None  # it was simulated
        return built


def looked_at(spec: CodesignSpec, folder: StudyFolder, name: str) -> list[Looked]:
    """All designs of a search that can run, in the order of the space."""
    space = space_of(spec, searches(spec)[name])
    found = []
    with read_study(folder.search(name)) as study:
        for row in study.rows():
            if row["status"] == "ok":
                within = all(row[metric] <= limit for metric, limit in spec.limits.items())
                point = space.point(row["point"])
                values = {key: value for key, value in point.values.items() if key.startswith(PREFIX)}
                found.append(Looked(row["plan"], values, row, point, within))
    return found


def best_of(designs: list[Looked], plan: str | None = None) -> Looked:
    """The design of least EDP within the limits (of a plan).  Raises InfeasibleError when there is none."""
    chosen = [one for one in designs if one.within and (plan is None or one.plan == plan)]
    if not chosen:
        raise InfeasibleError(
            Problem("search", f"found no design within the limits{f' for {plan}' if plan else ''}",
                    "at least one", ("more evaluations", "wider axes", "higher limits"))
        )  # fmt: skip
    return ranked(chosen)[0]


def ranked(designs: list[Looked]) -> list[Looked]:
    """Designs by EDP, the least first."""
    return sorted(designs, key=lambda one: (one.metrics["edp_pj_s"], one.point.index))
