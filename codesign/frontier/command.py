"""`accelsim quantize --method pmq`: widths from the Pareto frontier within a budget."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.problems import AccelsimError, InfeasibleError, Problem
from accelsim.token_groups import MIN_BITS
from codesign.arguments import positive
from codesign.budgets import Budget
from codesign.frontier import patches
from codesign.greedy.command import STORAGE, restated

if TYPE_CHECKING:
    from torch import Tensor

    from codesign.quantize_request import QuantizeRequest
    from quant.methods.pmq import PMQ
    from quant.network import Network

NAME = "pmq"
# The errors that may be added up, by the names of their metrics in `quant.sensitivity`.
METRICS = {
    "output": "logit_l2",
    "kl": "kl",
    "first_order": "gradient",
    "fisher": "fisher",
    "hessian": "hessian_trace",
}
OWN = ("metric", "bins", "hull", *patches.OWN)
BITS = range(2, 9)
BINS, IMAGES = 20_000, 128


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that only this method reads."""
    parser.add_argument("--metric", choices=tuple(METRICS), help="of pmq: errors that add up (default output)")
    parser.add_argument(
        "--bins", type=positive, help=f"of pmq: the frontier is exact up to this many points (default {BINS})"
    )
    parser.add_argument("--hull", action="store_true", default=None, help="of pmq: the convex hull, not the frontier")
    patches.add_options(parser)


def check_options(arguments: argparse.Namespace, budget: Budget | None) -> None:
    """Raise AccelsimError without a budget, and for options that do not go together."""
    if budget is None:
        levers = ("--budget uniform=6", "--budget edp_pj_s=…", "--method uniform --bits 6")
        raise AccelsimError(Problem("--method pmq", "chooses widths within a budget", "--budget KIND=VALUE", levers))
    patches.check_options(arguments)
    if arguments.hull and arguments.bins is not None:
        raise AccelsimError(Problem("--bins", "is of the frontier, --hull has no bins", "one of the two"))
    if arguments.bins == 1:
        raise AccelsimError(Problem("--bins 1", "leaves nothing to choose", "at least 2"))
    if arguments.activation_bits is None:
        return
    if budget.kind not in STORAGE:
        raise AccelsimError(Problem("--activation-bits", "is chosen by the budget", "one of the two"))
    if arguments.activation_bits not in BITS:
        where = f"--activation-bits {arguments.activation_bits}"
        raise AccelsimError(Problem(where, "is no width of this method", f"{BITS[0]} … {BITS[-1]}"))


def method_of(arguments: argparse.Namespace, network: Network, images: list[Tensor]) -> PMQ:
    """The method of the options, before widths are chosen; `images` are those of calibration."""
    from quant.methods.pmq import PMQ

    bits = arguments.activation_bits or PMQ.activation_bits
    return PMQ(activation_bits=bits, patchwise=patches.patchwise_of(arguments, network, images))


def chosen_method(request: QuantizeRequest) -> tuple[PMQ, dict[str, Any]]:
    """The method with the widths that the frontier gives, and what to note about them.

    Errors are measured on training images without labels, and kept in the folder.  `check_options` has passed.  Raises
    InfeasibleError when nothing meets the budget.
    """
    from codesign.frontier.search import FrontierSettings, frontier_plan
    from codesign.quantize_command import calibration_images

    arguments, budget = request.arguments, request.budget
    assert budget is not None
    method = method_of(arguments, request.network, request.images)
    bins = None if arguments.hull else arguments.bins or BINS
    metric, widths = METRICS[arguments.metric or "output"], FrontierSettings.widths
    if method.patchwise is not None and budget.kind not in STORAGE:  # which leaves the widths of tensors as they are
        widths = tuple(bits for bits in widths if bits - method.patchwise.drop_bits >= MIN_BITS)
    settings = FrontierSettings(metric, widths, bins, bool(arguments.hull))
    measured_on = calibration_images(request.data, request.preprocess, arguments.images or IMAGES, arguments.seed)
    try:
        found = frontier_plan(
            request.network, request.images, measured_on, method, request.accelerator, budget, settings, request.folder,
            request.calibration, request.progress,
        )  # fmt: skip
    except InfeasibleError as error:
        raise restated(error, budget) from None
    how = "hull widths" if arguments.hull else "frontier widths"
    spent = {"kind": budget.kind, "limit": found.limit, "spent": found.choice.cost, "chosen": how}
    note = {**found.note(), "arch": request.accelerator.name}
    chosen = replace(method, weight_widths=found.weight_bits, widths=found.tensor_bits)
    return chosen, {"budget": spent, "frontier": note}


def search_cost(folder: Path) -> dict[str, Any]:
    """CPU seconds and passes over the images that the errors took, all runs together."""
    from dataclasses import asdict

    from codesign.frontier.search import TABLE
    from quant.sensitivity.table import load_table

    (info,) = load_table(folder / TABLE).metrics
    return {"seconds": info.seconds, "passes": None if info.passes is None else asdict(info.passes)}
