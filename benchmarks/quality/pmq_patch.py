"""Patch-wise bits against one width, random patches and the least important ones, at equal bit operations.

    python benchmarks/quality/pmq_patch.py [--results FILE] [--seeds N ...]

Every layer but the first of `glyph_vit` ranks its tokens; a share of them keeps all bits, the others lose some.  Cells
are stored in the results (JSON lines) as they finish; kill it and run it again, it goes on.  pmq_report.py makes the
tables and the pictures.
"""

from __future__ import annotations

import argparse
import base64
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from cells import HERE, keep, read_results, rewrite
from glyph_models import (
    BATCH,
    CALIBRATION_IMAGES,
    NATURAL,
    TEST_IMAGES,
    evaluated,
    figures_of,
    glyph_images,
    networks,
)

from accelsim.api import simulate
from accelsim.arch import Accelerator
from accelsim.config import load_accelerator
from accelsim.optable import op_table
from accelsim.plan import apply_plan
from accelsim.token_counts import METRICS, simulate_counts
from accelsim.token_groups import RECEIVED
from codesign.quantize_command import calibration_images
from quant.checkpoint import Model
from quant.collect import Statistics
from quant.costs import bit_operations
from quant.data.small import GREY_32
from quant.methods.pmq import PMQ, Patchwise
from quant.network import Network, forward
from quant.patchwise.measure import importance_statistics, matching_threshold, mean_bit_operations, measured_counts
from quant.patchwise.order import IMPORTANT, INVERSE, ORDERS, RANDOM
from quant.quantize import gather, make_plan, quantize_prepared

RESULTS = HERE / "pmq_patch.jsonl"
LAYERS = ("b1", "b2", "b3")  # that rank their tokens
SLICED = ("norm1", "qkv", "softmax", "values", "norm2", "fc1")  # what their products read
TOKENS = 65
# Width of all weights and products, bits that narrow tokens lose.
BASES = ((8, 4), (6, 2), (6, 4), (5, 2))
SHARES = (0.75, 0.5, 0.25)  # of the tokens have all bits
ALONE = (6, 4, 0.25)  # one layer at a time
ARCHS, MAPPER = ("trio_vit", "bitfusion_edge"), "exhaustive:edp"


