"""`accelsim penalties`, and `accelsim quantize --plan` with what comes of it, as a user calls them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from accelsim.channels import Channels
from accelsim.config import dump_plan
from accelsim.formats import Format
from accelsim.plan import WeightShare
from codesign.cli import main
from quant.penalties.table import load_penalties

pytest.importorskip("torch")
pytest.importorskip("sklearn")

FEW = ("--images", "16", "--calibration-images", "16", "--formats", "u8,u4,pot4", "--activation-formats", "u8,u6")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("penalties") / "t.json"
    assert main(["penalties", "digits_hybrid", *FEW, "-o", str(path)]) == 0
    return path


def test_a_table_of_a_trained_network(table, capsys):
    found = load_penalties(table)
    assert found.network == "digits_hybrid"
    assert found.formats == ("u8", "u4", "pot4")
    assert found.settings["images"] == found.settings["calibration_images"] == 16
    assert found.loss_of(found.base) == 0
    # The same command again finds everything in its cache and writes the same file.
    before = table.read_bytes()
    assert main(["penalties", "digits_hybrid", *FEW, "-o", str(table)]) == 0
    assert table.read_bytes() == before
    text = capsys.readouterr().out
    assert "nats" in text
    assert "outputs of" in text


def test_all_options_of_a_vision_transformer(tmp_path, capsys):
    few = ("--images", "8", "--calibration-images", "8", "--formats", "u8", "--activation-formats", "u8,r6")
    path = tmp_path / "t.json"
    assert (
        main(["penalties", "glyph_vit_small", *few, "--methods", "ibert", "--head-formats", "u4", "-o", str(path)]) == 0
    )
    found = load_penalties(path)
    assert len(found.parts["b0.qkv"]["u4"]) == 18
    assert any(name.endswith("+ibert") and name.startswith("r6p") for name in found.activations["b0.softmax"])
    assert "by method" in capsys.readouterr().out
    tokens = ("--token-shares", "0.5,0.25", "--drop-bits", "3")
    assert main(["penalties", "glyph_vit_small", *few, *tokens, "-o", str(path)]) == 0
    found = load_penalties(path)
    assert (list(found.tokens["b1"]), found.drop_bits) == (["full", "8", "4"], 3)
    assert "full tokens of b1" in capsys.readouterr().out


def test_a_plan_of_mixed_formats_is_quantized_and_runs_in_integers(table, tmp_path, capsys):
    found = load_penalties(table)
    u6, pot4, u4 = (Format.parse(name) for name in ("u6", "pot4", "u4"))
    even, odd = Channels.of(range(0, 10, 2)), Channels.of(range(1, 10, 2))
    parts = (WeightShare(pot4, 0.5, even), WeightShare(u4, 0.5, odd))
    rules = [replace(r, weights=parts) if r.match == "head.fc" else r for r in found.base.rules]
    group = next(one for one in found.groups if len(one.ops) > 1)
    rules = [replace(r, output=u6, right=u6) if r.match in group.ops else r for r in rules]
    plan = replace(found.base, name="mine", rules=tuple(rules), division="log2_shift")
    (tmp_path / "plan.yaml").write_text(dump_plan(plan))
    folder = str(tmp_path / "q")
    given = ["quantize", "digits_hybrid", "--plan", str(tmp_path / "plan.yaml"), "--calibration-images", "32"]
    assert main([*given, "-o", folder, "--json", str(tmp_path / "made.json")]) == 0
    made = json.loads((tmp_path / "made.json").read_text())
    assert made["method"] == "plan"
    assert made["plan_fingerprint"] == plan.fingerprint()
    result = tmp_path / "eval.json"
    assert main(["eval", folder, "--integer", "--against", "digits_hybrid", "--json", str(result)]) == 0
    figures = json.loads(result.read_text())
    assert figures["top1"] > 0.95
    assert figures["integer"]["top1"] > 0.95
    assert figures["integer"]["float_islands"] == []
    capsys.readouterr()


def test_a_plan_and_a_method_exclude_each_other(tmp_path, capsys):
    base = ["quantize", "digits_hybrid", "--plan", "uniform8", "-o", str(tmp_path / "q")]
    with pytest.raises(SystemExit) as caught:
        main([*base, "--method", "uniform"])
    assert caught.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err
    for option, value in (("--bits", "4"), ("--activation-bits", "8"), ("--budget", "avg_bits=5"), ("--ratio", "1")):
        assert main([*base, option, value]) == 2
        assert f"{option}: is given beside --plan" in capsys.readouterr().err
    assert not (tmp_path / "q").exists()


def test_weights_only(tmp_path, capsys):
    path = tmp_path / "t.json"
    assert main(["penalties", "deit_tiny", "--weights-only", "--formats", "u8,pot4", "-o", str(path)]) == 0
    shapes = load_penalties(path)
    assert shapes.settings["weights"] == "normal"
    assert "not a loss" in capsys.readouterr().out
    assert main(["penalties", "digits_hybrid", "--weights-only", "-o", str(path)]) == 0
    assert load_penalties(path).settings["weights"] == "measured"
    capsys.readouterr()
    for option, value in (("--data", "digits"), ("--activation-formats", "u8,u4"), ("--methods", "ivit")):
        assert main(["penalties", "deit_tiny", "--weights-only", option, value, "-o", str(path)]) == 2
        assert f"{option}: is given with --weights-only" in capsys.readouterr().err


def test_bad_formats_are_refused_before_the_work(tmp_path, capsys):
    formats = (("--formats", "u4"), ("--activation-formats", "u8,apot8"), ("--head-formats", "u8"))
    faults = (*formats, ("--methods", "none"), ("--token-shares", "half"), ("--drop-bits", "2"))
    for option, value in faults:
        assert main(["penalties", "digits_hybrid", option, value, "-o", str(tmp_path / "t.json")]) == 2
        assert "accelsim: error" in capsys.readouterr().err
    assert not (tmp_path / "t.json").exists()
