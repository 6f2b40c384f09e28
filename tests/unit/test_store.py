import json
import sqlite3

import pytest

from accelsim.problems import AccelsimError
from codesign.store import METRICS, Row, design_key, metrics_of, open_study, program_version, read_study
from tests.support.design_fakes import ONE, evaluate, plan

METRIC_VALUES = metrics_of(evaluate("small", 32, ONE, plan("eight")))


def row(key, point, status="ok", **more):
    metrics = METRIC_VALUES if status == "ok" else {}
    return Row(key, point, "one", "eight", "small", 32, {"accelerator.x": 8, "plan": "eight"}, status, metrics, **more)


def test_rows_come_back_in_the_order_of_the_space(tmp_path):
    with open_study(tmp_path / "a.sqlite", "s", "v") as study:
        study.add([row("b", 7), row("a", 2, "infeasible", problem="too big")])
        study.add([row("c", 4)])
    with read_study(tmp_path / "a.sqlite") as study:
        rows = study.rows()
        assert [r["key"] for r in rows] == ["a", "c", "b"]
        assert study.counts() == {"ok": 2, "infeasible": 1}
        assert study.check() == "ok"
    assert {name: rows[1][name] for name, _, _ in METRICS} == {n: METRIC_VALUES[n] for n, _, _ in METRICS}
    assert rows[1]["dram_read_bits"] == 1 << 50
    assert rows[1]["utilization"] == METRIC_VALUES["utilization"]
    assert rows[1]["accelerator.x"] == 8
    assert (rows[0]["status"], rows[0]["problem"], rows[0]["latency_s"]) == ("infeasible", "too big", None)
    assert rows[0]["program"] == "v"
    assert rows[0]["created_utc"].endswith("+00:00")


def test_a_key_is_stored_once_and_failed_designs_are_tried_again(tmp_path):
    with open_study(tmp_path / "a.sqlite", "s", "v") as study:
        study.add([row("a", 0, "failed"), row("b", 1), row("c", 2, "infeasible")])
        assert study.keys() == {"b": 1, "c": 2}
        study.add([row("a", 0)])
        assert study.keys() == {"a": 0, "b": 1, "c": 2}
        assert len(study.rows()) == 3


def test_a_batch_is_stored_whole_or_not_at_all(tmp_path):
    broken = Row("b", 1, "one", "eight", "small", 32, {}, "ok", {"cycles": object()})
    with open_study(tmp_path / "a.sqlite", "s", "v") as study:
        with pytest.raises((sqlite3.Error, AccelsimError)):
            study.add([row("a", 0), broken])
        assert study.rows() == []


@pytest.mark.parametrize(
    ("space", "program", "words"),
    [
        ("other", "v", ["another design space", "delete"]),
        ("s", "w", ["program version v, this is w", "another file name"]),
        ("other", "w", ["another design space", "program version"]),
    ],
)
def test_a_study_of_another_space_or_program_is_refused_unchanged(tmp_path, space, program, words):
    path = tmp_path / "a.sqlite"
    with open_study(path, "s", "v") as study:
        study.add([row("a", 0)])
    before = path.read_bytes()
    with pytest.raises(AccelsimError) as caught:
        open_study(path, space, program)
    assert all(word in str(caught.value) for word in words)
    assert path.read_bytes() == before


def test_what_is_no_study_is_refused(tmp_path):
    text = tmp_path / "text.sqlite"
    text.write_text("hello, this is no database" * 100)
    database = tmp_path / "other.sqlite"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE things (x)")
    connection.close()
    newer = tmp_path / "newer.sqlite"
    open_study(newer, "s", "v").close()
    with sqlite3.connect(newer) as connection:
        connection.execute("UPDATE meta SET value = 'accelsim.study/9' WHERE name = 'format'")
    connection.close()
    for path, words in ((text, "not a study"), (database, "not a study"), (newer, "accelsim.study/9")):
        before = path.read_bytes()
        for opening in (lambda p=path: open_study(p, "s", "v"), lambda p=path: read_study(p)):
            with pytest.raises(AccelsimError, match=words):
                opening()
        assert path.read_bytes() == before


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(AccelsimError, match="no such study"):
        read_study(tmp_path / "none.sqlite")
    with pytest.raises(AccelsimError, match="mkdir -p"):
        open_study(tmp_path / "no" / "a.sqlite", "s", "v")
    with pytest.raises(AccelsimError, match="cannot be used"):
        open_study(tmp_path, "s", "v")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_a_new_study(tmp_path):
    # A kill between the creation of the file and the first commit leaves one.
    (tmp_path / "a.sqlite").touch()
    with open_study(tmp_path / "a.sqlite", "s", "v") as study:
        assert study.meta()["space"] == "s"


def test_the_file_at_rest_is_one_file(tmp_path):
    with open_study(tmp_path / "a.sqlite", "s", "v") as study:
        study.add([row("a", 0)])
    assert [path.name for path in tmp_path.iterdir()] == ["a.sqlite"]


def test_axis_values_are_json_in_the_file(tmp_path):
    with open_study(tmp_path / "a.sqlite", "s", "v") as study:
        study.add([row("a", 0)])
    connection = sqlite3.connect(tmp_path / "a.sqlite")
    (text,) = connection.execute("SELECT axis_values FROM design").fetchone()
    connection.close()
    assert json.loads(text) == {"accelerator.x": 8, "plan": "eight"}


def test_the_key_depends_on_every_part():
    parts = ["workload", "plan", "accelerator", "mapper", "program"]
    keys = {
        design_key(*(part + "!" * (changed == place) for place, part in enumerate(parts))) for changed in range(-1, 5)
    }
    assert len(keys) == 6


def test_program_version_is_stable_and_names_the_release():
    program_version.cache_clear()
    first = program_version()
    program_version.cache_clear()
    assert program_version() == first
    assert first.partition("+")[0].count(".") == 2
    assert len(first.partition("+")[2]) == 10


def test_program_version_covers_engine_modules(tmp_path, monkeypatch):
    plain = program_version.__wrapped__()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ACCELSIM_ENGINES", "an_engine_of_my_own")
    versions = {plain}
    for text in ("COST = 1\n", "COST = 2\n"):
        (tmp_path / "an_engine_of_my_own.py").write_text(text)
        versions.add(program_version.__wrapped__())
    assert len(versions) == 3
    monkeypatch.setenv("ACCELSIM_ENGINES", "no_such_engine")
    with pytest.raises(AccelsimError, match="no_such_engine"):
        program_version.__wrapped__()
