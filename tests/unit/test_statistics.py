"""Paired statistics against published examples, scipy, exact integer sums and simulation."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.problems import AccelsimError
from quant.statistics import compare, holm, kendall, mcnemar, newcombe, non_inferior, paired_bootstrap, wilson


# Sources of the 2×2 tables and results: Bentur et al. 2009 and Cavo et al. 2012 as analysed by Fagerland, Lydersen and
# Laake (BMC Medical Research Methodology 2013, 13:91; Statistical Analysis of Contingency Tables 2017, chapter 8, with
# its package contingencytables); Armitage and Berry 1994, p. 127 (StatsDirect gives 0.0129).
@pytest.mark.parametrize(
    ("only_a", "only_b", "p", "tolerance"), [(1, 7, 0.0703, 5e-5), (6, 16, 0.052479, 5e-7), (12, 2, 0.0129, 5e-5)]
)
def test_mcnemar_published(only_a: int, only_b: int, p: float, tolerance: float) -> None:
    assert mcnemar(only_a, only_b) == pytest.approx(p, abs=tolerance)
    assert mcnemar(only_b, only_a) == mcnemar(only_a, only_b)


@given(st.integers(0, 400), st.integers(0, 400))
@settings(max_examples=50)
def test_mcnemar_equals_integer_sums(a: int, b: int) -> None:
    exact = min(Fraction(1), Fraction(2 * sum(comb(a + b, i) for i in range(min(a, b) + 1)), 1 << (a + b)))
    assert mcnemar(a, b) == pytest.approx(float(exact), rel=1e-10)


@pytest.mark.parametrize(("a", "b"), [(9_900, 10_100), (9_000, 11_000), (0, 20_000), (300, 20_000)])
def test_mcnemar_of_many_images_equals_scipy(a: int, b: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(a, a + b, 0.5).pvalue
    assert mcnemar(a, b) == pytest.approx(expected, rel=1e-8, abs=1e-300)


# Counts (both, only a, only b, neither) and the interval; the last is the package's own test.
@pytest.mark.parametrize(
    ("counts", "low", "high", "digits"),
    [((1, 1, 7, 12), -0.507, -0.026, 3), ((59, 6, 16, 80), -0.1186, -0.0046, 4), ((1, 0, 0, 1), -0.5734, 0.5734, 4)],
)
def test_newcombe_published(counts: tuple[int, int, int, int], low: float, high: float, digits: int) -> None:
    assert tuple(round(end, digits) for end in newcombe(*counts)) == (low, high)


def test_newcombe_with_negative_correlation_equals_its_formula() -> None:
    both, only_a, only_b, neither = 10, 20, 30, 15
    n, phi = 75, (150 - 600) / (30 * 45 * 40 * 35) ** 0.5
    (l1, u1), (l2, u2) = wilson(30, n), wilson(40, n)
    p1, p2 = 30 / n, 40 / n
    low = p1 - p2 - ((p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2) ** 0.5
    high = p1 - p2 + ((u1 - p1) ** 2 - 2 * phi * (u1 - p1) * (p2 - l2) + (p2 - l2) ** 2) ** 0.5
    assert newcombe(both, only_a, only_b, neither) == pytest.approx((low, high))


def test_wilson_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for successes, n in ((0, 10), (3, 10), (10, 10), (19_000, 20_000)):
        expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
        assert wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.tuples(*[st.integers(0, 60)] * 4).filter(lambda counts: sum(counts) > 0), st.floats(0.5, 0.99))
@settings(max_examples=200)
def test_newcombe_is_antisymmetric_bounded_and_contains_the_difference(counts: tuple, level: float) -> None:
    both, only_a, only_b, neither = counts
    low, high = newcombe(both, only_a, only_b, neither, level)
    assert newcombe(both, only_b, only_a, neither, level) == pytest.approx((-high, -low))
    assert -1 - 1e-12 <= low <= (only_a - only_b) / sum(counts) <= high <= 1 + 1e-12


def test_newcombe_covers() -> None:
    """Two models that agree often: the 95 % interval holds the true difference in 93 to 97 % of 3,000 test sets."""
    random = np.random.default_rng(5)
    cells = np.array([0.88, 0.03, 0.02, 0.07])  # both, only a, only b, neither
    tables = random.multinomial(1000, cells, 3000)
    held = sum(low <= 0.01 <= high for low, high in (newcombe(*map(int, table)) for table in tables))
    assert 0.93 <= held / 3000 <= 0.97


def test_holm_example_and_order() -> None:
    """The four p-values of Wikipedia's Holm example: at 5 % the first and the fourth are rejected."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def vectors(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = [both, only_a, only_b, neither]
    return np.repeat([1, 1, 0, 0], counts), np.repeat([1, 0, 1, 0], counts)


