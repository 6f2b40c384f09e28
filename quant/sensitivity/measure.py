"""Make a sensitivity table: round one component at a time, on batches, with cached prefixes and results on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from accelsim.ir import digest
from accelsim.problems import AccelsimError, Problem
from quant.calibrate import Calibration
from quant.network import Network
from quant.sensitivity.batch import Cell, Work, rows_of_batch
from quant.sensitivity.cache import Cache
from quant.sensitivity.components import components
from quant.sensitivity.metrics import Metric, metric_names, metrics_named
from quant.sensitivity.metrics.base import CALIBRATION, VALIDATION
from quant.sensitivity.rounding import Rounding
from quant.sensitivity.table import FORMAT, KINDS, PROBES, ChannelRow, MetricInfo, Passes, Row, SensitivityTable
from quant.statistics import paired_bootstrap

Batches = Iterable[tuple[Tensor, Tensor | None]]
Progress = Callable[[str, int, int], None]
FLOAT = "float"  # the cell of the float network's own numbers
BOOTSTRAP_SAMPLES = 1000


@dataclass(frozen=True)
class Settings:
    """What is rounded to how many bits, and by which metrics it is judged.

    `channels` adds the proxies of every single filter.  `probes` is the number of Hutchinson's random vectors per batch
    for `hessian_trace`.  `observer` and `power` choose ranges and scales as in
    `quant.calibrate.Calibration`.
    """

    weight_bits: tuple[int, ...] = (2, 3)
    activation_bits: tuple[int, ...] = (4,)
    kinds: tuple[str, ...] = KINDS
    metrics: tuple[str, ...] = ()
    channels: bool = False
    probes: int = PROBES
    observer: str = "mse"
    power: float = 2.4

    def bits(self, kind: str) -> tuple[int, ...]:
        """Widths of a kind of component; a product has those of weights."""
        return self.activation_bits if kind.endswith("activation") else self.weight_bits


def sensitivity(
    network: Network,
    calibration: Batches,
    validation: Batches = (),
    settings: Settings | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> SensitivityTable:
    """Sensitivity of every component of a network while the rest computes in floating point.

    `calibration` and `validation` are batches of images [n, channels, h, w] and labels [n] that can be walked more
    than once (lists).  Ranges and proxies use the first, measured metrics the second; labels may be None where no
    metric needs them.  A batch is also the unit of memory: the activations of one block for one batch, and with
    gradients those of the whole network.  With `cache`, a file, finished work is kept there: the same call after a kill
    goes on.  No metrics in `settings` means all but the slow ones.  Raises AccelsimError for unknown names and missing
    images or labels.
    """
    chosen = Settings() if settings is None else settings
    metrics = metrics_named(chosen.metrics or metric_names())
    data = {CALIBRATION: calibration, VALIDATION: validation}
    seen = {split: look(batches) for split, batches in data.items()}
    found = components(network, chosen.kinds)
    _check(metrics, seen, chosen)
    cells = [Cell(one, bits) for one in found for bits in chosen.bits(one.kind)]
    if chosen.channels:
        layers = components(network, ("weight",))
        cells += [Cell(one, bits, by_channel=True) for one in layers for bits in chosen.weight_bits]
    names = {"network": network_fingerprint(network), **{split: one.fingerprint for split, one in seen.items()}}
    how = [FORMAT, chosen.observer, chosen.power, names["network"], names[CALIBRATION]]
    if chosen.probes != PROBES:
        how.append(chosen.probes)
    keys = {CALIBRATION: digest(how), VALIDATION: digest([*how, names[VALIDATION]])}
    options = Calibration(chosen.observer, chosen.power)
    store = Cache(cache)
    try:
        rounding = Rounding(network, found, (images for images, _ in calibration), options)
        for split, batches in data.items():
            used = [one for one in metrics if one.split == split]
            if used:
                works = _works(network, rounding, batches, chosen.probes)
                _measure(works, store, keys[split], cells, used, seen[split].sizes, progress)
        rows = tuple(_row(store, keys, cell, metrics) for cell in cells if not cell.by_channel)
        channels = tuple(_channels(store, keys, cell, metrics, seen) for cell in cells if cell.by_channel)
        infos = tuple(_info(one, store, keys[one.split], sum(seen[one.split].sizes)) for one in metrics)
        reference = _reference(store, keys[VALIDATION])
    finally:
        store.close()
    images = {split: sum(one.sizes) for split, one in seen.items()}
    about = _about(chosen, metrics)
    return SensitivityTable(network.workload.name, names, images, reference, about, infos, rows, channels)


def _about(chosen: Settings, metrics: Iterable[Metric]) -> dict[str, Any]:
    """The settings that a table notes; the number of probes where a metric has some."""
    about = {name: value for name, value in asdict(chosen).items() if name not in ("metrics", "channels", "probes")}
    return {**about, "probes": chosen.probes} if any("hessian" in one.stages for one in metrics) else about


def network_fingerprint(network: Network) -> str:
    """Hash of a network's ops, functions, operands and parameters."""
    state = hashlib.sha256(network.workload.fingerprint().encode())
    for node in network.nodes:
        state.update(repr((node.function, node.operands, sorted(node.settings.items()))).encode())
        for value in (node.weight, node.bias):
            state.update(b"-" if value is None else value.detach().contiguous().numpy().tobytes())
    return state.hexdigest()[:16]


