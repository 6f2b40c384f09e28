"""Tiles on the RTL array engine: occupancy, latency and values equal the closed forms and plain integers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from accelsim.api import evaluate
from accelsim.arch import Engine, EngineKind, Mode, OutputStage
from accelsim.config import load_accelerator, load_plan
from accelsim.engines import tile_cost, walk_tile
from accelsim.formats import Format
from accelsim.ir import Loop
from accelsim.kernels import engine_forms
from accelsim.problems import AccelsimError
from accelsim.program import LATENCY, LEAD, OCCUPANCY, OP, UNIT
from accelsim.rtl import validate
from accelsim.rtl.engine import TileJob, build_engine, check_engine, lead_cycles, run_tiles, stored_words
from accelsim.rtl.tiles import lowered_tiles, random_job
from quant.levels import encode, levels, pack

U8 = Format.parse("u8")
MULTIPLIERS, SHIFTERS = validate.SMALL_ENGINES
NARROW = replace(MULTIPLIERS, output_stage=OutputStage(1, 4), activation_port_bits_per_cycle=256,
                 weight_port_bits_per_cycle=256)  # fmt: skip
ODD = Engine("odd", EngineKind.SHIFT_ARRAY, 1, 1, 1, OutputStage(1, 1), terms=3, depthwise=False,
             activation_port_bits_per_cycle=7, weight_port_bits_per_cycle=5)  # fmt: skip
RANDOM_TILES = 300


@pytest.mark.parametrize("engine", [MULTIPLIERS, SHIFTERS, ODD], ids=lambda engine: engine.name)
def test_random_tiles(engine: Engine, rtl_folder: Path) -> None:
    tiles = [validate.random_tile(engine, seed) for seed in range(RANDOM_TILES)]
    rows = validate.compare_tiles(engine, tiles, build_engine(engine, folder=rtl_folder))
    assert [tile for tile, row in zip(tiles, rows, strict=True) if not row[2]] == []


@pytest.mark.parametrize(("design", "plan"), validate.DESIGNS)
def test_every_distinct_tile_of_b1(design: str, plan: str, rtl_folder: Path) -> None:
    for engine, tiles in validate.design_tiles(design, plan):
        assert len(tiles) > 20
        rows = validate.compare_tiles(engine, tiles, build_engine(engine, folder=rtl_folder))
        assert [tile for tile, row in zip(tiles, rows, strict=True) if not row[2]] == []


@pytest.mark.parametrize(("design", "plan"), validate.DESIGNS)
def test_the_listed_tiles_are_those_of_the_program(design: str, plan: str) -> None:
    report = evaluate("efficientvit_b1", 224, load_accelerator(design), load_plan(plan))
    program, engines = report.result.program, report.accelerator.engines
    rows = {
        tuple(row) for row in program.templates[:, [UNIT, OP, OCCUPANCY, LATENCY]].tolist() if row[0] < len(engines)
    }
    listed = set()
    for item in lowered_tiles(report):
        cost = tile_cost(engines[item.unit], item.tile, item.weight, item.activation)
        times = (cost.occupancy_cycles, cost.latency_cycles)
        listed.add((item.unit, item.op, *(cycles * program.ticks_per_cycle for cycles in times)))
    assert listed == rows


@pytest.mark.parametrize("bug", ["PLANT_ROUND_DOWN", "PLANT_SHORT_DRAIN"])
def test_a_bug_in_the_rtl_is_caught(bug: str, rtl_folder: Path) -> None:
    tiles = [validate.random_tile(MULTIPLIERS, seed) for seed in range(60)]
    rows = validate.compare_tiles(MULTIPLIERS, tiles, build_engine(MULTIPLIERS, folder=rtl_folder, defines=(bug,)))
    assert not all(row[2] for row in rows)


def test_a_bug_in_the_closed_form_is_caught(rtl_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = engine_forms.dense_cycles

    def one_more(*arguments: int) -> tuple[int, int]:
        occupancy, latency = right(*arguments)
        return occupancy, latency + 1

    monkeypatch.setattr(engine_forms, "dense_cycles", one_more)
    tiles = [validate.random_tile(MULTIPLIERS, seed) for seed in range(1, 3)]
    rows = validate.compare_tiles(MULTIPLIERS, tiles, build_engine(MULTIPLIERS, folder=rtl_folder))
    assert [row[2] for row in rows] == [False, False]


def test_the_integer_reference_is_the_stepped_model() -> None:
    """Three ways to the same values: the stepped model, plain integers, and (above) the RTL."""
    for engine in (MULTIPLIERS, SHIFTERS):
        for seed in range(12):
            tile, weight = validate.random_tile(engine, seed)
            job, outputs = random_job(tile, weight, seed)
            walked, values = walk_tile(engine, tile, weight, U8, job.activations, job.codes, job.requant, job.clamp)
            assert np.array_equal(values, outputs)
            assert walked == tile_cost(engine, tile, weight, U8)


@pytest.mark.parametrize("name", ["u4", "u8", "pot3", "pot4", "apot8", "apot12"])
def test_stored_words(name: str) -> None:
    weight = Format.parse(name)
    codes = encode(levels(weight), weight)
    assert np.array_equal(stored_words(codes, weight), pack(codes, weight))


def unequal_jobs(count: int) -> list[list]:
    """Jobs of four different tiles that run back to back, with outputs."""
    return [[random_job(*validate.random_tile(NARROW, 4 * n + k), 4 * n + k) for k in range(4)] for n in range(count)]


def test_unequal_tiles_back_to_back_follow_the_rule_of_the_contract(rtl_folder: Path) -> None:
    """A tile starts when the walker is free and not before the previous finish − lead; then its form is exact."""
    made = unequal_jobs(100)
    found = run_tiles(NARROW, [[job for job, _ in jobs] for jobs in made], build_engine(NARROW, folder=rtl_folder))
    held = 0
    for jobs, tiles in zip(made, found.jobs, strict=True):
        free = finish = 0
        for (job, outputs), tile in zip(jobs, tiles, strict=True):
            cost = tile_cost(NARROW, job.tile, job.weight, U8)
            start = max(free, finish - lead_cycles(NARROW, job) - NARROW.pipeline_cycles)
            held += start > free
            free, finish = start + cost.occupancy_cycles, start + cost.latency_cycles
            assert (tile.start, tile.free, tile.finish) == (start, free, finish)
            assert np.array_equal(tile.outputs, outputs)
    assert held > 50


def test_without_the_rule_results_are_late_or_lost(rtl_folder: Path) -> None:
    """With no lead on one output stage: never early, late by at most the hold of the rule, or a bank is lost."""
    executable = build_engine(NARROW, folder=rtl_folder)
    late = lost = 0
    for jobs in unequal_jobs(60):
        (first, _), (second, outputs) = jobs[:2]
        costs = [tile_cost(NARROW, job.tile, job.weight, U8) for job in (first, second)]
        hold = (
            costs[0].latency_cycles - lead_cycles(NARROW, second) - NARROW.pipeline_cycles - costs[0].occupancy_cycles
        )
        try:
            tile = run_tiles(NARROW, [[first, replace(second, lead_cycles=0xFFFF)]], executable).jobs[0][1]
        except AccelsimError:
            lost += 1
            assert hold > 0
            continue
        delay = tile.finish - costs[0].occupancy_cycles - costs[1].latency_cycles
        assert 0 <= delay <= max(0, hold)
        assert np.array_equal(tile.outputs, outputs)
        late += delay > 0
    assert late > 0
    assert lost > 0


@pytest.mark.parametrize(("design", "plan"), [*validate.DESIGNS, ("m2vit_iso_area", "m2q")])
def test_leads_of_a_program_are_those_of_the_rtl(design: str, plan: str) -> None:
    report = evaluate("efficientvit_b1", 224, load_accelerator(design), load_plan(plan))
    ticks = report.result.program.ticks_per_cycle
    empty = np.zeros(0, np.int64)
    needed = set()
    for item in lowered_tiles(report):
        engine = report.accelerator.engines[item.unit]
        cost = tile_cost(engine, item.tile, item.weight, item.activation)
        lead = (
            lead_cycles(engine, TileJob(item.tile, item.weight, empty, empty, empty, (0, 0))) + engine.pipeline_cycles
        )
        needed.add((item.unit, item.op, cost.occupancy_cycles * ticks, cost.latency_cycles * ticks, lead * ticks))
    rows = report.result.program.templates[report.result.program.templates[:, UNIT] < len(report.accelerator.engines)]
    assert set(map(tuple, rows[:, [UNIT, OP, OCCUPANCY, LATENCY, LEAD]].tolist())) == needed


def test_an_engine_that_the_rtl_lacks_is_refused() -> None:
    with pytest.raises(AccelsimError, match="8x8 and two products of 4x8"):
        check_engine(replace(MULTIPLIERS, modes=(Mode(8, 8, 1), Mode(2, 8, 4))))
    with pytest.raises(AccelsimError, match=r"\(8, 16, 1\)"):
        check_engine(replace(MULTIPLIERS, modes=(Mode(8, 8), Mode(8, 16, 1, 2))))
    with pytest.raises(AccelsimError, match="2 terms and dynamic shifts"):
        check_engine(load_accelerator("m2vit_nonlinear").engines[1])


def test_a_tile_larger_than_the_buffers_is_refused() -> None:
    job, _ = random_job(Loop(1, 400, 1, 2, 200), U8, 0)
    with pytest.raises(AccelsimError, match="do not fit its lines"):
        run_tiles(MULTIPLIERS, [[job]], Path("never run"))
