"""`accelsim quantize --method mnq`, as a user calls it, and what its files do in other commands."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
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
    given = ["quantize", model, "--method", "mnq", *SMALL, "-o", "q", "--json", "q.json"]
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
    assert all(arm["cost"] for arm in found["arms"])  # the default accelerator runs every method
    drawn = [arms[f"random{k}"] for k in range(3)]
    for name, pick in (("mean", mean), ("least", min), ("greatest", max)):
        row = next(line for line in printed.splitlines() if line.startswith(f"  random {name} ")).split()
        assert float(row[2]) == pytest.approx(pick(100 * arm["top1"] for arm in drawn), abs=0.0051)
        assert float(row[3]) == pytest.approx(pick(arm["cost"]["vector_cycles"] / 1e3 for arm in drawn), abs=0.051)
        assert float(row[4]) == pytest.approx(pick(arm["cost"]["vector_energy_pj"] / 1e6 for arm in drawn), abs=0.0051)
        assert float(row[6]) == pytest.approx(pick(arm["cost"]["edp_pj_s"] for arm in drawn), abs=0.051)
    assert "vector kcycles" in printed
    assert main(["eval", "q", "--data", "digits", "--images", "40", "--integer", "--json", "e.json"]) == 0
    integer = json.loads(Path("e.json").read_text())["integer"]
    assert integer["float_islands"] == []
    assert integer["agreement"] > 0.9
    # The command that is printed runs.
    command = next(line.split() for line in printed.splitlines() if "accelsim run" in line)
    assert main([*command[1:], "--json", "r.json"]) == 0
    assert json.loads(Path("r.json").read_text())["cycles_total"] == arms["mnq"]["cost"]["latency_cycles"]


def test_its_plan_can_be_given_back(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    quantized(model)
    given = ["quantize", model, "--plan", "q/plan.yaml", *SMALL[:4], "-o", "p"]
    assert main(given) == 2
    assert "--separate gelu" in capsys.readouterr().err
    assert main([*given, "--separate", "gelu"]) == 0
    for name in ("plan.yaml", "workload.json", "checkpoint.safetensors"):
        assert (Path("p") / name).read_bytes() == (Path("q") / name).read_bytes()
    printed = capsys.readouterr().out
    command = next(line.split() for line in printed.splitlines() if "accelsim run" in line)
    assert main(command[1:]) == 0


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
        (("--ratio", "0.5"), "the method mnq has no ratio"),
        (("--reconstruct",), "rounds to nearest"),
        (("--bits", "9"), "codes of 2 … 8 bits"),
        (("--bits", "1"), "codes of 2 … 8 bits"),
        (("--budget", "avg_bits=4"), "no map of mnq changes it"),
        (("--separate", "gelu"), "is given without --plan"),
        (("--data", "imagefolder:photos"), "has no labels"),
    ],
)
def test_faults_are_found_before_anything_is_calibrated(
    model: str,
    options: tuple[str, ...],
    fault: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from quant.nonlinear import mixed

    image = pytest.importorskip("PIL.Image")
    Path("photos").mkdir()
    image.new("L", (32, 32)).save("photos/one.png")
    monkeypatch.setattr(mixed, "gather", lambda *_: pytest.fail("calibrated"))
    assert main(["quantize", model, "--method", "mnq", *SMALL, "-o", "q", *options]) == 2
    assert fault in capsys.readouterr().err
    assert not Path("q").exists()


def test_an_impossible_budget_is_found_before_accuracy_is_measured(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from codesign.nonlinear import arms

    monkeypatch.setattr(arms, "evaluate", lambda *_: pytest.fail("measured"))
    assert main(["quantize", model, "--method", "mnq", *SMALL, "-o", "q", "--budget", "edp_pj_s=1e-9"]) == 2
    assert "the cheapest map that was found needs" in capsys.readouterr().err
    assert not Path("q").exists()


@pytest.mark.parametrize("options", [("--maps", "3"), ("--images", "4"), ("--smooth", "sq_b"), ("--full",)])
def test_other_methods_refuse_what_they_do_not_read(
    model: str, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quantize", model, "--method", "uniform", *SMALL[:4], "-o", "q", *options]) == 2
    assert f"the method uniform has no {options[0][2:]}" in capsys.readouterr().err
    assert not Path("q").exists()


def test_a_hybrid_has_nothing_to_mix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["quantize", "digits_hybrid", "--method", "mnq", *SMALL, "-o", str(tmp_path / "q")]
    assert main(given) == 2
    assert "there is nothing to mix" in capsys.readouterr().err
