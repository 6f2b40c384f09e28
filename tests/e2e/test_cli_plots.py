"""The commands that draw: good input gives whole files, bad input a problem, status 2 and nothing written."""

import csv
from pathlib import Path

import pytest

from codesign.cli import _parser as make_parser
from codesign.cli import main
from codesign.plots.frame import QUANTITIES
from codesign.store import DETAILS, METRICS, Row, open_study
from tests.support.pictures import thousands_of_rows

ROOT = Path(__file__).parent.parent.parent
PNG = b"\x89PNG\r\n\x1a\n"
SMALL = ("efficientvit_b0", "--resolution", "64")
RUN_PICTURES = ("roofline", "stalls", "buffers", "gantt")
STUDY_COMMANDS = (("pareto",), ("plot", "parallel"), ("plot", "sensitivity"))


def write_study(path, rows):
    with open_study(path, "made up") as study:
        study.add(
            [
                Row(
                    f"key{row['point']}", row["point"], row["arch"], row["plan"], row["model"], row["resolution"],
                    {name: value for name, value in row.items() if name.startswith("accelerator.")}, row["status"],
                    metrics(row) if row["status"] == "ok" else {},
                )
                for row in rows
            ]
        )  # fmt: skip


def metrics(row):
    made = {name: row.get(name) or 1 for name, _, _ in METRICS} | {name: {} for name in DETAILS}
    return made | {"edp_pj_s_synthesized": 1.5 * row["edp_pj_s"]}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """In a folder of its own with `s.sqlite`, a made-up study of two workloads."""
    monkeypatch.chdir(tmp_path)
    write_study("s.sqlite", thousands_of_rows(120, workloads=2))
    return tmp_path


def refused(capsys, *arguments):
    """What a refused command says on standard error."""
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("accelsim: error: ")
    return said


def files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("command", STUDY_COMMANDS)
@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_study_pictures_come_with_their_numbers(study, capsys, command, suffix):
    assert main([*command, "s.sqlite", "-o", f"p.{suffix}"]) == 0
    assert f"wrote p.{suffix} and p.csv" in capsys.readouterr().out
    assert files(study) == sorted(["p.csv", f"p.{suffix}", "s.sqlite"])
    start = (study / f"p.{suffix}").read_bytes()[:8]
    assert start == PNG if suffix == "png" else start.startswith(b"<?xml")
    assert len((study / "p.csv").read_text().splitlines()) > 10


@pytest.mark.parametrize("command", STUDY_COMMANDS[:2])
def test_objectives_are_any_stored_metrics(study, capsys, command):
    names = "area_mm2,power_w,latency_s"
    assert main([*command, "s.sqlite", "-o", "p.svg", "--objectives", names]) == 0
    assert "<!-- area [mm²] -->" in (study / "p.svg").read_text(encoding="utf-8").replace("\n", " ")
    said = refused(capsys, *command, "s.sqlite", "-o", "q.png", "--objectives", "latency,energy_pj")
    assert "--objectives: unknown metric 'latency'" in said
    assert "try: latency_s" in said
    assert files(study) == ["p.csv", "p.svg", "s.sqlite"]


def test_sensitivity_of_another_metric(study, capsys):
    assert main(["plot", "sensitivity", "s.sqlite", "-o", "p.png", "--metric", "energy_pj"]) == 0
    with open("p.csv", newline="") as stream:
        assert {line["axis"] for line in csv.DictReader(stream)} >= {"arch", "plan"}
    said = refused(capsys, "plot", "sensitivity", "s.sqlite", "-o", "q.png", "--metric", "energy")
    assert "--metric: unknown metric 'energy'" in said
    assert "q.png" not in files(study)


