"""Two reports of `accelsim run --json` side by side: totals, and the ops whose time and energy changed most."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from accelsim.problems import AccelsimError, Problem

FORMAT = "accelsim.diff/1"
REPORT_FORMAT = "accelsim.report/1"
OPS_SHOWN = 10
NAMES = ("model", "resolution", "arch", "plan", "batch")
# (field, unit) of the totals; energies are per image, under the arithmetic convention unless the name says otherwise.
TOTALS = (
    ("cycles_total", "cycles"),
    ("latency_s", "s"),
    ("initiation_interval_cycles", "cycles"),
    ("energy_pj", "pJ"),
    ("energy_pj_synthesized", "pJ"),
    ("edp_pj_s", "pJ·s"),
    ("edp_pj_s_synthesized", "pJ·s"),
    ("area_mm2", "mm²"),
    ("dram_read_bits", "bits"),
    ("dram_write_bits", "bits"),
    ("macs", "MACs"),
)
NESTED = ("energy_by_component_pj", "area_by_component_mm2", "utilization", "waits_cycles")
OP_NUMBERS = ("cycles", "dynamic_energy_pj")


@dataclass(frozen=True)
class Change:
    """One number of both reports; None where a report lacks it."""

    name: str
    a: float | None
    b: float | None

    @property
    def delta(self) -> float | None:
        """How much B is above A, or None."""
        return None if self.a is None or self.b is None else self.b - self.a

    @property
    def ratio(self) -> float | None:
        """B in units of A, or None where there is none."""
        return None if self.b is None or not self.a else self.b / self.a


@dataclass(frozen=True)
class OpChange:
    """An op of both reports: its own cycles and its dynamic energy in pJ."""

    name: str
    cycles: Change
    dynamic_energy_pj: Change


@dataclass(frozen=True)
class Difference:
    """Two reports compared.  `ops` are those that both have (by name), `only_a` and `only_b` the others."""

    names: tuple[tuple[str, Any, Any], ...]
    totals: tuple[Change, ...]
    details: dict[str, tuple[Change, ...]]
    ops: tuple[OpChange, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]

    def largest(self, number: str, count: int = OPS_SHOWN) -> list[OpChange]:
        """Ops with the largest change of a number of `OP_NUMBERS`, unchanged ones left out."""
        changed = [op for op in self.ops if getattr(op, number).delta]
        return sorted(changed, key=lambda op: -abs(getattr(op, number).delta))[:count]

    def to_json(self) -> dict[str, Any]:
        """Plain data; every change has a, b, delta and ratio."""
        return {
            "format": FORMAT,
            "names": {name: {"a": a, "b": b} for name, a, b in self.names},
            "totals": {change.name: _plain(change) for change in self.totals},
            **{name: {change.name: _plain(change) for change in found} for name, found in self.details.items()},
            "ops": [{"name": op.name, **{n: _plain(getattr(op, n)) for n in OP_NUMBERS}} for op in self.ops],
            "only_a": list(self.only_a),
            "only_b": list(self.only_b),
        }


def read_report(path: str) -> dict[str, Any]:
    """A report of `accelsim run --json`.  Raises AccelsimError that names what is wrong with the file."""
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except OSError as error:
        raise _refused(path, f"cannot be read ({error.strerror})") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _refused(path, f"is not JSON ({error})") from error
    if not isinstance(data, dict) or data.get("format") != REPORT_FORMAT:
        found = f"has format {data['format']!r}" if isinstance(data, dict) and "format" in data else "is not a report"
        raise _refused(path, found)
    faults = list(_faults(data))
    if faults:
        raise AccelsimError([_problem(path, fault) for fault in faults[:8]])
    return data


def _faults(data: Mapping[str, Any]) -> Iterator[str]:
    """Fields that a report has and `data` lacks."""
    yield from (f"lacks the field {name}" for name in NAMES if name not in data)
    yield from (f"{name} is not a number" for name, _ in TOTALS if not _is_number(data.get(name)))
    yield from (f"{name} is not a table of numbers" for name in NESTED if not _is_table(data.get(name)))
    ops = data.get("ops")
    if not isinstance(ops, list):
        yield "has no list of ops"
        return
    for k, op in enumerate(ops):
        if not isinstance(op, dict) or not isinstance(op.get("name"), str):
            yield f"ops[{k}] has no name"
        else:
            yield from (f"ops[{k}].{name} is not a number" for name in OP_NUMBERS if not _is_number(op.get(name)))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _is_table(x) if isinstance(x, dict) else _is_number(x) for x in value.values()
    )


def _problem(path: str, what: str) -> Problem:
    return Problem(path, what, "a report of `accelsim run … --json FILE`")


def _refused(path: str, what: str) -> AccelsimError:
    return AccelsimError(_problem(path, what))


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> Difference:
    """Compare two reports of `read_report`."""
    ops_a, ops_b = ({op["name"]: op for op in report["ops"]} for report in (a, b))
    shared = [
        OpChange(name, *(Change(number, ops_a[name][number], ops_b[name][number]) for number in OP_NUMBERS))
        for name in ops_a
        if name in ops_b
    ]
    return Difference(
        names=tuple((name, a[name], b[name]) for name in NAMES),
        totals=tuple(Change(name, a[name], b[name]) for name, _ in TOTALS),
        details={name: tuple(_changes(a[name], b[name])) for name in NESTED},
        ops=tuple(shared),
        only_a=tuple(name for name in ops_a if name not in ops_b),
        only_b=tuple(name for name in ops_b if name not in ops_a),
    )


def _changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Change]:
    flat_a, flat_b = dict(_flat("", a)), dict(_flat("", b))
    for name in dict.fromkeys((*flat_a, *flat_b)):
        yield Change(name, flat_a.get(name), flat_b.get(name))


def _flat(prefix: str, table: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value


def _plain(change: Change) -> dict[str, float | None]:
    numbers = asdict(change)
    return {"a": numbers["a"], "b": numbers["b"], "delta": change.delta, "ratio": change.ratio}


def difference_lines(found: Difference) -> list[str]:
    """The comparison as text: designs, totals, details that changed, ops that changed most, ops without partner."""
    lines = [
        f"{side}: {values['model']} at {values['resolution']} on {values['arch']}, plan {values['plan']}, "
        f"batch {values['batch']}"
        for side, values in (
            ("A", {name: a for name, a, _ in found.names}),
            ("B", {name: b for name, _, b in found.names}),
        )
    ]
    units = dict(TOTALS)
    lines += ["", f"{'totals':42} {'A':>20} {'B':>20} {'B - A':>18} {'change':>9}"]
    lines += [_line(f"  {change.name} ({units[change.name]})", change) for change in found.totals]
    for name, changes in found.details.items():
        different = [change for change in changes if change.a != change.b]
        lines += ["", f"{name}: {_counted(len(different), len(changes))}"]
        lines += [_line(f"  {change.name}", change) for change in different]
    for number in OP_NUMBERS:
        largest = found.largest(number)
        lines += ["", f"ops with the largest change of {number}" + ("" if largest else ": none changed")]
        lines += [_line(f"  {op.name}", getattr(op, number)) for op in largest]
    for side, names in (("A", found.only_a), ("B", found.only_b)):
        if names:
            lines += ["", f"ops only in {side} ({len(names)}): {', '.join(names)}"]
    return lines


def _counted(different: int, count: int) -> str:
    return "no difference" if not different else f"{different} of {count} differ"


def _line(title: str, change: Change) -> str:
    ratio = "" if change.ratio is None else f"{change.ratio - 1:+9.1%}"
    return (
        f"{title:42} {_number(change.a):>20} {_number(change.b):>20} {_number(change.delta, '+'):>18} {ratio}".rstrip()
    )


def _number(value: float | None, sign: str = "") -> str:
    """Large numbers and integers in full, others to six digits, - where there is none."""
    if value is None:
        return "-"
    return f"{value:{sign},.0f}" if isinstance(value, int) or abs(value) >= 1e4 else f"{value:{sign}.6g}"


def lines_and_data(paths: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Text and plain data of the comparison of two report files.  Raises AccelsimError with the faults of both."""
    reports, problems = [], list[Problem]()
    for path in paths:
        try:
            reports.append(read_report(path))
        except AccelsimError as error:
            problems += error.problems
    if problems:
        raise AccelsimError(problems)
    found = compare(*reports)
    return difference_lines(found), found.to_json()
