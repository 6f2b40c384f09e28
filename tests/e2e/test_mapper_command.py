"""`--mapper` in the commands that run one design, and `front`: the same numbers everywhere, nothing overwritten."""

import json
from pathlib import Path

import pytest

from accelsim.config import load_accelerator, load_plan
from accelsim.mappers.exhaustive import find_front
from accelsim.optable import op_table
from accelsim.workloads import build_workload
from codesign.cli import main
from tests.e2e.test_cli_plots import PNG, RUN_PICTURES, files, refused

# A design on which the exhaustive mapper's own mapping is kept for latency, and the heuristic one is not beaten.
SMALL = ("efficientvit_b0", "--resolution", "64")
HERE = Path(".")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(*words):
    assert main(["run", *SMALL, *words, "--json", "r.json"]) == 0
    return json.loads(Path("r.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("mapper", "metric"),
    [
        ("exhaustive", "cycles_total"),
        ("exhaustive:energy", "energy_pj"),
        ("exhaustive:steady", "initiation_interval_cycles"),
    ],
)
def test_a_saved_mapping_gives_the_same_run(mapper, metric):
    found = report("--mapper", mapper, "--batch", "2", "--save-mapping", "m.json", "--trace", "t.json")
    again = report("--mapping", "m.json", "--batch", "2", "--trace", "u.json")
    assert found.pop("mapper")["kept"] == "exhaustive"
    assert again == found
    assert Path("t.json").read_bytes() == Path("u.json").read_bytes()
    single, plain = report("--mapper", mapper), report()
    assert single[metric] < plain[metric]
    assert found["cycles_total"] > single["cycles_total"]


def test_diff_reads_reports_of_both_mappers(capsys):
    Path("a.json").write_text(json.dumps(report()))
    Path("b.json").write_text(json.dumps(report("--mapper", "exhaustive")))
    assert main(["diff", "a.json", "b.json", "--json", "d.json"]) == 0
    cycles = json.loads(Path("d.json").read_text())["totals"]["cycles_total"]
    assert cycles["b"] < cycles["a"]


@pytest.mark.parametrize("kind", RUN_PICTURES)
def test_pictures_draw_the_mapper_that_was_asked_for(kind):
    assert main(["run", *SMALL, "--mapper", "exhaustive", "--save-mapping", "m.json"]) == 0
    for name, words in (("a", ("--mapper", "exhaustive")), ("b", ("--mapping", "m.json")), ("c", ())):
        assert main(["plot", kind, *SMALL, *words, "-o", f"{name}.png"]) == 0
    a, b, c = (Path(f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--mapper", "exhaustiv"), "--mapper: unknown mapper 'exhaustiv'"),
        (("--mapper", "exhaustive", "--no-fuse"), "together with no fusion (--no-fuse)"),
        (("--mapper", "exhaustive", "--mapping", "m.json"), "together with a mapping (--mapping)"),
    ],
)
@pytest.mark.parametrize("command", [("run", "--json", "r.json"), ("plot", "stalls", "-o", "p.png")])
def test_refused_mappers(capsys, command, words, said):
    verb = command[:-2]
    assert said in refused(capsys, *verb, *SMALL, *command[-2:], *words)
    assert files(HERE) == []


def test_explain_has_no_mapper_of_its_own():
    with pytest.raises(SystemExit, match="2"):
        main(["explain", *SMALL, "--mapper", "exhaustive"])


@pytest.mark.parametrize("steady", [False, True])
def test_front_prints_and_saves_what_the_api_finds(capsys, steady):
    words = ["--json", "f.json", "--save-mappings", "maps", "-o", "f.png", *(["--steady"] if steady else [])]
    assert main(["front", *SMALL, *words]) == 0
    first, head, *lines = capsys.readouterr().out.splitlines()
    table, accelerator = op_table(build_workload("efficientvit_b0", 64), load_plan("m2q")), load_accelerator("m2vit")
    front = find_front(table, accelerator, steady)
    data = json.loads(Path("f.json").read_text(encoding="utf-8"))
    kept = [row for row in data["mappings"] if row["number"] is not None]
    assert [(row["number"], row["origin"], row["cycles"], row["energy_pj"]) for row in kept] == [
        (number, one.origin, one.cycles, one.energy_pj) for number, one in enumerate(front, start=1)
    ]
    assert first.startswith("efficientvit_b0 at 64 on m2vit, plan m2q: design bound")
    assert f"{len(data['mappings'])} mappings tried, {len(front)} not beaten" in first
    assert f"{data['bound_cycles']:,} cycles" in first
    assert ("interval ms" if steady else "latency ms") in head
    assert [line.split()[1] for line in lines[: len(front)]] == [f"{one.cycles:,.0f}" for one in front]
    assert Path("f.png").read_bytes().startswith(PNG)
    assert len(Path("f.png").read_bytes()) < 120_000
    assert files(Path("maps")) == [f"mapping_{row['number']:02d}.json" for row in kept]
    for row in kept:
        again = report("--mapping", f"maps/mapping_{row['number']:02d}.json")
        time = "initiation_interval_cycles" if steady else "cycles_total"
        assert (again[time], again["energy_pj"]) == (row["cycles"], row["energy_pj"])
        assert again["fingerprints"]["mapping"] == row["mapping"]


def test_json_of_front_alone_on_standard_output(capsys):
    assert main(["front", *SMALL, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "accelsim.front/1"
    assert files(HERE) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-o", "p.pdf"), "unknown kind of picture"),
        (("-o", "no/p.png"), "there is no folder no"),
        (("--json", "no/f.json"), "there is no folder no"),
        (("--save-mappings", "no/maps"), "there is no folder no"),
        (("--save-mappings", ""), "--save-mappings: is not a folder"),
        (("--save-mappings", "mine.yaml"), "mine.yaml: is not a folder"),
        (("--save-mappings", "full"), "full: is not empty"),
        (("--save-mappings", "empty", "--json", "empty/mapping_01.json"), "lies in the folder of --save-mappings"),
        (("--arch", "mine.yaml", "--json", "mine.yaml"), "is read as arch and would be overwritten"),
        (("--json", "x.png", "-o", "x.png"), "is asked for more than once"),
        (("--arch", "m2vitt"), "m2vit"),
        (("--plan", "uniform9"), "uniform8"),
        (("--resolution", "33"), "efficientvit_b0"),
    ],
)
def test_front_refuses_bad_input_and_writes_nothing(capsys, words, said):
    Path("mine.yaml").write_text("mine", encoding="utf-8")
    Path("empty").mkdir()
    Path("full").mkdir()
    Path("full/notes").write_text("mine", encoding="utf-8")
    assert said in refused(capsys, "front", *SMALL, *words)
    assert files(HERE) == ["empty", "full", "mine.yaml"]
    assert Path("mine.yaml").read_text(encoding="utf-8") == "mine"
    assert files(Path("full")) == ["notes"]
    assert files(Path("empty")) == []


def test_front_of_a_design_that_runs_nothing(capsys):
    from accelsim.config import dump_accelerator

    tiny = load_accelerator("m2vit")
    buffer = tiny.activation_buffer
    none = tiny.replace(activation_buffer=type(buffer)(**{**vars(buffer), "capacity_bits": buffer.macro_bits}))
    Path("none.yaml").write_text(dump_accelerator(none), encoding="utf-8")
    assert main(["front", "efficientvit_b1", "--arch", "none.yaml", "-o", "p.png"]) == 2
    assert capsys.readouterr().err.startswith("accelsim: infeasible: ")
    assert files(HERE) == ["none.yaml"]
