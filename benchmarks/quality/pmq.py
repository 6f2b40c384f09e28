"""Pareto-frontier bits against one width, random bits, other metrics and greedy bits, at equal cost.

    python benchmarks/quality/pmq.py [--results FILE] [--work DIR] [--models NAME ...] [--seeds N ...]

One width per product, 8, 6, 5, 4 and 3 bits; a budget is what one width everywhere costs in bit operations, or in
simulated EDP on an array of 8-bit multipliers or a bit-composable one.  Errors are kept in --work and cells in the
results (JSON lines) as they finish; kill it and run it again, it goes on.  pmq_report.py makes the tables.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from cells import HERE, keep, read_results
from glyph_models import (
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
from accelsim.workloads.rank import ranked_layers
from codesign.frontier.allocation import FrontierChoice, allocate
from codesign.frontier.products import ProductNetwork
from codesign.frontier.search import component_errors, measured, output_error
from codesign.greedy.compare import random_state, uniform_states
from codesign.greedy.costs import PlanCosts
from codesign.greedy.evaluations import NAME
from codesign.greedy.mixed import MixedNetwork, WidthSettings
from codesign.greedy.trajectory import Component, State
from codesign.greedy.walk import WalkSettings, walk
from codesign.quantize_command import calibration_images
from quant.checkpoint import Model
from quant.data.small import GREY_32
from quant.methods.pmq import PMQ, Patchwise
from quant.network import Network, forward

RESULTS = HERE / "pmq.jsonl"
WIDTHS, BUDGETS = (8, 6, 5, 4, 3), (5, 4)
PLAIN, COMPOSABLE = "trio_vit", "bitfusion_edge"
ARCHS = (PLAIN, COMPOSABLE)
BOPS = "bops"
# Kinds of budget: bit operations, EDP on either array.
KINDS = (BOPS, *(f"edp_pj_s@{arch}" for arch in ARCHS))
METRICS = {"output": "logit_l2", "kl": "kl", "first_order": "gradient", "fisher": "fisher", "hessian": "hessian_trace"}
# With token groups: half of the tokens of every ranked layer, the others lose two bits.
PATCHED, PATCH_WIDTHS, FULL_SHARE, DROP_BITS = "patchwise", (8, 6, 5, 4), 0.5, 2
ERROR_IMAGES, RANDOM_IMAGES, RANDOM_STATES = 128, 400, 20


def main() -> int:
    """Run the cells that are not in the results yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", default=str(RESULTS))
    parser.add_argument("--work", default="pmq_work", help="folder of measured errors")
    parser.add_argument("--models", nargs="+", default=[NATURAL, HYBRID])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    done = {(row["model"], row["seed"], row["bits"], row["arm"]) for row in read_results(arguments.results)}
    for model in arguments.models:
        for seed in arguments.seeds if model == NATURAL else [0]:
            for row in Case(model, seed, Path(arguments.work), done).rows():
                keep(arguments.results, row)
    return 0


