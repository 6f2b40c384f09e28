"""The page of a co-design study without a browser: data, sizes, missing parts, sentences."""

import base64
import hashlib
import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from codesign.cli import _parser as make_parser
from codesign.cli import main
from codesign.report.details import op_rows, simulated
from codesign.report.gantt import PARTS, gantt_data, segments_of
from codesign.report.page import MOST_CLOUD, cloud_columns, data_text, page, page_data
from codesign.report.study import CloudPoint, read_study
from codesign.report.summary import best_design, digits, seconds_text, si, summary
from tests.support.codesign_study import make_study, read_result, write_result

DOCS = Path(__file__).parent.parent.parent / "docs"
NOTHING = {"format": "codesign.result/1", "name": "bare", "model": "m"}
BARE_DESIGN = {"id": "a", "origin": "codesign", "latency_s": 1e-3, "energy_pj": 2e6, "edp_pj_s": 2e3, "area_mm2": 1.0}
HOSTILE = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked=1">&{{script}}'


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study in a folder that tests must not change."""
    folder = tmp_path_factory.mktemp("made") / "study"
    make_study(folder)
    return folder


@pytest.fixture
def study(made, tmp_path):
    """The same study with a result.json of its own; the designs' files are linked."""
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "designs").symlink_to(made / "designs")
    write_result(folder, read_result(made))
    return folder


def data_of(html):
    """The data in a page, as the page's script reads them."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    return json.loads(text)


def changed(folder, **values):
    write_result(folder, read_result(folder) | values)


def bare(folder, **values):
    folder.mkdir(exist_ok=True)
    write_result(folder, NOTHING | {"designs": [BARE_DESIGN]} | values)
    return read_study(folder)


def test_the_page_holds_the_study(study):
    html = page(read_study(study))
    data, stored = data_of(html), read_result(study)
    assert [one["id"] for one in data["designs"]] == [one["id"] for one in stored["designs"]]
    for shown, one in zip(data["designs"], stored["designs"], strict=True):
        assert shown["edp_pj_s"] == pytest.approx(one["edp_pj_s"], rel=1e-5)
        assert data["details"][one["id"]]["cycles"] == one["cycles"]
        assert data["details"][one["id"]]["same"]
    for name in ("bounds", "table_error", "comparison", "families", "findings", "history"):
        assert len(data[name]) == len(stored[name]) > 0
    assert data["provenance"]["spec_text"] == stored["spec_text"]
    assert data["missing"] == []
    assert html.startswith("<!DOCTYPE html>")
    assert "{{" not in html.replace(stored["spec_text"], "")


def test_runs_without_a_family_are_no_baselines(study):
    """They stand in a section of their own: the summary's strongest baseline is never the loop itself."""
    data, result = page_data(read_study(study)), read_study(study).result
    assert [row["family"] for row in data["families"]] == ["schemes"]
    assert ["without_schemes", "without schemes"] in data["origins"]
    assert "schemes" not in summary(result)


def test_the_page_needs_nothing_else(study):
    html = page(read_study(study))
    assert set(re.findall(r"https?://[\w./]*", html)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"""(src|href)=["'](?!data:,)""", html)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    script = html.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_same_study_same_bytes(study, tmp_path):
    names = [str(tmp_path / name) for name in ("a.html", "b.html")]
    assert all(main(["report", str(study), "-o", name]) == 0 for name in names)
    first, second = (Path(name).read_bytes() for name in names)
    assert first == second
    assert len(first) < 500_000


def test_a_large_study_stays_small(study):
    stored = read_result(study)
    changed(study, cloud=stored["cloud"] * 60, spec_text="x" * 300_000)
    text = page(read_study(study))
    data = data_of(text)
    assert len(text.encode()) < 1_500_000
    assert data["cloud"]["all"] == 60 * len(stored["cloud"]) > MOST_CLOUD == len(data["cloud"]["origin"])
    assert len(data["provenance"]["spec_text"]) + data["provenance"]["spec_left_out"] == 300_000


