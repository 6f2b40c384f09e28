"""`accelsim codesign` with every family of options, on a tiny vision transformer: forms, learned widths, ablations."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from accelsim.config import load_plan
from accelsim.formats import Format
from accelsim.plan import WeightShare
from benchmarks.all_methods import blocks, facts
from codesign.cli import main
from codesign.report.study import read_study

pytest.importorskip("torch")
pytest.importorskip("pymoo")

MODEL = f"{Path(__file__).parent.parent / 'support' / 'tiny_vit.py'}:tiny_vit"
SPEC = f"""\
format: accelsim.codesign/1
name: forms, tiny
model: {MODEL}
data: digits
losses: [0.3]
penalties: {{images: 32}}
options: {{weight_formats: [u8, u4], activation_formats: [u8, u6, r6], divisions: [divide], mixtures: 1,
          methods: [ivit, fqvit], head_formats: [u4], head_mixtures: 1, token_shares: [0.5]}}
learned: [trained]
hardware:
  arch: template:heterogeneous
  set: {{clock_hz: 500_000_000, activation_buffer_bits: 65_536, weight_buffer_bits: 131_072, vector_lanes: 8,
        vector_leading_ones: 2, second_groups: 0, mult_bits: "8/4"}}
  axes: {{mult_groups: [1, 2, 4], mult_outputs: [8, 16]}}
search: {{searcher: nsga2, evaluations: 6, population: 3}}
baselines: {{uniform: [8], sequential: true, m2vit_rule: null, random: 2, without: [tokens]}}
final: {{mapper: heuristic, solver: fast, calibration_images: 32, images: 120, test_images: 100, margin_points: 20,
        refine: 0}}
