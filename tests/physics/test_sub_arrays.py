"""A part on a sub-array costs what it costs on an engine of those sizes with the whole engine's ports and pipeline."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from accelsim.api import simulate
from accelsim.arch import Accelerator, Engine, EngineKind, Mode, OutputStage
from accelsim.config import load_accelerator, load_plan
from accelsim.engines import tile_cost
from accelsim.ir import Loop
from accelsim.kernels.mapper import N_PART
from accelsim.kernels.part_forms import part_lead, sized_part_cycles
from accelsim.lowering import lower
from accelsim.mappers.heuristic import map_and_lower
from accelsim.mapping import ChainMapping, Mapping, Part, arrays_to_mapping, mapping_from_json, mapping_to_arrays
from accelsim.optable import (
    E_PIPELINE,
    KIND_VECTOR,
    M_MODE,
    O_COLS,
    O_DEPTH,
    O_DEPTHWISE,
    O_KIND,
    O_ROWS_W,
    O_TAPS,
    O_UNITS,
    O_UNITS_ARE_COLS,
    S_COMBO,
    OpTable,
    engine_table,
    op_table,
)
from accelsim.problems import AccelsimError, InfeasibleError
from accelsim.rtl.tiles import lowered_tiles
from accelsim.workloads.registry import build_workload
from tests.support.designs import accelerators

SLOW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
CASES = [("efficientvit_b0", 64), ("deit_tiny", 64)]
W8, W4 = Mode(8, 8, 1), Mode(4, 8, 2)
Sizes = tuple[int, int, int]


@numba.njit
def cycles_and_lead(tables: Any, numbers: Any, sizes: Any) -> Any:
    ops, slices, engines, modes = tables
    k, engine, part, units, rows = numbers
    lanes, width, pixels = sizes
    times = sized_part_cycles(ops, slices, engines, modes, k, engine, part, units, rows, lanes, width, pixels)
    lead = part_lead(ops, slices, engines, modes, k, engine, part, units, rows, lanes, width, pixels)
    return times[0], times[1], lead


@lru_cache
def table_of(case: int, plan: str) -> OpTable:
    model, resolution = CASES[case]
    return op_table(build_workload(model, resolution), load_plan(plan))


def with_pipeline(small: Engine, whole: Engine) -> Engine:
    """The small engine with the pipeline of the whole one: its shorter adder tree is made up for behind it."""
    stage = whole.output_stage
    missing = whole.pipeline_cycles - replace(small, output_stage=stage).pipeline_cycles
    return replace(small, output_stage=replace(stage, latency_cycles=stage.latency_cycles + missing))


def wider(engine: Engine, more: Sizes) -> Engine:
    if engine.kind == EngineKind.SYSTOLIC_ARRAY:
        return engine
    lanes, width, pixels = more
    return replace(
        engine, lanes=engine.lanes + lanes, lane_width=engine.lane_width + width,
        pixel_groups=engine.pixel_groups + pixels,
    )  # fmt: skip


def on_sub_arrays(mapping: Mapping, small: Accelerator) -> Mapping:
    """The mapping with every part on the sub-array that has the sizes of the small accelerator's engine."""
    engines = {engine.name: engine for engine in small.engines}

    def sized(part: Part) -> Part:
        engine = engines[part.engine]
        if engine.kind == EngineKind.SYSTOLIC_ARRAY:
            return part
        return replace(part, lanes=engine.lanes, lane_width=engine.lane_width, pixel_groups=engine.pixel_groups)

    chains = tuple(
        replace(chain, parts=tuple(tuple(sized(part) for part in parts) for parts in chain.parts))
        for chain in mapping.chains
    )
    return replace(mapping, chains=chains)


GROWTH = st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 3))


