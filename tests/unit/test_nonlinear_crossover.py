"""Which softmax is better at which input scale, and that docs/nonlinear.md holds what the benchmark prints."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "nonlinear.md"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module("nonlinear_crossover")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def softmax(benchmark):
    return benchmark.in_bands(benchmark.softmaxes)


def lines_of(title: str) -> dict[str, list[float]]:
    """Numbers of a table of the page, by the first cell of the line."""
    after = PAGE.read_text(encoding="utf-8").split(title)[1]
    block = re.search(r"(\|.*\n)+", after)
    assert block is not None
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block[0].splitlines()[2:]]
    return {row[0]: [float(cell.removesuffix(" %")) for cell in row[1:]] for row in rows}


def test_coarse_scales_are_for_shiftmax_and_fine_ones_for_i_softmax(benchmark, softmax):
    names = benchmark.SHIFTMAX, benchmark.I_SOFTMAX
    by_shifts, by_polynomial = (benchmark.medians(softmax)[name] for name in names)
    assert benchmark.SCALES[1] == 0.2
    assert by_shifts[0] > by_polynomial[0]
    assert by_shifts[1] > by_polynomial[1]
    for coarse, fine in zip(by_shifts[5:], by_polynomial[5:], strict=True):
        assert fine > coarse + 8
    shares = benchmark.wins(softmax)
    assert min(shares[:3]) > 0.45
    assert shares[5:] == [0.0] * 5
    assert sorted(shares[1:], reverse=True) == shares[1:]


def test_the_reversal_at_two_scales(benchmark):
    coarse, fine = benchmark.softmaxes(0.2), benchmark.softmaxes(1e-3)
    assert coarse[benchmark.SHIFTMAX] > coarse[benchmark.I_SOFTMAX] + 8
    assert fine[benchmark.I_SOFTMAX] > fine[benchmark.SHIFTMAX] + 20


def test_the_page_holds_the_softmax_table(benchmark, softmax):
    page = lines_of("Softmax: SQNR")
    assert list(page) == [f"{scale:.2g}" for scale in benchmark.SCALES]
    curves = [*benchmark.medians(softmax).values(), [100 * share for share in benchmark.wins(softmax)]]
    for k, row in enumerate(page.values()):
        assert row == pytest.approx([curve[k] for curve in curves], abs=0.6)


def test_the_page_holds_the_gelu_table(benchmark):
    page = lines_of("GELU: SQNR")
    found = benchmark.medians(benchmark.in_bands(benchmark.gelus, benchmark.SCALES[2:3]))
    assert page["0.1"] == pytest.approx([curve[0] for curve in found.values()], abs=0.11)


@pytest.mark.parametrize("outlier", [1.0, 20.0])
def test_the_page_holds_the_layernorm_tables(benchmark, outlier):
    title = "LayerNorm, channels alike" if outlier == 1 else "LayerNorm, one channel 20"
    for bits in (8, 16):
        row = list(benchmark.layernorms(bits, outlier).values())
        assert lines_of(title)[str(bits)] == pytest.approx(row, abs=0.11)


def test_the_picture_is_small(benchmark):
    assert 0 < (ROOT / "docs" / "images" / "nonlinear_crossover.png").stat().st_size < benchmark.MOST_BYTES
