"""The file of a co-design: network, what may be chosen, hardware, limits, search, baselines, what is measured.

Schema `accelsim.codesign/1`; the files of `examples/codesign_*.yaml` are commented examples, docs/codesign.md has every
field.  All faults of a file are reported at once with line, field and a suggestion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from accelsim.config_walk import near
from accelsim.config_yaml import FAULTY, Source, child, read_source
from accelsim.formats import Format
from accelsim.ir import digest
from accelsim.mappers.choice import MAPPER_NAMES, mapper_of
from accelsim.problems import AccelsimError
from codesign.space import PREFIX, whole

FORMAT = "accelsim.codesign/1"
METHODS = ("fast", "exact")


@dataclass(frozen=True)
class PenaltySpec:
    """Where predicted losses come from: a file, a measurement on `images`, or the weights alone."""

    file: str | None = None
    images: int = 256
    weights_only: bool = False


@dataclass(frozen=True)
class OptionSpec:
    """What a plan may choose; as `codesign.allocate.options.OptionSettings`."""

    weight_formats: tuple[str, ...] = ("u8", "u6", "u4", "apot8")
    activation_formats: tuple[str, ...] = ("u8", "u6")
    divisions: tuple[str, ...] = ("divide", "log2_shift")
    mixtures: int = 7


@dataclass(frozen=True)
class HardwareSpec:
    """The accelerator, its axes, and fields with one value (`set`); `arch` is a template, a preset or a file.

    `rule` are the fields of the fixed hardware of the baseline `m2vit_rule`, beside `set`.  Fields are spelled as in a
    space file, with its prefix.
    """

    arch: str
    axes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    rule: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchSpec:
    """The outer search: designs looked at by the loop's search and by that of every baseline."""

    searcher: str = "bottleneck"
    evaluations: int = 200
    population: int = 20


@dataclass(frozen=True)
class BaselineSpec:
    """What the loop is compared with; see docs/codesign.md.  `m2vit_rule` is a share of filters, None leaves it out."""

    uniform: tuple[int, ...] = (8, 6, 4)
    sequential: bool = True
    m2vit_rule: float | None = 0.5
    random: int = 4


@dataclass(frozen=True)
class FinalSpec:
    """How designs are verified: mapper, solver, images and the loss of accuracy that counts as none (points)."""

    mapper: str = "exhaustive:edp"
    solver: str = "exact"
    calibration_images: int = 256
    images: int | None = None
    test_images: int | None = None
    reconstruct_steps: int = 0
    margin_points: float = 0.5
    refine: int = 2


@dataclass(frozen=True)
class CodesignSpec:
    """A checked co-design.  `losses` are the limits of the predicted loss, `data` is None without accuracy."""

    where: str
    name: str
    model: str
    hardware: HardwareSpec
    losses: tuple[float, ...]
    weights: str | None = None
    resolution: int | None = None
    data: str | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    penalties: PenaltySpec = field(default_factory=PenaltySpec)
    options: OptionSpec = field(default_factory=OptionSpec)
    search: SearchSpec = field(default_factory=SearchSpec)
    baselines: BaselineSpec = field(default_factory=BaselineSpec)
    final: FinalSpec = field(default_factory=FinalSpec)
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain data of everything but the file's name."""
        return {name: value for name, value in asdict(self).items() if name != "where"}

    def fingerprint(self) -> str:
        """Hash of what decides the study."""
        return digest(self.to_json())


def load_spec(path: str | Path) -> CodesignSpec:
    """Read and check a file.  Raises AccelsimError with every fault found."""
    data, source = read_source(Path(path))
    spec = _read(data, source)
    if source.faults or spec is None:
        raise AccelsimError(source.problems())
    return spec


Check = Callable[[Any], tuple[bool, str]]


def _text(value: Any) -> tuple[bool, str]:
    return isinstance(value, str) and bool(value), "a text"


def _flag(value: Any) -> tuple[bool, str]:
    return isinstance(value, bool), "true or false"


