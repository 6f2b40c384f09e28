"""A design space in YAML: a base design, axes over its fields and any field of the accelerator, a sampling.

Schema `accelsim.space/1`; `examples/sweep_b1.yaml` is a commented example.  Every fault of a file is reported at once
with file, line and field.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelsim.arch import Accelerator
from accelsim.config_walk import near
from accelsim.config_yaml import FAULTY, Source, child, read_source
from accelsim.ir import digest
from accelsim.mappers.choice import HEURISTIC, MAPPER_NAMES, mapper_of
from accelsim.problems import AccelsimError, Problem
from codesign.catalog import COSMETIC, Catalog, default_catalog, has_field, unknown_part, with_field

FORMAT = "accelsim.space/1"
DESIGN_FIELDS = ("arch", "plan", "model", "resolution", "mapper")
# What a base that does not name a field stands for.
DEFAULTS = {"mapper": HEURISTIC}
PREFIX = "accelerator."
DEFAULT = "default"


@dataclass(frozen=True)
class Axis:
    """A field and the values that it takes; `line` is its place in the file."""

    field: str
    values: tuple[Any, ...]
    line: int


@dataclass(frozen=True)
class Point:
    """One design of a space.  `index` is its place in the full grid, `values` the axis values that made it.

    A mapper of the base that is not the heuristic one stands among the values too, so that tables and pictures name it.
    """

    index: int
    arch: str
    plan: str
    model: str
    resolution: int | None
    values: Mapping[str, Any]
    mapper: str = HEURISTIC

    def overrides(self) -> dict[str, Any]:
        """Accelerator fields that differ from the named accelerator, without the `accelerator.` prefix."""
        return {
            field.removeprefix(PREFIX): value
            for field, value in self.values.items()
            if field.startswith(PREFIX) and value != DEFAULT
        }

    def accelerator(self, catalog: Catalog) -> Accelerator | None:
        """The accelerator of this point, or None when it overrides a field that the named accelerator does not have.

        Raises AccelsimError when the values do not make a valid accelerator.
        """
        data = catalog.accelerator(self.arch)
        overrides = self.overrides()
        if not all(has_field(data, field) for field in overrides):
            return None
        for field, value in overrides.items():
            data = with_field(data, field, value)
        return catalog.build(data, f"{self.arch} with {overrides}" if overrides else self.arch)


@dataclass(frozen=True)
class Space:
    """A checked design space.  `samples` is None for a full grid."""

    where: str
    base: Mapping[str, Any]
    axes: tuple[Axis, ...]
    samples: int | None = None
    seed: int = 0

    @property
    def grid_size(self) -> int:
        """Points of the full grid."""
        return math.prod(len(axis.values) for axis in self.axes)

    @property
    def size(self) -> int:
        """Points that `points` yields."""
        return self.grid_size if self.samples is None else min(self.samples, self.grid_size)

    def point(self, index: int) -> Point:
        """The point at `index` of the full grid; the last axis varies fastest."""
        values: dict[str, Any] = {}
        rest = index
        for axis in reversed(self.axes):
            rest, digit = divmod(rest, len(axis.values))
            values[axis.field] = axis.values[digit]
        values = {axis.field: values[axis.field] for axis in self.axes}
        if "mapper" in self.base:
            values.setdefault("mapper", self.base["mapper"])
        design: dict[str, Any] = {field: values.get(field, self._of_base(field)) for field in DESIGN_FIELDS}
        return Point(
            index, design["arch"], design["plan"], design["model"], design["resolution"], values, design["mapper"]
        )

    def points(self) -> Iterator[Point]:
        """All points in a fixed order: the grid's, or that of a seeded sample without repetition."""
        indices: Sequence[int] = range(self.grid_size)
        if self.samples is not None:
            indices = random.Random(self.seed).sample(indices, self.size)
        return (self.point(index) for index in indices)

    def choices(self, field: str) -> tuple[Any, ...]:
        """Values that a design field takes: those of its axis, else the base's."""
        for axis in self.axes:
            if axis.field == field:
                return axis.values
        return (self._of_base(field),)

    def _of_base(self, field: str) -> Any:
        return self.base.get(field, DEFAULTS.get(field))

    @property
    def asks_for_exhaustive_mapper(self) -> bool:
        """True when some design of the space is not mapped by the heuristic."""
        return any(name not in (None, HEURISTIC) for name in self.choices("mapper"))

    def fingerprint(self) -> str:
        """Hash of what decides the set of points; line numbers and the file's name do not."""
        return digest(list(self.to_json().values()))

    def to_json(self) -> dict[str, Any]:
        """Plain data of what decides the set of points; `space_from_json` reads it back."""
        axes = [[axis.field, list(axis.values)] for axis in self.axes]
        seed = self.seed if self.samples is not None else 0
        return {"base": dict(self.base), "axes": axes, "samples": self.samples, "seed": seed}


