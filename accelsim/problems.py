"""One error grammar for the whole program: what, where, what was expected, what to try."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One fault or infeasibility.

    `where` names the place (``file:line: field`` or an op name), `what` the fault, `expected` what would have been
    accepted, `levers` what the user can change.  For infeasibilities `demand`, `bound` and `unit` carry the numbers.
    """

    where: str
    what: str
    expected: str = ""
    levers: tuple[str, ...] = ()
    demand: int | None = None
    bound: int | None = None
    unit: str = ""

    @property
    def gap(self) -> int | None:
        """How much is missing (`demand - bound`), or None when the problem is not about a quantity."""
        if self.demand is None or self.bound is None:
            return None
        return self.demand - self.bound

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}"
        if self.gap is not None:
            text += f" (needs {self.demand:,} {self.unit}, has {self.bound:,}, short by {self.gap:,})"
        if self.expected:
            text += f"; expected {self.expected}"
        if self.levers:
            text += f"; try: {' or '.join(self.levers)}"
        return text


class AccelsimError(Exception):
    """Bad input: carries every problem found, prints one per line, makes the command line exit with status 2."""

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class InfeasibleError(AccelsimError):
    """The input is well formed, but this accelerator cannot execute this workload; the problems carry the numbers."""
