"""From a trained network, a method and a budget to a plan whose widths the Pareto frontier gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.problems import AccelsimError, Problem
from codesign.budgets import Budget
from codesign.frontier.allocation import Errors, FrontierChoice, allocate
from codesign.frontier.products import ProductNetwork
from codesign.greedy.command import STORAGE
from codesign.greedy.costs import PlanCosts
from codesign.greedy.mixed import ACTIVATION, KINDS, WEIGHT, MixedNetwork, WidthSettings
from codesign.greedy.plan import require_possible
from quant.calibrate import Calibration
from quant.network import forward
from quant.sensitivity.measure import Settings, sensitivity
from quant.sensitivity.metrics import metrics_named

if TYPE_CHECKING:
    from torch import Tensor

    from accelsim.arch import Accelerator
    from accelsim.plan import QuantPlan
    from quant.calibrated import Checkpoint
    from quant.methods.base import Method
    from quant.network import Network
    from quant.sensitivity.table import SensitivityTable

CACHE, TABLE = "sensitivity.sqlite", "sensitivity.json"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class FrontierSettings:
    """Which sensitivity metric adds up, the widths to choose from (bits, descending), and how the frontier is made.

    `metric` is one of `quant.sensitivity` that rises with the error and needs no validation images.  Without `bins`
    the frontier is exact; `on_hull` takes its supported points only.
    """

    metric: str = "logit_l2"
    widths: tuple[int, ...] = (8, 7, 6, 5, 4)
    bins: int | None = None
    on_hull: bool = False


@dataclass(frozen=True, eq=False)
class FrontierPlan:
    """The widths that were chosen: the plan of the prepared network, its checkpoint when asked for.

    `weight_bits` are by op, `tensor_bits` by stored tensor; `limit` is the budget in the unit of the cost, `table` has
    the measured errors with what they took.
    """

    network: ProductNetwork
    choice: FrontierChoice
    limit: float
    table: SensitivityTable

    @property
    def plan(self) -> QuantPlan:
        """The plan, rounded to nearest."""
        return self.network.plan(self.choice.state)

    @property
    def weight_bits(self) -> dict[str, int]:
        """Bits of the filters by op."""
        return self.network.mixed.widths(self.network.expanded(self.choice.state), WEIGHT)

    @property
    def tensor_bits(self) -> dict[str, int]:
        """Bits of stored tensors."""
        return self.network.mixed.widths(self.network.expanded(self.choice.state), ACTIVATION)

    def checkpoint(self) -> Checkpoint:
        """The checkpoint of the plan, rounded to nearest."""
        return self.network.checkpoint(self.choice.state)

    def note(self) -> dict[str, Any]:
        """Plain data for what is stored with the checkpoint.

        `error` is predicted (in the unit of the metric), `output_error` measured.
        """
        found, mixed = self.choice, self.network.mixed
        return {
            "metric": self.table.metrics[0].name,
            "error": found.error,
            "least_error": found.least_error,
            "output_error": output_error(mixed, self.network.expanded(found.state)),
            "cost": found.cost,
            "limit": self.limit,
            "points": found.points,
            "slack": found.slack,
            "rounds": found.rounds,
            "components": len(self.network.components),
            "images": sum(len(batch) for batch, _ in mixed.images),
            "weight_bits": self.weight_bits,
            "tensor_bits": self.tensor_bits,
        }


def frontier_plan(
    network: Network,
    batches: Sequence[Tensor],
    images: Sequence[Tensor],
    method: Method,
    accelerator: Accelerator,
    budget: Budget,
    settings: FrontierSettings | None = None,
    folder: str | Path | None = None,
    options: Calibration | None = None,
    progress: Progress | None = None,
) -> FrontierPlan:
    """Measure what every component at every width does alone, then take from the frontier what the budget allows.

    `network` is the float network, which `method` prepares; `batches` are calibration images [n, channels, h, w],
    `images` those that errors are measured on, both without labels.  Storage budgets choose widths of filters only.
    Finished measurements are kept in `folder` (made if needed): the same call after a kill, or with another budget,
    goes on from there.  Raises InfeasibleError when the narrowest state costs more than the budget (before anything is
    measured), AccelsimError for a metric that cannot be added up.
    """
    chosen = FrontierSettings() if settings is None else settings
    calibration = Calibration() if options is None else options
    kinds = (WEIGHT,) if budget.kind in STORAGE else KINDS
    mixed = MixedNetwork(
        method.prepare(network, batches), batches, [(batch, None) for batch in images], method,
        WidthSettings(kinds, weight_widths=chosen.widths, activation_widths=chosen.widths), calibration,
    )  # fmt: skip
    costs = PlanCosts(mixed.network.workload, accelerator, mixed.plan).of(budget.kind)
    limit = budget.limit(network.workload)  # what a method adds, such as ranking, has to fit it too
    require_possible(mixed, costs, limit)
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
    products = ProductNetwork(mixed, costs)
    table = measured(products, images, chosen.metric, None if folder is None else Path(folder) / CACHE, progress)
    if folder is not None:
        table.save(Path(folder) / TABLE)
    choice = allocate(products, component_errors(products, table), limit, chosen.bins, chosen.on_hull)
    return FrontierPlan(products, choice, limit, table)


def measured(
    products: ProductNetwork,
    images: Sequence[Tensor],
    metric: str = "logit_l2",
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> SensitivityTable:
    """The table of one metric of every component at every width, the rest in floating point.

    `images` have no labels: metrics with gradients take the classes that the float network chooses.  Raises
    AccelsimError for a metric that falls as the error rises or is measured on validation images.
    """
    import torch

    (one,) = metrics_named((metric,))
    if not one.rising or one.split != "calibration":
        what = "falls as the error rises, or needs validation images with labels"
        raise AccelsimError(Problem(f"metric {metric}", what, "an error that adds up", ("logit_l2", "kl", "fisher")))
    mixed = products.mixed
    with torch.no_grad():
        labelled = [(batch, forward(mixed.network, batch).reshape(len(batch), -1).argmax(1)) for batch in images]
    widths = mixed.settings.weight_widths
    how = Settings(
        widths, widths, (products.kind,), (metric,), observer=mixed.options.observer, power=mixed.options.power
    )

    def report(_: str, done: int, total: int) -> None:
        if progress is not None:
            progress("frontier: errors", done, total)

    return sensitivity(mixed.network, labelled, (), how, cache, report)


def component_errors(products: ProductNetwork, table: SensitivityTable) -> Errors:
    """Errors by component and bits: the sum of the component's members in the table's first metric."""
    metric = table.metrics[0].name
    single = {(row.component.name, row.bits): row.values[metric] for row in table.rows}
    return {
        (one.component.name, bits): sum(single[name, bits] for name in one.members)
        for one in products.products
        for bits in one.component.widths
    }


def output_error(mixed: MixedNetwork, state: tuple[int, ...]) -> float:
    """Mean over the images of ‖f(x) − f(x | state)‖² on the logits."""
    pairs = zip(mixed.float_outputs, mixed.outputs(state), strict=True)
    total = sum(float(((found - exact).double() ** 2).sum()) for exact, found in pairs)
    return total / sum(len(batch) for batch, _ in mixed.images)