@given(st.data(), st.sampled_from(["mac", "shift"]), st.integers(0, 1), st.sampled_from(["uniform8", "w4a8", "m2q"]))
@SLOW
def test_closed_form_is_that_of_an_engine_of_those_sizes(data: st.DataObject, kind: str, case: int, plan: str) -> None:
    table = table_of(case, plan)
    small = next(e for e in data.draw(accelerators(shift=True)).engines if e.name.startswith(kind))
    whole = wider(small, data.draw(GROWTH))
    base = load_accelerator("m2vit")
    engines = engine_table(base.replace(engines=(whole, *base.engines)), table)
    array_ops = np.flatnonzero(table.ops[:, O_KIND] != KIND_VECTOR)
    k = int(array_ops[data.draw(st.integers(0, len(array_ops) - 1))])
    combo = int(table.slices[k, 0, S_COMBO])
    assume(engines.modes[combo, 0, M_MODE] >= 0)
    op = table.ops[k]
    # One channel alone is no depthwise tile to `tile_cost`.
    least = 2 if op[O_DEPTHWISE] else 1
    units, rows = data.draw(st.integers(least, int(op[O_UNITS]))), int(op[O_ROWS_W]) * data.draw(st.integers(1, 3))
    found = cycles_and_lead(
        (table.ops, table.slices, engines.engines, engines.modes), (k, 0, 0, units, rows),
        (small.lanes, small.lane_width, small.pixel_groups),
    )  # fmt: skip
    taps, depth, cols = int(op[O_TAPS]), int(op[O_DEPTH]), int(op[O_COLS])
    if op[O_DEPTHWISE]:
        tile = Loop(units, rows, 1, 1, 1, taps, 1)
    elif op[O_UNITS_ARE_COLS]:
        tile = Loop(1, rows, 1, units, depth, taps, 1)
    else:
        tile = Loop(units, rows, 1, cols, depth, taps, 1)
    weight, activation, _, _ = table.combos[combo]
    cost = tile_cost(with_pipeline(small, whole), tile, weight, activation)
    assert found[:2] == (cost.occupancy_cycles, cost.latency_cycles)
    # A block and the pipeline: what is left of a tile of one block but its drain.
    assert int(engines.engines[0, E_PIPELINE]) == whole.pipeline_cycles < found[2] < found[1]


@given(accelerators(), st.data(), st.integers(0, 1), st.sampled_from(["uniform8", "w4a8", "m2q"]), st.booleans())
@SLOW
def test_a_network_on_sub_arrays_is_the_network_on_the_smaller_design(
    design: Accelerator, data: st.DataObject, case: int, plan: str, fuse: bool
) -> None:
    table = table_of(case, plan)
    wide = design.replace(engines=tuple(wider(engine, data.draw(GROWTH)) for engine in design.engines))
    small = design.replace(
        engines=tuple(with_pipeline(a, b) for a, b in zip(design.engines, wide.engines, strict=True))
    )
    try:
        arrays, _, narrow = map_and_lower(table, small, fuse)
    except InfeasibleError:
        assume(False)
        return
    mapping = on_sub_arrays(arrays_to_mapping(arrays, table, small), small)
    engines = engine_table(wide, table)
    placed = mapping_to_arrays(mapping, table, engines, wide)
    assert arrays_to_mapping(placed, table, wide) == mapping
    found = lower(table, engines, wide, placed)
    # Rows with their occupancy, latency and lead, weight blocks, regions and counts.
    for name in ("templates", "phases", "regions"):
        assert np.array_equal(getattr(found.program, name), getattr(narrow.program, name))
    assert np.array_equal(found.counts, narrow.counts)


def chosen(mapping: Mapping, sizes: Sizes) -> Mapping:
    """The mapping with a sub-array for the first part of its first array op."""
    chains = list(mapping.chains)
    at = next(c for c, chain in enumerate(chains) if chain.parts[0])
    (part, *others), *rest = chains[at].parts
    part = replace(part, lanes=sizes[0], lane_width=sizes[1], pixel_groups=sizes[2])
    chains[at] = replace(chains[at], parts=((part, *others), *rest))
    return replace(mapping, chains=tuple(chains))


def test_json_names_sizes_only_where_there_are_some() -> None:
    report = simulate(table_of(0, "uniform8"), load_accelerator("m2vit"))
    whole = report.mapping.to_json()
    assert all(len(part) == 3 for chain in whole["chains"] for parts in chain["parts"] for part in parts)
    for sizes in ((2, 0, 0), (0, 3, 0), (1, 2, 1)):
        mapping = chosen(report.mapping, sizes)
        data = json.loads(json.dumps(mapping.to_json()))
        assert [part[3:] for c in data["chains"] for parts in c["parts"] for part in parts if len(part) > 3] == [
            list(sizes)
        ]
        assert mapping_from_json(data, "m") == mapping
        assert mapping.fingerprint() != report.mapping.fingerprint()
    # Six values with no size are a whole engine.
    data["chains"] = [
        {**chain, "parts": [[[*part[:3], 0, 0, 0] for part in parts] for parts in chain["parts"]]}
        for chain in whole["chains"]
    ]
    assert mapping_from_json(data, "m").to_json() == whole


