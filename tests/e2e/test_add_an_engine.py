"""The page "Add an engine in 30 lines": its blocks run as they stand and print what the page says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add_an_engine.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+) ?([\w.]*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for language, name, text in BLOCKS:
        if name and language != "text":
            (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def run(command: list[str], folder: Path, **variables: str) -> str:
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "PYTHONIOENCODING": "utf-8"} | variables
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8", env=env)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_the_engine_has_at_most_thirty_lines() -> None:
    (engine,) = (text for _, name, text in BLOCKS if name == "bit_serial.py")
    assert len(engine.splitlines()) <= 30


def test_the_run_prints_what_the_page_says(folder: Path) -> None:
    (printed,) = (text for language, name, text in BLOCKS if (language, name) == ("text", "run.py"))
    assert run([sys.executable, "run.py"], folder) == printed


def test_the_command_finds_the_kind_and_agrees_with_the_page(folder: Path) -> None:
    (line,) = (text for language, _, text in BLOCKS if language == "sh")
    module, _, program, *arguments = shlex.split(line)
    assert program == "accelsim"
    name, value = module.split("=")
    out = run([sys.executable, "-m", "codesign.cli", *arguments], folder, **{name: value})
    (cycles,) = re.findall(r"^w4a8 (\d+) cycles", PAGE, re.MULTILINE)
    assert re.search(rf"cycles +{int(cycles):,} ", out)


def test_a_kind_that_nobody_registered_is_a_fault(folder: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    for variables, words in (({}, "found the text 'bit_serial'"), ({"ACCELSIM_ENGINES": "no_such"}, "No module named")):
        command = [sys.executable, "-m", "codesign.cli", "run", "deit_tiny", "--arch", "bit_serial.yaml"]
        found = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env | variables)
        assert found.returncode == 2
        assert words in found.stderr
        assert "Traceback" not in found.stderr
