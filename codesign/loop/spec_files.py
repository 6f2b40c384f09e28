"""A file of a co-design that may extend another one: what it leaves out is taken from there, section by section."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelsim.config_yaml import FAULTY, Source, read_source
from accelsim.problems import AccelsimError, Problem

EXTENDS = "extends"


class _Layers(Source):
    """The source of two files: a fault belongs to the file that has the field, or the nearest one around it."""

    def __init__(self, own: Source, base: Source) -> None:
        super().__init__(own.where, own.lines, [*own.faults, *base.faults])
        self.base = base

    def fault(
        self, path: str, what: str, expected: str = "", levers: tuple[str, ...] = (), line: int | None = None
    ) -> None:
        """Record one fault of the field at `path`."""
        if _known(self.base, path) > _known(self, path):
            self.base.fault(path, what, expected, levers, line)
            self.faults.append(self.base.faults[-1])
        else:
            super().fault(path, what, expected, levers, line)


def _known(source: Source, path: str) -> int:
    """How much of a field path a file has, in characters."""
    while path and path not in source.lines:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return len(path)


def read_layers(path: Path) -> tuple[Any, Source]:
    """The data of a file with those of the file that its field `extends` names, and the source of both.

    The name is relative to the file's own folder.  Of a mapping that both have, such as `hardware`, each field is the
    own one if it is there; every other field is the own one whole.  Raises AccelsimError for a file that cannot be
    read; a base that extends a third file is a fault.
    """
    data, source = read_source(path)
    if not isinstance(data, dict) or EXTENDS not in data:
        return data, source
    name = data.pop(EXTENDS)
    if name is FAULTY:
        return FAULTY, source
    if not isinstance(name, str) or not name:
        source.fault(EXTENDS, f"is {name!r}", "the name of a file")
        return FAULTY, source
    try:
        base, under = read_source(path.parent / name)
    except AccelsimError as error:
        where = f"{path}:{source.line(EXTENDS)}: {EXTENDS}"
        problems = [Problem(f"{where}: {one.where}", one.what, one.expected) for one in error.problems]
        raise AccelsimError(problems) from error
    if isinstance(base, dict) and EXTENDS in base:
        under.fault(EXTENDS, f"is in a file that {path.name} extends", "a base that extends nothing")
        base.pop(EXTENDS)
    layers = _Layers(source, under)
    return _merged(data, base) if isinstance(base, dict) else FAULTY if layers.faults else base, layers


def _merged(own: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**base, **own}
    for name, value in own.items():
        if isinstance(value, dict) and isinstance(base.get(name), dict):
            merged[name] = {**base[name], **value}
    return merged


def text_of(where: str) -> str:
    """The text of a file, and of the one that it extends behind it; "" when they are gone."""
    try:
        path = Path(where)
        text = path.read_text(encoding="utf-8")
        data, _ = read_source(path)
        name = data.get(EXTENDS) if isinstance(data, dict) else None
        if not isinstance(name, str):
            return text
        return f"{text}\n# {name}\n" + (path.parent / name).read_text(encoding="utf-8")
    except (OSError, AccelsimError):
        return ""
