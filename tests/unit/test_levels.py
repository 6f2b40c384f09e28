"""Level sets, codes and nearest-level projection; its quality against numbers is in test_published_sqnr.py."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.formats import Format
from accelsim.problems import AccelsimError
from quant.levels import (
    decode,
    encode,
    levels,
    nearest,
    pack,
    project,
    published_apot_levels,
    sqnr_db,
    unpack,
)

NAMES = ("u2", "u4", "u6", "u8", "pot3", "pot4", "apot8", "apot12")


def fmt(name: str) -> Format:
    return Format.parse(name)


@pytest.mark.parametrize(
    ("name", "magnitudes"), [("apot8", 53), ("apot12", 157), ("pot4", 8), ("pot3", 4), ("u8", 128)]
)
def test_number_of_magnitudes(name: str, magnitudes: int) -> None:
    assert len({abs(int(v)) for v in levels(fmt(name))}) == magnitudes


@pytest.mark.parametrize("name", NAMES)
def test_levels_are_symmetric_sorted_and_within_the_value_bits(name: str) -> None:
    values = levels(fmt(name))
    assert (np.diff(values) > 0).all()
    assert (values == -values[::-1]).all()
    assert int(values[-1]) < 1 << (fmt(name).value_bits - 1)
    assert int(values[-1]) <= fmt(name).max_magnitude


@pytest.mark.parametrize("name", NAMES)
def test_every_level_survives_encoding_and_storage(name: str) -> None:
    values = levels(fmt(name))
    codes = encode(values, fmt(name))
    words = pack(codes, fmt(name))
    assert (decode(codes, fmt(name)) == values).all()
    assert words.min() >= 0
    assert words.max() < 1 << fmt(name).bits
    assert (decode(unpack(words, fmt(name)), fmt(name)) == values).all()


def test_two_term_zero_is_a_cancellation_and_single_term_zero_is_a_code() -> None:
    assert (np.abs(encode(np.array([0]), fmt("apot8"))[0, :, 0]) == 1).all()
    assert encode(np.array([0]), fmt("pot4"))[0, 0, 0] == 0
    assert pack(encode(np.array([0]), fmt("pot4")), fmt("pot4"))[0] == 7


def test_values_that_are_no_level_are_rejected() -> None:
    with pytest.raises(AccelsimError, match="11 is not a level of apot8"):
        encode(np.array([1, 11]), fmt("apot8"))
    with pytest.raises(AccelsimError, match="no published set of 8"):
        published_apot_levels(8)


def test_published_sets() -> None:
    """Released code of Li et al. 2020, magnitudes normalised to 1 (3 and 4 bits in full, 6 bits by count)."""
    assert published_apot_levels(3) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1])
    four = [0, 0.0208, 0.0417, 0.0625, 0.0833, 0.125, 0.1667, 0.1875, 0.25, 0.3333, 0.375, 0.5, 0.6667, 0.6875, 0.75, 1]
    assert published_apot_levels(4) == pytest.approx(four, abs=5e-5)
    assert len(published_apot_levels(6)) == 64


@given(st.lists(st.floats(-300, 300), min_size=1, max_size=20), st.sampled_from(NAMES))
@settings(max_examples=60, deadline=None)
def test_nearest_is_nearest(values: list[float], name: str) -> None:
    members = levels(fmt(name))
    array = np.array(values)
    chosen = members[nearest(array, members)]
    assert (np.abs(chosen - array) == np.abs(members[None] - array[:, None]).min(axis=1)).all()


def test_project_beats_every_other_clip_fraction_and_handles_zero_filters() -> None:
    weights = np.random.default_rng(3).laplace(size=(5, 64))
    weights[2] = 0
    scale, integers = project(weights, fmt("apot8"))
    assert scale[2] == 1
    assert (integers[2] == 0).all()
    members = levels(fmt("apot8"))
    error = ((scale[:, None] * integers - weights) ** 2).sum(axis=1)
    for fraction in (1.05, 0.99, 0.75, 0.51, 0.07):
        step = np.abs(weights).max(axis=1, keepdims=True) * fraction / 256
        step[2] = 1
        other = ((members[nearest(weights / step, members)] * step - weights) ** 2).sum(axis=1)
        assert (error <= other + 1e-12).all()


def test_sqnr_of_known_noise() -> None:
    reference = np.full(10, 2.0)
    assert sqnr_db(reference, reference * 0.9) == pytest.approx(20.0)
    assert sqnr_db(reference, reference) == float("inf")
