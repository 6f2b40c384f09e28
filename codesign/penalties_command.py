"""The command `penalties`: predicted loss of every quantization choice of a network, for allocators."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from accelsim.problems import AccelsimError, Problem
from codesign.arguments import not_negative, positive

if TYPE_CHECKING:
    from quant.penalties.table import PenaltyTable

FORMATS, ACTIVATION_FORMATS = "u8,u6,u4,apot8,pot4", "u8,u6,u4"


def add_penalties(commands: Any) -> None:
    """Add its parser to the subparsers of `accelsim`."""
    parser = commands.add_parser(
        "penalties", help="predicted loss of every format of filters and activations; the same command resumes"
    )
    parser.add_argument(
        "model", help="a trained reference model, a built-in model with --weights, or MODULE:FUNCTION; "
        "with --weights-only also a built-in model without weights or a workload file (.json)",
    )  # fmt: skip
    parser.add_argument("--weights", metavar="FILE", help="state dict of mit-han-lab/efficientvit or timm")
    parser.add_argument("--data", help="glyphs, digits or imagefolder:PATH (default: the model's own)")
    parser.add_argument("--formats", default=FORMATS, help=f"of weights (default {FORMATS})")
    parser.add_argument("--activation-formats", help=f"of stored tensors (default {ACTIVATION_FORMATS})")
    parser.add_argument(
        "--images", type=positive, default=256, help="of the validation split, for the loss; no labels (default 256)"
    )
    parser.add_argument(
        "--calibration-images", type=positive, default=128, help="of the training split, for scales (default 128)"
    )
    parser.add_argument("--batch", type=positive, default=64, help="images at a time, at most 64: memory (default 64)")
    parser.add_argument("--seed", type=not_negative, default=0, help="of the images that are drawn")
    parser.add_argument("--weights-only", action="store_true", help="no images: noise of the weights, not a loss")
    parser.add_argument("--cache", metavar="FILE", help="finished work (default: OUTPUT.cache)")
    parser.add_argument("-o", "--output", required=True, metavar="FILE.json", help="the table")
    parser.set_defaults(command=_penalties, resumes=True)


def _penalties(arguments: argparse.Namespace) -> int:
    from codesign.outputs import check_outputs

    cache = arguments.cache or f"{arguments.output}.cache"
    check_outputs([arguments.output, None if arguments.weights_only else cache])
    table = _weights_only(arguments) if arguments.weights_only else _measured(arguments, cache)
    table.save(arguments.output)
    if arguments.output != "-":
        print("\n".join(table_lines(table)))
    return 0


def _measured(arguments: argparse.Namespace, cache: str) -> PenaltyTable:
    from codesign.models import data_of, load_model
    from codesign.quantize_command import calibration_images

    network, preprocess = load_model(arguments.model, arguments.weights)
    from quant.penalties.measure import measure_penalties
    from quant.penalties.settings import Settings

    formats = tuple((arguments.activation_formats or ACTIVATION_FORMATS).split(","))
    settings = Settings(tuple(arguments.formats.split(",")), formats)
    data = arguments.data or data_of(arguments.model)
    fitted = calibration_images(data, preprocess, arguments.calibration_images, arguments.seed)
    drawn = calibration_images(data, preprocess, arguments.images, arguments.seed, "val")
    seen = [batch[k : k + arguments.batch] for batch in drawn for k in range(0, len(batch), arguments.batch)]
    with _Bar() as bar:
        return measure_penalties(network, fitted, seen, settings, cache, bar.show)


def _weights_only(arguments: argparse.Namespace) -> PenaltyTable:
    from accelsim.workloads import build_workload, model_names
    from accelsim.workloads.reference_models import HYBRIDS, VITS
    from codesign.models import load_model
    from quant.penalties.weights_only import network_penalties, workload_penalties

    for option in ("data", "activation_formats"):
        if getattr(arguments, option) is not None:
            name = f"--{option.replace('_', '-')}"
            raise AccelsimError(Problem(name, "is given with --weights-only, which sees no images", "one of the two"))
    formats, name = tuple(arguments.formats.split(",")), arguments.model
    shapes_only = name.endswith(".json") or (name in model_names() and name not in (*HYBRIDS, *VITS))
    if shapes_only and arguments.weights is None:
        return workload_penalties(build_workload(name), formats)
    return network_penalties(load_model(name, arguments.weights)[0], formats)


class _Bar:
    """A progress bar that appears with the first step."""

    def __enter__(self) -> _Bar:
        self._bar: Any = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, what: str, done: int, total: int) -> None:
        """Advance."""
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=total, desc=what, file=sys.stderr, unit="cell", mininterval=1.0)
        self._bar.update(done - self._bar.n)


def table_lines(table: PenaltyTable, worst: int = 10) -> list[str]:
    """What the numbers are, and the ops and groups whose coarsest formats cost most."""
    lines = [f"{table.network}: {table.metric}"]
    head = " ".join(f"{name:>10}" for name in table.formats)
    lines += ["", f"{'filters of':24} {head}"]
    totals = {op: values.sum(axis=0) for op, values in table.filters.items()}
    for op in sorted(totals, key=lambda one: -float(totals[one].max()))[:worst]:
        lines.append(f"{op:24} " + " ".join(f"{value:10.3g}" for value in totals[op]))
    names = list(next(iter(table.activations.values()), {}))
    if len(names) > 1:
        lines += ["", f"{'outputs of':24} " + " ".join(f"{name:>10}" for name in names)]
        for group in sorted(table.activations, key=lambda one: -max(table.activations[one].values()))[:worst]:
            lines.append(f"{group:24} " + " ".join(f"{table.activations[group][name]:10.3g}" for name in names))
    if len(table.divisions) > 1:
        lines += ["", "division: " + ", ".join(f"{name} {value:.3g}" for name, value in table.divisions.items())]
    return lines
