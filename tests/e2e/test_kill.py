"""Sweeps and searches are killed at random moments and resumed; nothing is lost but the batch in flight."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codesign import runner, search
from codesign.runner import run_sweep
from codesign.search import Search, run_search
from codesign.space import load_space
from codesign.store import read_study
from tests.support.design_fakes import CATALOG, evaluate

ROOT = Path(__file__).parents[2]
SPACE = """\
format: accelsim.space/1
base: {arch: two, model: small, plan: eight}
axes:
  plan: [eight, mixed]
  accelerator.engines.mult.pixel_groups: [1, 2, 3, 4, 5, 6]
  accelerator.activation_buffer.capacity_bits: [1048576, 4194304, 8388608, 16777216]
"""
DESIGNS = 48
BATCH = 3
LARGE_SPACE = SPACE.replace("[1, 2, 3, 4, 5, 6]", str(list(range(1, 33))))
LARGE = 256
DRIVER = """\
import sys
from codesign import runner, search
from codesign.runner import run_sweep
from codesign.search import Search, run_search
from codesign.space import load_space
from tests.support.design_fakes import CATALOG, slow_evaluate

# The version hashes the sources, which a developer may edit while the test runs.
runner.program_version = search.program_version = lambda: "test"

if __name__ == "__main__":
    space = load_space(sys.argv[1], CATALOG)
    print("ready", flush=True)
    workers = int(sys.argv[3])
    try:
        if sys.argv[4:]:
            settings = Search(sys.argv[4], ("latency_s", "area_mm2"), int(sys.argv[5]), 5, {}, 12)
            run_search(space, sys.argv[2], settings, workers, slow_evaluate, CATALOG)
        else:
            run_sweep(space, sys.argv[2], workers, slow_evaluate, catalog=CATALOG, batch_size=3)
    except KeyboardInterrupt:
        sys.exit(130)