def _whole(least: int) -> Check:
    return lambda value: (
        isinstance(value, int) and not isinstance(value, bool) and value >= least, f"a whole number, {least} or more",
    )  # fmt: skip


def _number(low: float, high: float, expected: str) -> Check:
    return lambda value: (
        isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high, expected,
    )  # fmt: skip


def _optional(check: Check) -> Check:
    return lambda value: (True, "") if value is None else (check(value)[0], f"{check(value)[1]}, or null")


def _list_of(check: Check, least: int = 1) -> Check:
    def checked(value: Any) -> tuple[bool, str]:
        expected = f"a list of at least {least}, each {check(value)[1]}"
        return isinstance(value, list) and len(value) >= least and all(check(one)[0] for one in value), expected

    return checked


def _different(check: Check) -> Check:
    """A list without repetition."""

    def checked(value: Any) -> tuple[bool, str]:
        good, expected = check(value)
        return good and len(set(value)) == len(value), f"{expected}, each once"

    return checked


def _level(value: Any) -> tuple[bool, str]:
    """A limit of the predicted loss; the names of designs have six digits of it."""
    good, expected = _number(0, 1e300, "a number, 0 or more")(value)
    return good and float(f"{value:g}") == value, f"{expected}, of at most six digits"


def _format(value: Any) -> tuple[bool, str]:
    try:
        Format.parse(str(value))
    except AccelsimError as error:
        return False, error.problems[0].expected
    return True, "a number format"


def _stored(value: Any) -> tuple[bool, str]:
    """Activations are uniform."""
    return _format(value)[0] and str(value).startswith("u"), "a uniform format, u2 … u16"


def _one_of(*names: str) -> Check:
    return lambda value: (value in names, " | ".join(names))


def _mapper(value: Any) -> tuple[bool, str]:
    try:
        mapper_of(str(value))
    except AccelsimError:
        return False, " | ".join(MAPPER_NAMES)
    return True, ""


def _width(value: Any) -> tuple[bool, str]:
    return _whole(2)(value)[0] and value <= 16, "a whole number, 2 … 16"


POSITIVE = _number(1e-300, 1e300, "a positive number")
SECTIONS: dict[str, tuple[type[Any], dict[str, Check]]] = {
    "penalties": (PenaltySpec, {"file": _optional(_text), "images": _whole(1), "weights_only": _flag}),
    "options": (
        OptionSpec,
        {"weight_formats": _different(_list_of(_format)), "activation_formats": _different(_list_of(_stored)),
         "divisions": _different(_list_of(_one_of("divide", "log2_shift"))), "mixtures": _whole(0)},
    ),
    "search": (SearchSpec, {"searcher": _text, "evaluations": _whole(1), "population": _whole(1)}),
    "baselines": (
        BaselineSpec,
        {"uniform": _different(_list_of(_width, 0)), "sequential": _flag,
         "m2vit_rule": _optional(_number(0, 1, "a share 0 … 1")), "random": _whole(0)},
    ),
    "final": (
        FinalSpec,
        {"mapper": _mapper, "solver": _one_of(*METHODS), "calibration_images": _whole(1),
         "images": _optional(_whole(1)), "test_images": _optional(_whole(0)), "reconstruct_steps": _whole(0),
         "margin_points": _number(0, 100, "points 0 … 100"), "refine": _whole(0)},
    ),
}  # fmt: skip
PLAIN: dict[str, Check] = {
    "name": _text, "model": _text, "weights": _optional(_text), "resolution": _optional(_whole(1)),
    "data": _optional(_text), "seed": _whole(0), "losses": _different(_list_of(_level)),
}  # fmt: skip
KNOWN = ("format", *PLAIN, "hardware", "limits", *SECTIONS)


