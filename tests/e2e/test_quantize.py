"""`quantize`, `eval` and `run` on what they wrote, as a user calls them; bad input: status 2, nothing written."""

from __future__ import annotations

import json

import numpy as np
import pytest

from codesign.cli import main

pytest.importorskip("sklearn")

MODEL = """
import torch
from torch import nn

from quant.data.small import GREY_32
from quant.models.blocks import Activation, Add, Conv, Linear, Pool


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = Conv(1, 8, 3, stride=4, norm=True, activation="hardswish")
        self.expand = Conv(8, 16, norm=True, activation="hardswish")
        self.dw = Conv(16, 16, 3, groups=16, norm=True, activation="hardswish")
        self.project = Conv(16, 8, norm=True)
        self.add = Add()
        self.pool = Pool()
        self.fc = Linear(8, 10)

    def forward(self, x):
        x = self.stem(x)
        x = self.add(self.project(self.dw(self.expand(x))), x)
        return self.fc(self.pool(x))


def make():
    torch.manual_seed(0)
    return Small(), GREY_32


def unknown():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.fft.fft(x.flatten(1)).real

    return Odd(), GREY_32
"""


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MODEL)
    return "mine.py:make"


def quantized(model, *more, output="q"):
    given = ["quantize", model, "--data", "digits", "--calibration-images", "64", "-o", output, *more]
    assert main(given) == 0


def faults(capsys, *arguments):
    assert main(list(arguments)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert all(line.startswith("accelsim: ") for line in lines)
    return lines


def test_quantize_eval_run(model, tmp_path, capsys):
    quantized(model, "--json", "made.json")
    made = json.loads((tmp_path / "made.json").read_text())
    assert made["method"] == "M2Q"
    assert made["calibration"]["images"] == 64
    assert "apot8" in capsys.readouterr().out
    assert main(["eval", "q", "--data", "digits", "--against", model, "--integer", "--json", "eval.json"]) == 0
    found = json.loads((tmp_path / "eval.json").read_text())
    assert found["images"] == 250
    assert found["against"]["agreement"] > 0.8
    assert found["integer"]["agreement"] > 0.9
    assert found["integer"]["float_islands"] == []
    capsys.readouterr()
    assert main(["run", "q/workload.json", "--plan", "q/plan.yaml", "--arch", "m2vit", "--json", "-"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["cycles_total"] > 0


def test_the_same_command_writes_the_same_checkpoint(model, tmp_path):
    for name in ("a", "b"):
        quantized(model, "--reconstruct", "--steps", "5", output=name)
    for file in ("plan.yaml", "checkpoint.safetensors", "workload.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_budget_takes_the_first_that_fits(model, tmp_path):
    quantized(model, "--method", "uniform", "--budget", "avg_bits=5.5", "--json", "made.json")
    made = json.loads((tmp_path / "made.json").read_text())
    assert made["budget"] == {"kind": "avg_bits", "limit": 5.5, "spent": 5.0, "chosen": "uniform 5"}
    quantized(model, "--budget", "latency_s=1", "--arch", "m2vit", "--json", "made.json", output="r")
    assert json.loads((tmp_path / "made.json").read_text())["budget"]["chosen"] == "m2q ratio 0"


def test_a_balanced_ratio_comes_from_the_engines(model, tmp_path):
    quantized(model, "--ratio", "balanced", "--arch", "m2vit", "--json", "made.json")
    made = json.loads((tmp_path / "made.json").read_text())
    assert made["ratio_from"] == "m2vit"
    assert set(made["method_options"]["counts"]) == {"expand", "project"}


def test_an_unlabelled_folder_calibrates(model, tmp_path):
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "photos").mkdir()
    random = np.random.default_rng(0)
    for k in range(8):
        image.fromarray(random.integers(0, 255, (40, 48), np.uint8)).save(tmp_path / "photos" / f"{k}.png")
    assert main(["quantize", model, "--data", "imagefolder:photos", "-o", "q"]) == 0
    assert (tmp_path / "q" / "checkpoint.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "m3q"], "unknown method 'm3q'"),
        (["--bits", "4"], "the method m2q has no bits"),
        (["--method", "uniform", "--bits", "40"], "unknown number format"),
        (["--ratio", "2"], "a number 0 … 1"),
        (["--budget", "time=3"], "unknown kind 'time'"),
        (["--budget", "latency_s=1e-12"], "the cheapest"),
        (["--arch", "nothing"], "nothing"),
        (["--observer", "max"], "unknown observer"),
        (["--plan", "uniform8", "--separate", "gelu"], "no output stage of"),
        (["--plan", "uniform8", "--maps", "3"], "--maps: is given beside --plan"),
        (["--separate", "gelu"], "is given without --plan"),
        (["--activation-bits", "1"], "unknown number format"),
    ],
)
def test_bad_options(model, tmp_path, capsys, arguments, words):
    lines = faults(capsys, "quantize", model, "--data", "digits", "--calibration-images", "32", "-o", "q", *arguments)
    assert words in lines[0]
    assert not (tmp_path / "q").exists()


def test_bad_models_and_data(model, tmp_path, capsys):
    assert "has no trained weights" in faults(capsys, "quantize", "efficientvit_b1", "-o", "q")[0]
    assert "cannot be loaded" in faults(capsys, "quantize", "mine.py:nobody", "-o", "q")[0]
    assert "unknown data" in faults(capsys, "quantize", model, "--data", "imagenet", "-o", "q")[0]
    assert "fft" in faults(capsys, "quantize", "mine.py:unknown", "--data", "digits", "-o", "q")[0]
    assert "is no checkpoint" in faults(capsys, "eval", str(tmp_path), "--data", "digits")[0]
    assert "no integers" in faults(capsys, "eval", model, "--data", "digits", "--integer")[0]
    assert not (tmp_path / "q").exists()
