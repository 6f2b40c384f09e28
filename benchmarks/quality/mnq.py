"""MNQ against one method everywhere, random maps and its ablation: accuracy, SQNR and cost on vision transformers.

    python benchmarks/quality/mnq.py [--results FILE] [--models NAME ...] [--seeds N ...] [--bits 8 6]

A cell is a trained checkpoint, a width and a map.  Cells are stored in the results (JSON lines) as they finish; kill it
and run it again, it goes on.  mnq_report.py makes the tables and the pictures.  Checkpoints of other seeds than 0 come
from `python -m quant.models.train glyph_vit --seed N`.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from cells import HERE, keep, read_results, rewrite
from glyph_models import (
    CALIBRATION_IMAGES,
    CONTROL_IMAGES,
    NATURAL,
    OUTLIER,
    TEST_IMAGES,
    evaluated,
    figures_of,
    glyph_images,
    networks,
)

from accelsim.arch import Accelerator
from accelsim.config import load_accelerator
from accelsim.plan import QuantPlan
from accelsim.problems import InfeasibleError
from codesign.budgets import Budget
from codesign.nonlinear.arms import maps_of as compared_maps
from codesign.nonlinear.choose import choose_within
from codesign.nonlinear.price import MapCost, map_cost
from codesign.quantize_command import calibration_images
from quant.checkpoint import Model
from quant.collect import Statistics
from quant.data.dataset import DataSet
from quant.data.small import GREY_32
from quant.methods.mnq import METHODS, MNQ, WITH_TABLE
from quant.network import Network, forward
from quant.nonlinear.mixed import Mixed
from quant.nonlinear.sqnr import SqnrTable
from quant.quantize import make_plan
from quant.separate import separate

RESULTS = HERE / "mnq.jsonl"
MODELS = (NATURAL, "glyph_vit_scale10", OUTLIER)
ARCH = "m2vit_nonlinear"
RANDOM_MAPS = 20
RANDOM_IMAGES = 400  # test images that random maps are measured on
FRONT_POINTS = 5
Maps = dict[str, dict[str, str]]


def main() -> int:
    """Run the cells that are not in the results yet."""
    arguments = _arguments()
    torch.set_num_threads(1)
    if arguments.price:
        price_again(arguments.results)
        return 0
    accelerator = load_accelerator(ARCH)
    rows = read_results(arguments.results)
    done = {(row["model"], row["seed"], row["bits"], row["arm"]) for row in rows}
    for model, seed, plain in networks(arguments.models, arguments.seeds):
        network = separate(plain)
        main_images = TEST_IMAGES if model == NATURAL else CONTROL_IMAGES
        images = {"main": glyph_images(main_images), "random": glyph_images(RANDOM_IMAGES)}
        calibration = calibration_images("glyphs", GREY_32, CALIBRATION_IMAGES, seed)
        for bits in arguments.bits:
            for row in _cells(network, calibration, model, seed, bits, accelerator, images, done):
                keep(arguments.results, row)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", default=str(RESULTS))
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--bits", nargs="+", type=int, default=[8, 6])
    parser.add_argument("--price", action="store_true", help="only simulate the finished cells anew")
    return parser.parse_args()


def price_again(results: str) -> None:
    """Costs of all stored maps, with the simulator and the preset of today."""
    network, accelerator = separate(next(networks([NATURAL], [0]))[2]), load_accelerator(ARCH)
    rows = read_results(results)
    for row in rows:
        if "cost" in row:
            method = MNQ(activation_bits=row["bits"], weight_bits=row["bits"], methods=row["methods"])
            row |= _cost(network, make_plan(network, method, Statistics()), accelerator)
    rewrite(results, rows)


def _cells(
    network: Network, calibration: list[torch.Tensor], model: str, seed: int, bits: int, accelerator: Accelerator,
    images: Mapping[str, DataSet], done: set[tuple[Any, ...]],
) -> Iterator[dict[str, Any]]:  # fmt: skip
    head = {"model": model, "seed": seed, "bits": bits}
    if bits == 8 and (model, seed, 32, "reference") not in done:
        found = evaluated(lambda batch: forward(network, batch), images["main"])
        yield {"model": model, "seed": seed, "bits": 32, "arm": "reference", **figures_of(found)}
    mixed = Mixed(network, calibration, bits)
    wanted = _names(model, seed, bits)
    if all((model, seed, bits, name) in done for name in wanted):
        return
    start = time.perf_counter()
    table = mixed.table()
    if (model, seed, bits, "sqnr") not in done:
        yield {**head, "arm": "sqnr", "seconds": round(time.perf_counter() - start, 1), **table.to_json()}

    def price(chosen: Mapping[str, str]) -> MapCost:
        return map_cost(network.workload, mixed.plan(chosen), accelerator)

    maps = maps_of(mixed, table, seed)
    if any("front" in name and (model, seed, bits, name) not in done for name in wanted):
        for name, one in (("front", table), ("own_front", mixed.own_error())):
            maps |= _front(name, one, price)
    for name in wanted:
        if name in maps and (model, seed, bits, name) not in done:
            part = images["random" if "random" in name else "main"]
            figures = figures_of(evaluated(Model(mixed.checkpoint(maps[name])), part))
            cost = _cost(network, mixed.plan(maps[name]), accelerator)
            yield {**head, "arm": name, "methods": maps[name], **figures, **cost}


def _names(model: str, seed: int, bits: int) -> list[str]:
    names = ["sqnr", "float", *METHODS, "mnq", "output_only", "own_error"]
    if model == NATURAL:
        names += ["mnq_random_images", *(f"random{k}" for k in range(RANDOM_MAPS))]
        if seed == 0:
            names += [f"{kind}{k}" for kind in ("front", "own_front") for k in range(FRONT_POINTS)]
    return names


def maps_of(mixed: Mixed, table: SqnrTable, seed: int) -> Maps:
    """The maps that `quantize --method mnq` compares, and MNQ's once more for the images of the random ones."""
    maps = compared_maps(mixed, table, RANDOM_MAPS, seed)
    return {**maps, "mnq_random_images": maps["mnq"]}


def _front(name: str, table: SqnrTable, price: Callable[[Mapping[str, str]], MapCost]) -> Maps:
    """Hardware-aware maps from the one without a limit down to the least EDP of one method per function."""
    least = math.inf
    for names in product(*WITH_TABLE.values()):
        of = dict(zip(WITH_TABLE, names, strict=True))
        least = min(least, price({slot.op: of[slot.function] for slot in table.slots}).edp_pj_s)
    free = choose_within(table, price, Budget("edp_pj_s", 1e18), WITH_TABLE)[1].edp_pj_s
    found: Maps = {}
    for k, limit in enumerate(np.linspace(max(free, least), least, FRONT_POINTS)):
        budget = Budget("edp_pj_s", float(limit) * (1 + 1e-9))
        found[f"{name}{k}"] = choose_within(table, price, budget, WITH_TABLE)[0]
    return found


def _cost(network: Network, plan: QuantPlan, accelerator: Accelerator) -> dict[str, Any]:
    try:
        cost = map_cost(network.workload, plan, accelerator)
    except InfeasibleError as error:
        return {"cost": None, "reason": str(error.problems[0].what)}
    names = ("latency_cycles", "energy_pj", "edp_pj_s", "vector_cycles", "vector_energy_pj")
    return {"cost": {name: getattr(cost, name) for name in names}}


if __name__ == "__main__":
    raise SystemExit(main())
