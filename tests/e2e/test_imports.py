"""Imports go one way, numba stays in one package, and importing the simulator is cheap."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
HEAVY = ("torch", "pandas", "matplotlib")
# What a package may not import, whether at the top of a file or in a function.
FORBIDDEN = {
    "accelsim": {"quant", "codesign", "torch", "torchvision", "pandas", "matplotlib", "tests", "benchmarks"},
    "quant": {"codesign", "tests", "benchmarks"},
    "codesign": {"tests", "benchmarks"},
}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Top-level packages that a file names in any import statement; a relative one is its own package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield path.relative_to(ROOT).parts[0] if node.level else str(node.module).partition(".")[0]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_go_one_way(package):
    files = sources(package)
    assert files
    wrong = {
        str(path.relative_to(ROOT)): sorted(bad) for path in files if (bad := FORBIDDEN[package] & set(imported(path)))
    }
    assert not wrong


def test_numba_only_in_the_kernels():
    users = {path.parent for package in FORBIDDEN for path in sources(package) if "numba" in imported(path)}
    assert users == {ROOT / "accelsim" / "kernels"}


@pytest.mark.parametrize("module", ["accelsim", "accelsim.api", "accelsim.config", "codesign.cli"])
def test_nothing_heavy_is_loaded(module):
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_the_help_of_any_command_loads_no_arrays():
    code = (
        "import sys; from codesign.cli import _parser; _parser(); "
        f"print(*[name for name in ('numpy', 'numba', 'scipy', *{HEAVY!r}) if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_a_run_loads_nothing_heavy(tmp_path):
    code = (
        "import sys; from codesign.cli import main; "
        "status = main(['run', 'efficientvit_b0', '--resolution', '64', '--json', 'out.json']); "
        f"print(status, *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert found.stdout.splitlines()[-1].split() == ["0"]
