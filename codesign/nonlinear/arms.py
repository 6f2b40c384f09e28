"""Maps of non-linear methods side by side: accuracy on validation images, and what each costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

from accelsim.arch import Accelerator
from accelsim.problems import InfeasibleError
from codesign.nonlinear.price import MapCost, map_cost
from quant.checkpoint import Model
from quant.evaluate import evaluate
from quant.methods.mnq import METHODS
from quant.nonlinear.assign import by_difference, by_output, counts, random_maps, single

if TYPE_CHECKING:
    from quant.data.dataset import DataSet
    from quant.nonlinear.mixed import Mixed
    from quant.nonlinear.sqnr import SqnrTable

BATCH = 64
RANDOM = "random"


@dataclass(frozen=True)
class Arm:
    """A map with its accuracy and cost; `cost` is None where the accelerator cannot run it, and `reason` says why."""

    name: str
    methods: Mapping[str, str]
    top1: float
    cross_entropy: float
    cost: MapCost | None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def maps_of(mixed: Mixed, table: SqnrTable, count: int, seed: int) -> dict[str, dict[str, str]]:
    """The maps that are compared: one method everywhere, MNQ's, its ablation, `count` random ones, and no method.

    "float": softmax and LayerNorm in real numbers, GELU from a table.
    """
    found = {"float": {}, **{name: single(mixed.slots, name) for name in METHODS}}
    found["mnq"] = by_difference(table)
    found["output_only"] = by_output(table)
    found["own_error"] = by_output(mixed.own_error())
    for k, chosen in enumerate(random_maps(mixed.slots, count, seed)):
        found[f"{RANDOM}{k}"] = chosen
    return found


def measure_arms(
    mixed: Mixed,
    maps: Mapping[str, Mapping[str, str]],
    images: DataSet,
    accelerator: Accelerator,
    progress: Callable[[int, int], None] | None = None,
) -> list[Arm]:
    """Accuracy on labelled images and simulated cost of every map.  Equal maps are measured once."""
    known: dict[tuple[tuple[str, str], ...], Arm] = {}
    arms = []
    for k, (name, chosen) in enumerate(maps.items()):
        key = tuple(chosen.items())
        if key not in known:
            known[key] = _measured(mixed, chosen, images, accelerator)
        one = known[key]
        arms.append(Arm(name, one.methods, one.top1, one.cross_entropy, one.cost, one.reason))
        if progress is not None:
            progress(k + 1, len(maps))
    return arms


def _measured(mixed: Mixed, chosen: Mapping[str, str], images: DataSet, accelerator: Accelerator) -> Arm:
    checkpoint = mixed.checkpoint(chosen)
    batches = ((batch, labels) for batch, labels in images.batches(BATCH) if labels is not None)
    found = evaluate(Model(checkpoint), batches)
    try:
        cost, reason = map_cost(mixed.network.workload, checkpoint.plan, accelerator), ""
    except InfeasibleError as error:
        cost, reason = None, str(error.problems[0].what)
    return Arm("", dict(chosen), found.top1, found.cross_entropy, cost, reason)


def summary(mixed: Mixed, table: SqnrTable, arms: Sequence[Arm]) -> dict[str, Any]:
    """Plain data of a comparison: the map per layer, the table, every arm, and the random ones together."""
    chosen = next(arm.methods for arm in arms if arm.name == "mnq")
    drawn = [arm for arm in arms if arm.name.startswith(RANDOM)]
    return {
        "bits": mixed.bits,
        "map": dict(chosen),
        "counts": counts(mixed.slots, chosen),
        "sqnr": table.to_json(),
        "arms": [arm.to_json() for arm in arms],
        "random": {
            "maps": len(drawn),
            "mean_top1": mean(arm.top1 for arm in drawn) if drawn else None,
            "best_top1": max((arm.top1 for arm in drawn), default=None),
        },
    }
