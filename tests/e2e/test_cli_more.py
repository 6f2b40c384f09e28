"""The commands that look into results, as a user meets them: explain, diff, merge, export, check --fit."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3

import pytest

from accelsim.config import PRESETS
from accelsim.workloads import model_names
from tests.support.commands import cli, complaints, read_json

SMALL = ("efficientvit_b0", "--resolution", "64")
SPACE = """format: accelsim.space/1
base: {arch: tiny, plan: uniform8, model: efficientvit_b0, resolution: 32}
sampling: {method: grid}
axes:
  plan: [uniform8, uniform4]
  accelerator.dram.bandwidth_bits_per_s: [default, 51_200_000_000]
"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Folder with two reports and the explanation of the second."""
    folder = tmp_path_factory.mktemp("reports")
    cli(folder, "run", *SMALL, "--arch", "trio_vit", "--plan", "uniform8", "--json", "a.json")
    cli(folder, "run", *SMALL, "--json", "b.json")
    found = cli(folder, "explain", *SMALL, "--json", "e.json")
    (folder / "explained").write_text(found.stdout, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "space.yaml").write_text(SPACE, encoding="utf-8")
    cli(folder, "sweep", "space.yaml", "-o", "a.sqlite")
    return folder / "a.sqlite"


def test_explain_prints_and_writes_the_same_design(reports):
    text, data = (reports / "explained").read_text(encoding="utf-8"), read_json(reports / "e.json")
    report = read_json(reports / "b.json")
    assert text.startswith(f"efficientvit_b0 at 64 on m2vit, plan m2q: {report['cycles_total']:,} cycles")
    assert data["format"] == "accelsim.explanation/1"
    assert data["report"] == {key: value for key, value in report.items() if key != "ops"}
    assert [point["name"] for point in data["roofline"]] == [op["name"] for op in report["ops"]]
    by_unit: dict[str, float] = {}
    for wait in data["waits"]:
        by_unit[wait["unit"]] = by_unit.get(wait["unit"], 0) + wait["cycles"]
    for unit, waits in report["waits_cycles"].items():
        assert by_unit.get(unit, 0) == pytest.approx(sum(waits.values()))
    assert len(data["levers"]) == 9


def test_explain_to_standard_output_is_json_and_nothing_else(tmp_path, reports):
    assert json.loads(cli(tmp_path, "explain", *SMALL, "--json", "-").stdout) == read_json(reports / "e.json")


def test_explain_refuses_what_run_refuses(tmp_path):
    assert "did you mean" in complaints(tmp_path, "explain", "eficientvit_b1")[0]
    assert "short by" in complaints(tmp_path, "explain", "vit_large", "--arch", "tiny")[0]
    assert "no folder" in complaints(tmp_path, "explain", *SMALL, "--json", "missing/e.json")[0]


def test_diff_shows_totals_and_ops(tmp_path, reports):
    a, b = read_json(reports / "a.json"), read_json(reports / "b.json")
    text = cli(tmp_path, "diff", reports / "a.json", reports / "b.json", "--json", "d.json").stdout
    data = read_json(tmp_path / "d.json")
    assert "A: efficientvit_b0 at 64 on trio_vit, plan uniform8, batch 1" in text
    cycles = data["totals"]["cycles_total"]
    assert cycles["a"] == a["cycles_total"]
    assert cycles["b"] == b["cycles_total"]
    assert cycles["delta"] == b["cycles_total"] - a["cycles_total"]
    assert f"{cycles['delta']:+,}" in text
    for name in ("edp_pj_s", "edp_pj_s_synthesized", "area_mm2", "dram_read_bits"):
        assert data["totals"][name]["ratio"] == b[name] / a[name]
    assert data["energy_by_component_pj"]["mat.products"]["b"] is None
    assert data["waits_cycles"]["dram.region"]["a"] == a["waits_cycles"]["dram"]["region"]
    moved = {op["name"]: op for op in data["ops"]}
    for before, after in zip(a["ops"], b["ops"], strict=True):
        assert moved[before["name"]]["cycles"]["delta"] == after["cycles"] - before["cycles"]
    largest = max(moved.values(), key=lambda op: abs(op["dynamic_energy_pj"]["delta"]))["name"]
    lines = text.splitlines()
    assert lines[lines.index("ops with the largest change of dynamic_energy_pj") + 1].split()[0] == largest


def test_diff_of_a_report_with_itself_finds_nothing(tmp_path, reports):
    text = cli(tmp_path, "diff", reports / "a.json", reports / "a.json").stdout
    assert text.count("no difference") == 4
    assert text.count("none changed") == 2


