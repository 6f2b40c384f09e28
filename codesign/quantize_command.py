"""The commands `quantize` and `eval`: a trained model becomes a plan and a checkpoint, and is measured."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from accelsim.problems import AccelsimError, Problem
from codesign.arguments import not_negative, positive
from codesign.frontier import command as pmq
from codesign.frontier import patches
from codesign.greedy import command as mptq
from codesign.learned import command as qvit
from codesign.nonlinear import command as mnq
from codesign.run_design import DEFAULT_ARCH, nothing_to_separate

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from accelsim.arch import Accelerator
    from accelsim.plan import QuantPlan
    from codesign.budgets import Budget
    from quant.calibrate import Calibration
    from quant.calibrated import Checkpoint
    from quant.data.dataset import DataSet
    from quant.evaluate import Evaluation
    from quant.network import Network
    from quant.reconstruct import Reconstruction

BATCH = 64
STEPS = 2000  # of reconstruction


def add_quantize(commands: Any) -> None:
    """Add the parsers of `quantize` and `eval` to the subparsers of `accelsim`."""
    parser = commands.add_parser("quantize", help="quantize a trained model: a plan and a calibrated checkpoint")
    _add_model(parser)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--method", default="m2q", help="uniform, power_of_two, m2q (default), mnq, mptq, pmq or qvit")
    chosen.add_argument(
        "--plan", metavar="FILE", help="a plan with the channels of every mixed op, instead of a method"
    )
    parser.add_argument(
        "--separate", choices=("gelu",), help="make this function an op of its own before --plan is applied"
    )
    _add_formats(parser)
    _add_calibration(parser)
    mnq.add_options(parser)
    mptq.add_options(parser)
    pmq.add_options(parser)
    qvit.add_options(parser)
    parser.add_argument(
        "--images",
        type=positive,
        help=f"validation images: mnq compares maps on them (default {mnq.IMAGES}), "
        f"mptq with a budget measures losses (default {mptq.IMAGES}); training images that pmq measures errors on "
        f"(default {pmq.IMAGES}); validation images that qvit measures accuracy on (default all)",
    )
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder of the plan and the checkpoint")
    parser.add_argument("--json", help="write what was made as JSON ('-': standard output)")
    parser.set_defaults(command=_quantize)
    measure = commands.add_parser("eval", help="accuracy of a checkpoint of `accelsim quantize`, or of a float model")
    measure.add_argument("checkpoint", help="folder of `accelsim quantize`, or a model of `quantize`")
    _add_data(measure)
    measure.add_argument("--split", default="val", choices=("val", "test"), help="images to measure on (default val)")
    measure.add_argument("--images", type=positive, help="only N images, spread over the split")
    measure.add_argument("--against", metavar="CHECKPOINT", help="compare image by image with this one")
    measure.add_argument("--integer", action="store_true", help="also execute in integers, as the hardware does")
    measure.add_argument("--json", help="write the figures as JSON ('-': standard output)")
    measure.set_defaults(command=_evaluate)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a trained reference model, a built-in model with --weights, or MODULE:FUNCTION")
    parser.add_argument("--weights", metavar="FILE", help="state dict of mit-han-lab/efficientvit or timm")
    _add_data(parser)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", help="glyphs, digits or imagefolder:PATH (default: the model's own)")


def _add_formats(parser: argparse.ArgumentParser) -> None:
    width = parser.add_mutually_exclusive_group()
    width.add_argument(
        "--bits",
        type=positive,
        help="weight bits of uniform; of mnq (default 8) and mptq (default 6) weights and activations",
    )
    width.add_argument(
        "--budget", metavar="KIND=VALUE",
        help="least coarse plan within bops, size_bits, avg_bits, latency_s, energy_pj, edp_pj_s or uniform (bits); of "
        "mptq greedy widths, of pmq those of the Pareto frontier, both also within layer_bits; of qvit those "
        "learned in training, within uniform or a simulated cost",
    )  # fmt: skip
    parser.add_argument("--activation-bits", type=positive, help="of stored tensors (default 8)")
    parser.add_argument("--ratio", help="of power-of-two filters of m2q: 0 … 1 (default 0.5), or balanced: from --arch")
    parser.add_argument("--terms", type=positive, help="powers of two of a weight, of power_of_two (1-3) and m2q (2-3)")
    parser.add_argument(
        "--arch",
        help="of a budget, a balanced ratio and maps of mnq "
        f"(default {DEFAULT_ARCH}; {mnq.ARCH} for mnq and plans with non-linear methods; "
        f"{mptq.ARCH} for mptq and plans with two-region formats; {qvit.ARCH} for qvit)",
    )


def _add_calibration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--calibration-images", type=positive, default=512, help="of the training split (default 512)")
    parser.add_argument("--observer", default="mse", help="mse (default), minmax or percentile")
    parser.add_argument("--no-bias-correction", action="store_true", help="leave biases as they are")
    parser.add_argument("--reconstruct", action="store_true", help="choose roundings block by block (AdaRound, BRECQ)")
    parser.add_argument(
        "--steps", type=positive,
        help=f"steps of reconstruction per block (default {STEPS}); of qvit of training (default {qvit.STEPS})",
    )  # fmt: skip
    parser.add_argument("--max-memory", type=positive, default=1024, metavar="MIB", help="activations (default 1024)")
    parser.add_argument("--seed", type=not_negative, default=0, help="of the calibration images and the reconstruction")


def _quantize(arguments: argparse.Namespace) -> int:
    from codesign.outputs import check_folder, check_outputs

    folder = check_folder(arguments.output, "-o")
    check_outputs([arguments.json])
    from accelsim.config import load_accelerator
    from codesign.budgets import KINDS, parse_budget
    from codesign.greedy.costs import COSTS
    from codesign.method_choice import check_options, default_arch, given_plan
    from codesign.models import require_torch

    require_torch()
    from quant.checkpoint import save

    kinds = {mptq.NAME: COSTS, pmq.NAME: COSTS, qvit.NAME: qvit.KINDS}.get(arguments.method, KINDS)
    budget = None if arguments.budget is None else parse_budget(arguments.budget, kinds)
    plan = given_plan(arguments)
    if plan is None:
        check_options(arguments, budget)
    arch = arguments.arch or default_arch(arguments.method, plan)
    accelerator = load_accelerator(arch)
    plan, checkpoint, seconds = _made(arguments, plan, accelerator, budget, folder)
    save(checkpoint, folder)
    if arguments.method == qvit.NAME:
        qvit.done(folder)
    summary = {
        **dict(checkpoint.about), "plan": str(folder / "plan.yaml"), "plan_fingerprint": plan.fingerprint(),
        "seconds": round(seconds, 2),
    }  # fmt: skip
    if "frontier" in summary:
        summary["search"] = pmq.search_cost(folder)
    if arguments.json:
        from accelsim.trace import write_json

        write_json(arguments.json, summary, indent=1)
    if arguments.json != "-":
        from codesign.quantize_text import print_quantized

        print_quantized(folder, summary, checkpoint, arch)
    return 0


def _made(
    arguments: argparse.Namespace, plan: QuantPlan | None, accelerator: Accelerator, budget: Budget | None, folder: Path
) -> tuple[QuantPlan, Checkpoint, float]:
    """The plan (the given one, or the method's) and its checkpoint, and how many seconds that took after loading."""
    from codesign.method_choice import choose
    from codesign.models import data_of, load_model
    from codesign.quantize_request import QuantizeRequest
    from quant.methods.pmq import PMQ
    from quant.quantize import quantize, quantize_plan

    options, recipe = _settings(arguments)
    network, preprocess = load_model(arguments.model, arguments.weights)
    if arguments.separate:
        network = _separated(network, arguments.separate)
    data = arguments.data or data_of(arguments.model)
    images = calibration_images(data, preprocess, arguments.calibration_images, arguments.seed)
    start = time.perf_counter()
    about = {"model": arguments.model, "data": data, "seed": arguments.seed}
    if preprocess is not None:
        about["preprocess"] = asdict(preprocess)
    if plan is not None:
        if arguments.smooth not in (None, "none"):
            network, about["smooth"] = _smoothed(network, images, arguments.smooth)
        made = quantize_plan(network, images, plan, options, recipe, about, _progress)
        return *made, time.perf_counter() - start
    request = QuantizeRequest(
        arguments, network, data, preprocess, images, accelerator, budget, options, folder, _progress
    )  # fmt: skip
    if arguments.method == qvit.NAME:
        return *qvit.trained(request, about), time.perf_counter() - start
    method, note = choose(request)
    plan, checkpoint = quantize(network, images, method, options, recipe, {**about, **note}, _progress)
    if isinstance(method, PMQ) and method.patchwise is not None:
        checkpoint = patches.noted(checkpoint, accelerator, data, preprocess, arguments.images or pmq.IMAGES)
    return plan, checkpoint, time.perf_counter() - start


def _settings(arguments: argparse.Namespace) -> tuple[Calibration, Reconstruction | None]:
    """How scales and roundings are chosen."""
    from quant.calibrate import Calibration
    from quant.reconstruct import Reconstruction

    options = Calibration(observer=arguments.observer, bias_correction=not arguments.no_bias_correction)
    if not arguments.reconstruct:
        return options, None
    bytes_ = arguments.max_memory << 20
    return options, Reconstruction(steps=arguments.steps or STEPS, seed=arguments.seed, max_memory_bytes=bytes_)


def _smoothed(network: Network, images: list[Tensor], how: str) -> tuple[Network, dict[str, Any]]:
    """The network smoothed as a method does it, and what to note; AccelsimError where nothing can be smoothed."""
    from quant.smooth import Smooth, layernorm_outputs, smooth

    if not layernorm_outputs(network):
        what = f"{network.workload.name} has no LayerNorm whose outputs only linear layers read"
        raise AccelsimError(Problem(f"--smooth {how}", what, "without it"))
    chosen = Smooth(how)
    return smooth(network, images, chosen), asdict(chosen)


def _separated(network: Network, function: str) -> Network:
    """The network with a function as ops of their own; AccelsimError when no product has it."""
    from quant.separate import separate

    found = separate(network, function)
    if found is network:
        raise AccelsimError(nothing_to_separate(network.workload.name, function))
    return found


def calibration_images(data: str, preprocess: Any, count: int, seed: int, split: str = "train") -> list[Tensor]:
    """Batches of `count` images of a split (of a folder: of all its images), drawn by seed."""
    from quant.data import load_data

    return drawn(load_data(data, split, preprocess), count, seed)


def drawn(chosen: DataSet, count: int, seed: int) -> list[Tensor]:
    """Batches of `count` images of a set, drawn by seed, in the set's order."""
    import numpy as np
    import torch

    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed))[:count].sort().values.tolist()
    images = (
        np.concatenate([chosen.images[k : k + 1] for k in order[i : i + BATCH]]) for i in range(0, len(order), BATCH)
    )
    return [chosen.preprocess.tensor(batch) for batch in images]


