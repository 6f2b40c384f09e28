"""What the outer search evaluates: hardware with a plan that is chosen for it.  The work of the loop's workers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from accelsim.arch import Accelerator
from accelsim.ir import digest
from accelsim.mappers.choice import Mapper
from accelsim.plan import QuantPlan
from accelsim.problems import AccelsimError, Problem
from codesign.allocate.cost_table import CostTable, cost_table
from codesign.allocate.families import LEARNED, TOKENS
from codesign.allocate.feedback import Allocation, LoopSettings, allocate
from codesign.allocate.goal import Limits
from codesign.allocate.options import OptionSpace
from codesign.chunks import study_metrics
from codesign.loop.variants import PATCHWISE, PLAIN, UNIFORM, Variant

# Prefixes of the names of plans: `allocated@L` and `patchwise@L` are chosen, of the plain and the patchwise network.
ALLOCATED = {PLAIN: "allocated@", PATCHWISE: "patchwise@"}
TRAINED = "learned:"
SOURCES = ("codesign.allocate", "codesign.loop", "codesign.searchers", "codesign.templates", "quant")
# Tables of accelerators that a worker keeps, some 100 kB each.
MAX_KEPT = 128


@dataclass(frozen=True)
class PlanRequest:
    """How the plan of a design is made, by its name.

    `allocated@L` and `patchwise@L` have the least objective with a predicted loss of at most L; `uniformB` has weights
    of B bits; `learned:NAME` is the plan of a network with learned widths.
    """

    name: str
    identity: str

    def fingerprint(self) -> str:
        """Hash of everything that decides the plan but the accelerator."""
        return digest([self.name, self.identity])

    @property
    def variant(self) -> str:
        """The form of the network that the plan is for."""
        return PATCHWISE if self.name.startswith(ALLOCATED[PATCHWISE]) else PLAIN

    @property
    def level(self) -> float | None:
        """The limit of the predicted loss of an allocated plan."""
        return level_of(self.name)

    @property
    def bits(self) -> int | None:
        """The width of a uniform plan."""
        return int(self.name.removeprefix(UNIFORM)) if self.name.startswith(UNIFORM) else None

    @property
    def learned(self) -> str:
        """The name of a network with learned widths."""
        return self.name.removeprefix(TRAINED)


def level_of(plan: str) -> float | None:
    """The limit of the predicted loss in the name of a plan, None where it has none."""
    prefix = next((one for one in ALLOCATED.values() if plan.startswith(one)), None)
    return None if prefix is None else float(plan.removeprefix(prefix))


@dataclass(frozen=True)
class LearnedNetwork:
    """A network with learned widths: the folder of its checkpoint, its plan, and its loss in nats, as measured."""

    folder: Path
    plan: QuantPlan
    loss: float


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


@dataclass(frozen=True)
class PlanMaker:
    """Evaluates designs of the loop; goes to workers whole.  Call it as `codesign.chunks.Evaluate`.

    `variants` are the forms of the network by name, the plain one always among them; `learned` networks by name.
    """

    variants: Mapping[str, Variant]
    loop: LoopSettings
    learned: Mapping[str, LearnedNetwork] = field(default_factory=dict)
    identity: str = field(default="")

    @property
    def plain(self) -> Variant:
        """The network as it is."""
        return self.variants[PLAIN]

    def request(self, name: str) -> PlanRequest:
        """The request of a plan's name.  Raises AccelsimError for any other name."""
        made = PlanRequest(name, self.fingerprint())
        try:
            known = made.level is not None or made.bits is not None
        except ValueError:
            known = False
        trained = name.startswith(TRAINED) and made.learned in self.learned
        if not (trained or (known and made.variant in self.variants)):
            expected = f"{' or '.join(f'{ALLOCATED[one]}LOSS' for one in self.variants)}, or {UNIFORM}BITS"
            expected += "".join(f", or {TRAINED}{one}" for one in self.learned)
            raise AccelsimError(Problem("plan", f"unknown {name!r}", expected))
        return made

    def fingerprint(self) -> str:
        """Hash of the tables, the options, the learned plans, the loop's settings and sources."""
        if self.identity:
            return self.identity
        learned = {name: [one.plan.fingerprint(), one.loss] for name, one in self.learned.items()}
        return digest([[one.identity for one in self.variants.values()], learned, repr(self.loop), loop_version()])

    def fixed(self) -> PlanMaker:
        """The same with its fingerprint computed once."""
        return replace(self, identity=self.fingerprint())

    def without(self, family: str) -> PlanMaker:
        """The same loop without a family of options."""
        variants = {
            name: one.without(family)
            for name, one in self.variants.items()
            if not (family == TOKENS and name == PATCHWISE)
        }
        learned = {} if family == LEARNED else self.learned
        return replace(self, variants=variants, learned=learned, identity="").fixed()

    def __call__(
        self, model: str, resolution: int | None, accelerator: Accelerator, request: Any, mapper: Mapper
    ) -> Mapping[str, Any]:
        """Numbers of a design, with `predicted_loss`.  Raises InfeasibleError when no plan meets the limit."""
        from accelsim.api import simulate
        from accelsim.optable import op_table

        if request.level is not None:
            found = self.allocation(request.variant, accelerator, request.level)
            return {**study_metrics(found.report), "predicted_loss": found.penalty}
        if request.bits is not None:
            plan = self.plain.uniform_plan(accelerator, request.bits)
            loss = self.plain.penalties.loss_of(plan)
        else:
            plan, loss = self.learned[request.learned].plan, self.learned[request.learned].loss
        report = simulate(op_table(self.plain.workload, plan), accelerator, mapper=mapper)
        return {**study_metrics(report), "predicted_loss": loss}

    def allocation(
        self, variant: str, accelerator: Accelerator, level: float, loop: LoopSettings | None = None
    ) -> Allocation:
        """The loop's choice on an accelerator, mapped by the heuristic mapper; learned widths are among its starts."""
        space, table = prepared(self.variants[variant], accelerator)
        starts = [space.nearest(one.plan) for one in self.learned.values()]
        return allocate(space, accelerator, Limits(penalty=level), loop or self.loop, table, starts)


_kept: dict[tuple[str, str], tuple[OptionSpace, CostTable]] = {}


def prepared(variant: Variant, accelerator: Accelerator) -> tuple[OptionSpace, CostTable]:
    """The options on an accelerator and their prices around the base plan; a worker keeps the last ones."""
    key = (variant.identity, accelerator.fingerprint())
    if key not in _kept:
        space = variant.space(accelerator)
        if len(_kept) >= MAX_KEPT:
            del _kept[next(iter(_kept))]
        _kept[key] = (space, cost_table(space, accelerator))
    return _kept[key]