@dataclass(frozen=True)
class Seen:
    """What a walk over batches found: hash of all images and labels, batch sizes, whether all have labels."""

    fingerprint: str
    sizes: tuple[int, ...]
    labelled: bool


def look(batches: Batches) -> Seen:
    """Walk over batches of images and labels once."""
    state, sizes, labelled = hashlib.sha256(), [], True
    for images, labels in batches:
        state.update(repr(tuple(images.shape)).encode() + images.contiguous().numpy().tobytes())
        state.update(b"-" if labels is None else labels.contiguous().numpy().tobytes())
        sizes.append(len(images))
        labelled &= labels is not None
    return Seen(state.hexdigest()[:16], tuple(sizes), labelled)


def _check(metrics: Iterable[Metric], seen: dict[str, Seen], settings: Settings) -> None:
    problems = []
    if settings.probes < 1:
        problems.append(Problem("sensitivity: probes", f"is {settings.probes}", "at least 1"))
    if not seen[CALIBRATION].sizes:
        problems.append(Problem("sensitivity: calibration", "there are no images", "at least one batch"))
    for one in metrics:
        split = seen[one.split]
        if not split.sizes:
            problems.append(Problem(f"sensitivity: {one.name}", f"needs {one.split} images", "at least one batch"))
        elif not split.labelled and one.needs_labels:
            levers = ("metrics that need no labels",)
            problems.append(Problem(f"sensitivity: {one.name}", f"needs labels of the {one.split} images", "", levers))
    if problems:
        raise AccelsimError(problems)


def _works(network: Network, rounding: Rounding, batches: Batches, probes: int) -> Iterator[Work]:
    """A `Work` for every batch; its number is the seed of its probes."""
    for number, (images, labels) in enumerate(batches):
        yield Work(network, rounding, images, labels, probes, number)


def _measure(
    works: Iterable[Work],
    store: Cache,
    key: str,
    cells: list[Cell],
    metrics: list[Metric],
    sizes: tuple[int, ...],
    progress: Progress | None,
) -> None:
    """Fill in what is missing of one split, batch by batch."""
    split, there, done = metrics[0].split, store.keys(key), 0
    for number, work in enumerate(works):
        missing = []
        for cell in cells:
            wanted = [one for one in metrics if one.per_channel or not cell.by_channel]
            missing.append((cell, [one for one in wanted if (number, cell.text, one.name) not in there]))
        if split == VALIDATION and (number, FLOAT, FLOAT) not in there:
            store.put(key, (number, FLOAT, FLOAT), _float_rows(work))
        for cell, metric, rows in rows_of_batch(work, missing):
            if metric is not None:
                store.put(key, (number, cell.text, metric.name), rows)
                continue
            seconds, passes = work.watch.drain()
            store.add_passes(key, passes)
            store.spend(key, seconds)
            done += 1
            if progress is not None:
                progress(split, done, len(cells) * len(sizes))


def _float_rows(work: Work) -> Tensor:
    """Cross-entropy and top-1 of the float network, [n, 2]."""
    loss = F.cross_entropy(work.exact_logits.double(), work.labels, reduction="none")
    return torch.stack([loss, (work.exact_logits.argmax(1) == work.labels).double()], 1)


def _reference(store: Cache, key: str) -> dict[str, float]:
    rows = store.rows(key, FLOAT, FLOAT)
    if not rows:
        return {}
    loss, top1 = np.concatenate(rows).mean(axis=0)
    return {"cross_entropy": float(loss), "top1": float(top1)}


def _row(store: Cache, keys: dict[str, str], cell: Cell, metrics: Iterable[Metric]) -> Row:
    values, intervals = {}, {}
    for one in metrics:
        rows = np.concatenate(store.rows(keys[one.split], cell.text, one.name))
        values[one.name] = float(one.combine(rows.mean(axis=0)))
        if one.interval:
            found = paired_bootstrap(np.zeros(len(rows)), rows[:, 0], samples=BOOTSTRAP_SAMPLES)
            intervals[one.name] = (found.low, found.high)
    return Row(cell.component, cell.bits, values, intervals)


def _channels(
    store: Cache, keys: dict[str, str], cell: Cell, metrics: Iterable[Metric], seen: dict[str, Seen]
) -> ChannelRow:
    values = {}
    for one in metrics:
        if one.per_channel:
            rows = np.stack(store.rows(keys[one.split], cell.text, one.name))
            means = np.average(rows, axis=0, weights=seen[one.split].sizes)
            values[one.name] = tuple(float(value) for value in one.combine(means))
    return ChannelRow(cell.component.parts[0][0], cell.bits, values)


def _info(metric: Metric, store: Cache, key: str, images: int) -> MetricInfo:
    """What a metric took alone: itself, the shared stages it uses, the float run and the rounding."""
    stages = ("float", "rounding", metric.name, *metric.stages)
    spent, counted = store.spent(key), store.passes(key)
    seconds = sum(spent.get(stage, 0.0) for stage in stages)
    passes = {
        kind.name: sum(counted.get((stage, kind.name), 0.0) for stage in stages) / images for kind in fields(Passes)
    }
    return MetricInfo(metric.name, metric.split, metric.rising, seconds, Passes(**passes))
