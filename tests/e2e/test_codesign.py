"""`accelsim codesign` from file to answer on a small trained network: repeated, killed and resumed, refused."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from accelsim.config import load_accelerator, load_plan
from accelsim.plan import apply_plan
from accelsim.workloads.registry import build_workload
from codesign.cli import main

pytest.importorskip("torch")
pytest.importorskip("pymoo")

SPEC = """\
format: accelsim.codesign/1
name: digits
model: digits_hybrid
data: digits
seed: 3
losses: [0.002, 0.05]
penalties: {images: 64}
options: {weight_formats: [u8, u4, apot8], activation_formats: [u8, u6], mixtures: 1}
hardware:
  arch: template:heterogeneous
  set: {clock_hz: 500_000_000, activation_buffer_bits: 524_288, weight_buffer_bits: 524_288, vector_lanes: 32}
  axes: {mult_groups: [2, 4, 8], second_groups: [0, 2, 4], mult_outputs: [16, 64]}
  rule: {mult_groups: 4, second_groups: 4, mult_outputs: 64}
limits: {area_mm2: 1.5}
search: {searcher: nsga2, evaluations: 10, population: 5}
baselines: {uniform: [8, 4], sequential: true, m2vit_rule: 0.5, random: 1}
final: {mapper: heuristic, solver: fast, calibration_images: 64, images: 200, test_images: 150,
        margin_points: 3, refine: 1}
"""
# What a run may differ in: when and how long.
PASSING = ("created_utc", "seconds", "history")


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "codesign.cli", *(str(word) for word in words)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    place = tmp_path_factory.mktemp("codesign")
    (place / "spec.yaml").write_text(SPEC)
    assert main(["codesign", str(place / "spec.yaml"), "-o", str(place / "study"), "--workers", "1"]) == 0
    return place, json.loads((place / "study" / "result.json").read_text())


def lasting(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in PASSING}


def test_every_arm_has_a_measured_design(finished: tuple[Path, dict[str, Any]]) -> None:
    _, result = finished
    origins = {one["origin"] for one in result["designs"]}
    assert origins == {"codesign", "uniform8", "uniform4", "sequential", "m2vit_rule", "random"}
    for one in result["designs"]:
        assert one["validation"]["images"] == 200
        assert one["validation"]["low"] <= one["validation"]["change"] <= one["validation"]["high"]
        assert one["edp_pj_s"] == pytest.approx(one["energy_pj"] * one["latency_s"])
        if one["origin"] == "codesign":
            assert one["predicted_loss"] <= one["level"] * (1 + 1e-9)
    assert len(result["comparison"]) == 5
    assert result["families"] == []
    for row in result["comparison"]:
        assert row["edp_ratio"] > 0
        assert row["low"] <= row["accuracy_change"] <= row["high"]


def test_only_chosen_designs_saw_the_test_images(finished: tuple[Path, dict[str, Any]]) -> None:
    _, result = finished
    chosen = set(result["final"])
    assert result["best"] in chosen
    for one in result["designs"]:
        assert (one["test"] is not None) == (one["id"] in chosen)


def test_bounds_hold_for_the_designs(finished: tuple[Path, dict[str, Any]]) -> None:
    _, result = finished
    assert {row["design"] for row in result["bounds"]} == {
        one["id"] for one in result["designs"] if one["origin"] == "codesign"
    }
    for row in result["bounds"]:
        assert 0 <= row["gap"] < 1
        assert row["latency_bound_cycles"] <= row["latency_cycles"]
        assert row["energy_bound_pj"] <= row["energy_pj"]


def test_stored_designs_run_and_evaluate(
    finished: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    place, result = finished
    one = next(one for one in result["designs"] if one["origin"] == "codesign")
    folder = place / "study" / one["folder"]
    words = ["run", folder / "workload.json", "--plan", folder / "plan.yaml", "--arch", folder / "accelerator.yaml"]
    report = place / "report.json"
    assert main([*map(str, words), "--mapping", str(folder / "mapping.json"), "--json", str(report)]) == 0
    assert json.loads(report.read_text())["cycles_total"] == one["cycles"]
    apply_plan(build_workload("digits_hybrid"), load_plan(folder / "plan.yaml"))
    load_accelerator(folder / "accelerator.yaml")
    capsys.readouterr()
    assert main(["eval", str(folder), "--data", "digits", "--images", "200"]) == 0
    assert f"top-1           {one['validation']['top1']:.2%}" in capsys.readouterr().out


def test_the_same_command_does_nothing_twice(finished: tuple[Path, dict[str, Any]]) -> None:
    place, result = finished
    before = {path: path.stat().st_mtime_ns for path in (place / "study" / "designs").rglob("*")}
    assert main(["codesign", str(place / "spec.yaml"), "-o", str(place / "study"), "--workers", "1"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (place / "study" / "designs").rglob("*")} == before
    assert lasting(json.loads((place / "study" / "result.json").read_text())) == lasting(result)


def test_kills_change_nothing(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    place, result = finished
    draw, killed = random.Random(0), 0
    words = command("codesign", place / "spec.yaml", "-o", tmp_path / "study", "--workers", "1")
    for step in ("1 of 4", "2 of 4", "3 of 4", "codesign-0.05: ", "4 of 4"):
        process = subprocess.Popen(words, env=dict(os.environ), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert process.stderr is not None
        assert any(step in line.decode() for line in process.stderr), f"ended before {step!r}"
        time.sleep(draw.uniform(0, 1))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.communicate()
    assert killed >= 3
    subprocess.run(words, check=True, capture_output=True)
    found = lasting(json.loads((tmp_path / "study" / "result.json").read_text()))
    assert found == lasting(result)


def test_another_file_is_refused(finished: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    place, _ = finished
    other = place / "other.yaml"
    other.write_text(SPEC.replace("seed: 3", "seed: 4"))
    assert main(["codesign", str(other), "-o", str(place / "study")]) == 2
    assert "another specification" in capsys.readouterr().err


def test_too_few_images_for_the_margin_are_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC.replace("margin_points: 3", "margin_points: 0.5"))
    assert main(["codesign", str(tmp_path / "spec.yaml"), "-o", str(tmp_path / "study")]) == 2
    assert "200 validation images cannot show" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    assert main(["codesign", str(tmp_path / "spec.yaml"), "-o", str(tmp_path / "mine")]) == 2
    assert "is something else" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["thesis.tex"]


def test_limits_that_nothing_meets_are_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = SPEC.replace("area_mm2: 1.5", "area_mm2: 0.01").replace("data: digits\n", "")
    (tmp_path / "spec.yaml").write_text(text)
    assert main(["codesign", str(tmp_path / "spec.yaml"), "-o", str(tmp_path / "study"), "--workers", "1"]) == 2
    assert "no design within the limits" in capsys.readouterr().err


def test_at_the_loss_of_a_uniform_plan_the_loop_needs_no_more(finished: tuple[Path, dict[str, Any]]) -> None:
    _, result = finished
    designs = {one["id"]: one for one in result["designs"]}
    rival = designs["uniform4"]
    level = float(f"{1.001 * rival['predicted_loss']:.4g}")
    assert designs[f"codesign-{level:g}"]["edp_pj_s"] <= rival["edp_pj_s"] * (1 + 1e-9)
