"""`accelsim quantize --method mptq`, as a user calls it: one width, widths within a budget, resume, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from codesign.cli import main
from tests.support.tiny_files import SMALL, cycles, outputs, write_networks

pytest.importorskip("sklearn")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_networks(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def quantized(model: str, *more: str) -> dict[str, Any]:
    given = ["quantize", f"{model}.py:make", "--method", "mptq", *SMALL, "-o", "q", "--json", "q.json"]
    assert main([*given, *more]) == 0
    return dict(json.loads(Path("q.json").read_text()))


def test_choices_are_those_of_the_method() -> None:
    from codesign.greedy import command
    from quant.methods import mptq
    from quant.smooth import fold

    assert (command.REGIONS, command.UNTIED) == (mptq.REGIONS, mptq.UNTIED)
    assert command.SMOOTH == fold.METHODS


def test_one_width_is_executed_in_integers_and_simulated(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quantized("tiny_vit", "--bits", "5", "--functions", "ivit")
    formats = outputs()
    assert formats["b0.softmax"].startswith("r5p")
    assert formats["b0.fc1"].startswith("r5n")
    assert (formats["b0.norm1"], formats["b0.qkv"], formats["b0.proj"], formats["head"]) == ("u5", "u5", "u8", "u8")
    assert cycles(capsys) > 0
    assert main(["eval", "q", "--data", "digits", "--images", "40", "--integer", "--json", "e.json"]) == 0
    integer = json.loads(Path("e.json").read_text())["integer"]
    assert integer["float_islands"] == []
    assert integer["agreement"] > 0.8  # untrained: logits lie close together


def test_fully_quantized_and_uniform_formats(folder: Path) -> None:
    quantized("tiny_vit", "--bits", "4", "--full", "--regions", "none", "--smooth", "none")
    formats = outputs()
    kept = {"head"}  # logits
    assert {formats[name] for name in formats if name not in {*kept, "*"}} == {"u4"}


def test_a_budget_gives_widths_and_a_killed_search_goes_on(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = quantized("tiny_vit", "--budget", "layer_bits=6", "--images", "40", "--full")
    assert made["budget"]["spent"] <= 6
    printed = capsys.readouterr().out
    assert "greedy widths" in printed
    assert f"{made['greedy']['evaluations']} losses" in printed
    widths = {**made["greedy"]["weight_bits"], **made["greedy"]["tensor_bits"]}
    assert len(set(widths.values())) > 1
    formats = outputs()
    assert all(formats[name][1] == str(bits) for name, bits in made["greedy"]["tensor_bits"].items() if name in formats)
    whole = Path("q/evaluations.jsonl").read_bytes()
    files = {name: (Path("q") / name).read_bytes() for name in ("plan.yaml", "checkpoint.safetensors")}
    # A kill: half of the losses and a torn line are left.
    lines = whole.splitlines(keepends=True)
    Path("q/evaluations.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]) + b'{"state": [8, 8')
    again = quantized("tiny_vit", "--budget", "layer_bits=6", "--images", "40", "--full")
    assert Path("q/evaluations.jsonl").read_bytes() == whole
    assert {name: (Path("q") / name).read_bytes() for name in files} == files
    assert again["greedy"]["weight_bits"] == made["greedy"]["weight_bits"]


def test_edp_budget_on_the_accelerator(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quantized("tiny_vit", "--bits", "8")
    cycles(capsys)
    edp_pj_s = json.loads(Path("r.json").read_text())["edp_pj_s"]
    made = quantized("tiny_vit", "--budget", f"edp_pj_s={0.9 * edp_pj_s}", "--images", "40")
    cycles(capsys)
    assert json.loads(Path("r.json").read_text())["edp_pj_s"] == pytest.approx(made["budget"]["spent"])
    assert made["budget"]["spent"] <= 0.9 * edp_pj_s


def test_a_network_without_layernorm_has_greedy_widths_only(folder: Path) -> None:
    made = quantized("tiny_cnn", "--budget", "uniform=6", "--images", "40")
    assert made["method_options"]["smooth"] == "none"
    assert made["method_options"]["zero_points"] is True
    assert made["budget"]["spent"] <= made["budget"]["limit"]
    assert all(name.startswith("u") for name in outputs().values())


def test_untied_steps_have_no_integers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quantized("tiny_vit", "--bits", "6", "--regions", "ptq4vit")
    assert "not executable in integers" in capsys.readouterr().out
    assert main(["eval", "q", "--data", "digits", "--images", "40"]) == 0
    assert main(["eval", "q", "--data", "digits", "--images", "40", "--integer"]) == 2
    assert "not executable in integers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--ratio", "0.5"), "the method mptq has no ratio"),
        (("--maps", "3"), "the method mptq has no maps"),
        (("--bits", "2"), "have no 2 bits"),
        (("--bits", "9"), "is no width of this method"),
        (("--full", "--budget", "uniform=4"), "does not change with what only LayerNorms"),
        (("--regions", "ptq4vit", "--budget", "layer_bits=5"), "measured with tied steps"),
        (("--regions", "ptq4vit", "--reconstruct"), "steps that are tied"),
        (("--activation-bits", "4", "--budget", "uniform=5"), "is chosen by the budget"),
        (("--search", "exact"), "is read with a budget only"),
        (("--budget", "cycles=4"), "unknown kind"),
        (("--budget", "edp_pj_s=1e-9"), "the least cost is"),
        (("--budget", "layer_bits=3"), "--budget layer_bits=3: the least cost is"),
    ],
)
def test_faults_leave_no_folder(
    folder: Path, options: tuple[str, ...], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quantize", "tiny_vit.py:make", "--method", "mptq", *SMALL, "-o", "q", *options]) == 2
    assert fault in capsys.readouterr().err
    assert not Path("q").exists()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--smooth", "sq_b"), "no LayerNorm whose outputs only linear layers read"),
        (("--zero-points", "channel"), "no LayerNorm whose outputs only linear layers read"),
        (("--regions", "fixed"), "no softmax or GELU outputs"),
        (("--functions", "ivit"), "no softmax or LayerNorm"),
    ],
)
def test_options_without_use_are_refused(
    folder: Path, options: tuple[str, ...], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quantize", "tiny_cnn.py:make", "--method", "mptq", *SMALL, "-o", "q", *options]) == 2
    assert fault in capsys.readouterr().err


def test_storage_budgets_choose_weights_only(folder: Path) -> None:
    made = quantized("tiny_vit", "--budget", "avg_bits=6", "--activation-bits", "5", "--images", "40")
    assert made["greedy"]["tensor_bits"] == {}
    assert made["budget"]["spent"] <= 6
    assert outputs()["b0.norm1"] == "u5"


def test_its_plan_can_be_given_back_with_the_smoothing(folder: Path) -> None:
    quantized("tiny_vit", "--bits", "5")
    given = ["quantize", "tiny_vit.py:make", "--plan", "q/plan.yaml", *SMALL, "-o", "p"]
    assert main([*given, "--smooth", "sq_b"]) == 0
    for name in ("plan.yaml", "workload.json", "checkpoint.safetensors"):
        assert (Path("p") / name).read_bytes() == (Path("q") / name).read_bytes()


def test_training_starts_from_the_smoothed_filters(folder: Path) -> None:
    from codesign.finetune_command import _smoothed
    from codesign.models import load_model
    from quant.checkpoint import load

    quantized("tiny_vit", "--bits", "5")
    checkpoint = load("q").checkpoint
    network = load_model("tiny_vit.py:make", None)[0]

    def outside(start: Any) -> float:
        """Share of the weights of LayerNorms' readers that another integer is nearer to."""
        weight, filters = start.node("b0.qkv").weight.detach(), checkpoint.filters["b0.qkv"]
        codes = weight / filters.scale[:, None]
        return float(((codes - filters.integers).abs() > 0.501).float().mean())

    assert outside(network) > 0.05
    assert outside(_smoothed(network, checkpoint)) < 0.02  # what is clipped


def test_images_without_labels_are_judged_by_kl(folder: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    Path("photos").mkdir()
    for k in range(8):
        image.new("L", (32, 32), 30 * k).save(f"photos/{k}.png")
    options = ("--data", "imagefolder:photos", "--calibration-images", "8", "--images", "8", "-o", "k")
    given = ["quantize", "tiny_vit.py:make", "--method", "mptq", *options, "--budget", "layer_bits=6"]
    assert main([*given, "--json", "k.json"]) == 0
    made = json.loads(Path("k.json").read_text())
    assert 0 <= made["greedy"]["start_loss"] < 0.1  # near the float network, whose own loss would be 2.3