@pytest.mark.parametrize(
    "values", [["mult", 0], ["mult", 0, 1, 2], ["mult", 0, 1, 2, 3, 4, 5], ["mult", 0, 1, -1, 0, 0]]
)
def test_a_malformed_part_is_refused(values: list[Any]) -> None:
    data = simulate(table_of(0, "uniform8"), load_accelerator("m2vit")).mapping.to_json()
    data["chains"][1]["parts"] = [[values]]
    with pytest.raises(AccelsimError, match=r"chains\[1\]"):
        mapping_from_json(data, "m")


def test_sizes_beyond_the_engine_are_refused() -> None:
    table, design = table_of(0, "uniform8"), load_accelerator("m2vit")
    report = simulate(table, design)
    engine = design.engines[0]
    for sizes, problem in (
        ((engine.lanes + 1, 0, 0), "lanes"), ((0, engine.lane_width + 1, 0), "lane_width"),
        ((0, 0, engine.pixel_groups + 1), "pixel_groups"), ((-1, 0, 0), "lanes -1"),
    ):  # fmt: skip
        with pytest.raises(AccelsimError, match=problem) as caught:
            simulate(table, design, chosen(report.mapping, sizes))
        assert len(caught.value.problems) == 1
    simulate(table, design, chosen(report.mapping, (engine.lanes, engine.lane_width, engine.pixel_groups)))


def test_a_systolic_array_is_used_whole() -> None:
    engine = Engine(
        "array", EngineKind.SYSTOLIC_ARRAY, 8, 8, 1, OutputStage(8), (W8,), dataflow="ws", accumulator_rows=128
    )
    design = load_accelerator("m2vit").replace(engines=(engine,))
    table = table_of(1, "uniform8")
    report = simulate(table, design)
    with pytest.raises(AccelsimError, match="a systolic array is used whole"):
        simulate(table, design, chosen(report.mapping, (4, 0, 0)))


def test_the_rtl_refuses_sub_arrays() -> None:
    report = simulate(table_of(0, "uniform8"), load_accelerator("m2vit"))
    lowered_tiles(report)
    smaller = simulate(report.table, report.accelerator, chosen(report.mapping, (1, 0, 0)))
    with pytest.raises(AccelsimError, match="sub-array"):
        lowered_tiles(smaller)


def test_a_wider_engine_can_be_slower_but_not_its_sub_array() -> None:
    # 64 bits of activations per cycle: 8 lane inputs take a word per cycle, 12 need two cycles for it.
    stage = OutputStage(64)
    narrow = Engine(
        "mac", EngineKind.MAC_ARRAY, 8, 8, 1, stage, (W8,), activation_port_bits_per_cycle=64, depthwise=True
    )
    wide = replace(narrow, lane_width=12)
    table = table_of(1, "uniform8")
    k = next(k for k in range(len(table.ops)) if table.ops[k, O_DEPTH] == 192 and table.ops[k, O_UNITS_ARE_COLS])
    times = []
    for engine, sizes in ((narrow, (0, 0, 0)), (wide, (0, 0, 0)), (wide, (0, 8, 0))):
        engines = engine_table(load_accelerator("m2vit").replace(engines=(engine,)), table)
        tables = (table.ops, table.slices, engines.engines, engines.modes)
        times.append(cycles_and_lead(tables, (k, 0, 0, 8, 16), sizes)[0])
    # 16 positions, 192 inputs: 24 steps of one cycle, or 16 of two.
    assert times == [16 * 24, 16 * 32, 16 * 24]


def test_the_parts_of_the_heuristic_are_whole() -> None:
    arrays, _, _ = map_and_lower(table_of(0, "m2q"), load_accelerator("m2vit"))
    assert arrays.parts.shape[2] == N_PART
    assert not arrays.parts[:, :, 3:].any()
    assert Part("mult", 0, 1) == Part("mult", 0, 1, 0, 0, 0)
    assert ChainMapping(("a",), "rows", 1, ((Part("mult", 0, 1),),)).parts[0][0].to_json() == ["mult", 0, 1]