def main() -> int:
    """Run the cells that are not in the results yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", default=str(RESULTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--price", action="store_true", help="bit operations and simulated costs of all cells anew")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.price:
        price_again(arguments.results)
        return 0
    done = {(row["seed"], row["arm"]) for row in read_results(arguments.results)}
    for _, seed, network in networks([NATURAL], arguments.seeds):
        for row in cells(network, seed, done):
            keep(arguments.results, row)
    return 0


def cells(network: Network, seed: int, done: set[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """The missing cells of a checkpoint."""
    images = glyph_images(TEST_IMAGES)
    head = {"model": NATURAL, "seed": seed, "bits": 0}
    if (seed, "reference") not in done:
        found = evaluated(lambda batch: forward(network, batch), images)
        statistics = importance_statistics(network, images.batches(BATCH))
        importance = {layer: [asdict(one) for one in pair] for layer, pair in statistics.items()}
        yield {**head, "bits": 32, "arm": "reference", **figures_of(found), "importance": importance}
    calibration = calibration_images("glyphs", GREY_32, CALIBRATION_IMAGES, seed)
    shared: dict[tuple[str, ...], Statistics] = {}
    thresholds = {share: matching_threshold(network, calibration, full_tokens(share)) for share in SHARES[1:]}
    for arm, method in arms(thresholds).items():
        if (seed, arm) in done:
            continue
        prepared = method.prepare(network, calibration)
        one = method.patchwise
        alike = ("",) if one is None else (one.importance, *one.high)
        if alike not in shared:
            shared[alike] = gather(prepared, calibration, method)
        _, checkpoint = quantize_prepared(prepared, calibration, method, shared[alike])
        row = {**head, "bits": method.weight_bits, "arm": arm, **figures_of(evaluated(Model(checkpoint), images))}
        if one is not None and one.share_256:
            full = measured_counts(checkpoint, images.batches(BATCH))
            row["counts"] = {name: base64.b64encode(n.astype(np.uint8).tobytes()).decode() for name, n in full.items()}
            row["threshold"] = one.share_256
        yield row


def price_again(path: str) -> None:
    """Write the results with the costs of every cell; of the variable rule the mean over its images."""
    found = read_results(path)
    networks_of = {seed: network for _, seed, network in networks([NATURAL], sorted({row["seed"] for row in found}))}
    accelerators = [load_accelerator(name) for name in ARCHS]
    seen: dict[str, dict[str, Any]] = {}
    for row in found:
        if row["arm"] == "reference":
            continue
        key = f"{row['arm']} {row['seed']}" if "counts" in row else row["arm"]
        if key not in seen:
            method = arms(dict.fromkeys(SHARES[1:], row.get("threshold", 1)))[row["arm"]]
            seen[key] = costs_of(networks_of[row["seed"]], method, row.get("counts"), accelerators)
        row["costs"] = seen[key]
    rewrite(path, found)


def costs_of(
    network: Network, method: PMQ, counts: dict[str, str] | None, accelerators: Sequence[Accelerator]
) -> dict[str, Any]:
    """Bit operations, and cycles, energy and EDP on every design; `counts` has the full tokens of every image."""
    images = calibration_images("glyphs", GREY_32, 1, 0)
    prepared = method.prepare(network, images)
    plan = make_plan(prepared, method, gather(prepared, images, method))
    workload = prepared.workload
    if counts is None:
        found: dict[str, Any] = {"bops": bit_operations(apply_plan(workload, plan))}
        for one in accelerators:
            report = simulate(op_table(workload, plan), one, mapper=MAPPER).metrics()
            report["cycles"] = report["cycles_total"]
            found |= {f"{metric}@{one.name}": report[metric] for metric in METRICS}
        return found
    full = {layer: np.frombuffer(base64.b64decode(text), np.uint8).astype(np.int64) for layer, text in counts.items()}
    found = {"bops": mean_bit_operations(workload, plan, full)}
    each = [dict(zip(full, map(int, numbers), strict=True)) for numbers in zip(*full.values(), strict=True)]
    for one in accelerators:
        many = simulate_counts(workload, plan, one, each, MAPPER)
        for metric in METRICS:
            found[f"{metric}@{one.name}"] = many.distribution(metric).mean
            found[f"p95 {metric}@{one.name}"] = many.distribution(metric).p95
            found[f"worst {metric}@{one.name}"] = getattr(many.worst, metric)
    return found


def method_of(bits: int, widths: dict[str, int] | None = None, patchwise: Patchwise | None = None) -> PMQ:
    """One width for all weights and what products read, but for the tensors of `widths`; the rest has 8 bits."""
    every = {f"b{k}.{name}": bits for k, name in product(range(4), SLICED)} | {"norm": bits}
    return PMQ(weight_bits=bits, widths={**every, **(widths or {})}, patchwise=patchwise)


def same_bits(bits: int, mean: int) -> PMQ:
    """The ranked layers' activations in one width: the mean of token groups."""
    return method_of(bits, {f"{layer}.{name}": mean for layer, name in product(LAYERS, SLICED)})


def arms(thresholds: Mapping[float, int]) -> dict[str, PMQ]:
    """Ways to quantize, by name: BITS/uniform, BITS/same/MEAN, BITS-DROP/SHARE/ORDER, … .

    `thresholds` (256ths of the importance) keep a share of the tokens full on the mean, by that share.
    """
    found: dict[str, PMQ] = {}
    for bits, drop in BASES:
        found[f"{bits}/uniform"] = method_of(bits)
        for share in SHARES:
            mean = bits - round(drop * (1 - share), 6)
            if mean == int(mean):
                found[f"{bits}/same/{int(mean)}"] = same_bits(bits, int(mean))
            one = Patchwise(dict.fromkeys(LAYERS, full_tokens(share)), drop)
            for order in ORDERS:
                found[f"{bits}-{drop}/{share}/{order}"] = method_of(bits, patchwise=replace(one, order=order))
        one = Patchwise(dict.fromkeys(LAYERS, full_tokens(0.5)), drop, importance=RECEIVED)
        found[f"{bits}-{drop}/0.5/{RECEIVED}"] = method_of(bits, patchwise=one)
    for bits, drop in BASES[:3]:
        for share, threshold in thresholds.items():
            one = Patchwise(dict.fromkeys(LAYERS, full_tokens(share)), drop, threshold)
            for order in ORDERS:
                found[f"{bits}-{drop}/{share}/{order}/variable"] = method_of(bits, patchwise=replace(one, order=order))
    bits, drop, share = ALONE
    for layer, order in product(LAYERS, (IMPORTANT, RANDOM, INVERSE)):
        one = Patchwise({layer: full_tokens(share)}, drop, order=order)
        found[f"{bits}-{drop}/{share}/{order}/{layer}"] = method_of(bits, patchwise=one)
    return found


def full_tokens(share: float) -> int:
    """Number of full tokens, the class token included."""
    return max(1, round(share * TOKENS))


if __name__ == "__main__":
    raise SystemExit(main())
