"""Greedy mixed precision against one width, random widths, either term alone and the knapsack, at equal cost.

    python benchmarks/quality/mptq_greedy.py [--results FILE] [--work DIR] [--models NAME ...] [--seeds N ...]

Fully quantized (LayerNorm and softmax inputs included), widths 8, 6, 5, 4 and 3; a budget is what one width everywhere
costs.  Losses are kept in --work and cells in the results (JSON lines) as they finish; kill it and run it again, it
goes on.  mptq_report.py makes the tables and the picture.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from cells import HERE, keep, read_results
from glyph_models import (
    BATCH,
    CALIBRATION_IMAGES,
    HYBRID,
    NATURAL,
    TEST_IMAGES,
    evaluated,
    figures_of,
    float_network,
    glyph_images,
)

from accelsim.config import load_accelerator
from codesign.greedy.compare import knapsack, random_state, uniform_states
from codesign.greedy.costs import PlanCosts
from codesign.greedy.evaluations import NAME
from codesign.greedy.mixed import WEIGHT, MixedNetwork, WidthSettings
from codesign.greedy.plan import PricedNetwork
from codesign.greedy.trajectory import State
from codesign.greedy.walk import WalkSettings, walk
from codesign.quantize_command import calibration_images
from quant.checkpoint import Model
from quant.data import load_data
from quant.data.small import GREY_32
from quant.methods.mptq import MPTQ
from quant.network import Network, forward
from quant.smooth import layernorm_outputs

RESULTS = HERE / "mptq_greedy.jsonl"
ARCH = "m2vit_regions"
WIDTHS, BUDGETS = (8, 6, 5, 4, 3), (5, 4)
KINDS = ("layer_bits", "edp_pj_s", "bops", "size_bits")
TERMS = KINDS[:2]  # with either term alone, too, and on all checkpoints
WEIGHTS_ONLY, PRODUCTS_ONLY = "uniform_weights", "uniform_products"
LOSS_IMAGES, RANDOM_IMAGES, RANDOM_STATES = 128, 400, 20
# The exact search is compared with the lazy one on fewer widths: it measures every move at every step.
EXACT_WIDTHS, EXACT_TARGET = (8, 6, 4), 6.0


def main() -> int:
    """Run the cells that are not in the results yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", default=str(RESULTS))
    parser.add_argument("--work", default="mptq_greedy_work", help="folder of measured losses")
    parser.add_argument("--models", nargs="+", default=[NATURAL, HYBRID])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--exact", action="store_true", help="the exact search beside the lazy one, and nothing else")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    done = {(row["model"], row["seed"], row["bits"], row["arm"]) for row in read_results(arguments.results)}
    for model in arguments.models:
        for seed in arguments.seeds if model == NATURAL else [0]:
            case = Case(model, seed, Path(arguments.work), done)
            for row in case.searches() if arguments.exact else case.rows():
                keep(arguments.results, row)
    return 0


