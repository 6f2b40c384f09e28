"""Searches: they find the front of a known grid, obey limits, repeat themselves, and go on where they stopped."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from accelsim.problems import AccelsimError
from codesign.cli import main
from codesign.pareto import pareto_front
from codesign.runner import run_sweep
from codesign.search import NO_DESIGN, Search, _results, _State, hypervolume, run_search
from codesign.searchers.nsga import _Cross, _Mutate
from codesign.searchers.registry import Design, Informed, Setup, Variables, searchers
from codesign.space import load_space
from codesign.store import METRICS, read_study
from tests.support.design_fakes import CATALOG, evaluate

GRID = """\
format: accelsim.space/1
base: {arch: m2vit, model: efficientvit_b0, resolution: 32}
axes:
  plan: [uniform8, w4a8, m2q]
  accelerator.engines.mult.pixel_groups: [1, 2, 4, 8, 16]
  accelerator.engines.shift.pixel_groups: [1, 2, 4, 8, 16]
  accelerator.engines.mult.lanes: [4, 8, 16]
  accelerator.dram.bandwidth_bits_per_s: [25.6e9, 51.2e9, 102.4e9, 204.8e9]
"""
FAKE = """\
format: accelsim.space/1
base: {model: small, plan: eight}
axes:
  arch: [one, two]
  plan: [eight, mixed]
  accelerator.engines.mult.pixel_groups: [1, 2, 3, 4, 5, 6, 8, 10, 12, 16]
  accelerator.engines.shift.pixel_groups: [default, 1, 4, 16]
  accelerator.activation_buffer.capacity_bits: [524288, 1048576, 2097152, 4194304]
