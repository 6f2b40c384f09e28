"""The sensitivity table and its JSON; rank agreement of its metrics.  No torch here: allocators read this."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.files import write_text_atomic
from accelsim.ir import digest
from accelsim.problems import AccelsimError, Problem

if TYPE_CHECKING:
    from quant.statistics import Interval

FORMAT = "quant.sensitivity/1"
KINDS = ("weight", "activation", "head_weight", "head_activation")  # those of a table unless others are asked for
PRODUCT = "product"
ALL_KINDS = (*KINDS, PRODUCT)
MEASURED = "cross_entropy"
ALL_LAYERS, ALL_PRODUCTS = "all layers", "all products"
PROBES = 16  # random vectors of `hessian_trace`, per batch
FEWEST = 8  # components of a group: of fewer the rank correlation says nothing
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Component:
    """What is rounded while the rest stays in floating point.

    `kind` is "weight" (all filters of an op), "activation" (an op's stored output), "head_weight" or
    "head_activation" (the output channels of one attention head).  `parts` are (op, channel ranges first … stop − 1);
    no ranges mean all channels.  A head whose queries, keys and values come from several ops has several parts.
    A "product" is one op of an array engine, its only part: its filters, if it has some, and the stored outputs of
    the ops in `reads` are rounded together.
    """

    kind: str
    parts: tuple[tuple[str, Ranges], ...]
    head: int | None = None
    reads: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The op's name, with the number of the head."""
        return self.parts[0][0] if self.head is None else f"{self.parts[0][0]}#{self.head}"

    @property
    def layers(self) -> tuple[tuple[str, Ranges], ...]:
        """(op, channel ranges) whose filters are rounded, where the op has filters."""
        return () if self.kind.endswith("activation") else self.parts

    @property
    def stored(self) -> tuple[tuple[str, Ranges], ...]:
        """(op, channel ranges) whose stored outputs are rounded."""
        if self.kind == PRODUCT:
            return tuple((op, ()) for op in self.reads)
        return self.parts if self.kind.endswith("activation") else ()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        parts = [{"op": op, "channels": [list(part) for part in ranges]} for op, ranges in self.parts]
        data = {"kind": self.kind, "parts": parts, "head": self.head}
        return {**data, "reads": list(self.reads)} if self.reads else data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Component:
        """The inverse of `to_json`."""
        parts = tuple((one["op"], tuple((int(a), int(b)) for a, b in one["channels"])) for one in data["parts"])
        return Component(data["kind"], parts, data["head"], tuple(data.get("reads", ())))


@dataclass(frozen=True)
class Row:
    """A component at `bits` bits: every metric's value, and intervals (95 %) of those that are measured."""

    component: Component
    bits: int
    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class ChannelRow:
    """Proxies of every output channel of an op's filters at `bits` bits, in the order of the channels."""

    op: str
    bits: int
    values: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Passes:
    """What a metric ran, in passes over all images of its split.

    `forward` counts a run of some ops by their share of the network's MACs, `runs` each of them as one.  `backward` are
    gradients of a whole forward pass, `hessian` products of the Hessian with a vector, each a backward pass through the
    graph of such a gradient.
    """

    forward: float = 0.0
    runs: float = 0.0
    backward: float = 0.0
    hessian: float = 0.0


@dataclass(frozen=True)
class MetricInfo:
    """A metric of the table: the images it ran on, whether it rises with the error, CPU seconds it took on its own.

    So with `passes`; tables of earlier versions have none.
    """

    name: str
    split: str
    rising: bool
    seconds: float
    passes: Passes | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data; numbers with seven significant digits."""
        data = {"name": self.name, "split": self.split, "rising": self.rising, "seconds": _short(self.seconds)}
        if self.passes is None:
            return data
        return {**data, "passes": {name: _short(value) for name, value in vars(self.passes).items()}}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> MetricInfo:
        """The inverse of `to_json`."""
        passes = Passes(**data["passes"]) if "passes" in data else None
        return MetricInfo(data["name"], data["split"], data["rising"], data["seconds"], passes)


@dataclass(frozen=True)
class SensitivityTable:
    """Sensitivity of a network's components.

    `fingerprints` are those of "network", "calibration" and "validation"; `images` their numbers; `reference` has the
    float network's cross-entropy (nats) and top-1 on the validation images; `settings` say how components were rounded.
    """

    network: str
    fingerprints: Mapping[str, str]
    images: Mapping[str, int]
    reference: Mapping[str, float]
    settings: Mapping[str, Any]
    metrics: tuple[MetricInfo, ...]
    rows: tuple[Row, ...]
    channels: tuple[ChannelRow, ...] = ()

    def value(self, component: Component, bits: int, metric: str) -> float:
        """One number.  Raises AccelsimError when the table does not have it."""
        for row in self.rows:
            if row.component == component and row.bits == bits and metric in row.values:
                return row.values[metric]
        where = f"sensitivity of {self.network}"
        raise AccelsimError(Problem(where, f"has no {metric} of {component.kind} {component.name} at {bits} bits"))

    def components(self, kind: str) -> tuple[Component, ...]:
        """Components of one kind, in order of execution."""
        return tuple(dict.fromkeys(row.component for row in self.rows if row.component.kind == kind))

    def records(self) -> list[dict[str, Any]]:
        """One flat dictionary per row, for a CSV file or a data frame."""
        records = []
        for row in self.rows:
            record: dict[str, Any] = {"kind": row.component.kind, "component": row.component.name, "bits": row.bits}
            record |= row.values
            for name, (low, high) in row.intervals.items():
                record |= {f"{name}_low": low, f"{name}_high": high}
            records.append(record)
        return records

    def to_json(self) -> dict[str, Any]:
        """Plain data; numbers with seven significant digits."""
        return {
            "format": FORMAT,
            "network": self.network,
            "fingerprints": dict(self.fingerprints),
            "images": dict(self.images),
            "reference": {name: _short(value) for name, value in self.reference.items()},
            "settings": dict(self.settings),
            "metrics": [one.to_json() for one in self.metrics],
            "rows": [
                {
                    **row.component.to_json(),
                    "bits": row.bits,
                    "values": {name: _short(value) for name, value in row.values.items()},
                    "intervals": {name: [_short(end) for end in ends] for name, ends in row.intervals.items()},
                }
                for row in self.rows
            ],
            "channels": [
                {
                    "op": row.op,
                    "bits": row.bits,
                    "values": {name: [_short(one) for one in values] for name, values in row.values.items()},
                }
                for row in self.channels
            ],
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> SensitivityTable:
        """The inverse of `to_json`.  Raises AccelsimError when the data are something else."""
        if data.get("format") != FORMAT:
            raise AccelsimError(Problem("sensitivity table", f"has the format {data.get('format')!r}", FORMAT))
        try:
            return _table(data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AccelsimError(
                Problem("sensitivity table", f"is damaged ({error!r})", "a table as written")
            ) from error

    def fingerprint(self) -> str:
        """Hash of everything but seconds and passes, which a run that was killed and went on has more of."""
        metrics = [{**replace(one, passes=None).to_json(), "seconds": 0} for one in self.metrics]
        return digest({**self.to_json(), "metrics": metrics})

    def save(self, path: str | Path) -> None:
        """Write the table as JSON, one row per line."""
        data = self.to_json()
        parts = []
        for name, value in data.items():
            long = name in ("rows", "channels", "metrics") and value
            text = ",\n  ".join(json.dumps(one) for one in value) if long else ""
            parts.append(f'"{name}": [\n  {text}\n ]' if long else f'"{name}": {json.dumps(value)}')
        write_text_atomic(path, "{\n " + ",\n ".join(parts) + "\n}\n")


def load_table(path: str | Path) -> SensitivityTable:
    """A table that `SensitivityTable.save` wrote.  Raises AccelsimError when there is none."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        levers = ("accelsim sensitivity MODEL --data D -o FILE.json",)
        raise AccelsimError(Problem(str(path), f"cannot be read ({error})", "a sensitivity table", levers)) from error
    return SensitivityTable.from_json(data if isinstance(data, dict) else {})


def _short(value: float) -> float:
    return float(f"{value:.7g}")


def _table(data: Mapping[str, Any]) -> SensitivityTable:
    rows = tuple(
        Row(
            Component.from_json(row), int(row["bits"]), dict(row["values"]),
            {name: (float(low), float(high)) for name, (low, high) in row["intervals"].items()},
        )
        for row in data["rows"]
    )  # fmt: skip
    channels = tuple(
        ChannelRow(row["op"], int(row["bits"]), {name: tuple(values) for name, values in row["values"].items()})
        for row in data["channels"]
    )
    metrics = tuple(MetricInfo.from_json(one) for one in data["metrics"])
    return SensitivityTable(
        data["network"], dict(data["fingerprints"]), dict(data["images"]), dict(data["reference"]),
        dict(data["settings"]), metrics, rows, channels,
    )  # fmt: skip


@dataclass(frozen=True)
class Agreement:
    """Kendall's τ-b of a metric with the measured increase of cross-entropy over a group of components.

    `bits` is None where rows of several widths stand together; `tau` has a 95 % bootstrap interval over components.
    """

    metric: str
    group: str
    bits: int | None
    components: int
    tau: Interval


def agreements(table: SensitivityTable, measured: str = MEASURED) -> tuple[Agreement, ...]:
    """τ-b of every other metric with `measured`, for each kind and width, and for all layers or products together.

    Signs are such that 1 is perfect agreement (a signal-to-noise ratio falls with the error).  Groups of fewer than
    `FEWEST` components are left out.  Raises AccelsimError when the table has no such metric.
    """
    from quant.statistics import kendall  # numpy: the command line reads the constants above without it

    rising = {one.name: one.rising for one in table.metrics}
    if measured not in rising:
        raise AccelsimError(
            Problem(f"sensitivity of {table.network}", f"has no metric {measured!r}", ", ".join(rising))
        )
    groups: dict[tuple[str, int | None], list[Row]] = {(ALL_LAYERS, None): []}
    for row in table.rows:
        groups.setdefault((row.component.kind, row.bits), []).append(row)
        if row.component.kind == PRODUCT:
            groups.setdefault((ALL_PRODUCTS, None), []).append(row)
        elif row.component.head is None:
            groups[ALL_LAYERS, None].append(row)
    found = []
    for (group, bits), rows in groups.items():
        for name in rising:
            chosen = [row for row in rows if name in row.values and measured in row.values]
            if name == measured or len(chosen) < FEWEST:
                continue
            sign = 1.0 if rising[name] == rising[measured] else -1.0
            tau = kendall([sign * row.values[name] for row in chosen], [row.values[measured] for row in chosen])
            found.append(Agreement(name, group, bits, len(chosen), tau))
    return tuple(found)
