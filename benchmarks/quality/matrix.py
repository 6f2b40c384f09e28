"""Accuracy of every arm of the matrix beside cycles, energy and EDP on its fitting hardware of equal area.

    python benchmarks/quality/matrix.py [--matrix FILE] [--results FILE] [--models NAME ...] [--arms NAME ...] [--price]

Cells are stored in the results (JSON lines) as they finish; kill it and run it again, it goes on.  matrix_report.py
makes the tables and the picture.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import yaml
from cells import HERE, packed, read_results, rewrite
from hardware import fit
from tqdm import tqdm

from accelsim.ir import digest
from accelsim.problems import InfeasibleError
from codesign.models import load_model
from codesign.quantize_command import calibration_images
from quant.calibrate import Calibration
from quant.checkpoint import Model
from quant.data import load_data
from quant.evaluate import Evaluation, evaluate
from quant.methods import Method, method_class
from quant.models.registry import weights_file
from quant.network import Network, forward
from quant.quantize import gather, make_plan, quantize
from quant.reconstruct import Reconstruction

RESULTS = HERE / "matrix.jsonl"
BATCH = 64  # larger batches leave the cache


def main() -> int:
    """Run the cells that are not in the results yet."""
    arguments = _arguments()
    torch.set_num_threads(1)
    matrix = yaml.safe_load(Path(arguments.matrix).read_text(encoding="utf-8"))
    if arguments.price:
        price_again(arguments.results, matrix)
        return 0
    done = {(row["model"], row["arm"], row["seed"], row["recipe"]) for row in read_results(arguments.results)}
    todo = [
        cell
        for cell in cells(matrix, arguments.models, arguments.arms)
        if (*cell[:3], recipe_of(matrix, cell)) not in done
    ]
    loaded: dict[str, Network] = {}
    references: dict[str, dict[str, Evaluation]] = {}
    for k, (model, arm, seed, options) in enumerate(todo):
        print(f"[{k + 1}/{len(todo)}] {model} {arm} seed {seed}", file=sys.stderr, flush=True)
        if model not in loaded:
            loaded[model] = load_model(model)[0]
            references[model] = _measured(lambda images, m=model: forward(loaded[m], images), matrix, model)
        row = {
            "model": model,
            "arm": arm,
            "seed": seed,
            "recipe": recipe_of(matrix, (model, arm, seed, options)),
            **_cell(loaded[model], references[model], matrix, model, arm, seed, options),
        }
        rows = [
            row
            for row in read_results(arguments.results)
            if (row["model"], row["arm"], row["seed"]) != (model, arm, seed)
        ]
        rewrite(arguments.results, (*rows, row))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--matrix", default=str(HERE / "matrix.yaml"))
    parser.add_argument("--results", default=str(RESULTS))
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--arms", nargs="+")
    parser.add_argument("--price", action="store_true", help="only fit the hardware of finished cells anew")
    return parser.parse_args()


def recipe_of(matrix: dict[str, Any], cell: tuple[str, str, int, dict[str, Any]]) -> str:
    """Hash of everything in the matrix that decides a cell's figures, and of the model's weights."""
    model, _, _, options = cell
    arm = {name: options[name] for name in ("method", "options", "calibration", "reconstruct") if name in options}
    shares = dict(matrix["models"][model])
    if not arm.get("reconstruct"):
        shares.pop("steps", None)
    weights = hashlib.sha256(weights_file(model, 0).read_bytes()).hexdigest()
    return digest([arm, shares, weights, matrix["data"], matrix["calibration_images"]])


def cells(
    matrix: dict[str, Any], models: list[str] | None = None, arms: list[str] | None = None
) -> Iterator[tuple[str, str, int, dict[str, Any]]]:
    """Model, arm, seed and the arm's options, the float arm of each model first."""
    for model in matrix["models"]:
        if models and model not in models:
            continue
        for arm in ({"name": "float"}, *matrix["arms"]):
            if model in arm.get("models", matrix["models"]) and (not arms or arm["name"] in arms):
                for seed in (0,) if model in arm.get("once", ()) else arm.get("seeds", (0,)):
                    yield model, arm["name"], seed, arm


def _measured(model: Any, matrix: dict[str, Any], name: str) -> dict[str, Evaluation]:
    """Outputs on every k-th validation and test image, so that all type families are there."""
    found = {}
    for split in ("val", "test"):
        share = matrix["models"][name][split]
        data = load_data(matrix["data"], split)
        assert data.labels is not None
        part = replace(data, images=data.images[::share], labels=data.labels[::share])
        found[split] = evaluate(
            model, ((images, labels) for images, labels in part.batches(BATCH) if labels is not None)
        )
    return found


def _cell(
    network: Network, reference: dict[str, Evaluation], matrix: dict[str, Any], model: str, arm: str, seed: int,
    options: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Figures of one arm of a model."""
    if arm == "float":
        return {**_figures(reference, reference), "seconds": 0.0, "hardware": None}
    images = calibration_images(matrix["data"], None, matrix["calibration_images"], seed)
    method = _method(options)
    recipe = Reconstruction(steps=matrix["models"][model]["steps"], seed=seed) if options.get("reconstruct") else None
    start = time.process_time()
    plan, checkpoint = quantize(network, images, method, Calibration(**options.get("calibration", {})), recipe)
    seconds = time.process_time() - start
    found = _measured(Model(checkpoint), matrix, model)
    row = {**_figures(found, reference), "seconds": round(seconds, 1), "plan": plan.fingerprint()}
    return row | {"hardware": hardware(network, plan)}


def _method(options: dict[str, Any]) -> Method:
    return method_class(options["method"])(**options.get("options", {}))


def price_again(path: str, matrix: dict[str, Any]) -> None:
    """Fit the hardware of all finished cells anew (the design family changed); accuracy stays as it is.

    What a plan costs depends on how many filters have a format, not on which: few images are enough to make it.
    """
    rows = read_results(path)
    arms = {arm["name"]: arm for arm in matrix["arms"]}
    known: dict[tuple[str, str], Any] = {}
    networks: dict[str, Network] = {}
    for row in tqdm([row for row in rows if row["arm"] != "float"]):
        key = (row["model"], row["arm"])
        if key not in known:
            network = networks.setdefault(row["model"], load_model(row["model"])[0])
            method = _method(arms[row["arm"]])
            statistics = gather(network, calibration_images(matrix["data"], None, 64, 0), method)
            known[key] = hardware(network, make_plan(network, method, statistics))
        row["hardware"] = known[key]
    rewrite(path, rows)


def hardware(network: Network, plan: Any) -> dict[str, Any] | None:
    """The fitting design of a plan and its figures, None when no design of the family runs it."""
    try:
        best = fit(network.workload, plan)
    except InfeasibleError:
        return None
    prices = best.report.prices.arithmetic
    return {
        "design": best.accelerator.name, "engines_mm2": best.engines_mm2, "cycles": best.report.result.cycles_total,
        "energy_pj": prices.energy_pj, "edp_pj_s": prices.edp_pj_s,
    }  # fmt: skip


def _figures(found: dict[str, Evaluation], reference: dict[str, Evaluation]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for split, one in found.items():
        row[split] = {
            "images": len(one.labels), "top1": one.top1, "cross_entropy": one.cross_entropy,
            "agreement": one.agreement(reference[split]),
            "logit_sqnr_db": None if one is reference[split] else one.logit_sqnr_db(reference[split]),
            "correct": packed(one.correct),
        }  # fmt: skip
    return row


if __name__ == "__main__":
    sys.exit(main())
