"""MNQ and single methods after short quantization-aware training, from the same start, with the same images.

    python benchmarks/quality/mnq_tuned.py [--results FILE] [--bits 6] [--steps 100] [--rate 1e-4] [--arms NAME ...]

Rows go to the results of mnq.py (`arm` is "tuned_NAME"), beside the untrained ones that they are compared with; a run
that was killed goes on from its state (in --work) with the next step.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from cells import keep, read_results
from glyph_models import CALIBRATION_IMAGES, NATURAL, TEST_IMAGES, evaluated, figures_of, glyph_images, networks
from mnq import RESULTS, maps_of
from tqdm import tqdm

from codesign.quantize_command import calibration_images
from quant.checkpoint import Model
from quant.data import load_data
from quant.data.small import GREY_32
from quant.finetune import FineTune, fine_tune
from quant.nonlinear.mixed import Mixed
from quant.separate import separate

ARMS = ("float", "ibert", "ivit", "fqvit", "mnq", "output_only", "own_error")


def main() -> int:
    """Train the arms that are not in the results yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", default=str(RESULTS))
    parser.add_argument("--work", default="mnq_tuned", help="folder of states (default mnq_tuned)")
    parser.add_argument("--bits", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = FineTune(steps=given.steps, rate=given.rate, augment=True, seed=given.seed)
    head = {"model": NATURAL, "seed": given.seed, "bits": given.bits}
    done = {(row["arm"], row["seed"], row["bits"]) for row in read_results(given.results)}
    network = separate(next(networks([NATURAL], [given.seed]))[2])
    mixed = Mixed(network, calibration_images("glyphs", GREY_32, CALIBRATION_IMAGES, given.seed), given.bits)
    maps = maps_of(mixed, mixed.table(), given.seed)
    training, test = load_data("glyphs", "train", GREY_32), glyph_images(TEST_IMAGES)
    Path(given.work).mkdir(parents=True, exist_ok=True)
    for name in given.arms:
        arm = f"tuned_{name}"
        if (arm, given.seed, given.bits) in done:
            continue
        start, state = time.perf_counter(), Path(given.work) / f"{arm}_{given.bits}_{given.seed}.state"
        with tqdm(total=given.steps, desc=arm, file=sys.stderr, mininterval=10) as bar:
            trained = fine_tune(
                mixed.checkpoint(maps[name]),
                network,
                training,
                settings,
                state,
                lambda _, done, total: bar.update(done - bar.n),
            )
        row = {**head, "arm": arm, "steps": given.steps, "rate": given.rate, "methods": maps[name]}
        row |= figures_of(evaluated(Model(trained), test))
        row["seconds"] = round(time.perf_counter() - start, 1)
        keep(given.results, row)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
