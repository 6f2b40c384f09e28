"""Any damage to a preset or plan file: a valid object or a problem with file and line, never another exception."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accelsim import config
from accelsim.arch import Accelerator
from accelsim.config_yaml import dump_yaml, read_source
from accelsim.plan import QuantPlan
from accelsim.problems import AccelsimError

FILES = {path: path.read_bytes() for folder in (config.PRESETS, config.PLANS) for path in sorted(folder.glob("*.yaml"))}
VALUES = st.one_of(
    st.sampled_from(
        [-1, 0, 1, 3, 2**40 + 1, 2**64, 10**60, 10**4400, 1.5, -0.0, 1e300, math.nan, math.inf, -math.inf, None, True]
    ),
    st.sampled_from(
        ["", "8", "1e9", "yes", "*", "class:", "balanced", "apot8", "u99", "vector", "mac_array", "\ud800"]
    ),
    st.sampled_from([[], {}, [1, 2], {"a": 1}, [[[]]], [None], [{}], {"format": "u8", "share": 0.5}]),
    st.text(max_size=8),
    st.integers(),
)


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of every value below the top."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def mutate(draw: st.DrawFn, data: Any) -> None:
    """Delete, rename, replace or duplicate one entry in place."""
    known = list(places(data))
    if not known:
        return
    *parents, last = draw(st.sampled_from(known))
    holder = data
    for key in parents:
        holder = holder[key]
    action = draw(st.sampled_from(["delete", "rename", "replace", "replace", "duplicate", "retype"]))
    if action == "delete":
        del holder[last]
    elif action == "rename" and isinstance(holder, dict):
        cut = draw(st.integers(0, len(last)))
        holder[last[:cut] + draw(st.sampled_from(["", "x", ".", "é"])) + last[cut + 1 :]] = holder.pop(last)
    elif action == "duplicate" and isinstance(holder, list):
        holder.insert(last, copy.deepcopy(holder[last]))
    elif action == "retype":
        holder[last] = draw(st.sampled_from([str, lambda value: [value], lambda value: {"value": value}]))(holder[last])
    else:
        holder[last] = copy.deepcopy(draw(VALUES))  # the drawn lists are shared between examples


@st.composite
def damaged_data(draw: st.DrawFn) -> tuple[Path, bytes]:
    """A file with one to three mutated fields, as YAML or JSON."""
    path = draw(st.sampled_from(list(FILES)))
    data, _ = read_source(path)
    for _ in range(draw(st.integers(1, 3))):
        mutate(draw, data)
    if draw(st.booleans()):
        try:
            return path, json.dumps(data).encode()
        except ValueError:  # an integer beyond Python's limit of digits
            return path, b"{}"
    try:
        return path, dump_yaml(data).encode("utf-8", "surrogatepass")
    except ValueError:
        return path, b"x: " + b"9" * 4400


@st.composite
def damaged_text(draw: st.DrawFn) -> tuple[Path, bytes]:
    """A file with bytes cut off, injected or replaced, or a line repeated."""
    path = draw(st.sampled_from(list(FILES)))
    raw = FILES[path]
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(raw)))
        action = draw(st.sampled_from(["truncate", "bytes", "yaml", "replace", "line"]))
        if action == "truncate":
            raw = raw[:at]
        elif action == "bytes":
            raw = raw[:at] + draw(st.binary(min_size=1, max_size=4)) + raw[at:]
        elif action == "yaml":
            raw = (
                raw[:at]
                + draw(st.text("{}[]:,-&*!|>'\"%@`#?~=<\t\n\\ \r\x85\u2028uU0xe.", max_size=4)).encode()
                + raw[at:]
            )
        elif action == "replace":
            raw = raw[:at] + draw(st.binary(min_size=1, max_size=1)) + raw[at + 1 :]
        else:
            lines = raw.splitlines(keepends=True) or [b""]
            line = lines[at % len(lines)]
            raw = b"".join([*lines[: at % len(lines)], line, *lines[at % len(lines) :]])
    return path, raw


def check(original: Path, raw: bytes, folder: Path) -> None:
    path = folder / "damaged.yaml"
    path.write_bytes(raw)
    kind: type = Accelerator if original.parent == config.PRESETS else QuantPlan
    load = config.load_accelerator if kind is Accelerator else config.load_plan
    try:
        result, problems = load(path), ()
    except AccelsimError as error:
        result, problems = None, error.problems
    assert isinstance(result, kind) != bool(problems)
    assert bool(config.check_file(path)) == bool(problems)
    place = re.compile(re.escape(str(path)) + r":[1-9]\d*(: .+)?")
    for problem in problems:
        assert place.fullmatch(problem.where), problem.where
        assert problem.what
        assert "\n" not in str(problem)
        str(problem).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutations")


@settings(max_examples=350, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=damaged_data())
def test_damaged_fields(case: tuple[Path, bytes], folder: Path) -> None:
    check(*case, folder)


@settings(max_examples=350, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=damaged_text())
def test_damaged_text(case: tuple[Path, bytes], folder: Path) -> None:
    check(*case, folder)


@settings(max_examples=100, deadline=None)
@given(raw=st.binary(max_size=200))
def test_junk(raw: bytes, folder: Path) -> None:
    check(config.PRESETS / "tiny.yaml", raw, folder)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_deleting_any_single_line_is_valid_or_a_clear_problem(path: Path, folder: Path) -> None:
    lines = FILES[path].splitlines(keepends=True)
    for index, line in enumerate(lines):
        if not line.lstrip().startswith(b"#"):
            check(path, b"".join(lines[:index] + lines[index + 1 :]), folder)