def test_diff_names_the_ops_that_only_one_has(tmp_path, reports):
    report = read_json(reports / "a.json")
    gone = report["ops"].pop(3)
    report["ops"][0]["name"] = "renamed"
    (tmp_path / "c.json").write_text(json.dumps(report), encoding="utf-8")
    text = cli(tmp_path, "diff", reports / "a.json", "c.json").stdout
    assert f"ops only in A (2): {read_json(reports / 'a.json')['ops'][0]['name']}, {gone['name']}" in text
    assert "ops only in B (1): renamed" in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[1]", "is not a report"),
        ('{"format": "accelsim.mapping/1"}', "has format 'accelsim.mapping/1'"),
        ('{"format": "accelsim.report/1"}', "lacks the field model"),
    ],
)
def test_diff_refuses_what_is_no_report(tmp_path, reports, content, said):
    (tmp_path / "x.json").write_text(content, encoding="utf-8")
    lines = complaints(tmp_path, "diff", reports / "a.json", "x.json", "--json", "d.json")
    assert "x.json" in lines[0]
    assert said in lines[0]
    assert not (tmp_path / "d.json").exists()
    both = complaints(tmp_path, "diff", "missing.json", "x.json")
    assert "missing.json" in both[0]
    assert any("x.json" in line for line in both)


def test_diff_refuses_ops_without_numbers(tmp_path, reports):
    report = read_json(reports / "a.json")
    report["ops"][2]["cycles"] = "many"
    (tmp_path / "x.json").write_text(json.dumps(report), encoding="utf-8")
    (line,) = complaints(tmp_path, "diff", "x.json", reports / "a.json")
    assert "x.json: ops[2].cycles is not a number" in line


def test_merge_makes_one_study_that_a_sweep_continues(tmp_path, study):
    for name, keep in (("a", "point < 3"), ("b", "point > 1")):
        shutil.copy(study, tmp_path / f"{name}.sqlite")
        with sqlite3.connect(tmp_path / f"{name}.sqlite") as connection:
            connection.execute(f"DELETE FROM design WHERE NOT ({keep})")
        connection.close()
    assert "5 designs read, 4 stored" in cli(tmp_path, "merge", "c.sqlite", "a.sqlite", "b.sqlite").stdout
    shutil.copy(study.parent / "space.yaml", tmp_path / "space.yaml")
    assert "0 evaluated" in cli(tmp_path, "sweep", "space.yaml", "-o", "c.sqlite").stdout
    assert "exists already" in complaints(tmp_path, "merge", "c.sqlite", "a.sqlite")[0]


def test_merge_refuses_different_numbers(tmp_path, study):
    shutil.copy(study, tmp_path / "b.sqlite")
    with sqlite3.connect(tmp_path / "b.sqlite") as connection:
        connection.execute("UPDATE design SET cycles = cycles + 1 WHERE point = 2")
    connection.close()
    (line,) = complaints(tmp_path, "merge", "c.sqlite", study, "b.sqlite")
    assert "design 2 (efficientvit_b0, tiny, uniform4" in line
    assert not (tmp_path / "c.sqlite").exists()


def test_export_as_csv_and_parquet(tmp_path, study):
    import pandas as pd

    text = cli(tmp_path, "export", study, "--csv", "-").stdout
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == 4
    assert "wrote 4 designs to t.csv" in cli(tmp_path, "export", study, "--csv", "t.csv").stdout
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == text
    cli(tmp_path, "export", study, "--parquet", "t.parquet")
    frame = pd.read_parquet(tmp_path / "t.parquet")
    assert [str(cycles) for cycles in frame["cycles"]] == [row["cycles"] for row in rows]
    assert frame["accelerator.dram.bandwidth_bits_per_s"].tolist() == ["default", "51200000000"] * 2
    assert "standard output" in complaints(tmp_path, "export", study, "--parquet", "-")[0]
    assert "no such study" in complaints(tmp_path, "export", "none.sqlite", "--csv", "-")[0]


def test_check_says_which_networks_fit(tmp_path):
    text = cli(tmp_path, "check", PRESETS / "tiny.yaml", "--fit").stdout
    lines = text.splitlines()
    assert lines[0].endswith("no faults")
    for name in model_names():
        (line,) = (line for line in lines if line.split()[:1] == [name])
        assert (" fits: " in line) != ("short by" in line)
    assert "fits with activation_buffer.capacity_bits: " in text


def test_fit_is_for_accelerators(tmp_path, study):
    shutil.copy(study.parent / "space.yaml", tmp_path / "space.yaml")
    found = cli(tmp_path, "check", "space.yaml", "--fit", status=2)
    assert "accelsim.accelerator/1" in found.stderr
