"""The forms of a study's network with their penalty tables: read, measured (resumably), or from the weights alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from accelsim.ir import Workload
from accelsim.problems import AccelsimError, Problem
from codesign.allocate.options import OptionSettings, check_penalties
from codesign.loop.bench import Bench
from codesign.loop.folder import StudyFolder
from codesign.loop.spec import CodesignSpec
from codesign.loop.variants import PATCHWISE, PLAIN, Variant, settings_of
from quant.penalties.table import PenaltyTable, load_penalties

if TYPE_CHECKING:
    from quant.network import Network


def workloads_of(spec: CodesignSpec, plain: Workload, bench: Bench | None) -> dict[str, Workload]:
    """The ops of every form of the network that the options need.  Raises AccelsimError where none ranks tokens."""
    ranked = {} if bench is None or not spec.options.token_shares else {PATCHWISE: bench.patchwise.workload}
    return {PLAIN: plain, **ranked}


def variants_of(
    spec: CodesignSpec, folder: StudyFolder, workloads: dict[str, Workload], bench: Bench | None
) -> dict[str, Variant]:
    """Every form of the network with its table and options.  Raises AccelsimError for a table of something else."""
    found = {}
    for name, workload in workloads.items():
        options = settings_of(name, spec.options.settings())
        table = penalty_table(spec, folder, name, workload, options, bench)
        check_table(table, spec, workload, options, None if bench is None else bench.form(name))
        found[name] = Variant(name, workload, table, options)
    return found


def penalty_table(
    spec: CodesignSpec, folder: StudyFolder, variant: str, workload: Workload, options: OptionSettings,
    bench: Bench | None,
) -> PenaltyTable:  # fmt: skip
    """The study's table of a form of the network, made if it is not there."""
    path = folder.penalties(variant)
    if path.exists():
        return load_penalties(path)
    # One table serves every uniform baseline and every arm without a family, too.
    formats = tuple(dict.fromkeys((*options.weight_formats, *_widths(spec))))
    if spec.penalties.file is not None:
        table = load_penalties(spec.penalties.file)
    elif bench is not None and not spec.penalties.weights_only:
        table = _measured(spec, folder, variant, options, formats, bench)
    elif bench is None and spec.weights is None and ":" not in spec.model:
        from quant.penalties.weights_only import workload_penalties

        table = workload_penalties(workload, formats)
    else:
        from quant.penalties.weights_only import network_penalties

        table = network_penalties(_network(spec), formats)
    table.save(path)
    return table


def _measured(
    spec: CodesignSpec, folder: StudyFolder, variant: str, options: OptionSettings, formats: tuple[str, ...],
    bench: Bench,
) -> PenaltyTable:  # fmt: skip
    from quant.penalties.measure import measure_penalties
    from quant.penalties.settings import Settings

    settings = Settings(
        formats, tuple(options.activation_formats), tuple(options.divisions), methods=options.methods,
        head_formats=options.head_formats, token_shares=options.token_shares, drop_bits=options.drop_bits,
    )  # fmt: skip
    cache = folder.penalties(variant).with_suffix(".cache")
    images = bench.images(spec.penalties.images)
    return measure_penalties(bench.form(variant), images, None, settings, cache, _bar())


def check_table(
    table: PenaltyTable, spec: CodesignSpec, workload: Workload, options: OptionSettings, network: Network | None
) -> None:
    """Raise AccelsimError unless a table is one of this network, its weights included, with what the options ask for
    and the widths of the uniform baselines.
    """
    check_penalties(workload, table, options)
    missing = [name for name in _widths(spec) if name not in table.formats]
    if missing:
        levers = (f"accelsim penalties … --formats {','.join((*table.formats, *missing))}", "other baselines.uniform")
        raise AccelsimError(Problem("penalty table", f"lacks {', '.join(missing)}", "all of baselines.uniform", levers))
    if network is not None or spec.weights is not None or ":" in spec.model:
        from quant.sensitivity.measure import network_fingerprint

        here = network_fingerprint(_network(spec) if network is None else network)
        there = table.fingerprints["network"]
        if here != there and there != workload.fingerprint():
            what = f"was made for a network of other weights or layers ({there}, this is {here})"
            levers = ("accelsim penalties for this model", "another folder when the weights have changed")
            raise AccelsimError(Problem("penalty table", what, f"the table of {spec.model}", levers))


def _widths(spec: CodesignSpec) -> tuple[str, ...]:
    """Weight formats of the uniform baselines."""
    return tuple(f"u{bits}" for bits in spec.baselines.uniform)


def _network(spec: CodesignSpec) -> Any:
    from codesign.models import load_model

    return load_model(spec.model, spec.weights)[0]


def _bar() -> Callable[[str, int, int], None]:
    from tqdm import tqdm

    bar: Any = None

    def show(what: str, done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=total, desc=what, file=sys.stderr, disable=not sys.stderr.isatty(), mininterval=0.5)
        bar.update(done - bar.n)
        if done >= total:
            bar.close()

    return show
