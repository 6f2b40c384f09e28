"""Names and field paths: where a space gets accelerators, plans and workloads from, and how a path meets a field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from accelsim.arch import Accelerator

COSMETIC = ("name", "notes")


@dataclass(frozen=True)
class Catalog:
    """How names become things; each function raises AccelsimError for a name or a value that it does not accept.

    `accelerator` gives the plain data of a named accelerator, `build` turns such data into an Accelerator (its second
    argument names the place for error messages), `plan` reads a plan, `workload_id` is the fingerprint of a model at a
    resolution (None = the model's own).
    """

    accelerator: Callable[[str], dict[str, Any]]
    build: Callable[[dict[str, Any], str], Accelerator]
    plan: Callable[[str], Any]
    workload_id: Callable[[str, int | None], str]


def default_catalog() -> Catalog:
    """The program's own accelerators, templates, plans and models, each read once.

    `template:NAME` is a template with its defaults (docs/templates.md): its data are its parameters.
    """
    from functools import cache

    from accelsim.config import load_plan
    from accelsim.workloads import build_workload

    return Catalog(
        accelerator=cache(_accelerator_data),
        build=_build,
        plan=cache(load_plan),
        workload_id=cache(lambda model, resolution: build_workload(model, resolution).fingerprint()),
    )


def _accelerator_data(name: str) -> dict[str, Any]:
    from accelsim.config import load_accelerator
    from codesign.templates.registry import PREFIX, template_named

    if name.startswith(PREFIX):
        return template_named(name.removeprefix(PREFIX)).defaults()
    return load_accelerator(name).to_json()


def _build(data: dict[str, Any], where: str) -> Accelerator:
    from accelsim.config import accelerator_from_data
    from codesign.templates.registry import KEY, accelerator_of_template

    return accelerator_of_template(data, where) if KEY in data else accelerator_from_data(data, where)


def _step(data: Any, part: str) -> Any:
    """Key under which `part` of a field path is found in `data`, or None: lists take an index or an item's name."""
    if isinstance(data, dict):
        return part if part in data else None
    if isinstance(data, (list, tuple)):
        if part.isdecimal():
            return int(part) if int(part) < len(data) else None
        for index, item in enumerate(data):
            if isinstance(item, dict) and item.get("name") == part:
                return index
    return None


def _names(data: Any) -> list[str]:
    if isinstance(data, dict):
        return [str(key) for key in data if key not in COSMETIC]
    if isinstance(data, (list, tuple)):
        return [item["name"] if isinstance(item, dict) and "name" in item else str(i) for i, item in enumerate(data)]
    return []


def unknown_part(data: Any, field: str) -> tuple[str, list[str]] | None:
    """The first part of a field path that does not exist in `data` with the names that do, or None."""
    parts = field.split(".")
    for part in parts:
        key = _step(data, part)
        if key is None:
            return part, _names(data)
        data = data[key]
    return (parts[-1], []) if parts[-1] in COSMETIC else None


def has_field(data: Any, field: str) -> bool:
    """True when the field path exists in `data` and is not a mere label."""
    return unknown_part(data, field) is None


def with_field(data: Any, field: str, value: Any) -> Any:
    """A copy with the value at a field path that exists replaced; what the path does not touch is shared."""
    part, _, rest = field.partition(".")
    key = _step(data, part)
    copy = dict(data) if isinstance(data, dict) else list(data)
    copy[key] = with_field(data[key], rest, value) if rest else value
    return copy
