"""The bottleneck-guided searcher: the busy unit decides what is proposed, experience corrects it, limits hold."""

import math
import sys
from dataclasses import replace

import numpy as np
import pytest

from accelsim.area import accelerator_area
from accelsim.config import load_accelerator
from accelsim.counts import count_columns
from accelsim.problems import AccelsimError
from codesign.search import Search, check_search, run_search
from codesign.searchers import registry
from codesign.searchers.bottleneck import Bottleneck
from codesign.searchers.registry import Design, Setup, Variables, searchers
from codesign.space import load_space
from codesign.store import read_study
from codesign.what_if import Change, Role, effects, predicted, role_of, state_of

CYCLES = 1_000_000
UNITS = ("mult", "second", "vector", "dram")
AXES = {
    "plan": ("uniform8", "m2q"),
    "accelerator.mult_groups": (4, 8, 16, 32),
    "accelerator.mult_outputs": (32, 64, 128, 256),
    "accelerator.second_groups": (4, 8, 16, 32),
    "accelerator.vector_lanes": (32, 64, 128, 256),
    "accelerator.weight_buffer_bits": (1 << 20, 1 << 21, 1 << 22, 1 << 23),
    "accelerator.bandwidth_bits_per_s": (38.4e9, 76.8e9, 153.6e9, 307.2e9),
}
BASE = load_accelerator("m2vit")
ACCELERATOR = BASE.replace(engines=(BASE.engines[0], replace(BASE.engines[1], name="second")))
START = (0, 1, 1, 1, 1, 1, 1)


def outcome(busy, outputs=0, energy=None, **metrics):
    """A stored design whose units are busy for shares of its time; `outputs` is the share that `mult` drains."""
    counts = dict.fromkeys(count_columns(ACCELERATOR), 0)
    stage = ACCELERATOR.engines[0].output_stage.outputs_per_cycle
    counts["mult.outputs"] = int(outputs * busy.get("mult", 0) * CYCLES * stage)
    energy = energy or {"mult.products": 8e8, "second.leakage": 1e8, "dram.read": 1e8}
    found = {"latency_s": 5e-3, "area_mm2": accelerator_area(ACCELERATOR).total_mm2, "energy_pj": sum(energy.values())}
    return {
        "status": "ok",
        "cycles": CYCLES,
        "busy_cycles": {unit: int(share * CYCLES) for unit, share in busy.items()},
        "counts": list(counts.values()),
        "energy_by_component_pj": energy,
        **found,
        **metrics,
    }


BUSY = [
    ({"dram": 0.95, "mult": 0.3, "second": 0.2}, 0, "accelerator.bandwidth_bits_per_s"),
    ({"dram": 0.2, "mult": 0.95, "second": 0.3}, 0, "accelerator.mult_groups"),
    ({"dram": 0.2, "mult": 0.95, "second": 0.3}, 1, "accelerator.mult_outputs"),
    ({"dram": 0.2, "mult": 0.3, "second": 0.95}, 0, "accelerator.second_groups"),
    ({"dram": 0.2, "mult": 0.3, "vector": 0.95}, 0, "accelerator.vector_lanes"),
    # No unit is busy: they wait for room.
    ({"dram": 0.1, "mult": 0.1, "second": 0.1}, 0, "accelerator.weight_buffer_bits"),
]


@pytest.mark.parametrize(("busy", "outputs", "axis"), BUSY)
def test_the_busy_unit_is_worth_most(busy, outputs, axis):
    state = state_of(ACCELERATOR, outcome(busy, outputs))
    names = [name for name in AXES if name != "plan"]
    grown = effects(state, [Change(role_of(name, UNITS), 2.0) for name in names])
    time = dict(zip(names, predicted(state, grown)["latency_s"], strict=True))
    assert min(time, key=time.get) == axis
    assert time[axis] < -0.1


