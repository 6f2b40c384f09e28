"""The command `penalties`: predicted loss of every quantization choice of a network, for allocators."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from accelsim.problems import AccelsimError, Problem
from codesign.arguments import not_negative, positive

if TYPE_CHECKING:
    from quant.network import Network
    from quant.penalties.settings import Settings
    from quant.penalties.table import PenaltyTable

FORMATS, ACTIVATION_FORMATS = "u8,u6,u4,apot8,pot4", "u8,u6,u4"
OF_IMAGES = ("data", "activation_formats", "methods", "head_formats", "token_shares", "drop_bits")


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
    parser.add_argument(
        "--activation-formats", help=f"of stored tensors (default {ACTIVATION_FORMATS}); r6 is a two-region format of "
        "6 bits after softmax and GELU, its ratio from data",
    )  # fmt: skip
    parser.add_argument("--methods", help="of softmax and LayerNorm, of ivit, ibert and fqvit (default: none)")
    parser.add_argument("--head-formats", help="narrower widths of single heads of q, k and v, such as u4,u6")
    parser.add_argument(
        "--token-shares", help="shares of full tokens in every layer that can rank them, such as 0.5,0.25; the table "
        "is then that of the network that ranks them all",
    )  # fmt: skip
    parser.add_argument("--drop-bits", type=positive, help="how many bits fewer the other tokens have (default 2)")
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

    settings = _settings(arguments)
    network, preprocess = load_model(arguments.model, arguments.weights)
    from quant.penalties.measure import measure_penalties

    if settings.token_shares:
        network = _ranked(network)
    data = arguments.data or data_of(arguments.model)
    fitted = calibration_images(data, preprocess, arguments.calibration_images, arguments.seed)
    drawn = calibration_images(data, preprocess, arguments.images, arguments.seed, "val")
    seen = [batch[k : k + arguments.batch] for batch in drawn for k in range(0, len(batch), arguments.batch)]
    with _Bar() as bar:
        return measure_penalties(network, fitted, seen, settings, cache, bar.show)


def _settings(arguments: argparse.Namespace) -> Settings:
    """What to measure.  Raises AccelsimError for what does not exist, and for options that exclude each other."""
    from quant.penalties.settings import Settings

    def listed(name: str, default: str = "") -> tuple[str, ...]:
        return tuple((getattr(arguments, name) or default).split(",")) if getattr(arguments, name) or default else ()

    shares = []
    for one in listed("token_shares"):
        try:
            shares.append(float(one))
        except ValueError:
            raise AccelsimError(Problem("--token-shares", f"{one!r} is no number", "such as 0.5,0.25")) from None
    if arguments.drop_bits is not None and not shares:
        raise AccelsimError(Problem("--drop-bits", "is given without --token-shares", "both"))
    if arguments.head_formats and shares:
        what = "are given with --token-shares: no plan has both token groups and head widths"
        raise AccelsimError(Problem("--head-formats", what, "a table for each"))
    return Settings(
        listed("formats"), listed("activation_formats", ACTIVATION_FORMATS), methods=listed("methods"),
        head_formats=listed("head_formats"), token_shares=tuple(shares), drop_bits=arguments.drop_bits or 2,
    )  # fmt: skip


def _ranked(network: Network) -> Network:
    """The network that ranks its tokens before every layer that can.  Raises AccelsimError when none can."""
    from accelsim.workloads.rank import ranked_layers
    from quant.patchwise.network import ranked

    layers = [one.name for one in ranked_layers(network.workload)]
    if not layers:
        expected = "a vision transformer whose layers follow an attention of the same tokens"
        raise AccelsimError(Problem("--token-shares", f"{network.workload.name} has no tokens to rank", expected))
    return ranked(network, layers)


def _weights_only(arguments: argparse.Namespace) -> PenaltyTable:
    from accelsim.workloads import build_workload, model_names
    from accelsim.workloads.reference_models import HYBRIDS, VITS
    from codesign.models import load_model
    from quant.penalties.weights_only import network_penalties, workload_penalties

    for option in OF_IMAGES:
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
    names = list(dict.fromkeys(name for one in table.activations.values() for name in one if "+" not in name))
    if len(names) > 1:
        lines += ["", f"{'outputs of':24} " + " ".join(f"{name:>10}" for name in names)]
        for group in sorted(table.activations, key=lambda one: -max(table.activations[one].values()))[:worst]:
            row = (table.activations[group].get(name) for name in names)
            lines.append(f"{group:24} " + " ".join(f"{'-' if x is None else f'{x:.3g}':>10}" for x in row))
    lines += _method_lines(table, worst)
    for name, of in table.parts.items():
        sums = (f"{fmt} {sum(row):.3g} (largest {max(row):.3g})" for fmt, row in of.items())
        lines.append(f"parts of {name}, all of them: {', '.join(sums)}")
    for layer, counts in table.tokens.items():
        lost = ", ".join(f"{name} {value:.3g}" for name, value in counts.items())
        lines.append(f"full tokens of {layer}, others {table.drop_bits} bits fewer: {lost}")
    if len(table.divisions) > 1:
        lines += ["", "division: " + ", ".join(f"{name} {value:.3g}" for name, value in table.divisions.items())]
    return lines


def _method_lines(table: PenaltyTable, worst: int) -> list[str]:
    """The softmaxes and LayerNorms whose methods cost most, each by its choices."""
    methods = {
        group: {name: value for name, value in of.items() if "+" in name} for group, of in table.activations.items()
    }
    chosen = sorted((group for group in methods if methods[group]), key=lambda one: -max(methods[one].values()))
    rows = [", ".join(f"{name} {value:.3g}" for name, value in methods[group].items()) for group in chosen[:worst]]
    head = ["", "by method:"] * bool(rows)
    return [*head, *(f"{group:24} {row}" for group, row in zip(chosen, rows, strict=False)), *[""] * bool(rows)]
