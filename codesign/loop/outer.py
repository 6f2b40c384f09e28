"""The outer searches: hardware for allocated plans (all options, or without a family) and for uniform widths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelsim.arch import Accelerator
from accelsim.area import accelerator_area
from accelsim.problems import AccelsimError, InfeasibleError, Problem
from codesign.allocate.families import LEARNED, TOKENS
from codesign.catalog import Catalog, default_catalog
from codesign.loop.designs import ALLOCATED, TRAINED, PlanMaker
from codesign.loop.folder import StudyFolder
from codesign.loop.spec import CodesignSpec
from codesign.loop.variants import PATCHWISE, PLAIN, UNIFORM
from codesign.search import Found, Search, check_search, run_search
from codesign.space import PREFIX, Axis, Point, Space, check_names
from codesign.store import read_study

LOOP, WITHOUT = "codesign", "without_"


@dataclass(frozen=True)
class Workers:
    """Who does the work; as the options of a sweep."""

    count: int | None = None
    dask: str | None = None


def searches(spec: CodesignSpec) -> dict[str, tuple[str, ...]]:
    """Searches of a study by name, with the plans that each may take."""
    named = {arm: plans_of(spec, family) for arm, family in arms_of(spec).items()}
    return named | {f"{UNIFORM}{bits}": (f"{UNIFORM}{bits}",) for bits in spec.baselines.uniform}


def arms_of(spec: CodesignSpec) -> dict[str, str]:
    """Searches with allocated plans, and the family of options that each lacks ("": none)."""
    return {LOOP: ""} | {f"{WITHOUT}{family}": family for family in spec.baselines.without}


def plans_of(spec: CodesignSpec, family: str = "") -> tuple[str, ...]:
    """Plans among which a search with allocated plans chooses, without a family of options."""
    forms = [PLAIN, *([PATCHWISE] if spec.options.token_shares and family != TOKENS else [])]
    trained = [f"{TRAINED}{Path(one).name}" for one in spec.learned if family != LEARNED]
    return (*(f"{ALLOCATED[form]}{level:g}" for form in forms for level in spec.losses), *trained)


def maker_of(maker: PlanMaker, search: str) -> PlanMaker:
    """Who makes the plans of a search."""
    return maker.without(search.removeprefix(WITHOUT)) if search.startswith(WITHOUT) else maker


def space_of(spec: CodesignSpec, plans: tuple[str, ...]) -> Space:
    """The space of a search: hardware axes and plans."""
    base = {"arch": spec.hardware.arch, "model": spec.model, "resolution": spec.resolution}
    axes = [Axis(name, values, 0) for name, values in spec.hardware.axes.items()]
    return Space(spec.where, base, (Axis("plan", plans, 0), *axes))


def catalog_of(maker: PlanMaker) -> Catalog:
    """Names of the loop's designs: accelerators as ever, plans that are made for them, one network."""
    return replace(
        default_catalog(), plan=maker.request, workload_id=lambda model, resolution: maker.plain.workload.fingerprint()
    )


def search_of(spec: CodesignSpec, name: str, plans: tuple[str, ...]) -> Search:
    """The settings of a search of a study."""
    objectives = ("edp_pj_s", "predicted_loss" if name in arms_of(spec) else "area_mm2")
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
        chooser = maker_of(maker, name)
        found[name] = run_search(
            space_of(spec, plans), folder.search(name), search_of(spec, name, plans), workers.count, chooser,
            catalog_of(chooser), dask=workers.dask, area_mm2=_area_mm2,
        )  # fmt: skip
        say(f"        {name}: {_looked(found[name])}")
    return found


def _area_mm2(accelerator: Accelerator) -> float:
    return accelerator_area(accelerator).total_mm2


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

    @property
    def edp_pj_s(self) -> float:
        """Energy × latency of the design, mapped as the search does."""
        return float(self.metrics["edp_pj_s"])

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
