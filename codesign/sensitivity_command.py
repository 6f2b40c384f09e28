"""The command `sensitivity`: which layers, activations and heads of a trained model need their bits."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from accelsim.problems import AccelsimError, Problem
from codesign.arguments import positive
from quant.sensitivity.table import ALL_KINDS, KINDS, PROBES

if TYPE_CHECKING:
    from torch import Tensor

    from quant.data.dataset import DataSet
    from quant.sensitivity.table import Agreement, SensitivityTable


def add_sensitivity(commands: Any) -> None:
    """Add its parser to the subparsers of `accelsim`."""
    parser = commands.add_parser(
        "sensitivity", help="sensitivity of every layer, activation and head to few bits; the same command resumes"
    )
    parser.add_argument("model", help="a trained reference model, a built-in model with --weights, or MODULE:FUNCTION")
    parser.add_argument("--weights", metavar="FILE", help="state dict of mit-han-lab/efficientvit or timm")
    parser.add_argument("--data", default="glyphs", help="glyphs (default), digits or imagefolder:PATH")
    parser.add_argument("--bits", default="2,3", help="widths of weights and products (default 2,3)")
    parser.add_argument("--activation-bits", default="4", help="widths of stored tensors (default 4)")
    parser.add_argument(
        "--metrics",
        default="all",
        help="names, separated by commas (default all but hessian_trace and nuclear_norm; see docs/sensitivity.md)",
    )
    parser.add_argument(
        "--kinds", default=",".join(KINDS), help=f"kinds of components, of {', '.join(ALL_KINDS)} (default %(default)s)"
    )
    parser.add_argument(
        "--probes",
        type=positive,
        default=PROBES,
        help="random vectors per batch of hessian_trace (default %(default)s)",
    )
    parser.add_argument("--channels", action="store_true", help="also the proxies of every filter")
    parser.add_argument(
        "--calibration-images", type=positive, default=128, help="of the training split, for proxies (default 128)"
    )
    parser.add_argument(
        "--images", type=positive, default=2000, help="of the validation split, for measured metrics (default 2000)"
    )
    parser.add_argument("--batch", type=positive, default=50, help="images at a time: sets the memory (default 50)")
    parser.add_argument("--cache", metavar="FILE", help="finished work (default: OUTPUT.cache)")
    parser.add_argument("-o", "--output", required=True, metavar="FILE.json", help="the table")
    parser.add_argument("--csv", help="also write one line per component and width")
    parser.set_defaults(command=_sensitivity, resumes=True)


class _Batches:
    """Batches of a data set that can be walked more than once."""

    def __init__(self, data: DataSet, size: int) -> None:
        self.data, self.size = data, size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        return self.data.batches(self.size)


def _sensitivity(arguments: argparse.Namespace) -> int:
    from codesign.models import load_model
    from codesign.outputs import check_outputs
    from quant.data import load_data
    from quant.sensitivity.measure import Settings, sensitivity
    from quant.sensitivity.metrics import metric_names

    names = metric_names() if arguments.metrics == "all" else tuple(arguments.metrics.split(","))
    settings = Settings(
        _widths("--bits", arguments.bits), _widths("--activation-bits", arguments.activation_bits),
        tuple(arguments.kinds.split(",")), names, arguments.channels, arguments.probes,
    )  # fmt: skip
    cache = arguments.cache or f"{arguments.output}.cache"
    check_outputs([arguments.output, arguments.csv, cache])
    network, preprocess = load_model(arguments.model, arguments.weights)
    splits = (("train", arguments.calibration_images), ("val", arguments.images))
    calibration, validation = (
        _Batches(load_data(arguments.data, split, preprocess).first(count), arguments.batch) for split, count in splits
    )
    with _Bar() as bar:
        table = sensitivity(network, calibration, validation, settings, cache, bar.show)
    table.save(arguments.output)
    if arguments.csv:
        from codesign.export import write_csv

        write_csv(table.records(), arguments.csv)
    if arguments.output != "-":
        print("\n".join(table_lines(table)))
    return 0


class _Bar:
    """A progress bar for each set of images."""

    def __enter__(self) -> _Bar:
        self._bar: Any = None
        self._name = ""
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, what: str, done: int, total: int) -> None:
        """Advance; a new name starts a new bar."""
        from tqdm import tqdm

        if what != self._name:
            self.__exit__()
            self._bar, self._name = tqdm(total=total, desc=what, file=sys.stderr, unit="cell", mininterval=1.0), what
        self._bar.update(done - self._bar.n)


def _widths(option: str, text: str) -> tuple[int, ...]:
    """Bits separated by commas.  Raises AccelsimError for anything else."""
    parts = text.split(",")
    if not all(part.isdigit() and 2 <= int(part) <= 16 for part in parts):
        raise AccelsimError(Problem(option, f"is {text!r}", "widths from 2 to 16, such as 2,3"))
    return tuple(int(part) for part in parts)


def table_lines(table: SensitivityTable, worst: int = 10) -> list[str]:
    """The most sensitive components, and how well every metric agrees with the measured increase."""
    from quant.sensitivity.table import MEASURED, agreements

    shown = ", ".join(f"{name} {value:.4f}" for name, value in table.reference.items())
    counts = f"{table.images['calibration']} calibration and {table.images['validation']} validation images"
    lines = [f"{table.network}: {counts}" + (f"; float network: {shown}" if shown else "")]
    lines += ["", *cost_lines(table), ""]
    names = [one.name for one in table.metrics]
    if MEASURED not in names:
        return lines[:-1]
    rows = sorted(table.rows, key=lambda row: -row.values[MEASURED])[:worst]
    lines.append(f"{'component':28} {'kind':16} {'bits':>4}  increase of the cross-entropy (95 % interval)")
    for row in rows:
        low, high = row.intervals[MEASURED]
        increase = f"{row.values[MEASURED]:8.4f} ({low:.4f} … {high:.4f})"
        lines.append(f"{row.component.name:28} {row.component.kind:16} {row.bits:4}  {increase}")
    return [*lines, "", *agreement_lines(table, agreements(table))]


def cost_lines(table: SensitivityTable) -> list[str]:
    """What every metric took alone, seconds and passes over the images of its split, as a Markdown table."""
    lines = [
        "| metric | images | CPU s | runs | forward passes | backward | Hessian-vector |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in table.metrics:
        passes = ("",) * 4 if one.passes is None else (f"{value:.4g}" for value in vars(one.passes).values())
        forward, runs, backward, hessian = passes
        cells = (
            one.name,
            f"{table.images[one.split]} {one.split}",
            f"{one.seconds:.1f}",
            runs,
            forward,
            backward,
            hessian,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def agreement_lines(table: SensitivityTable, found: tuple[Agreement, ...]) -> list[str]:
    """Kendall's τ-b of every metric by group of components, as a Markdown table."""
    groups = list(dict.fromkeys((one.group, one.bits, one.components) for one in found))
    titles = [f"{group}{'' if bits is None else f', {bits} bits'} ({n})" for group, bits, n in groups]
    lines = [f"| metric | CPU s | {' | '.join(titles)} |", "|---|---|" + "---|" * len(groups)]
    for info in table.metrics:
        taus = {(one.group, one.bits, one.components): one.tau for one in found if one.metric == info.name}
        if taus:
            cells = [_tau(taus[group]) if group in taus else "" for group in groups]
            lines.append(f"| {info.name} | {info.seconds:.1f} | {' | '.join(cells)} |")
    return lines


def _tau(tau: Any) -> str:
    return f"{tau.estimate:.2f} ({tau.low:.2f} … {tau.high:.2f})"
