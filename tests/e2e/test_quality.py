"""The accuracy benchmark: its page is what its results say, the gate holds, its hardware keeps the budget."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import cells
import hardware
import matrix
import matrix_report
import pages
import pytest
import yaml

from accelsim.config import load_plan
from accelsim.plans import m2q
from accelsim.workloads.registry import build_workload

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "benchmarks" / "quality"
MATRIX = yaml.safe_load((FOLDER / "matrix.yaml").read_text(encoding="utf-8"))
ROWS = cells.read_results(matrix.RESULTS)


def test_every_cell_of_the_matrix_was_run():
    found = [(row["model"], row["arm"], row["seed"], row["recipe"]) for row in ROWS]
    assert len(set(found)) == len(found)
    assert set(found) == {(*cell[:3], matrix.recipe_of(MATRIX, cell)) for cell in matrix.cells(MATRIX)}


def test_the_page_shows_the_results(tmp_path):
    page = tmp_path / "quality.md"
    page.write_text((ROOT / "docs" / "quality.md").read_text(encoding="utf-8"), encoding="utf-8")
    text = {"gate": matrix_report.gate_table(ROWS, MATRIX), "pairs": matrix_report.pair_table(ROWS, MATRIX)}
    text |= {name: matrix_report.arm_table(ROWS, name) for name in MATRIX["models"]}
    pages.write_page(page, text)
    assert page.read_text(encoding="utf-8") == (ROOT / "docs" / "quality.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["mnq", "mptq", "pmq", "qvit"])
def test_a_methods_page_shows_its_results(name, tmp_path, monkeypatch):
    committed = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(re.sub(r"\| ([48]|4 bits) \|", "| 9 |", committed), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["report", "--page", str(page)])
    assert importlib.import_module(f"{name}_report").main() == 0
    assert page.read_text(encoding="utf-8") == committed


def test_the_gate_holds():
    lines = matrix_report.gate_table(ROWS, MATRIX).splitlines()[2:]
    assert len(lines) == len(MATRIX["gate"])
    assert all(line.endswith("| yes |") for line in lines)


def test_correct_bits_give_the_accuracy():
    for row in ROWS:
        for split in ("val", "test"):
            assert cells.correct(row[split]).mean() == pytest.approx(row[split]["top1"], abs=1e-9)


def test_a_line_that_was_cut_off_is_run_again(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps({"model": "a"}) + "\n" + '{"model": "b", "ar')
    assert cells.read_results(path) == [{"model": "a"}]
    assert cells.read_results(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("plan", [load_plan("uniform8"), m2q(0.5)], ids=lambda one: one.name)
def test_hardware_keeps_the_area_and_is_no_worse_than_the_baseline(plan):
    from accelsim.api import simulate
    from accelsim.config import load_accelerator
    from accelsim.optable import op_table

    workload = build_workload("digits_hybrid")
    best = hardware.fit(workload, plan)
    assert best.engines_mm2 == hardware.engines_mm2(best.accelerator) <= hardware.budget_mm2()
    if plan.name == "uniform8":
        base = simulate(op_table(workload, plan), load_accelerator("tiny")).prices.arithmetic.edp_pj_s
        assert best.report.prices.arithmetic.edp_pj_s <= base
