"""`accelsim sensitivity` on a model of the user's own: table, CSV, text, going on from the cache."""

from __future__ import annotations

import argparse
import csv

import pytest

from accelsim.problems import AccelsimError
from codesign.sensitivity_command import add_sensitivity
from quant.sensitivity.table import load_table

pytest.importorskip("torch")
pytest.importorskip("sklearn")

MODEL = """
import torch
from torch import nn
from quant.data.small import GREY_32
from quant.models.blocks import Conv, Linear, Pool

def make():
    torch.manual_seed(0)
    layers = [Conv(1, 6, 3, stride=4, bias=True, activation="hardswish"), Conv(6, 8, 1, bias=True, activation="relu"),
              Pool(), Linear(8, 10)]
    return nn.Sequential(*layers), GREY_32
"""


def command(*arguments):
    parser = argparse.ArgumentParser()
    add_sensitivity(parser.add_subparsers())
    parsed = parser.parse_args(["sensitivity", *map(str, arguments)])
    return parsed.command(parsed)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MODEL)
    return f"{path}:make"


def test_a_table_of_a_users_model(model, tmp_path, capsys):
    options = ("--data", "digits", "--calibration-images", 16, "--images", 40, "--batch", 16, "--channels")
    output = tmp_path / "table.json"
    assert command(model, *options, "-o", output, "--csv", tmp_path / "table.csv") == 0
    table = load_table(output)
    assert table.images == {"calibration": 16, "validation": 40}
    assert len(table.components("weight")) == 3
    assert len(table.components("activation")) == 3  # two convolutions and the mean
    assert len(table.channels) == 6
    with open(tmp_path / "table.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(table.rows) == 9
    text = capsys.readouterr().out
    assert "all layers (9)" in text
    assert "weight, 2 bits" not in text  # three components say nothing about ranks
    assert "| fisher |" in text
    assert (tmp_path / "table.json.cache").exists()
    again = tmp_path / "again.json"
    assert command(model, *options, "-o", again, "--cache", tmp_path / "table.json.cache") == 0
    assert load_table(again).fingerprint() == table.fingerprint()


def test_products_with_the_passes_of_every_metric(model, tmp_path, capsys):
    options = ("--data", "digits", "--calibration-images", 16, "--images", 16, "--batch", 8, "--probes", 3)
    output = tmp_path / "table.json"
    assert command(model, *options, "--kinds", "product", "--metrics", "logit_l2,hessian_trace", "-o", output) == 0
    table = load_table(output)
    assert [one.passes.hessian for one in table.metrics] == [0, 6]
    assert len(table.rows) == 6  # three layers at 2 and 3 bits
    assert table.settings["probes"] == 3
    lines = capsys.readouterr().out.splitlines()
    cells = {line.split(" | ")[0]: line.strip("| ").split(" | ") for line in lines if line.startswith("| ")}
    assert cells["| metric"][-4:] == ["runs", "forward passes", "backward", "Hessian-vector"]
    assert cells["| logit_l2"][1] == "16 calibration"
    assert cells["| logit_l2"][-2:] == ["0", "0"]
    assert cells["| hessian_trace"][-2:] == ["1", "6"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--bits", "2,x"), "--bits: is '2,x'"),
        (("--bits", "1"), "expected widths from 2 to 16"),
        (("--metrics", "hessian"), "unknown metric 'hessian'"),
        (("--kinds", "filters"), "unknown kind 'filters'"),
        (("--data", "cifar"), "unknown data 'cifar'"),
    ],
)
def test_faults(model, tmp_path, options, text):
    with pytest.raises(AccelsimError, match=text):
        command(model, "--data", "digits", "--images", 8, *options, "-o", tmp_path / "table.json")
