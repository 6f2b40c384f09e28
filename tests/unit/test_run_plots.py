"""Pictures of one run: what they draw is what the report says."""

import numpy as np
import pytest

from accelsim.api import simulate
from accelsim.config import load_accelerator, load_plan
from accelsim.explain import bytes_per_cycle, roofline
from accelsim.optable import op_table
from accelsim.problems import AccelsimError
from accelsim.program import BUFFERS, CAUSES
from accelsim.workloads.registry import build_workload
from codesign.outputs import trace_rows
from codesign.plots.buffers import buffers_figure, least_and_most, occupancy, plot_buffers
from codesign.plots.gantt import gantt_figure, lane_shares
from codesign.plots.roofline import engine_roofs, mark_area, plot_roofline, roofline_figure
from codesign.plots.runs import CAUSE_TEXTS, OTHER, class_colours, run_title
from codesign.plots.stalls import class_waits, plot_stalls, stalls_figure, unit_parts
from tests.support.pictures import overlapping_texts, texts_in


def run(model="efficientvit_b0", resolution=64, arch="m2vit", plan="m2q", batch=1, record=True):
    table = op_table(build_workload(model, resolution), load_plan(plan))
    return simulate(table, load_accelerator(arch), batch=batch, record=record)


@pytest.fixture(scope="module")
def report():
    return run()


@pytest.fixture(scope="module", params=[("efficientvit_b1", "trio_vit", "uniform8"), ("deit_small", "m2vit", "m2q")])
def large(request):
    model, arch, plan = request.param
    return run(model, 224, arch, plan)


def test_roofline_has_every_op_at_its_place(report):
    figure = roofline_figure(report)
    points = [point for point in roofline(report) if point.active_cycles > 0]
    for axis, unit in zip(figure.axes, ("MACs", "vector operations"), strict=True):
        own = [point for point in points if point.work_unit == unit]
        spots = np.array([marks.get_offsets()[0] for marks in axis.collections])
        assert len(spots) == len(own) > 10
        for point, spot, marks in zip(own, spots, axis.collections, strict=True):
            assert spot[1] == pytest.approx(point.attained)
            assert point.intensity is None or spot[0] == pytest.approx(point.intensity)
            assert marks.get_sizes()[0] == pytest.approx(mark_area(point.active_cycles / report.result.cycles_total))
        aside = {float(spot[0]) for point, spot in zip(own, spots, strict=True) if point.intensity is None}
        largest = max(point.intensity for point in own if point.intensity is not None)
        assert all(x > largest for x in aside)
        assert axis.get_xlabel() == f"{unit} per DRAM byte"
        assert axis.get_ylabel() == f"{unit} per cycle"
        assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")


def test_roofs_are_the_rates_of_the_engines_and_of_the_dram(report):
    by_engine = {}
    for name, _, rate in engine_roofs(report):
        by_engine.setdefault(name, set()).add(rate)
    slots = {engine.name: engine.slots for engine in report.accelerator.engines}
    assert set(by_engine) == set(slots)
    assert slots["mult"] in by_engine["mult"]
    peak = max(point.peak for point in roofline(report))
    axis = roofline_figure(report).axes[0]
    dram, *flat = axis.lines
    x, y = dram.get_data()
    np.testing.assert_allclose(np.array(y) / np.array(x), bytes_per_cycle(report.accelerator))
    drawn = {line.get_ydata()[0] for line in flat}
    assert drawn == {rate for rates in by_engine.values() for rate in rates} | {peak}


def test_a_composable_array_has_a_roof_for_every_split():
    # 4 × 4 bits: two channels and two reduction inputs on each of 1,024 units.
    found = engine_roofs(run(arch="bitfusion_edge", plan="uniform4"))
    assert any(texts == "4×4" and rate == 4096 for _, texts, rate in found)


def test_equal_layers_share_a_label():
    labels = [text for text in texts_in(roofline_figure(run("deit_small", 224))) if "and 11 more" in text]
    assert any(text.startswith("b0.fc2 and 11 more\n") and text.endswith("of the time on average") for text in labels)


def test_parts_of_a_unit_are_all_its_time(report):
    units = unit_parts(report)
    data = report.to_json()
    for unit, parts in units.items():
        assert sum(parts.values()) == pytest.approx(1.0)
        for cause in CAUSES:
            waited = data["waits_cycles"][unit][cause]
            assert parts[cause] * report.result.total_ticks / report.result.program.ticks_per_cycle == pytest.approx(
                waited
            )
    axis = stalls_figure(report).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == list(units)
    widths = {}
    for bar in axis.patches:
        line = round(bar.get_y() + bar.get_height() / 2)
        widths[line] = widths.get(line, 0.0) + bar.get_width()
    assert list(widths.values()) == pytest.approx([1.0] * len(units))


def test_waits_of_the_classes_are_those_of_their_ops(report):
    waits = class_waits(report)
    expected = {}
    for row in report.op_rows():
        for cause, cycles in row["waits_cycles"].items():
            expected[row["class"], cause] = expected.get((row["class"], cause), 0.0) + cycles
    assert {(name, cause): lost for name, own in waits.items() for cause, lost in own.items()} == pytest.approx(
        expected
    )
    totals = [sum(own.values()) for own in waits.values()]
    assert totals == sorted(totals, reverse=True)
    axis = stalls_figure(report).axes[1]
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        n for n, own in waits.items() if sum(own.values())
    ]
    assert sum(bar.get_width() for bar in axis.patches) == pytest.approx(sum(totals) / 1e3)


