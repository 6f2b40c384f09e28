"""`accelsim quantize --method qvit` as a user calls it: both artefacts, the log, resumption, refusals."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from codesign.cli import main

pytest.importorskip("torch")

MODEL = "glyph_vit_small"
SMALL = ("--steps", "3", "--batch", "8", "--images", "16", "--calibration-images", "8", "--keep-every", "1")
GIVEN = ("quantize", MODEL, "--method", "qvit", "--budget", "uniform=4", *SMALL)
FILES = [
    "bits.jsonl", "bits.png", "bits_over_time.png", "checkpoint.json", "checkpoint.safetensors", "plan.yaml",
    "workload.json",
]  # fmt: skip
STAGES = ["float", "learned", "settled", "tied", "trained", "fake_quantized", "integers"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qvit") / "q"
    assert main([*GIVEN, "-o", str(folder), "--json", str(folder.parent / "done.json")]) == 0
    return folder, json.loads((folder.parent / "done.json").read_text())


def faults(capsys, *given):
    capsys.readouterr()
    assert main(["quantize", MODEL, "--method", "qvit", *given, "-o", "bad"]) == 2
    assert not Path("bad").exists()
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


def test_a_run_leaves_both_artefacts_the_log_and_pictures(made, capsys):
    folder, done = made
    assert sorted(path.name for path in folder.iterdir()) == FILES
    found = done["learned_bits"]
    assert list(found["accuracy"]) == STAGES
    assert found["training"]["steps"] == 3
    assert found["start_bits"] == 5
    assert done["budget"]["kind"] == "uniform"
    assert 0.99 * done["budget"]["limit"] <= done["budget"]["spent"] <= done["budget"]["limit"]
    assert found["simulated"]["arch"] == "bitfusion_edge"
    log = [json.loads(line) for line in (folder / "bits.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [0, 3]
    assert log[0]["spent"] > 1
    assert log[-1]["spent"] <= 1
    assert {"flips", "widths"} <= set(log[-1])
    assert any(set(entry.get("freeze", ())) == {"learned", "settled", "tied"} for entry in log)
    for name in ("bits.png", "bits_over_time.png"):
        assert min(struct.unpack(">II", (folder / name).read_bytes()[16:24])) > 300
    assert main(["eval", str(folder), "--images", "16", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["top1"] == found["accuracy"]["fake_quantized"]["top1"]
    report = ["run", str(folder / "workload.json"), "--plan", str(folder / "plan.yaml"), "--arch", "bitfusion_edge"]
    assert main([*report, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["cycles_total"] == found["simulated"]["cycles_total"]


def test_a_budget_of_simulated_latency_is_kept_and_the_text_says_so(capsys):
    given = ["quantize", MODEL, "--method", "qvit", *SMALL, "--granularity", "layer", "--one-scale"]
    assert main([*given, "--budget", "latency_s=40e-6", "-o", "fast", "--json", "done.json"]) == 0
    done = json.loads(Path("done.json").read_text())
    assert done["budget"]["spent"] == done["learned_bits"]["simulated"]["latency_s"]
    assert done["budget"]["spent"] <= 40e-6 * 1.01
    assert done["learned_bits"]["target"]["left_modes"] == [2, 4, 8]
    text = capsys.readouterr().out
    assert "modes of 2/4/8 and 2/4/8 bits" in text
    same = done["learned_bits"]["accuracy"]["integers"]["agreement"]
    assert f"checkpoint, integers; same choice as fake quantized on {same:.1%}" in text


def test_a_killed_run_goes_on_to_the_same_bytes(made, tmp_path):
    folder, _ = made
    command = [sys.executable, "-m", "codesign.cli", *GIVEN, "-o", "q"]
    root = str(Path(__file__).parent.parent.parent)
    environment = {**os.environ, "PYTHONPATH": root}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    state, deadline, seen = tmp_path / "q" / "qvit.state", time.monotonic() + 300, set()
    # The first file is that of the start: kill behind a later one.
    while len(seen) < 2 and process.poll() is None and time.monotonic() < deadline:
        with suppress(FileNotFoundError):
            seen.add(state.stat().st_mtime_ns)
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert state.exists()
    assert main([*GIVEN, "-o", "q"]) == 0
    for name in FILES:
        assert (tmp_path / "q" / name).read_bytes() == (folder / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "q").iterdir()) == FILES


def test_fixed_bits_keep_their_width():
    given = ["quantize", MODEL, "--method", "qvit", "--budget", "uniform=3", "--fixed-bits", *SMALL]
    assert main([*given, "-o", "lsq", "--json", "done.json"]) == 0
    done = json.loads(Path("done.json").read_text())["learned_bits"]
    assert done["flips"] == 0
    assert done["mean_bits"] == {"weights": 3.0, "stored": 3.0}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), "learns widths within a budget"),
        (("--budget", "uniform=12"), "is no width of this method"),
        (("--budget", "bops=1e6"), "unknown kind 'bops'"),
        (("--budget", "uniform=4", "--activation-bits", "4"), "the method qvit has no activation bits"),
        (("--budget", "uniform=4", "--reconstruct"), "that qvit trains"),
        (("--budget", "uniform=4", "--steps", "3", "--epochs", "1"), "beside --epochs"),
        (("--budget", "uniform=4", "--fixed-bits", "--start-bits", "5"), "--fixed-bits learns none"),
        (("--budget", "latency_s=1", "--fixed-bits"), "--budget uniform=B"),
        (("--budget", "uniform=4", "--modes", "snap"), "have no modes"),
        (("--budget", "uniform=4", "--start-bits", "9"), "2 … 8"),
        (("--budget", "uniform=4", "--rate", "0"), "more than 0"),
        (("--budget", "uniform=4", "--device", "abacus"), "abacus"),
        (("--budget", "latency_s=1e-9"), "is the least that uniform widths"),
    ],
)
def test_bad_input_is_one_clear_error(capsys, given, expected):
    assert expected in faults(capsys, *given)


def test_options_of_qvit_are_refused_elsewhere(capsys):
    assert main(["quantize", MODEL, "--method", "uniform", "--one-scale", "-o", "bad"]) == 2
    assert "the method uniform has no one scale" in capsys.readouterr().err
    assert main(["quantize", "digits_hybrid", "--method", "qvit", "--budget", "uniform=4", "-o", "bad"]) == 2
    assert "softmax attention" in capsys.readouterr().err
    assert not Path("bad").exists()
