"""OPT-m: the ratio 2^m of a two-region format and its step, from data, by least squared error.

MPTQ-ViT (Tai and Wu 2024, arXiv 2401.14895) computes the ratio from data; its formulas are not public, so what is
minimised here, Σ w (x − x̂)², and both searches are interpretations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from accelsim.formats import MAX_REGION_SHIFT, TWO_REGION_BITS, Format, two_region
from accelsim.problems import AccelsimError, Problem
from quant.collect import Statistics
from quant.regions.codes import region_levels, region_range, threshold

Float64 = NDArray[np.float64]

SEARCHES = ("exact", "closed_form")
SHIFTS = range(9)
# Steps to try, in those with which the largest value is just representable: 1 and all fractions of the observer `mse`
# are among them, so a uniform format of the same levels cannot do better.
FACTORS = np.arange(1, 121) / 100


@dataclass(frozen=True)
class Choice:
    """Step of the fine region, shift m to the coarse one, and Σ w (x − x̂)² of the sample with them."""

    step: float
    region_shift: int
    error: float


def sample_of(statistics: Statistics, name: str, group: int = 0) -> tuple[Tensor, Tensor | None]:
    """Values of a scale group [n] and the weights of their errors [n], None where no slopes were gathered.

    A sample with slopes is of the whole tensor, for any group.
    """
    seen = statistics.slopes.get(name)
    if seen is not None:
        return seen.values, seen.weights
    return statistics.groups[name][group].values.flatten(), None


def choose(
    values: Tensor,
    bits: int,
    low_negative: bool,
    weights: Tensor | None = None,
    search: str = "exact",
    shifts: Iterable[int] = SHIFTS,
    fixed: int | None = None,
) -> Choice:
    """The shift and the step of least error for values [n]; `fixed` is a shift set by hand, of which only the step
    is sought.

    For every shift the steps are `FACTORS` times the one whose highest level is the largest value (or magnitude, with
    `low_negative`, if that is larger).  "exact" compares Σ w (x − x̂)² itself, "closed_form" `surrogate_errors`;
    `Choice.error` is exact in both.  Steps are whole float32 numbers.  Of equals the lowest shift and step win; values
    without a positive range get step 1.  Raises AccelsimError for a width or shift that no format has, an unknown
    search, and values or weights that are not finite, of different lengths, or (weights) negative.
    """
    if search not in SEARCHES:
        raise AccelsimError(Problem("search", f"found {search!r}", f"one of {', '.join(SEARCHES)}"))
    tried = tuple(shifts) if fixed is None else (fixed,)
    _check(values, weights, bits, tried)
    sample = Sample(values, weights)
    errors_of = exact_errors if search == "exact" else surrogate_errors
    best, chosen = np.inf, (1.0, min(tried))
    for shift in sorted(tried):
        fmt = two_region(bits, shift, low_negative)
        steps = _steps(sample, fmt)
        errors = errors_of(sample, steps, fmt)
        if len(steps) and errors.min() < best:
            best, chosen = float(errors.min()), (float(steps[errors.argmin()]), shift)
    step, shift = chosen
    return Choice(step, shift, float(exact_errors(sample, np.array([step]), two_region(bits, shift, low_negative))[0]))


def _check(values: Tensor, weights: Tensor | None, bits: int, shifts: tuple[int, ...]) -> None:
    problems = []
    if bits not in TWO_REGION_BITS:
        expected = f"{TWO_REGION_BITS.start} to {TWO_REGION_BITS.stop - 1}"
        problems.append(Problem("two-region format", f"{bits} bits", expected))
    if not shifts or min(shifts) < 0 or max(shifts) > MAX_REGION_SHIFT:
        problems.append(Problem("two-region format", f"shifts {list(shifts)}", f"shifts from 0 to {MAX_REGION_SHIFT}"))
    if not values.numel() or not bool(values.isfinite().all()):
        problems.append(Problem("OPT-m", "no values, or some not finite", "at least one, all finite"))
    if weights is not None and (weights.shape != values.shape or not bool((weights.isfinite() & (weights >= 0)).all())):
        problems.append(Problem("OPT-m", "weights of another shape, negative or not finite", "one ≥ 0 for each value"))
    if problems:
        raise AccelsimError(problems)


class Sample:
    """Sorted values, and sums of w, w·x and w·x² up to each place: a sum over an interval costs two look-ups."""

    def __init__(self, values: Tensor, weights: Tensor | None = None) -> None:
        x = values.detach().cpu().double().numpy().reshape(-1)
        w = np.ones(len(x)) if weights is None else weights.detach().cpu().double().numpy().reshape(-1)
        order = np.argsort(x, kind="stable")
        self.x, w = x[order], w[order]
        self._sums = np.zeros((3, len(x) + 1))
        np.cumsum(np.stack([w, w * self.x, w * self.x**2]), axis=1, out=self._sums[:, 1:])

    def place(self, ends: Float64) -> NDArray[np.int64]:
        """How many values are at most each of `ends`."""
        return np.asarray(np.searchsorted(self.x, ends, side="right"), np.int64)

    def square_to(self, first: NDArray[np.int64], last: NDArray[np.int64], point: Float64) -> Float64:
        """Σ w (x − point)² of the values from place `first` up to `last`; arrays of one shape."""
        mass, moment, square = self._sums[:, last] - self._sums[:, first]
        return np.asarray(np.maximum(square - 2 * point * moment + point**2 * mass, 0.0))

    def mass(self, first: NDArray[np.int64], last: NDArray[np.int64]) -> Float64:
        """Σ w of the values from place `first` up to `last`."""
        return np.asarray(self._sums[0, last] - self._sums[0, first])


def _steps(sample: Sample, fmt: Format) -> Float64:
    """Candidates of the fine step for a format, as float32 holds them; none without a range."""
    span = max(sample.x[-1], -sample.x[0] if fmt.low_negative else 0.0)
    steps: Float64 = (FACTORS * (span / region_range(fmt)[1])).astype(np.float32).astype(np.float64)
    return steps if steps[0] >= np.finfo(np.float32).tiny else steps[:0]


def exact_errors(sample: Sample, steps: Float64, fmt: Format) -> Float64:
    """Σ w (x − x̂)² for each of `steps`, by one interval of the sorted values per level."""
    levels = region_levels(fmt).astype(np.float64)
    inner = sample.place((levels[1:] + levels[:-1]) / 2 * steps[:, None])
    count = np.full((len(steps), 1), len(sample.x))
    first, last = np.hstack([np.zeros_like(count), inner]), np.hstack([inner, count])
    errors: Float64 = sample.square_to(first, last, levels * steps[:, None]).sum(axis=1)
    return errors


def surrogate_errors(sample: Sample, steps: Float64, fmt: Format) -> Float64:
    """Closed form E ≈ P1 Δ1²/12 + P2 Δ2²/12 + clipping + what becomes zero, for each of `steps` in O(log n).

    P1 and P2 are the masses (Σ w) in the fine and the coarse region without the cell of zero, Δ2 = 2^m Δ1; inside a
    region the error is taken as uniform.  What is clipped or rounded to zero costs its exact error: near zero, where
    both kinds of tensors are dense, it is not uniform at all.
    """
    low, high = (end * steps for end in region_range(fmt))
    coarse = steps * (1 << fmt.region_shift)
    if fmt.low_negative:
        left, right, between = -steps / 2, coarse / 2, coarse / 2
    else:
        left, right, between = low, steps / 2, np.minimum(threshold(fmt) * steps, high)
    low_at, left_at, right_at, between_at, high_at = map(sample.place, (low, left, right, between, high))
    fine_mass = sample.mass(low_at, left_at) + sample.mass(right_at, between_at)
    inside = (fine_mass * steps**2 + sample.mass(between_at, high_at) * coarse**2) / 12
    first, last = np.zeros_like(low_at), np.full_like(low_at, len(sample.x))
    clipped = sample.square_to(first, low_at, low) + sample.square_to(high_at, last, high)
    zero = sample.square_to(left_at, right_at, np.zeros_like(steps))
    return np.asarray(inside + clipped + zero, np.float64)
