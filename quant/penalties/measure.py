"""Measure a penalty table: what the network's output loses when one choice is quantized and nothing else is.

The choice (an op's filters, a group's stored outputs, one part of q | k | v, the token groups of a layer, the divisors
of linear attention) is calibrated as `quant.quantize` does it; all else computes in floating point.  The loss is the
mean over images of KL(p ‖ p̂) between the softmax outputs of the float network and of this one, less the same of the
base's choice (8 bits; 16 for numerators; exact division; all tokens full).  No labels are needed.  In the base network
instead, with everything else in 8 bits, each change also draws the rounding errors of all later tensors anew, which
looks like a loss (docs/penalties.md).

A method of softmax or LayerNorm computes with codes, so its op reads its input in the base's 8 bits; its loss is that
beyond the same run with the float function of the same codes, stored in the base's format.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from accelsim.ir import digest
from accelsim.problems import AccelsimError, Problem
from quant.calibrate import Calibration
from quant.methods.uniform import Uniform
from quant.network import Network, Node, Numerics, run
from quant.penalties.activation_groups import activation_groups
from quant.penalties.assemble import Found, assemble
from quant.penalties.changes import FILTERS, Alone, Base, Change
from quant.penalties.curvature import filter_losses
from quant.penalties.enumerate import every_change, part_counts
from quant.penalties.settings import Settings
from quant.penalties.table import FORMAT, Floats, PenaltyTable
from quant.quantize import calibrated, gather, make_plan
from quant.sensitivity.cache import Cache
from quant.sensitivity.measure import network_fingerprint
from quant.structure import segments

Batches = Iterable[Tensor | Sequence[Tensor]]
Progress = Callable[[str, int, int], None]
KL, CURVATURE = "kl", "curvature"  # what the cache holds per change: [images, 1]; [1, filters]


def measure_penalties(
    network: Network,
    calibration: Batches,
    validation: Batches | None = None,
    settings: Settings | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> PenaltyTable:
    """Penalties of filters, stored outputs, parts of q | k | v, token groups and division methods, in nats.

    `calibration` gives batches of images [n, channels, h, w] for ranges and scales, `validation` those on which the
    loss is measured (None: the same); images are kept, labels are ignored.  Per op all filters have the format at
    once; the loss is split among them in proportion to the second-order loss of each alone
    (`curvature.filter_losses`).  Entries are clipped at 0; of uniform formats by one method, and of power-of-two
    formats, a coarser one never costs less than a finer one (`table.ordered`).  With `cache`, a file, finished work is
    kept there: a call after a kill goes on.  Memory: the filters of all formats, four bytes each, and for one batch the
    activations of one block (for one image those of the whole network).
    Raises AccelsimError for no images, unknown formats, or a network that cannot be calibrated.
    """
    chosen = Settings() if settings is None else settings
    fitted = _images(calibration, "calibration")
    seen = fitted if validation is None else _images(validation, "validation")
    base = make_base(network, fitted, chosen)
    prints = {"network": network_fingerprint(network), "images": _fingerprint([*fitted, *seen])}
    changes = every_change(base, chosen)
    sizes = [len(one) for one in fitted], [len(one) for one in seen]
    how = [chosen.observer, chosen.power, chosen.bias_correction, chosen.drop_bits, sizes]
    store, key = Cache(cache), digest([FORMAT, how, prints])
    try:
        _measure(base, seen, changes, store, key, progress)
        found = {one: _found(store, key, one, sizes[1]) for one in changes}
    finally:
        store.close()
    return assemble(base, chosen, found, prints, {"calibration_images": sum(sizes[0]), "images": sum(sizes[1])})


def make_base(network: Network, calibration: Sequence[Tensor], settings: Settings) -> Base:
    """The network calibrated under the base plan."""
    method = Uniform()
    options = Calibration(settings.observer, settings.power, settings.bias_correction)
    statistics = gather(network, calibration, method)
    checkpoint = calibrated(network, calibration, make_plan(network, method, statistics), statistics, options)
    groups = activation_groups(network.workload)
    parts = part_counts(network, groups, settings)
    by_name = {one.name: one for one in groups}
    return Base(checkpoint, statistics, options, by_name, calibration, parts, settings.drop_bits)


def _images(batches: Batches, what: str) -> list[Tensor]:
    found = [batch if isinstance(batch, Tensor) else batch[0] for batch in batches]
    if not sum(len(one) for one in found):
        raise AccelsimError(Problem(f"penalties: {what}", "there are no images", "at least one batch"))
    return found


def _fingerprint(batches: Iterable[Tensor]) -> str:
    state = hashlib.sha256()
    for images in batches:
        state.update(repr(tuple(images.shape)).encode() + images.contiguous().numpy().tobytes())
    return state.hexdigest()[:16]


def _metrics(change: Change) -> tuple[str, ...]:
    return (KL, CURVATURE) if change.kind == FILTERS else (KL,)


def _found(store: Cache, key: str, change: Change, sizes: Sequence[int]) -> Found:
    kl, *filters = (_mean(store, key, change, metric, sizes) for metric in _metrics(change))
    return Found(float(kl[0]), *filters)


def _mean(store: Cache, key: str, change: Change, metric: str, sizes: Sequence[int]) -> Floats:
    """Mean over all images of what the cache has: a number for KL, [filters] for the curvature."""
    means = [rows.mean(axis=0) for rows in store.rows(key, change.text, metric)]
    return np.asarray(np.average(np.stack(means), axis=0, weights=sizes), np.float64)


def _measure(
    base: Base, batches: Sequence[Tensor], changes: list[Change], store: Cache, key: str, progress: Progress | None
) -> None:
    """Fill in what is missing, batch by batch."""
    there, done, total = store.keys(key), 0, len(changes) * len(batches)
    for number, images in enumerate(batches):
        layers = [one for one in changes if one.kind == FILTERS]
        if any((number, one.text, CURVATURE) not in there for one in layers):
            made = {(one.name, one.choice): base.changed(one).filters[one.name] for one in layers}
            losses = filter_losses(base.checkpoint.network, images, made, number)
            for one in layers:
                store.put(key, (number, one.text, CURVATURE), losses[one.name, one.choice][None])
        missing = [one for one in changes if (number, one.text, KL) not in there]
        done += len(changes) - len(missing)
        for change, rows in _divergences(base, images, missing):
            store.put(key, (number, change.text, KL), rows[:, None])
            store.spend(key, {})
            done += 1
            if progress is not None:
                progress("penalties", done, total)


def _divergences(base: Base, images: Tensor, changes: list[Change]) -> Iterator[tuple[Change, Tensor]]:
    """KL of every image for each change; the float network runs once, a change goes on from its first op's block."""
    if not changes:
        return
    network = base.checkpoint.network
    parts = segments(network)
    place = {node.name: k for k, part in enumerate(parts) for node in part}
    waiting: dict[int, list[Change]] = {}
    for change in changes:
        waiting.setdefault(min(place[op] for op in base.ops(change)), []).append(change)
    given: dict[str, Tensor] = {}
    with torch.no_grad():
        exact = _log_probabilities(network, images, Numerics(), given, network.nodes)
        for k, part in enumerate(parts):
            rest = tuple(node for later in parts[k:] for node in later)
            for change in waiting.get(k, []):
                found = _log_probabilities(network, images, Alone(base, change), given, rest)
                yield change, (exact.exp() * (exact - found)).sum(1)
            given = run(network, images, given=given, nodes=part, keep=[part[-1].op.output])


def _log_probabilities(
    network: Network, images: Tensor, numerics: Numerics, given: dict[str, Tensor], nodes: tuple[Node, ...]
) -> Tensor:
    last = network.workload.output
    logits = run(network, images, numerics, given=given, nodes=nodes, keep=[last])[last]
    return F.log_softmax(logits.reshape(len(images), -1).double(), dim=1)
