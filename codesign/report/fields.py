"""Plain JSON data → frozen dataclasses by their type hints; every fault recorded with its field."""

from __future__ import annotations

import math
import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, cast

from accelsim.config_walk import describe
from accelsim.config_yaml import FAULTY, Source, child

_type_hints = cache(typing.get_type_hints)
_WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number", dict: "an object"}


def read_fields(cls: type, data: Any, path: str, source: Source) -> Any:
    """An instance of the dataclass `cls`, or FAULTY after every fault below `path` has been recorded in `source`.

    A field with a default may be left out or null; fields that `cls` does not have are passed over, so that a
    newer study can still be read.  Hints may be str, bool, int, float, dict, dataclasses, tuples of one
    kind, and `X | None`.
    """
    members = {member.name: member for member in fields(cls)}
    if not isinstance(data, dict):
        source.fault(path, f"found {describe(data)}", f"an object with the fields {', '.join(members)}")
        return FAULTY
    hints, values = _type_hints(cls), {}
    for name, member in members.items():
        required = member.default is MISSING and member.default_factory is MISSING
        if name in data and (required or data[name] is not None):
            values[name] = _read(hints[name], data[name], child(path, name), source)
        elif required:
            source.fault(child(path, name), "the field is missing")
            values[name] = FAULTY
    # What is left out has the default of its dataclass.
    return FAULTY if any(value is FAULTY for value in values.values()) else cls(**values)


def _read(hint: Any, value: Any, path: str, source: Source) -> Any:
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is types.UnionType:
        return None if value is None else _read(arguments[0], value, path, source)
    if is_dataclass(hint):
        return read_fields(cast(type, hint), value, path, source)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            source.fault(path, f"found {describe(value)}", "a list")
            return FAULTY
        read = [_read(arguments[0], item, child(path, k), source) for k, item in enumerate(value)]
        return FAULTY if any(item is FAULTY for item in read) else tuple(read)
    plain = typing.get_origin(hint) or hint
    if plain is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if type(value) is plain and (plain is not float):
        return value
    source.fault(path, f"found {describe(value)}", _WORDS[plain])
    return FAULTY
