"""What a validation suite is made of: cases with a reference, our value, and what is demanded of the two."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

DATA = Path(__file__).parent / "data"
# Slack of comparisons that are equalities on paper but divide or round in floats.
ROUNDING = 1e-9


class Demand(StrEnum):
    """What must hold between our value and the reference; STATED shows the error and demands nothing."""

    EQUAL = "equal"
    WITHIN = "within"
    AT_MOST = "at most the reference"
    AT_LEAST = "at least the reference"
    STATED = "stated"


@dataclass(frozen=True)
class Case:
    """One comparison: `ours` against `reference` in `unit`; `tolerance` is the relative error that WITHIN accepts."""

    name: str
    quantity: str
    unit: str
    reference: float
    ours: float
    demand: Demand = Demand.EQUAL
    tolerance: float = 0.0

    @property
    def error(self) -> float:
        """(ours − reference) ÷ |reference|; 0 when both are 0, infinite when only the reference is."""
        if self.ours == self.reference:
            return 0.0
        return (self.ours - self.reference) / abs(self.reference) if self.reference else float("inf")

    @property
    def met(self) -> bool:
        """True when the demand holds."""
        if self.demand is Demand.EQUAL:
            return self.ours == self.reference
        if self.demand is Demand.WITHIN:
            return abs(self.error) <= self.tolerance + ROUNDING
        if self.demand is Demand.AT_MOST:
            return self.error <= ROUNDING
        return self.demand is Demand.STATED or self.error >= -ROUNDING


@dataclass(frozen=True)
class Suite:
    """A named set of comparisons; `run` computes them, `source` says where the references come from.

    `text` is the docstring of the suite's module: what is compared and what is not modelled.
    """

    name: str
    title: str
    source: str
    text: str
    run: Callable[[], list[Case]]


@dataclass(frozen=True)
class Summary:
    """Figures of a suite; errors are relative.

    `checked` cases are demanded equal or within a tolerance, `exact` of them are equal; `stated` cases show an error
    and demand nothing; `bounds` limit the reference from one side.  `demand` says what is demanded of how many.
    """

    suite: str
    cases: int
    checked: int
    exact: int
    checked_max_error: float
    stated: int
    stated_mean_error: float
    stated_max_error: float
    bounds: int
    missed: int
    demand: str


def summarize(suite: str, cases: list[Case]) -> Summary:
    """Count and average a suite's cases."""
    checked = [case for case in cases if case.demand in (Demand.EQUAL, Demand.WITHIN)]
    stated = [abs(case.error) for case in cases if case.demand is Demand.STATED]
    kinds: dict[str, int] = {}
    for case in cases:
        kinds[str(case.demand)] = kinds.get(str(case.demand), 0) + 1
    widest = max((case.tolerance for case in cases if case.demand is Demand.WITHIN), default=0.0)
    names = {str(Demand.WITHIN): f"within {widest:.2%}", str(Demand.STATED): "error stated"}
    return Summary(
        suite=suite,
        cases=len(cases),
        checked=len(checked),
        exact=sum(case.ours == case.reference for case in checked),
        checked_max_error=max((abs(case.error) for case in checked), default=0.0),
        stated=len(stated),
        stated_mean_error=sum(stated) / len(stated) if stated else 0.0,
        stated_max_error=max(stated, default=0.0),
        bounds=len(cases) - len(checked) - len(stated),
        missed=sum(not case.met for case in cases),
        demand=", ".join(f"{count} {names.get(words, words)}" for words, count in kinds.items()),
    )


def rows_of(name: str) -> list[dict[str, str]]:
    """Rows of a data file of this package; lines that begin with # are its sources."""
    with (DATA / name).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(line for line in stream if not line.startswith("#")))


def ceil_div(a: int, b: int) -> int:
    """⌈a ÷ b⌉ of integers."""
    return -(-a // b)