def space_from_json(data: Mapping[str, Any], where: str) -> Space:
    """The space of `Space.to_json`; its lines are lost.  `where` names its place in messages."""
    axes = tuple(Axis(field, tuple(values), 0) for field, values in data["axes"])
    return Space(where, data["base"], axes, data["samples"], data["seed"])


def load_space(path: str | Path, catalog: Catalog | None = None) -> Space:
    """Read and check a space file.  Raises AccelsimError with every fault found."""
    data, source = read_source(Path(path))
    space = _Reader(source).space(data)
    if source.faults or space is None:
        raise AccelsimError(source.problems())
    problems = check_names(space, catalog or default_catalog())
    if problems:
        raise AccelsimError(problems)
    return space


class _Reader:
    """Turns plain data into a Space; faults of form go into the source."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.fault = source.fault

    def known_keys(self, field: str, data: Mapping[str, Any], known: Sequence[str]) -> None:
        for key in data:
            if key not in known:
                self.fault(child(field, key), "unknown field", " | ".join(known), near(key, known))

    def mapping(self, data: Mapping[str, Any], field: str, required: bool) -> dict[str, Any]:
        value = data.get(field)
        if value is FAULTY or (value is None and not required):
            return {}
        if not isinstance(value, dict) or (required and not value):
            self.fault(field, "is missing" if value is None else "is not a mapping with entries", "a mapping")
            return {}
        return value

    def space(self, data: Any) -> Space | None:
        if data is FAULTY:
            return None
        if not isinstance(data, dict):
            self.fault("", "is not a design space", "a mapping with format, base and axes")
            return None
        self.known_keys("", data, ("format", "base", "sampling", "axes"))
        if data.get("format") not in (FORMAT, FAULTY):
            self.fault("format", f"is {data.get('format')!r}", FORMAT)
        base = self.mapping(data, "base", required=False)
        self.known_keys("base", base, DESIGN_FIELDS)
        base = {field: self.design_value(child("base", field), field, base[field], True) for field in base}
        if base.get("mapper") in (None, HEURISTIC):
            base.pop("mapper", None)
        axes = tuple(self.axes(self.mapping(data, "axes", required=True)))
        for field in ("arch", "plan", "model"):
            if base.get(field) is None and field not in (axis.field for axis in axes):
                self.fault("base", f"{field} is missing", f"base.{field} or an axis {field!r}")
        samples, seed = self.sampling(self.mapping(data, "sampling", required=False))
        space = Space(self.source.where, base, axes, samples, seed)
        if space.grid_size >= 2**63:
            self.fault("axes", f"span {space.grid_size:.1e} designs", "fewer than 2^63")
        return space

    def axes(self, data: Mapping[str, Any]) -> Iterator[Axis]:
        for field, values in data.items():
            place = child("axes", field)
            if field not in DESIGN_FIELDS and not field.startswith(PREFIX):
                known = (*DESIGN_FIELDS, PREFIX)
                self.fault(
                    place, "unknown axis", f"{' | '.join(DESIGN_FIELDS)} | accelerator.<field>", near(field, known)
                )
            if not isinstance(values, list) or not values:
                self.fault(place, "has no list of values", "a list with at least one value")
                continue
            values = [self.design_value(child(place, k), field, whole(value)) for k, value in enumerate(values)]
            for index, value in enumerate(values):
                if value in values[:index] and type(value) is type(values[values.index(value)]):
                    self.fault(child(place, index), f"{value!r} is given twice")
            yield Axis(field, tuple(values), self.source.line(place))

    def design_value(self, place: str, field: str, value: Any, optional: bool = False) -> Any:
        """The value of a field in its one spelling; a fault is recorded, except that `optional` values may be None."""
        if value is FAULTY or field not in DESIGN_FIELDS or (optional and value is None):
            return value
        if field == "resolution":
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value <= 0):
                self.fault(place, f"{value!r} is not a resolution", "a positive number of pixels, or null")
        elif not isinstance(value, str):
            named = " | ".join(MAPPER_NAMES) if field == "mapper" else f"the name of a known {field}, or a file"
            self.fault(place, f"{value!r} is not a name", named)
        elif field == "mapper":
            try:
                return mapper_of(value).name
            except AccelsimError as error:
                (problem,) = error.problems
                self.fault(place, problem.what, problem.expected, near(value, MAPPER_NAMES))
        return value

    def sampling(self, data: Mapping[str, Any]) -> tuple[int | None, int]:
        method = data.get("method", "grid")
        known = {"grid": ("method",), "random": ("method", "samples", "seed")}.get(str(method))
        if known is None:
            self.fault(
                "sampling.method", f"unknown method {method!r}", "grid | random", near(method, ("grid", "random"))
            )
            return None, 0
        self.known_keys("sampling", data, known)
        if method == "grid":
            return None, 0
        samples, seed = data.get("samples"), data.get("seed", 0)
        if not isinstance(samples, int) or isinstance(samples, bool) or samples <= 0:
            self.fault("sampling.samples", f"is {samples!r}", "a positive number of designs")
        if not isinstance(seed, int) or isinstance(seed, bool):
            self.fault("sampling.seed", f"is {seed!r}", "an integer")
        return (samples, seed) if isinstance(samples, int) and isinstance(seed, int) else (None, 0)


def whole(value: Any) -> Any:
    """25.6e9 is written as a float, but counts bits: whole numbers become integers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def check_names(space: Space, catalog: Catalog) -> list[Problem]:
    """Names that nothing knows and values that no design of the space can use."""
    problems: list[Problem] = []
    arches: dict[str, dict[str, Any]] = {}
    for name in space.choices("arch"):
        try:
            arches[name] = catalog.accelerator(name)
        except AccelsimError as error:
            problems.extend(_placed(space, "arch", error))
    for name in space.choices("plan"):
        try:
            catalog.plan(name)
        except AccelsimError as error:
            problems.extend(_placed(space, "plan", error))
    problems.extend(_check_workloads(space, catalog))
    if arches:
        for axis in space.axes:
            if axis.field.startswith(PREFIX):
                problems.extend(_check_field(space, axis, arches, catalog))
    return problems


