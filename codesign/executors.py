"""Who does the work: this process, local processes, a Dask cluster, or any executor of a client's own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from concurrent.futures.process import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import wait as wait_for_sentinel
from typing import Any

from accelsim.problems import AccelsimError, Problem
from codesign.chunks import ChunkResult, Evaluate, Task, run_chunk
from codesign.store import Row, program_version

CHUNK_S = 0.25
QUEUED_PER_WORKER = 3
TRIES = 3
CONNECT_TIMEOUT_S = 10
DASK_RETRIES = 5


@dataclass(frozen=True)
class Crew:
    """An executor, how many chunks it may hold, and the program version that its workers must have (None: ours)."""

    executor: Executor
    window: int
    program: str | None = None


class InProcess(Executor):
    """Runs every call at once in the calling thread."""

    def submit(self, call: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        """The finished future of a call."""
        future: Future[Any] = Future()
        try:
            future.set_result(call(*arguments, **named))
        except Exception as error:
            future.set_exception(error)
        return future


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_crew(
    workers: int | None = None, executor: Executor | None = None, dask: str | None = None
) -> contextlib.AbstractContextManager[Crew]:
    """The crew for one of three wishes: a number of local processes (None: a core each), an executor, a Dask address.

    Raises AccelsimError for more than one wish, no workers at all, and as `dask_crew`.
    """
    wishes = {"workers": workers, "executor": executor, "dask": dask}
    named = [name for name, wish in wishes.items() if wish is not None]
    if len(named) > 1:
        raise AccelsimError(Problem("sweep", f"{' and '.join(named)} exclude each other", "one of them"))
    if workers is not None and workers < 1:
        raise AccelsimError(Problem("sweep", f"workers={workers}", "positive numbers"))
    if dask is not None:
        return dask_crew(dask)
    return local_crew(workers) if executor is None else contextlib.nullcontext(client_crew(executor))


@contextlib.contextmanager
def local_crew(workers: int | None = None) -> Iterator[Crew]:
    """Processes of this machine, one per usable core unless given; one worker is this process itself.

    They end with the block, and with this process when it is killed.
    """
    workers = workers or usable_cores()
    if workers == 1:
        yield Crew(InProcess(), 1)
        return
    # Spawned workers start from a clean interpreter, so that the one-thread setting below reaches their libraries.
    context = multiprocessing.get_context("spawn")
    with _environment("OMP_NUM_THREADS", "1"):
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
        try:
            yield Crew(pool, workers * QUEUED_PER_WORKER)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def client_crew(executor: Executor) -> Crew:
    """An executor that belongs to the caller, who also ends it; its workers must have our program version."""
    workers = getattr(executor, "_max_workers", None) or usable_cores()
    return Crew(executor, int(workers) * QUEUED_PER_WORKER, program_version())


@contextlib.contextmanager
def dask_crew(address: str) -> Iterator[Crew]:
    """The workers of the Dask scheduler at `address` (``tcp://HOST:PORT``).

    A worker that dies has its chunk run by another one.  Raises AccelsimError when the extra `dask` is missing, nothing
    answers, or there are no workers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        levers = ("pip install 'hybrid-vit-codesign[dask]'", "--workers instead")
        raise AccelsimError(Problem("--dask", "the library distributed is not installed", "the extra `dask`", levers)) \
            from error  # fmt: skip
    try:
        client = Client(address, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError, RuntimeError) as error:
        what = f"no Dask scheduler answers within {CONNECT_TIMEOUT_S} s ({type(error).__name__}: {error})"
        raise AccelsimError(Problem(f"--dask {address}", what, "the address that `dask scheduler` prints")) from error
    with client:
        threads = sum(client.nthreads().values())
        if not threads:
            lever = f"dask worker {address} --nthreads 1"
            raise AccelsimError(Problem(f"--dask {address}", "the scheduler has no workers", "at least one", (lever,)))
        # Not pure: Dask would answer equal calls from its memory.
        executor = client.get_executor(pure=False, retries=DASK_RETRIES)
        yield Crew(executor, threads * QUEUED_PER_WORKER, program_version())


def rows_of(
    tasks: Iterable[Task], crew: Crew, evaluate: Evaluate | None, largest_chunk: int
) -> Generator[Row, None, None]:
    """Rows of tasks as they are finished; what a row holds does not depend on the crew.

    Chunks grow until one takes a worker about 0.25 s, up to `largest_chunk` designs; only a window of them is
    submitted, so a space of any size streams through.  A chunk that an executor loses is submitted again.  Raises
    AccelsimError when the executor cannot go on or a worker refuses.
    """
    source, size = iter(tasks), 1
    running: dict[Future[ChunkResult], tuple[tuple[Task, ...], int]] = {}
    try:
        while True:
            while len(running) < crew.window and (chunk := tuple(islice(source, size))):
                running[_submit(crew, chunk, evaluate)] = (chunk, 1)
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                chunk, tries = running.pop(future)
                result = _result(future, tries)
                if result is None:
                    running[_submit(crew, chunk, evaluate)] = (chunk, tries + 1)
                    continue
                size = min(largest_chunk, _next_size(len(chunk), result.elapsed_s, size))
                yield from result.rows
    finally:
        for future in running:
            future.cancel()


def _next_size(designs: int, elapsed_s: float, size: int) -> int:
    """Designs of `CHUNK_S`, at most twice as many as now: the first designs of a worker also pay its start."""
    return max(1, min(2 * size, int(CHUNK_S * designs / max(elapsed_s, 1e-9))))


def _submit(crew: Crew, chunk: tuple[Task, ...], evaluate: Evaluate | None) -> Future[ChunkResult]:
    try:
        return crew.executor.submit(run_chunk, chunk, evaluate, crew.program)
    except BrokenExecutor as error:
        raise _dead(error) from error
    except Exception as error:
        what = f"the executor takes no more work ({type(error).__name__}: {error})"
        levers = ("run the same command again",)
        raise AccelsimError(Problem("sweep", what, "a running executor", levers)) from error


def _result(future: Future[ChunkResult], tries: int) -> ChunkResult | None:
    """What a chunk gave, or None when it was lost and may be tried again."""
    try:
        result = future.result()
    except BrokenExecutor as error:
        raise _dead(error) from error
    except (Exception, CancelledError) as error:
        if tries < TRIES:
            return None
        what = f"the executor lost a chunk of designs {TRIES} times ({type(error).__name__}: {error})"
        raise AccelsimError(Problem("sweep", what, "workers that live", ("run the same command again",))) from error
    if result.refusal is not None:
        raise AccelsimError(result.refusal)
    return result


def _dead(error: BaseException) -> AccelsimError:
    guard = 'a script that starts workers does so under `if __name__ == "__main__":`'
    levers = ("run the same command again", "fewer workers if memory is short", guard)
    return AccelsimError(Problem("sweep", f"a worker process died ({error})", "workers that live", levers))


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
