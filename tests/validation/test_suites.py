"""Suites of `accelsim validate`: demands are met, the page is current, and a changed model or reference is a miss."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.analysis.row_stationary import (
    ConvShape,
    PassMapping,
    active_pes,
    buffer_words,
    input_rows,
    pass_cycles,
    passes,
    step_pass,
    strips,
)
from accelsim.problems import AccelsimError
from accelsim.validation import eyeriss, gemmini, nvdla, report, scalesim, tpu
from accelsim.validation.case import Case, Demand, summarize
from accelsim.validation.registry import NAMES, suites
from codesign.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "validation.md"


@pytest.fixture(scope="module")
def outcomes() -> list[report.Outcome]:
    return report.run_suites(suites())


def test_no_suite_misses_a_demand(outcomes: list[report.Outcome]) -> None:
    assert [outcome.suite.name for outcome in outcomes] == list(NAMES)
    for outcome in outcomes:
        missed = [case for case in outcome.cases if not case.met]
        assert not missed
        assert outcome.summary.cases == len(outcome.cases) > 0
        assert len({(case.name, case.quantity) for case in outcome.cases}) == len(outcome.cases)


def test_the_page_is_current(outcomes: list[report.Outcome]) -> None:
    assert PAGE.read_text(encoding="utf-8") == report.page(outcomes), (
        "python -m accelsim.validation.report > docs/validation.md"
    )


def test_figures(outcomes: list[report.Outcome]) -> None:
    """The figures that README and changelog quote."""
    figures = {outcome.suite.name: outcome.summary for outcome in outcomes}
    assert (figures["scalesim"].checked, figures["scalesim"].exact) == (648, 648)
    assert (figures["nvdla"].checked, figures["nvdla"].exact) == (14, 14)
    assert figures["eyeriss"].stated_mean_error == pytest.approx(0.0364, abs=5e-5)
    assert figures["gemmini"].stated_max_error == pytest.approx(0.5297, abs=5e-5)
    large = [abs(case.error) for case in gemmini.cases() if case.demand is Demand.STATED][1:]
    assert max(large) < 0.03


@pytest.mark.parametrize(
    ("reference", "ours", "demand", "tolerance", "met", "error"),
    [
        (10, 10, Demand.EQUAL, 0, True, 0.0),
        (10, 10.000001, Demand.EQUAL, 0, False, 1e-7),
        (10, 11, Demand.WITHIN, 0.1, True, 0.1),
        (10, 11.01, Demand.WITHIN, 0.1, False, 0.101),
        (10, 8.9, Demand.WITHIN, 0.1, False, -0.11),
        (10, 9, Demand.AT_MOST, 0, True, -0.1),
        (10, 11, Demand.AT_MOST, 0, False, 0.1),
        (10, 11, Demand.AT_LEAST, 0, True, 0.1),
        (10, 9, Demand.AT_LEAST, 0, False, -0.1),
        (10, 99, Demand.STATED, 0, True, 8.9),
        (0, 1, Demand.EQUAL, 0, False, float("inf")),
        (0, 0, Demand.EQUAL, 0, True, 0.0),
        (-10, -9, Demand.WITHIN, 0.1, True, 0.1),
    ],
)
def test_demands(reference: float, ours: float, demand: Demand, tolerance: float, met: bool, error: float) -> None:
    case = Case("c", "q", "u", reference, ours, demand, tolerance)
    assert case.met is met
    assert case.error == pytest.approx(error)
    assert summarize("s", [case]).missed == (not met)


def test_summary_keeps_kinds_apart() -> None:
    cases = [
        Case("a", "q", "u", 1, 1),
        Case("b", "q", "u", 1, 1.5, Demand.STATED),
        Case("c", "q", "u", 1, 1.1, Demand.STATED),
        Case("d", "q", "u", 1, 9, Demand.AT_LEAST),
        Case("e", "q", "u", 100, 101, Demand.WITHIN, 0.02),
    ]
    figures = summarize("s", cases)
    assert (figures.cases, figures.checked, figures.exact, figures.stated, figures.bounds) == (5, 2, 1, 2, 1)
    assert figures.checked_max_error == pytest.approx(0.01)
    assert (figures.stated_mean_error, figures.stated_max_error) == pytest.approx((0.3, 0.5))


@pytest.mark.parametrize(
    ("module", "name", "suite"),
    [(nvdla, "WEIGHT_BLOCK_BYTES", "nvdla"), (eyeriss, "WORD_BYTES", "eyeriss"), (tpu, "BANDWIDTH_BYTES_PER_S", "tpu")],
)
def test_a_changed_model_is_a_miss(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                   module: object, name: str, suite: str) -> None:  # fmt: skip
    monkeypatch.setattr(module, name, getattr(module, name) // 2)
    assert main(["validate", suite]) == 1
    assert "MISSED" in capsys.readouterr().out


SHAPES = st.builds(
    ConvShape, images=st.integers(1, 4), groups=st.integers(1, 2), channels=st.integers(1, 9),
    filters=st.integers(1, 9), in_edge=st.just(0), kernel=st.integers(1, 5), out_edge=st.integers(1, 9),
    stride=st.integers(1, 3),
)  # fmt: skip
MAPPINGS = st.builds(
    PassMapping, images=st.integers(1, 4), strip_rows=st.integers(1, 9), filters=st.integers(1, 5),
    channels=st.integers(1, 4), channel_sets=st.integers(1, 3), filter_sets=st.integers(1, 3),
)  # fmt: skip


@settings(max_examples=200)
@given(SHAPES, MAPPINGS, st.integers(1, 9))
def test_row_stationary_pass_equals_its_steps(layer: ConvShape, mapping: PassMapping, rows: int) -> None:
    assert pass_cycles(layer, mapping, rows) == step_pass(layer, mapping, rows)


@settings(max_examples=100)
@given(SHAPES, MAPPINGS)
def test_row_stationary_passes_cover_the_layer(layer: ConvShape, mapping: PassMapping) -> None:
    """The PEs of all passes have a place for every MAC, and strips make every output row once."""
    assert sum(strips(layer, mapping)) == layer.out_edge
    assert max(strips(layer, mapping)) <= mapping.strip_rows
    per_pe = mapping.images * mapping.filters * mapping.channels * layer.kernel * layer.out_edge
    places = sum(
        rows * layer.kernel * mapping.channel_sets * mapping.filter_sets * per_pe for rows in strips(layer, mapping)
    )
    assert passes(layer, mapping) * places >= layer.macs
    busy = passes(layer, mapping) * sum(pass_cycles(layer, mapping, rows) for rows in strips(layer, mapping))
    assert busy * active_pes(layer, mapping) >= layer.macs


def test_buffer_volume_by_hand() -> None:
    """One strip, one pass: 2 × 3 input rows of 5 words, and 4 filters × 9 outputs written and read."""
    layer = ConvShape(1, 1, 2, 4, 5, 3, 3, 1)
    mapping = PassMapping(1, 3, 2, 2, 1, 2)
    assert input_rows(layer, 3) == 5
    assert buffer_words(layer, mapping) == 2 * 5 * 5 + 2 * 4 * 9


def test_gemmini_tiles_fit_and_tile_the_product() -> None:
    for rows in (1, 3, 16, 40):
        for depth in (1, 7, 64):
            for cols in (1, 5, 33):
                tile = gemmini.choose_tile(rows, depth, cols)
                assert tile.fits()
                assert 1 <= tile.rows <= rows
                assert 1 <= tile.depth <= depth
                assert 1 <= tile.cols <= cols
    assert gemmini.product_cycles(16, 16, 16) == 32 + 16 + 16
    assert gemmini.product_cycles(512, 512, 512) >= 512**3 // 256


def cases_of_data() -> Iterator[dict[str, str]]:
    path = Path(scalesim.__file__).parent / "data" / "scalesim_cases.csv"
    yield from csv.DictReader(
        line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")
    )


def test_sizes_of_convolutions_are_the_ones_of_the_table() -> None:
    from accelsim.validation.scalesim_files import conv_layer

    checked = 0
    for row in cases_of_data():
        if row["kind"] == "conv":
            columns = ("ifmap_h", "ifmap_w", "filt_h", "filt_w", "channels", "num_filters")
            layer = conv_layer("c", [int(row[column]) for column in columns], (int(row["stride"]),) * 2)
            assert (layer.rows, layer.depth, layer.cols) == tuple(int(row[key]) for key in "MKN")
            checked += 1
    assert checked == 63


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "v.json"
    assert main(["validate", "nvdla", "tpu", "--json", str(out)]) == 0
    data = json.loads(out.read_text())
    assert data["format"] == "accelsim.validation/1"
    assert [suite["suite"] for suite in data["suites"]] == ["nvdla", "tpu"]
    assert {"name", "quantity", "unit", "reference", "ours", "error", "met", "demand"} <= data["suites"][0]["rows"][
        0
    ].keys()
    assert "input bytes" in capsys.readouterr().out
    assert main(["validate", "nvdlla"]) == 2
    assert "nvdla" in capsys.readouterr().err


def test_own_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "own.csv"
    path.write_text(
        "case,kind,M,K,N,rows,cols,dataflow,scalesim_cycles\nmine,gemm,33,1,47,8,8,ws,329\nnew,gemm,4,4,4,2,2,os,\n"
    )
    assert main(["validate", "--cases", str(path)]) == 0
    assert "new os 2×2" in capsys.readouterr().out
    path.write_text(path.read_text().replace("329", "330"))
    assert main(["validate", "scalesim", "--cases", str(path)]) == 1
    assert main(["validate", "nvdla", "--cases", str(path)]) == 2


@pytest.mark.parametrize(
    "text",
    ["", "case,kind\na,gemm\n", "case,kind,M,K,N,rows,cols,dataflow\na,gemm,1,1,x,8,8,ws\n",
     "case,kind,M,K,N,rows,cols,dataflow\na,gemm,1,1,1,8,8,xs\n", "case,kind,M,K,N,rows,cols,dataflow\na,gemm,1,1\n",
     "case,kind,M,K,N,rows,cols,dataflow\na,gemm,0,1,1,8,8,ws\n", "case,kind,rows,cols,dataflow\na,conv,8,8,ws\n"],
)  # fmt: skip
def test_faulty_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    path = tmp_path / "faulty.csv"
    path.write_text(text)
    assert main(["validate", "--cases", str(path)]) == 2
    assert str(path) in capsys.readouterr().err


def test_missing_cases(tmp_path: Path) -> None:
    assert main(["validate", "--cases", str(tmp_path / "none.csv")]) == 2


def test_unknown_suites_are_all_named() -> None:
    with pytest.raises(AccelsimError) as caught:
        suites(["nvdla", "x", "y"])
    assert len(caught.value.problems) == 2
