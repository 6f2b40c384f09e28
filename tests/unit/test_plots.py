import csv
import xml.etree.ElementTree as ElementTree
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.problems import AccelsimError
from accelsim.trace import TraceRow
from codesign.labels import Box, place_labels
from codesign.plots import plot_gantt, plot_pareto

PNG = b"\x89PNG\r\n\x1a\n"


def row(point, latency_s, energy_pj, **more):
    base = {"point": point, "status": "ok", "arch": "one", "plan": "eight", "model": "small", "resolution": 32}
    numbers = {"latency_s": latency_s, "energy_pj": energy_pj, "utilization": {"mult": {"spatial": 1.0}}}
    return {**base, **numbers, "problem": "", "accelerator.x": 8, **more}


ROWS = [
    row(0, 1e-3, 9e9),
    row(1, 2e-3, 3e9, arch="two"),
    row(2, 9e-3, 2e9, plan="mixed"),
    row(3, 9e-3, 9e9, resolution=None),
    row(4, 8e-3, 8e9),
    row(5, None, None, status="infeasible", problem="needs 3 bits, has 2"),
]


def texts_of(path):
    # matplotlib draws letters as shapes, but leaves every text in a comment before them.
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    root = ElementTree.parse(path, parser).getroot()
    return [element.text.strip() for element in root.iter() if callable(element.tag)]


def test_csv_beside_the_picture_has_every_row_and_the_front(tmp_path):
    path = plot_pareto(ROWS, tmp_path / "front.png")
    assert path == tmp_path / "front.csv"
    assert (tmp_path / "front.png").read_bytes().startswith(PNG)
    with open(path, newline="") as stream:
        table = list(csv.DictReader(stream))
    # Row 3 runs another workload (its resolution is the model's own), so it is a front of its own.
    assert [line["on_front"] for line in table] == ["1", "1", "1", "1", "0", "0"]
    assert table[1]["accelerator.x"] == "8"
    assert float(table[1]["energy_pj"]) == 3e9
    assert (table[5]["problem"], table[5]["latency_s"]) == ("needs 3 bits, has 2", "")
    assert "utilization" not in table[0]


def test_picture_names_units_designs_and_extremes(tmp_path):
    plot_pareto(ROWS[:3] + ROWS[4:], tmp_path / "front.svg", title="Sweep")
    texts = texts_of(tmp_path / "front.svg")
    for text in (
        "Sweep",
        "latency per image [ms]",
        "energy per image [mJ]",
        "one, eight (2)",
        "two, eight (1)",
        "front (3)",
    ):
        assert text in texts
    joined = "\n".join(texts)
    for text in ("fastest", "lowest energy", "best EDP, knee", "2 ms, 3 mJ", "EDP 6 mJ·ms"):
        assert text in joined


def test_small_energies_are_in_microjoule(tmp_path):
    plot_pareto([row(0, 1e-3, 5e6), row(1, 2e-3, 4e6)], tmp_path / "front.svg")
    assert "energy per image [µJ]" in texts_of(tmp_path / "front.svg")


def test_one_panel_per_workload(tmp_path):
    plot_pareto(ROWS, tmp_path / "front.svg")
    assert {"small at 32", "small"} <= set(texts_of(tmp_path / "front.svg"))


def test_a_data_frame_gives_the_same_table(tmp_path):
    rows = plot_pareto(ROWS, tmp_path / "a.png").read_text()
    frame = plot_pareto(pd.DataFrame(ROWS).astype({"accelerator.x": object}), tmp_path / "b.png").read_text()
    assert frame.replace("32.0", "32") == rows


@pytest.mark.parametrize(
    ("rows", "name", "words"),
    [
        (ROWS, "front.pdf", r"\.png or \.svg"),
        (ROWS, "no/front.png", "mkdir -p"),
        (ROWS[5:], "front.png", "no design with numbers"),
        ([row(n, 1e-3, 1e9, resolution=n) for n in range(7)], "front.png", "at most 6"),
    ],
)
def test_what_cannot_be_drawn(tmp_path, rows, name, words):
    with pytest.raises(AccelsimError, match=words):
        plot_pareto(rows, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


TRACE = [
    TraceRow("dram", "conv1", "w", 0, 10, 20, "", 0),
    TraceRow("mult", "conv1", "0", 20, 60, 64, "input", 20),
    TraceRow("mult", "conv2", "0", 70, 90, 94, "region", 10),
]


def test_gantt_has_a_lane_per_unit_and_the_wait_causes(tmp_path):
    plot_gantt(TRACE, tmp_path / "g.svg", title="Run")
    texts = texts_of(tmp_path / "g.svg")
    assert {"Run", "dram", "mult", "time [cycles]", "waits for input", "waits for region"} <= set(texts)
    plot_gantt(TRACE, tmp_path / "ms.svg", clock_hz=5e8)
    assert "time [ms]" in texts_of(tmp_path / "ms.svg")


def test_gantt_of_a_long_run_stays_small(tmp_path):
    rows = [TraceRow("mult", f"op{n // 5000}", str(n), 2 * n, 2 * n + 1, 2 * n + 1, "input", 1) for n in range(20000)]
    plot_gantt(rows, tmp_path / "g.svg")
    assert (tmp_path / "g.svg").stat().st_size < 1_000_000


def test_gantt_needs_rows(tmp_path):
    with pytest.raises(AccelsimError, match="no rows"):
        plot_gantt([], tmp_path / "g.png")


@settings(max_examples=20)
@given(st.lists(st.tuples(st.floats(300, 900), st.floats(300, 900)), min_size=1, max_size=4))
def test_labels_overlap_neither_each_other_nor_an_obstacle_and_stay_inside(anchors):
    anchors = np.array(anchors)
    sizes = np.full((len(anchors), 2), (90.0, 30.0))
    inside, obstacle = Box(0, 0, 1200, 1200), Box(500, 500, 600, 600)
    centres = place_labels(anchors, sizes, inside, [obstacle], anchors, np.full(len(anchors), 60.0))
    boxes = [Box(x - 45, y - 15, x + 45, y + 15) for x, y in centres]
    assert not any(one.overlaps(other) for one, other in combinations([*boxes, obstacle], 2))
    assert all(min(box.x0, box.y0) >= 0 and max(box.x1, box.y1) <= 1200 for box in boxes)


def test_a_label_evades_the_dense_side():
    crowd = np.array([[x, y] for x in range(100, 200, 5) for y in range(20, 200, 5)], dtype=float)
    ((x, _),) = place_labels(
        np.array([[100.0, 100.0]]),
        np.array([[60.0, 20.0]]),
        Box(-500, -500, 500, 500),
        [],
        crowd,
        np.full(len(crowd), 5.0),
    )
    assert x < 100


def test_too_many_labels_are_refused():
    with pytest.raises(ValueError, match="at most 5"):
        place_labels(np.zeros((6, 2)), np.ones((6, 2)), Box(0, 0, 1, 1), [], np.zeros((0, 2)), np.zeros(0))
