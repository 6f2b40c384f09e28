"""Technology data: numbers that carry their provenance, read once from `accelsim/tech/`."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from accelsim.problems import AccelsimError, Problem

DATA = Path(__file__).parent / "tech"
NODES_NM: tuple[int, ...] = (28, 45)


@dataclass(frozen=True)
class Quantity:
    """One number of a technology file with where it comes from: exactly one of `source` and `derived` is set.

    `low` and `high` bound an estimate, or the spread between sources; both equal `value` when the file gives no range.
    """

    value: float
    source: str
    derived: str
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Technology:
    """Prices of one node.

    `rows` maps dotted names (`arithmetic.add_32_pj`) to quantities, `pe_area_um2` the synthesized units (Nangate 45 nm
    library, scaled to this node) to cell area, `dram_pj_per_bit` the DRAM types to system energy.
    """

    node_nm: int
    rows: Mapping[str, Quantity]
    pe_area_um2: Mapping[str, float]
    dram_pj_per_bit: Mapping[str, Quantity]

    def value(self, name: str) -> float:
        """The number of a row, in the unit that ends its name.  Raises KeyError for a name that is not a row."""
        return self.rows[name].value

    def children(self, prefix: str) -> tuple[str, ...]:
        """Names one level below `prefix`, in file order; empty when there is no such group."""
        start = prefix + "."
        inner = (name[len(start) :].split(".")[0] for name in self.rows if name.startswith(start))
        return tuple(dict.fromkeys(inner))


@cache
def load_technology(node_nm: int) -> Technology:
    """Technology of a node, 28 or 45 nm.  Raises AccelsimError with the list of nodes otherwise."""
    if node_nm not in NODES_NM:
        nodes = ", ".join(str(node) for node in NODES_NM)
        raise AccelsimError(
            Problem("node_nm", f"no technology data for {node_nm} nm", f"one of {nodes}", tuple(map(str, NODES_NM)))
        )
    name = f"{node_nm}nm.yaml"
    rows = parse_rows((DATA / name).read_text(encoding="utf-8"), name)
    factor = rows["scaling.area_factor"].value
    area = {row["unit"]: float(row["nangate45_um2"]) * factor for row in read_csv("pe_area.csv")}
    return Technology(node_nm, rows, area, _dram_rows())


def parse_rows(text: str, where: str) -> dict[str, Quantity]:
    """Rows of a technology file: nested groups whose leaves are mappings with `value` and `source` or `derived`.

    `where` names the file in messages.  Raises AccelsimError with every faulty row: no provenance, both kinds, a value
    that is not a positive number, an unknown key, a range that does not enclose the value, a bare number.
    """
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise AccelsimError(Problem(where, f"is not YAML: {error}", "nested mappings")) from error
    rows: dict[str, Quantity] = {}
    problems: list[Problem] = []
    _collect(data, "", where, rows, problems)
    if problems:
        raise AccelsimError(problems)
    return rows


def read_csv(name: str) -> list[dict[str, str]]:
    """Rows of a data file in `accelsim/tech/`; lines that start with # hold its source."""
    with open(DATA / name, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(_without_comments(stream)))


def _without_comments(lines: Iterable[str]) -> Iterable[str]:
    return (line for line in lines if not line.startswith("#"))


def _dram_rows() -> dict[str, Quantity]:
    rows: dict[str, Quantity] = {}
    for row in read_csv("dram_pj_per_bit.csv"):
        leaf: dict[str, Any] = {"value": float(row["pj_per_bit"]), "source": row["source"]}
        if row["low"]:
            leaf["range"] = [float(row["low"]), float(row["high"])]
        problems: list[Problem] = []
        _collect(leaf, row["type"], "dram_pj_per_bit.csv", rows, problems)
        if problems:
            raise AccelsimError(problems)
    return rows


def _collect(node: Any, name: str, where: str, rows: dict[str, Quantity], problems: list[Problem]) -> None:
    place = f"{where}: {name or 'top level'}"
    if not isinstance(node, dict) or not node:
        problems.append(Problem(place, f"is {node!r}", "a mapping with `value` and `source` or `derived`"))
        return
    if "value" in node or "source" in node or "derived" in node:
        found = _faults(node, place)
        problems.extend(found)
        if not found:
            low, high = node.get("range", [node["value"], node["value"]])
            rows[name] = Quantity(
                float(node["value"]), node.get("source", ""), node.get("derived", ""), float(low), float(high)
            )
        return
    for key, child in node.items():
        _collect(child, f"{name}.{key}" if name else str(key), where, rows, problems)


def _faults(leaf: dict[str, Any], place: str) -> list[Problem]:
    faults = []
    value: Any = leaf.get("value")
    unknown = sorted(set(map(str, leaf)) - {"value", "source", "derived", "range"})
    if unknown:
        faults.append(Problem(place, f"has unknown keys {', '.join(unknown)}", "value, source, derived, range"))
    if not _is_number(value) or value <= 0:
        faults.append(Problem(place, f"has the value {value!r}", "a positive number"))
    texts = [leaf[key] for key in ("source", "derived") if key in leaf]
    if len(texts) != 1 or not isinstance(texts[0], str) or not texts[0].strip():
        faults.append(Problem(place, "does not say where its number comes from", "one text, `source` or `derived`"))
    if "range" in leaf and not (faults or _encloses(leaf["range"], value)):
        faults.append(Problem(place, f"has the range {leaf['range']!r}", f"[low, high] with low ≤ {value} ≤ high"))
    return faults


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _encloses(bounds: Any, value: float) -> bool:
    if not isinstance(bounds, list) or len(bounds) != 2 or not all(_is_number(bound) for bound in bounds):
        return False
    return bool(bounds[0] <= value <= bounds[1])
