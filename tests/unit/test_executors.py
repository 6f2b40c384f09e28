"""Sweeps on executors of a client's own: the same rows as in this process, and what happens when one fails."""

import csv
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from accelsim.problems import AccelsimError, InfeasibleError, Problem
from codesign import chunks, executors
from codesign.chunks import shortage
from codesign.export import write_csv
from codesign.runner import run_sweep
from codesign.space import load_space
from codesign.store import read_study
from tests.support.design_fakes import CATALOG, evaluate

SPACE = """\
format: accelsim.space/1
base: {arch: two, plan: eight, model: small, resolution: 32}
axes:
  plan: [eight, mixed]
  accelerator.engines.mult.pixel_groups: [1, 2, 3, 4, 5]
  accelerator.activation_buffer.capacity_bits: [1048576, 4194304]
"""
DESIGNS = 20


@pytest.fixture
def space(tmp_path):
    (tmp_path / "space.yaml").write_text(SPACE)
    return load_space(tmp_path / "space.yaml", CATALOG)


@pytest.fixture
def table(space, tmp_path):
    """Sweeps on some executor; returns the exported table without the time."""

    def swept(name, **more):
        run_sweep(space, tmp_path / name, evaluate=evaluate, catalog=CATALOG, batch_size=3, **more)
        with read_study(tmp_path / name) as study:
            write_csv(study.rows(), str(tmp_path / f"{name}.csv"))
        with open(tmp_path / f"{name}.csv", newline="") as file:
            return [{k: v for k, v in row.items() if k != "created_utc"} for row in csv.DictReader(file)]

    return swept


class Losing(Executor):
    """Runs calls at once, but loses every call whose number `lost` holds."""

    def __init__(self, lost, error=ConnectionError):
        self.lost, self.error, self.calls = lost, error, 0

    def submit(self, call, /, *arguments):
        self.calls += 1
        future = Future()
        if self.calls in self.lost:
            future.set_exception(self.error("gone"))
        else:
            future.set_result(call(*arguments))
        return future


def test_rows_do_not_depend_on_the_executor(table):
    here = table("here", workers=1)
    assert len(here) == DESIGNS
    assert {row["status"] for row in here} == {"ok", "infeasible"}
    with ThreadPoolExecutor(3) as threads:
        assert table("threads", executor=threads) == here
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        assert table("processes", executor=processes) == here
    assert table("workers", workers=2) == here


def test_a_lost_chunk_is_submitted_again(table):
    executor = Losing({1, 4})
    assert table("losing", executor=executor) == table("here", workers=1)
    assert executor.calls > max(executor.lost)


def test_a_chunk_that_is_always_lost_is_one_clear_error(table, tmp_path):
    with pytest.raises(AccelsimError, match=r"lost a chunk of designs 3 times \(ConnectionError: gone\)"):
        table("lost", executor=Losing(range(4, 1000)))
    with read_study(tmp_path / "lost") as study:
        assert 1 <= len(study.rows()) < DESIGNS
    assert len(table("lost", workers=1)) == DESIGNS


def test_a_broken_executor_is_not_tried_again(table):
    executor = Losing(range(2, 1000), BrokenExecutor)
    with pytest.raises(AccelsimError, match="a worker process died"):
        table("broken", executor=executor)
    assert executor.calls <= 1 + executors.usable_cores() * executors.QUEUED_PER_WORKER


def test_an_executor_that_was_shut_down(table):
    threads = ThreadPoolExecutor(1)
    threads.shutdown()
    with pytest.raises(AccelsimError, match="takes no more work"):
        table("closed", executor=threads)


def test_workers_of_another_version_are_refused(table, monkeypatch):
    monkeypatch.setattr(chunks, "program_version", lambda: "0.0.1+other")
    with ThreadPoolExecutor(1) as threads, pytest.raises(AccelsimError, match=r"runs program version 0\.0\.1\+other"):
        table("other", executor=threads)


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"workers": 2, "dask": "tcp://127.0.0.1:1"}, "workers and dask exclude each other"),
        ({"workers": 0}, "workers=0"),
    ],
)
def test_wishes_that_make_no_sense(table, wishes, words):
    with pytest.raises(AccelsimError, match=words):
        table("none", **wishes)


def test_chunks_grow_to_a_quarter_of_a_second():
    assert executors._next_size(1, 2.0, 1) == 1
    assert executors._next_size(4, 0.04, 4) == 8
    assert executors._next_size(8, 0.08, 64) == 25


def test_shortage_is_the_largest_share_that_is_missing():
    def gap(demand, bound):
        return Problem("x", "does not fit", demand=demand, bound=bound, unit="bits")

    assert shortage(InfeasibleError([gap(15, 10), gap(8, 4), Problem("x", "no numbers")])) == 1.0
    assert shortage(InfeasibleError(Problem("x", "no numbers"))) is None