@pytest.mark.parametrize("most", [10_000, 60, 25, 9])
@pytest.mark.parametrize("name", ["cd-0", "m2"])
def test_segments_keep_every_cycle(made, name, most):
    report = simulated(made / "designs" / name)
    lanes, piece = segments_of(report, most)
    rows = len(report.result.rows)
    assert sum(map(len, lanes)) <= most
    assert (piece == 0) == (most == 10_000)
    assert rows > 60
    for k, lane in enumerate(lanes):
        for before, after in pairwise(lane):
            assert before.end <= after.start
        assert all(sum(item.amounts) <= item.end - item.start for item in lane)
        amounts = np.array([item.amounts for item in lane]).reshape(-1, PARTS).sum(axis=0)
        assert amounts[0] == report.result.unit_busy_ticks[k]
        assert amounts[1:].tolist() == report.result.unit_wait_ticks[k].tolist()


def test_gantt_entries_end_with_the_run(made):
    report = simulated(made / "designs" / "cd-0")
    found = gantt_data(report, 10_000)
    ends = [sum(gap + length for gap, length, *_ in lane) for lane in found["lanes"]]
    assert max(ends) == pytest.approx(report.result.cycles_total, abs=1)
    assert all(gap >= 0 and length > 0 for lane in found["lanes"] for gap, length, *_ in lane)
    few = gantt_data(report, 20)
    shares = [entry[3] for lane in few["lanes"] for entry in lane if isinstance(entry[3], list)]
    assert shares
    assert all(0 < sum(share) <= 103 for share in shares)


def test_rows_of_ops_say_what_every_filter_has(made):
    report = simulated(made / "designs" / "m2")
    mixed, rows = 0, op_rows(report)
    assert sum(row["cycles"] for row in rows) == pytest.approx(report.result.cycles_total, abs=1)
    for item, row in zip(report.table.quantized.ops, rows, strict=True):
        loop = item.op.loop
        if item.weights:
            assert sum(row["filters"].values()) == loop.groups * loop.cols
            mixed += len(row["filters"]) > 1
        elif loop is not None:
            assert row["right"] == item.right.name
        else:
            assert "filters" not in row
            assert "right" not in row
        assert (row["in"], row["out"]) == (item.activation.name, item.output.name)
    assert mixed > 3


def test_another_run_is_said(study):
    stored = read_result(study)
    stored["designs"][0]["cycles"] += 1
    stored["designs"][1]["energy_pj"] *= 1.001
    write_result(study, stored)
    details = page_data(read_study(study))["details"]
    assert [details[one["id"]]["same"] for one in stored["designs"][:3]] == [False, False, True]


def test_missing_parts_are_named(tmp_path):
    empty = dict.fromkeys(("data", "cloud", "history", "bounds", "table_error", "comparison", "findings", "seconds"))
    for parts in ({}, empty, {"cloud": [], "history": [{"search": "a"}], "bounds": []}):
        data = data_of(page(bare(tmp_path / "study", **parts)))
        assert len(data["missing"]) == 7
        assert "accuracy was not measured" in data["summary"]
        assert "There is no comparison with a baseline." in data["summary"]
        assert "No bound was computed" in data["summary"]
    assert data["details"] == {}
    assert data["best"] == "a"


def test_a_study_without_co_design(tmp_path):
    found = bare(tmp_path / "study", designs=[BARE_DESIGN | {"origin": "uniform8", "label": "eight"}])
    assert best_design(found.result) is None
    assert "holds no co-designed design" in summary(found.result)
    assert data_of(page(found))["best"] == "a"


def test_unknown_fields_are_passed_over(tmp_path):
    found = bare(tmp_path / "study", later={"x": 1}, designs=[BARE_DESIGN | {"later": 2}])
    assert found.result.designs[0].id == "a"


def test_hostile_texts_stay_texts(tmp_path):
    design = BARE_DESIGN | {"label": HOSTILE, "origin": HOSTILE, "values": {HOSTILE: HOSTILE}}
    html = page(bare(tmp_path / "study", name=HOSTILE, designs=[design], findings=[HOSTILE], spec_text=HOSTILE))
    assert "<script>window.hacked" not in html
    assert "<img" not in html
    assert html.count("</script>") == 2
    data = data_of(html)
    assert data["name"] == data["findings"][0] == data["designs"][0]["label"] == HOSTILE
    assert json.loads(data_text({"a": "<&>\u2028"})) == {"a": "<&>\u2028"}


