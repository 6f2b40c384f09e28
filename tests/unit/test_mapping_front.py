"""The table and the picture of the mappings of one design."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim.mappers.exhaustive import Candidate, not_beaten
from accelsim.problems import AccelsimError
from codesign.front_command import _save, front_lines
from codesign.pareto import pareto_front
from codesign.plots.mapping_front import mapping_front_figure, plot_mapping_front
from tests.support.pictures import overlapping_texts, texts_in


def data_of(*rows, steady=False):
    """Plain data of rows (number, origin, cycles, energy in µJ) at 1 MHz."""
    mappings = [
        {
            "number": number, "origin": origin, "cycles": cycles, "time_s": cycles / 1e6,
            "energy_pj": energy_uj * 1e6, "edp_pj_s": energy_uj * cycles,
        }
        for number, origin, cycles, energy_uj in rows
    ]  # fmt: skip
    names = {"model": "net", "resolution": 32, "arch": "one", "plan": "eight"}
    numbers = {"clock_hz": 1_000_000, "steady": steady, "bound_cycles": 1500, "tried": len(mappings)}
    return {**names, **numbers, "mappings": mappings}


BEATEN = data_of(
    (1, "exhaustive", 2000, 9.0), (2, "exhaustive", 2100, 5.0), (None, "exhaustive", 2200, 5.5),
    (None, "heuristic", 4000, 8.0),
)  # fmt: skip
KEPT = data_of((1, "exhaustive", 2000, 9.0), (2, "heuristic", 2100, 5.0), steady=True)
ALONE = data_of((1, "exhaustive", 2000, 9.0))


def test_the_table_ends_with_the_heuristic_mapping_where_it_is_beaten():
    first, _, *lines = front_lines(BEATEN)
    assert first == "net at 32 on one, plan eight: design bound 1,500 cycles; 4 mappings tried, 2 not beaten"
    assert [line.split() for line in lines] == [
        ["1", "2,000", "2.000", "9.0", "18.0", "exhaustive"],
        ["2", "2,100", "2.100", "5.0", "10.5", "exhaustive"],
        ["-", "4,000", "4.000", "8.0", "32.0", "heuristic", "(beaten)"],
    ]


def test_the_table_of_a_steady_state_and_without_a_heuristic_mapping():
    first, head, *lines = front_lines(KEPT)
    assert "design bound of the latency 1,500 cycles" in first
    assert "interval ms" in head
    assert lines[1].split()[-1] == "heuristic"
    assert front_lines(ALONE)[-1].strip() == "-  the heuristic mapper finds no mapping"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (BEATEN, ("heuristic mapper, beaten (1)", "exhaustive mapper, beaten (1)", "exhaustive mapper, not beaten (2)",
                  "lowest energy, best EDP\n2.1 ms, 5 µJ", "fastest\n2 ms, 9 µJ", "heuristic\n4 ms, 8 µJ",
                  "latency per image [ms]", "4 tried, 2 not beaten; design bound 1.5 ms")),
        (KEPT, ("heuristic mapper (1)", "lowest energy, best EDP, heuristic\n2.1 ms, 5 µJ",
                "interval between images [ms]", "2 tried, 2 not beaten; design bound of the latency 1.5 ms")),
        (ALONE, ("fastest, lowest energy, best EDP\n2 ms, 9 µJ", "energy per image [µJ]")),
    ],
)  # fmt: skip
def test_the_picture_marks_the_heuristic_mapping_and_names_the_best(data, expected):
    figure = mapping_front_figure(data)
    assert set(expected) <= set(texts_in(figure))
    assert not overlapping_texts(figure)


def test_marks_lie_inside_and_the_line_joins_the_front():
    (axis,) = mapping_front_figure(BEATEN).axes
    (line,) = axis.lines
    assert line.get_xydata().tolist() == [[2.0, 9.0], [2.1, 5.0]]
    assert axis.get_xlim()[0] < 2.0
    assert axis.get_xlim()[1] > 4.0
    assert axis.get_ylim()[0] < 5.0
    assert axis.get_ylim()[1] > 9.0


@pytest.mark.parametrize(("count", "last"), [(9, "mapping_09.json"), (120, "mapping_120.json")])
def test_names_of_mappings_are_in_the_order_of_the_table(tmp_path, count, last):
    _save(tmp_path / "maps", [SimpleNamespace(to_json=lambda k=k: k) for k in range(1, count + 1)])
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert names[-1] == last
    assert [json.loads((tmp_path / "maps" / name).read_text()) for name in names] == list(range(1, count + 1))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_not_beaten_by_the_definition(figures):
    tried = [Candidate("exhaustive", None, None, float(cycles), float(energy)) for cycles, energy in figures]
    costs = np.array(figures, float)
    expected = sorted({tuple(row) for row in costs[pareto_front(costs)].tolist()})
    # Of equal ones, one stays.
    assert [(one.cycles, one.energy_pj) for one in not_beaten(tried)] == expected


def test_only_pictures_are_written(tmp_path):
    with pytest.raises(AccelsimError, match="unknown kind of picture"):
        plot_mapping_front(BEATEN, tmp_path / "p.pdf")
    plot_mapping_front(BEATEN, tmp_path / "p.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["p.svg"]