def _progress(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{what}: block {done} of {total} ", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _evaluate(arguments: argparse.Namespace) -> int:
    from codesign.outputs import check_outputs

    check_outputs([arguments.json])
    from codesign.models import data_of, load_any
    from codesign.quantize_text import figures, print_figures

    model, preprocess = load_any(arguments.checkpoint)
    data_set = arguments.data or data_of(arguments.checkpoint)

    def measured(one: Any) -> Evaluation:
        return measure(one, data_set, arguments.split, preprocess, arguments.images)

    result = measured(model)
    data: dict[str, Any] = {"checkpoint": arguments.checkpoint, "data": data_set, "split": arguments.split}
    data |= figures(result)
    if arguments.against:
        other, other_preprocess = load_any(arguments.against)
        reference = measure(other, data_set, arguments.split, other_preprocess, arguments.images)
        data["against"] = {"checkpoint": arguments.against, **figures(reference, result)}
    if arguments.integer:
        from codesign.integer_eval import integer_figures

        data["integer"] = integer_figures(model, measured, result)
    if arguments.json:
        from accelsim.trace import write_json

        write_json(arguments.json, data, indent=1)
    if arguments.json != "-":
        print_figures(data)
    return 0


def measure(model: Any, data: str, split: str, preprocess: Any, images: int | None = None) -> Evaluation:
    """Outputs of a model on a labelled set.  Raises AccelsimError when the set has no labels."""
    from quant.data import load_data

    return measure_on(model, load_data(data, split, preprocess), images)


def measure_on(model: Any, chosen: DataSet, images: int | None = None) -> Evaluation:
    """Outputs of a model on a labelled set, or on some of its images.  Raises AccelsimError without labels."""
    from quant.evaluate import evaluate

    if images is not None and images < len(chosen):
        # Every k-th image: a folder is sorted by class.
        step = len(chosen) // images
        chosen = chosen.every(0, step).first(images)
    if chosen.labels is None:
        raise AccelsimError(Problem(chosen.name, "has no labels", "one folder per class to measure accuracy"))
    return evaluate(model, ((batch, labels) for batch, labels in chosen.batches(BATCH) if labels is not None))
