"""Paired comparisons of models on the same images: exact tests, intervals, non-inferiority, rank correlation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, lgamma, log, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.problems import AccelsimError, Problem

Float64 = NDArray[np.float64]

MARGIN = 0.005  # "equal accuracy" allows a loss of half a point
_DRAWN_AT_ONCE = 1 << 20  # random numbers of one pass of a bootstrap


@dataclass(frozen=True)
class PairedResult:
    """Candidate against reference on the same images; proportions between 0 and 1, difference = candidate − reference.

    `interval` is Newcombe's at 95 %, `p_value` the exact McNemar test's, `loss_bound` the one-sided 95 % upper bound of
    reference − candidate; `non_inferior` says whether that bound is at most `margin`.
    """

    images: int
    reference: float
    candidate: float
    only_reference: int
    only_candidate: int
    difference: float
    interval: tuple[float, float]
    p_value: float
    loss_bound: float
    margin: float
    non_inferior: bool


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval."""

    estimate: float
    low: float
    high: float


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided p of the exact McNemar test, from the counts that only a and only b classify correctly.

    p = min(1, 2 · Σ_{i ≤ min} C(n, i) / 2^n) with n = only_a + only_b; 1 when nothing differs.  Summed in logarithms,
    so any n works.  Source: McNemar 1947 with the binomial instead of the χ² distribution.
    """
    if min(only_a, only_b) < 0:
        raise AccelsimError(Problem("mcnemar", f"counts {only_a} and {only_b}", "counts ≥ 0"))
    n, fewer = only_a + only_b, min(only_a, only_b)
    if 2 * fewer == n:
        return 1.0
    largest = _log_choose(n, fewer)  # the terms grow up to the middle
    total = sum(exp(_log_choose(n, i) - largest) for i in range(fewer + 1))
    return min(1.0, exp(largest + log(total) - (n - 1) * log(2)))


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion.  Source: Wilson 1927."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    p = successes / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def newcombe(both: int, only_a: int, only_b: int, neither: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of the difference p_a − p_b of paired proportions, from the four counts.

    (p − l), (u − p) of both Wilson intervals are squared and added with the correlation φ; a positive φ is computed
    from max(both · neither − only_a · only_b − n / 2, 0).  Source: Newcombe 1998 (Statistics in Medicine 17, 2635),
    method 10.
    """
    n = both + only_a + only_b + neither
    if n <= 0 or min(both, only_a, only_b, neither) < 0:
        raise AccelsimError(Problem("newcombe", "empty or negative table", "four counts ≥ 0 with a positive sum"))
    a, b = both + only_a, both + only_b
    cross = float(both * neither - only_a * only_b)
    if cross > 0:
        cross = max(cross - n / 2, 0.0)
    margins = a * (n - a) * b * (n - b)
    phi = cross / sqrt(margins) if margins else 0.0
    (low_a, high_a), (low_b, high_b) = wilson(a, n, level), wilson(b, n, level)

    def added(left: float, right: float) -> float:
        return sqrt(max(left * left - 2 * phi * left * right + right * right, 0.0))

    difference = (a - b) / n
    return difference - added(a / n - low_a, high_b - b / n), difference + added(high_a - a / n, b / n - low_b)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: running maximum of (m − rank) · p over ascending p, at most 1.

    Source: Holm 1979.
    """
    order = np.argsort(np.asarray(p_values, np.float64), kind="stable")
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * float(p_values[index])))
        adjusted[index] = running
    return adjusted


def compare(correct_reference: ArrayLike, correct_candidate: ArrayLike, margin: float = MARGIN) -> PairedResult:
    """All paired statistics of two vectors of 0/1 or bool, one entry per image (the same images in the same order).

    The loss bound is the end of Newcombe's two-sided 90 % interval, a one-sided 95 % bound.
    """
    a, b = _paired(np.asarray(correct_reference), np.asarray(correct_candidate))
    if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise AccelsimError(Problem("compare", "entries other than 0 and 1", "correct (1) or wrong (0) per image"))
    n, both = len(a), int((a * b).sum())
    only_a, only_b = int(a.sum()) - both, int(b.sum()) - both
    neither = n - both - only_a - only_b
    bound = newcombe(both, only_a, only_b, neither, 0.90)[1]
    return PairedResult(
        images=n,
        reference=(both + only_a) / n,
        candidate=(both + only_b) / n,
        only_reference=only_a,
        only_candidate=only_b,
        difference=(only_b - only_a) / n,
        interval=newcombe(both, only_b, only_a, neither),
        p_value=mcnemar(only_a, only_b),
        loss_bound=bound,
        margin=margin,
        non_inferior=bound <= margin,
    )


def non_inferior(correct_a: ArrayLike, correct_b: ArrayLike, margin: float = MARGIN) -> bool:
    """Whether b is "as accurate as" a: the one-sided 95 % paired upper bound of accuracy(a) − accuracy(b) ≤ margin."""
    return compare(correct_a, correct_b, margin).non_inferior


def _paired(a: NDArray[np.generic], b: NDArray[np.generic]) -> tuple[Float64, Float64]:
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise AccelsimError(Problem("paired data", f"shapes {a.shape} and {b.shape}", "two vectors of one length ≥ 1"))
    return a.astype(np.float64), b.astype(np.float64)


def paired_bootstrap(
    values_a: ArrayLike, values_b: ArrayLike, *, samples: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Mean of b − a over the images with its percentile bootstrap interval; the images are resampled, pairs stay pairs.

    For what is not 0/1, such as the cross-entropy per image.  Source: Efron 1979.
    """
    a, b = _paired(np.asarray(values_a), np.asarray(values_b))
    gain, random = b - a, np.random.default_rng(seed)
    means: list[Float64] = []
    height = max(1, _DRAWN_AT_ONCE // len(gain))
    for start in range(0, samples, height):
        rows = min(height, samples - start)
        means.append(gain[random.integers(0, len(gain), (rows, len(gain)))].mean(axis=1))
    return _percentiles(float(gain.mean()), np.concatenate(means), level)


def _percentiles(estimate: float, values: Float64, level: float) -> Interval:
    low, high = np.quantile(values, ((1 - level) / 2, (1 + level) / 2))
    return Interval(estimate, float(low), float(high))


def kendall(x: ArrayLike, y: ArrayLike, *, samples: int = 2000, level: float = 0.95, seed: int = 0) -> Interval:
    """Kendall's τ-b of two vectors with a percentile bootstrap interval over the pairs.

    τ-b = Σ_{i<j} sgn(x_i − x_j) sgn(y_i − y_j) / √(pairs untied in x · pairs untied in y); nan when one is constant;
    resamples with a constant vector are left out of the interval.  A resample is a vector of multiplicities c, and its
    sums are quadratic forms in c.  Memory n² float64.  Source: Kendall 1945.
    """
    a, b = _paired(np.asarray(x), np.asarray(y))
    sign_a, sign_b = np.sign(a[:, None] - a), np.sign(b[:, None] - b)
    forms = (sign_a * sign_b, sign_a * sign_a, sign_b * sign_b)

    def tau(counts: Float64) -> Float64:
        agree, untied_a, untied_b = (np.einsum("sn,sn->s", counts @ form, counts) for form in forms)
        scale = np.sqrt(untied_a * untied_b)
        result = np.full(len(counts), np.nan)
        np.divide(agree, scale, out=result, where=scale > 0)
        return result

    estimate = float(tau(np.ones((1, len(a))))[0])
    random, taus = np.random.default_rng(seed), []
    height = max(1, _DRAWN_AT_ONCE // len(a))
    for start in range(0, samples, height):
        rows = min(height, samples - start)
        taus.append(tau(random.multinomial(len(a), np.full(len(a), 1 / len(a)), rows).astype(np.float64)))
    drawn = np.concatenate(taus)
    drawn = drawn[~np.isnan(drawn)]
    return _percentiles(estimate, drawn, level) if len(drawn) else Interval(estimate, float("nan"), float("nan"))
