"""The tables of decision 0018 are what the benchmark prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_page_has_the_tables_of_the_benchmark() -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, str(ROOT / "benchmarks" / "region_hardware.py")]
    found = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=env)
    assert found.returncode == 0, found.stderr
    page = (ROOT / "docs" / "decisions" / "0018-two-region-operands.md").read_text(encoding="utf-8")
    printed = [block for block in found.stdout.split("\n\n") if block]
    assert len(printed) == 2
    assert all(block.strip() in page for block in printed)
