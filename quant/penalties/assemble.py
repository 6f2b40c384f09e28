"""From measured divergences to a penalty table: differences to the base, clipped, ordered, split among filters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from accelsim.formats import Scheme
from accelsim.ir import OpKind
from quant.penalties.changes import CODED, DIVISION, FILTERS, FULL, OUTPUTS, PARTS, TOKENS, Base, Change
from quant.penalties.choices import StoredChoice
from quant.penalties.settings import BASE_FORMAT, EXACT, Settings
from quant.penalties.table import Floats, PenaltyTable, ordered, rounded

MEANING = "KL divergence (nats, mean over images) of the choice alone in the float network, less that of the base's"


@dataclass(frozen=True, eq=False)
class Found:
    """What was measured of a change: KL in nats, and the second-order loss of each filter."""

    kl: float
    filters: Floats = field(default_factory=lambda: np.zeros(0))


def assemble(
    base: Base, settings: Settings, found: Mapping[Change, Found], prints: Mapping[str, str], images: Mapping[str, int]
) -> PenaltyTable:
    """The table of everything that was measured; `prints` are its fingerprints, `images` how many images were seen."""
    network = base.checkpoint.network
    filters = {node.name: _filters(node.name, settings, found) for node in network.nodes if node.has_filters}
    activations: dict[str, dict[str, float]] = {name: {} for name in base.groups}
    for change in found:
        if change.kind == OUTPUTS:
            activations[change.name][change.choice] = _outputs(change, found)
    divisions = {
        one: _extra(found, Change(DIVISION, "", one), Change(DIVISION, "", EXACT)) for one in settings.divisions
    }
    tokens: dict[str, dict[str, float]] = {}
    for change in found:
        if change.kind == TOKENS:
            extra = _extra(found, change, Change(TOKENS, change.name, FULL))
            tokens.setdefault(change.name, {})[change.choice] = _clipped(extra)
    return PenaltyTable(
        network.workload.name, prints, MEANING, {**asdict(settings), **images}, settings.formats, filters,
        tuple(base.groups.values()), {name: in_order(values) for name, values in activations.items()},
        {one: _clipped(value) for one, value in divisions.items()},
        {node.name: node.op.op_class for node in network.nodes if node.op.kind is not OpKind.VIEW},
        base.checkpoint.plan, {name: _parts(name, count, settings, found) for name, count in base.parts.items()},
        tokens, settings.drop_bits if tokens else 0,
    )  # fmt: skip


def in_order(values: Mapping[str, float]) -> dict[str, float]:
    """Losses by choice, not below 0, six digits; of uniform formats by one method a coarser one never costs less."""
    chains: dict[str, list[str]] = {}
    for name in values:
        choice = StoredChoice.parse(name)
        # Ratios of two regions come from data, so more bits need not lose less.
        chains.setdefault(choice.method if choice.format.scheme is Scheme.UNIFORM else name, []).append(name)
    result: dict[str, float] = {}
    for names in chains.values():
        formats = [StoredChoice.parse(name).format.name for name in names]
        row = rounded(ordered(np.array([values[name] for name in names]), formats))
        result.update(zip(names, row.tolist(), strict=True))
    return {name: result[name] for name in values}


def split(loss: float, alone: Floats, base: Floats) -> Floats:
    """The loss [filters] in proportion to what each filter alone loses beyond the base format; evenly if none does."""
    more = np.maximum(alone - base, 0.0)
    total = float(more.sum())
    return loss * (more / total if total > 0 else np.full(len(more), 1.0 / len(more)))


def _filters(op: str, settings: Settings, found: Mapping[Change, Found]) -> Floats:
    """Losses [filters, formats] of an op."""
    every = [found[Change(FILTERS, op, one)] for one in settings.formats]
    base = found[Change(FILTERS, op, BASE_FORMAT)]
    columns = [split(one.kl - base.kl, one.filters, base.filters) for one in every]
    return rounded(ordered(np.stack(columns, axis=1), settings.formats))


def _outputs(change: Change, found: Mapping[Change, Found]) -> float:
    """Loss beyond that of the base; of a method beyond that of the float function that reads the same codes."""
    method = StoredChoice.parse(change.choice).method
    return _extra(found, change, Change(CODED if method else OUTPUTS, change.name, BASE_FORMAT))


def _parts(name: str, count: int, settings: Settings, found: Mapping[Change, Found]) -> dict[str, tuple[float, ...]]:
    """Losses of every part alone, by narrower format."""
    formats = (BASE_FORMAT, *settings.head_formats)
    rows = [
        [_extra(found, Change(PARTS, name, one, k), Change(PARTS, name, BASE_FORMAT, k)) for one in formats]
        for k in range(count)
    ]
    columns = rounded(ordered(np.array(rows), formats)).T.tolist()
    return {one: tuple(column) for one, column in zip(formats[1:], columns[1:], strict=True)}


def _extra(found: Mapping[Change, Found], change: Change, reference: Change) -> float:
    """How much more a change loses than its reference; 0 for what was not measured, as no op divides."""
    return found[change].kl - found[reference].kl if change in found else 0.0


def _clipped(value: float) -> float:
    return float(rounded(np.maximum(np.array([value]), 0.0))[0])
