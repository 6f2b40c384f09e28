"""`accelsim quantize --method qvit`: widths, scales and weights are trained together within a budget."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.problems import AccelsimError, Problem
from codesign.arguments import positive
from codesign.budgets import SIMULATED, Budget

if TYPE_CHECKING:
    from torch import Tensor

    from accelsim.plan import QuantPlan
    from codesign.quantize_request import QuantizeRequest
    from quant.calibrated import Checkpoint
    from quant.data.dataset import DataSet, Preprocess
    from quant.finetune.settings import FineTune
    from quant.learned.network import LearnedNetwork
    from quant.learned.settings import LearnBits
    from quant.learned.train import Learned
    from quant.network import Network

NAME = "qvit"
ARCH = "bitfusion_edge"  # the preset whose array gains from every narrower mode
KINDS = ("uniform", *SIMULATED)
GRANULARITIES = ("head", "layer")
SNAP, FREE = "snap", "free"
MODES = (SNAP, FREE)
# Of a short run on the small vision transformer; decay and smoothing are the paper's.
STEPS, RATE, WEIGHT_DECAY, SMOOTHING = 400, 1e-3, 0.05, 0.1
STATE, LOG, PICTURE, OVER_TIME = "qvit.state", "bits.jsonl", "bits.png", "bits_over_time.png"
TRAINING = ("epochs", "rate", "batch", "augment", "device", "keep_every", "validation")
LEARNING = ("granularity", "one_scale", "start_bits", "fixed_bits", "bit_rate", "modes")
OWN = (*TRAINING, *LEARNING)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that only this method reads."""
    group = parser.add_argument_group("of qvit: widths learned in training; the same command resumes")
    group.add_argument("--epochs", type=positive, help=f"passes over the training images (default --steps {STEPS})")
    group.add_argument("--rate", type=float, help=f"first learning rate of a cosine to a fifteenth (default {RATE:g})")
    group.add_argument("--batch", type=positive, help="images of a step (default 64)")
    group.add_argument("--augment", action="store_true", default=None, help="move images by a pixel, invert half")
    group.add_argument("--validation", metavar="DATA", help="to measure on, its split val (default: as --data)")
    group.add_argument("--granularity", choices=GRANULARITIES, help="a width per head (default) or per layer")
    group.add_argument("--one-scale", action="store_true", default=None, help="one scale for all widths, not seven")
    group.add_argument("--start-bits", type=positive, help="2 … 8 (default: the lowest width above the budget)")
    group.add_argument("--bit-rate", type=float, help="learning rate of widths over that of weights (default 120)")
    group.add_argument(
        "--fixed-bits", action="store_true", default=None,
        help="with --budget uniform=B: all widths stay B, only scales and weights are trained (LSQ)",
    )  # fmt: skip
    group.add_argument(
        "--modes", choices=MODES,
        help="of a simulated budget: at the end widths go up as far as the target's cost stays the same (snap, "
        "default), or stay as learned (free)",
    )  # fmt: skip
    group.add_argument("--device", help="torch device of the training (default cpu)")
    group.add_argument("--keep-every", type=positive, metavar="STEPS", help="steps between states (default 20)")


def check_options(arguments: argparse.Namespace, budget: Budget | None) -> None:
    """Raise AccelsimError without a budget, and for options that do not go together; nothing is loaded for it."""
    if budget is None:
        levers = ("--budget uniform=4", "--budget latency_s=…", "--budget uniform=4 --fixed-bits")
        raise AccelsimError(Problem("--method qvit", "learns widths within a budget", "--budget KIND=VALUE", levers))
    from quant.finetune.devices import check_device
    from quant.learned.quantizer import HIGHEST_BITS, LOWEST_BITS

    problems = []
    if budget.kind == "uniform" and not LOWEST_BITS <= budget.value <= HIGHEST_BITS:
        where = f"--budget uniform={budget.value:g}"
        problems.append(Problem(where, "is no width of this method", f"{LOWEST_BITS} … {HIGHEST_BITS}"))
    if arguments.reconstruct:
        problems.append(Problem("--reconstruct", "chooses roundings of filters that qvit trains", "without it"))
    if arguments.steps is not None and arguments.epochs is not None:
        problems.append(Problem("--steps", "is given beside --epochs", "one of the two"))
    if arguments.fixed_bits:
        if budget.kind != "uniform":
            problems.append(Problem("--fixed-bits", "keeps one width, which the budget names", "--budget uniform=B"))
        for name in ("start_bits", "bit_rate", "modes", "granularity"):
            if getattr(arguments, name) is not None:
                flag = f"--{name.replace('_', '-')}"
                problems.append(Problem(flag, "is of learned widths; --fixed-bits learns none", "one of the two"))
    if arguments.modes is not None and budget.kind not in SIMULATED:
        expected = f"--budget {' or '.join(SIMULATED)}"
        problems.append(Problem("--modes", "is of a target; bit operations have no modes", expected))
    if problems:
        raise AccelsimError(problems)
    settings_of(arguments)
    learn_options(arguments, arguments.start_bits or HIGHEST_BITS)
    check_device(arguments.device or "cpu")


def settings_of(arguments: argparse.Namespace) -> FineTune:
    """How long and how it is trained.  Raises AccelsimError for bad values."""
    from quant.finetune.settings import FineTune

    given = {one.name: getattr(arguments, one.name, None) for one in fields(FineTune)}
    chosen = {name: value for name, value in given.items() if value is not None}
    if arguments.epochs is None:
        chosen.setdefault("steps", STEPS)
    return FineTune(**{"rate": RATE, "weight_decay": WEIGHT_DECAY, "smoothing": SMOOTHING, **chosen})