"""
NAMES = tuple(searchers())
THREE = ("latency_s", "energy_pj", "area_mm2")


def space_of(tmp_path, text):
    (tmp_path / "space.yaml").write_text(text)
    return load_space(tmp_path / "space.yaml", CATALOG if text is FAKE else None)


def rows(path):
    with read_study(path) as study:
        assert study.check() == "ok"
        return [{k: v for k, v in row.items() if k != "created_utc"} for row in study.rows()]


def without_time(found):
    history = [{k: v for k, v in row.items() if k != "elapsed_s"} for row in found.history]
    return history, found.front, found.reference, found.looked_at


@pytest.fixture
def fake(tmp_path):
    """Runs a search of the space of formulas, by default in this process."""
    space = space_of(tmp_path, FAKE)

    def run(name, search, workers=1, evaluate=evaluate):
        return run_search(space, tmp_path / name, search, workers, evaluate, CATALOG)

    return run


def test_nsga2_finds_the_front_of_a_known_grid(tmp_path):
    space = space_of(tmp_path, GRID)
    run_sweep(space, tmp_path / "grid", workers=1)
    limits = {"area_mm2": 1.7, "power_w": 1.0}
    designs = [row for row in rows(tmp_path / "grid") if row["status"] == "ok"]
    allowed = [row for row in designs if all(row[name] <= limit for name, limit in limits.items())]
    assert 100 < len(allowed) < len(designs)
    costs = np.array([[row["latency_s"], row["energy_pj"]] for row in allowed])
    reference = dict(zip(("latency_s", "energy_pj"), (1.1 * costs.max(axis=0)).tolist(), strict=True))
    whole = hypervolume(costs[pareto_front(costs)], np.array(list(reference.values())))
    for seed in range(3):
        # A tenth of the grid.
        search = Search("nsga2", tuple(reference), 90, seed, limits, 20, reference)
        found = run_search(space, tmp_path / "grid", search, workers=1)
        assert (found.evaluated, found.looked_at) == (0, 90)
        assert found.history[-1]["hypervolume"] >= 0.95 * whole
        assert found.front
        assert all(design[name] <= limit for design in found.front.values() for name, limit in limits.items())
    # The limits matter: without them the front has designs that they forbid.
    free = np.array([[row["latency_s"], row["energy_pj"]] for row in designs])
    best = [row for row, on_front in zip(designs, pareto_front(free), strict=True) if on_front]
    assert any(row[name] > limit for row in best for name, limit in limits.items())


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_one_sequence(fake, tmp_path, name):
    def sequence(study, seed, workers=1):
        asked = []

        def recording(*design):
            asked.append((design[2].fingerprint(), design[3].name))
            return evaluate(*design)

        search = Search(name, THREE, 60, seed, {"area_mm2": 0.5}, 12)
        found = fake(study, search, workers, recording if workers == 1 else evaluate)
        return asked, without_time(found), rows(tmp_path / study)

    first = sequence("a", 7)
    assert len(first[0]) == first[1][3] == 60
    assert sequence("b", 7) == first
    assert sequence("c", 7, workers=2)[1:] == first[1:]
    assert sequence("d", 8)[2] != first[2]


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_search_ends_as_if_it_had_not_been(fake, tmp_path, name):
    search = Search(name, THREE, 50, 3, {"area_mm2": 0.5}, 12)
    whole = fake("whole", search)
    calls = itertools.count()

    def interrupted(*design):
        if next(calls) in (5, 17, 30):
            raise KeyboardInterrupt
        return evaluate(*design)

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            fake("a", search, 1, interrupted)
    again = fake("a", search, 1, interrupted)
    assert 0 < again.evaluated < whole.evaluated
    assert without_time(again) == without_time(whole)
    assert rows(tmp_path / "a") == rows(tmp_path / "whole")
    # And what is complete is only replayed, with the seconds that it took.
    replayed = fake("a", search, 1, lambda *design: pytest.fail("evaluated again"))
    assert (replayed.evaluated, replayed.history) == (0, again.history)


def test_failed_designs_are_told_and_tried_again(fake):
    def faulty(model, resolution, design, quant_plan, mapper):
        if quant_plan.name == "mixed":
            raise ZeroDivisionError("oops")
        return evaluate(model, resolution, design, quant_plan, mapper)

    search = Search("random", THREE, 40, 1, {}, 12)
    first = fake("a", search, 1, faulty)
    assert 0 < first.failed < 40
    again = fake("a", search)
    assert (again.failed, again.evaluated) == (0, first.failed)
    assert again.front == fake("b", search).front


def test_a_larger_budget_goes_on(fake):
    small = fake("a", Search("nsga2", THREE, 36, 1, {}, 12))
    large = fake("a", Search("nsga2", THREE, 60, 1, {}, 12))
    assert large.evaluated == 60 - small.evaluated
    assert without_time(large) == without_time(fake("b", Search("nsga2", THREE, 60, 1, {}, 12)))
    # The last generation of the small budget was cut short.
    assert large.history[: len(small.history) - 1] == small.history[:-1]


@pytest.mark.parametrize("name", NAMES)
def test_a_search_of_a_whole_space_ends(fake, tmp_path, name):
    if name == "tpe":
        pytest.skip("takes a minute for a whole space")
    found = fake("a", Search(name, THREE, 10_000, 0, {}, 30))
    stored = rows(tmp_path / "a")
    # Points that are no design (`one` has no shift array) or equal to another are not looked at.
    assert found.looked_at == found.evaluated == len(stored) > 100
    ok = [row for row in stored if row["status"] == "ok"]
    costs = np.array([[row[metric] for metric in THREE] for row in ok])
    best = {row["key"] for row, on_front in zip(ok, pareto_front(costs), strict=True) if on_front}
    if name == "random":
        assert set(found.front) == best
    assert found.history[-1]["hypervolume"] <= 1


def test_violations_tell_how_far_a_design_is():
    class Fake:
        def __init__(self, key):
            self.key = key

    metrics = {"latency_s": 2.0, "energy_pj": 3.0, "area_mm2": 4.0}
    seen = {
        "good": {"status": "ok", "shortage": None, **metrics},
        "near": {"status": "infeasible", "shortage": 0.25},
        "far": {"status": "infeasible", "shortage": 3.0},
        "unknown": {"status": "infeasible", "shortage": None},
        "wrong": {"status": "invalid", "shortage": None},
    }
    search = Search("nsga2", ("latency_s", "energy_pj"), 9, 0, {"area_mm2": 2.0})
    objectives, violations = _results([*(Fake(key) for key in seen), None], _State(seen), search)
    assert violations.tolist() == [[0, 1], [1.25, 0], [4, 0], [11, 0], [NO_DESIGN, 0], [NO_DESIGN, 0]]
    assert objectives[0].tolist() == [2, 3]
    assert np.isfinite(objectives).all()
    assert (objectives[1:] > 1e50).all()


@pytest.mark.parametrize("corner", [(1.5, 1.0), (1.5, 1.0, 2.0)])
def test_hypervolume_is_the_dominated_share_of_the_box(corner):
    points = np.random.default_rng(0).random((40, len(corner))) * 2
    # Cells between all coordinates, each counted when a point dominates its lower corner.
    edges = [np.unique(np.clip(np.append(points[:, k], [0, end]), 0, end)) for k, end in enumerate(corner)]
    cells = itertools.product(*(range(len(edge) - 1) for edge in edges))
    volume = 0.0
    for cell in cells:
        low = np.array([edge[place] for edge, place in zip(edges, cell, strict=True)])
        if (points <= low).all(axis=1).any():
            volume += np.prod([edge[place + 1] - edge[place] for edge, place in zip(edges, cell, strict=True)])
    assert hypervolume(points, np.array(corner)) == pytest.approx(volume / np.prod(corner))
    assert hypervolume([], None) == 0.0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sizes", [(1,), (7,), (2, 3, 1), (5, 4, 3, 2)])
def test_searchers_ask_for_designs_of_the_space_and_never_twice(name, sizes):
    searcher = searchers()[name](Setup(Variables(sizes, tuple(k % 2 == 0 for k in range(len(sizes)))), 2, 1, 8, 4))
    asked = []
    while len(genes := searcher.ask()):
        assert len(asked) < np.prod(sizes)
        assert ((genes >= 0) & (genes < np.array(sizes))).all()
        asked += [tuple(row) for row in genes.tolist()]
        costs = np.stack([genes.sum(axis=1), (np.array(sizes) - genes).sum(axis=1)], axis=1).astype(float)
        if isinstance(searcher, Informed):
            searcher.learn([Design(None, None)] * len(genes))
        searcher.tell(genes, costs, np.zeros((len(genes), 1)))
    assert len(asked) == len(set(asked))
    assert len(asked) >= 0.9 * np.prod(sizes)


def test_operators_keep_categories_and_spread_numbers():
    ordered = np.array([False, True])
    problem = SimpleNamespace(n_var=2, xl=np.zeros(2), xu=np.array([9, 9]))
    parents = np.array([np.full((400, 2), 2), np.full((400, 2), 7)])
    children = _Cross(ordered)._do(problem, parents, random_state=np.random.default_rng(0))
    # A pair of children has the two categories of its parents; numbers come from around and between them.
    assert (np.sort(children[:, :, 0], axis=0) == np.array([[2], [7]])).all()
    assert (children[0, :, 0] == 7).any()
    assert (children[0, :, 0] == 2).any()
    assert set(children[:, :, 1].ravel().tolist()) >= {1, 2, 3, 6, 7, 8}
    mutants = _Mutate(ordered)._do(problem, np.full((800, 2), 5), random_state=np.random.default_rng(0))
    assert set(mutants[:, 0].tolist()) == set(range(10))
    counts = np.bincount(mutants[:, 1], minlength=10)
    assert counts[5] > counts[4] > counts[2] > 0
    assert counts[5] > counts[6] > counts[8] > 0


@pytest.mark.parametrize(
    ("words", "complaints"),
    [
        (["--searcher", "nsga4"], ["unknown searcher 'nsga4'", "nsga2"]),
        (["--objectives", "latency_s"], ["two or more different ones"]),
        (["--objectives", "latency_s,energy_pi"], ["unknown metric 'energy_pi'", "try: energy_pj"]),
        (["--limit", "area=2"], ["unknown metric 'area'"]),
        (["--limit", "area_mm2"], ["METRIC=VALUE"]),
        (["--limit", "area_mm2=-1", "--limit", "power_w=nan"], ["area_mm2 is -1", "power_w is nan"]),
        (["--reference", "latency_s=1"], ["names latency_s"]),
        (["--history", "no/such/folder.csv"], ["no folder"]),
    ],
)
def test_bad_settings_are_problems(tmp_path, capsys, words, complaints):
    (tmp_path / "space.yaml").write_text(GRID)
    command = ["search", str(tmp_path / "space.yaml"), "-o", str(tmp_path / "a"), "--budget", "5", *words]
    assert main(command) == 2
    errors = capsys.readouterr().err
    assert all(complaint in errors for complaint in complaints), errors
    assert not (tmp_path / "a").exists()


def test_a_metric_that_designs_do_not_have_is_named(tmp_path, capsys):
    """The predicted loss is one of a co-design's designs only."""
    (tmp_path / "space.yaml").write_text(
        "format: accelsim.space/1\nbase: {arch: m2vit, plan: uniform8, model: digits_hybrid}\n"
        "axes: {accelerator.clock_hz: [100000000, 200000000]}\n"
    )
    words = ["search", str(tmp_path / "space.yaml"), "-o", str(tmp_path / "s.sqlite"), "--workers", "1"]
    words += ["--searcher", "random", "--budget", "2", "--population", "2"]
    assert main([*words, "--objectives", "edp_pj_s,predicted_loss"]) == 2
    assert "have no predicted_loss" in capsys.readouterr().err
    assert main([*words, "--objectives", "edp_pj_s,area_mm2", "--limit", "predicted_loss=1"]) == 2
    assert "have no predicted_loss" in capsys.readouterr().err


def test_networks_do_not_compete(tmp_path):
    space = space_of(tmp_path, GRID.replace("axes:\n", "axes:\n  resolution: [32, 64]\n"))
    with pytest.raises(AccelsimError, match="different networks do not compete"):
        run_search(space, tmp_path / "a", Search("nsga2", THREE, 5))


def test_the_command_prints_and_writes_the_hypervolume(tmp_path, capsys):
    (tmp_path / "space.yaml").write_text(GRID)
    command = ["search", str(tmp_path / "space.yaml"), "-o", str(tmp_path / "a"), "--budget", "24", "--workers", "1",
               "--population", "8", "--limit", "area_mm2=2", "--history", str(tmp_path / "h.csv")]  # fmt: skip
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "24 designs looked at, 24 evaluated, 0 failed" in printed
    lines = (tmp_path / "h.csv").read_text().splitlines()
    columns = "generation,evaluations,elapsed_s,hypervolume,front_size,least,reference.latency_s,reference.energy_pj"
    assert lines[0] == columns
    assert lines[-1].split(",")[1] == "24"
    assert "power_w" in [name for name, _, _ in METRICS]