def test_every_cause_is_explained_in_the_legend(report):
    assert set(CAUSE_TEXTS.values()) | {"busy"} <= set(texts_in(stalls_figure(report)))


def test_least_and_most_of_pieces_of_time():
    steps = [(1.0, 10.0), (1.0, 4.0), (3.0, 8.0), (3.5, 2.0), (6.0, 0.0)]
    least, most = least_and_most(steps, 8.0, bins=4)
    # 0 until 1, then 4 (10 lasts no time); 4, 8 from 3, 2 from 3.5; 2; 0.
    assert least.tolist() == [0, 2, 2, 0]
    assert most.tolist() == [4, 8, 2, 0]


def test_buffers_stay_within_their_capacity_and_end_empty(report):
    capacities = (report.accelerator.activation_buffer, report.accelerator.weight_buffer)
    for (name, steps), buffer in zip(occupancy(report).items(), capacities, strict=True):
        peak = max(bits for _, bits in steps)
        assert 0 < peak <= buffer.capacity_bits
        assert steps[-1][1] == 0
        figure = buffers_figure(report)
        (title,) = [axis.get_title("left") for axis in figure.axes if axis.get_title("left").startswith(name)]
        assert title.startswith(
            f"{name} buffer: capacity {buffer.capacity_bits / 8192:,.4g} KiB, at most {peak / 8192:,.4g}"
        )
    axes = figure.axes[:2]
    for axis, buffer in zip(axes, capacities, strict=True):
        assert axis.lines[0].get_ydata()[0] == buffer.capacity_bits / 8192


def test_what_a_row_touches_is_occupied_until_it_ends(report):
    result, program = report.result, report.result.program
    ticks = program.ticks_per_cycle
    steps = {name: np.array(found) for name, found in occupancy(report).items()}
    for row, (start, end, *_) in zip(program.expand(), result.rows.tolist(), strict=True):
        for buffer, name in enumerate(BUFFERS):
            regions = {region for region in (*row.reads, row.write) if region >= 0}
            bits = sum(int(program.regions[r, 2]) for r in regions if program.regions[r, 0] == buffer)
            times, levels = steps[name].T
            for tick in (start, (start + end) / 2):
                assert bits == 0 or levels[np.searchsorted(times, tick / ticks, side="right") - 1] >= bits


def test_the_strip_of_classes_covers_the_run(report):
    strip = buffers_figure(report).axes[-1]
    widths = sum(box.width for spans in strip.collections for box in (path.get_extents() for path in spans.get_paths()))
    clock = report.accelerator.clock_hz
    assert widths == pytest.approx(report.result.total_ticks / report.result.program.ticks_per_cycle / clock * 1e3)


def test_only_the_largest_classes_have_a_colour():
    colours = class_colours({f"c{k}": float(k) for k in range(12)})
    assert list(colours) == [f"c{k}" for k in range(5, 12)] + [OTHER]
    assert len(set(colours.values())) == 8


def test_lanes_of_a_run_add_up_to_its_statistics(report):
    rows = trace_rows(report)
    ops = {op: place for place, op in enumerate(dict.fromkeys(row.op for row in rows))}
    end = report.result.total_ticks / report.result.program.ticks_per_cycle
    for unit, parts in unit_parts(report).items():
        shares = lane_shares([row for row in rows if row.unit == unit], ops, np.linspace(0.0, end, 101))
        assert sum(shares.values()).max() <= 1 + 1e-9
        busy = sum(shares[part].mean() for part in ("busy", "busy, next op") if part in shares)
        assert busy == pytest.approx(parts["busy"])
        for cause in CAUSES:
            assert (shares[cause].mean() if cause in shares else 0.0) == pytest.approx(parts[cause])


@pytest.mark.parametrize("draw", [roofline_figure, stalls_figure, buffers_figure])
def test_no_texts_overlap(large, draw):
    figure = draw(large)
    assert run_title(large) in texts_in(figure)[0] or any(run_title(large) in text for text in texts_in(figure))
    assert overlapping_texts(figure) == []


def test_no_texts_of_a_gantt_overlap(large):
    figure = gantt_figure(trace_rows(large), large.accelerator.clock_hz, run_title(large), large.result.program.units)
    assert overlapping_texts(figure) == []


@pytest.mark.parametrize("plot", [plot_roofline, plot_stalls, plot_buffers])
def test_pictures_are_written_by_suffix(tmp_path, report, plot):
    plot(report, tmp_path / "a.png")
    plot(report, tmp_path / "a.svg", title="Mine")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert "<!-- Mine -->" in (tmp_path / "a.svg").read_text(encoding="utf-8")
    with pytest.raises(AccelsimError, match="unknown kind of picture"):
        plot(report, tmp_path / "a.jpg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg"]


@pytest.mark.parametrize("plot", [plot_roofline, plot_buffers])
def test_a_run_that_is_not_recorded_is_refused(tmp_path, plot):
    with pytest.raises(AccelsimError, match="no recorded rows"):
        plot(run(record=False), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_a_batch_has_no_roofline_but_other_pictures(tmp_path):
    two = run(batch=2)
    with pytest.raises(AccelsimError, match="2 images"):
        plot_roofline(two, tmp_path / "a.png")
    assert run_title(two).endswith("batch 2")
    assert stalls_figure(two).axes[1].get_title() == "op classes (first image)"
    assert buffers_figure(two).axes[0].get_title("left").startswith("activation")