def learn_options(arguments: argparse.Namespace, start_bits: int) -> LearnBits:
    """What is learned, and from which width.  Raises AccelsimError for bad values."""
    from quant.learned.settings import LearnBits
    from quant.learned.sites import SiteOptions

    rate = {} if arguments.bit_rate is None else {"bit_rate": arguments.bit_rate}
    sites = SiteOptions(granularity=arguments.granularity or GRANULARITIES[0])
    return LearnBits(start_bits, not arguments.fixed_bits, not arguments.one_scale, sites=sites, **rate)


def trained(request: QuantizeRequest, about: dict[str, Any]) -> tuple[QuantPlan, Checkpoint]:
    """Train, export and measure; the log of widths and pictures are written to the folder, where the state is, too.

    `about` goes into the checkpoint.  `check_options` has passed.  Raises InfeasibleError for a budget that no
    width meets, AccelsimError for a network or data that cannot be trained on.
    """
    from codesign.learned.results import noted
    from codesign.learned.target import limits_of
    from codesign.outputs import make_folder
    from quant.learned.export import export

    arguments, network, accelerator, budget = request.arguments, request.network, request.accelerator, request.budget
    assert budget is not None
    training, validation = _data(arguments, request.data, request.preprocess)
    chosen = learn_options(arguments, arguments.start_bits or 8)
    limits = limits_of(budget, network, accelerator, chosen.sites, arguments.modes or SNAP)
    start = int(budget.value) if arguments.fixed_bits else arguments.start_bits or limits.start_bits
    chosen = learn_options(arguments, start)

    def measure(model: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        from codesign.quantize_command import measure_on
        from codesign.quantize_text import figures

        return figures(measure_on(model, validation, arguments.images))

    make_folder(request.folder)
    arguments.resumes = True
    settings = settings_of(arguments)
    given = (arguments, network, training, settings, chosen, limits.budget, request.folder / STATE)
    learned = _learned(*given, measure, _measured_on(validation, arguments.images))
    plan, checkpoint = export(learned, request.images, request.calibration)
    note = {
        "start_bits": start, "learned": chosen.learned, "switchable": chosen.switchable, "sites": asdict(chosen.sites),
        "training": {**asdict(settings), "steps": learned.state.steps, "data": learned.state.asked["data"]},
        "validation": f"{validation.name} (val)",
    }  # fmt: skip
    figures = {"float": measure(_float(network)), **_at_freeze(learned), "trained": measure(_on_cpu(learned.model))}
    found = noted(learned, checkpoint, accelerator, limits, figures, validation, arguments.images, request.folder)
    made = {**checkpoint.about, **about, "budget": found.pop("budget"), "learned_bits": {**note, **found}}
    return plan, replace(checkpoint, about=made)


def done(folder: Path) -> None:
    """Forget the state of a run whose checkpoint is written."""
    from quant.finetune.state import forget

    forget(folder / STATE)


def _data(arguments: argparse.Namespace, data: str, preprocess: Preprocess | None) -> tuple[DataSet, DataSet]:
    """Training and validation images.  Raises AccelsimError without labels to measure on."""
    from quant.data import load_data

    if arguments.validation is None and data.startswith("imagefolder:"):
        what = "has no splits: accuracy would be that of the training images"
        raise AccelsimError(Problem(f"data {data}", what, "another folder", ("--validation imagefolder:PATH",)))
    training = load_data(data, "train", preprocess)
    validation = load_data(arguments.validation or data, "val", preprocess)
    for one in (training, validation):
        if one.labels is None:
            raise AccelsimError(Problem(one.name, "has no labels", "one folder per class"))
    return training, validation


def _learned(
    arguments: argparse.Namespace, network: Network, training: DataSet, settings: FineTune, chosen: LearnBits,
    budget: Any, state: Path, measure: Callable[[Callable[[Tensor], Tensor]], dict[str, Any]], measured_on: str,
) -> Learned:  # fmt: skip
    """Train with a progress bar."""
    from tqdm import tqdm

    from quant.learned.train import learn_bits

    def at_freeze(model: LearnedNetwork) -> dict[str, Any]:
        return measure(_on_cpu(model))

    with tqdm(desc="learning bits", unit="step", file=sys.stderr, disable=None, mininterval=1.0) as bar:

        def show(what: str, done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return learn_bits(
            network, training, settings, chosen, budget, state=state, progress=show,
            device=arguments.device or "cpu", keep_every=arguments.keep_every or 20, measure=at_freeze,
            measured_on=measured_on,
        )  # fmt: skip


def _measured_on(validation: DataSet, images: int | None) -> str:
    """Which images accuracy is measured on: a resumed run must not mix figures of others."""
    return f"{validation.name} ({validation.split}), {'all' if images is None else images} images"


def _on_cpu(model: LearnedNetwork) -> Callable[[Tensor], Tensor]:
    """The model as a function of images on the CPU, wherever its parameters are."""
    place = next(iter(model.quantizers.values())).bits.device
    return lambda images: model.logits(images.to(place)).cpu()


def _float(network: Network) -> Callable[[Tensor], Tensor]:
    from quant.network import forward

    return lambda images: forward(network, images)


def _at_freeze(learned: Learned) -> dict[str, Any]:
    """Figures before and after the freeze, from the log."""
    return next((dict(entry["freeze"]) for entry in learned.state.log if "freeze" in entry), {})
