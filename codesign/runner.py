"""Run a sweep: every design of a space that the study does not hold yet, on any executor, resumable."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from accelsim.arch import Accelerator
from accelsim.ir import digest
from accelsim.mappers.choice import mapper_of
from accelsim.problems import AccelsimError, Problem
from codesign.catalog import Catalog, default_catalog
from codesign.chunks import Evaluate, Task
from codesign.executors import open_crew, rows_of
from codesign.space import Point, Space
from codesign.store import Row, Study, design_key, open_study, program_version

COMMIT_EVERY_S = 5.0
BATCH_SIZE = 64
# Accelerators kept, some kilobytes each.
MAX_BUILT = 10_000


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
    workers: int | None = None,
    evaluate: Evaluate | None = None,
    progress: bool = True,
    batch_size: int = BATCH_SIZE,
    catalog: Catalog | None = None,
    force_progress: bool = False,
    executor: Executor | None = None,
    dask: str | None = None,
) -> Summary:
    """Evaluate what `study_path` does not hold yet; the same call again resumes.

    Results are committed every `batch_size` designs or five seconds.  Work is done by `workers` local processes (one
    per usable core unless given; 1 is this process), by any `executor` of concurrent.futures, or by the workers of the
    scheduler at the address `dask`; `evaluate` (`codesign.chunks.evaluate_design` unless given) must be importable
    there.  The rows are the same, bit for bit.  Progress goes to stderr when that is a terminal, or always with
    `force_progress`.  Ctrl-C stores what is finished and raises KeyboardInterrupt.  Raises AccelsimError when the study
    cannot be used, a worker dies and the executor has no other, or a worker has another program version.
    """
    if batch_size < 1:
        raise AccelsimError(Problem("sweep", f"batch_size={batch_size}", "positive numbers"))
    catalog = catalog or default_catalog()
    started_s = time.monotonic()
    with (
        open_crew(workers, executor, dask) as crew,
        open_study(study_path, space.fingerprint(), program_version(), space.to_json()) as study,
    ):
        tally = _Tally(known=study.keys())
        shown = progress and (force_progress or sys.stderr.isatty())
        with tqdm(total=space.size, unit="design", file=sys.stderr, disable=not shown) as bar:
            tasks = _tasks(space, catalog, study.program, tally)
            with contextlib.closing(rows_of(tasks, crew, evaluate, batch_size)) as rows:
                evaluated = store_rows(
                    study, rows, batch_size, lambda stored: bar.update(stored + tally.skipped - bar.n)
                )
        return Summary(
            space_size=space.size,
            evaluated=evaluated,
            reused=tally.reused,
            duplicates=tally.duplicates,
            not_applicable=tally.not_applicable,
            by_status=study.counts(),
            elapsed_s=time.monotonic() - started_s,
        )


def store_rows(
    study: Study, rows: Iterator[Row], batch_size: int, progress: Callable[[int], object] = lambda stored: None
) -> int:
    """Commit rows batch by batch, and on any interruption what is pending; returns how many.

    `progress` is called with the number of rows so far.
    """
    pending: list[Row] = []
    stored = 0
    committed_s = time.monotonic()
    try:
        for row in rows:
            pending.append(row)
            progress(stored + len(pending))
            if len(pending) >= batch_size or time.monotonic() - committed_s >= COMMIT_EVERY_S:
                study.add(pending)
                stored += len(pending)
                pending = []
                committed_s = time.monotonic()
    finally:
        # A row that the interrupted commit already wrote is replaced by itself.
        if pending:
            study.add(pending)
    progress(stored + len(pending))
    return stored + len(pending)


def _tasks(space: Space, catalog: Catalog, program: str, tally: _Tally) -> Iterator[Task]:
    """Tasks of the designs that are neither stored nor equal to an earlier point."""
    maker = TaskMaker(catalog, program)
    for point in space.points():
        task = maker.task(point)
        if task is None:
            tally.not_applicable += 1
        elif task.key in tally.seen or tally.known.get(task.key, point.index) != point.index:
            tally.duplicates += 1
        elif task.key in tally.known:
            tally.reused += 1
        else:
            tally.seen.add(task.key)
            yield task


class TaskMaker:
    """Tasks of points; names go through a catalog, and an accelerator that several points share is built once."""

    def __init__(self, catalog: Catalog, program: str) -> None:
        self._catalog, self._program = catalog, program
        self._built: dict[str, tuple[Accelerator, str] | None] = {}

    def task(self, point: Point) -> Task | None:
        """The task of a point; None when it overrides a field that its accelerator does not have."""
        catalog = self._catalog
        try:
            built = self._accelerator(point)
            if built is None:
                return None
            accelerator, accelerator_id = built
            plan = catalog.plan(point.plan)
            workload_id = catalog.workload_id(point.model, point.resolution)
            mapper = mapper_of(point.mapper)
        except AccelsimError as error:
            place = [point.arch, point.plan, point.model, point.resolution, point.overrides(), point.mapper]
            return Task(point, digest([*place, self._program]), problem=str(error))
        key = design_key(workload_id, plan.fingerprint(), accelerator_id, mapper.name, self._program)
        return Task(point, key, accelerator, plan, mapper=mapper)

    def _accelerator(self, point: Point) -> tuple[Accelerator, str] | None:
        """The accelerator of a point and its fingerprint."""
        name = json.dumps([point.arch, point.overrides()])
        if name not in self._built:
            if len(self._built) >= MAX_BUILT:
                self._built.clear()
            accelerator = point.accelerator(self._catalog)
            self._built[name] = None if accelerator is None else (accelerator, accelerator.fingerprint())
        return self._built[name]