def test_compare_reports_every_figure() -> None:
    result = compare(*vectors(59, 6, 16, 80))
    assert (result.images, result.only_reference, result.only_candidate) == (161, 6, 16)
    assert result.difference == pytest.approx(10 / 161)
    assert (round(result.interval[0], 4), round(result.interval[1], 4)) == (0.0046, 0.1186)
    assert result.p_value == pytest.approx(0.052479, abs=5e-7)
    assert result.loss_bound == pytest.approx(newcombe(59, 6, 16, 80, 0.9)[1])


def test_non_inferior_needs_evidence_and_has_a_direction() -> None:
    """Equal accuracy on 200 images proves nothing; on 20,000 it does; a loss of one point does not pass."""
    assert not non_inferior(*vectors(180, 3, 3, 14))
    assert non_inferior(*vectors(18_000, 100, 100, 1_800))
    worse = vectors(18_000, 300, 100, 1_600)
    assert not non_inferior(*worse)
    assert non_inferior(worse[1], worse[0])
    assert non_inferior(*worse, margin=0.02)


def test_bad_input_is_named() -> None:
    with pytest.raises(AccelsimError, match="one length"):
        compare([1, 0], [1])
    with pytest.raises(AccelsimError, match="other than 0 and 1"):
        compare([0.5], [1])
    with pytest.raises(AccelsimError, match="counts"):
        mcnemar(-1, 2)
    with pytest.raises(AccelsimError, match="table"):
        newcombe(0, 0, 0, 0)


def test_bootstrap_matches_the_normal_interval_and_repeats() -> None:
    random = np.random.default_rng(0)
    a = random.normal(size=3000)
    b = a + random.normal(0.1, 0.5, size=3000)
    result = paired_bootstrap(a, b)
    half = 1.96 * (b - a).std() / 3000**0.5
    assert result.estimate == pytest.approx((b - a).mean())
    assert result.low == pytest.approx(result.estimate - half, abs=half * 0.1)
    assert result.high == pytest.approx(result.estimate + half, abs=half * 0.1)
    assert result == paired_bootstrap(a, b)
    assert result != paired_bootstrap(a, b, seed=1)


def test_kendall_equals_scipy_with_ties() -> None:
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(1)
    for _ in range(20):
        x, y = random.integers(0, 6, 25), random.integers(0, 9, 25)
        assert kendall(x, y, samples=1).estimate == pytest.approx(stats.kendalltau(x, y).statistic)


def test_kendall_interval_is_that_of_explicit_resamples() -> None:
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(2)
    x = random.normal(size=40)
    y = x + random.normal(size=40)
    result = kendall(x, y, samples=4000)
    picks = random.integers(0, 40, (4000, 40))
    taus = [stats.kendalltau(x[pick], y[pick]).statistic for pick in picks[:1000]]
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(taus, (0.025, 0.975))), abs=0.04)
    assert kendall([1, 2, 3], [3, 2, 1]).estimate == -1
    assert np.isnan(kendall([1, 1, 1], [3, 2, 1]).estimate)
