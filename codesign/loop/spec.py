"""The file of a co-design: network, what may be chosen, hardware, limits, search, baselines, what is measured.

Schema `accelsim.codesign/1`; the files of `examples/codesign_*.yaml` are commented examples, docs/codesign.md has every
field.  All faults of a file are reported at once with line, field and a suggestion.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from accelsim.config_walk import near
from accelsim.config_yaml import FAULTY, Source, child
from accelsim.ir import digest
from accelsim.problems import AccelsimError
from codesign.allocate.families import FAMILIES, LEARNED, without
from codesign.allocate.option_counts import BASE
from codesign.allocate.options import OptionSettings
from codesign.allocate.switches import EXACT
from codesign.loop.spec_checks import (
    POSITIVE,
    Check,
    different,
    flag,
    having,
    level,
    list_of,
    mapper,
    named_folders,
    narrow_format,
    number,
    number_format,
    one_of,
    optional,
    share,
    stored_format,
    text,
    whole_number,
    width,
)
from codesign.loop.spec_files import read_layers
from codesign.space import PREFIX, whole

FORMAT = "accelsim.codesign/1"
SOLVERS = ("fast", "exact")
LOG2_METHOD = "fqvit"  # whose softmax has log2 codes
METHODS = ("ivit", "ibert", LOG2_METHOD)  # that a softmax and a LayerNorm have in common
ALL = "all"  # of `baselines.without`: every family that the options have


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
    methods: tuple[str, ...] = ()
    head_formats: tuple[str, ...] = ()
    head_mixtures: int = 3
    token_shares: tuple[float, ...] = ()
    drop_bits: int = 2

    def settings(self) -> OptionSettings:
        """The same for the allocator."""
        return OptionSettings(**{one.name: getattr(self, one.name) for one in fields(self)})

    @property
    def need_measuring(self) -> tuple[str, ...]:
        """Fields whose options only a measured table prices: the weights alone say nothing about them."""
        regions = any(not name.startswith("u") for name in self.activation_formats)
        given = {"methods": self.methods, "head_formats": self.head_formats, "token_shares": self.token_shares}
        return (*("activation_formats",) * regions, *(name for name, value in given.items() if value))


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
    """What the loop is compared with; see docs/codesign.md.  `m2vit_rule` is a share of filters, None leaves it out.

    For every family of options in `without` (`codesign.allocate.families`) the loop is run without it, too.
    """

    uniform: tuple[int, ...] = (8, 6, 4)
    sequential: bool = True
    m2vit_rule: float | None = 0.5
    random: int = 4
    without: tuple[str, ...] = ()


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
    """A checked co-design.  `losses` are the limits of the predicted loss, `data` is None without accuracy.

    `learned` are folders of networks with learned widths (`accelsim quantize --method qvit`).
    """

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
    learned: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data of everything but the file's name."""
        return {name: value for name, value in asdict(self).items() if name != "where"}

    def fingerprint(self) -> str:
        """Hash of what decides the study."""
        return digest(self.to_json())


def load_spec(path: str | Path) -> CodesignSpec:
    """Read and check a file, with the one that it extends.  Raises AccelsimError with every fault found."""
    data, source = read_layers(Path(path))
    spec = _read(data, source)
    if source.faults or spec is None:
        raise AccelsimError(source.problems())
    return spec


SECTIONS: dict[str, tuple[type[Any], dict[str, Check]]] = {
    "penalties": (PenaltySpec, {"file": optional(text), "images": whole_number(1), "weights_only": flag}),
    "options": (
        OptionSpec,
        {"weight_formats": having(BASE, different(list_of(number_format))),
         "activation_formats": having(BASE, different(list_of(stored_format))),
         "divisions": having(EXACT, different(list_of(one_of(("divide", "log2_shift"))))), "mixtures": whole_number(0),
         "methods": different(list_of(one_of(METHODS), 0)), "head_formats": different(list_of(narrow_format, 0)),
         "head_mixtures": whole_number(1), "token_shares": different(list_of(share, 0)), "drop_bits": whole_number(1)},
    ),
    "search": (SearchSpec, {"searcher": text, "evaluations": whole_number(1), "population": whole_number(1)}),
    "baselines": (
        BaselineSpec,
        {"uniform": different(list_of(width, 0)), "sequential": flag,
         "m2vit_rule": optional(number(0, 1, "a share 0 … 1")), "random": whole_number(0),
         "without": lambda value: (True, "") if value == ALL else different(list_of(one_of(FAMILIES), 0))(value)},
    ),
    "final": (
        FinalSpec,
        {"mapper": mapper, "solver": one_of(SOLVERS), "calibration_images": whole_number(1),
         "images": optional(whole_number(1)), "test_images": optional(whole_number(0)),
         "reconstruct_steps": whole_number(0), "margin_points": number(0, 100, "points 0 … 100"),
         "refine": whole_number(0)},
    ),
}  # fmt: skip
PLAIN: dict[str, Check] = {
    "name": text, "model": text, "weights": optional(text), "resolution": optional(whole_number(1)),
    "data": optional(text), "seed": whole_number(0), "losses": different(list_of(level)), "learned": named_folders,
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
    if not source.faults:
        _across(source, given)
    if source.faults:
        return None
    given["losses"] = tuple(sorted(float(one) for one in given["losses"]))
    return CodesignSpec(where=source.where, **given)


def families_of(options: OptionSpec, learned: Collection[str]) -> tuple[str, ...]:
    """The families of options that a file has, in the order of `FAMILIES`."""
    settings = options.settings()
    return tuple(name for name in FAMILIES if (learned if name == LEARNED else without(settings, name) != settings))


def _across(source: Source, given: dict[str, Any]) -> None:
    """Faults across sections; `baselines.without: all` becomes the families."""
    options, baselines, learned = given["options"], given["baselines"], given.get("learned", ())
    if baselines.sequential and 8 not in baselines.uniform:
        source.fault("baselines", "sequential needs the search of uniform 8 bits", "uniform: [8, …], sequential: false")
    if given.get("data") is None or given["penalties"].weights_only:
        for name in options.need_measuring:
            source.fault(f"options.{name}", "needs losses measured on data", "data, and no penalties.weights_only")
    if options.token_shares and given["penalties"].file is not None:
        source.fault("options.token_shares", "needs a table of the ranked network", "no penalties.file")
    if options.token_shares and options.methods[:1] == (LOG2_METHOD,):
        what = f"{LOG2_METHOD} is the first: the base's shares of a softmax are ranked, which needs uniform codes"
        source.fault("options.methods", what, "ivit or ibert first")
    if learned and given.get("data") is None:
        source.fault("learned", "needs data: no table predicts the loss of trained weights", "data: glyphs, …")
    there = families_of(options, learned)
    chosen = there if baselines.without == ALL else baselines.without
    for name in chosen:
        if name not in there:
            expected = " | ".join(there) or "no family: there is one choice only"
            source.fault("baselines.without", f"{name}: the options have none of it", expected)
    given["baselines"] = replace(baselines, without=chosen)


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
