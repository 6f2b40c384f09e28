"""Measure a penalty table: what the output of a calibrated network loses when one choice is made coarser.

Every choice starts from the same base: 8-bit weights and activations, 16-bit numerators, exact division, calibrated as
`quant.quantize` does it.  One op's filters, one group's stored outputs or the division change; the loss is the mean
over images of KL(p ‖ p̂) between the softmax outputs of the base network and of the changed one.  No labels are needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from accelsim.formats import Format
from accelsim.ir import OpKind, digest
from accelsim.problems import AccelsimError, Problem
from quant.calibrate import Calibration
from quant.fake import FakeQuantized
from quant.methods.uniform import Uniform
from quant.network import Network, Node, run
from quant.penalties.activation_groups import activation_groups
from quant.penalties.changes import Base, Change, Changed
from quant.penalties.shares import output_errors, split
from quant.penalties.table import FORMAT, Floats, PenaltyTable, ordered, rounded
from quant.quantize import calibrated, gather, make_plan
from quant.sensitivity.cache import Cache
from quant.sensitivity.measure import network_fingerprint
from quant.structure import segments

Batches = Iterable[Tensor | Sequence[Tensor]]
Progress = Callable[[str, int, int], None]
BASE_FORMAT = "u8"  # of weights and stored tensors
METRIC = "kl"
MEANING = "KL divergence (nats, mean over images) of the outputs from those of the base network"


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
        if self.divisions[:1] != ("divide",) or not set(self.divisions) <= {"divide", "log2_shift"}:
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
    once; the loss is split among them in proportion to the error that each adds to the op's outputs
    (`shares.output_errors`).  Entries are clipped at 0, and a coarser format never costs less than a finer one of its
    scheme (`table.ordered`).  With `cache`, a file, finished work is kept there: the same call after a kill goes on.
    Raises AccelsimError for no images, unknown formats, or a network that cannot be calibrated.
    """
    chosen = Settings() if settings is None else settings
    fitted = _images(calibration, "calibration")
    seen = fitted if validation is None else _images(validation, "validation")
    base = make_base(network, fitted, chosen)
    prints = {"network": network_fingerprint(network), "images": _fingerprint([*fitted, *seen])}
    changes = _changes(base, chosen)
    how = [chosen.observer, chosen.power, chosen.bias_correction]
    sizes = [len(one) for one in fitted], [len(one) for one in seen]
    store, key = Cache(cache), digest([FORMAT, METRIC, how, prints, sizes])
    try:
        _measure(base, seen, changes, store, key, progress)
        losses = {one: float(np.concatenate(store.rows(key, one.text, METRIC)).mean()) for one in changes}
    finally:
        store.close()
    counts = {"calibration_images": sum(sizes[0]), "images": sum(sizes[1])}
    return _assemble(base, chosen, losses, prints, {**asdict(chosen), **counts})


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


def _changes(base: Base, settings: Settings) -> list[Change]:
    """Everything to measure; what the base has is not."""
    nodes = base.checkpoint.network.nodes
    layers = [node.name for node in nodes if node.has_filters]
    divides = any(node.op.op_class == "division" for node in nodes)
    return [
        *(Change("filters", op, fmt) for op in layers for fmt in settings.formats if fmt != BASE_FORMAT),
        *(Change("outputs", g, fmt) for g in base.groups for fmt in settings.activation_formats if fmt != BASE_FORMAT),
        *(Change("division", "", one) for one in settings.divisions[1:] if divides),
    ]


def _measure(
    base: Base, batches: Sequence[Tensor], changes: list[Change], store: Cache, key: str, progress: Progress | None
) -> None:
    """Fill in what is missing, batch by batch."""
    there, done, total = store.keys(key), 0, len(changes) * len(batches)
    numerics = FakeQuantized(base.checkpoint)
    for number, images in enumerate(batches):
        missing = [one for one in changes if (number, one.text, METRIC) not in there]
        done += len(changes) - len(missing)
        for change, rows in _divergences(base, numerics, images, missing):
            store.put(key, (number, change.text, METRIC), rows[:, None])
            store.spend(key, {})
            done += 1
            if progress is not None:
                progress("penalties", done, total)


def _divergences(
    base: Base, numerics: FakeQuantized, images: Tensor, changes: list[Change]
) -> Iterator[tuple[Change, Tensor]]:
    """KL of every image for each change; the base network runs once, a change goes on from its first op's block."""
    if not changes:
        return
    network = base.checkpoint.network
    parts = segments(network)
    place = {node.name: k for k, part in enumerate(parts) for node in part}
    waiting: dict[int, list[Change]] = {}
    for change in changes:
        waiting.setdefault(min(place[op] for op in base.ops(change)), []).append(change)
    with torch.no_grad():
        exact = _log_probabilities(network, images, numerics, {}, network.nodes)
        given: dict[str, Tensor] = {}
        for k, part in enumerate(parts):
            rest = tuple(node for later in parts[k:] for node in later)
            for change in waiting.get(k, []):
                rules = Changed(base.changed(change), numerics, base.ops(change))
                found = _log_probabilities(network, images, rules, given, rest)
                yield change, (exact.exp() * (exact - found)).sum(1)
            given = run(network, images, numerics, given=given, nodes=part, keep=[part[-1].op.output])


def _log_probabilities(
    network: Network, images: Tensor, numerics: FakeQuantized, given: dict[str, Tensor], nodes: tuple[Node, ...]
) -> Tensor:
    last = network.workload.output
    logits = run(network, images, numerics, given=given, nodes=nodes, keep=[last])[last]
    return F.log_softmax(logits.reshape(len(images), -1).double(), dim=1)


def _assemble(
    base: Base, settings: Settings, losses: dict[Change, float], prints: dict[str, str], about: dict[str, object]
) -> PenaltyTable:
    network, formats = base.checkpoint.network, settings.formats
    filters = {
        node.name: rounded(ordered(_of_filters(base, node, formats, losses), formats))
        for node in network.nodes
        if node.has_filters
    }
    names = settings.activation_formats
    activations = {}
    for group in base.groups:
        found = np.array([losses.get(Change("outputs", group, name), 0.0) for name in names])
        activations[group] = dict(zip(names, rounded(ordered(found, names)).tolist(), strict=True))
    divisions = np.array([losses.get(Change("division", "", one), 0.0) for one in settings.divisions])
    return PenaltyTable(
        network.workload.name, prints, MEANING, about, formats, filters, tuple(base.groups.values()), activations,
        dict(zip(settings.divisions, rounded(np.maximum(divisions, 0.0)).tolist(), strict=True)),
        {node.name: node.op.op_class for node in network.nodes if node.op.kind is not OpKind.VIEW},
        base.checkpoint.plan,
    )  # fmt: skip


def _of_filters(base: Base, node: Node, formats: Sequence[str], losses: dict[Change, float]) -> Floats:
    """Losses [filters, formats] of an op: what was measured for all filters, split among them."""
    errors = {name: output_errors(node, base.statistics, Format.parse(name), base.options) for name in formats}
    columns = [
        split(losses.get(Change("filters", node.name, name), 0.0), errors[name], errors[BASE_FORMAT])
        for name in formats
    ]
    return np.stack(columns, axis=1)