def test_cloud_columns_give_the_points_back():
    points = tuple(
        CloudPoint(
            "codesign",
            1.0 + k,
            2.0,
            3.0,
            4.0,
            None,
            k / 10,
            k < 9,
            {"lanes": k % 3, **({"plan": "p"} if k % 2 else {})},
        )
        for k in range(20)
    )
    columns = cloud_columns(points)
    assert columns["all"] == 20
    assert [columns["origins"][number] for number in columns["origin"]] == ["codesign"] * 20
    assert columns["latency_s"] == [point.latency_s for point in points]
    assert columns["within"] == [True] * 9 + [False] * 11
    lanes, plan = columns["axes"]
    assert [lanes["choices"][pick] for pick in lanes["picks"]] == [str(k % 3) for k in range(20)]
    assert [plan["choices"][pick] if pick >= 0 else None for pick in plan["picks"]] == [None, "p"] * 10


def test_the_best_design_is_accurate_enough(study):
    result = read_study(study).result
    assert result.designs[2].edp_pj_s < result.designs[0].edp_pj_s
    assert best_design(result).id == "cd-0"
    text = summary(result)
    assert (
        f"The best design of equal accuracy is “m2vit ×1, w4a8”: EDP {si(result.designs[0].edp_pj_s * 1e-12, 'J·s')}"
        in text
    )
    assert (
        "Measured on 2,000 test images, its top-1 accuracy is 94.10 %, −0.70 points against the float network" in text
    )
    assert "Not shown to be as accurate as the float network: uniform 4-bit." in text
    assert "the strongest of 4 baselines" in text
    assert "7.0 % less; this bounds the predicted loss, not the accuracy" in text


def test_a_negative_result_is_said_plainly(study):
    stored = read_result(study)
    for row in stored["comparison"]:
        row["edp_ratio"] = {"uniform8": 1.25, "sequential": 1.0}.get(row["baseline"], 0.9)
    write_result(study, stored)
    text = summary(read_study(study).result)
    assert "There is no gain over uniform 8-bit, the strongest of 4 baselines: it needs 25.0 % more EDP" in text
    for row in stored["comparison"]:
        row["ours"] = "cd-2"
    write_result(study, stored)
    assert "the study's cd-2 needs 25.0 % more EDP" in summary(read_study(study).result)


def test_no_design_of_equal_accuracy_is_said(study):
    stored = read_result(study)
    stored["best"] = None
    for one in stored["designs"]:
        if one["origin"] == "codesign":
            one["validation"]["non_inferior"] = False
            one["test"] = None
    for row in stored["comparison"]:
        row |= {"edp_ratio": None, "equal_accuracy": row["baseline"] == "uniform8"}
    write_result(study, stored)
    found = read_study(study).result
    assert best_design(found) is None
    text = summary(found)
    assert "No co-designed design is shown to be as accurate as the float network. Of these “m2vit ×2, w4a8” co" in text
    assert "which is inferior or not shown to be as good" in text
    assert "Not shown to be as accurate as the float network: " in text
    assert "uniform 8-bit" not in text
    assert "There is no comparison with a baseline." in text
    data = data_of(page(read_study(study)))
    assert (data["best"], data["has_best"]) == ("cd-2", False)


def test_the_study_names_its_best(study):
    changed(study, best="cd-1", refusals={"uniform6": "no engine for 6 bits"})
    found = read_study(study).result
    assert best_design(found).id == "cd-1"
    assert "uniform 6-bit: no engine for 6 bits" in data_of(page(read_study(study)))["missing"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 J"), (1, "1.00 J"), (999.6, "1.00 kJ"), (1234, "1.23 kJ"), (63.197e-12, "63.2 pJ"),
        (4.2e-15, "0.00420 pJ"), (0.0123, "12.3 mJ"), (5e10, "50.0 GJ"), (9.996e-7, "1.00 µJ"),
    ],
)  # fmt: skip
def test_numbers_have_prefixes(value, text):
    assert si(value, "J") == text


def test_numbers_have_three_digits():
    assert [digits(value) for value in (0, 1, 12.345, 99.96, 1234, 0.00123, 1e-7)] == [
        "0", "1.00", "12.3", "100", "1234", "0.00123", "1e-07"
    ]  # fmt: skip
    assert [seconds_text(value) for value in (1.234, 59, 100, 7500)] == ["1.23 s", "59.0 s", "2 min", "2 h 5 min"]


def test_the_docs_page_has_the_command():
    text = (DOCS / "report.md").read_text(encoding="utf-8")
    commands = [line.split()[1:] for line in text.splitlines() if line.startswith("accelsim report ")]
    assert commands
    for words in commands:
        assert make_parser().parse_args(words).output
