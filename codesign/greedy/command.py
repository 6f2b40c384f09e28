"""`accelsim quantize --method mptq`: MPTQ-ViT with one width, or with widths that Greedy MP finds within a budget."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from accelsim.formats import TWO_REGION_BITS
from accelsim.problems import AccelsimError, InfeasibleError, Problem
from codesign.budgets import Budget
from codesign.greedy.trajectory import BUDGET_PLACE
from codesign.greedy.walk import SCORES, SEARCHES

if TYPE_CHECKING:
    from torch import Tensor

    from codesign.quantize_request import QuantizeRequest
    from quant.data.dataset import Preprocess
    from quant.methods.mptq import MPTQ
    from quant.network import Network

NAME = "mptq"
ARCH = "m2vit_regions"  # the preset with an alignment shift behind its multipliers
SMOOTH = ("sq_b", "smoothquant", "none")
UNTIED = "ptq4vit"
REGIONS = ("opt", "closed_form", "fixed", UNTIED, "none")
POINTS = ("symmetric", "tensor", "channel")
FUNCTIONS = ("ibert", "ivit")
OF_BUDGET = ("score", "search", "images")  # options that only a budget reads
# Kinds that do not change with the widths of some tensors: those of all, those that no product reads.
STORAGE = ("size_bits", "avg_bits")
OF_PRODUCTS = (*STORAGE, "bops", "uniform")
OWN = ("smooth", "regions", "zero_points", "functions", "full", "score", "search")
BITS = range(2, 9)
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
    """Raise AccelsimError for options that do not go together, and widths out of range."""
    for name in OF_BUDGET:
        if budget is None and getattr(arguments, name) is not None:
            raise AccelsimError(Problem(f"--{name}", "is read with a budget only", "--budget KIND=VALUE beside it"))
    for name in ("bits", "activation_bits"):
        value = getattr(arguments, name)
        if value is not None and value not in BITS:
            flag = f"--{name.replace('_', '-')} {value}"
            raise AccelsimError(Problem(flag, "is no width of this method", f"{BITS[0]} … {BITS[-1]}"))
    if arguments.regions == UNTIED and arguments.reconstruct:
        what = "roundings would be chosen against steps that are tied"
        raise AccelsimError(Problem("--reconstruct", what, f"without it, or not --regions {UNTIED}"))
    if budget is not None:
        _check_budget(arguments, budget)


def _check_budget(arguments: argparse.Namespace, budget: Budget) -> None:
    """Raise AccelsimError for options that a budget of this kind has no use for."""
    if arguments.activation_bits is not None and budget.kind not in STORAGE:
        raise AccelsimError(Problem("--activation-bits", "is chosen by the budget", "one of the two"))
    if arguments.full and budget.kind in OF_PRODUCTS:
        what = f"{budget.kind} does not change with what only LayerNorms, softmaxes and sums read"
        levers = ("--budget layer_bits=5", "--budget edp_pj_s=…", "without --full")
        raise AccelsimError(Problem("--full", what, "a budget of mean width, time or energy", levers))
    if arguments.regions == UNTIED:
        what = "greedy losses are measured with tied steps"
        raise AccelsimError(Problem(f"--regions {UNTIED}", what, "--bits instead of a budget"))


def method_of(arguments: argparse.Namespace, network: Network, bits: int) -> MPTQ:
    """The method of the options at one width.  Raises AccelsimError for options that the network has no use for."""
    from quant.methods.mptq import MPTQ
    from quant.smooth import layernorm_outputs

    smoothable = bool(layernorm_outputs(network))
    _check_network(arguments, network, smoothable, arguments.activation_bits or bits)
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


def _check_network(arguments: argparse.Namespace, network: Network, smoothable: bool, bits: int) -> None:
    from accelsim.nonlinear.methods import function_of
    from quant.methods.mptq import region_kind
    from quant.structure import readers

    functions = {function_of(node.op.recipe) for node in network.nodes}
    regions = any(region_kind(network, name) for name in readers(network))
    lacking = "no LayerNorm whose outputs only linear layers read"
    asked = (
        ("smooth", arguments.smooth not in (None, "none"), smoothable, lacking),
        ("zero_points", arguments.zero_points == "channel", smoothable, lacking),
        ("regions", arguments.regions not in (None, "none"), regions, "no softmax or GELU outputs that products read"),
        ("functions", arguments.functions is not None, functions & {"softmax", "layernorm"}, "no softmax or LayerNorm"),
    )
    for name, given, useful, what in asked:
        if given and not useful:
            flag = f"--{name.replace('_', '-')} {getattr(arguments, name)}"
            raise AccelsimError(Problem(flag, f"{network.workload.name} has {what}", "without it"))
    if regions and arguments.regions != "none" and bits not in TWO_REGION_BITS:
        levers = ("--regions none",)
        raise AccelsimError(Problem("two-region formats", f"have no {bits} bits", f"{TWO_REGION_BITS[0]} …", levers))


def chosen_method(request: QuantizeRequest) -> tuple[MPTQ, dict[str, Any]]:
    """The method of the options, and what to note: how it smooths and, with a budget, the widths of Greedy MP.

    Losses that were measured are kept in the folder.  `check_options` has passed.  Raises InfeasibleError when nothing
    meets the budget.
    """
    if request.budget is None:
        arguments = request.arguments
        method = method_of(arguments, request.network, arguments.bits or DEFAULT_BITS)
        note: dict[str, Any] = {}
    else:
        method, note = _within_budget(request, request.budget)
    if method.smooth != "none":
        note["smooth"] = asdict(method.smoothing)
    return method, note


def _within_budget(request: QuantizeRequest, budget: Budget) -> tuple[MPTQ, dict[str, Any]]:
    from codesign.greedy.mixed import KINDS, WEIGHT, WidthSettings
    from codesign.greedy.plan import GreedySettings, greedy_plan
    from codesign.greedy.walk import WalkSettings

    arguments = request.arguments
    method = method_of(arguments, request.network, START_BITS)
    walk = WalkSettings(arguments.score or WalkSettings.score, arguments.search or WalkSettings.search)
    kinds = (WEIGHT,) if budget.kind in STORAGE else KINDS
    settings = GreedySettings(walk, WidthSettings(kinds, full=bool(arguments.full)))
    measured = measured_on(request.data, request.preprocess, arguments.images or IMAGES)
    try:
        found = greedy_plan(
            request.network, request.images, measured, method, request.accelerator, budget, settings, request.folder,
            request.calibration, method.format_of, request.progress,
        )  # fmt: skip
    except InfeasibleError as error:
        raise restated(error, budget) from None
    spent = {"kind": budget.kind, "limit": found.limit, "spent": found.point.cost, "chosen": "greedy widths"}
    note = {**found.note(), "images": sum(len(batch) for batch, _ in measured), "arch": request.accelerator.name}
    widths = replace(method, weight_widths=found.weight_bits, widths=found.tensor_bits)
    return widths, {"budget": spent, "greedy": note}


def measured_on(data: str, preprocess: Preprocess | None, count: int) -> list[tuple[Tensor, Tensor | None]]:
    """Validation images spread over the split, with labels where it has them."""
    from codesign.quantize_command import BATCH
    from quant.data import load_data

    split = load_data(data, "val", preprocess)
    return list(split.every(0, max(1, len(split) // count)).first(count).batches(BATCH))


def restated(error: InfeasibleError, budget: Budget) -> InfeasibleError:
    """The error with the option that asked for it, where it is the budget's."""
    levers = ("a larger budget", "another kind of budget")
    return InfeasibleError(
        [
            Problem(f"--budget {budget.kind}={budget.value:g}", one.what, one.expected, levers)
            if one.where == BUDGET_PLACE else one
            for one in error.problems
        ]
    )  # fmt: skip
