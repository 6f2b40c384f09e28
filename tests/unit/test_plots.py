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
from codesign.pareto import best_edp_lines, front_mask
from codesign.plots.axes_of_study import varying
from codesign.plots.frame import QUANTITIES, styles
from codesign.plots.fronts import pareto_figure, plot_pareto
from codesign.plots.gantt import PARTS, gantt_figure, lane_shares, plot_gantt
from codesign.store import METRICS
from tests.support.pictures import overlapping_texts, texts_in, thousands_of_rows

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


def test_mappers_are_told_apart(tmp_path):
    rows = [row(0, 1e-3, 5e6, mapper="heuristic"), row(1, 2e-3, 4e6, mapper="exhaustive:edp")]
    rows = [{**own, "edp_pj_s": k, "edp_pj_s_synthesized": k} for k, own in zip((2, 1), rows, strict=True)]
    figure = pareto_figure(rows)
    texts = texts_in(figure)
    assert "one, eight, heuristic (1)" in texts
    assert "one, eight, exhaustive:edp (1)" in texts
    assert len(styles(rows)) == 2
    assert "one, eight, exhaustive:edp, 2.000 ms" in best_edp_lines(rows)[0]
    three = texts_in(pareto_figure([own | {"area_mm2": 1.0} for own in rows], ("latency_s", "energy_pj", "area_mm2")))
    assert "front: one, eight, exhaustive:edp (1)" in three
    assert varying(rows)["mapper"] == ["exhaustive:edp", "heuristic"]


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
    TraceRow("mult", "conv1", "0", 20, 60, 64, "bus", 20),
    TraceRow("mult", "conv2", "0", 70, 90, 94, "region", 10),
]


def test_gantt_has_a_lane_per_unit_and_the_wait_causes(tmp_path):
    plot_gantt(TRACE, tmp_path / "g.svg", title="Run")
    texts = texts_of(tmp_path / "g.svg")
    expected = {"Run", "dram", "mult", "time [cycles]", "waits for data from DRAM", "waits for a place in a buffer"}
    assert expected <= set(texts)
    assert "waits for a result of another unit" not in texts
    plot_gantt(TRACE, tmp_path / "ms.svg", clock_hz=5e8)
    assert "time [ms]" in texts_of(tmp_path / "ms.svg")


def test_gantt_lanes_come_in_the_given_order():
    figure = gantt_figure(TRACE, units=("mult", "dram"))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["mult", "dram"]
    assert overlapping_texts(figure) == []


def test_shares_of_a_lane_are_the_exact_parts_of_its_time():
    edges = np.array([0.0, 30.0, 60.0, 75.0, 100.0])
    shares = lane_shares(TRACE[1:], {"conv1": 0, "conv2": 1}, edges)
    assert set(shares) == {"busy", "busy, next op", "bus", "region"} <= set(PARTS)
    np.testing.assert_allclose(shares["bus"], [20 / 30, 0, 0, 0])
    np.testing.assert_allclose(shares["busy"], [10 / 30, 1, 0, 0])
    np.testing.assert_allclose(shares["region"], [0, 0, 10 / 15, 0])
    np.testing.assert_allclose(shares["busy, next op"], [0, 0, 5 / 15, 15 / 25])


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


THREE = ("latency_s", "energy_pj", "area_mm2")


def front_rows(count):
    """Designs of two workloads; the last third has no numbers."""
    rows = [
        row(n, 1e-3 * (1 + n % 7), 1e9 * (1 + n % 5), area_mm2=1.0 + n % 11, resolution=32 + 32 * (n % 2))
        for n in range(2 * count)
    ]
    return rows + [row(n, None, None, area_mm2=None, status="infeasible") for n in range(count)]


