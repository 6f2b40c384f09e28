"""Measure a penalty table: what the network's output loses when one choice is quantized and nothing else is.

The choice (an op's filters, a group's stored outputs, the divisors of linear attention) is calibrated as
`quant.quantize` does it; all else computes in floating point.  The loss is the mean over images of KL(p ‖ p̂) between
the softmax outputs of the float network and of this one, less the same of the base's choice (8 bits; 16 for
numerators; exact division).  No labels are needed.  In the base network instead, with everything else in 8 bits, each
change also draws the rounding errors of all later tensors anew, which looks like a loss (docs/penalties.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from accelsim.formats import Format
from accelsim.ir import OpKind, digest
from accelsim.problems import AccelsimError, Problem
from quant.calibrate import Calibration
from quant.methods.uniform import Uniform
from quant.network import Network, Node, Numerics, run
from quant.penalties.activation_groups import activation_groups
from quant.penalties.changes import Alone, Base, Change
from quant.penalties.curvature import filter_losses
from quant.penalties.table import FORMAT, Floats, PenaltyTable, ordered, rounded
from quant.quantize import calibrated, gather, make_plan
from quant.sensitivity.cache import Cache
from quant.sensitivity.measure import network_fingerprint
from quant.structure import segments

Batches = Iterable[Tensor | Sequence[Tensor]]
Progress = Callable[[str, int, int], None]
BASE_FORMAT, EXACT = "u8", "divide"  # of weights and stored tensors; of divisions
KL, CURVATURE = "kl", "curvature"  # what the cache holds per change: [images, 1]; [1, filters]
MEANING = "KL divergence (nats, mean over images) of the choice alone in the float network, less that of the base's"


@dataclass(frozen=True)
class Settings:
    """Which formats and division methods are priced, and how ranges and scales are found (`Calibration`)."""

    formats: tuple[str, ...] = ("u8", "u6", "u4", "apot8", "pot4")
    activation_formats: tuple[str, ...] = ("u8", "u6", "u4")
    divisions: tuple[str, ...] = ("divide", "log2_shift")
    observer: str = "mse"
    power: float = 2.4
    bias_correction: bool = True

    def __post_init__(self) -> None:
        problems = []
        for name in ("formats", "activation_formats"):
            given = getattr(self, name)
            for one in given:
                Format.parse(one, name)
            if BASE_FORMAT not in given or len(set(given)) < len(given):
                problems.append(
                    Problem(name, f"is {', '.join(given)}", f"{BASE_FORMAT} (the base) and others, each once")
                )
        if EXACT not in self.divisions or not set(self.divisions) <= {EXACT, "log2_shift"}:
            problems.append(Problem("divisions", f"is {', '.join(self.divisions)}", "divide, or divide and log2_shift"))
        problems += [
            Problem("activation_formats", f"{one} is not uniform", "u2 … u16")
            for one in self.activation_formats
            if not one.startswith("u")
        ]
        if problems:
            raise AccelsimError(problems)


def measure_penalties(
    network: Network,
    calibration: Batches,
    validation: Batches | None = None,
    settings: Settings | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> PenaltyTable:
    """Penalties of every format of every op's filters and activation group, and of the division methods, in nats.

    `calibration` gives batches of images [n, channels, h, w] for ranges and scales, `validation` those on which the
    loss is measured (None: the same); images are kept, labels are ignored.  Per op all filters have the format at
    once; the loss is split among them in proportion to the second-order loss of each alone
    (`curvature.filter_losses`).  Entries are clipped at 0, and a coarser format never costs less than a finer one of
    its scheme (`table.ordered`).  With `cache`, a file, finished work is kept there: the same call after a kill goes on.
    Memory: the filters of all formats, four bytes each, and for one batch the activations of one block (for one image
    those of the whole network).
    Raises AccelsimError for no images, unknown formats, or a network that cannot be calibrated.
    """
    chosen = Settings() if settings is None else settings
    fitted = _images(calibration, "calibration")
    seen = fitted if validation is None else _images(validation, "validation")
    base = make_base(network, fitted, chosen)
    prints = {"network": network_fingerprint(network), "images": _fingerprint([*fitted, *seen])}
    changes = _changes(base, chosen)
    sizes = [len(one) for one in fitted], [len(one) for one in seen]
    how = [chosen.observer, chosen.power, chosen.bias_correction, sizes]
    store, key = Cache(cache), digest([FORMAT, how, prints])
    try:
        _measure(base, seen, changes, store, key, progress)
        found = {one: _Found(*(_mean(store, key, one, what, sizes[1]) for what in _metrics(one))) for one in changes}
    finally:
        store.close()
    about = {**asdict(chosen), "calibration_images": sum(sizes[0]), "images": sum(sizes[1])}
    return _assemble(base, chosen, found, prints, about)


def make_base(network: Network, calibration: Sequence[Tensor], settings: Settings) -> Base:
    """The network calibrated under the base plan."""
    method = Uniform()
    options = Calibration(settings.observer, settings.power, settings.bias_correction)
    statistics = gather(network, calibration, method)
    checkpoint = calibrated(network, calibration, make_plan(network, method, statistics), statistics, options)
    return Base(checkpoint, statistics, options, {one.name: one for one in activation_groups(network.workload)})


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


@dataclass(frozen=True, eq=False)
class _Found:
    """What was measured of a change: KL in nats, and the second-order loss of each filter."""

    kl: Floats
    filters: Floats = field(default_factory=lambda: np.zeros(0))


def _changes(base: Base, settings: Settings) -> list[Change]:
    """Everything to measure, what the base has included."""
    nodes = base.checkpoint.network.nodes
    layers = [node.name for node in nodes if node.has_filters]
    divides = any(node.op.op_class == "division" for node in nodes)
    return [
        *(Change("filters", op, fmt) for op in layers for fmt in settings.formats),
        *(Change("outputs", group, fmt) for group in base.groups for fmt in settings.activation_formats),
        *(Change("division", "", one) for one in settings.divisions if divides),
    ]


def _metrics(change: Change) -> tuple[str, ...]:
    return (KL, CURVATURE) if change.kind == "filters" else (KL,)


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
        layers = [one for one in changes if one.kind == "filters"]
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


def _assemble(
    base: Base, settings: Settings, found: dict[Change, _Found], prints: dict[str, str], about: dict[str, object]
) -> PenaltyTable:
    network = base.checkpoint.network

    def losses(kind: str, name: str, choices: Sequence[str], reference: str) -> Floats:
        every = [Change(kind, name, one) for one in choices]
        if not set(every) <= found.keys():
            return np.zeros(len(choices))  # no op divides
        return np.array([float(found[one].kl[0] - found[Change(kind, name, reference)].kl[0]) for one in every])

    filters = {}
    for node in network.nodes:
        if node.has_filters:
            of_op = losses("filters", node.name, settings.formats, BASE_FORMAT)
            alone = {one: found[Change("filters", node.name, one)].filters for one in settings.formats}
            columns = [split(loss, alone[one], alone[BASE_FORMAT]) for loss, one in zip(of_op, alone, strict=True)]
            filters[node.name] = rounded(ordered(np.stack(columns, axis=1), settings.formats))
    names = settings.activation_formats
    activations = {}
    for group in base.groups:
        values = rounded(ordered(losses("outputs", group, names, BASE_FORMAT), names))
        activations[group] = dict(zip(names, values.tolist(), strict=True))
    divisions = rounded(np.maximum(losses("division", "", settings.divisions, EXACT), 0.0))
    return PenaltyTable(
        network.workload.name, prints, MEANING, about, settings.formats, filters, tuple(base.groups.values()),
        activations, dict(zip(settings.divisions, divisions.tolist(), strict=True)),
        {node.name: node.op.op_class for node in network.nodes if node.op.kind is not OpKind.VIEW},
        base.checkpoint.plan,
    )  # fmt: skip


def split(loss: float, alone: Floats, base: Floats) -> Floats:
    """The loss [filters] in proportion to what each filter alone loses beyond the base format; evenly if none does."""
    more = np.maximum(alone - base, 0.0)
    total = float(more.sum())
    return loss * (more / total if total > 0 else np.full(len(more), 1.0 / len(more)))
