"""SCALE-Sim's own files: topologies of convolutions and GEMMs, configurations, faults with their line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from accelsim.problems import AccelsimError
from accelsim.validation.scalesim_files import ArrayConfig, Layer, read_config, read_topology
from codesign.cli import main

CONV = """Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,
Conv1, 227, 227, 11, 11, 3, 96, 4,
Conv2DP, 15, 14, 3, 3, 8, 8, 2,
wide, 9, 12, 3, 2, 1, 4, 1, 2,
"""
GEMM = "Layer, M, N, K,\nqkv, 196, 1152, 384,\n\nproj,196,384,384\n"
CONFIG = """[general]
run_name = small
[architecture_presets]
ArrayHeight:    32
ArrayWidth:     16
IfmapSramSzkB:  512
FilterSramSzkB: 256
OfmapSramSzkB:  128
IfmapOffset:    0
Bandwidth : 10
Dataflow : os
[run_presets]
InterfaceBandwidth: CALC
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "file"
    path.write_text(text, encoding="utf-8")
    return path


def test_convolutions(tmp_path: Path) -> None:
    assert read_topology(write(tmp_path, CONV)) == [
        Layer("Conv1", 55 * 55, 11 * 11 * 3, 96),
        Layer("Conv2DP", 7 * 7, 9, 1, 8),
        Layer("wide", 7 * 6, 6, 4),
    ]


def test_gemms(tmp_path: Path) -> None:
    assert read_topology(write(tmp_path, GEMM), gemm=True) == [
        Layer("qkv", 196, 384, 1152),
        Layer("proj", 196, 384, 384),
    ]


def test_config(tmp_path: Path) -> None:
    assert read_config(write(tmp_path, CONFIG)) == ArrayConfig("small", 32, 16, "os", 512, 256, 128)


@pytest.mark.parametrize(("dataflow", "cycles"), [("ws", 125_279), ("os", 112_391), ("is", 104_663)])
def test_topology_on_the_command_line(tmp_path: Path, dataflow: str, cycles: int) -> None:
    """196 × 384 × 1152 on 32 × 32: published totals of SCALE-Sim."""
    topology, config, out = tmp_path / "t.csv", tmp_path / "a.cfg", tmp_path / "out.json"
    topology.write_text(GEMM)
    config.write_text(CONFIG.replace("16", "32").replace(": os", f": {dataflow}"))
    assert main(["validate", "--cases", str(topology), "--config", str(config), "--gemm", "--json", str(out)]) == 0
    row = json.loads(out.read_text())["suites"][0]["rows"][0]
    assert row["ours"] == cycles + 1
    assert row["reference"] == 196 * 384 * 1152 / 1024
    assert main(["validate", "--config", str(config)]) == 2
    assert main(["validate", "--cases", str(topology), "--gemm"]) == 2


@pytest.mark.parametrize(
    "text", ["", "h\n", "h\na,1,2\n", "h\na,3,3,5,5,1,1,1\n", "h\na,9,9,3,3,1,1,x\n", "h\na,9,9,3,3,0,1,1\n"]
)
def test_faulty_topologies(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(AccelsimError) as caught:
        read_topology(path)
    assert all(str(path) in problem.where for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ArrayHeight:    32", ""),
        ("16", "0"),
        ("os", "xs"),
        ("[general]", "general"),
        ("512", "many"),
        ("512", "9" * 5000),
    ],
)
def test_faulty_configs(tmp_path: Path, old: str, new: str) -> None:
    with pytest.raises(AccelsimError):
        read_config(write(tmp_path, CONFIG.replace(old, new)))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00\xff")
    for path in (tmp_path, tmp_path / "none", binary):
        with pytest.raises(AccelsimError):
            read_topology(path)
        with pytest.raises(AccelsimError):
            read_config(path)
