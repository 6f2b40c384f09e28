"""Studies with the exhaustive mapper: the numbers of the API, whoever computes them and however often it is killed."""

import csv
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from accelsim.api import evaluate
from accelsim.config import load_plan
from accelsim.mappers.choice import mapper_of
from codesign import runner
from codesign.catalog import default_catalog
from codesign.cli import main
from codesign.export import flat_table
from codesign.merge import merge_studies
from codesign.pareto import front_mask
from codesign.runner import run_sweep
from codesign.search import Search, run_search
from codesign.space import load_space
from codesign.store import read_study
from tests.e2e.test_kill import Driver

SPACE = """\
format: accelsim.space/1
base: {arch: m2vit, model: efficientvit_b0, resolution: 32}
axes:
  mapper: [heuristic, exhaustive, 'exhaustive:energy', 'exhaustive:edp:steady']
  plan: [uniform8, m2q]
  accelerator.weight_buffer.capacity_bits: [65536, 2097152]
"""
MAPPERS = ("heuristic", "exhaustive:latency", "exhaustive:energy", "exhaustive:edp:steady")
DESIGNS = 16
# As in tests/e2e/test_kill.py, with the simulator itself.
DRIVER = """\
import sys
from codesign import runner
from codesign.runner import run_sweep
from codesign.space import load_space
from tests.support.design_fakes import slow_simulate

runner.program_version = lambda: "test"

if __name__ == "__main__":
    space = load_space(sys.argv[1])
    print("ready", flush=True)
    run_sweep(space, sys.argv[2], int(sys.argv[3]), slow_simulate, batch_size=2)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with `space.yaml` and its study `one`, computed in this process."""
    folder = tmp_path_factory.mktemp("mappers")
    (folder / "space.yaml").write_text(SPACE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "program_version", lambda: "test")
        assert run_sweep(load_space(folder / "space.yaml"), folder / "one", 1).evaluated == DESIGNS
    return folder


def ok_rows(path):
    return [row for row in Driver.rows_of(path).values() if row["status"] == "ok"]


def test_rows_are_those_of_the_api(place):
    space, catalog = load_space(place / "space.yaml"), default_catalog()
    found = ok_rows(place / "one")
    assert {row["mapper"] for row in found} == set(MAPPERS)
    for row in found:
        point = space.point(row["point"])
        mapper, plan = mapper_of(row["mapper"]), load_plan(point.plan)
        report = evaluate(point.model, point.resolution, point.accelerator(catalog), plan, mapper=mapper)
        metrics = report.metrics()
        assert (report.found is not None) == mapper.exhaustive
        assert row["cycles"] == metrics["cycles_total"]
        assert [row[name] for name in ("energy_pj", "edp_pj_s", "dram_read_bits")] == [
            metrics[name] for name in ("energy_pj", "edp_pj_s", "dram_read_bits")
        ]


def test_each_mapper_is_no_worse_in_what_it_minimizes(place):
    by_design = {}
    for row in ok_rows(place / "one"):
        design = row["plan"], row["accelerator.weight_buffer.capacity_bits"]
        by_design.setdefault(design, {})[row["mapper"]] = row
    better = 0
    for found in by_design.values():
        fast, frugal, plain = (found[name] for name in ("exhaustive:latency", "exhaustive:energy", "heuristic"))
        assert fast["cycles"] <= plain["cycles"]
        assert frugal["energy_pj"] <= plain["energy_pj"]
        better += (fast["cycles"] < plain["cycles"]) + (frugal["energy_pj"] < plain["energy_pj"])
    assert better


def test_rows_do_not_depend_on_who_computes_them(place, monkeypatch):
    monkeypatch.setattr(runner, "program_version", lambda: "test")
    space = load_space(place / "space.yaml")
    run_sweep(space, place / "two", 2, batch_size=3)
    assert Driver.rows_of(place / "two") == Driver.rows_of(place / "one")
    merge_studies(place / "both", [place / "one", place / "two"])
    assert Driver.rows_of(place / "both") == Driver.rows_of(place / "one")


def test_threads_share_the_memo(place):
    with ThreadPoolExecutor(3) as pool:
        run_sweep(load_space(place / "space.yaml"), place / "threads", executor=pool, batch_size=1)
    of = [{key: row for key, row in own.items() if key not in ("key", "program")} for own in ok_rows(place / "one")]
    assert [
        {key: row for key, row in own.items() if key not in ("key", "program")} for own in ok_rows(place / "threads")
    ] == of


def test_killed_and_resumed(place, tmp_path):
    driver = Driver(tmp_path, SPACE, script=DRIVER)
    expected = Driver.rows_of(place / "one")
    process = driver.start(sleep_s=0.05)
    driver.wait_for_rows(6)
    process.kill()
    driver.finish(process, -signal.SIGKILL)
    before = driver.rows()
    assert 6 <= len(before) < DESIGNS
    driver.finish(driver.start(sleep_s=0), 0)
    assert driver.rows() == expected
    assert before.items() <= expected.items()


def test_a_search_takes_the_mapper_as_a_category(place, tmp_path):
    space = load_space(place / "space.yaml")
    settings = Search("random", ("latency_s", "energy_pj"), 100, population=8)
    found = run_search(space, tmp_path / "found", settings, workers=1)
    assert found.looked_at == found.evaluated == DESIGNS
    with read_study(tmp_path / "found") as study:
        rows = study.rows()
    assert set(found.front) == {row["key"] for row, on_front in zip(rows, front_mask(rows), strict=True) if on_front}
    # What a search evaluated, a sweep of the same file finds stored.
    assert run_sweep(space, tmp_path / "found", 1).evaluated == 0


def test_tables_and_pictures_name_the_mapper(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    study = str(place / "one")
    with read_study(study) as found:
        assert set(flat_table(found.rows())["mapper"]) == set(MAPPERS)
    assert main(["pareto", study, "-o", "front.svg"]) == 0
    printed = capsys.readouterr().out
    assert any(f"m2q, {mapper}, " in printed for mapper in MAPPERS)
    assert "<!-- m2vit, m2q, exhaustive:energy (1) -->" in (tmp_path / "front.svg").read_text(encoding="utf-8")
    assert main(["plot", "sensitivity", study, "-o", "s.png"]) == 0
    with open("s.csv", newline="", encoding="utf-8") as stream:
        assert {line["value"] for line in csv.DictReader(stream) if line["axis"] == "mapper"} == set(MAPPERS)
    assert main(["plot", "parallel", study, "-o", "p.svg"]) == 0
    assert "<!-- exhaustive:latency -->" in (tmp_path / "p.svg").read_text(encoding="utf-8")


def test_the_command_resumes(place, tmp_path, capsys):
    command = ["sweep", str(place / "space.yaml"), "-o", str(tmp_path / "a"), "--workers", "1"]
    assert main(command) == 0
    assert f"{DESIGNS} evaluated" in capsys.readouterr().out
    assert main(command) == 0
    assert "0 evaluated" in capsys.readouterr().out