@pytest.mark.parametrize(("busy", "outputs", "axis"), BUSY)
def test_the_first_proposal_relieves_the_bottleneck(busy, outputs, axis):
    searcher = started(outcome(busy, outputs), ("latency_s", "energy_pj"))
    first = searcher.ask()[0]
    grown = [name for name, old, new in zip(AXES, START, first, strict=True) if new > old]
    assert axis in grown, dict(zip(AXES, first, strict=True))


def started(found, costs, limits=None):
    """A searcher that knows one design, at START."""
    limits = limits or {}
    sizes = tuple(len(values) for values in AXES.values())
    variables = Variables(sizes, tuple(name != "plan" for name in AXES), tuple(AXES), tuple(AXES.values()))
    searcher = Bottleneck(Setup(variables, len(costs), 1 + len(limits), 40, 0, costs, tuple(limits)))
    searcher.ask()
    searcher.learn([Design(ACCELERATOR, found)])
    violations = [0.0, *(found[name] / limit - 1 for name, limit in limits.items())]
    searcher.tell(np.array([START]), np.array([[found[name] for name in costs]]), np.array([violations]))
    return searcher


def test_over_the_area_limit_the_idle_unit_shrinks():
    busy = {"dram": 0.3, "mult": 0.9, "second": 0.01, "vector": 0.3}
    found = outcome(busy)
    limit = found["area_mm2"] * 0.93
    searcher = started(found, ("latency_s", "energy_pj"), {"area_mm2": limit})
    first = dict(zip(AXES, searcher.ask()[0].tolist(), strict=True))
    assert first["accelerator.second_groups"] == 0
    assert first["accelerator.mult_groups"] >= 1
    # An idle unit costs no time, a busy one does.
    state = state_of(ACCELERATOR, found)
    halved = effects(state, [Change(Role("size", unit), 0.5) for unit in ("second", "mult")])
    idle, needed = predicted(state, halved)["latency_s"]
    assert abs(idle) < 0.01 < needed
    assert (predicted(state, halved)["area_mm2"] < 0).all()


def test_predictions_follow_the_parts():
    busy = {"dram": 0.5, "mult": 0.5, "second": 0.5, "vector": 0.5}
    state = state_of(ACCELERATOR, outcome(busy))
    found = predicted(state, effects(state, [Change(Role("clock"), 2.0), Change(Role("size", "second"), 0.0), None]))
    # Twice the clock: half the time of all but the bus.
    assert -math.log(2) < found["latency_s"][0] < 0
    assert found["cycles"][0] > 0
    # Without an engine its area goes.
    parts = accelerator_area(ACCELERATOR)
    left = 1 - sum(mm2 for name, mm2 in parts.by_component_mm2.items() if name.startswith("second.")) / parts.total_mm2
    assert found["area_mm2"][1] == pytest.approx(math.log(left))
    assert all(abs(values[2]) < 1e-8 for values in found.values())
    assert found["edp_pj_s"][0] == pytest.approx(found["energy_pj"][0] + found["latency_s"][0])


@pytest.mark.parametrize(
    ("axis", "role"),
    [
        ("accelerator.engines.second.pixel_groups", Role("size", "second")),
        ("accelerator.engines.1.lanes", Role("size", "second")),
        ("accelerator.engines.mult.output_stage.outputs_per_cycle", Role("outputs", "mult")),
        ("accelerator.mult_width", Role("size", "mult")),
        ("accelerator.dram.bandwidth_bits_per_s", Role("bus", "dram")),
        ("accelerator.dram.channels", Role("bus", "dram")),
        ("accelerator.activation_buffer.capacity_bits", Role("buffer", "activation_buffer")),
        ("accelerator.vector.mul_per_cycle", Role("vector", "vector")),
        ("accelerator.clock_hz", Role("clock")),
        ("accelerator.mult_bits", None),
        ("accelerator.second", None),
        ("accelerator.accumulator_bits", None),
        ("plan", None),
    ],
)
def test_what_an_axis_means(axis, role):
    assert role_of(axis, UNITS) == role


