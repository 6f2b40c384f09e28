"""Run a sweep: every design of a space that the study does not hold yet, on one or several processes, resumable."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.connection import wait as wait_for_sentinel
from pathlib import Path
from typing import Any

from tqdm import tqdm

from accelsim.arch import Accelerator
from accelsim.ir import digest
from accelsim.plan import QuantPlan
from accelsim.problems import AccelsimError, InfeasibleError, Problem
from codesign.catalog import Catalog, default_catalog
from codesign.space import Point, Space
from codesign.store import Row, Study, design_key, metrics_of, open_study, program_version

MAPPER = "heuristic"
COMMIT_EVERY_S = 5.0
QUEUED_PER_WORKER = 4

# (model, resolution, accelerator, plan) → an object with to_json(ops), as accelsim.api.evaluate.
Evaluate = Callable[[str, int | None, Accelerator, QuantPlan], Any]


@dataclass(frozen=True)
class Summary:
    """What a sweep did.  `space_size` = evaluated + reused + duplicates + not_applicable when it ran to its end.

    `reused` designs were stored by an earlier run, `duplicates` are equal to another point of the space,
    `not_applicable` points override an engine that their accelerator does not have.  `by_status` counts what the study
    now holds.
    """

    space_size: int
    evaluated: int
    reused: int
    duplicates: int
    not_applicable: int
    by_status: dict[str, int]
    elapsed_s: float

    def __str__(self) -> str:
        parts = [f"{self.evaluated} evaluated in {self.elapsed_s:.1f} s", f"{self.reused} already stored"]
        if self.duplicates:
            parts.append(f"{self.duplicates} equal to another point")
        if self.not_applicable:
            parts.append(f"{self.not_applicable} not applicable (the accelerator lacks the field)")
        held = ", ".join(f"{count} {status}" for status, count in self.by_status.items()) or "nothing"
        return f"{self.space_size} points: {'; '.join(parts)}. The study holds {held}."


@dataclass(frozen=True)
class _Task:
    """A point ready to run; `problem` is set when its values do not make a design."""

    point: Point
    key: str
    accelerator: Accelerator | None = None
    plan: QuantPlan | None = None
    problem: str = ""


@dataclass
class _Tally:
    reused: int = 0
    duplicates: int = 0
    not_applicable: int = 0
    known: dict[str, int] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    @property
    def skipped(self) -> int:
        return self.reused + self.duplicates + self.not_applicable


def run_sweep(
    space: Space,
    study_path: str | Path,
    workers: int = 1,
    evaluate: Evaluate | None = None,
    progress: bool = True,
    batch_size: int = 16,
    catalog: Catalog | None = None,
    force_progress: bool = False,
) -> Summary:
    """Evaluate what `study_path` does not hold yet; the same call again resumes.

    Results are committed every `batch_size` designs or five seconds.  `workers` > 1 starts processes, so `evaluate`
    (accelsim.api.evaluate unless given) must be importable there.  Progress goes to stderr when that is a terminal, or
    always with `force_progress`.  Ctrl-C stores what is finished and raises KeyboardInterrupt.  Raises AccelsimError
    when the study cannot be used or a worker dies.
    """
    if workers < 1 or batch_size < 1:
        raise AccelsimError(Problem("sweep", f"workers={workers}, batch_size={batch_size}", "positive numbers"))
    catalog = catalog or default_catalog()
    started_s = time.monotonic()
    with open_study(study_path, space.fingerprint(), program_version()) as study:
        tally = _Tally(known=study.keys())
        shown = progress and (force_progress or sys.stderr.isatty())
        with tqdm(total=space.size, unit="design", file=sys.stderr, disable=not shown) as bar:
            tasks = _tasks(space, catalog, study.program, tally)
            # Closing the generator ends its processes, also when the interruption hits outside of it.
            with contextlib.closing(_results(tasks, workers, evaluate)) as results:
                evaluated = _store_all(study, results, batch_size, tally, bar)
        return Summary(
            space_size=space.size,
            evaluated=evaluated,
            reused=tally.reused,
            duplicates=tally.duplicates,
            not_applicable=tally.not_applicable,
            by_status=study.counts(),
            elapsed_s=time.monotonic() - started_s,
        )


def _store_all(study: Study, results: Iterator[Row], batch_size: int, tally: _Tally, bar: tqdm[Any]) -> int:
    """Commit results batch by batch, and on any interruption what is pending."""
    pending: list[Row] = []
    stored = 0
    committed_s = time.monotonic()
    try:
        for row in results:
            pending.append(row)
            bar.update(stored + len(pending) + tally.skipped - bar.n)
            if len(pending) >= batch_size or time.monotonic() - committed_s >= COMMIT_EVERY_S:
                study.add(pending)
                stored += len(pending)
                pending = []
                committed_s = time.monotonic()
    finally:
        # A row that the interrupted commit already wrote is replaced by itself.
        if pending:
            study.add(pending)
    bar.update(stored + len(pending) + tally.skipped - bar.n)
    return stored + len(pending)


def _tasks(space: Space, catalog: Catalog, program: str, tally: _Tally) -> Iterator[_Task]:
    """Tasks of the designs that are neither stored nor equal to an earlier point."""
    for point in space.points():
        task = _task(point, catalog, program)
        if task is None:
            tally.not_applicable += 1
        elif task.key in tally.seen or tally.known.get(task.key, point.index) != point.index:
            tally.duplicates += 1
        elif task.key in tally.known:
            tally.reused += 1
        else:
            tally.seen.add(task.key)
            yield task


def _task(point: Point, catalog: Catalog, program: str) -> _Task | None:
    """The task of a point, None when it is not applicable."""
    try:
        accelerator = point.accelerator(catalog)
        if accelerator is None:
            return None
        plan = catalog.plan(point.plan)
        workload_id = catalog.workload_id(point.model, point.resolution)
    except AccelsimError as error:
        place = [point.arch, point.plan, point.model, point.resolution, point.overrides(), MAPPER, program]
        return _Task(point, digest(place), problem=str(error))
    key = design_key(workload_id, plan.fingerprint(), accelerator.fingerprint(), MAPPER, program)
    return _Task(point, key, accelerator, plan)


def _results(tasks: Iterable[_Task], workers: int, evaluate: Evaluate | None) -> Generator[Row, None, None]:
    """Rows in the order in which they are finished."""
    if workers == 1:
        for task in tasks:
            yield _row(task, evaluate)
        return
    # Spawned workers start from a clean interpreter, so that the one-thread setting below reaches their libraries.
    context = multiprocessing.get_context("spawn")
    with _environment("OMP_NUM_THREADS", "1"):
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
        try:
            yield from _windowed(pool, iter(tasks), workers * QUEUED_PER_WORKER, evaluate)
        except BrokenProcessPool as error:
            levers = ("run the same command again", "fewer workers if memory is short")
            raise AccelsimError(Problem("sweep", "a worker process died", "workers that live", levers)) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _windowed(
    pool: ProcessPoolExecutor, tasks: Iterator[_Task], window: int, evaluate: Evaluate | None
) -> Iterator[Row]:
    """Keep at most `window` designs in the pool, so that a space of any size streams through."""
    running: set[Future[Row]] = set()
    for task in tasks:
        running.add(pool.submit(_row, task, evaluate))
        if len(running) >= window:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in finished)
    while running:
        finished, running = wait(running, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in finished)


def _row(task: _Task, evaluate: Evaluate | None) -> Row:
    """Evaluate one design.  A fault of the program in one design is stored with that design and counted."""
    point = task.point
    status, metrics, problem = "ok", dict[str, Any](), ""
    if task.accelerator is None or task.plan is None:
        status, problem = "invalid", task.problem
    else:
        try:
            report = (evaluate or _default_evaluate())(point.model, point.resolution, task.accelerator, task.plan)
            metrics = metrics_of(report.to_json(ops=False))
        except InfeasibleError as error:
            status, problem = "infeasible", str(error)
        except AccelsimError as error:
            status, problem = "invalid", str(error)
        except Exception as error:
            status, problem = "failed", f"{type(error).__name__}: {error}"
    return Row(
        key=task.key,
        point=point.index,
        arch=point.arch,
        plan=point.plan,
        model=point.model,
        resolution=point.resolution,
        values=dict(point.values),
        status=status,
        metrics=metrics,
        problem=problem,
    )


def _default_evaluate() -> Evaluate:
    from accelsim.api import evaluate

    return evaluate


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it: workers of a killed parent would otherwise wait forever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_with, args=(parent.sentinel,), daemon=True).start()


def _exit_with(sentinel: int) -> None:
    wait_for_sentinel([sentinel])
    os._exit(1)


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