def _read(data: Any, source: Source) -> CodesignSpec | None:
    if data is FAULTY:
        return None
    if not isinstance(data, dict):
        source.fault("", "is not a co-design", "a mapping with format, name, model, hardware and losses")
        return None
    if data.get("format") not in (FORMAT, FAULTY):
        source.fault("format", f"is {data.get('format')!r}", FORMAT)
    _unknown(source, "", data, KNOWN)
    given: dict[str, Any] = {}
    for name, check in PLAIN.items():
        if name in data and data[name] is not FAULTY:
            given[name] = _checked(source, name, data[name], check)
        elif name not in data and name in ("name", "model", "losses"):
            source.fault("", f"{name} is missing", f"{name}: …")
    for name, (kind, checks) in SECTIONS.items():
        given[name] = _section(source, name, data.get(name), kind, checks)
    given["hardware"] = _hardware(source, data.get("hardware"))
    given["limits"] = _limits(source, data.get("limits"))
    baselines = given["baselines"]
    if not source.faults and baselines.sequential and 8 not in baselines.uniform:
        source.fault("baselines", "sequential needs the search of uniform 8 bits", "uniform: [8, …], sequential: false")
    if source.faults:
        return None
    given["losses"] = tuple(sorted(float(one) for one in given["losses"]))
    return CodesignSpec(where=source.where, **given)


def _unknown(source: Source, field_name: str, data: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in data:
        if key not in known:
            source.fault(child(field_name, key), "unknown field", " | ".join(known), near(key, known))


def _checked(source: Source, place: str, value: Any, check: Check) -> Any:
    good, expected = check(value)
    if not good:
        source.fault(place, f"is {value!r}", expected)
    return tuple(value) if isinstance(value, list) else value


def _section(source: Source, name: str, data: Any, kind: type[Any], checks: Mapping[str, Check]) -> Any:
    if data is None or data is FAULTY:
        return kind()
    if not isinstance(data, dict):
        source.fault(name, "is not a mapping", "a mapping")
        return None
    _unknown(source, name, data, tuple(one.name for one in fields(kind)))
    given = {
        key: _checked(source, child(name, key), value, checks[key])
        for key, value in data.items()
        if key in checks and value is not FAULTY
    }
    return kind(**given)


def _hardware(source: Source, data: Any) -> HardwareSpec | None:
    if not isinstance(data, dict) or not isinstance(data.get("arch"), str):
        if data is not FAULTY:
            source.fault("hardware", "names no accelerator", "a mapping with arch, set and axes")
        return None
    _unknown(source, "hardware", data, ("arch", "set", "axes", "rule"))
    given: dict[str, dict[str, Any]] = {}
    for part in ("set", "axes", "rule"):
        given[part] = data.get(part) or {}
        if not isinstance(given[part], dict):
            source.fault(f"hardware.{part}", "is not a mapping", "fields of the accelerator")
            return None
    given["set"], given["rule"] = ({k: whole(v) for k, v in given[part].items()} for part in ("set", "rule"))
    axes: dict[str, tuple[Any, ...]] = {PREFIX + name: (value,) for name, value in given["set"].items()}
    for name, values in given["axes"].items():
        place = child("hardware.axes", name)
        if not isinstance(values, list) or not values:
            source.fault(place, "has no list of values", "a list with at least one value")
        elif name in given["set"]:
            source.fault(place, "is set, too", "a field in set or in axes")
        elif len({(type(value), str(value)) for value in values}) < len(values):
            source.fault(place, "has a value twice", "different values")
        else:
            axes[PREFIX + name] = tuple(whole(value) for value in values)
    fixed = {**given["set"], **given["rule"]}
    return HardwareSpec(data["arch"], axes, {PREFIX + name: value for name, value in fixed.items()})


def _limits(source: Source, data: Any) -> dict[str, float]:
    if data is None or data is FAULTY:
        return {}
    known = ("area_mm2", "power_w", "latency_s", "energy_pj", "edp_pj_s")
    if not isinstance(data, dict):
        source.fault("limits", "is not a mapping", " | ".join(known))
        return {}
    _unknown(source, "limits", data, known)
    for key, value in data.items():
        if key in known and value is not FAULTY:
            _checked(source, child("limits", key), value, POSITIVE)
    return dict(data)