def test_experience_corrects_an_unknown_axis():
    """A plan that was seen to halve everything is proposed everywhere; one that doubled it nowhere first."""
    for factor, share in ((0.5, 1.0), (2.0, 0.0)):
        searcher = started(outcome({"dram": 0.9, "mult": 0.3}), ("latency_s", "energy_pj"))
        step = (0, 0, 1)
        searcher._residuals[step] = [np.full(2, math.log(factor))] * 8
        proposed = searcher._proposed(6, [START])
        assert np.mean([digits[0] for digits in proposed]) == share


def test_it_never_asks_twice_and_uses_up_the_space():
    sizes = (3, 4, 4)
    names = tuple(AXES)[1:4]
    variables = Variables(
        sizes, (True,) * 3, names, tuple(AXES[name][:size] for name, size in zip(names, sizes, strict=True))
    )
    searcher = Bottleneck(Setup(variables, 2, 1, 8, 1, ("latency_s", "area_mm2")))
    asked = []
    while len(genes := searcher.ask()):
        asked += [tuple(row) for row in genes.tolist()]
        found = outcome({"dram": 0.4, "mult": 0.9})
        searcher.learn([Design(ACCELERATOR, found)] * len(genes))
        costs = 1.0 + np.stack([np.sum(np.array(sizes) - genes, axis=1), np.sum(genes, axis=1)], axis=1)
        searcher.tell(genes, costs, np.zeros((len(genes), 1)))
    assert len(asked) == len(set(asked)) == math.prod(sizes)


SPACE = """\
format: accelsim.space/1
base: {arch: "template:heterogeneous", model: efficientvit_b0, resolution: 64}
axes:
  plan: [uniform8, m2q]
  accelerator.mult_groups: [2, 4, 8, 16]
  accelerator.second_groups: [0, 2, 4, 8, 16]
  accelerator.mult_outputs: [32, 64, 128]
  accelerator.vector_lanes: [16, 32, 64, 128]
"""


def test_designs_over_the_area_limit_are_not_simulated(tmp_path):
    (tmp_path / "space.yaml").write_text(SPACE)
    space = load_space(tmp_path / "space.yaml")
    limit = 1.3
    for name in ("nsga2", "bottleneck"):
        found = run_search(
            space, tmp_path / name, Search(name, ("latency_s", "energy_pj"), 60, 0, {"area_mm2": limit}), workers=1
        )
        assert 0 < found.over_limit == found.looked_at - found.evaluated
        with read_study(tmp_path / name) as study:
            stored = study.rows()
        assert len(stored) == found.evaluated
        assert all(row["area_mm2"] <= limit for row in stored)
        assert found.front
        # The same search again neither simulates nor changes anything.
        again = run_search(
            space, tmp_path / name, Search(name, ("latency_s", "energy_pj"), 60, 0, {"area_mm2": limit}), workers=1
        )
        assert (again.evaluated, again.over_limit, again.front) == (0, found.over_limit, found.front)


def test_without_optuna_the_other_searchers_are_there(monkeypatch, tmp_path):
    (tmp_path / "space.yaml").write_text(SPACE)
    space = load_space(tmp_path / "space.yaml")
    others = {name: make for name, make in searchers().items() if name != "tpe"}
    absent = registry.Optional("tpe", "no_such_library", "optuna")
    monkeypatch.setattr(registry, "OPTIONAL", {"optuna_tpe": absent})
    monkeypatch.setattr(registry, "_SEARCHERS", others)
    monkeypatch.delitem(sys.modules, "codesign.searchers.optuna_tpe", raising=False)
    assert {"nsga2", "random", "bottleneck"} <= set(searchers())
    with pytest.raises(AccelsimError, match=r"'tpe' needs the library no_such_library.*extra `optuna`"):
        check_search(Search("tpe", ("latency_s", "energy_pj"), 5), space)
