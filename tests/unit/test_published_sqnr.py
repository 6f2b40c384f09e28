"""Level sets against their published counts, and the weight SQNR of every scheme against a table.

Source of the table: m2vit.md section 6.2 of this project's reference notes, measured there on 24 filters of 512
synthetic weights per distribution, clip per filter by least squared error; here 4,096 filters.
"""

from functools import cache
from itertools import product

import numpy as np
import pytest
import torch

from accelsim.formats import Format
from quant.levels import levels, project_to, published_apot_integers, sqnr_db
from quant.observers import weight_scale

COLUMNS = ("u8", "u7", "u6", "u5", "u4", "pot4", "plus", "apot8", "n2k3", "n3k2", "apot12", "n2k2")
SQNR_DB = {
    "gaussian": (42.8, 36.8, 30.8, 24.9, 19.2, 14.5, 24.6, 27.6, 22.9, 29.8, 36.5, 22.7),
    "laplace": (39.1, 33.0, 27.1, 21.3, 15.8, 14.7, 24.8, 27.7, 22.9, 29.9, 36.9, 22.4),
    "uniform": (48.0, 42.1, 36.0, 29.9, 23.5, 16.0, 23.6, 24.0, 23.0, 29.5, 29.1, 23.0),
}
TOLERANCE_DB = {"gaussian": 0.5, "laplace": 1.0, "uniform": 0.5}
MAGNITUDES = {"pot4": 8, "apot8": 53, "plus": 38, "n2k3": 64, "n3k2": 64, "apot12": 157, "n2k2": 16}


def additive(n: int, k: int) -> np.ndarray:
    """Magnitudes Σ_i p_i, p_i in {0, 2^−i, 2^−(i+n) … 2^−(i+(2^k−2)n)} of Li et al. 2020, as integers."""
    smallest = n - 1 + (2**k - 2) * n
    terms = [[0] + [1 << (smallest - i - j * n) for j in range(2**k - 1)] for i in range(n)]
    return np.array(sorted({sum(choice) for choice in product(*terms)}))


@cache
def level_set(name: str) -> np.ndarray:
    if name in ("n2k3", "n3k2", "n2k2"):
        magnitudes = additive(int(name[1]), int(name[3]))
    elif name == "plus":  # encoding B: two terms, addition only, each may be zero
        powers = [0] + [1 << exponent for exponent in range(8)]
        magnitudes = np.array(sorted({a + b for a, b in product(powers, powers)}))
    else:
        return levels(Format.parse(name))
    return np.unique(np.concatenate([-magnitudes, magnitudes]))


@pytest.mark.parametrize(("name", "count"), sorted(MAGNITUDES.items()))
def test_number_of_magnitudes(name: str, count: int) -> None:
    assert len(np.unique(np.abs(level_set(name)))) == count


def test_published_sets_of_4_and_6_bits_are_the_additive_sets_of_the_paper() -> None:
    assert (published_apot_integers(4) == additive(2, 2)).all()
    assert (published_apot_integers(6) == additive(3, 2)).all()


def filters(distribution: str) -> np.ndarray:
    rng, shape = np.random.default_rng(2024), (4096, 512)
    if distribution == "gaussian":
        return rng.normal(size=shape)
    return rng.laplace(size=shape) if distribution == "laplace" else rng.uniform(-1, 1, size=shape)


@pytest.mark.parametrize("distribution", sorted(SQNR_DB))
def test_sqnr_table(distribution: str) -> None:
    weights = filters(distribution)
    measured = []
    for name in COLUMNS:
        scale, integers = project_to(weights, level_set(name))
        measured.append(sqnr_db(weights, scale[:, None] * integers))
    expected = SQNR_DB[distribution]
    assert measured == pytest.approx(expected, abs=TOLERANCE_DB[distribution]), dict(
        zip(COLUMNS, measured, strict=True)
    )


def test_least_error_picks_no_two_term_filter_and_about_half_of_the_three_term_ones() -> None:
    """With the wide scale search of `weight_scale`: two terms never beat u8 (as in the notes), three terms often do."""
    weights = torch.from_numpy(np.random.default_rng(7).normal(size=(400, 64)))
    error = {}
    for name in ("u8", "u6", "u5", "apot8", "apot12"):
        scale, integers = weight_scale(weights, Format.parse(name))
        error[name] = ((scale[:, None] * integers - weights) ** 2).sum(1)
    assert int((error["apot8"] < error["u8"]).sum()) == 0
    assert 0.4 < float((error["apot12"] < error["u8"]).double().mean()) < 0.7
    assert float((error["apot8"] < error["u5"]).double().mean()) > 0.99
    assert 0.05 < float((error["apot8"] < error["u6"]).double().mean()) < 0.3
