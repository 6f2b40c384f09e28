"""From a trained network, a method and a budget to a plan with greedy widths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.problems import InfeasibleError
from codesign.budgets import Budget
from codesign.greedy.costs import PlanCosts
from codesign.greedy.evaluations import NAME
from codesign.greedy.mixed import ACTIVATION, WEIGHT, FormatOf, MixedNetwork, WidthSettings, uniform_format
from codesign.greedy.trajectory import Component, Point, State, Trajectory, too_low
from codesign.greedy.walk import WalkSettings, walk

if TYPE_CHECKING:
    from torch import Tensor

    from accelsim.arch import Accelerator
    from accelsim.plan import QuantPlan
    from quant.calibrate import Calibration
    from quant.calibrated import Checkpoint
    from quant.methods.base import Method
    from quant.network import Network

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class GreedySettings:
    """How a walk ranks its moves, and which components have which widths."""

    walk: WalkSettings = field(default_factory=WalkSettings)
    widths: WidthSettings = field(default_factory=WidthSettings)


@dataclass(frozen=True, eq=False)
class PricedNetwork:
    """A mixed network with one kind of cost: the problem of a walk."""

    network: MixedNetwork
    cost: Callable[[State], float]

    @property
    def components(self) -> tuple[Component, ...]:
        """The network's components."""
        return self.network.components

    def loss(self, state: State) -> float:
        """The network's loss."""
        return self.network.loss(state)

    def settle(self, state: State) -> None:
        """The walk goes on from here."""
        self.network.settle(state)


@dataclass(frozen=True, eq=False)
class GreedyChoice:
    """Where a walk ended: the plan of the prepared network, and its calibrated checkpoint when asked for.

    `weight_bits` are by op, `tensor_bits` by stored tensor; `limit` is the budget in the unit of the cost.
    """

    mixed: MixedNetwork
    plan: QuantPlan
    weight_bits: dict[str, int]
    tensor_bits: dict[str, int]
    point: Point
    limit: float
    trajectory: Trajectory

    def checkpoint(self) -> Checkpoint:
        """The checkpoint of the plan, rounded to nearest."""
        return self.mixed.checkpoint(self.point.state)

    def note(self) -> dict[str, Any]:
        """Plain data for what is stored with the checkpoint."""
        walked = self.trajectory
        return {
            "loss": self.point.loss,
            "start_loss": walked.start.loss,
            "cost": self.point.cost,
            "start_cost": walked.start.cost,
            "limit": self.limit,
            "score": walked.score,
            "search": walked.search,
            "moves": len(walked.steps),
            "evaluations": walked.evaluations,
            "weight_bits": self.weight_bits,
            "tensor_bits": self.tensor_bits,
        }


def greedy_plan(
    network: Network,
    batches: Sequence[Tensor],
    images: Sequence[tuple[Tensor, Tensor | None]],
    method: Method,
    accelerator: Accelerator,
    budget: Budget,
    settings: GreedySettings | None = None,
    folder: str | Path | None = None,
    options: Calibration | None = None,
    format_of: FormatOf = uniform_format,
    progress: Progress | None = None,
) -> GreedyChoice:
    """Walk down from the widest state until the budget (a kind of `costs.COSTS`) is met.

    `network` is the float network, which `method` prepares; the other arguments are those of `MixedNetwork`.  Losses
    are kept in `folder` (made if needed): the same call after a kill goes on.  Raises InfeasibleError when the
    narrowest state costs more than the budget, AccelsimError for what the search does not know.
    """
    from quant.calibrate import Calibration

    chosen = GreedySettings() if settings is None else settings
    path = None if folder is None else Path(folder) / NAME
    mixed = MixedNetwork(
        method.prepare(network, batches), batches, images, method, chosen.widths,
        Calibration() if options is None else options, format_of, path,
    )  # fmt: skip
    cost = PlanCosts(mixed.network.workload, accelerator, mixed.plan).of(budget.kind)
    limit = budget.limit(mixed.network.workload)
    require_possible(mixed, cost, limit)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        len(mixed.evaluations)  # a file of another search is refused before anything is calibrated
    total = sum(len(one.widths) - 1 for one in mixed.components)

    def report(here: Point) -> None:
        if progress is not None:
            pairs = zip(mixed.components, here.state, strict=True)
            progress("greedy: widths", sum(one.widths.index(bits) for one, bits in pairs), total)

    found = walk(PricedNetwork(mixed, cost), limit, chosen.walk, report)
    end = found.end
    return GreedyChoice(
        mixed, mixed.plan(end.state), mixed.widths(end.state, WEIGHT), mixed.widths(end.state, ACTIVATION), end, limit,
        found,
    )  # fmt: skip


def require_possible(mixed: MixedNetwork, cost: Callable[[State], float], limit: float) -> None:
    """Raise InfeasibleError, before any loss is measured, where the narrowest state costs more than the limit."""
    try:
        least = cost(tuple(one.widths[-1] for one in mixed.components))
    except InfeasibleError:
        return  # nothing runs so narrow; the walk finds out how low it comes
    if least > limit:
        raise too_low(least, limit)
