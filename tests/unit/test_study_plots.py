import csv
import math
import statistics

import numpy as np
import pandas as pd
import pytest

from accelsim.problems import AccelsimError
from codesign.pareto import front_mask
from codesign.plots.axes_of_study import field_text, ordered, shortened, value_text, varying, wrapped
from codesign.plots.parallel import MAX_BEATEN, OBJECTIVES, parallel_figure, plot_parallel
from codesign.plots.sensitivity import effects, plot_sensitivity, sensitivity_figure
from tests.support.pictures import overlapping_texts, texts_in, thousands_of_rows

ROWS = thousands_of_rows(260, workloads=2)
# In the order of their first design with numbers.
WORKLOADS = (256, 224)
FIELDS = (
    "resolution", "arch", "plan", "accelerator.engines.mult.pixel_groups",
    "accelerator.activation_buffer.capacity_bits", "accelerator.dram.bandwidth_bits_per_s",
)  # fmt: skip


def table_of(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def priced(rows):
    return [row for row in rows if row["latency_s"] is not None]


def test_axes_of_a_study_are_the_fields_that_vary():
    assert tuple(varying(ROWS)) == FIELDS
    assert varying(ROWS)["accelerator.dram.bandwidth_bits_per_s"] == [51.2e9, 102.4e9, "default"]
    assert "model" not in varying(ROWS)


def test_values_are_ordered_and_written_in_the_unit_of_the_field():
    assert ordered({"default", 8, "b", 16.0}) == [8, 16.0, "b", "default"]
    assert field_text("accelerator.activation_buffer.capacity_bits") == "activation buffer [KiB]"
    assert value_text("accelerator.activation_buffer.capacity_bits", 2_097_152) == "256"
    assert field_text("accelerator.dram.bandwidth_bits_per_s") == "dram bandwidth [GB/s]"
    assert value_text("accelerator.dram.bandwidth_bits_per_s", 51.2e9) == "6.4"
    assert field_text("accelerator.clock_hz") == "clock [MHz]"
    assert value_text("accelerator.clock_hz", 500_000_000) == "500"
    assert value_text("accelerator.dram.bandwidth_bits_per_s", "default") == "default"
    assert value_text("resolution", None) == "the model's"
    assert value_text("accelerator.engines.mult.depthwise", True) == "True"


def test_long_names_are_cut_in_the_middle_and_titles_wrapped():
    assert shortened("plans/of/mine/mixed_a.yaml", 15) == "plans/o…_a.yaml"
    assert shortened("short", 15) == "short"
    assert wrapped("activation buffer [KiB]", 14) == "activation\nbuffer [KiB]"


def test_parallel_draws_every_design_and_colours_the_front_of_each_workload():
    figure = parallel_figure(ROWS)
    (axis,) = figure.axes
    beaten, *fronts = (len(lines.get_segments()) for lines in axis.collections)
    mask = front_mask(ROWS, OBJECTIVES)
    members = [sum(own for own, row in zip(mask, ROWS, strict=True) if row["resolution"] == size) for size in WORKLOADS]
    assert fronts == members
    assert beaten == len(priced(ROWS)) - sum(mask)
    assert f"{len(priced(ROWS))} designs (20 without numbers); front of latency, energy, area" in texts_in(figure)


def test_a_line_of_parallel_passes_its_values():
    figure = parallel_figure(ROWS)
    (axis,) = figure.axes
    best = min(priced(ROWS), key=lambda row: row["latency_s"])
    columns = len(FIELDS) + len(OBJECTIVES)
    lines = [line for lines in axis.collections for line in lines.get_segments()]
    assert {line.shape for line in lines} == {(columns, 2)}
    (line,) = [line for line in lines if line[len(FIELDS), 1] == 0]
    places = {text.get_text(): text.get_position() for text in axis.texts}
    groups = str(best["accelerator.engines.mult.pixel_groups"])
    # Lines of one value are spread a little around its place.
    assert line[3, 1] == pytest.approx(places[groups][1], abs=0.07)
    areas = [math.log(row["area_mm2"]) for row in priced(ROWS)]
    height = (math.log(best["area_mm2"]) - min(areas)) / (max(areas) - min(areas))
    assert line[-1, 1] == pytest.approx(height)


def test_parallel_names_its_axes_and_values_without_overlaps():
    figure = parallel_figure(ROWS)
    texts = texts_in(figure)
    assert {"arch", "m2vit", "trio_vit", "w4a8", "activation\nbuffer [KiB]", "128", "1024", "area [mm²]"} <= set(texts)
    assert overlapping_texts(figure) == []


def test_csv_of_parallel_is_the_study_with_its_front(tmp_path):
    path = plot_parallel(pd.DataFrame(ROWS), tmp_path / "p.svg")
    table = table_of(path)
    assert [line["on_front"] == "1" for line in table] == front_mask(ROWS, OBJECTIVES)
    for line, row in zip(table, ROWS, strict=True):
        assert (line["latency_s"] and float(line["latency_s"])) == (row["latency_s"] or "")
        assert line["plan"] == row["plan"]


def test_of_many_beaten_designs_some_are_drawn_and_the_legend_says_so():
    rows = thousands_of_rows(6000)
    figure = parallel_figure(rows)
    lines = figure.axes[0].collections[0]
    assert MAX_BEATEN / 2 < len(lines.get_segments()) <= MAX_BEATEN
    assert lines.get_rasterized()
    beaten = len(priced(rows)) - sum(front_mask(rows, OBJECTIVES))
    assert f"beaten ({beaten}, one of 3 drawn)" in texts_in(figure)


def test_main_effect_is_the_ratio_of_geometric_means():
    rows = [
        {"arch": arch, "plan": plan, "edp_pj_s": edp}
        for arch, plan, edp in (("a", "x", 1.0), ("a", "y", 4.0), ("b", "x", 2.0), ("b", "y", 32.0))
    ]
    first, second = effects(rows)
    assert (first.field, second.field) == ("plan", "arch")
    # plan: sqrt(1·2) and sqrt(4·32); arch: sqrt(1·4) and sqrt(2·32).
    assert first.main_effect == pytest.approx(8.0)
    assert second.main_effect == pytest.approx(4.0)
    assert [level.geomean for level in second.levels] == pytest.approx([2.0, 8.0])
    assert [level.designs for level in second.levels] == [2, 2]
    assert second.levels[0].quantiles[3] == pytest.approx(2.5)


def test_sensitivity_has_a_panel_per_workload_with_axes_by_effect():
    figure = sensitivity_figure(ROWS)
    assert [axis.get_title() for axis in figure.axes] == [f"efficientvit_b1 at {size}" for size in WORKLOADS]
    for axis, size in zip(figure.axes, WORKLOADS, strict=True):
        found = effects([row for row in priced(ROWS) if row["resolution"] == size])
        assert [effect.main_effect for effect in found] == sorted((e.main_effect for e in found), reverse=True)
        headings = [text.get_text() for text in axis.texts]
        assert headings == [f"{field_text(effect.field)}: ×{effect.main_effect:.2f}" for effect in found]
        assert headings[0].startswith("engine mult pixel groups")
        levels = [level for effect in found for level in effect.levels]
        assert [label.get_text().rpartition(" (")[2] for label in axis.get_yticklabels()] == [
            f"{level.designs})" for level in levels
        ]
        means = [x for line in axis.lines if line.get_marker() == "D" for x in line.get_xdata()]
        assert means == pytest.approx([level.geomean * 1e-6 for level in levels])
    assert overlapping_texts(figure) == []


def test_csv_of_sensitivity_has_the_studys_numbers(tmp_path):
    for line in table_of(plot_sensitivity(ROWS, tmp_path / "s.png")):
        own = [
            row["edp_pj_s"]
            for row in priced(ROWS)
            if f"efficientvit_b1 at {row['resolution']}" == line["workload"] and str(row[line["axis"]]) == line["value"]
        ]
        assert int(line["designs"]) == len(own)
        assert float(line["geomean"]) == pytest.approx(statistics.geometric_mean(own))
        assert (float(line["min"]), float(line["max"])) == (min(own), max(own))
        assert float(line["p25"]) == pytest.approx(np.quantile(own, 0.25))


def test_sensitivity_of_another_metric():
    axis = sensitivity_figure(ROWS, "area_mm2").axes[0]
    assert axis.get_xlabel() == "area [mm²]"
    # The plan changes no area: what is left is the chance of which designs were drawn.
    assert axis.texts[0].get_text().startswith("activation buffer [KiB]: ×")


@pytest.mark.parametrize("plot", [plot_parallel, plot_sensitivity])
@pytest.mark.parametrize(
    ("rows", "name", "words"),
    [
        (ROWS, "p.pdf", r"\.png or \.svg"),
        (ROWS, "no/p.png", "mkdir -p"),
        ([], "p.png", "no design with numbers"),
        (ROWS[:1], "p.png", "no design with numbers"),
        ([{**ROWS[1], "resolution": size} for size in range(9)], "p.png", "9 workloads"),
    ],
)
def test_what_cannot_be_drawn(tmp_path, plot, rows, name, words):
    with pytest.raises(AccelsimError, match=words):
        plot(rows, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_sensitivity_needs_an_axis_and_a_known_metric(tmp_path):
    with pytest.raises(AccelsimError, match="no axis of the study takes two values"):
        plot_sensitivity(ROWS[1:2], tmp_path / "s.png")
    with pytest.raises(AccelsimError, match="unknown metric 'edp'"):
        plot_sensitivity(ROWS, tmp_path / "s.png", metric="edp")
    many = [{**ROWS[1], "plan": f"m2q:{share}"} for share in range(201)]
    with pytest.raises(AccelsimError, match=r"201 values on all axes.*at most 200"):
        plot_sensitivity(many, tmp_path / "s.png")
    assert list(tmp_path.iterdir()) == []
