"""No command writes over what it reads, two outputs never share a file, and a linked picture keeps its kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from codesign.cli import main

SPACE = """format: accelsim.space/1
base: {model: efficientvit_b0, resolution: 64, arch: m2vit, plan: uniform8}
sampling: {method: grid}
axes:
  accelerator.engines.mult.pixel_groups: [4, 8, 16]
  accelerator.dram.bandwidth_bits_per_s: [51.2e9, 102.4e9]
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text(SPACE)
    assert main(["sweep", "space.yaml", "-o", "study.png", "--workers", "1"]) == 0
    assert main(["run", "efficientvit_b0", "--resolution", "64", "--save-mapping", "m.json"]) == 0
    return tmp_path


COMMANDS = [
    ("export study.png --csv study.png", "study.png"),
    ("export study.png --parquet study.png", "study.png"),
    ("pareto study.png -o study.png", "study.png"),
    ("plot sensitivity study.png -o study.png", "study.png"),
    ("search space.yaml -o new.sqlite --budget 2 --history space.yaml", "space.yaml"),
    ("search space.yaml -o study.png --budget 2 --history study.png", "study.png"),
    ("run efficientvit_b0 --resolution 64 --mapping m.json --json m.json", "m.json"),
    ("run efficientvit_b0 --resolution 64 --mapping m.json --json ./m.json", "m.json"),
]


@pytest.mark.parametrize(("command", "precious"), COMMANDS)
def test_inputs_survive(place: Path, command: str, precious: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = (place / precious).read_bytes()
    assert main(command.split()) == 2
    assert (place / precious).read_bytes() == before
    text = capsys.readouterr().err
    assert "would be overwritten" in text or "more than once" in text


def test_a_link_keeps_the_kind_of_picture_that_was_asked_for(place: Path) -> None:
    (place / "latest.png").symlink_to(place / "blob")
    assert main(["pareto", "study.png", "-o", "latest.png"]) == 0
    assert (place / "latest.png").read_bytes().startswith(b"\x89PNG")


def test_search_refuses_bad_numbers(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search = ["search", "space.yaml", "-o", "new.sqlite", "--budget", "4"]
    with pytest.raises(SystemExit) as caught:
        main([*search, "--seed", "-1"])
    assert caught.value.code == 2
    assert main([*search, "--limit", "area_mm2=1", "--limit", "area_mm2=4"]) == 2
    assert "given twice" in capsys.readouterr().err
    assert not (place / "new.sqlite").exists()
