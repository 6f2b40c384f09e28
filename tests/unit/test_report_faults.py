"""Faulty co-design studies: every fault of the folder is said with file and field, and nothing is written."""

import copy

import pytest

from codesign.cli import main
from tests.support.codesign_study import DESIGNS, make_study, read_result, write_result


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small study in a folder that tests must not change."""
    folder = tmp_path_factory.mktemp("made") / "study"
    make_study(folder, designs=(*DESIGNS[:4], DESIGNS[-1]), cloud=10)
    return folder


@pytest.fixture
def study(made, tmp_path):
    """The same study with a result.json of its own; the designs' files are linked."""
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "designs").symlink_to(made / "designs")
    write_result(folder, read_result(made))
    return folder


def set_at(data, path, value):
    *before, last = path
    for key in before:
        data = data[key]
    if value is KeyError:
        del data[last]
    else:
        data[last] = value


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (
            ["format"],
            "codesign.result/9",
            "result.json: format: found the text 'codesign.result/9'; expected codesign.res",
        ),
        (["format"], KeyError, "result.json: format: the field is missing"),
        (["name"], KeyError, "result.json: name: the field is missing"),
        (["designs"], KeyError, "result.json: designs: the field is missing"),
        (["designs"], [], "result.json: designs: the list is empty"),
        (["designs"], {}, "result.json: designs: found a mapping; expected a list"),
        (["designs", 2, "id"], "cd-0", "designs[2].id: 'cd-0' stands there twice"),
        (["designs", 1, "energy_pj"], "9", "designs[1].energy_pj: found the text '9'; expected a number"),
        (["designs", 1, "energy_pj"], None, "designs[1].energy_pj: found nothing; expected a number"),
        (["designs", 1, "area_mm2"], 0, "designs[1].area_mm2: is 0; expected more than 0"),
        (["designs", 1, "cycles"], 2.5, "designs[1].cycles: found the number 2.5; expected a whole number"),
        (["designs", 1, "on_front"], 1, "designs[1].on_front: found 1; expected true or false"),
        (["designs", 0, "validation", "top1"], KeyError, "designs[0].validation.top1: the field is missing"),
        (["designs", 0, "folder"], "../elsewhere", "designs[0].folder: '../elsewhere' lies outside the study"),
        (["designs", 0, "folder"], "/etc", "designs[0].folder: '/etc' lies outside the study"),
        (["designs", 0, "folder"], "designs/none", "designs[0].folder: there is no file designs/none/plan.yaml"),
        (["cloud", 5, "latency_s"], -1.0, "cloud[5].latency_s: is -1; expected more than 0"),
        (["history", 0, "rows", 3, "evaluations"], True, "history[0].rows[3].evaluations: found true"),
        (["bounds", 0, "edp_bound_pj_s"], 0.0, "bounds[0].edp_bound_pj_s: is 0"),
        (["table_error", 0, "simulated_cycles"], 0, "table_error[0].simulated_cycles: is 0"),
        (["comparison", 0, "edp_ratio"], 0, "comparison[0].edp_ratio: is 0"),
        (["families", 0, "edp_ratio"], -1, "families[0].edp_ratio: is -1"),
        (["best"], "cd-9", "best: there is no design 'cd-9'; expected the id of a design"),
        (["findings", 0], 3, "findings[0]: found 3; expected text"),
    ],
)
def test_faults_name_file_and_field(study, tmp_path, capsys, path, value, words):
    data = copy.deepcopy(read_result(study))
    set_at(data, path, value)
    write_result(study, data)
    output = tmp_path / "page.html"
    output.write_text("before")
    assert main(["report", str(study), "-o", str(output)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"accelsim: error: {study}/result.json")
    assert words in said
    assert output.read_text() == "before"


def test_every_fault_at_once(study, capsys):
    data = read_result(study)
    data["designs"][0]["energy_pj"] = None
    data["designs"][3]["area_mm2"] = "large"
    write_result(study, data)
    assert main(["report", str(study), "-o", str(study / "page.html")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "result.json: cannot be read"),
        (b"{", "result.json:1: not JSON"),
        (b"\xff", "result.json: not JSON"),
        (b"[1]", "found a list of 1"),
        (b'{"format": "codesign.result/1", "name": NaN, "model": "m", "designs": []}', "name: found the number nan"),
        (
            b'{"format": "codesign.result/1", "name": "n", "model": "m", "designs": [], "bounds": [{"design": "a",'
            b' "edp_pj_s": Infinity, "edp_bound_pj_s": 1, "gap": 0}]}',
            "bounds[0].edp_pj_s: found the number inf",
        ),
    ],
)
def test_unreadable_results(tmp_path, capsys, content, words):
    if content is not None:
        (tmp_path / "result.json").write_bytes(content)
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "page.html")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("plan.yaml", "format: accelsim.plan/1\n", "plan.yaml"),
        ("accelerator.yaml", "{}", "accelerator.yaml"),
        ("workload.json", "{}", "workload.json: format: the field is missing"),
        ("mapping.json", "{", "mapping.json:1: not JSON"),
        ("mapping.json", "{}", "mapping.json"),
    ],
)
def test_faulty_designs_name_their_file(tmp_path, capsys, file, text, words):
    study = tmp_path / "study"
    make_study(study, designs=DESIGNS[:1], cloud=3)
    (study / "designs" / "cd-0" / file).write_text(text)
    assert main(["report", str(study), "-o", str(tmp_path / "page.html")]) == 2
    said = capsys.readouterr().err
    assert f"{study}/designs/cd-0/" in said
    assert words in said
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("study", "output", "words"),
    [
        ("study", "page.png", "unknown kind of page"),
        ("study", "no/page.html", "there is no folder"),
        ("nowhere", "page.html", "is not a folder"),
    ],
)
def test_faulty_arguments(made, tmp_path, capsys, study, output, words):
    assert main(["report", str(made.parent / study), "-o", str(tmp_path / output)]) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