"""
# What a run may differ in: when and how long.
PASSING = ("created_utc", "seconds", "history")


def save_learned(folder: Path) -> None:
    """A checkpoint as `quantize --method qvit` leaves it, all filters in 4 bits; calibrated, not trained."""
    import torch

    from codesign.models import load_model
    from quant.checkpoint import save
    from quant.methods.uniform import Uniform
    from quant.quantize import gather, make_plan, quantize_plan

    network, preprocess = load_model(MODEL)
    assert preprocess is not None
    batches = [torch.randn(8, 1, 32, 32, generator=torch.Generator().manual_seed(0))]
    plan = make_plan(network, Uniform(), gather(network, batches, Uniform()))
    narrow = (WeightShare(Format.parse("u4")),)
    rules = [rule if rule.match == "*" else replace(rule, weights=narrow) for rule in plan.rules]
    about = {"method": "qvit", "model": MODEL, "data": "digits", "preprocess": asdict(preprocess)}
    save(quantize_plan(network, batches, replace(plan, rules=tuple(rules)), about=about)[1], folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    place = tmp_path_factory.mktemp("forms")
    save_learned(place / "trained")
    (place / "spec.yaml").write_text(SPEC)
    before = Path.cwd()
    os.chdir(place)
    try:
        assert main(["codesign", "spec.yaml", "-o", "study", "--workers", "1"]) == 0
    finally:
        os.chdir(before)
    return place, json.loads((place / "study" / "result.json").read_text())


def test_every_form_and_arm_is_searched_and_measured(finished: tuple[Path, dict[str, Any]]) -> None:
    place, result = finished
    designs = {one["id"]: one for one in result["designs"]}
    assert {"codesign-0.3", "learned-trained", "without_tokens-0.3", "uniform8", "sequential-0.3"} <= designs.keys()
    assert all(one["validation"]["images"] == 120 for one in designs.values())
    assert {one["search"] for one in result["searches"]} == {"codesign", "without_tokens", "uniform8"}
    tables = [
        json.loads((place / "study" / f"{name}.json").read_text()) for name in ("penalties", "penalties_patchwise")
    ]
    assert [bool(table["tokens"]) for table in tables] == [False, True]
    assert designs["without_tokens-0.3"]["variant"] == "plain"
    assert designs["learned-trained"]["origin"] == "codesign"
    assert designs["learned-trained"]["level"] is None


def test_baselines_have_the_first_method(finished: tuple[Path, dict[str, Any]]) -> None:
    place, result = finished
    for one in result["designs"]:
        plan = load_plan(place / "study" / one["folder"] / "plan.yaml")
        methods = {rule.nonlinear for rule in plan.rules} - {""}
        if one["origin"] in ("uniform8", "sequential"):
            assert methods == {"ivit"}
            assert not any(rule.heads or rule.tokens for rule in plan.rules)


def test_a_family_is_compared_with_the_allocated_designs(finished: tuple[Path, dict[str, Any]]) -> None:
    _, result = finished
    assert [row["baseline"] for row in result["comparison"]] == ["uniform8", "sequential", "random"]
    (row,) = result["families"]
    assert (row["family"], row["baseline"]) == ("tokens", "without_tokens")
    assert row["ours"] != "learned-trained"
    assert row["edp_ratio"] > 0
    assert row["low"] <= row["accuracy_change"] <= row["high"]
    assert any(text.startswith("tokens: ") for text in result["findings"])


def test_tables_of_all_methods_read_the_result(finished: tuple[Path, dict[str, Any]]) -> None:
    place, result = finished
    found = blocks([facts(place / "study")])
    assert {name: len(found[name]) - 2 for name in ("best", "baselines", "families")} == {
        "best": 1, "baselines": 3, "families": 1,
    }  # fmt: skip
    assert found["families"][-1].startswith("| forms | tiny | tokens | 1 |")
    assert f"| {result['best']} |" in found["best"][-1]


def test_designs_of_both_forms_run_to_the_same_cycles(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    place, result = finished
    for one in result["designs"]:
        folder = place / "study" / one["folder"]
        words = ["run", folder / "workload.json", "--plan", folder / "plan.yaml", "--arch", folder / "accelerator.yaml"]
        words += ["--mapping", folder / "mapping.json", "--json", tmp_path / "report.json"]
        assert main([str(word) for word in words]) == 0
        assert json.loads((tmp_path / "report.json").read_text())["cycles_total"] == one["cycles"]
    assert read_study(place / "study").result.families[0].family == "tokens"


def test_the_trained_checkpoint_is_measured_as_it_is(finished: tuple[Path, dict[str, Any]]) -> None:
    place, _ = finished
    for name in ("plan.yaml", "checkpoint.json", "checkpoint.safetensors", "workload.json"):
        copied = place / "study" / "designs" / "learned-trained" / name
        assert copied.read_bytes() == (place / "trained" / name).read_bytes()


def test_a_killed_study_ends_the_same(finished: tuple[Path, dict[str, Any]]) -> None:
    place, result = finished
    words = [sys.executable, "-m", "codesign.cli", "codesign", "spec.yaml", "-o", "again", "--workers", "1"]
    for step in ("without_tokens: ", "codesign-0.3: ", "learned-trained: "):
        process = subprocess.Popen(words, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert process.stderr is not None
        assert any(step in line.decode() for line in process.stderr), f"ended before {step!r}"
        process.send_signal(signal.SIGKILL)
        process.communicate()
    subprocess.run(words, cwd=place, check=True, capture_output=True)
    found = json.loads((place / "again" / "result.json").read_text())
    assert {key: value for key, value in found.items() if key not in PASSING} == {
        key: value for key, value in result.items() if key not in PASSING
    }
    shutil.rmtree(place / "again")


def test_other_learned_networks_are_refused(
    finished: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place, _ = finished
    monkeypatch.chdir(place)
    kept = (place / "trained" / "checkpoint.json").read_text()
    (place / "trained" / "checkpoint.json").write_text(kept.replace("qvit", "uniform"))
    try:
        assert main(["codesign", "spec.yaml", "-o", "study", "--workers", "1"]) == 2
        assert "was made by the method uniform" in capsys.readouterr().err
        (place / "trained" / "checkpoint.json").write_text(kept + "\n")
        assert main(["codesign", "spec.yaml", "-o", "study", "--workers", "1"]) == 2
        assert "other learned networks" in capsys.readouterr().err
    finally:
        (place / "trained" / "checkpoint.json").write_text(kept)
