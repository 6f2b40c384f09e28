"""Sweeps on a real Dask scheduler with two worker processes on loopback, started here."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from accelsim.problems import AccelsimError
from codesign import executors
from codesign.cli import main
from codesign.export import write_csv
from codesign.runner import run_sweep
from codesign.space import load_space
from codesign.store import read_study
from tests.support.design_fakes import slow_simulate

pytest.importorskip("distributed")
ROOT = Path(__file__).parents[2]
SPACE = """\
format: accelsim.space/1
base: {arch: m2vit, model: efficientvit_b0, resolution: 32}
axes:
  plan: [uniform8, m2q]
  accelerator.engines.0.pixel_groups: [2, 4, 8]
  accelerator.engines.1.pixel_groups: [2, 4, 8]
  accelerator.weight_buffer.capacity_bits: [65536, 1048576, 2097152]
"""
DESIGNS = 54


def start(*words):
    command = [sys.executable, "-m", "dask", *words]
    more = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "FAKE_SLEEP_S": "0.1"}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | more, stderr=subprocess.PIPE, text=True)


def wait_for(process, pattern):
    """The match of the first line on standard error that fits; a thread reads on, so that the process never blocks."""
    for line in process.stderr:
        found = re.search(pattern, line)
        if found:
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return found
    raise AssertionError(f"{process.args} ended")


@pytest.fixture
def scheduler():
    process = start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    yield wait_for(process, r"Scheduler at:\s+(tcp://\S+)").group(1)
    process.kill()
    process.wait()


@pytest.fixture
def workers(scheduler, tmp_path):
    def one(name):
        words = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--name", name, "--local-directory", str(tmp_path)]
        return start("worker", scheduler, *words)

    started = [one("first"), one("second")]
    for process in started:
        wait_for(process, "Registered to")
    yield started
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def space(tmp_path):
    (tmp_path / "space.yaml").write_text(SPACE)
    return load_space(tmp_path / "space.yaml")


def exported(path):
    """The study as CSV text, without the time."""
    with read_study(path) as study:
        assert study.check() == "ok"
        rows = [{k: v for k, v in row.items() if k != "created_utc"} for row in study.rows()]
    write_csv(rows, f"{path}.csv")
    return Path(f"{path}.csv").read_text()


def rows_in(path):
    with read_study(path) as study:
        return len(study.rows())


def test_one_worker_is_killed_in_the_middle(scheduler, workers, space, tmp_path):
    def killed_after_some_rows():
        end_s = time.monotonic() + 60
        while time.monotonic() < end_s and (not (tmp_path / "dask").exists() or rows_in(tmp_path / "dask") < 5):
            time.sleep(0.02)
        left.append(DESIGNS - rows_in(tmp_path / "dask"))
        workers[0].send_signal(signal.SIGKILL)

    left = []
    killer = threading.Thread(target=killed_after_some_rows)
    killer.start()
    summary = run_sweep(space, tmp_path / "dask", evaluate=slow_simulate, batch_size=2, dask=scheduler)
    killer.join()
    assert left[0] > 10
    assert workers[0].wait() == -signal.SIGKILL
    assert workers[1].poll() is None
    assert summary.evaluated == DESIGNS
    run_sweep(space, tmp_path / "here", workers=1)
    assert exported(tmp_path / "dask") == exported(tmp_path / "here")
    assert set(summary.by_status) == {"ok", "infeasible"}


def test_the_command_and_its_refusals(scheduler, space, tmp_path, capsys, monkeypatch, request):
    command = ["sweep", str(tmp_path / "space.yaml"), "-o", str(tmp_path / "a"), "--dask", scheduler]
    assert main(command) == 2
    assert "the scheduler has no workers" in capsys.readouterr().err
    request.getfixturevalue("workers")
    monkeypatch.setattr(executors, "program_version", lambda: "0.0.1+other")
    assert main(command) == 2
    assert re.search(r"the worker on \S+ runs program version \S+, this is 0.0.1\+other", capsys.readouterr().err)
    monkeypatch.undo()
    assert main(command) == 0
    assert rows_in(tmp_path / "a") == DESIGNS
    assert main([*command, "--workers", "2"]) == 2
    assert "exclude each other" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense://x", "127.0.0.1:99999"])
def test_an_address_that_does_not_answer(space, tmp_path, address, monkeypatch):
    monkeypatch.setattr(executors, "CONNECT_TIMEOUT_S", 1)
    with pytest.raises(AccelsimError, match="no Dask scheduler answers"):
        run_sweep(space, tmp_path / "a", dask=address)


def test_without_the_extra(space, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(AccelsimError, match=r"hybrid-vit-codesign\[dask\]"):
        run_sweep(space, tmp_path / "a", dask="tcp://127.0.0.1:1")
