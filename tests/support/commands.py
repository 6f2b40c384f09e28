"""The command line in a process of its own: what it prints, and what it says when it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def cli(folder, *arguments, status=0):
    """Run the command in `folder`; fails when the exit status is another one, or when Python shows a traceback."""
    found = subprocess.run(
        [sys.executable, "-m", "codesign.cli", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == status, found.stderr
    assert "Traceback" not in found.stderr
    return found


def complaints(folder, *arguments):
    """Lines of standard error of a command that must be refused."""
    found = cli(folder, *arguments, status=2)
    lines = found.stderr.splitlines()
    assert lines
    assert all(line.startswith(("accelsim: error: ", "accelsim: infeasible: ")) for line in lines)
    return lines


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))
