"""`accelsim finetune` as a user calls it: accuracy before and after, Ctrl-C and resumption, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codesign.cli import main

pytest.importorskip("torch")
pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def coarse(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coarse") / "q"
    given = ["quantize", "digits_hybrid", "--method", "uniform", "--bits", "3", "--calibration-images", "64"]
    assert main([*given, "-o", str(folder)]) == 0
    return str(folder)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_coarse_network_gets_better_and_runs_in_integers(coarse, capsys):
    assert main(["finetune", coarse, "-o", "t", "--steps", "12", "--rate", "1e-3", "--json", "done.json"]) == 0
    done = json.loads(Path("done.json").read_text())
    assert done["start"] == "digits_hybrid"
    assert done["fine_tuning"]["steps"] == 12
    assert done["after"]["cross_entropy"] < 0.65 * done["before"]["cross_entropy"]
    assert done["after"]["images"] == 250
    text = capsys.readouterr().out
    assert f"{done['before']['top1']:.2%} → {done['after']['top1']:.2%}" in text
    assert sorted(path.name for path in Path("t").iterdir()) == [
        "checkpoint.json", "checkpoint.safetensors", "plan.yaml", "workload.json"
    ]  # fmt: skip
    assert main(["eval", "t", "--integer", "--json", "eval.json"]) == 0
    found = json.loads(Path("eval.json").read_text())
    assert found["top1"] == done["after"]["top1"]
    assert found["integer"]["agreement"] > 0.97
    # What was trained is a checkpoint like others, from which training can go on.
    capsys.readouterr()
    assert main(["finetune", "t", "-o", "again", "--seconds", "0.01", "--from-integers", "--json", "-"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["fine_tuning"]["steps"], again["start"], again["before"]) == (1, "integers", done["after"])


def test_ctrl_c_keeps_the_state_and_the_same_command_goes_on(coarse, capsys, monkeypatch):
    from quant.finetune import steps

    given = ["finetune", coarse, "--steps", "4", "--batch", "8", "--keep-every", "1", "--images", "16"]
    assert main([*given, "-o", "whole"]) == 0
    original, done = steps.Steps.step, []

    def interrupted(self, step, steps):
        if step == 2:
            raise KeyboardInterrupt
        return original(self, step, steps)

    def watched(self, step, steps):
        done.append(step)
        return original(self, step, steps)

    monkeypatch.setattr(steps.Steps, "step", interrupted)
    assert main([*given, "-o", "t"]) == 130
    assert "the same command continues" in capsys.readouterr().err
    assert [path.name for path in Path("t").iterdir()] == ["finetune.state"]
    assert "was started with rate" in faults(capsys, *given[1:], "-o", "t", "--rate", "0.01")
    monkeypatch.setattr(steps.Steps, "step", watched)
    # What a kill in the middle of writing leaves goes with the state.
    Path("t/.finetune.1.state").touch()
    assert main([*given, "-o", "t"]) == 0
    assert done == [2, 3]
    assert sorted(path.name for path in Path("t").iterdir()) == sorted(path.name for path in Path("whole").iterdir())
    for path in Path("whole").iterdir():
        assert Path("t", path.name).read_bytes() == path.read_bytes()


def faults(capsys, *arguments):
    assert main(["finetune", *arguments]) == 2
    return capsys.readouterr().err


def test_bad_input_is_refused(coarse, capsys, place):
    capsys.readouterr()
    assert "would be overwritten" in faults(capsys, coarse, "-o", coarse)
    assert "a folder of `accelsim quantize`" in faults(capsys, "nothing", "-o", "t")
    assert "fine-tuning: rate" in faults(capsys, coarse, "-o", "t", "--rate", "0")
    assert "fine-tuning: seconds" in faults(capsys, coarse, "-o", "t", "--seconds", "inf")
    assert "needs the float network" in faults(capsys, coarse, "-o", "t", "--from-integers", "--distill", "1")
    assert "--validation" in faults(capsys, coarse, "-o", "t", "--data", "imagefolder:photos")
    assert "as in the checkpoint" in faults(capsys, coarse, "-o", "t", "--model", "glyph_vit", "--steps", "1")
    about = json.loads(Path(coarse, "checkpoint.json").read_text())
    about["about"]["model"] = "theirs.py:make"
    mine = place / "mine"
    mine.mkdir()
    for name in ("plan.yaml", "workload.json", "checkpoint.safetensors"):
        (mine / name).write_bytes(Path(coarse, name).read_bytes())
    (mine / "checkpoint.json").write_text(json.dumps(about))
    assert "--from-integers" in faults(capsys, "mine", "-o", "t")
    assert main(["finetune", "mine", "-o", "t", "--from-integers", "--steps", "1", "--images", "16"]) == 0