def _placed(space: Space, field: str, error: AccelsimError) -> Iterator[Problem]:
    """The problems of a name, each with the place in the space file in front."""
    lines = [axis.line for axis in space.axes if axis.field == field]
    place = f"{space.where}:{lines[0]}: axes.{field}" if lines else f"{space.where}: base.{field}"
    for problem in error.problems:
        yield Problem(f"{place}: {problem.where}", problem.what, problem.expected, problem.levers)


def _check_workloads(space: Space, catalog: Catalog) -> Iterator[Problem]:
    """Models that build at no resolution of the space, and resolutions at which no model builds."""
    errors: dict[tuple[str, Any], AccelsimError] = {}
    models, resolutions = space.choices("model"), space.choices("resolution")
    for model in models:
        for resolution in resolutions:
            try:
                catalog.workload_id(model, resolution)
            except AccelsimError as error:
                errors[model, resolution] = error
    dead = [model for model in models if all((model, resolution) in errors for resolution in resolutions)]
    for model in dead:
        yield from _placed(space, "model", errors[model, resolutions[0]])
    for resolution in resolutions:
        if len(dead) < len(models) and all((model, resolution) in errors for model in models):
            alive = next(model for model in models if model not in dead)
            yield from _placed(space, "resolution", errors[alive, resolution])


def _check_field(space: Space, axis: Axis, arches: Mapping[str, dict[str, Any]], catalog: Catalog) -> Iterator[Problem]:
    place = f"{space.where}:{axis.line}: axes.{axis.field}"
    field = axis.field.removeprefix(PREFIX)
    having = {name: data for name, data in arches.items() if has_field(data, field)}
    if not having:
        if field.split(".")[-1] in COSMETIC:
            yield Problem(place, "is a label and changes no result", "a field with a quantity")
            return
        unknown, known = next(u for u in (unknown_part(data, field) for data in arches.values()) if u)
        what = f"no accelerator of the space has {unknown!r} ({', '.join(arches)})"
        yield Problem(place, what, " | ".join(known), near(unknown, known))
        return
    for value in axis.values:
        if value == DEFAULT:
            continue
        faults = [_build_fault(data, {field: value}, place, catalog) for data in having.values()]
        fault = next((fault for fault in faults if fault), None)
        if fault and all(faults) and not _helped(space, axis, value, having, catalog):
            yield from (Problem(p.where, p.what, p.expected, p.levers) for p in fault.problems)


def _helped(space: Space, axis: Axis, value: Any, having: Mapping[str, dict[str, Any]], catalog: Catalog) -> bool:
    """True when a value that is invalid alone becomes valid with one value of another axis."""
    field = axis.field.removeprefix(PREFIX)
    for other in space.axes:
        if other is axis or not other.field.startswith(PREFIX):
            continue
        for partner in other.values:
            changes = {field: value, other.field.removeprefix(PREFIX): partner}
            for data in having.values():
                possible = partner != DEFAULT and all(has_field(data, name) for name in changes)
                if possible and _build_fault(data, changes, axis.field, catalog) is None:
                    return True
    return False


def _build_fault(
    data: dict[str, Any], changes: Mapping[str, Any], where: str, catalog: Catalog
) -> AccelsimError | None:
    for field, value in changes.items():
        data = with_field(data, field, value)
    try:
        catalog.build(data, where)
    except AccelsimError as error:
        return error
    return None
