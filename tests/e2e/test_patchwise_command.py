"""`accelsim quantize --method pmq --patchwise`, as a user calls it: both rules, what is simulated, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from codesign.budgets import Budget
from codesign.cli import main
from codesign.models import load_model
from tests.support.tiny_files import CNN, SMALL, VIT, cycles

pytest.importorskip("sklearn")

FILES = ("plan.yaml", "workload.json", "checkpoint.json", "checkpoint.safetensors")
ASKED = ("--method", "pmq", *SMALL, "--images", "40", "--arch", "bitfusion_edge")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "two_blocks.py").write_text(VIT.replace("Variant(16, 1, 2", "Variant(16, 2, 2"))
    (tmp_path / "tiny_cnn.py").write_text(CNN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def quantized(*more: str) -> dict[str, Any]:
    assert main(["quantize", "two_blocks.py:make", *ASKED, "-o", "q", "--json", "q.json", *more]) == 0
    return dict(json.loads(Path("q.json").read_text()))


def plan_tokens() -> dict[str, dict[str, Any]]:
    import yaml

    rules = yaml.safe_load(Path("q/plan.yaml").read_text())["rules"]
    return {rule["match"]: rule["tokens"] for rule in rules if "tokens" in rule}


def test_a_fixed_number_of_tokens_within_a_budget(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = quantized("--patchwise", "fixed", "--budget", "uniform=5", "--full-share", "0.3")
    assert set(plan_tokens()) == {f"b1.{name}" for name in ("norm1", "qkv", "softmax", "values", "norm2", "fc1")}
    assert all(one == {"layer": "b1", "high": 5, "drop_bits": 2} for one in plan_tokens().values())
    # The budget is that of the model without ranking.
    assert made["budget"]["limit"] == Budget("uniform", 5).limit(load_model("two_blocks.py:make", None)[0].workload)
    assert made["budget"]["spent"] <= made["budget"]["limit"]
    found = made["patchwise"]
    # All images are alike, and cost what the budget was told.
    assert found["mean_full_tokens"] == {"b1": 5.0}
    assert found["bops"] == pytest.approx(made["budget"]["spent"])
    simulated = found["simulated"]["cycles"]
    assert simulated["mean"] == simulated["p95"] == simulated["max"]
    assert cycles(capsys) == simulated["mean"]
    assert "b1.gather" in Path("q/workload.json").read_text()
    assert main(["eval", "q", "--data", "digits", "--images", "40", "--integer", "--json", "e.json"]) == 0
    assert json.loads(Path("e.json").read_text())["integer"]["agreement"] > 0.8  # untrained: logits lie close together


def test_as_many_tokens_as_an_image_needs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = quantized("--patchwise", "variable", "--budget", "layer_bits=6", "--importance", "received")
    found, asked = made["patchwise"], made["method_options"]["patchwise"]
    assert 0 < asked["share_256"] < 256
    assert asked["importance"] == "received"
    assert "b1.rank" not in made["frontier"]["tensor_bits"]
    # The threshold keeps half of the tokens full on the mean of the calibration images.
    assert found["mean_full_tokens"]["b1"] == pytest.approx(8, abs=1.5)
    latency = found["simulated"]["latency_s"]
    assert latency["p5"] <= latency["mean"] <= latency["p95"] <= latency["max"]
    assert f"{asked['share_256']}/256 of the importance (received attention)" in capsys.readouterr().out


def test_the_same_call_gives_the_same_bytes(folder: Path) -> None:
    given = ("--patchwise", "variable", "--budget", "uniform=6", "--drop-bits", "3")
    found = quantized(*given)
    files = {name: (Path("q") / name).read_bytes() for name in FILES}
    assert quantized(*given)["patchwise"] == found["patchwise"]
    assert {name: (Path("q") / name).read_bytes() for name in FILES} == files
    # Narrow codes have two bits at least.
    assert min(found["frontier"]["tensor_bits"].values()) >= 5


def test_the_plan_is_run_on_the_model_with_its_ranking(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from accelsim.config import load_plan
    from accelsim.token_rules import ranked_for
    from accelsim.workloads import build_workload

    quantized("--patchwise", "fixed", "--budget", "uniform=6")
    saved = build_workload("q/workload.json")
    names = [op.name for op in saved.ops if not op.name.startswith("b1.rank") and op.name != "b1.gather"]
    assert len(names) == len(saved.ops) - 4
    assert ranked_for(saved, load_plan("q/plan.yaml")) is saved


def test_a_budget_of_storage_narrows_filters_below_what_tokens_need(folder: Path) -> None:
    made = quantized("--patchwise", "fixed", "--budget", "avg_bits=4", "--drop-bits", "6")
    assert made["budget"]["spent"] <= 4
    assert set(made["frontier"]["weight_bits"].values()) == {4}
    assert all(one["drop_bits"] == 6 for one in plan_tokens().values())


def test_a_plan_with_token_groups_is_no_plan_to_quantize_with(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule = "{match: b1.qkv, tokens: {layer: b1, high: 5, drop_bits: 2}}"
    Path("tokens.yaml").write_text(f"format: accelsim.plan/2\nname: tokens\nrules:\n  - {rule}\n  - {{match: '*'}}\n")
    assert main(["quantize", "two_blocks.py:make", "--plan", "tokens.yaml", *SMALL, "-o", "p"]) == 2
    fault = capsys.readouterr().err
    assert "--plan tokens.yaml: has token groups in b1" in fault
    assert "--patchwise fixed" in fault
    assert not Path("p").exists()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--full-share", "0.5", "--budget", "uniform=6"), "--full-share: is read with --patchwise only"),
        (("--importance", "class", "--budget", "uniform=6"), "--importance: is read with --patchwise only"),
        (("--patchwise", "fixed", "--drop-bits", "7", "--budget", "uniform=6"), "leaves fewer than two of 8 bits"),
        (("--patchwise", "fixed"), "chooses widths within a budget"),
        (
            ("--patchwise", "fixed", "--budget", "avg_bits=5", "--activation-bits", "3"),
            "--drop-bits 2: leaves fewer than two of 3 bits",
        ),
        (("--patchwise", "fixed", "--budget", "uniform=6", "--reconstruct"), "--reconstruct: works on blocks"),
    ],
)
def test_faults_of_token_groups_leave_no_folder(
    folder: Path, options: tuple[str, ...], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quantize", "two_blocks.py:make", *ASKED, "-o", "q", *options]) == 2
    assert fault in capsys.readouterr().err
    assert not Path("q").exists()


def test_a_network_without_tokens_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["quantize", "tiny_cnn.py:make", *ASKED, "-o", "q", "--budget", "uniform=6", "--patchwise", "fixed"]
    assert main(given) == 2
    assert "no layer that follows an attention of tokens" in capsys.readouterr().err
    assert not Path("q").exists()


@pytest.mark.parametrize("share", ["0", "1.5", "half"])
def test_shares_that_are_none(folder: Path, share: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["quantize", "two_blocks.py:make", *ASKED, "-o", "q", "--patchwise", "fixed", "--full-share", share])
    assert caught.value.code == 2
    assert "above 0 and at most 1" in capsys.readouterr().err
