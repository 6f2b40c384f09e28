"""Networks by name: built-in ones (a dict, a decorator and the checks of a request) and workload files."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from accelsim.ir import Workload
from accelsim.problems import AccelsimError, Problem

Builder = Callable[[int], Workload]


@dataclass(frozen=True)
class Entry:
    """A registered network: its builder, its usual resolution, and what a resolution must be a multiple of."""

    build: Builder
    resolution: int
    multiple: int


_ENTRIES: dict[str, Entry] = {}


def register(name: str, resolution: int, multiple: int = 1) -> Callable[[Builder], Builder]:
    """Decorator: offer a `resolution -> Workload` function under `name`.

    `resolution` is the default in pixels; a requested one must be a positive multiple of `multiple`.
    Raises AccelsimError when the name is taken.
    """

    def add(build: Builder) -> Builder:
        if name in _ENTRIES:
            raise AccelsimError(Problem(f"model {name}", "this name is already registered"))
        _ENTRIES[name] = Entry(build, resolution, multiple)
        return build

    return add


def model_names() -> tuple[str, ...]:
    """Names of all built-in networks, in order of registration."""
    return tuple(_ENTRIES)


def resolve(name: str, resolution: int | None = None) -> tuple[Entry, int]:
    """The entry behind a name and the resolution to use.

    Raises AccelsimError for an unknown name (with the closest one and the whole list) and for a bad resolution.
    """
    if name not in _ENTRIES:
        close = difflib.get_close_matches(name, _ENTRIES, n=1, cutoff=0.4)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise AccelsimError(
            Problem(
                "model", f"unknown model {name!r}{hint}", f"one of {', '.join(_ENTRIES)}, or a file that ends in .json"
            )
        )
    entry = _ENTRIES[name]
    size = entry.resolution if resolution is None else resolution
    if isinstance(size, bool) or not isinstance(size, int) or size <= 0 or size % entry.multiple:
        expected = f"a positive multiple of {entry.multiple} pixels, such as {entry.resolution}"
        raise AccelsimError(Problem(f"model {name}", f"resolution {size!r} is not possible", expected))
    return entry, size


def build_workload(name: str, resolution: int | None = None) -> Workload:
    """The network `name` at `resolution` pixels (square; None: its usual one).  Built once, then cached.

    A name that ends in ``.json`` is a workload file, which has one resolution.  Raises AccelsimError as `resolve` or
    `accelsim.workloads.from_json.load_workload` does.
    """
    if name.endswith(".json"):
        from accelsim.workloads.from_json import load_workload

        return load_workload(name, resolution)
    return _build(name, resolve(name, resolution)[1])


@lru_cache(maxsize=64)
def _build(name: str, resolution: int) -> Workload:
    return _ENTRIES[name].build(resolution)


def describe(name: str, resolution: int | None = None) -> dict[str, Any]:
    """Name, resolution, params, macs and macs_by_class of a network (raises as `build_workload`)."""
    workload = build_workload(name, resolution)
    return {
        "name": workload.name,
        "resolution": workload.resolution,
        "params": workload.params,
        "macs": workload.macs,
        "macs_by_class": workload.macs_by_class(),
    }
