"""Plain data of presets and plans, and shorthands for the faults that loading them raises."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from accelsim import config
from accelsim.problems import AccelsimError, Problem


def preset_data(name: str = "m2vit") -> dict[str, Any]:
    return json.loads(json.dumps(config.load_accelerator(name).to_json()))


def plan_data(name: str = "m2q") -> dict[str, Any]:
    return config.load_plan(name).to_json()


def problems_of(load: Any, *args: Any) -> tuple[Problem, ...]:
    with pytest.raises(AccelsimError) as caught:
        load(*args)
    return caught.value.problems


def set_path(data: Any, path: str, value: Any) -> None:
    *parents, last = [int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", path)]
    for part in parents:
        data = data[part]
    data[last] = value


def fault_of(data: dict[str, Any], kind: str = "accelerator") -> Problem:
    """The only problem of the data."""
    build = config.accelerator_from_data if kind == "accelerator" else config.plan_from_data
    (problem,) = problems_of(build, data, "here")
    return problem


def write(folder: Path, text: str | bytes, name: str = "a.yaml") -> Path:
    """A file with this content."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path
