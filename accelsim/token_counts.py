"""One design under many numbers of full tokens: the mapping is chosen once, for all tokens full; counts vary by image.

Where the number of full tokens is found at run time (a share of the summed importance), every image has its own time
and energy; `simulate_counts` gives their distribution.  An interpretation of PMQ (arXiv 2305.06559), see
docs/decisions/0019-token-groups.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from accelsim.api import simulate
from accelsim.arch import Accelerator
from accelsim.energy import price
from accelsim.ir import Workload
from accelsim.lowering import lower
from accelsim.mappers.choice import DEFAULT_MAPPER, Mapper
from accelsim.mapping import MappingArrays
from accelsim.optable import EngineTable, OpTable, engine_table, op_table
from accelsim.plan import QuantPlan
from accelsim.problems import AccelsimError, Problem
from accelsim.result import run_program
from accelsim.token_forms import recount, worst_case
from accelsim.token_groups import token_layers

FORMAT = "accelsim.counts/1"
METRICS = ("cycles", "latency_s", "energy_pj", "edp_pj_s")


@dataclass(frozen=True)
class CountsPoint:
    """Figures of one image with `high` full tokens by layer (arithmetic energy); `images` have these counts."""

    high: dict[str, int]
    images: int
    cycles: int
    latency_s: float
    energy_pj: float
    edp_pj_s: float


@dataclass(frozen=True)
class Distribution:
    """Mean over images, percentiles (values of images, by nearest rank) and the largest value."""

    mean: float
    p5: float
    p50: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True)
class CountsReport:
    """What a design takes over a list of counts: `worst` is all tokens full, `points` the different counts."""

    worst: CountsPoint
    points: tuple[CountsPoint, ...]

    @property
    def images(self) -> int:
        """Number of counts, equal ones included."""
        return sum(point.images for point in self.points)

    def distribution(self, metric: str) -> Distribution:
        """Of one of `METRICS` over all images.  Raises AccelsimError for another name."""
        if metric not in METRICS:
            raise AccelsimError(Problem("metric", f"unknown {metric!r}", " or ".join(METRICS)))
        each = np.array([getattr(point, metric) for point in self.points], np.float64)
        values = np.sort(np.repeat(each, [point.images for point in self.points]))
        p5, p50, p95, p99 = (float(values[-(-percent * len(values) // 100) - 1]) for percent in (5, 50, 95, 99))
        return Distribution(float(values.mean()), p5, p50, p95, p99, float(values[-1]))

    def to_json(self) -> dict[str, Any]:
        """Plain data: the distribution of every metric, the worst case, and the points."""
        return {
            "format": FORMAT,
            "images": self.images,
            "distributions": {metric: asdict(self.distribution(metric)) for metric in METRICS},
            "worst": asdict(self.worst),
            "points": [asdict(point) for point in self.points],
        }


def simulate_counts(
    workload: Workload,
    plan: QuantPlan,
    accelerator: Accelerator,
    counts: Sequence[Mapping[str, int]],
    mapper: Mapper | str = DEFAULT_MAPPER,
) -> CountsReport:
    """Simulate a design once for every different count of full tokens (by layer) in `counts`, one entry per image.

    Layers that an entry does not name have the plan's count.  `workload` has its ranking ops
    (`accelsim.token_rules.ranked_for`).  Raises AccelsimError for a plan without token groups, an empty list, unknown
    layers and counts that are not 1 … tokens, InfeasibleError as `accelsim.api.simulate` does.
    """
    table = op_table(workload, plan)
    layers = {layer: groups.high for layer, groups in token_layers(plan).items()}
    if not layers:
        raise AccelsimError(Problem(f"plan {plan.name}", "has no token groups", "a plan with `tokens` in some rule"))
    if not counts:
        raise AccelsimError(Problem("counts", "no image", "an entry for every image"))
    unknown = sorted({layer for entry in counts for layer in entry} - layers.keys())
    if unknown:
        raise AccelsimError(Problem("counts", f"no token groups in {', '.join(unknown)}", ", ".join(layers)))
    worst = simulate(worst_case(table), accelerator, mapper=mapper)
    engines = engine_table(accelerator, table)
    tokens = {
        item.tokens.layer: workload.tensor_by_name[item.op.output].h
        for item in table.quantized.ops
        if item.tokens is not None
    }
    kinds = Counter(tuple({**layers, **entry}[layer] for layer in layers) for entry in counts)
    points = [
        _point(table, engines, accelerator, worst.arrays, dict(zip(layers, kind, strict=True)), images)
        for kind, images in sorted(kinds.items())
    ]
    return CountsReport(_point(table, engines, accelerator, worst.arrays, tokens, 0), tuple(points))


def _point(
    table: OpTable,
    engines: EngineTable,
    accelerator: Accelerator,
    arrays: MappingArrays,
    high: dict[str, int],
    images: int,
) -> CountsPoint:
    result = run_program(lower(recount(table, high), engines, accelerator, arrays))
    totals = np.asarray(result.counts.sum(axis=0), np.int64)
    priced = price(totals, result.cycles_total, result.busy_cycles(), accelerator)
    cycles, energy_pj = result.cycles_total, priced.energy_pj
    clock_hz = accelerator.clock_hz
    return CountsPoint(high, images, cycles, cycles / clock_hz, energy_pj, energy_pj * cycles / clock_hz)
