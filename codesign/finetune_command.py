"""The command `finetune`: a checkpoint is trained for a short while under its plan, and measured before and after."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.problems import AccelsimError, Problem
from codesign.arguments import not_negative, positive

if TYPE_CHECKING:
    from quant.calibrated import Checkpoint
    from quant.data.dataset import DataSet, Preprocess
    from quant.evaluate import Evaluation
    from quant.finetune import FineTune
    from quant.network import Network

STATE = "finetune.state"


def add_finetune(commands: Any) -> None:
    """Add its parser to the subparsers of `accelsim`."""
    parser = commands.add_parser(
        "finetune", help="short quantization-aware training of a checkpoint; the same command resumes"
    )
    parser.add_argument("checkpoint", help="folder of `accelsim quantize`")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder of the trained checkpoint")
    _add_network_and_data(parser)
    _add_training(parser)
    parser.add_argument("--json", help="write what was done as JSON ('-': standard output)")
    parser.set_defaults(command=_finetune, resumes=True)


def _add_network_and_data(parser: argparse.ArgumentParser) -> None:
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--model", help="the float network, as `quantize` takes it: start of the filters, teacher of --distill "
        "(default: the reference model that the checkpoint was made from)",
    )  # fmt: skip
    start.add_argument("--from-integers", action="store_true", help="filters start from their integers instead")
    parser.add_argument("--weights", metavar="FILE", help="of the float network, as `quantize` takes them")
    parser.add_argument("--data", help="glyphs, digits or imagefolder:PATH, to train on (default: the checkpoint's)")
    parser.add_argument("--validation", metavar="DATA", help="to measure on, its split val (default: as --data)")
    parser.add_argument("--images", type=positive, help="measure on only N images, spread over the split")


def _add_training(parser: argparse.ArgumentParser) -> None:
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=positive, help="passes over the training images (default 1)")
    length.add_argument("--steps", type=positive, help="steps instead of epochs")
    length.add_argument("--seconds", type=float, help="limited time: as many steps as fit, worked out at the start")
    parser.add_argument("--rate", type=float, help="first learning rate of a cosine to a fifteenth (default 1e-4)")
    parser.add_argument("--batch", type=positive, help="images of a step (default 64)")
    parser.add_argument("--weight-decay", type=float, help="of filters (default 0)")
    parser.add_argument("--smoothing", type=float, help="of labels, 0 … 1 (default 0)")
    parser.add_argument("--distill", type=float, help="weight of the float network's answers, 0 … 1 (default 0)")
    parser.add_argument("--augment", action="store_true", help="move images by a pixel and invert half of them")
    parser.add_argument("--learn-scales", action="store_true", help="also train scales (LSQ)")
    parser.add_argument("--seed", type=not_negative, help="of the order of the images (default 0)")
    parser.add_argument("--device", default="cpu", help="torch device (default cpu; others are untested)")
    parser.add_argument("--keep-every", type=positive, default=20, metavar="STEPS", help="steps between states")


def _finetune(arguments: argparse.Namespace) -> int:
    from codesign.outputs import check_folder, check_outputs, make_folder

    folder = check_folder(arguments.output, "-o")
    check_outputs([arguments.json])
    from codesign.models import require_torch

    require_torch()
    from quant.checkpoint import load, save
    from quant.finetune.state import forget

    settings = _settings(arguments)
    checkpoint = load(arguments.checkpoint).checkpoint
    network, source = _network(arguments, checkpoint)
    training, validation = _data(arguments, checkpoint)
    before = _measured(checkpoint, validation, arguments.images)
    make_folder(folder)
    start = time.perf_counter()
    trained = _trained(arguments, checkpoint, network, training, settings, folder / STATE)
    seconds = time.perf_counter() - start
    after = _measured(trained, validation, arguments.images)
    save(trained, folder)
    forget(folder / STATE)
    summary = {
        "checkpoint": arguments.checkpoint, "output": str(folder), "start": source,
        "training": training.name, "validation": validation.name, "device": arguments.device,
        "fine_tuning": trained.about["fine_tuning"][-1], "seconds": round(seconds, 2), **_figures(before, after),
    }  # fmt: skip
    if arguments.json:
        from accelsim.trace import write_json

        write_json(arguments.json, summary, indent=1)
    if arguments.json != "-":
        _print(summary)
    return 0


def _settings(arguments: argparse.Namespace) -> FineTune:
    """The options that were given.  Raises AccelsimError for bad ones."""
    from quant.finetune import FineTune

    named = ((one.name, getattr(arguments, one.name, None)) for one in fields(FineTune))
    return FineTune(**{name: value for name, value in named if value is not None})


def _network(arguments: argparse.Namespace, checkpoint: Checkpoint) -> tuple[Network, str]:
    """Where the filters start from, and its name.  Raises AccelsimError when that is not clear."""
    if arguments.from_integers:
        for option in ("weights", "distill"):
            if getattr(arguments, option):
                raise AccelsimError(Problem(f"--{option}", "needs the float network", "--model, or the default"))
        return checkpoint.network, "integers"
    from codesign.models import load_model
    from quant.models.registry import REFERENCE_NAMES

    name = arguments.model or str(checkpoint.about.get("model"))
    # A name in a checkpoint is not run as code, as MODULE:FUNCTION would be.
    if arguments.model is None and name not in REFERENCE_NAMES:
        what = f"was made from {name}, whose float weights are not here"
        levers = ("--model MODEL", "--model MODEL --weights FILE", "--from-integers")
        raise AccelsimError(Problem(arguments.checkpoint, what, "the float network", levers))
    return _smoothed(load_model(name, arguments.weights)[0], checkpoint), name


def _smoothed(network: Network, checkpoint: Checkpoint) -> Network:
    """The float network as it was when its filters were rounded: smoothed, on the same images, if it was."""
    about = checkpoint.about
    if "smooth" not in about:
        return network
    from codesign.quantize_command import calibration_images
    from quant.smooth import Smooth, smooth

    images = calibration_images(about["data"], _preprocess(checkpoint), about["calibration"]["images"], about["seed"])
    return smooth(network, images, Smooth(**about["smooth"]))


def _preprocess(checkpoint: Checkpoint) -> Preprocess | None:
    """How the checkpoint's model sees images, None where that is not noted."""
    from quant.data.dataset import Preprocess

    stored = checkpoint.about.get("preprocess")
    return None if stored is None else Preprocess(**stored)