@dataclass(eq=False)
class Case:
    """A trained checkpoint with its searches."""

    model: str
    seed: int
    work: Path
    done: set[tuple[Any, ...]]

    @cached_property
    def network(self) -> Network:
        """The float network."""
        return float_network(self.model, self.seed)

    @cached_property
    def calibration(self) -> list[torch.Tensor]:
        """Calibration images."""
        return calibration_images("glyphs", GREY_32, CALIBRATION_IMAGES, self.seed)

    def mixed(self, name: str, settings: WidthSettings) -> MixedNetwork:
        """The network with widths, after SQ-b where there are LayerNorms; losses are kept under `name`."""
        smoothable = bool(layernorm_outputs(self.network))
        method = MPTQ(smooth="sq_b" if smoothable else "none", zero_points=not smoothable)
        split = load_data("glyphs", "val", GREY_32)
        images = list(split.every(0, len(split) // LOSS_IMAGES).first(LOSS_IMAGES).batches(BATCH))
        path = self.work / f"{self.model}_{self.seed}_{name}"
        path.mkdir(parents=True, exist_ok=True)
        prepared = method.prepare(self.network, self.calibration)
        return MixedNetwork(
            prepared, self.calibration, images, method, settings, format_of=method.format_of, path=path / NAME
        )

    @cached_property
    def full(self) -> MixedNetwork:
        """The fully quantized setting."""
        return self.mixed("full", WidthSettings(full=True, weight_widths=WIDTHS, activation_widths=WIDTHS))

    @cached_property
    def costs(self) -> PlanCosts:
        """Costs of its states."""
        return PlanCosts(self.full.network.workload, load_accelerator(ARCH), self.full.plan)

    def rows(self) -> Iterator[dict[str, Any]]:
        """All missing cells."""
        if (self.model, self.seed, 32, "reference") not in self.done:
            found = evaluated(lambda batch: forward(self.network, batch), glyph_images(TEST_IMAGES))
            yield {"model": self.model, "seed": self.seed, "bits": 32, "arm": "reference", **figures_of(found)}
        uniform = uniform_states(self.full.components)
        for bits in WIDTHS:
            yield from self._row(bits, "uniform", lambda bits=bits: (uniform[bits], {}))  # type: ignore[misc]
        for bits in BUDGETS:
            for arm in (PRODUCTS_ONLY, WEIGHTS_ONLY):
                yield from self._row(bits, arm, lambda bits=bits, arm=arm: (self._some(bits, arm), {}))  # type: ignore[misc]
        for kind in TERMS if self.seed else KINDS:
            cost = self.costs.of(kind)
            problem = PricedNetwork(self.full, cost)
            targets = {bits: cost(uniform[bits]) for bits in BUDGETS}
            scores = ["combined", "performance", "compressibility"] if kind in TERMS and not self.seed else ["combined"]
            for score in scores:
                yield from self._walked(kind, score, problem, targets)
            for bits, target in targets.items():
                yield from self._row(bits, f"{kind}/knapsack", lambda p=problem, t=target: _knapsack(p, t))  # type: ignore[misc]
            if kind == KINDS[0] and not self.seed:
                for bits, target in targets.items():
                    yield from self._random(kind, bits, problem, target)

    def _some(self, bits: int, arm: str) -> State:
        """One width for all weights and, unless the arm is weights only, what products read; the rest at its widest."""
        settings = WidthSettings(weight_widths=WIDTHS, activation_widths=WIDTHS)
        counted = {one.name for one in replace(self.full, settings=settings, path=None).components}
        names = [one.name for one in self.full.components]
        return tuple(
            bits if name.startswith(WEIGHT) or (arm == PRODUCTS_ONLY and name in counted) else WIDTHS[0]
            for name in names
        )

    def _walked(
        self, kind: str, score: str, problem: PricedNetwork, targets: dict[int, float]
    ) -> Iterator[dict[str, Any]]:
        missing = [b for b in targets if (self.model, self.seed, b, f"{kind}/{score}") not in self.done]
        if not missing:
            return
        found = walk(problem, min(targets.values()), WalkSettings(score, "lazy"))
        counts = {
            "evaluations": found.evaluations, "cost_evaluations": found.cost_evaluations,
            "wall_s": round(found.wall_s, 1), "moves": len(found.steps),
        }  # fmt: skip
        for bits in missing:
            point = found.at(targets[bits])
            yield from self._row(bits, f"{kind}/{score}", lambda state=point.state: (state, counts))  # type: ignore[misc]

    def _random(self, kind: str, bits: int, problem: PricedNetwork, target: float) -> Iterator[dict[str, Any]]:
        rng = np.random.default_rng(bits)
        states = [random_state(problem, target, rng) for _ in range(RANDOM_STATES)]
        for k, state in enumerate(states):
            yield from self._row(bits, f"{kind}/random{k}", lambda state=state: (state, {}), RANDOM_IMAGES)  # type: ignore[misc]
        if (self.model, self.seed, bits, f"{kind}/combined_random_images") not in self.done:
            point = walk(problem, target, WalkSettings()).at(target)
            arm = f"{kind}/combined_random_images"
            yield from self._row(bits, arm, lambda: (point.state, {}), RANDOM_IMAGES)

    def _row(
        self, bits: int, arm: str, make: Callable[[], tuple[State, dict[str, Any]]], images: int = TEST_IMAGES
    ) -> Iterator[dict[str, Any]]:
        if (self.model, self.seed, bits, arm) in self.done:
            return
        state, more = make()
        costs = {kind: float(self.costs.of(kind)(state)) for kind in (*KINDS, "latency_s", "energy_pj")}
        figures = figures_of(evaluated(Model(self.full.checkpoint(state)), glyph_images(images)))
        loss = round(self.full.loss(state), 6)
        head = {"model": self.model, "seed": self.seed, "bits": bits, "arm": arm, "loss": loss, "costs": costs}
        yield {**head, **figures, **more, "state": list(state)}

    def searches(self) -> Iterator[dict[str, Any]]:
        """The exact and the lazy walk of one problem: weights and what products read, three widths."""
        settings = WidthSettings(weight_widths=EXACT_WIDTHS, activation_widths=EXACT_WIDTHS)
        for search in ("lazy", "exact"):
            arm = f"search/{search}"
            if (self.model, self.seed, 6, arm) in self.done:
                continue
            mixed = self.mixed(search, settings)  # each measures everything itself
            begin = time.perf_counter()
            found = walk(PricedNetwork(mixed, fmean), EXACT_TARGET, WalkSettings("combined", search))
            figures = figures_of(evaluated(Model(mixed.checkpoint(found.end.state)), glyph_images(TEST_IMAGES)))
            yield {
                "model": self.model, "seed": self.seed, "bits": 6, "arm": arm, "loss": round(found.end.loss, 6),
                "evaluations": found.evaluations, "wall_s": round(time.perf_counter() - begin, 1),
                "moves": len(found.steps), **figures, "state": list(found.end.state),
            }  # fmt: skip


def _knapsack(problem: PricedNetwork, target: float) -> tuple[State, dict[str, Any]]:
    begin = time.perf_counter()
    found = knapsack(problem, target)
    return found.state, {"evaluations": found.evaluations, "wall_s": round(time.perf_counter() - begin, 1)}


if __name__ == "__main__":
    raise SystemExit(main())
