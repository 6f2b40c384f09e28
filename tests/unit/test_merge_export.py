"""Uniting studies, and studies as flat tables."""

import csv
import importlib.util
from dataclasses import replace

import pytest

from accelsim.problems import AccelsimError
from codesign.export import flat_table, write_csv, write_parquet
from codesign.merge import merge_studies
from codesign.runner import run_sweep
from codesign.space import load_space
from codesign.store import Row, metrics_of, open_study, read_study
from tests.support.design_fakes import CATALOG, ONE, TWO, evaluate, plan

REPORT = metrics_of(evaluate("small", 32, ONE, plan("eight")))
SPACE = """format: accelsim.space/1
base: {arch: one, plan: eight, model: small, resolution: 32}
sampling: {method: grid}
axes:
  accelerator.engines.mult.lanes: [default, 4, 16]
  accelerator.activation_buffer.capacity_bits: [1_048_576, 8_388_608]
"""


def row(key, point, status="ok", metrics=None, **more):
    found = (metrics or REPORT) if status == "ok" else {}
    return Row(key, point, "one", "eight", "small", 32, {"accelerator.x": 8, "plan": "eight"}, status, found, **more)


def study(path, *rows, space="s", program="v"):
    with open_study(path, space, program) as found:
        found.add(rows)
    return path


def cells(path):
    with read_study(path) as found:
        assert found.check() == "ok"
        return found.cells()


def test_merge_unites_and_keeps_every_cell(tmp_path):
    a = study(tmp_path / "a", row("k1", 3), row("k2", 1, "infeasible", problem="too big"))
    b = study(tmp_path / "b", row("k3", 2), row("k1", 0))
    found = merge_studies(tmp_path / "c", [a, b])
    assert (found.read, found.stored, found.by_status) == (4, 3, {"ok": 2, "infeasible": 1})
    merged = cells(tmp_path / "c")
    # The shared design has the lower of its points; every row is one of a source, time and program included.
    assert [c[0:2] for c in merged] == [("k1", 0), ("k2", 1), ("k3", 2)]
    assert set(merged) <= {*cells(a), *cells(b)}
    assert merge_studies(tmp_path / "d", [b, a]).stored == 3
    assert cells(tmp_path / "d") == merged


def test_a_failed_design_gives_way(tmp_path):
    a = study(tmp_path / "a", row("k1", 0, "failed", problem="bug"), row("k2", 1))
    b = study(tmp_path / "b", row("k1", 0), row("k2", 1, "failed", problem="bug"))
    for k, order in enumerate(([a, b], [b, a])):
        assert merge_studies(tmp_path / f"c{k}", order).by_status == {"ok": 2}


def test_different_numbers_of_one_design_are_refused_by_name(tmp_path):
    a = study(tmp_path / "a", row("k1", 3), row("k2", 4), row("k3", 5))
    other = {**REPORT, "cycles": REPORT["cycles"] + 1}
    detail = {**REPORT, "utilization": {"mult": {"spatial": 0.25, "temporal": 1.0}}}
    b = study(tmp_path / "b", row("k1", 3, metrics=other), row("k2", 4), row("k3", 5, metrics=detail))
    with pytest.raises(AccelsimError) as caught:
        merge_studies(tmp_path / "c", [a, b])
    one, two = map(str, caught.value.problems)
    assert "design 3 (small, one, eight, key k1)" in one
    assert f"cycles is {REPORT['cycles']} in {a}, {REPORT['cycles'] + 1} in {b}" in one
    assert "design 5" in two
    assert "utilization" in two
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_infeasible_in_one_study_only_is_a_difference(tmp_path):
    a, b = study(tmp_path / "a", row("k1", 3)), study(tmp_path / "b", row("k1", 3, "infeasible", problem="no"))
    with pytest.raises(AccelsimError, match="status is ok in"):
        merge_studies(tmp_path / "c", [a, b])


@pytest.mark.parametrize(("other", "words"), [({"program": "w"}, "program version w"), ({"space": "t"}, "space t")])
def test_other_spaces_and_programs_are_refused(tmp_path, other, words):
    a, b = study(tmp_path / "a", row("k1", 0)), study(tmp_path / "b", row("k2", 1), **other)
    with pytest.raises(AccelsimError, match=words):
        merge_studies(tmp_path / "c", [a, b])
    assert not (tmp_path / "c").exists()


def test_output_is_new_and_sources_are_studies(tmp_path):
    a = study(tmp_path / "a", row("k1", 0))
    before = a.read_bytes()
    with pytest.raises(AccelsimError, match="exists already"):
        merge_studies(a, [a])
    with pytest.raises(AccelsimError, match="folder"):
        merge_studies(tmp_path / "missing" / "c", [a])
    (tmp_path / "text").write_text("no study" * 500)
    with pytest.raises(AccelsimError, match="not a study"):
        merge_studies(tmp_path / "c", [a, tmp_path / "text"])
    assert a.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "text"]