def _data(arguments: argparse.Namespace, checkpoint: Checkpoint) -> tuple[DataSet, DataSet]:
    """Training and validation images, as the checkpoint's model sees them."""
    from quant.data import load_data

    preprocess = _preprocess(checkpoint)
    name = arguments.data or str(checkpoint.about.get("data", "glyphs"))
    if arguments.validation is None and name.startswith("imagefolder:"):
        what = "has no splits: accuracy would be that of the training images"
        raise AccelsimError(Problem(f"data {name}", what, "another folder", ("--validation imagefolder:PATH",)))
    return load_data(name, "train", preprocess), load_data(arguments.validation or name, "val", preprocess)


def _trained(
    arguments: argparse.Namespace,
    checkpoint: Checkpoint,
    network: Network,
    training: DataSet,
    settings: FineTune,
    state: Path,
) -> Checkpoint:
    """Fine-tune with a progress bar."""
    from tqdm import tqdm

    from quant.finetune import fine_tune

    with tqdm(desc="fine-tuning", unit="step", file=sys.stderr, disable=None, mininterval=1.0) as bar:

        def show(what: str, done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        device, every = arguments.device, arguments.keep_every
        return fine_tune(checkpoint, network, training, settings, state, show, device, every)


def _measured(checkpoint: Checkpoint, validation: DataSet, images: int | None) -> Evaluation:
    from codesign.quantize_command import measure_on
    from quant.checkpoint import Model

    return measure_on(Model(checkpoint), validation, images)


def _figures(before: Evaluation, after: Evaluation) -> dict[str, Any]:
    """Accuracy before and after, image by image."""
    from codesign.quantize_text import figures
    from quant.statistics import compare

    paired = asdict(compare(before.correct, after.correct))
    return {"before": figures(before), "after": figures(after), "paired": paired}


def _print(summary: dict[str, Any]) -> None:
    """What was done and gained, and what to do next."""
    done, before, after, pair = (summary[name] for name in ("fine_tuning", "before", "after", "paired"))
    print(f"{summary['checkpoint']} trained for {done['steps']:,} steps of {done['batch']} images of "
          f"{summary['training']} in {summary['seconds']:.1f} s")  # fmt: skip
    print(f"  training loss   {done['loss_first']:.4f} → {done['loss_last']:.4f}   (first and last tenth)")
    print(f"  top-1           {before['top1']:.2%} → {after['top1']:.2%}   on {after['images']:,} images of "
          f"{summary['validation']} (val)")  # fmt: skip
    print(f"  cross-entropy   {before['cross_entropy']:.4f} → {after['cross_entropy']:.4f}")
    low, high = (100 * end for end in pair["interval"])
    print(f"  change          {100 * pair['difference']:+.2f} points ({low:+.2f} … {high:+.2f} at 95 %), "
          f"exact McNemar p {pair['p_value']:.2g}")  # fmt: skip
    if after["cross_entropy"] > before["cross_entropy"]:
        print("  note            worse than before: try a lower --rate or more steps")
    print(f"  next            accelsim eval {summary['output']} --integer")
