"""`accelsim table`: the same bytes again, its context stated, bad arguments refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codesign.cli import main


def words(path: Path) -> list[str]:
    return ["table", "digits_hybrid", "--weight-formats", "u8, u4", "--mixtures", "1", "-o", str(path)]


def test_a_table_is_written_and_the_same_again(tmp_path: Path) -> None:
    assert main(words(tmp_path / "a.json")) == 0
    assert main(words(tmp_path / "b.json")) == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    table = json.loads((tmp_path / "a.json").read_text())
    assert table["arch"] == "m2vit"
    assert {"u8"} == {name for one in table["context"]["filters"].values() for name in one}
    assert {name for row in table["options"] for name in row["filters"]} == {"u8", "u4"}


@pytest.mark.parametrize(
    ("more", "found"),
    [
        (["--mixtures", "-1"], "--mixtures"),
        (["--weight-formats", "u8,foo"], "foo"),
        (["--weight-formats", "u8,u8"], "each once"),
        (["--activation-formats", "u8,u6,u6"], "each once"),
        (["--arch", "m2vitt"], "m2vit"),
        (["--penalties", "nosuch.json"], "cannot be read"),
    ],
)
def test_bad_arguments_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], found: str
) -> None:
    try:
        code = main([*words(tmp_path / "a.json"), *more])
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 2
    error = capsys.readouterr().err
    assert found in error
    assert "Traceback" not in error
    assert not (tmp_path / "a.json").exists()
