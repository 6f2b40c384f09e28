"""What the outer search evaluates: hardware with a plan that is chosen for it.  The work of the loop's workers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from accelsim.arch import Accelerator
from accelsim.formats import Format
from accelsim.ir import Workload, digest
from accelsim.mappers.choice import Mapper
from accelsim.plan import QuantPlan, Rule, WeightShare
from accelsim.problems import AccelsimError, Problem
from codesign.allocate.cost_table import CostTable, cost_table
from codesign.allocate.feedback import Allocation, LoopSettings, allocate
from codesign.allocate.goal import Limits
from codesign.allocate.options import OptionSettings, OptionSpace, option_space
from codesign.chunks import study_metrics
from quant.penalties.table import PenaltyTable

ALLOCATED, UNIFORM = "allocated@", "uniform"
SOURCES = ("codesign.allocate", "codesign.loop", "codesign.searchers", "codesign.templates", "quant")
# Tables of accelerators that a worker keeps, some 100 kB each.
MAX_KEPT = 128


@dataclass(frozen=True)
class PlanRequest:
    """How the plan of a design is made: `allocated@L` (least objective, predicted loss at most L) or `uniformB`."""

    name: str
    identity: str

    def fingerprint(self) -> str:
        """Hash of everything that decides the plan but the accelerator."""
        return digest([self.name, self.identity])

    @property
    def level(self) -> float | None:
        """The limit of the predicted loss of an allocated plan."""
        return float(self.name.removeprefix(ALLOCATED)) if self.name.startswith(ALLOCATED) else None

    @property
    def bits(self) -> int:
        """The width of a uniform plan."""
        return int(self.name.removeprefix(UNIFORM))


@cache
def loop_version() -> str:
    """Hash of the sources that choose plans and hardware and measure; with the simulator's it decides all numbers."""
    state = hashlib.sha256()
    for package in SOURCES:
        for name, data in sorted(_sources(resources.files(package), f"{package}/")):
            state.update(name.encode() + b"\0" + data)
    for module in ("codesign.search", "codesign.space"):
        package, _, name = module.partition(".")
        state.update((resources.files(package) / f"{name}.py").read_bytes())
    return state.hexdigest()[:10]


def _sources(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for item in folder.iterdir():
        if item.is_dir():
            yield from _sources(item, f"{prefix}{item.name}/")
        elif item.name.endswith(".py"):
            yield prefix + item.name, item.read_bytes()


def uniform_plan(base: QuantPlan, workload: Workload, bits: int) -> QuantPlan:
    """The base plan with weights of one width everywhere, the name is `uniformB`."""
    weights = (WeightShare(Format.parse(f"u{bits}", "uniform bits")),)
    rules = []
    for op in workload.ops:
        rule = base.rule_for(op)
        rule = rule if rule.match == op.name else replace(rule, match=op.name)
        rules.append(replace(rule, weights=weights) if op.weights else rule)
    return replace(base, name=f"{UNIFORM}{bits}", rules=(*rules, Rule("*")))


@dataclass(frozen=True)
class PlanMaker:
    """Evaluates designs of the loop; goes to workers whole.  Call it as `codesign.chunks.Evaluate`."""

    workload: Workload
    penalties: PenaltyTable
    options: OptionSettings
    loop: LoopSettings
    identity: str = field(default="")

    def request(self, name: str) -> PlanRequest:
        """The request of a plan's name.  Raises AccelsimError for any other name."""
        for prefix, kind in ((ALLOCATED, float), (UNIFORM, int)):
            if name.startswith(prefix):
                try:
                    kind(name.removeprefix(prefix))
                except ValueError:
                    break
                return PlanRequest(name, self.fingerprint())
        raise AccelsimError(Problem("plan", f"unknown {name!r}", f"{ALLOCATED}LOSS or {UNIFORM}BITS"))

    def fingerprint(self) -> str:
        """Hash of the table, the options, the loop's settings and sources."""
        return self.identity or digest(
            [
                self.workload.fingerprint(),
                self.penalties.fingerprint(),
                repr(self.options),
                repr(self.loop),
                loop_version(),
            ]
        )

    def fixed(self) -> PlanMaker:
        """The same with its fingerprint computed once."""
        return replace(self, identity=self.fingerprint())

    def __call__(
        self, model: str, resolution: int | None, accelerator: Accelerator, request: Any, mapper: Mapper
    ) -> Mapping[str, Any]:
        """Numbers of a design, with `predicted_loss`.  Raises InfeasibleError when no plan meets the limit."""
        from accelsim.api import simulate
        from accelsim.optable import op_table

        if request.level is None:
            plan = uniform_plan(self.penalties.base, self.workload, request.bits)
            report = simulate(op_table(self.workload, plan), accelerator, mapper=mapper)
            return {**study_metrics(report), "predicted_loss": self.penalties.loss_of(plan)}
        found = self.allocation(accelerator, request.level)
        return {**study_metrics(found.report), "predicted_loss": found.penalty}

    def allocation(self, accelerator: Accelerator, level: float, loop: LoopSettings | None = None) -> Allocation:
        """The loop's choice on an accelerator, mapped by the heuristic mapper."""
        space, table = prepared(self, accelerator)
        return allocate(space, accelerator, Limits(penalty=level), loop or self.loop, table)


_kept: dict[tuple[str, str], tuple[OptionSpace, CostTable]] = {}


def prepared(maker: PlanMaker, accelerator: Accelerator) -> tuple[OptionSpace, CostTable]:
    """The options on an accelerator and their prices around the base plan; a worker keeps the last ones."""
    key = (maker.fingerprint(), accelerator.fingerprint())
    if key not in _kept:
        space = option_space(maker.workload, maker.penalties, accelerator, maker.options)
        if len(_kept) >= MAX_KEPT:
            del _kept[next(iter(_kept))]
        _kept[key] = (space, cost_table(space, accelerator))
    return _kept[key]