@dataclass(eq=False)
class Case:
    """A trained checkpoint with its searches."""

    model: str
    seed: int
    work: Path
    done: set[tuple[Any, ...]]
    _costs: dict[int, dict[str, PlanCosts]] = field(default_factory=dict)

    @cached_property
    def network(self) -> Network:
        """The float network."""
        return float_network(self.model, self.seed)

    @cached_property
    def images(self) -> list[torch.Tensor]:
        """The images, without labels, that errors are measured on."""
        return calibration_images("glyphs", GREY_32, ERROR_IMAGES, self.seed)

    @cached_property
    def products(self) -> ProductNetwork:
        """The network with a width per product; its cost is set by `priced`."""
        settings = WidthSettings(weight_widths=WIDTHS, activation_widths=WIDTHS)
        calibration = calibration_images("glyphs", GREY_32, CALIBRATION_IMAGES, self.seed)
        path = self.folder / NAME
        images = [(batch, None) for batch in self.images]
        mixed = MixedNetwork(self.network, calibration, images, PMQ(), settings, path=path)
        return ProductNetwork(mixed, lambda state: 0.0)

    @cached_property
    def patched(self) -> ProductNetwork:
        """The products of the network that ranks its tokens, half of which keep their bits."""
        high = {one.name: round(FULL_SHARE * one.tokens) for one in ranked_layers(self.network.workload)}
        settings = WidthSettings(weight_widths=PATCH_WIDTHS, activation_widths=PATCH_WIDTHS)
        method = PMQ(patchwise=Patchwise(high, DROP_BITS))
        calibration = self.products.mixed.batches
        prepared = method.prepare(self.network, calibration)
        mixed = MixedNetwork(prepared, calibration, self.products.mixed.images, method, settings)
        return ProductNetwork(mixed, lambda state: 0.0)

    @cached_property
    def folder(self) -> Path:
        """Where measurements of this checkpoint are kept."""
        path = self.work / f"{self.model}_{self.seed}"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def costs(self, products: ProductNetwork) -> dict[str, PlanCosts]:
        """Costs of the mixed network's states by accelerator; what was simulated is kept."""
        if id(products.mixed) not in self._costs:
            mixed = products.mixed
            made = {name: PlanCosts(mixed.network.workload, load_accelerator(name), mixed.plan) for name in ARCHS}
            self._costs[id(products.mixed)] = made
        return self._costs[id(products.mixed)]

    def priced(self, kind: str, products: ProductNetwork | None = None) -> ProductNetwork:
        """The products with a kind of cost, after an @ the accelerator's name."""
        chosen = self.products if products is None else products
        name, _, arch = kind.partition("@")
        return replace(chosen, mixed_cost=self.costs(chosen)[arch or PLAIN].of(name))

    def rows(self) -> Iterator[dict[str, Any]]:
        """All missing cells."""
        if (self.model, self.seed, 32, "reference") not in self.done:
            found = evaluated(lambda batch: forward(self.network, batch), glyph_images(TEST_IMAGES))
            yield {"model": self.model, "seed": self.seed, "bits": 32, "arm": "reference", **figures_of(found)}
        uniform = uniform_states(self.products.components)
        for bits in WIDTHS:
            yield from self._row(bits, "uniform", lambda bits=bits: (uniform[bits], {}))  # type: ignore[misc]
        for kind in KINDS:
            metrics = METRICS if kind == BOPS and not self.seed else {"output": METRICS["output"]}
            for bits in BUDGETS:
                target = self.priced(kind).cost(uniform[bits])
                for name in metrics:
                    yield from self._allocated(kind, name, bits, target)
                if self.model == NATURAL:
                    yield from self._allocated(kind, "output", bits, target, PATCHED)
        if not self.seed:
            for bits in BUDGETS:
                yield from self._random(bits, uniform[bits])
            yield from self._greedy({bits: uniform[bits] for bits in BUDGETS})

    def _allocated(self, kind: str, metric: str, bits: int, target: float, more: str = "") -> Iterator[dict[str, Any]]:
        arm = f"{kind}/{more or metric}"
        if (self.model, self.seed, bits, arm) not in self.done:
            products = self.patched if more == PATCHED else self.products

            def make() -> tuple[State, dict[str, Any]]:
                found, took = self.allocated(kind, metric, target, products)
                return found.state, took

            yield from self._row(bits, arm, make, products=products)

    def allocated(
        self, kind: str, metric: str, target: float, products: ProductNetwork
    ) -> tuple[FrontierChoice, dict[str, Any]]:
        """The frontier's choice with the errors of a metric, and what it took."""
        problem = self.priced(kind, products)
        # A file of its own for every metric: what it took is then its own, too.
        place = self.folder / f"{metric}{'_ranked' * (products is not self.products)}.sqlite"
        table = measured(problem, self.images, METRICS[metric], place)
        begin = time.perf_counter()
        found = allocate(problem, component_errors(problem, table), target)
        took = {"allocate_s": round(time.perf_counter() - begin, 2), "points": found.points, "predicted": found.error}
        return found, {**took, "metric": table.metrics[0].to_json()}

    def _random(self, bits: int, one_width: State) -> Iterator[dict[str, Any]]:
        rng, problem = np.random.default_rng(bits), self.priced(BOPS)
        target = problem.cost(one_width)
        for k in range(RANDOM_STATES):
            state = random_state(_Walked(problem), target, rng)
            yield from self._row(bits, f"{BOPS}/random{k}", lambda s=state: (s, {}), RANDOM_IMAGES)  # type: ignore[misc]
        arms: dict[str, Callable[[], State]] = {
            "uniform_random_images": lambda: one_width,
            f"{BOPS}/output_random_images": lambda: self.allocated(BOPS, "output", target, self.products)[0].state,
        }
        for arm, state_of in arms.items():
            yield from self._row(bits, arm, lambda f=state_of: (f(), {}), RANDOM_IMAGES)  # type: ignore[misc]

    def _greedy(self, targets: dict[int, State]) -> Iterator[dict[str, Any]]:
        """Greedy bits of the same products by the KL divergence on the same images."""
        if all((self.model, self.seed, bits, f"{BOPS}/greedy") in self.done for bits in targets):
            return
        problem = _Walked(self.priced(BOPS))
        goals = {bits: problem.cost(state) for bits, state in targets.items()}
        begin = time.process_time()
        found = walk(problem, min(goals.values()), WalkSettings())
        more = {
            "cpu_s": round(time.process_time() - begin, 1), "evaluations": found.evaluations,
            "images": ERROR_IMAGES, "moves": len(found.steps),
        }  # fmt: skip
        for bits, goal in goals.items():
            state = found.at(goal).state
            yield from self._row(bits, f"{BOPS}/greedy", lambda s=state: (s, {"greedy": more}))  # type: ignore[misc]

    def _row(
        self, bits: int, arm: str, make: Callable[[], tuple[State, dict[str, Any]]], images: int = TEST_IMAGES,
        products: ProductNetwork | None = None,
    ) -> Iterator[dict[str, Any]]:  # fmt: skip
        if (self.model, self.seed, bits, arm) in self.done:
            return
        state, more = make()
        chosen = self.products if products is None else products
        kinds = [*KINDS, "size_bits", *(f"{name}@{arch}" for name in ("latency_s", "energy_pj") for arch in ARCHS)]
        costs = {kind: float(self.priced(kind, chosen).cost(state)) for kind in kinds}
        figures = figures_of(evaluated(Model(chosen.checkpoint(state)), glyph_images(images)))
        error = round(output_error(chosen.mixed, chosen.expanded(state)), 6)
        head = {"model": self.model, "seed": self.seed, "bits": bits, "arm": arm, "error": error, "costs": costs}
        yield {**head, **figures, **more, "state": list(state)}


@dataclass(frozen=True, eq=False)
class _Walked:
    """Products as the problem of a walk or of random states; losses are those of the mixed network."""

    products: ProductNetwork

    @property
    def components(self) -> tuple[Component, ...]:
        """The products."""
        return self.products.components

    def loss(self, state: State) -> float:
        """KL divergence from the float network, in nats."""
        return self.products.mixed.loss(self.products.expanded(state))

    def cost(self, state: State) -> float:
        """What a state costs."""
        return self.products.cost(state)

    def settle(self, state: State) -> None:
        """The walk goes on from here."""
        self.products.mixed.settle(self.products.expanded(state))


if __name__ == "__main__":
    raise SystemExit(main())
