"""`accelsim quantize --method mnq`, as a user calls it, and what its files do in other commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from codesign.cli import main

pytest.importorskip("sklearn")

MODEL = """
import torch

from accelsim.workloads.vit import Variant
from quant.data.small import GREY_32
from quant.models.vit import VisionTransformer


def make():
    torch.manual_seed(0)
    return VisionTransformer(Variant(16, 1, 2, patch=8, classes=10, in_channels=1), 32).eval(), GREY_32
"""
SMALL = ("--data", "digits", "--calibration-images", "32", "--images", "40", "--maps", "3")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "tiny_vit.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    return "tiny_vit.py:make"


def quantized(model: str, *more: str) -> dict[str, Any]:
    given = ["quantize", model, "--method", "mnq", *SMALL, "--arch", "m2vit_nonlinear", "-o", "q", "--json", "q.json"]
    assert main([*given, *more]) == 0
    return dict(json.loads(Path("q.json").read_text()))


def test_map_arms_and_files(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = quantized(model, "--bits", "8")
    printed = capsys.readouterr().out
    found = made["nonlinear"]
    assert [slot["op"] for slot in found["sqnr"]["slots"]] == [
        "b0.norm1",
        "b0.softmax",
        "b0.norm2",
        "b0.fc1.gelu",
        "norm",
    ]
    arms = {arm["name"]: arm for arm in found["arms"]}
    assert [*arms] == [
        "float",
        "ibert",
        "ivit",
        "fqvit",
        "mnq",
        "output_only",
        "own_error",
        "random0",
        "random1",
        "random2",
    ]
    for slot in found["sqnr"]["slots"]:
        names = ("ibert", "ivit") if slot["function"] == "gelu" else ("ibert", "ivit", "fqvit")
        values = dict(zip(found["sqnr"]["methods"], slot["difference_db"], strict=True))
        assert values[found["map"][slot["op"]]] == min(values[name] for name in names)
        assert f"{slot['op']:11}  {found['map'][slot['op']]}" in printed
    assert all(arm["cost"]["vector_cycles"] > arms["float"]["cost"]["vector_cycles"] for arm in found["arms"][1:])
    assert "random maps" in printed
    assert "vector kcycles" in printed
    assert main(["eval", "q", "--data", "digits", "--images", "40", "--integer", "--json", "e.json"]) == 0
    integer = json.loads(Path("e.json").read_text())["integer"]
    assert integer["float_islands"] == []
    assert integer["agreement"] > 0.9
    assert (
        main(["run", "q/workload.json", "--plan", "q/plan.yaml", "--arch", "m2vit_nonlinear", "--json", "r.json"]) == 0
    )
    assert json.loads(Path("r.json").read_text())["cycles_total"] == arms["mnq"]["cost"]["latency_cycles"]


def test_same_input_same_bytes(model: str) -> None:
    first = quantized(model)
    files = {name: (Path("q") / name).read_bytes() for name in ("plan.yaml", "checkpoint.safetensors")}
    again = quantized(model)
    assert {name: (Path("q") / name).read_bytes() for name in files} == files
    assert {**first, "seconds": 0} == {**again, "seconds": 0}


def test_budget_gives_the_hardware_aware_map(model: str) -> None:
    arms = {arm["name"]: arm["cost"] for arm in quantized(model)["nonlinear"]["arms"]}
    edp = [arms[name]["edp_pj_s"] for name in ("float", "mnq")]
    limit = edp[0] + 0.4 * (edp[1] - edp[0])
    made = quantized(model, "--budget", f"edp_pj_s={limit}")
    assert made["budget"]["spent"] <= limit
    chosen = {arm["name"]: arm for arm in made["nonlinear"]["arms"]}["within_budget"]
    assert chosen["cost"]["edp_pj_s"] == made["budget"]["spent"]
    assert chosen["methods"] != made["nonlinear"]["map"]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--ratio", "0.5"), "the method mnq has no such option"),
        (("--reconstruct",), "rounds to nearest"),
        (("--budget", "avg_bits=4"), "no map of mnq changes it"),
        (("--budget", "edp_pj_s=1e-9"), "the cheapest map that was found needs"),
    ],
)
def test_faults_write_nothing(
    model: str, options: tuple[str, ...], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quantize", model, "--method", "mnq", *SMALL, "--arch", "m2vit_nonlinear", "-o", "q", *options]) == 2
    assert fault in capsys.readouterr().err
    assert not Path("q").exists()


def test_a_hybrid_has_nothing_to_mix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["quantize", "digits_hybrid", "--method", "mnq", *SMALL, "-o", str(tmp_path / "q")]
    assert main(given) == 2
    assert "there is nothing to mix" in capsys.readouterr().err
