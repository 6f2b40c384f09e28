"""The presets: iso-area really is, and every preset × model × plan obeys the laws or says why it cannot run."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from accelsim.api import Report, evaluate
from accelsim.arch import Accelerator
from accelsim.area import accelerator_area, engine_area_mm2
from accelsim.bounds import program_bound_ticks
from accelsim.config import load_accelerator, load_plan, preset_names
from accelsim.counts import ENGINE_COUNTS, MAX_MODES, count_columns
from accelsim.problems import InfeasibleError
from accelsim.workloads import model_names

PLANS = ("uniform8", "w4a8", "m2q")
# Every network on these; the others are variations in one part or another, so a few networks tell.
FULLY = ("bitfusion_edge", "m2vit", "m2vit_iso_area", "tiny", "trio_vit")
FEW = ("efficientvit_b0", "efficientvit_b1", "swin_tiny", "deit_small")
CASES = [
    (preset, model, plan)
    for preset in preset_names()
    for model in (model_names() if preset in FULLY else FEW)
    for plan in PLANS
]
# Made for networks without depthwise convolutions.
NO_DEPTHWISE = ("nvdla_small", "vitcod_dense")
# The longest path is found in plain Python, one row at a time.
MOST_ROWS_OF_A_PATH = 12_000


@cache
def outcome(preset: str, model: str, plan: str) -> Report | InfeasibleError:
    try:
        return evaluate(model, None, load_accelerator(preset), load_plan(plan))
    except InfeasibleError as error:
        return error


def report_of(preset: str, model: str, plan: str) -> Report:
    found = outcome(preset, model, plan)
    if isinstance(found, InfeasibleError):
        pytest.skip("infeasible")
    return found


def engines_mm2(accelerator: Accelerator) -> float:
    return sum(sum(engine_area_mm2(engine, accelerator.node_nm).values()) for engine in accelerator.engines)


def test_iso_area_is_the_largest_shift_engine_that_fits():
    baseline, design = load_accelerator("trio_vit"), load_accelerator("m2vit_iso_area")
    mult, shift = design.engines
    larger = design.replace(engines=(mult, replace(shift, pixel_groups=shift.pixel_groups + 1)))
    assert engines_mm2(design) <= engines_mm2(baseline) < engines_mm2(larger)
    assert accelerator_area(design).total_mm2 <= accelerator_area(baseline).total_mm2
    assert accelerator_area(larger).total_mm2 > accelerator_area(baseline).total_mm2


def test_iso_area_differs_from_m2vit_and_m2vit_from_the_baseline_in_engines_only():
    baseline, design, iso = (load_accelerator(name) for name in ("trio_vit", "m2vit", "m2vit_iso_area"))
    assert iso.engines[0] == design.engines[0]
    assert sum(engine.slots for engine in design.engines) == sum(engine.slots for engine in baseline.engines) == 2048
    groups = iso.engines[1].pixel_groups
    port = iso.engines[1].lane_width * groups * 8
    assert iso.engines[1] == replace(design.engines[1], pixel_groups=groups, activation_port_bits_per_cycle=port)
    for other in (design, iso):
        assert other.replace(name=baseline.name, engines=baseline.engines) == baseline


@pytest.mark.parametrize(("preset", "model", "plan"), CASES)
def test_runs_or_is_infeasible_with_numbers(preset, model, plan):
    found = outcome(preset, model, plan)
    if isinstance(found, InfeasibleError):
        for problem in found.problems:
            if preset in NO_DEPTHWISE and model.startswith("efficientvit"):
                assert "no engine executes" in problem.what
                assert "in depthwise mode" in problem.what
                continue
            assert problem.gap is not None
            assert problem.gap > 0
            assert problem.unit == "bits"
            assert problem.levers
            assert preset in problem.where
    else:
        assert found.result.cycles_total > 0


@pytest.mark.parametrize("plan", PLANS)
def test_what_must_run_runs(plan):
    for preset in preset_names():
        if preset in NO_DEPTHWISE:
            assert isinstance(outcome(preset, "efficientvit_b1", plan), InfeasibleError)
            assert isinstance(outcome(preset, "swin_tiny", plan), Report)
            continue
        assert isinstance(outcome(preset, "efficientvit_b0", plan), Report)
        if preset != "tiny":
            some = ("efficientvit_b1", "deit_small")
            for model in (*some, "efficientvit_b2", "efficientvit_b3", "deit_tiny") if preset in FULLY else some:
                assert isinstance(outcome(preset, model, plan), Report)


@pytest.mark.parametrize(("preset", "model", "plan"), CASES)
def test_macs_issued_are_macs_needed(preset, model, plan):
    report = report_of(preset, model, plan)
    columns = count_columns(report.accelerator)
    products = [
        columns.index(f"{engine.name}.{name}")
        for engine in report.accelerator.engines
        for name in ENGINE_COUNTS[:MAX_MODES]
    ]
    issued = report.result.counts[:, products].sum(axis=1).tolist()
    ops = report.table.quantized.ops
    assert issued == [item.op.macs for item in ops]
    assert sum(issued) == report.table.quantized.workload.macs


@pytest.mark.parametrize(("preset", "model", "plan"), CASES)
def test_every_cycle_is_attributed(preset, model, plan):
    result = report_of(preset, model, plan).result
    assert int(result.op_own_ticks.sum()) == result.total_ticks
    assert (result.op_own_ticks >= 0).all()
    assert (result.unit_wait_ticks >= 0).all()
    assert (result.unit_drained_ticks >= 0).all()
    accounted = result.unit_busy_ticks + result.unit_wait_ticks.sum(axis=1) + result.unit_drained_ticks
    assert accounted.tolist() == [result.total_ticks] * len(result.program.units)


@pytest.mark.parametrize(("preset", "model", "plan"), CASES)
def test_no_run_beats_a_bound(preset, model, plan):
    report = report_of(preset, model, plan)
    result = report.result
    assert result.cycles_total >= report.bound.cycles > 0
    assert result.total_ticks >= int(result.unit_busy_ticks.max())
    if result.program.n_rows <= MOST_ROWS_OF_A_PATH:
        assert result.total_ticks >= program_bound_ticks(result.program)


@pytest.mark.parametrize(("preset", "model", "plan"), CASES)
def test_energy_is_the_sum_of_its_parts_and_of_the_ops(preset, model, plan):
    report = report_of(preset, model, plan)
    data = report.to_json()
    assert data["energy_pj"] == pytest.approx(sum(data["energy_by_component_pj"].values()))
    standing = sum(
        value for name, value in data["energy_by_component_pj"].items() if name.endswith((".idle", ".leakage"))
    )
    assert data["energy_pj"] - standing == pytest.approx(sum(row["dynamic_energy_pj"] for row in data["ops"]))
    assert data["edp_pj_s"] == pytest.approx(data["energy_pj"] * data["latency_s"])
    assert data["area_mm2"] == pytest.approx(sum(data["area_by_component_mm2"].values()))
