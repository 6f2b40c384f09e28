import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from codesign.pareto import front_mask, knee, pareto_front


def tables(columns):
    # Few distinct values, so that ties and equal rows are common.
    values = st.sampled_from([0.0, 1.0, 2.0, 3.5, 7.0, np.inf])
    return st.integers(0, 30).flatmap(lambda rows: arrays(np.float64, (rows, columns), elements=values))


def dominated(one, other):
    return np.all(other <= one) and np.any(other < one)


@given(st.integers(1, 4).flatmap(tables))
def test_front_is_what_no_row_dominates(points):
    expected = [not any(dominated(one, other) for other in points) for one in points]
    assert pareto_front(points).tolist() == expected


@settings(max_examples=300)
@given(
    st.integers(2, 3).flatmap(
        lambda columns: arrays(np.int64, st.tuples(st.integers(0, 60), st.just(columns)), elements=st.integers(0, 9))
    )
)
def test_front_of_two_and_three_objectives_is_what_no_row_dominates(points):
    points = points.astype(np.float64)
    expected = [not any(dominated(one, other) for other in points) for one in points]
    assert pareto_front(points).tolist() == expected


def test_front_of_many_rows_is_found_in_no_time():
    # On a sphere no row dominates another: the front is everything, the worst case of row against row.
    points = np.random.default_rng(0).random((20_000, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    start = time.process_time()
    assert pareto_front(points).all()
    assert time.process_time() - start < 5.0


def test_ties_stay_and_order_is_kept():
    points = np.array([[3.0, 1.0], [1.0, 3.0], [1.0, 3.0], [1.0, 4.0], [2.0, 2.0], [3.0, 3.0]])
    assert pareto_front(points).tolist() == [True, True, True, False, True, False]


@pytest.mark.parametrize("points", [np.zeros(3), np.zeros((2, 0)), np.array([[1.0, np.nan]])])
def test_front_refuses_what_is_no_table(points):
    with pytest.raises(ValueError, match=r"table|NaN"):
        pareto_front(points)


def test_knee_of_a_bent_front():
    assert knee(np.array([[0.0, 10.0], [1.0, 2.0], [5.0, 1.0], [10.0, 0.0]])) == 1


def test_knee_does_not_depend_on_units():
    front = np.array([[0.0, 10.0], [1.0, 6.0], [3.0, 1.0], [10.0, 0.0]])
    assert knee(front) == knee(front * [1e-9, 1e12]) == 2


@pytest.mark.parametrize("front", [[[4.0, 2.0]], [[1.0, 1.0], [1.0, 1.0]], [[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]]])
def test_knee_of_a_front_without_bend_is_its_first_row(front):
    assert knee(np.array(front)) == 0


def test_knee_needs_a_row():
    with pytest.raises(ValueError, match="at least one row"):
        knee(np.zeros((0, 2)))


def test_front_mask_keeps_workloads_apart_and_ignores_rows_without_numbers():
    rows = [
        {"model": "a", "resolution": 1, "latency_s": 1.0, "energy_pj": 1.0},
        {"model": "a", "resolution": 1, "latency_s": 2.0, "energy_pj": 2.0},
        {"model": "b", "resolution": 1, "latency_s": 5.0, "energy_pj": 5.0},
        {"model": "a", "resolution": 2, "latency_s": 5.0, "energy_pj": 5.0},
        {"model": "a", "resolution": 1, "latency_s": None, "energy_pj": None},
    ]
    assert front_mask(rows) == [True, False, True, True, False]


def test_best_edp_says_whether_the_winner_flips():
    from codesign.pareto import best_edp_lines

    def row(point, edp, edp_synthesized, model="m"):
        return {
            "point": point, "arch": "a", "plan": "p", "model": model, "resolution": 8, "latency_s": 1e-3,
            "edp_pj_s": edp, "edp_pj_s_synthesized": edp_synthesized,
        }  # fmt: skip

    same = best_edp_lines([row(0, 1.0, 2.0), row(1, 3.0, 4.0)])
    assert len(same) == 1
    assert "design 0" in same[0]
    assert "flips" not in same[0]
    (flipped,) = best_edp_lines([row(0, 1.0, 5.0), row(1, 3.0, 4.0)])
    assert "the winner flips" in flipped
    assert "design 0" in flipped
    assert "design 1" in flipped
    assert len(best_edp_lines([row(0, 1.0, 5.0), row(1, 3.0, 4.0, "other"), {"edp_pj_s": None}])) == 2
