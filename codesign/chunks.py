"""The unit of work of a sweep: a chunk of designs goes to a worker and comes back as rows, whatever runs the worker."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from accelsim.arch import Accelerator
from accelsim.mappers.choice import DEFAULT_MAPPER, Mapper
from accelsim.plan import QuantPlan
from accelsim.problems import AccelsimError, InfeasibleError, Problem
from codesign.space import Point
from codesign.store import Row, metrics_of, program_version

if TYPE_CHECKING:
    from accelsim.api import Report

# (model, resolution, accelerator, plan, mapper) → the numbers of `study_metrics`.  A plan is a QuantPlan, or the
# request for one that the evaluating function understands; both have a fingerprint.
Evaluate = Callable[[str, int | None, Accelerator, Any, Mapper], Mapping[str, Any]]


@dataclass(frozen=True)
class Task:
    """A point ready to run; `problem` is set when its values do not make a design."""

    point: Point
    key: str
    accelerator: Accelerator | None = None
    plan: Any = None
    problem: str = ""
    mapper: Mapper = DEFAULT_MAPPER


@dataclass(frozen=True)
class ChunkResult:
    """Rows of a chunk and how long it took, or the problem because of which the worker refused it."""

    rows: list[Row]
    elapsed_s: float
    refusal: Problem | None = None


def run_chunk(tasks: Sequence[Task], evaluate: Evaluate | None, program: str | None) -> ChunkResult:
    """What a worker does.  With `program`, it refuses when its own program is another version."""
    if program is not None and program_version() != program:
        what = f"the worker on {socket.gethostname()} runs program version {program_version()}, this is {program}"
        return ChunkResult([], 0.0, Problem("sweep", what, "workers of this version", ("install it there as well",)))
    started_s = time.perf_counter()
    rows = evaluate_chunk(tasks, evaluate)
    return ChunkResult(rows, time.perf_counter() - started_s)


def evaluate_chunk(tasks: Sequence[Task], evaluate: Evaluate | None = None) -> list[Row]:
    """Rows of designs in their order.  A fault of the program in one design is stored with that design and counted."""
    return [_row(task, evaluate or evaluate_design) for task in tasks]


def evaluate_design(
    model: str, resolution: int | None, accelerator: Accelerator, plan: QuantPlan, mapper: Mapper
) -> dict[str, Any]:
    """Map and simulate one design.  Raises InfeasibleError or AccelsimError as `accelsim.api.evaluate`."""
    from accelsim.api import evaluate

    return study_metrics(evaluate(model, resolution, accelerator, plan, mapper=mapper))


def study_metrics(report: Report) -> dict[str, Any]:
    """What a study keeps of a report: its metrics, and the integers from which another technology prices it.

    `counts` are those of one image in `count_columns` order, `busy_cycles` those of every unit.
    """
    return {
        **report.metrics(),
        "power_w": report.prices.arithmetic.power_w,
        "counts": report.totals.tolist(),
        "busy_cycles": report.result.busy_cycles(),
    }


def _row(task: Task, evaluate: Evaluate) -> Row:
    if task.accelerator is None or task.plan is None:
        return row_of(task, "invalid", problem=task.problem)
    try:
        numbers = evaluate(task.point.model, task.point.resolution, task.accelerator, task.plan, task.mapper)
        return row_of(task, "ok", metrics=metrics_of(numbers))
    except InfeasibleError as error:
        return row_of(task, "infeasible", problem=str(error), shortage=shortage(error))
    except AccelsimError as error:
        return row_of(task, "invalid", problem=str(error))
    except Exception as error:
        return row_of(task, "failed", problem=f"{type(error).__name__}: {error}")


def row_of(
    task: Task, status: str, metrics: Mapping[str, Any] | None = None, problem: str = "", shortage: float | None = None
) -> Row:
    """The row of a task with what came out of it."""
    point = task.point
    return Row(
        key=task.key,
        point=point.index,
        arch=point.arch,
        plan=point.plan,
        model=point.model,
        resolution=point.resolution,
        values=dict(point.values),
        status=status,
        metrics=metrics or {},
        problem=problem,
        shortage=shortage,
    )


def shortage(error: InfeasibleError) -> float | None:
    """How much is missing, as a share of what is there: the largest of the error's problems; None without numbers."""
    shares = [problem.gap / problem.bound for problem in error.problems if problem.gap is not None and problem.bound]
    return max(shares, default=None)
