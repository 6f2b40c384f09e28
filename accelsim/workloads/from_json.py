"""Workload files: a network of the user's own as JSON, the inverse of `Workload.to_json`, every fault at once."""

from __future__ import annotations

import json
import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, cast

from accelsim.config_walk import describe, near
from accelsim.config_yaml import FAULTY, Source, child
from accelsim.ir import Op, Workload
from accelsim.plan import TABLE_ACTIVATIONS
from accelsim.problems import AccelsimError, Problem
from accelsim.workloads.builder import check_workload
from accelsim.workloads.limits import MAX_SIZE

WORKLOAD_FORMAT = "accelsim.workload/1"
MAX_FILE_BYTES = 1 << 26
ACTIVATIONS = ("", "relu", *TABLE_ACTIVATIONS)
_type_hints = cache(typing.get_type_hints)


def workload_to_json(workload: Workload) -> dict[str, Any]:
    """Plain data of a workload file: its format and every field."""
    return {"format": WORKLOAD_FORMAT, **workload.to_json()}


def dump_workload(workload: Workload) -> str:
    """JSON text that `load_workload` reads back to an equal workload."""
    return json.dumps(workload_to_json(workload), indent=1) + "\n"


def workload_from_json(data: Any, where: str = "workload") -> Workload:
    """The checked workload of plain data such as `Workload.to_json()`; a `format` field may be left out.

    `where` names the place in messages.  Raises AccelsimError with every fault: of the fields first, and of the network
    (names, sizes, order; `check_workload`) when all fields are sound.
    """
    source = Source(where)
    found = data.get("format", WORKLOAD_FORMAT) if isinstance(data, dict) else WORKLOAD_FORMAT
    if found != WORKLOAD_FORMAT:
        source.fault("format", f"found {describe(found)}", WORKLOAD_FORMAT, near(found, [WORKLOAD_FORMAT]))
    workload = _read(Workload, data, "", source)
    if source.faults or workload is FAULTY:
        raise AccelsimError(source.problems())
    try:
        check_workload(workload)
    except AccelsimError as error:
        raise AccelsimError(
            [Problem(f"{where}: {fault.where}", fault.what, fault.expected, fault.levers) for fault in error.problems]
        ) from None
    return cast(Workload, workload)


def load_workload(path: str | Path, resolution: int | None = None) -> Workload:
    """The workload of a file.  It is read again only when the file has changed.

    A workload has one resolution, so another one is an error.  Raises AccelsimError when the file cannot be read, is
    not JSON, or has faults (all of them).
    """
    try:
        state = Path(path).stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AccelsimError(
            Problem(str(path), f"cannot be read ({reason})", f"a workload file ({WORKLOAD_FORMAT})", _neighbours(path))
        ) from error
    workload = _load(str(path), state.st_mtime_ns, state.st_size)
    if resolution not in (None, workload.resolution):
        what = f"resolution {resolution}, but the file holds the network at {workload.resolution}"
        raise AccelsimError(Problem(str(path), what, f"{workload.resolution}, or no resolution"))
    return workload


@lru_cache(maxsize=16)
def _load(path: str, _changed_ns: int, size: int) -> Workload:
    if size > MAX_FILE_BYTES:
        raise AccelsimError(Problem(path, f"larger than {MAX_FILE_BYTES:,} bytes", "a workload file"))
    expected = f"a workload file ({WORKLOAD_FORMAT})"
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise AccelsimError(Problem(path, f"cannot be read ({error.strerror})", expected)) from error
    except (ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise AccelsimError(Problem(f"{path}{line}", f"not JSON ({error})", expected)) from error
    if isinstance(data, dict) and "format" not in data:
        what = "the field is missing"
        raise AccelsimError(Problem(f"{path}: format", what, WORKLOAD_FORMAT, (f'"format": "{WORKLOAD_FORMAT}"',)))
    return workload_from_json(data, path)


def _neighbours(path: str | Path) -> tuple[str, ...]:
    """The file beside `path` with the most similar name."""
    try:
        known = [entry.name for entry in Path(path).parent.iterdir()]
    except (OSError, ValueError):
        return ()
    return tuple(str(Path(path).parent / name) for name in near(Path(path).name, known))


def _read(hint: Any, value: Any, path: str, source: Source) -> Any:
    """The value of a type hint, or FAULTY after every fault below `path` has been recorded."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is types.UnionType:
        return None if value is None else _read(arguments[0], value, path, source)
    if is_dataclass(hint):
        return _read_fields(cast(type, hint), value, path, source)
    if typing.get_origin(hint) is tuple:
        return _read_tuple(arguments, value, path, source)
    if hint is int:
        return _read_int(value, path, source)
    if issubclass(hint, StrEnum):
        known = [str(member) for member in hint]
        if isinstance(value, str) and value in known:
            return hint(value)
        source.fault(path, f"found {describe(value)}", f"one of {', '.join(known)}", near(value, known))
        return FAULTY
    if type(value) is hint:
        return value
    source.fault(path, f"found {describe(value)}", {str: "text", bool: "true or false"}[hint])
    return FAULTY


def _read_int(value: Any, path: str, source: Source) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_SIZE:
        return value
    source.fault(path, f"found {describe(value)}", "a whole number 0 … 2^40")
    return FAULTY


def _read_tuple(arguments: tuple[Any, ...], value: Any, path: str, source: Source) -> Any:
    many = arguments[-1] is Ellipsis
    if not isinstance(value, list | tuple) or (not many and len(value) != len(arguments)):
        source.fault(path, f"found {describe(value)}", "a list" if many else f"a list of {len(arguments)}")
        return FAULTY
    hints = arguments[:1] * len(value) if many else arguments
    places = [child(path, index) for index in range(len(value))]
    read = [_read(hint, item, place, source) for hint, item, place in zip(hints, value, places, strict=True)]
    return FAULTY if any(item is FAULTY for item in read) else tuple(read)


def _read_fields(cls: type, data: Any, path: str, source: Source) -> Any:
    members = {member.name: member for member in fields(cls)}
    if not isinstance(data, dict):
        source.fault(path, f"found {describe(data)}", f"an object with the fields {', '.join(members)}")
        return FAULTY
    for key in data:
        if key not in members and (path or key != "format"):
            levers = near(key, [name for name in members if name not in data])
            source.fault(child(path, key), "unknown field", "one of " + ", ".join(members), levers)
    values = {}
    for name, member in members.items():
        if name in data:
            values[name] = _read(_type_hints(cls)[name], data[name], child(path, name), source)
        elif member.default is MISSING and member.default_factory is MISSING:
            source.fault(child(path, name), "the field is missing")
            values[name] = FAULTY
    if cls is Op and isinstance(values.get("activation"), str) and values["activation"] not in ACTIVATIONS:
        known = ", ".join(name or '""' for name in ACTIVATIONS)
        what = f"unknown function {values['activation']!a:.60}"
        source.fault(child(path, "activation"), what, f"one of {known}", near(values["activation"], ACTIVATIONS))
        values["activation"] = FAULTY
    return FAULTY if any(value is FAULTY for value in values.values()) else cls(**values)
