"""`accelsim quantize --method mptq`: MPTQ-ViT with one width, or with widths that Greedy MP finds within a budget."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.problems import AccelsimError, Problem
from codesign.budgets import KINDS, Budget
from codesign.greedy.walk import SCORES, SEARCHES

if TYPE_CHECKING:
    from torch import Tensor

    from accelsim.arch import Accelerator
    from quant.calibrate import Calibration
    from quant.data.dataset import Preprocess
    from quant.methods.mptq import MPTQ
    from quant.network import Network

NAME = "mptq"
ARCH = "m2vit_regions"  # the preset with an alignment shift behind its multipliers
SMOOTH = ("sq_b", "smoothquant", "none")
REGIONS = ("opt", "closed_form", "fixed", "ptq4vit", "none")
POINTS = ("symmetric", "tensor", "channel")
FUNCTIONS = ("ibert", "ivit")
BUDGETS = (*KINDS, "layer_bits")
OF_BUDGET = ("score", "search", "images")  # options that only a budget reads
OWN = ("smooth", "regions", "zero_points", "functions", "full", "score", "search")
BITS = range(3, 9)
DEFAULT_BITS, OTHER_BITS, START_BITS, IMAGES = 6, 8, 8, 256


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that only this method reads."""
    parser.add_argument("--smooth", choices=SMOOTH, help="of mptq: LayerNorm outputs are smoothed by (default sq_b)")
    parser.add_argument(
        "--regions", choices=REGIONS, help="of mptq: how ratios of two-region formats are found (default opt: OPT-m)"
    )
    parser.add_argument(
        "--zero-points", choices=POINTS, help="of mptq (default symmetric; tensor where nothing can be smoothed)"
    )
    parser.add_argument(
        "--functions", choices=FUNCTIONS, help="of mptq: softmax and LayerNorm in integers by this method"
    )
    parser.add_argument(
        "--full", action="store_true", default=None,
        help="of mptq: what only LayerNorms, sums and softmaxes read has the widths of the rest, not 8 bits",
    )  # fmt: skip
    parser.add_argument("--score", choices=SCORES, help="of mptq with a budget: what ranks a move (default combined)")
    parser.add_argument("--search", choices=SEARCHES, help="of mptq with a budget (default lazy)")


def check_options(arguments: argparse.Namespace, budget: Budget | None) -> None:
    """Raise AccelsimError for options that do not go together, and widths that two-region formats lack."""
    for name in OF_BUDGET:
        if budget is None and getattr(arguments, name) is not None:
            raise AccelsimError(Problem(f"--{name}", "is read with a budget only", "--budget KIND=VALUE beside it"))
    for name in ("bits", "activation_bits"):
        value = getattr(arguments, name)
        flag = f"--{name.replace('_', '-')}"
        if value is not None and budget is not None:
            raise AccelsimError(Problem(flag, "is chosen by the budget", f"--budget or {flag}", ("leave one out",)))
        if value is not None and value not in BITS:
            raise AccelsimError(Problem(f"{flag} {value}", "two-region formats lack it", f"{BITS[0]} … {BITS[-1]}"))


def method_of(arguments: argparse.Namespace, network: Network, bits: int) -> MPTQ:
    """The method of the options at one width.  Raises AccelsimError for a smoothing that the network has no use for."""
    from quant.methods.mptq import MPTQ
    from quant.smooth import layernorm_outputs

    smoothable = bool(layernorm_outputs(network))
    if not smoothable and arguments.smooth not in (None, "none"):
        what = "no LayerNorm whose outputs only linear layers read"
        raise AccelsimError(Problem(f"--smooth {arguments.smooth}", f"{network.workload.name} has {what}", "none"))
    points = arguments.zero_points or ("symmetric" if smoothable else "tensor")
    return MPTQ(
        weight_bits=bits,
        activation_bits=arguments.activation_bits or bits,
        other_bits=bits if arguments.full else OTHER_BITS,
        smooth=(arguments.smooth or "sq_b") if smoothable else "none",
        regions=arguments.regions or "opt",
        offsets=points == "channel",
        zero_points=points != "symmetric",
        functions=arguments.functions or "",
    )


def chosen_method(
    arguments: argparse.Namespace,
    network: Network,
    images: list[Tensor],
    accelerator: Accelerator,
    budget: Budget | None,
    options: Calibration,
    data: str,
    preprocess: Preprocess | None,
    folder: Path,
) -> tuple[MPTQ, dict[str, Any]]:
    """The method of the options and, with a budget, what to note about the widths that Greedy MP found.

    Losses that were measured are kept in `folder`.  `check_options` has passed.  Raises InfeasibleError when nothing
    meets the budget, AccelsimError for data without labels.
    """
    if budget is None:
        return method_of(arguments, network, arguments.bits or DEFAULT_BITS), {}
    from codesign.greedy.mixed import WidthSettings
    from codesign.greedy.plan import GreedySettings, greedy_plan
    from codesign.greedy.walk import WalkSettings

    method = method_of(arguments, network, START_BITS)
    walk = WalkSettings(arguments.score or WalkSettings.score, arguments.search or WalkSettings.search)
    settings = GreedySettings(walk, WidthSettings(full=bool(arguments.full)))
    labelled = _labelled(data, preprocess, arguments.images or IMAGES)
    found = greedy_plan(
        network, images, labelled, method, accelerator, budget, settings, folder, options, method.format_of, _progress
    )
    spent = {"kind": budget.kind, "limit": found.limit, "spent": found.point.cost, "chosen": "greedy widths"}
    note = {**found.note(), "images": sum(len(batch) for batch, _ in labelled), "arch": accelerator.name}
    widths = replace(method, weight_widths=found.weight_bits, widths=found.tensor_bits)
    return widths, {"budget": spent, "greedy": note}


def _labelled(data: str, preprocess: Preprocess | None, count: int) -> list[tuple[Tensor, Tensor | None]]:
    """Validation images with labels, spread over the split."""
    from codesign.quantize_command import BATCH
    from quant.data import load_data

    split = load_data(data, "val", preprocess)
    if split.labels is None:
        raise AccelsimError(Problem(split.name, "has no labels", "one folder per class, to measure losses"))
    return list(split.every(0, max(1, len(split) // count)).first(count).batches(BATCH))


def _progress(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{what} {done} of {total} ", end="\n" if done == total else "", file=sys.stderr, flush=True)
