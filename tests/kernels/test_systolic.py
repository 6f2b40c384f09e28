"""Systolic array: closed forms against the stepped array, values against numpy, every dataflow by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.arch import Engine, EngineKind, Mode, OutputStage
from accelsim.engines import requantize, tile_cost, uniform_codes, walk_tile
from accelsim.formats import Format
from accelsim.ir import Loop
from accelsim.problems import AccelsimError

MODES = (Mode(2, 8, 4), Mode(4, 8, 2), Mode(8, 8, 1))
U8 = Format.parse("u8")
WIDE = 1 << 20
FLOWS = st.sampled_from(["ws", "os", "is"])
WEIGHTS = st.sampled_from(["u2", "u3", "u4", "u6", "u8"])
SEEDS = st.integers(0, 2**31)


def array(
    flow: str, rows: int, cols: int, double: bool = True, kept: int = 512, ports: tuple[int, int] = (WIDE, WIDE),
    outputs: int = 64, latency: int = 3, modes: tuple[Mode, ...] = MODES,
) -> Engine:  # fmt: skip
    return Engine("array", EngineKind.SYSTOLIC_ARRAY, cols, rows, 1, OutputStage(outputs, latency), modes=modes,
                  activation_port_bits_per_cycle=ports[0], weight_port_bits_per_cycle=ports[1], dataflow=flow,
                  double_buffered=double or flow == "os", accumulator_rows=0 if flow == "os" else kept)  # fmt: skip


@st.composite
def engines(draw: st.DrawFn) -> Engine:
    ports = (draw(st.sampled_from([7, 32, 100, WIDE])), draw(st.sampled_from([5, 24, 100, WIDE])))
    size = st.integers(1, 5)
    rows, cols = draw(size), draw(size)
    return array(draw(FLOWS), rows, cols, draw(st.booleans()), draw(st.sampled_from([cols, cols + 1, 7, 128])), ports,
                 draw(st.integers(1, 9)), draw(st.integers(0, 5)))  # fmt: skip


SMALL = st.integers(1, 6)
DENSE = st.builds(Loop, st.integers(1, 3), SMALL, st.integers(1, 3), st.integers(1, 13), st.integers(1, 8),
                  st.integers(1, 2), st.integers(1, 2))  # fmt: skip
DEPTHWISE = st.builds(Loop, st.integers(2, 6), SMALL, st.integers(1, 4), st.just(1), st.just(1), st.integers(1, 3),
                      st.integers(1, 3))  # fmt: skip


def operands(tile: Loop, weight: Format, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    acts = rng.integers(-128, 128, (tile.groups, tile.rows, tile.taps, tile.depth))
    limit = 1 << weight.bits - 1
    weights = rng.integers(-limit, limit, (tile.groups, tile.cols, tile.taps, tile.depth))
    scales = np.stack([rng.integers(low, high, weights.shape[:2]) for low, high in ((-99, 99), (1, 99), (1, 9))], -1)
    return acts, weights, scales


def check(engine: Engine, tile: Loop, weight: Format, seed: int) -> None:
    acts, weights, scales = operands(tile, weight, seed)
    codes = uniform_codes(weights, weight)
    walked, outputs = walk_tile(engine, tile, weight, U8, acts, codes, scales, (-30_000, 30_000))
    total = acts.reshape(*acts.shape[:2], -1) @ weights.reshape(*weights.shape[:2], -1).swapaxes(1, 2)
    assert walked == tile_cost(engine, tile, weight, U8)
    assert (outputs == requantize(total, *np.moveaxis(scales[:, None], -1, 0), -30_000, 30_000)).all()


@given(engines(), DENSE, WEIGHTS, SEEDS)
@settings(max_examples=400, deadline=None)
def test_dense(engine: Engine, tile: Loop, weight: str, seed: int) -> None:
    check(engine, tile, Format.parse(weight), seed)


@given(engines(), DEPTHWISE, WEIGHTS, SEEDS)
@settings(max_examples=100, deadline=None)
def test_depthwise_is_one_channel_after_the_other(engine: Engine, tile: Loop, weight: str, seed: int) -> None:
    check(engine, tile, Format.parse(weight), seed)
    one = tile_cost(engine, replace(tile, groups=1), Format.parse(weight), U8)
    assert tile_cost(engine, tile, Format.parse(weight), U8).occupancy_cycles == tile.groups * one.occupancy_cycles


@given(engines(), DENSE, SEEDS)
@settings(max_examples=60, deadline=None)
def test_equal_tiles_back_to_back_are_one_tile_of_more_groups(engine: Engine, tile: Loop, seed: int) -> None:
    """What occupancy means: the results of every further equal tile come that much later."""
    one = tile_cost(engine, tile, U8, U8)
    three = replace(tile, groups=3 * tile.groups)
    acts, weights, scales = operands(three, U8, seed)
    walked, _ = walk_tile(engine, three, U8, U8, acts, uniform_codes(weights, U8), scales, (-9, 9))
    assert walked.occupancy_cycles == 3 * one.occupancy_cycles
    assert walked.latency_cycles == 2 * one.occupancy_cycles + one.latency_cycles


# 196 positions, 128 → 64 channels on 32 × 32, 32 results per cycle with latency 4; pipeline 32 + 32 + 4 = 68.
LAYER = Loop(1, 14, 14, 64, 128)
BY_HAND = [
    # 2 blocks of 4 folds of 196 streamed steps; the first load (32) and the last fold's row end it.
    ("ws", True, 2 * 4 * 196, 32 + 784 + 3 * 196 + 1 + 195 + 1 + 68),
    # A fold loads (32), streams (196) and lets the last word pass 31 more rows.
    ("ws", False, 8 * (32 + 196 + 31), 7 * 259 + 32 + 196 + 1 + 68),
    # 7 · 2 blocks of 128 steps; 32 rows of results drain after the last.
    ("os", True, 14 * 128, 14 * 128 + 32 + 68),
    # 7 blocks of 4 folds of 64 steps.
    ("is", True, 7 * 4 * 64, 32 + 6 * 256 + 3 * 64 + 1 + 63 + 1 + 68),
]


@pytest.mark.parametrize(("flow", "double", "occupancy", "latency"), BY_HAND)
def test_a_layer_by_hand(flow: str, double: bool, occupancy: int, latency: int) -> None:
    engine = array(flow, 32, 32, double, outputs=32, latency=4, modes=(Mode(8, 8),))
    cost = tile_cost(engine, LAYER, U8, U8)
    assert (cost.occupancy_cycles, cost.latency_cycles) == (occupancy, latency)


def test_reads_and_updates_of_a_layer_by_hand() -> None:
    """Folds re-read the streamed operand, blocks the other one; 4 folds of the reduction update every result."""
    acts, weights = 196 * 128 * 8, 128 * 64 * 8
    expected = {"ws": (2 * acts, weights), "os": (2 * acts, 7 * weights), "is": (acts, 7 * weights)}
    for flow, reads in expected.items():
        cost = tile_cost(array(flow, 32, 32, modes=(Mode(8, 8),)), LAYER, U8, U8)
        assert (cost.activation_read_bits, cost.weight_read_bits) == reads
        assert cost.accumulates == 196 * 64 * (128 if flow == "os" else 4)


def test_loading_hides_behind_a_stream_that_is_long_enough() -> None:
    engine = array("ws", 16, 16, outputs=16)
    for steps, fold in ((4, 16), (16, 16), (50, 50)):
        cost = tile_cost(engine, Loop(1, steps, 1, 16, 160), U8, U8)
        assert cost.occupancy_cycles == 10 * fold


def test_an_edge_fold_costs_as_much_as_a_full_one_of_its_tile() -> None:
    engine = array("ws", 8, 8)
    full, ragged = (tile_cost(engine, Loop(1, 30, 1, 8, depth), U8, U8) for depth in (16, 9))
    assert full.occupancy_cycles == ragged.occupancy_cycles == 60
    assert ragged.weight_read_bits == 9 * 8 * 8


def test_accumulator_memory_cuts_the_stream_into_equal_chunks() -> None:
    """130 steps at 128 per chunk: two of 65, and the weights are loaded twice."""
    cost = tile_cost(array("ws", 8, 8, kept=128), Loop(1, 130, 1, 8, 8), U8, U8)
    assert cost.occupancy_cycles == 2 * 65
    assert cost.weight_read_bits == 2 * 8 * 8 * 8


def test_a_slow_output_stage_sets_the_pace() -> None:
    """8 columns at 2 results per cycle: a row of results takes 4 cycles, a streamed step 1."""
    for flow, rows in (("ws", 30), ("os", 8)):
        cost = tile_cost(array(flow, 8, 8, outputs=2), Loop(1, rows, 1, 8, 4), U8, U8)
        assert cost.occupancy_cycles == rows * 4


@pytest.mark.parametrize("flow", ["ws", "os", "is"])
def test_sums_that_leave_the_accumulators_are_an_error(flow: str) -> None:
    engine = replace(array(flow, 2, 8), accumulator_bits=18)
    scales = np.ones((1, 1, 3), np.int64)
    for extreme, depth, match in ((-128, 8, "accumulators too narrow"), (-400, 4, "an accumulator overflows")):
        acts, weights = np.full((1, 1, 1, depth), extreme), np.full((1, 1, 1, depth), -128)
        with pytest.raises(AccelsimError, match=match):
            walk_tile(engine, Loop(1, 1, 1, 1, depth), U8, U8, acts, uniform_codes(weights, U8), scales, (-9, 9))


def test_scalesim_timing_has_no_stepped_model() -> None:
    engine = replace(array("ws", 2, 2), timing="scalesim")
    acts, weights, scales = operands(Loop(1, 1, 1, 1, 1), U8, 0)
    with pytest.raises(AccelsimError, match="no stepped model"):
        walk_tile(engine, Loop(1, 1, 1, 1, 1), U8, U8, acts, uniform_codes(weights, U8), scales, (-9, 9))