def test_three_objectives_have_three_panels_per_workload_with_the_members_in_all():
    rows = front_rows(20)
    figure = pareto_figure(rows, THREE)
    panels = [axis for line in figure.subfigs for axis in line.axes]
    assert len(figure.subfigs) == 2
    labels = ["latency per image [ms]", "energy per image [mJ]", "area [mm²]"]
    pairs = [(labels[a], labels[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert [(axis.get_xlabel(), axis.get_ylabel()) for axis in panels] == pairs * 2
    mask = front_mask(rows, THREE)
    for line, resolution in zip(figure.subfigs, (32, 64), strict=True):
        members = {
            (own["latency_s"] * 1e3, own["energy_pj"] * 1e-9, own["area_mm2"])
            for own, on_front in zip(rows, mask, strict=True)
            if on_front and own["resolution"] == resolution
        }
        for axis, columns in zip(line.axes, ((0, 1), (0, 2), (1, 2)), strict=True):
            drawn = {
                tuple(round(float(value), 9) for value in spot)
                for marks in axis.collections
                if str(marks.get_label()).startswith("front")
                for spot in marks.get_offsets()
            }
            assert drawn == {tuple(round(member[k], 9) for k in columns) for member in members}


def test_the_same_letter_marks_the_same_design_in_all_panels():
    figure = pareto_figure(
        [row(0, 1e-3, 9e9, area_mm2=5.0), row(1, 5e-3, 2e9, area_mm2=4.0), row(2, 9e-3, 9e9, area_mm2=1.0)], THREE
    )
    found = [{text.get_text(): tuple(text.xy) for text in axis.texts} for axis in figure.subfigs[0].axes]
    assert found == [
        {"A": (1, 9), "B": (5, 2), "C": (9, 9)},
        {"A": (1, 5), "B": (5, 4), "C": (9, 1)},
        {"A": (9, 5), "B": (2, 4), "C": (9, 1)},
    ]
    assert any("B: lowest energy (5 ms, 2 mJ, 4 mm²)" in text for text in texts_in(figure))


@pytest.mark.parametrize("objectives", [("latency_s", "energy_pj"), THREE, ("area_mm2", "edp_pj_s")])
def test_no_texts_of_a_front_overlap(objectives):
    rows = thousands_of_rows(300)
    assert overlapping_texts(pareto_figure(rows, objectives)) == []


def test_labels_of_a_narrow_front_do_not_overlap():
    near = [row(n, 1e-3 * x, 1e9 * y) for n, (x, y) in enumerate([(1.0, 3.0), (1.02, 2.9), (1.05, 2.89), (1.2, 2.88)])]
    figure = pareto_figure([*near, row(4, 9e-3, 30e9)])
    labels = [text for text in texts_in(figure) if "\n" in text]
    assert len(labels) == 3
    assert overlapping_texts(figure) == []


def test_csv_of_three_objectives_has_their_front(tmp_path):
    rows = front_rows(20)
    with open(plot_pareto(rows, tmp_path / "f.png", objectives=THREE), newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [line["on_front"] == "1" for line in table] == front_mask(rows, THREE)
    assert [line["area_mm2"] for line in table] == [
        "" if own["area_mm2"] is None else str(own["area_mm2"]) for own in rows
    ]


def test_other_objectives_have_their_names_and_no_edp_lines():
    texts = texts_in(pareto_figure(thousands_of_rows(50), ("area_mm2", "power_w")))
    assert {"area [mm²]", "Area and power of every design"} <= set(texts)
    assert any(text.startswith("power [") for text in texts)
    assert not any(text.startswith("EDP") for text in texts)
    assert any("least power" in text for text in texts)


@pytest.mark.parametrize(
    ("objectives", "words"),
    [
        (("latency", "energy_pj"), "unknown metric 'latency'.*try: latency_s"),
        (("latency_s", "latency_s"), "twice"),
        (("latency_s",), "two or three"),
        (("latency_s", "energy_pj", "area_mm2", "power_w"), "two or three"),
        (("latency_s", "energy_pj", "macs"), "unknown metric 'macs'"),
    ],
)
def test_faulty_objectives(tmp_path, objectives, words):
    with pytest.raises(AccelsimError, match=words):
        plot_pareto(ROWS, tmp_path / "f.png", objectives=objectives)
    assert list(tmp_path.iterdir()) == []


def test_a_value_without_logarithm_is_named(tmp_path):
    with pytest.raises(AccelsimError, match="dram_write_bits: is 0"):
        plot_pareto(
            [row(0, 1e-3, 1e9, dram_write_bits=0)], tmp_path / "f.png", objectives=("latency_s", "dram_write_bits")
        )
    assert list(tmp_path.iterdir()) == []


def test_every_cost_of_a_study_has_a_name_and_units():
    assert set(QUANTITIES) == {name for name, _, _ in METRICS} - {"clock_hz", "macs"}


def test_ten_thousand_designs_are_an_image_inside_an_svg(tmp_path):
    plot_pareto(thousands_of_rows(10_000), tmp_path / "f.svg")
    text = (tmp_path / "f.svg").read_text()
    assert "<image" in text
    assert len(text) < 2_000_000


def test_too_many_labels_are_refused():
    with pytest.raises(ValueError, match="at most 5"):
        place_labels(np.zeros((6, 2)), np.ones((6, 2)), Box(0, 0, 1, 1), [], np.zeros((0, 2)), np.zeros(0))
