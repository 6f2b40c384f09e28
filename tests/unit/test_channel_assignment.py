import itertools

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from accelsim.problems import AccelsimError
from codesign.allocate.assign import assign_channels, total_by_count


def drawn(seed, channels, formats):
    rng = np.random.default_rng(seed)
    # Small integers, so that ties are common, or reals.
    penalties = (
        rng.integers(0, 4, (channels, formats)).astype(float) if seed % 2 else rng.normal(size=(channels, formats))
    )
    counts = np.bincount(rng.integers(formats, size=channels), minlength=formats)
    return penalties, counts


def total(penalties, result):
    return penalties[np.arange(len(result)), result].sum()


@pytest.mark.parametrize("seed", range(60))
def test_assignment_is_the_best_of_all(seed):
    formats = 2 + seed % 3
    penalties, counts = drawn(seed, 6, formats)
    best = min(
        total(penalties, np.array(result))
        for result in itertools.product(range(formats), repeat=6)
        if (np.bincount(result, minlength=formats) == counts).all()
    )
    result = assign_channels(penalties, counts)
    assert np.bincount(result, minlength=formats).tolist() == counts.tolist()
    assert total(penalties, result) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_many_channels_agree_with_the_hungarian_method(seed):
    penalties, counts = drawn(seed, 300, 3 + seed % 4)
    columns = np.repeat(np.arange(len(counts)), counts)
    rows, chosen = linear_sum_assignment(penalties[:, columns])
    assert total(penalties, assign_channels(penalties, counts)) == pytest.approx(penalties[rows, columns[chosen]].sum())


def test_two_formats_go_by_difference_and_then_by_number():
    penalties = np.array([[0.0, 1.0], [5.0, 5.5], [0.0, 1.0], [2.0, 2.5], [0.0, 1.0]])
    assert assign_channels(penalties, np.array([2, 3])).tolist() == [1, 1, 0, 1, 0]
    assert assign_channels(penalties, np.array([5, 0])).tolist() == [0] * 5


@pytest.mark.parametrize("seed", range(4))
def test_totals_of_all_counts_are_those_of_the_assignments(seed):
    penalties, _ = drawn(seed, 9, 2)
    totals = total_by_count(penalties[:, 0], penalties[:, 1])
    assert len(totals) == 10
    for count, expected in enumerate(totals):
        assert total(penalties, assign_channels(penalties, np.array([9 - count, count]))) == pytest.approx(expected)


def test_faults_are_told():
    penalties = np.zeros((3, 2))
    for counts in ([1, 1], [4, -1], [1, 1, 1]):
        with pytest.raises(AccelsimError, match="add up to 3"):
            assign_channels(penalties, np.array(counts))
    penalties[1, 1] = np.nan
    with pytest.raises(AccelsimError, match="not finite"):
        assign_channels(penalties, np.array([1, 2]))