def test_a_sweep_goes_on_in_the_merged_study(tmp_path):
    (tmp_path / "space.yaml").write_text(SPACE)
    space = load_space(tmp_path / "space.yaml", CATALOG)
    run_sweep(space, tmp_path / "whole", workers=1, evaluate=evaluate, progress=False, catalog=CATALOG)
    with read_study(tmp_path / "whole") as found:
        everything, program = found.cells(), found.program
    halves = (everything[:3], everything[2:5])
    for name, half in zip(("a", "b"), halves, strict=True):
        with open_study(tmp_path / name, space.fingerprint(), program) as part:
            part.add_cells(half)
    assert merge_studies(tmp_path / "c", [tmp_path / "a", tmp_path / "b"]).stored == 5
    summary = run_sweep(space, tmp_path / "c", workers=1, evaluate=evaluate, progress=False, catalog=CATALOG)
    assert (summary.reused, summary.evaluated) == (5, 1)
    assert [c[:-1] for c in cells(tmp_path / "c")] == [c[:-1] for c in everything]  # all but the time


def table_study(path):
    mixed = replace(row("k2", 1), values={"accelerator.x": "default", "lanes": 4})
    wide = metrics_of(evaluate("small", 32, TWO, plan("eight")))
    return study(path, row("k1", 0), mixed, row("k3", 2, "infeasible", problem='too "big", really'),
                 row("k4", 3, metrics=wide))  # fmt: skip


def rows_of(path):
    with read_study(path) as found:
        return found.rows()


def test_flat_table_has_a_column_per_leaf(tmp_path):
    table = flat_table(rows_of(table_study(tmp_path / "a")))
    assert {len(column) for column in table.values()} == {4}
    assert table["energy_by_component_pj.engines"][2] is None
    assert table["utilization.shift.spatial"] == [None, None, None, 0.5]
    assert table["accelerator.x"] == [8, "default", 8, 8]
    assert table["lanes"] == [None, 4, None, None]
    assert not {"utilization", "energy_by_component_pj"} & table.keys()


def test_only_infeasible_designs_still_have_their_columns(tmp_path):
    table = flat_table(rows_of(study(tmp_path / "a", row("k3", 2, "infeasible", problem="no"))))
    assert table["status"] == ["infeasible"]
    assert table["cycles"] == [None]


def test_csv_holds_every_design_exactly(tmp_path):
    rows = rows_of(table_study(tmp_path / "a"))
    write_csv(rows, str(tmp_path / "a.csv"))
    with open(tmp_path / "a.csv", encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert [r["key"] for r in found] == ["k1", "k2", "k3", "k4"]
    for text, source in zip(found, rows, strict=True):
        if source["status"] == "ok":
            assert float(text["energy_pj"]) == source["energy_pj"]
            assert int(text["dram_read_bits"]) == source["dram_read_bits"] == 1 << 50
        else:
            assert (text["energy_pj"], text["problem"]) == ("", 'too "big", really')


def test_csv_to_standard_output(tmp_path, capsys):
    rows = rows_of(table_study(tmp_path / "a"))
    write_csv(rows, "-")
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_parquet_keeps_types_and_values(tmp_path):
    import pandas as pd

    rows = rows_of(table_study(tmp_path / "a"))
    write_parquet(rows, str(tmp_path / "a.parquet"))
    frame = pd.read_parquet(tmp_path / "a.parquet", dtype_backend="numpy_nullable")
    table = flat_table(rows)
    assert list(frame.columns) == list(table)
    for name in ("dram_read_bits", "energy_pj", "cycles", "key", "lanes"):
        assert [None if pd.isna(x) else x for x in frame[name].tolist()] == table[name]
    assert frame["accelerator.x"].tolist() == ["8", "default", "8", "8"]
    assert str(frame["dram_read_bits"].dtype) == "Int64"
    assert str(frame["latency_s"].dtype) == "Float64"


def test_parquet_without_its_library_says_what_to_install(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr("codesign.export.find_spec", lambda name: None if name == "pyarrow" else find(name))
    with pytest.raises(AccelsimError, match=r"pip install 'hybrid-vit-codesign\[parquet\]'"):
        write_parquet(rows_of(table_study(tmp_path / "a")), str(tmp_path / "a.parquet"))
    assert not (tmp_path / "a.parquet").exists()


def test_unwritable_table_leaves_nothing(tmp_path):
    rows = rows_of(table_study(tmp_path / "a"))
    for write in (write_csv, write_parquet):
        with pytest.raises(AccelsimError, match="cannot be written"):
            write(rows, str(tmp_path / "missing" / "table"))
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
