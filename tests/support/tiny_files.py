"""Untrained networks of a user's own in files: a vision transformer of one block and a small convolutional network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codesign.cli import main

VIT = """
import torch

from accelsim.workloads.vit import Variant
from quant.data.small import GREY_32
from quant.models.vit import VisionTransformer


def make():
    torch.manual_seed(0)
    return VisionTransformer(Variant(16, 1, 2, patch=8, classes=10, in_channels=1), 32).eval(), GREY_32
"""
CNN = """
import torch
from torch import nn

from quant.data.small import GREY_32


def make():
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3, stride=4), nn.Hardswish(), nn.Conv2d(4, 6, 1), nn.Flatten(), nn.Linear(384, 10)
    return nn.Sequential(*layers).eval(), GREY_32
"""
SMALL = ("--data", "digits", "--calibration-images", "32")


def write_networks(folder: Path) -> None:
    """Write tiny_vit.py and tiny_cnn.py, each with a function `make`."""
    (folder / "tiny_vit.py").write_text(VIT)
    (folder / "tiny_cnn.py").write_text(CNN)


def outputs() -> dict[str, str]:
    """Output formats by op, of the plan in the folder q."""
    import yaml

    rules = yaml.safe_load(Path("q/plan.yaml").read_text())["rules"]
    return {rule["match"]: rule["output"] for rule in rules}


def cycles(capsys: pytest.CaptureFixture[str]) -> int:
    """Of the run that the command prints."""
    command = next(line.split() for line in capsys.readouterr().out.splitlines() if "accelsim run" in line)
    assert main([*command[1:], "--json", "r.json"]) == 0
    return int(json.loads(Path("r.json").read_text())["cycles_total"])
