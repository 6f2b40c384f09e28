"""`accelsim allocate` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codesign.cli import main

WORDS = [
    "digits_hybrid",
    "--arch",
    "m2vit",
    "--weight-formats",
    "u8,u4,apot8",
    "--activation-formats",
    "u8",
    "--mixtures",
    "1",
]


def test_an_allocation_is_a_plan_that_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, data, report = (tmp_path / name for name in ("plan.yaml", "found.json", "report.json"))
    words = ["allocate", *WORDS, "--limit", "loss=0.02", "--solver", "fast", "-o", str(plan), "--json", str(data)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "table against simulation" in printed
    assert "no plan within this limit" in printed
    found = json.loads(data.read_text())
    assert found["predicted_loss"] <= 0.02
    assert found["bound"]["edp_pj_s"] <= found["edp_pj_s"]
    assert main(["run", "digits_hybrid", "--arch", "m2vit", "--plan", str(plan), "--json", str(report)]) == 0
    assert json.loads(report.read_text())["cycles_total"] == found["cycles_total"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--limit", "loss"], "NAME=VALUE"),
        (["--limit", "speed=3"], "latency_s"),
        (["--limit", "loss=0.1", "--limit", "loss=0.2"], "twice"),
        (["--weight-formats", "u4"], "u8 (the base)"),
        (["--weight-formats", "u8,u9z"], "u9z"),
        (["--limit", "latency_s=1e-9"], "latency_cycles"),
    ],
)
def test_bad_input_is_named(words: list[str], found: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["allocate", *WORDS, "--no-bound", "--solver", "fast", *words]) == 2
    assert found in capsys.readouterr().err
