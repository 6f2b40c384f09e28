"""Errors and times of allocations from the Pareto frontier: exact, in bins, on the hull, one width, random widths.

python benchmarks/pareto_allocation.py [--model glyph_vit] [--kinds uniform edp_pj_s] [--bits 6 5] [--cache FILE]

Budgets are the costs of one width for all components.  Errors are the summed ones that the frontier minimises, and for
budgets of bit operations also the measured distance of the logits.  Prints Markdown.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from accelsim.config import load_accelerator
from codesign.frontier.allocation import Errors, allocate
from codesign.frontier.products import ProductNetwork
from codesign.frontier.search import component_errors, measured, output_error
from codesign.greedy.compare import random_state
from codesign.greedy.costs import PlanCosts
from codesign.greedy.mixed import MixedNetwork
from codesign.greedy.trajectory import State
from codesign.models import data_of, load_model
from codesign.quantize_command import calibration_images
from codesign.run_design import DEFAULT_ARCH
from quant.methods.pmq import PMQ

DRAWS = 20
ARMS: dict[str, dict[str, Any]] = {"exact": {}, "200 bins": {"bins": 200}, "hull": {"on_hull": True}}


def lines(
    products: ProductNetwork, errors: Errors, kind: str, bits: int, measures: bool
) -> Iterator[tuple[str, float, float | None, str]]:
    """Arm, predicted and measured error, and how it was found, within the cost of one width."""
    one = tuple(bits for _ in products.components)
    target = products.cost(one)

    def predicted(state: State) -> float:
        pairs = zip(products.components, state, strict=True)
        return sum(errors[component.name, width] for component, width in pairs)

    def found(state: State) -> float | None:
        return output_error(products.mixed, products.expanded(state)) if measures else None

    for name, how in ARMS.items():
        start = time.process_time()
        made = allocate(products, errors, target, **how)
        took = f"{made.points} points, slack {made.slack / target:.2%}, {made.rounds} rounds, "
        took += f"{time.process_time() - start:.2f} s, at least {made.least_error:.4g}"
        yield name, made.error, found(made.state), took
    yield f"{bits} bits", predicted(one), found(one), ""
    rng = np.random.default_rng(0)
    drawn = [predicted(random_state(products, target, rng)) for _ in range(DRAWS)]
    yield f"random of {DRAWS}: best", min(drawn), None, ""
    yield f"random of {DRAWS}: median", float(np.median(drawn)), None, ""


def main() -> None:
    """Measure the components once, then print a table for every kind of cost and width."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="glyph_vit")
    parser.add_argument("--arch", default=DEFAULT_ARCH)
    parser.add_argument("--kinds", nargs="+", default=["uniform", "edp_pj_s"])
    parser.add_argument("--bits", nargs="+", type=int, default=[6, 5])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--cache", help="file of finished measurements")
    chosen = parser.parse_args()
    network, preprocess = load_model(chosen.model)
    data = data_of(chosen.model)
    calibration = calibration_images(data, preprocess, 2 * chosen.images, 0)
    images = calibration_images(data, preprocess, chosen.images, 0)
    mixed = MixedNetwork(network, calibration, [(batch, None) for batch in images], PMQ())
    costs = PlanCosts(network.workload, load_accelerator(chosen.arch), mixed.plan)
    errors: Errors | None = None
    for kind in chosen.kinds:
        products = ProductNetwork(mixed, costs.of(kind))
        if errors is None:
            table = measured(products, images, cache=chosen.cache)
            errors = component_errors(products, table)
            print(f"{len(products.components)} components, {table.metrics[0].seconds:.1f} s, {table.metrics[0].passes}")
        for bits in chosen.bits:
            print(f"\n### {kind} of {bits} bits\n\n| widths | error | measured | |\n|---|---|---|---|")
            for name, error, real, how in lines(products, errors, kind, bits, kind == "uniform"):
                print(f"| {name} | {error:.4g} | {'' if real is None else f'{real:.4g}'} | {how} |", flush=True)


if __name__ == "__main__":
    main()
