"""The `timing: scalesim` mode gives what SCALE-Sim reports, on every case: cycles and SRAM counts, no error."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from accelsim.api import evaluate
from accelsim.arch import Engine, EngineKind, Mode, OutputStage
from accelsim.config import load_accelerator, load_plan
from accelsim.engines import tile_cost
from accelsim.formats import Format
from accelsim.ir import Loop
from accelsim.validation.case import DATA

BITS = 8
# Output stage, ports, accumulators and buffering must not matter in this mode.
STAGES = {"ws": OutputStage(1, 9), "os": OutputStage(3, 0), "is": OutputStage(64, 4)}


def cases() -> list[dict[str, str]]:
    with (DATA / "scalesim_cases.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(line for line in stream if not line.startswith("#")))


def engine_of(case: dict[str, str]) -> Engine:
    flow = case["dataflow"]
    return Engine(
        "array", EngineKind.SYSTOLIC_ARRAY, int(case["cols"]), int(case["rows"]), 1, STAGES[flow],
        modes=(Mode(BITS, BITS),), activation_port_bits_per_cycle=8, weight_port_bits_per_cycle=8, dataflow=flow,
        accumulator_rows=0 if flow == "os" else 128, timing="scalesim",
    )  # fmt: skip


@pytest.mark.parametrize("case", cases(), ids=lambda case: "-".join(case[k] for k in ("case", "rows", "dataflow")))
def test_cycles_and_sram_counts_are_those_of_scalesim(case: dict[str, str]) -> None:
    engine, eight = engine_of(case), Format.parse("u8")
    m, k, n = (int(case[name]) for name in "MKN")
    cost = tile_cost(engine, Loop(1, m, 1, n, k), eight, eight)
    assert cost.occupancy_cycles == cost.latency_cycles == int(case["scalesim_cycles"])
    assert cost.activation_read_bits == BITS * int(case["sram_ifmap_reads"])
    assert cost.weight_read_bits == BITS * int(case["sram_filter_reads"])
    written = int(case["sram_ofmap_writes"])
    if case["dataflow"] == "os":
        # SCALE-Sim counts R + C writes too many per fold; ours are the outputs.
        rows, cols = engine.lane_width, engine.lanes
        assert cost.outputs == written - -(-m // rows) * -(-n // cols) * (rows + cols)
    else:
        assert cost.accumulates == written


def test_all_cases_are_there() -> None:
    found = cases()
    assert len(found) == 162
    assert {(case["dataflow"], case["rows"]) for case in found} == {
        (flow, rows) for flow in ("ws", "os", "is") for rows in ("8", "16", "32")
    }


@pytest.mark.parametrize("flow", ["ws", "os", "is"])
def test_depthwise_is_one_layer_per_channel(flow: str) -> None:
    case = {"dataflow": flow, "rows": "8", "cols": "8"}
    eight = Format.parse("u8")
    one = tile_cost(engine_of(case), Loop(1, 7, 7, 1, 1, 3, 3), eight, eight)
    many = tile_cost(engine_of(case), Loop(24, 7, 7, 1, 1, 3, 3), eight, eight)
    assert many.occupancy_cycles == 24 * one.occupancy_cycles


def test_the_page_gives_the_cycles_of_this_version() -> None:
    """docs/engines/systolic.md: the GEMMs of the RTL comparison, and the two networks on systolic_ws."""
    page = (Path(__file__).parents[2] / "docs" / "engines" / "systolic.md").read_text(encoding="utf-8")
    (array,) = load_accelerator("gemmini_16").engines
    eight = Format.parse("u8")
    for timing in ("pipelined", "scalesim"):
        shapes = ((64, 64, 64), (256, 256, 256), (512, 512, 64))
        tiles = [Loop(1, m, 1, n, k) for m, k, n in shapes]
        costs = [tile_cost(replace(array, timing=timing), tile, eight, eight).latency_cycles for tile in tiles]
        assert " / ".join(f"{cycles:,}" for cycles in costs) in page
    for model in ("efficientvit_b1", "deit_small"):
        report = evaluate(model, 224, load_accelerator("systolic_ws"), load_plan("uniform8"))
        assert f"{report.result.cycles_total:,}" in page
