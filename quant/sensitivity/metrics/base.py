"""What a metric is, and the registry of metrics."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from accelsim.problems import AccelsimError, Problem
from quant.sensitivity.case import Case

CALIBRATION, VALIDATION = "calibration", "validation"
Float64 = NDArray[np.float64]
MOST_DB = 300.0


def mean(means: Float64) -> Float64:
    """The first of the means: for metrics with one number per image."""
    return np.asarray(means[..., 0])


def magnitude(means: Float64) -> Float64:
    """Its absolute value."""
    return np.asarray(np.abs(means[..., 0]), np.float64)


def decibels(means: Float64) -> Float64:
    """10·log10(signal / noise) of the means [.., (signal, noise)], at most 300 dB (no error at all)."""
    signal, noise = np.maximum(means[..., 0], 1e-200), np.maximum(means[..., 1], 1e-200)
    return np.asarray(np.minimum(10 * np.log10(signal / noise), MOST_DB), np.float64)


@dataclass(frozen=True)
class Metric:
    """A metric of one component at one width.

    `rows` gives numbers per image of a batch, [n, parts], or per output channel; `combine` makes the value from their
    means, [.., parts] → [..].  `split` says on which images; `rising` is false when a larger value means less error.
    `stages` are the shared computations it uses ("run", "gradients", "hessian"), whose time and passes it is charged
    with.  `per_channel` metrics also exist for single channels; `interval` ones get a bootstrap interval over the
    images.  A `slow` metric is computed only where it is asked for by name.
    """

    name: str
    rows: Callable[[Case], Tensor]
    combine: Callable[[Float64], Float64] = mean
    split: str = CALIBRATION
    rising: bool = True
    stages: tuple[str, ...] = ()
    per_channel: bool = False
    interval: bool = False
    slow: bool = False

    @property
    def needs_labels(self) -> bool:
        """Whether it looks at the classes of the images."""
        return self.split == VALIDATION or not {"gradients", "hessian"}.isdisjoint(self.stages)


METRICS: dict[str, Metric] = {}


def metric(
    name: str,
    combine: Callable[[Float64], Float64] = mean,
    *,
    split: str = CALIBRATION,
    rising: bool = True,
    stages: tuple[str, ...] = (),
    per_channel: bool = False,
    interval: bool = False,
    slow: bool = False,
) -> Callable[[Callable[[Case], Tensor]], Callable[[Case], Tensor]]:
    """Decorator: offer a function as the metric `name`; the other arguments are the fields of `Metric`."""

    def add(rows: Callable[[Case], Tensor]) -> Callable[[Case], Tensor]:
        METRICS[name] = Metric(name, rows, combine, split, rising, stages, per_channel, interval, slow)
        return rows

    return add


def metric_names() -> tuple[str, ...]:
    """Names of all metrics but the slow ones."""
    return tuple(name for name, one in METRICS.items() if not one.slow)


def metrics_named(names: Iterable[str]) -> tuple[Metric, ...]:
    """The metrics of these names.  Raises AccelsimError with the nearest name for each that does not exist."""
    problems = []
    for name in names:
        if name not in METRICS:
            close = tuple(difflib.get_close_matches(name, METRICS, n=1, cutoff=0.4))
            problems.append(Problem("metrics", f"unknown metric {name!r}", f"of {', '.join(METRICS)}", close))
    if problems:
        raise AccelsimError(problems)
    return tuple(METRICS[name] for name in dict.fromkeys(names))