@pytest.mark.parametrize("command", STUDY_COMMANDS)
@pytest.mark.parametrize(
    ("name", "output", "words"),
    [
        ("s.sqlite", "p.pdf", "unknown kind of picture"),
        ("s.sqlite", "no/p.png", "there is no folder no"),
        ("s.sqlite", "", "is not the name of a file"),
        ("nothing.sqlite", "p.png", "no such study"),
        ("empty.sqlite", "p.png", "the study holds no design with numbers"),
        ("infeasible.sqlite", "p.png", "the study holds no design with numbers"),
        ("study.csv", "study.png", "would replace the study"),
    ],
)
def test_faulty_study_pictures(study, capsys, command, name, output, words):
    write_study("empty.sqlite", [])
    write_study("infeasible.sqlite", thousands_of_rows(1))
    write_study("study.csv", thousands_of_rows(20))
    before = {path.name: path.read_bytes() for path in study.iterdir()}
    assert words in refused(capsys, *command, name, "-o", output)
    assert {path.name: path.read_bytes() for path in study.iterdir()} == before


@pytest.mark.parametrize("kind", RUN_PICTURES)
def test_run_pictures(tmp_path, monkeypatch, capsys, kind):
    monkeypatch.chdir(tmp_path)
    assert main(["plot", kind, *SMALL, "--arch", "trio_vit", "--plan", "uniform8", "-o", "p.png"]) == 0
    assert capsys.readouterr().out == "wrote p.png\n"
    assert files(tmp_path) == ["p.png"]
    assert (tmp_path / "p.png").read_bytes()[:8] == PNG


@pytest.mark.parametrize("kind", RUN_PICTURES)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["-o", "p.jpg"], "unknown kind of picture"),
        (["-o", "no/p.png"], "there is no folder no"),
        (["--arch", "trio_vitt"], "trio_vit"),
        (["--plan", "uniform9"], "uniform8"),
        (["--mapping", "m.json"], "m.json: cannot be read"),
    ],
)
def test_faulty_run_pictures(tmp_path, monkeypatch, capsys, kind, change, words):
    monkeypatch.chdir(tmp_path)
    assert words in refused(capsys, "plot", kind, *SMALL, "-o", "p.png", *change)
    assert files(tmp_path) == []


def test_a_run_picture_takes_the_options_of_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run", *SMALL, "--no-fuse", "--save-mapping", "m.json"]) == 0
    assert main(["plot", "stalls", *SMALL, "--mapping", "m.json", "--batch", "2", "-o", "mapped.svg"]) == 0
    assert main(["plot", "stalls", *SMALL, "--no-fuse", "--batch", "2", "-o", "unfused.svg"]) == 0
    assert main(["plot", "stalls", *SMALL, "--batch", "2", "-o", "fused.svg"]) == 0
    cycles = {name: cycles_in(tmp_path / f"{name}.svg") for name in ("mapped", "unfused", "fused")}
    assert cycles["mapped"] == cycles["unfused"] > cycles["fused"]
    with pytest.raises(SystemExit, match="2"):
        main(["plot", "roofline", *SMALL, "--batch", "2", "-o", "r.png"])


def cycles_in(path):
    (line,) = [line for line in path.read_text(encoding="utf-8").splitlines() if "share of the run" in line]
    return int(line.partition("(")[2].partition(" cycles")[0].replace(",", ""))


PAGE = ROOT / "docs" / "pictures.md"


def test_commands_and_images_of_the_page_exist():
    text = PAGE.read_text(encoding="utf-8")
    commands = [line.split()[1:] for line in text.splitlines() if line.startswith("accelsim ")]
    assert {tuple(words[:2]) for words in commands} >= {
        ("plot", kind) for kind in (*RUN_PICTURES, "parallel", "sensitivity")
    }
    for words in commands:
        assert make_parser().parse_args(words).output
    images = [PAGE.parent / part.partition(")")[0] for part in text.split("](")[1:] if part.startswith("images/")]
    assert len(images) == 8
    assert all(image.stat().st_size < 120_000 for image in images)


def test_the_page_names_every_metric():
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in QUANTITIES)
