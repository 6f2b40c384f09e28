"""Plain data → frozen dataclasses by their type hints, and the JSON Schema of the same dataclasses."""

from __future__ import annotations

import difflib
import math
import re
import typing
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from enum import StrEnum
from functools import cache
from numbers import Integral, Real
from types import UnionType
from typing import Any

from accelsim.channels import GRAMMAR, Channels
from accelsim.config_fields import BALANCED, FIELDS, PATTERN_WORDS, Spec
from accelsim.config_yaml import FAULTY, Source, child
from accelsim.formats import Format
from accelsim.plan import WeightShare
from accelsim.problems import AccelsimError

SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"
# Resolving the hints of a class takes longer than reading an instance of it.
_type_hints = cache(typing.get_type_hints)


def near(word: Any, known: Sequence[str]) -> tuple[str, ...]:
    """The known name closest to `word`, or nothing when none is close."""
    return tuple(difflib.get_close_matches(word[:100], known, n=1, cutoff=0.6)) if isinstance(word, str) else ()


def describe(value: Any) -> str:
    """What was found, in words that fit on a line."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {value!a}" if len(value) <= 60 else f"the text {value[:57]!a}…"
    if isinstance(value, Integral):
        number = int(value)
        return str(number) if number.bit_length() <= 128 else f"a number of {number.bit_length():,} bits"
    if isinstance(value, Real):
        return f"the number {float(value)!r}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return "a mapping" if isinstance(value, dict) else f"a {type(value).__name__}"


def read_dataclass(cls: type, data: Any, path: str, source: Source, ignore: tuple[str, ...] = ()) -> Any:
    """An instance of `cls` from a mapping, or FAULTY after every fault has been recorded in `source`.

    Fields without fault are kept in `source.partial[path]`, defaults included.  Keys in `ignore` are skipped.
    """
    source.partial[path] = {}
    if data is FAULTY:
        return FAULTY
    if not isinstance(data, dict):
        known = ", ".join(FIELDS[cls])
        source.fault(path, f"found {describe(data)}", f"a mapping with the fields {known}")
        return FAULTY
    hints, members = _type_hints(cls), {member.name: member for member in fields(cls)}
    renamed = _unknown_keys(data, members, path, source, ignore)
    values: dict[str, Any] = {}
    for name, member in members.items():
        if name in data:
            value = read_value(hints[name], FIELDS[cls][name], data[name], child(path, name), source)
            if value is not FAULTY:
                values[name] = value
        elif _required(member):
            if name not in renamed:
                source.fault(child(path, name), "the field is missing", _expected(hints[name], FIELDS[cls][name]))
        else:
            values[name] = _default(member)
    source.partial[path] = values
    return cls(**values) if len(values) == len(members) else FAULTY


def read_value(hint: Any, spec: Spec, value: Any, path: str, source: Source) -> Any:
    """The value of one field, or FAULTY after its fault has been recorded in `source`."""
    if value is FAULTY:
        return FAULTY
    if hint is Format:
        return _format(spec, value, path, source)
    if Channels in typing.get_args(hint):
        return _channels(value, path, source)
    if is_dataclass(hint):
        return read_dataclass(typing.cast(type, hint), value, path, source)
    if typing.get_origin(hint) is tuple:
        return _list(typing.get_args(hint)[0], spec, value, path, source)
    if typing.get_origin(hint) in (typing.Union, UnionType):
        if is_dataclass(typing.get_args(hint)[0]):
            return read_dataclass(_alternative(hint, value), value, path, source)
        if value == BALANCED:
            return None
        return _number(float, spec, value, path, source, f" or `{BALANCED}`")
    if hint in (int, float):
        return _number(hint, spec, value, path, source)
    if hint is bool:
        if not isinstance(value, bool):
            lever = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(str(value).lower(), "")
            source.fault(path, f"found {describe(value)}", "true or false", (lever,) if lever else ())
            return FAULTY
        return value
    return _text(hint, spec, value, path, source)


def _alternative(hint: Any, value: Any) -> type:
    """The dataclass of a union that has most of the given fields; the first one among equals."""
    keys = value if isinstance(value, dict) else ()
    classes: tuple[type, ...] = _dataclasses(hint)
    return max(classes, key=lambda cls: sum(member.name in keys for member in fields(cls)))


def _dataclasses(hint: Any) -> tuple[type, ...]:
    """The dataclasses of a union; None is no member of a file."""
    return tuple(cls for cls in typing.get_args(hint) if cls is not type(None))


def _unknown_keys(
    data: dict[Any, Any], members: dict[str, Field[Any]], path: str, source: Source, ignore: tuple[str, ...]
) -> set[str]:
    """Record unknown keys; returns the missing fields that a misspelt key stands for."""
    renamed: set[str] = set()
    for key in data:
        if key in members or key in ignore:
            continue
        absent = [name for name in members if name not in data and name not in renamed]
        guess = near(key, absent)
        renamed.update(guess)
        source.fault(
            child(path, key if isinstance(key, str) else ascii(key)),
            "unknown field",
            "one of " + ", ".join(members),
            guess or near(key, list(members)),
        )
    return renamed


def _format(spec: Spec, value: Any, path: str, source: Source) -> Any:
    if isinstance(value, str) and value in spec.choices:
        return Format.parse(value)
    choices = [str(choice) for choice in spec.choices]
    shifts = [name for name in choices if not name.startswith(("u", "r"))]
    expected = "a number format u2 … u16" + (f", {', '.join(shifts)}" if shifts else "")
    regions = [name for name in choices if name.startswith("r")]
    expected += f", {regions[0]} … {regions[-1]} (p: both regions ≥ 0, n: the fine one negative)" if regions else ""
    guess = near(value, choices)
    uniform = re.fullmatch(r"u(\d{1,3})", value) if isinstance(value, str) else None
    if uniform:
        guess = (f"u{min(max(int(uniform.group(1)), 2), 16)}",)
    elif not shifts and isinstance(value, str) and re.fullmatch(r"a?pot\d+", value):
        expected, guess = "a uniform format u2 … u16: only weights can be powers of two", ("u8",)
    elif isinstance(value, int) and f"u{value}" in choices and not isinstance(value, bool):
        guess = (f"u{value}",)
    source.fault(path, f"found {describe(value)}", expected, guess)
    return FAULTY


def _channels(value: Any, path: str, source: Source) -> Any:
    # A single channel is a number in YAML.
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        source.fault(path, f"found {describe(value)}", GRAMMAR)
        return FAULTY
    try:
        return Channels.parse(text)
    except AccelsimError as error:
        (problem,) = error.problems
        source.fault(path, problem.what, problem.expected, problem.levers)
        return FAULTY


def _list(hint: Any, spec: Spec, value: Any, path: str, source: Source) -> Any:
    if hint is WeightShare and isinstance(value, str):
        value = [{"format": value}]
        source.lines.setdefault(f"{path}[0]", source.line(path))
    if not isinstance(value, list | tuple):
        source.fault(path, f"found {describe(value)}", "a list")
        return FAULTY
    inside = _item_spec(spec)
    items = [read_value(hint, inside, item, child(path, index), source) for index, item in enumerate(value)]
    if not spec.low <= len(items) <= spec.high:
        source.fault(path, f"the list has {len(items)} entries", f"{spec.low} … {spec.high:,} entries")
        return FAULTY
    return FAULTY if any(item is FAULTY for item in items) else tuple(items)


def _item_spec(spec: Spec) -> Spec:
    """What an entry of a list of numbers accepts."""
    return replace(spec, low=spec.item_low, high=spec.item_high)


def _number(kind: type, spec: Spec, value: Any, path: str, source: Source, also: str = "") -> Any:
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    real = whole or (isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(float(value)))
    allowed = whole if kind is int else real
    if allowed and spec.choices and value in spec.choices:
        return kind(value)
    if allowed and not spec.choices and spec.low <= value <= spec.high:
        number = kind(value)
        if not spec.power_of_two or number.bit_count() == 1:
            return number
    source.fault(path, f"found {describe(value)}", _expected(kind, spec) + also, _number_levers(kind, spec, value))
    return FAULTY


def _number_levers(kind: type, spec: Spec, value: Any) -> tuple[str, ...]:
    """A number that the user may have meant: without quotes, without fraction, or the nearest allowed one."""
    if isinstance(value, str):
        return (f"{value} without quotes",) if re.fullmatch(r"[0-9]{1,19}(\.[0-9]{1,19})?", value) else ()
    if isinstance(value, bool) or not isinstance(value, int | float) or not spec.low <= value <= spec.high:
        return ()
    if kind is int and isinstance(value, float) and value.is_integer():
        return (str(int(value)),)
    if spec.power_of_two:
        return (str(1 << (int(value).bit_length() - 1)),)
    return ()


def _text(hint: Any, spec: Spec, value: Any, path: str, source: Source) -> Any:
    choices = [str(choice) for choice in spec.choices]
    if isinstance(value, str) and (value in choices if choices else re.fullmatch(spec.pattern or r"(?s:.*)", value)):
        return hint(value)
    guess = near(value.lower() if isinstance(value, str) else value, [choice.lower() for choice in choices])
    levers = tuple(choice for choice in choices if choice.lower() in guess)
    source.fault(path, f"found {describe(value)}", _expected(hint, spec), levers)
    return FAULTY


def _expected(hint: Any, spec: Spec) -> str:
    if spec.choices:
        return "one of " + ", ".join(str(choice) for choice in spec.choices)
    if hint in (int, float):
        kind = "an integer" if hint is int else "a number"
        return f"{kind} {spec.low:,} … {spec.high:,}" + (" that is a power of two" if spec.power_of_two else "")
    if typing.get_origin(hint) is tuple:
        return "a list"
    if is_dataclass(hint) or is_dataclass(next(iter(typing.get_args(hint)), None)):
        return "a mapping"
    if hint is bool:
        return "true or false"
    return PATTERN_WORDS.get(spec.pattern, "text")


def _required(member: Field[Any]) -> bool:
    return member.default is MISSING and member.default_factory is MISSING


def _default(member: Field[Any]) -> Any:
    return member.default_factory() if member.default_factory is not MISSING else member.default


def schema_of(cls: type, header: dict[str, Any] | None = None) -> dict[str, Any]:
    """JSON Schema of a dataclass; `header` are properties that the file has beyond its fields, all required."""
    hints, header = _type_hints(cls), header or {}
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **header,
            **{
                member.name: {"description": FIELDS[cls][member.name].meaning}
                | _schema_value(hints[member.name], FIELDS[cls][member.name])
                for member in fields(cls)
            },
        },
        "required": [*header, *(member.name for member in fields(cls) if _required(member))],
    }


def _schema_value(hint: Any, spec: Spec) -> dict[str, Any]:
    if hint is Format or (isinstance(hint, type) and issubclass(hint, StrEnum)) or spec.choices:
        return {"enum": [choice if isinstance(choice, int) else str(choice) for choice in spec.choices]}
    if Channels in typing.get_args(hint):
        return {"anyOf": [{"type": "string", "pattern": "^[0-9, -]+$"}, {"type": "integer", "minimum": 0}]}
    if is_dataclass(hint):
        return schema_of(typing.cast(type, hint))
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        items = _schema_value(item, _item_spec(spec))
        array = {"type": "array", "items": items, "minItems": spec.low, "maxItems": spec.high}
        names = FIELDS[WeightShare]["format"].choices
        return {"anyOf": [{"enum": list(names)}, array]} if item is WeightShare else array
    if typing.get_origin(hint) in (typing.Union, UnionType):
        if is_dataclass(typing.get_args(hint)[0]):
            found = [schema_of(cls) for cls in _dataclasses(hint)]
            return {"anyOf": found} if len(found) > 1 else found[0]
        return {"anyOf": [{"const": BALANCED}, {"type": "number", "minimum": spec.low, "maximum": spec.high}]}
    if hint in (int, float):
        number = {"type": "integer" if hint is int else "number", "minimum": spec.low, "maximum": spec.high}
        if spec.power_of_two:
            return {"enum": [1 << k for k in range(64) if spec.low <= 1 << k <= spec.high]}
        return number
    if hint is bool:
        return {"type": "boolean"}
    return {"type": "string", **({"pattern": f"^{spec.pattern}$"} if spec.pattern else {})}
