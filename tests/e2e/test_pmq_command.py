"""`accelsim quantize --method pmq`, as a user calls it: budgets, metrics, resume, refusals."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from codesign.cli import main
from tests.support.tiny_files import SMALL, cycles, outputs, write_networks

pytest.importorskip("sklearn")

FILES = ("plan.yaml", "workload.json", "checkpoint.json", "checkpoint.safetensors")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_networks(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def quantized(model: str, *more: str) -> dict[str, Any]:
    given = ["quantize", f"{model}.py:make", "--method", "pmq", *SMALL, "--images", "40", "-o", "q", "--json", "q.json"]
    assert main([*given, *more]) == 0
    return dict(json.loads(Path("q.json").read_text()))


def test_choices_are_metrics_of_the_table() -> None:
    from codesign.frontier.command import METRICS
    from quant.sensitivity.metrics import metrics_named

    assert all(one.rising and one.split == "calibration" for one in metrics_named(METRICS.values()))


def test_a_budget_gives_widths_and_a_killed_search_goes_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = quantized("tiny_vit", "--budget", "uniform=6")
    assert made["budget"]["chosen"] == "frontier widths"
    assert made["budget"]["spent"] <= made["budget"]["limit"]
    found = made["frontier"]
    assert found["slack"] == 0
    assert 0 < found["least_error"] <= found["error"]
    assert 0.1 < found["output_error"] / found["error"] < 10
    assert 0 < made["search"]["passes"]["forward"] < 5 * found["components"] + 10
    printed = capsys.readouterr().out
    assert f"{found['components']} components by logit_l2 on 40 images" in printed
    assert "sensitivity.json" in printed
    widths = {**found["weight_bits"], **found["tensor_bits"]}
    assert len(set(widths.values())) > 1
    formats = outputs()
    assert all(formats[name] == f"u{bits}" for name, bits in found["tensor_bits"].items() if name in formats)
    assert formats["b0.qkv"] == f"u{found['tensor_bits']['b0.qkv']}"
    files = {name: (Path("q") / name).read_bytes() for name in FILES}
    # A kill: a third of what was measured is left.
    with sqlite3.connect("q/sensitivity.sqlite") as cache:
        cache.execute("delete from result where rowid % 3 > 0")
    assert quantized("tiny_vit", "--budget", "uniform=6")["frontier"] == found
    assert {name: (Path("q") / name).read_bytes() for name in FILES} == files
    assert main(["eval", "q", "--data", "digits", "--images", "40", "--integer", "--json", "e.json"]) == 0
    integer = json.loads(Path("e.json").read_text())["integer"]
    assert integer["agreement"] > 0.8  # untrained: logits lie close together
    assert {name.split(".")[-1] for name in integer["float_islands"]} == {"norm1", "softmax", "norm2", "norm"}


def test_edp_budget_on_the_accelerator(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quantized("tiny_vit", "--budget", "layer_bits=8")
    cycles(capsys)
    edp_pj_s = json.loads(Path("r.json").read_text())["edp_pj_s"]
    made = quantized("tiny_vit", "--budget", f"edp_pj_s={0.9 * edp_pj_s}")
    cycles(capsys)
    assert json.loads(Path("r.json").read_text())["edp_pj_s"] == pytest.approx(made["budget"]["spent"])
    assert made["budget"]["spent"] <= 0.9 * edp_pj_s


def test_the_hull_and_other_metrics(folder: Path) -> None:
    exact = quantized("tiny_vit", "--budget", "uniform=5")["frontier"]
    made = quantized("tiny_vit", "--budget", "uniform=5", "--hull")
    assert made["budget"]["chosen"] == "hull widths"
    assert exact["error"] <= made["frontier"]["error"]
    assert made["frontier"]["least_error"] == pytest.approx(exact["least_error"])
    assert made["frontier"]["points"] < exact["points"]
    few = quantized("tiny_vit", "--budget", "uniform=5", "--bins", "10")["frontier"]
    assert few["points"] <= 11
    assert few["slack"] > 0
    fisher = quantized("tiny_vit", "--budget", "uniform=5", "--metric", "fisher")
    assert fisher["frontier"]["metric"] == "fisher"
    assert fisher["search"]["passes"]["backward"] > 0


def test_storage_budgets_choose_weights_only(folder: Path) -> None:
    made = quantized("tiny_vit", "--budget", "avg_bits=6", "--activation-bits", "5")
    assert made["frontier"]["tensor_bits"] == {}
    assert made["budget"]["spent"] <= 6
    assert outputs()["b0.norm1"] == "u5"


def test_a_network_without_attention(folder: Path) -> None:
    made = quantized("tiny_cnn", "--budget", "uniform=6")
    assert made["budget"]["spent"] <= made["budget"]["limit"]
    assert made["frontier"]["components"] == 3


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ((), "chooses widths within a budget"),
        (("--bits", "6"), "the method pmq has no bits"),
        (("--smooth", "none", "--budget", "uniform=6"), "the method pmq has no smooth"),
        (("--bins", "9", "--hull", "--budget", "uniform=6"), "--hull has no bins"),
        (("--bins", "1", "--budget", "uniform=6"), "leaves nothing to choose"),
        (("--activation-bits", "4", "--budget", "uniform=5"), "is chosen by the budget"),
        (("--activation-bits", "9", "--budget", "avg_bits=5"), "is no width of this method"),
        (("--budget", "cycles=4"), "unknown kind"),
        (("--budget", "edp_pj_s=1e-9"), "the least cost is"),
        (("--budget", "layer_bits=3"), "--budget layer_bits=3: the least cost is"),
    ],
)
def test_faults_leave_no_folder(
    folder: Path, options: tuple[str, ...], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quantize", "tiny_vit.py:make", "--method", "pmq", *SMALL, "-o", "q", *options]) == 2
    assert fault in capsys.readouterr().err
    assert not Path("q").exists()


@pytest.mark.parametrize("option", [("--metric", "output"), ("--bins", "9"), ("--hull",)])
def test_options_of_pmq_are_refused_by_other_methods(
    folder: Path, option: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quantize", "tiny_vit.py:make", "--method", "uniform", *SMALL, "-o", "q", *option]) == 2
    assert f"the method uniform has no {option[0][2:]}" in capsys.readouterr().err