"""


class Driver:
    """Runs the sweep of `tmp_path` in a process of its own."""

    def __init__(self, folder, space=SPACE, words=(), script=DRIVER):
        self.folder = folder
        self.words = words
        self.study = folder / "a.sqlite"
        (folder / "pids").mkdir()
        (folder / "space.yaml").write_text(space)
        (folder / "driver.py").write_text(script)

    def start(self, workers=1, sleep_s=0.01):
        command = [sys.executable, "driver.py", "space.yaml", "a.sqlite", str(workers), *self.words]
        more = {"PYTHONPATH": str(ROOT), "FAKE_SLEEP_S": str(sleep_s), "FAKE_PIDS": str(self.folder / "pids")}
        process = subprocess.Popen(command, cwd=self.folder, env=os.environ | more, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        return process

    def finish(self, process, expected):
        process.stdout.close()
        assert process.wait(timeout=60) == expected

    def rows(self):
        return self.rows_of(self.study)

    @staticmethod
    def rows_of(path):
        """Stored rows by key, without their time; an absent file is an empty study."""
        if not path.exists() or not path.stat().st_size:
            return {}
        with read_study(path) as study:
            assert study.check() == "ok"
            return {row["key"]: {k: v for k, v in row.items() if k != "created_utc"} for row in study.rows()}

    def wait_for_rows(self, count):
        end_s = time.monotonic() + 30
        while len(self.rows()) < count:
            assert time.monotonic() < end_s
            time.sleep(0.01)


@pytest.fixture
def driver(tmp_path):
    return Driver(tmp_path)


@pytest.fixture
def uninterrupted(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "program_version", lambda: "test")
    (tmp_path / "plain").mkdir()
    plain = Driver(tmp_path / "plain")
    run_sweep(load_space(plain.folder / "space.yaml", CATALOG), plain.study, 1, evaluate, catalog=CATALOG)
    rows = plain.rows()
    assert len(rows) == DESIGNS
    return rows


def test_killed_at_random_moments_and_resumed(driver, uninterrupted):
    moments = random.Random(5)
    before, partial = {}, 0
    for turn in range(8):
        process = driver.start(sleep_s=0.03)
        # Every other kill comes after progress, the others also hit the start and the creation of the file.
        if turn % 2 and len(before) < DESIGNS:
            driver.wait_for_rows(len(before) + 1)
        time.sleep(moments.uniform(0.0, 0.2))
        process.kill()
        process.stdout.close()
        # The last rounds may have finished first.
        assert process.wait() in (-signal.SIGKILL, 0)
        rows = driver.rows()
        assert all(rows[key] == row for key, row in before.items())
        assert all(uninterrupted[key] == row for key, row in rows.items())
        partial += 0 < len(rows) < DESIGNS
        before = rows
    assert partial >= 2
    driver.finish(driver.start(sleep_s=0), 0)
    assert driver.rows() == uninterrupted


def kill_at_random_moments(driver, expected, seed, kills, workers):
    """Kills at moments of a seed, some after new rows; then a run to the end gives `expected`."""
    before, moments = {}, random.Random(seed)
    for _ in range(kills):
        process = driver.start(workers, sleep_s=0.05)
        driver.wait_for_rows(min(len(expected), len(before) + moments.randrange(0, len(expected) // 2 // kills)))
        time.sleep(moments.uniform(0.0, 0.2))
        process.kill()
        process.stdout.close()
        assert process.wait() in (-signal.SIGKILL, 0)
        rows = driver.rows()
        assert before.items() <= rows.items() <= expected.items()
        before = rows
    assert 0 < len(before) < len(expected)
    driver.finish(driver.start(workers, sleep_s=0), 0)
    assert driver.rows() == expected


def test_ten_kills_of_a_sweep_with_two_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "program_version", lambda: "test")
    space = tmp_path / "large.yaml"
    space.write_text(LARGE_SPACE)
    run_sweep(load_space(space, CATALOG), tmp_path / "plain", 1, evaluate, catalog=CATALOG)
    expected = Driver.rows_of(tmp_path / "plain")
    assert len(expected) == LARGE
    (tmp_path / "killed").mkdir()
    kill_at_random_moments(Driver(tmp_path / "killed", LARGE_SPACE), expected, seed=11, kills=10, workers=2)


@pytest.mark.parametrize("name", ["nsga2", "bottleneck"])
def test_five_kills_of_a_search(tmp_path, monkeypatch, name):
    monkeypatch.setattr(runner, "program_version", lambda: "test")
    monkeypatch.setattr(search, "program_version", lambda: "test")
    space = tmp_path / "large.yaml"
    space.write_text(LARGE_SPACE)
    settings = Search(name, ("latency_s", "area_mm2"), 150, 5, {}, 12)
    plain = run_search(load_space(space, CATALOG), tmp_path / "plain", settings, 1, evaluate, CATALOG)
    (tmp_path / "killed").mkdir()
    driver = Driver(tmp_path / "killed", LARGE_SPACE, (name, "150"))
    kill_at_random_moments(driver, Driver.rows_of(tmp_path / "plain"), seed=12, kills=5, workers=1)
    again = run_search(load_space(space, CATALOG), driver.study, settings, 1, evaluate, CATALOG)
    assert again.evaluated == 0
    assert again.front == plain.front
    assert [row["hypervolume"] for row in again.history] == [row["hypervolume"] for row in plain.history]


def test_a_kill_loses_at_most_the_batch_in_flight(driver):
    process = driver.start(sleep_s=0.02)
    driver.wait_for_rows(2 * BATCH)
    process.kill()
    driver.finish(process, -signal.SIGKILL)
    assert len(driver.rows()) % BATCH == 0


def test_workers_end_with_a_killed_parent(driver, uninterrupted):
    process = driver.start(workers=2, sleep_s=0.05)
    driver.wait_for_rows(BATCH)
    process.kill()
    driver.finish(process, -signal.SIGKILL)
    workers = [int(path.name) for path in (driver.folder / "pids").iterdir()]
    assert workers
    assert process.pid not in workers
    end_s = time.monotonic() + 20
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < end_s
        time.sleep(0.05)
    driver.finish(driver.start(workers=2, sleep_s=0), 0)
    assert driver.rows() == uninterrupted


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_stores_what_is_finished(driver, uninterrupted, workers):
    process = driver.start(workers, sleep_s=0.05)
    driver.wait_for_rows(BATCH)
    process.send_signal(signal.SIGINT)
    driver.finish(process, 130)
    assert BATCH <= len(driver.rows()) < DESIGNS
    driver.finish(driver.start(sleep_s=0), 0)
    assert driver.rows() == uninterrupted


def alive(pid):
    """Whether a process still runs; one that ended but was not collected by its new parent does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return not Path("/proc").exists()
