"""`--patchwise` of `accelsim quantize --method pmq`: which tokens keep their bits, and what images make of it."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from accelsim.problems import AccelsimError, Problem
from accelsim.token_groups import CLASS_TOKEN, IMPORTANCES, MIN_BITS, RECEIVED, full_count
from codesign.arguments import positive

if TYPE_CHECKING:
    from torch import Tensor

    from accelsim.arch import Accelerator
    from quant.calibrated import Checkpoint
    from quant.data.dataset import Preprocess
    from quant.methods.pmq import Patchwise
    from quant.network import Network

FIXED, VARIABLE = "fixed", "variable"
OWN = ("patchwise", "full_share", "drop_bits", "importance")
FULL_SHARE, DROP_BITS = 0.5, 2
STORED_BITS = 8  # of tensors before a budget chooses; a storage budget leaves them as they are


def share(text: str) -> float:
    """A share of the tokens, above 0 and at most 1, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and at most 1")
    return value


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of token groups."""
    parser.add_argument(
        "--patchwise", choices=(FIXED, VARIABLE),
        help="of pmq: rank the tokens of every layer but the first; the others get fewer bits (variable: as many as an "
        "image needs)",
    )  # fmt: skip
    parser.add_argument(
        "--full-share", type=share, metavar="SHARE",
        help=f"of --patchwise: share of the tokens with all bits (default {FULL_SHARE}; variable: on the mean)",
    )  # fmt: skip
    parser.add_argument(
        "--drop-bits", type=positive, help=f"of --patchwise: bits that the others lose (default {DROP_BITS})"
    )
    parser.add_argument(
        "--importance", choices=IMPORTANCES,
        help="of --patchwise: attention of the class token (default) or attention received from all tokens",
    )  # fmt: skip


def check_options(arguments: argparse.Namespace) -> None:
    """Raise AccelsimError for options of token groups without --patchwise, bits that no code has, and --reconstruct."""
    for name in OWN[1:]:
        if arguments.patchwise is None and getattr(arguments, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            expected = "--patchwise fixed or variable beside it"
            raise AccelsimError(Problem(flag, "is read with --patchwise only", expected))
    if arguments.patchwise is None:
        return
    if arguments.reconstruct:
        what = "works on blocks whose tokens have one order, which --patchwise changes"
        raise AccelsimError(Problem("--reconstruct", what, "one of the two"))
    bits, drop_bits = arguments.activation_bits or STORED_BITS, arguments.drop_bits or DROP_BITS
    if bits - drop_bits < MIN_BITS:
        what, expected = f"leaves fewer than two of {bits} bits", f"at most the bits less {MIN_BITS}"
        levers = ("a smaller --drop-bits", "a larger --activation-bits")
        raise AccelsimError(Problem(f"--drop-bits {drop_bits}", what, expected, levers))


def patchwise_of(arguments: argparse.Namespace, network: Network, images: list[Tensor]) -> Patchwise | None:
    """The token groups of the options; None without --patchwise.

    A threshold is the one under which the share of the tokens is full on the mean of the calibration images.  Raises
    AccelsimError for a network whose tokens cannot be ranked.
    """
    if arguments.patchwise is None:
        return None
    from accelsim.workloads.rank import ranked_layers
    from quant.methods.pmq import Patchwise
    from quant.patchwise.measure import matching_threshold

    layers = ranked_layers(network.workload)
    if not layers:
        what = f"{network.workload.name} has no layer that follows an attention of tokens: nothing ranks them"
        levers = ("leave it out: the frontier's widths only",)
        raise AccelsimError(Problem(f"--patchwise {arguments.patchwise}", what, "a vision transformer", levers))
    part = arguments.full_share or FULL_SHARE
    high = {one.name: full_count(part, one.tokens) for one in layers}
    importance = arguments.importance or CLASS_TOKEN
    threshold = 0
    if arguments.patchwise == VARIABLE:
        mean = sum(high.values()) / len(high)
        threshold = matching_threshold(network, images, mean, importance == RECEIVED)
    return Patchwise(high, arguments.drop_bits or DROP_BITS, threshold, importance)


def noted(
    checkpoint: Checkpoint, accelerator: Accelerator, data: str, preprocess: Preprocess | None, count: int
) -> Checkpoint:
    """The checkpoint with what `count` validation images make of its token groups."""
    from codesign.greedy.command import measured_on

    images = [batch for batch, _ in measured_on(data, preprocess, count)]
    return replace(checkpoint, about={**checkpoint.about, "patchwise": measured(checkpoint, accelerator, images)})


def measured(checkpoint: Checkpoint, accelerator: Accelerator, images: list[Tensor]) -> dict[str, Any]:
    """What images make of a checkpoint's token groups: full tokens, bit operations, and simulated time and energy.

    `images` are batches of validation images.  Under the fixed rule all images are alike.
    """
    from accelsim.token_counts import METRICS, simulate_counts
    from quant.patchwise.measure import mean_bit_operations, measured_counts

    workload = checkpoint.network.workload
    counts = measured_counts(checkpoint, images)
    each = [{layer: int(full[k]) for layer, full in counts.items()} for k in range(sum(map(len, images)))]
    report = simulate_counts(workload, checkpoint.plan, accelerator, each)
    return {
        "images": len(each),
        "arch": accelerator.name,
        "mean_full_tokens": {layer: float(full.mean()) for layer, full in counts.items()},
        "bops": mean_bit_operations(workload, checkpoint.plan, counts),
        "simulated": {metric: asdict(report.distribution(metric)) for metric in METRICS},
        "worst_case": {metric: getattr(report.worst, metric) for metric in METRICS},
    }
