"""The folder that `accelsim codesign` writes: result.json as checked dataclasses, and the files of its designs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, cast

from accelsim.config_walk import describe
from accelsim.config_yaml import FAULTY, Source, child
from accelsim.problems import AccelsimError, Problem
from codesign.report.fields import read_fields

FORMAT = "codesign.result/1"
RESULT = "result.json"
DESIGN_FILES = ("plan.yaml", "accelerator.yaml", "workload.json", "mapping.json")
MAX_RESULT_BYTES = 1 << 28
COSTS = ("latency_s", "energy_pj", "edp_pj_s", "area_mm2")


@dataclass(frozen=True)
class Measured:
    """Accuracy on `images` images: `top1` between 0 and 1; `change` against the float network with its interval."""

    top1: float
    images: int
    change: float | None = None
    low: float | None = None
    high: float | None = None
    non_inferior: bool | None = None


@dataclass(frozen=True)
class Design:
    """A finalist or a baseline.  `folder` (inside the study) has the four files of `accelsim run`, or is None."""

    id: str
    origin: str
    latency_s: float
    energy_pj: float
    edp_pj_s: float
    area_mm2: float
    label: str = ""
    arch: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    level: float | None = None
    predicted_loss: float | None = None
    cycles: int | None = None
    clock_hz: int | None = None
    power_w: float | None = None
    average_weight_bits: float | None = None
    shift_share: float | None = None
    mapper: str = ""
    folder: str | None = None
    on_front: bool = False
    validation: Measured | None = None
    test: Measured | None = None
    integer_agreement: float | None = None


@dataclass(frozen=True)
class CloudPoint:
    """A design that the search looked at; `within`: it keeps the limits of the study."""

    origin: str
    latency_s: float
    energy_pj: float
    edp_pj_s: float
    area_mm2: float
    level: float | None = None
    predicted_loss: float | None = None
    within: bool = True
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HistoryRow:
    """State of a search after `evaluations` designs; `least` is the least value of its first objective, the EDP."""

    evaluations: int
    elapsed_s: float | None = None
    hypervolume: float | None = None
    front_size: int | None = None
    least: float | None = None


@dataclass(frozen=True)
class History:
    """One search over time."""

    search: str
    searcher: str = ""
    rows: tuple[HistoryRow, ...] = ()


@dataclass(frozen=True)
class Bound:
    """A design and lower bounds of its hardware at its level of predicted loss; `gap` = 1 − bound / EDP."""

    design: str
    edp_pj_s: float
    edp_bound_pj_s: float
    gap: float
    level: float | None = None
    latency_cycles: float | None = None
    latency_bound_cycles: float | None = None
    energy_pj: float | None = None
    energy_bound_pj: float | None = None


@dataclass(frozen=True)
class TableError:
    """What the cost table said of a plan in a round of the feedback, and what the simulator said."""

    design: str
    round: int
    predicted_cycles: float
    simulated_cycles: float
    predicted_energy_pj: float | None = None
    simulated_energy_pj: float | None = None


@dataclass(frozen=True)
class Comparison:
    """The study's design `ours` against the `design` that stands for a baseline, to which it is not inferior.

    `edp_ratio` is the EDP of `ours` / that of the baseline's, `accuracy_change` likewise a difference.
    Without `equal_accuracy` the baseline's design is its most accurate one, but inferior to the float network.
    `family` is what the study's loop was run without, where the baseline is such a run.
    """

    baseline: str
    design: str
    ours: str | None = None
    edp_ratio: float | None = None
    equal_accuracy: bool = True
    accuracy_change: float | None = None
    low: float | None = None
    high: float | None = None
    non_inferior: bool | None = None
    family: str = ""


@dataclass(frozen=True)
class Result:
    """Everything in result.json."""

    name: str
    model: str
    designs: tuple[Design, ...]
    best: str | None = None
    refusals: dict[str, Any] = field(default_factory=dict)
    resolution: int | None = None
    data: str | None = None
    program: str = ""
    created_utc: str = ""
    seed: int | None = None
    spec: dict[str, Any] | None = None
    spec_text: str = ""
    penalties: dict[str, Any] | None = None
    limits: dict[str, Any] | None = None
    cloud: tuple[CloudPoint, ...] = ()
    history: tuple[History, ...] = ()
    bounds: tuple[Bound, ...] = ()
    table_error: tuple[TableError, ...] = ()
    comparison: tuple[Comparison, ...] = ()
    families: tuple[Comparison, ...] = ()
    findings: tuple[str, ...] = ()
    seconds: dict[str, Any] | None = None


@dataclass(frozen=True)
class Study:
    """A co-design study: its folder and its checked result."""

    folder: Path
    result: Result


def read_study(folder: str | Path) -> Study:
    """The study of a folder.

    Raises AccelsimError with every fault of result.json (file and field), or when a design's folder lies outside the
    study or lacks a file.
    """
    path = Path(folder) / RESULT
    expected = "a folder of `accelsim codesign`"
    if not Path(folder).is_dir():
        raise AccelsimError(Problem(str(folder) or "''", "is not a folder", expected))
    source = Source(str(path))
    data = _read_json(path, expected)
    found = data.get("format") if isinstance(data, dict) else None
    if isinstance(data, dict) and found != FORMAT:
        what = f"found {describe(found)}" if "format" in data else "the field is missing"
        raise AccelsimError(Problem(f"{path}: format", what, FORMAT))
    result = read_fields(Result, data, "", source)
    if result is not FAULTY:
        for fault in _faults(cast(Result, result), Path(folder)):
            source.fault(*fault)
    if source.faults:
        raise AccelsimError(source.problems())
    return Study(Path(folder), cast(Result, result))


def _read_json(path: Path, expected: str) -> Any:
    try:
        size = path.stat().st_size
        if size > MAX_RESULT_BYTES:
            raise AccelsimError(Problem(str(path), f"larger than {MAX_RESULT_BYTES:,} bytes", expected))
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AccelsimError(Problem(str(path), f"cannot be read ({error.strerror})", expected)) from error
    except (ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise AccelsimError(Problem(f"{path}{line}", f"not JSON ({error})", FORMAT)) from error


def _faults(result: Result, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Faults across fields: (field, what, expected)."""
    if not result.designs:
        yield "designs", "the list is empty", "at least one design"
    seen: set[str] = set()
    for k, design in enumerate(result.designs):
        place = child("designs", k)
        if design.id in seen:
            yield child(place, "id"), f"{design.id!a} stands there twice", "a name of its own for every design"
        seen.add(design.id)
        yield from _not_positive(design, place)
        if design.folder is not None:
            yield from _folder_faults(design.folder, folder, child(place, "folder"))
    if result.best is not None and result.best not in seen:
        yield "best", f"there is no design {result.best!a}", "the id of a design"
    for k, point in enumerate(result.cloud):
        yield from _not_positive(point, child("cloud", k))
    for k, bound in enumerate(result.bounds):
        if bound.edp_bound_pj_s <= 0:
            yield child(child("bounds", k), "edp_bound_pj_s"), f"is {bound.edp_bound_pj_s:g}", "more than 0"
    for k, row in enumerate(result.table_error):
        if row.simulated_cycles <= 0:
            yield child(child("table_error", k), "simulated_cycles"), f"is {row.simulated_cycles:g}", "more than 0"
    for name, pairs in (("comparison", result.comparison), ("families", result.families)):
        for k, pair in enumerate(pairs):
            if pair.edp_ratio is not None and pair.edp_ratio <= 0:
                yield child(child(name, k), "edp_ratio"), f"is {pair.edp_ratio:g}", "more than 0"


def _not_positive(item: Design | CloudPoint, place: str) -> Iterator[tuple[str, str, str]]:
    for name in COSTS:
        if getattr(item, name) <= 0:
            yield child(place, name), f"is {getattr(item, name):g}", "more than 0"


def _folder_faults(name: str, folder: Path, place: str) -> Iterator[tuple[str, str, str]]:
    inside = PurePosixPath(name)
    if inside.is_absolute() or ".." in inside.parts or "\0" in name:
        yield place, f"{name!a} lies outside the study", "a folder such as designs/ID"
        return
    for file in DESIGN_FILES:
        if not (folder / inside / file).is_file():
            yield place, f"there is no file {name}/{file}", "the four files of a design"
