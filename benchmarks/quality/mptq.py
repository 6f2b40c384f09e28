"""MPTQ-ViT's parts one by one on vision transformers: smoothing against zero points, two-region formats against others.

    python benchmarks/quality/mptq.py [--results FILE] [--models NAME ...] [--seeds N ...] [--bits 4 5 6]

A cell is a trained checkpoint, a width and an arm.  Cells are stored in the results (JSON lines) as they finish; kill
it and run it again, it goes on.  mptq_greedy.py adds the mixed-precision arms, mptq_report.py makes tables and
pictures.  Checkpoints of other seeds than 0 come from `python -m quant.models.train glyph_vit --seed N`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import product
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from cells import HERE, keep, read_results
from glyph_models import (
    CALIBRATION_IMAGES,
    CONTROL_IMAGES,
    NATURAL,
    TEST_IMAGES,
    evaluated,
    figures_of,
    glyph_images,
    networks,
)

from accelsim.formats import Scheme
from codesign.quantize_command import calibration_images
from quant.calibrate import Calibration
from quant.checkpoint import Model
from quant.collect import Statistics
from quant.data.dataset import DataSet
from quant.data.small import GREY_32
from quant.methods.mptq import FIXED_SHIFT, MPTQ
from quant.network import Network, forward
from quant.quantize import gather, quantize_prepared
from quant.smooth import channel_skew

RESULTS = HERE / "mptq.jsonl"
MODELS = (NATURAL, "glyph_vit_scale10", "glyph_vit_scale40", "glyph_vit_offset", "glyph_vit_outlier")
BITS = (4, 5, 6)
SMOOTHINGS = ("none", "smoothquant", "sq_b")
POINTS = ("symmetric", "tensor", "channel")
FIXED_SHIFTS = (2, 4, 6)
SOFTMAXES = tuple(f"b{k}.softmax" for k in range(4))  # of all models
ALL_SEEDS = (NATURAL, "glyph_vit_scale10", "glyph_vit_offset")  # others: the first checkpoint only


class Arm(NamedTuple):
    """One way to quantize."""

    method: MPTQ
    options: Calibration


def main() -> int:
    """Run the cells that are not in the results yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", default=str(RESULTS))
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--bits", nargs="+", type=int, default=list(BITS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    done = {(row["model"], row["seed"], row["bits"], row["arm"]) for row in read_results(arguments.results)}
    for model, seed, network in networks(arguments.models, arguments.seeds):
        if seed and model not in ALL_SEEDS:
            continue
        images = glyph_images(TEST_IMAGES if model == NATURAL else CONTROL_IMAGES)
        calibration = calibration_images("glyphs", GREY_32, CALIBRATION_IMAGES, seed)
        for row in _cells(network, calibration, model, seed, arguments.bits, images, done):
            keep(arguments.results, row)
    return 0


def _cells(
    network: Network, calibration: list[torch.Tensor], model: str, seed: int, widths: list[int], images: DataSet,
    done: set[tuple[Any, ...]],
) -> Iterator[dict[str, Any]]:  # fmt: skip
    head = {"model": model, "seed": seed}
    if (model, seed, 32, "reference") not in done:
        found = evaluated(lambda batch: forward(network, batch), images)
        skew = [asdict(one) for one in channel_skew(network, calibration)]
        yield {**head, "bits": 32, "arm": "reference", **figures_of(found), "skew": skew}
    shared: dict[tuple[Any, ...], tuple[Network, Statistics]] = {}
    for bits in widths:
        for name, arm in arms_of(model, seed, bits).items():
            if (model, seed, bits, name) in done:
                continue
            start = time.perf_counter()
            method = arm.method
            alike = (method.smooth, method.offsets, method.weighted_regions)
            if alike not in shared:
                smoothed = method.prepare(network, calibration)
                shared[alike] = (smoothed, gather(smoothed, calibration, method))
            smoothed, statistics = shared[alike]
            plan, checkpoint = quantize_prepared(smoothed, calibration, method, statistics, arm.options)
            seconds = round(time.perf_counter() - start, 1)
            formats = {r.match: r.output.name for r in plan.rules if r.output.scheme is Scheme.TWO_REGION}
            figures = figures_of(evaluated(Model(checkpoint), images))
            yield {**head, "bits": bits, "arm": name, **figures, "seconds": seconds, "formats": formats}


def arms_of(model: str, seed: int, bits: int) -> dict[str, Arm]:
    """Arms of a model at a width, by name: smoothing/zero points/observer[/weights], or regions/what.

    At 6 bits, where little is lost, there are fewer.
    """
    mse = Calibration()
    base = MPTQ(activation_bits=bits, weight_bits=bits)
    found = {}
    for smoothing, points in product(SMOOTHINGS, POINTS if bits < 6 else POINTS[:1]):
        method = replace(base, smooth=smoothing, zero_points=points != "symmetric", offsets=points == "channel")
        found[f"{smoothing}/{points}/mse"] = Arm(method, mse)
        if bits == 4 and seed == 0 and model in ALL_SEEDS:
            found[f"{smoothing}/{points}/minmax"] = Arm(method, replace(mse, observer="minmax"))
        if bits == 4 and points == "symmetric" and model == NATURAL:
            found[f"{smoothing}/{points}/mse/tensor"] = Arm(method, replace(mse, weights="tensor"))
    if model == NATURAL:
        found |= {f"regions/{name}": Arm(method, mse) for name, method in _region_arms(base).items()}
        if bits == 4 and seed == 0:
            # All but the tensors in question at 8 bits.
            alone = replace(base, activation_bits=8, weight_bits=8, region_bits=bits)
            found |= {f"regions/alone/{name}": Arm(method, mse) for name, method in _region_arms(alone).items()}
    return found


def _wider(base: MPTQ) -> int:
    return (base.region_bits or base.activation_bits) + 1


def _region_arms(base: MPTQ) -> dict[str, MPTQ]:
    """Formats of softmax and GELU outputs; all else as in `base`."""
    arms = {
        "uniform": replace(base, regions="none"),
        "uniform_points": replace(base, regions="none", region_points=True),
        # Signed codes of one bit more hold what unsigned ones of the width would.
        "unsigned": replace(base, regions="none", region_points=True, widths=dict.fromkeys(SOFTMAXES, _wider(base))),
        "opt": base,
        "closed_form": replace(base, regions="closed_form"),
        "weighted": replace(base, weighted_regions=True),
        "ptq4vit": replace(base, regions="ptq4vit"),
    }
    narrow = 4 in (base.activation_bits, base.region_bits)
    for shift in FIXED_SHIFTS if narrow else (FIXED_SHIFT,):
        arms[f"fixed{shift}"] = replace(base, regions="fixed", fixed_shift=shift)
    if narrow and not base.region_bits:
        arms |= {f"functions/{name}": replace(base, functions=name) for name in ("ibert", "ivit")}
    return arms


if __name__ == "__main__":
    raise SystemExit(main())
