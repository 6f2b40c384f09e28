"""Accelerator and plan files: YAML or JSON ↔ frozen dataclasses, every fault at once with file, line and field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from accelsim.arch import Accelerator
from accelsim.config_checks import check_accelerator, check_old_plan, check_plan
from accelsim.config_fields import FORMATS, KINDS
from accelsim.config_walk import SCHEMA_DIALECT, describe, near, read_dataclass, schema_of
from accelsim.config_yaml import FAULTY, Source, dump_yaml, read_source
from accelsim.engines.registry import import_named_modules
from accelsim.plan import OLD_PLAN_FORMAT, QuantPlan
from accelsim.problems import AccelsimError, Problem

PRESETS = Path(__file__).parent / "presets"
PLANS = Path(__file__).parent / "plans"
_CHECKS: dict[str, Callable[[Source], None]] = {"accelerator": check_accelerator, "plan": check_plan}


def preset_names() -> list[str]:
    """Names of the accelerators that come with the program."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def plan_names() -> list[str]:
    """Names of the plans that come with the program."""
    return sorted(path.stem for path in PLANS.glob("*.yaml"))


def load_accelerator(path_or_preset: str | Path) -> Accelerator:
    """The accelerator of a file or of a preset name.

    A string that names a preset means the preset (``./trio_vit`` means the file).  Raises AccelsimError with every
    fault of the file, or with the nearest preset when there is no such file.
    """
    path = _locate(path_or_preset, PRESETS, "preset")
    return cast(Accelerator, _build("accelerator", *read_source(path), header=True))


def load_plan(path_or_name: str | Path) -> QuantPlan:
    """The plan of a file, of a plan name, or of ``m2q:RATIO`` (see `accelsim.plans.m2q`).

    Raises AccelsimError as `load_accelerator` does.
    """
    from accelsim.plans import from_text

    if isinstance(path_or_name, str) and ":" in Path(path_or_name).stem and "/" not in path_or_name:
        return from_text(path_or_name)
    path = _locate(path_or_name, PLANS, "plan")
    return cast(QuantPlan, _build("plan", *read_source(path), header=True))


def accelerator_from_data(data: dict[str, Any], where: str = "accelerator") -> Accelerator:
    """The accelerator of plain data such as `Accelerator.to_json()`; a `format` field may be left out.

    `where` names the place in messages.  Raises AccelsimError with every fault.
    """
    return cast(Accelerator, _build("accelerator", data, Source(where), header=False))


def plan_from_data(data: dict[str, Any], where: str = "plan") -> QuantPlan:
    """The plan of plain data such as `QuantPlan.to_json()`; raises AccelsimError with every fault."""
    return cast(QuantPlan, _build("plan", data, Source(where), header=False))


def dump_accelerator(accelerator: Accelerator) -> str:
    """YAML text that `load_accelerator` reads back to an equal accelerator; every field is written."""
    return dump_yaml({"format": KINDS["accelerator"][0], **_plain(asdict(accelerator))})


def dump_plan(plan: QuantPlan) -> str:
    """YAML text that `load_plan` reads back to an equal plan.

    Every field is written, those that `accelsim.plan/1` did not have only where they are not the default.
    """
    return dump_yaml(_plain(plan.to_json()))


def check_file(path: str | Path) -> list[Problem]:
    """Every fault of an accelerator or plan file, which its `format:` field tells apart; an empty list if it is sound.

    Without a known format the content decides, so that the other faults are listed too.  Never raises for a bad file.
    """
    try:
        data, source = read_source(Path(path))
        if data is FAULTY or not isinstance(data, dict):
            _not_a_mapping(data, source)
            return source.problems()
        kinds = {name: kind for kind, names in KINDS.items() for name in names}
        found = data.get("format")
        kind = kinds.get(found) if isinstance(found, str) else None
        if kind is None:
            kind = "plan" if "rules" in data else "accelerator" if {"engines", "dram"} & data.keys() else None
        if kind is None:
            _check_format(data, tuple(FORMATS), source, header=True)
            return source.problems()
        _build(kind, data, source, header=True)
    except AccelsimError as error:
        return list(error.problems)
    return []


def json_schema(kind: str) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the ``accelerator`` or ``plan`` file, for editors; raises AccelsimError otherwise.

    It holds types, bounds and names; the checks across fields are made by the loaders only.
    """
    if kind not in KINDS:
        raise AccelsimError(
            Problem("json_schema", f"unknown kind {kind!a}", " or ".join(KINDS), near(kind, list(KINDS)))
        )
    titles = KINDS[kind]
    header = {"format": {"enum": list(titles), "description": "kind and version of the file"}}
    return {"$schema": SCHEMA_DIALECT, "title": titles[0], **schema_of(FORMATS[titles[0]], header)}


def _locate(name: str | Path, folder: Path, kind: str) -> Path:
    """File of a name: one that comes with the program, or a path; raises AccelsimError when there is neither."""
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    if isinstance(name, str) and name in names:
        return folder / f"{name}.yaml"
    path = Path(name)
    try:
        missing = not path.exists()
    except (OSError, ValueError):
        missing = False  # reading it reports why
    if missing or str(name) == "":
        raise AccelsimError(
            Problem(
                str(name) or "''",
                f"there is no such file, and no {kind} has this name",
                f"a YAML or JSON file, or one of {', '.join(names)}",
                near(path.stem, names) or _neighbours(path),
            )
        )
    return path


def _neighbours(path: Path) -> tuple[str, ...]:
    """The file beside `path` with the most similar name."""
    try:
        known = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return ()
    return tuple(str(path.parent / name) for name in near(path.name, known))


def _build(kind: str, data: Any, source: Source, header: bool) -> Accelerator | QuantPlan:
    """The dataclass of checked data; raises AccelsimError with every problem of `source`."""
    result: Any = FAULTY
    if isinstance(data, dict):
        titles = KINDS[kind]
        # Another kind of file would only give a long list of unknown fields.
        if _check_format(data, titles, source, header):
            import_named_modules()
            result = read_dataclass(FORMATS[titles[0]], data, "", source, ignore=("format",))
            _CHECKS[kind](source)
            if data.get("format") == OLD_PLAN_FORMAT:
                check_old_plan(source)
    else:
        _not_a_mapping(data, source)
    if source.faults or result is FAULTY:
        raise AccelsimError(source.problems())
    return cast(Accelerator | QuantPlan, result)


def _not_a_mapping(data: Any, source: Source) -> None:
    if data is not FAULTY:
        source.fault("", f"found {describe(data)}", "a mapping that starts with a `format:` field")


def _check_format(data: dict[str, Any], accepted: tuple[str, ...], source: Source, header: bool) -> bool:
    """Check the `format` field; False when the data clearly are of another kind, so that reading on is no use."""
    found = data.get("format")
    if found is FAULTY or found in accepted:
        return True
    if found is None and "format" not in data:
        if header:
            source.fault("format", "the field is missing", " or ".join(accepted))
        return True
    guess = near(found, accepted)
    if isinstance(found, str) and found in FORMATS:
        source.fault("format", f"this is a file of the format {found}", accepted[0])
        return False
    source.fault("format", f"found {describe(found)}", " or ".join(accepted), guess)
    return True


def _plain(value: Any) -> Any:
    """Tuples as lists and enum members as text, so that YAML has no tags."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, str) else value
