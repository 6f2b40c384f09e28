"""The design bound: below every simulated result, monotone, and equal to numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from accelsim.api import simulate
from accelsim.arch import Accelerator, Buffer, Dram, Engine, EngineKind, OutputStage, VectorUnit
from accelsim.bound_compute import work_cycles
from accelsim.bound_graph import Crossing, graph_of, last_in_chain, spilled_bits
from accelsim.bounds import DesignBound, design_bound
from accelsim.config import load_plan
from accelsim.ir import Tensor
from accelsim.optable import OpTable, engine_table, op_table
from accelsim.problems import InfeasibleError
from accelsim.workloads import recipes
from accelsim.workloads.builder import WorkloadBuilder
from tests.fuzz.networks import random_workload
from tests.support.designs import W8, accelerators
from tests.support.program_laws import PLANS, SLOW, table_of

MAC = Engine("mac", EngineKind.MAC_ARRAY, 4, 4, 1, OutputStage(64), modes=(W8,), depthwise=True)
# 8 bits per cycle, bursts of one byte, no latency.
SMALL = Accelerator(
    "small", 100_000_000, 28, (MAC,), VectorUnit(16, 16, 16, 16, 4, 2, 1024), Buffer(2**16), Buffer(2**16),
    Dram(800_000_000, 8, 0.0),
)  # fmt: skip


def bound_of(table: OpTable, accelerator: Accelerator) -> DesignBound:
    return design_bound(table, engine_table(accelerator, table), accelerator)


def table_from(net: WorkloadBuilder, output: str) -> OpTable:
    return op_table(net.build(output), load_plan("uniform8"))


def parameters(table: OpTable, k: int) -> int:
    return int(graph_of(table).weights_bits[k])


def test_channels_positions_and_reduction_round_up() -> None:
    net = WorkloadBuilder("rounded", 5, 6)
    table = table_from(net, net.conv("c", "pw", net.input, 5))
    # 25 positions in pairs, 5 channels on 4 lanes, 6 inputs on 4: 13 × 2 × 2.  Not 25·5·6 / 32 = 23.
    two = SMALL.replace(engines=(replace(MAC, pixel_groups=2),))
    assert bound_of(table, two).compute_cycles == 52
    # A port of 8 bits per cycle: 2 channel blocks read 25 × 6 bytes each.
    narrow = SMALL.replace(engines=(replace(MAC, activation_port_bits_per_cycle=8),))
    assert bound_of(table, narrow).compute_cycles == 300
    # Weights: 5 × 6 bytes for each of 25 positions.
    narrow = SMALL.replace(engines=(replace(MAC, weight_port_bits_per_cycle=8),))
    assert bound_of(table, narrow).compute_cycles == 750
    # One output per cycle: 25 × 5.
    assert bound_of(table, SMALL.replace(engines=(replace(MAC, output_stage=OutputStage(1)),))).compute_cycles == 125


def test_an_engine_computes_what_its_bound_says() -> None:
    """The array is busy for exactly the bound: one cycle more would be wrong."""
    net = WorkloadBuilder("dw", 8, 7)
    tip = net.conv("a", "pw", net.input, 9)
    table = table_from(net, net.conv("b", "dw", tip, 9, kernel=3, padding=1, groups=9))
    report = simulate(table, SMALL)
    # 64 positions × 3 blocks of channels × 2 words; 3 blocks of channels × 16 blocks of positions × 9 taps.
    assert report.bound.compute_cycles == 64 * 3 * 2 + 3 * 16 * 9 == report.result.busy_cycles()["mac"]


@pytest.mark.parametrize(("flow", "cycles"), [("ws", 2 * 3 * 36), ("os", 7 * 9 * 3), ("is", 2 * 9 * 9)])
def test_systolic_streams(flow: str, cycles: int) -> None:
    """36 positions, reduction 7, 9 channels on 4 × 4."""
    net = WorkloadBuilder("systolic", 6, 7)
    table = table_from(net, net.conv("a", "pw", net.input, 9))
    engine = Engine(
        "array", EngineKind.SYSTOLIC_ARRAY, 4, 4, 1, OutputStage(64), modes=(W8,), dataflow=flow,
        accumulator_rows=0 if flow == "os" else 64,
    )  # fmt: skip
    design = SMALL.replace(engines=(engine,))
    assert bound_of(table, design).compute_cycles == cycles
    assert simulate(table, design).result.busy_cycles()["array"] >= cycles


def test_two_engines_share_at_their_own_speeds() -> None:
    net = WorkloadBuilder("shared", 8, 4)
    tip = net.conv("a", "pw", net.input, 16)
    table = table_from(net, net.conv("b", "dw", tip, 16, kernel=3, padding=1, groups=16))
    wide = replace(MAC, name="wide", lanes=8, depthwise=False)
    pair = SMALL.replace(engines=(MAC, wide))
    # a: 256 cycles on mac, 128 on wide; b: 64·16·9 / 16 = 576, on mac only, so all of a goes to wide.
    assert bound_of(table, pair).compute_cycles == 576
    # Both depthwise: 256 ∥ 128 and 576 ∥ 288, two thirds of everything on wide.
    both = SMALL.replace(engines=(MAC, replace(wide, depthwise=True)))
    assert bound_of(table, both).compute_cycles == (128 + 288) * 2 // 3 == 277
    # A third engine of 16 slots: no rounding any more, (4096 + 9216) / 64.
    three = SMALL.replace(engines=(*both.engines, replace(MAC, name="third")))
    assert bound_of(table, three).compute_cycles == (4096 + 9216) // 64


def test_vector_unit_is_a_unit() -> None:
    net = WorkloadBuilder("vector", 8, 16)
    pool = recipes.average_pool(16, 64)
    table = table_from(net, net.vector("p", "pool", (net.input,), pool, Tensor("p", 1, 1, 16)))
    slow = SMALL.replace(vector=VectorUnit(16, 16, 16, 16, 4, 2, 8))
    report = simulate(table, slow)
    # 8·8·16 bytes in and 16 out, a byte per cycle.
    assert report.bound.vector_cycles == 8 * 8 * 16 + 16 == report.result.busy_cycles()["vector"]


def spilling() -> OpTable:
    net = WorkloadBuilder("spilled", 8, 4)
    tip = net.conv("a", "pw", net.input, 16)
    return table_from(net, net.conv("b", "dw", tip, 16, kernel=3, padding=1, groups=16))


def test_a_tensor_larger_than_the_buffer_goes_out_and_back() -> None:
    table = spilling()
    once = 8 * 8 * (4 + 16) * 8 + parameters(table, 0) + parameters(table, 1)
    for capacity, spilled in ((8192, 0), (8191, 2 * 8192)):
        bound = bound_of(table, SMALL.replace(activation_buffer=Buffer(capacity)))
        assert bound.traffic_cycles == once // 8
        assert bound.spill_cycles == (once + spilled) // 8
    small = SMALL.replace(activation_buffer=Buffer(8191))
    report = simulate(table, small)
    assert report.bound.spill_cycles <= report.result.busy_cycles()["dram"]


def test_tensors_that_live_together_compete() -> None:
    a, b, c = (Crossing(first, last, 100, ((last, 100),)) for first, last in ((0, 2), (1, 3), (4, 5)))
    assert spilled_bits((a, b, c), 200) == 0
    # a and b together: one of them goes, 200 bits of traffic, whatever the excess.
    assert spilled_bits((a, b, c), 199) == 200
    assert spilled_bits((a, b, c), 100) == 200
    # None fits: all three in full.
    assert spilled_bits((a, b, c), 99) == 600
    # The excess counts when it is more than the smallest: 3 × 100 in 60 + 60.
    assert spilled_bits(tuple(Crossing(0, 1, 100, ((1, 100),)) for _ in range(3)), 120) == 360
    # A tensor that is live in both crowds counts once.
    long = Crossing(0, 5, 100, ((5, 100),))
    assert spilled_bits((a, c, long), 150) == 200


def test_chains_end_before_windows_and_behind_what_is_needed_later() -> None:
    net = WorkloadBuilder("chains", 8, 4)
    a = net.conv("a", "pw", net.input, 8)
    b = net.conv("b", "pw", a, 8)
    c = net.conv("c", "dw", b, 8, kernel=3, padding=1, groups=8)
    d = net.conv("d", "pw", c, 8)
    table = table_from(net, net.conv("e", "pw", d, 4, stride=2))
    assert last_in_chain(table).tolist() == [1, 1, 3, 3, 4]
    graph = graph_of(table)
    assert np.triu(np.ones((5, 5), bool)).tolist() == graph.follows.tolist()
    # Ops of one possible chain overlap: none is before the other.
    overlapping = np.argwhere(graph.follows & ~graph.before).tolist()
    assert overlapping == [
        [0, 0],
        [0, 1],
        [1, 1],
        [2, 2],
        [2, 3],
        [3, 3],
        [4, 4],
    ]
    assert [(item.first, item.last) for item in graph.crossings] == [(1, 2), (3, 4)]


# Cycles from the end of a tile on MAC to its result: the pipeline, and one cycle of output at least.
BEHIND = 1 + MAC.pipeline_cycles
LATENT = SMALL.replace(dram=Dram(800_000_000, 8, 7e-8), activation_buffer=Buffer(2**20))


def test_cut_bits_first_then_compute() -> None:
    """All that op a needs crosses the bus, 7 cycles later it is usable; then all of op b is left."""
    net = WorkloadBuilder("wide", 8, 512)
    tip = net.conv("a", "pw", net.input, 4)
    table = table_from(net, net.conv("b", "conv", tip, 16, kernel=3, padding=1))
    loaded = (parameters(table, 0) + 64 * 512 * 8) // 8 + 7
    second = 64 * 9 * 4 + BEHIND
    report = simulate(table, LATENT.replace(weight_buffer=Buffer(2**20)))
    assert report.bound.cycles == report.bound.cut_cycles == loaded + second
    # What is left is the last tile of a (two rows) behind its bits, and less than 40 cycles of pipelines and output.
    assert 0 <= report.result.cycles_total - report.bound.cycles < 2 * 8 * 128 + 40


def test_cut_compute_first_then_weights_that_the_buffer_cannot_hold() -> None:
    """Op b begins when a is done, with a full weight buffer; its other weights and the output follow."""
    net = WorkloadBuilder("late", 8, 16)
    tip = net.conv("a", "conv", net.input, 16, kernel=5, padding=2)
    table = table_from(net, net.conv("b", "conv", tip, 64, kernel=8, stride=8, padding=0))
    held = 12 * 8192
    loaded = (parameters(table, 0) + 8 * 8 * 16 * 8) // 8 + 7
    # 7 cycles until the first bits are there.
    first = 7 + 64 * 25 * 4 * 4 + BEHIND
    assert loaded < first
    rest = (parameters(table, 1) - held + 64 * 8) // 8
    report = simulate(table, LATENT.replace(weight_buffer=Buffer(held)))
    assert report.bound.cycles == report.bound.cut_cycles == first + rest
    assert report.result.cycles_total >= report.bound.cycles


@pytest.mark.parametrize(("first", "last"), [(True, True), (False, True), (True, False)])
def test_cut_with_a_tensor_that_no_mapping_keeps(first: bool, last: bool) -> None:
    """A tensor of 2^17 bits between ops a and b goes out and back: behind op z, in front of op c, or both."""
    net = WorkloadBuilder("large", 16, 4)
    tip = net.conv("z", "conv", net.input, 4, kernel=7, padding=3) if first else net.input
    tip = net.conv("a", "conv", tip, 64, kernel=3, padding=1)
    tip = net.conv("b", "dw", tip, 64, kernel=3, stride=2, padding=1, groups=64)
    tip = net.conv("c", "conv", tip, 4, kernel=3, padding=1) if last else tip
    table = table_from(net, tip)
    design = LATENT.replace(
        engines=(replace(MAC, lanes=64),), activation_buffer=Buffer(2**17 - 1), weight_buffer=Buffer(2**22)
    )
    there_and_back, ops = 2 * 2**17 // 8, len(table.op_names)
    # z: 256 positions × 49; c: 64 positions × 9 × 16 words.
    z, c = 7 + 256 * 49 + BEHIND, 64 * 9 * 16 + BEHIND
    loaded = (8192 + parameters(table, 0) + parameters(table, 1)) // 8 + 7
    if first and last:
        expected = z + there_and_back + 7 + c
    elif first:
        expected = z + there_and_back + int(graph_of(table).output_bits[ops - 1]) // 8
    else:
        expected = loaded + there_and_back + c
    report = simulate(table, design)
    assert report.bound.cut_cycles == expected <= report.result.cycles_total


def test_cut_three_stages_in_turn() -> None:
    """Ops that cannot be one chain follow each other, each as fast as its own unit: no unit alone is the limit."""
    net = WorkloadBuilder("turns", 8, 4)
    tip = net.conv("a", "pw", net.input, 16)
    tip = net.conv("b", "dw", tip, 16, kernel=3, padding=1, groups=16)
    table = table_from(net, net.conv("c", "conv", tip, 4, kernel=3, padding=1))
    dense = replace(MAC, name="dense", depthwise=False, modes=(W8,))
    only = replace(MAC, lanes=1, lane_width=4)
    report = simulate(table, LATENT.replace(engines=(only, dense), dram=Dram(80_000_000_000, 8, 0.0)))
    # b runs on the depthwise engine only: 4 blocks × 64 × 9.  a and c share both: 256 ∥ 1,024 and 2,304 ∥ 9,216.
    assert report.bound.compute_cycles == int((2304 + 4 * (256 + 2304)) / 5)
    # Channels are whole: the dense engine's blocks hold 4, so a takes 256 cycles with 12 of 16, too; c is a block.
    assert report.bound.cycles == report.bound.cut_cycles == 2304 + 256 + 2304 + 3 * BEHIND
    assert report.result.cycles_total >= report.bound.cycles


LARGER = ("bandwidth", "activation_buffer", "weight_buffer", "lanes")


def grown(accelerator: Accelerator, what: str, engine: int) -> Accelerator:
    if what == "bandwidth":
        return accelerator.replace(dram=accelerator.dram.faster(2))
    if what == "lanes":
        engines = list(accelerator.engines)
        number = engine % len(engines)
        engines[number] = replace(engines[number], lanes=engines[number].lanes + 1 + engine % 3)
        return accelerator.replace(engines=tuple(engines))
    buffer = getattr(accelerator, what)
    return accelerator.replace(**{what: replace(buffer, capacity_bits=buffer.capacity_bits * 3 // 2)})


@given(
    accelerators(), st.integers(0, 2), st.sampled_from(PLANS), st.sampled_from(LARGER), st.integers(0, 11),
)  # fmt: skip
@SLOW
def test_more_of_anything_never_raises_the_bound(
    accelerator: Accelerator, case: int, plan: str, what: str, engine: int
) -> None:
    table = table_of(case, plan)
    try:
        bound = bound_of(table, accelerator)
    except InfeasibleError:
        assume(False)
        return
    larger = bound_of(table, grown(accelerator, what, engine))
    for name in ("compute_cycles", "vector_cycles", "traffic_cycles", "spill_cycles", "cut_cycles"):
        assert getattr(larger, name) <= getattr(bound, name), name


@given(accelerators(), st.integers(0, 10**9), st.sampled_from(PLANS), st.booleans())
@SLOW
def test_no_random_network_is_faster(accelerator: Accelerator, seed: int, plan: str, fuse: bool) -> None:
    table = op_table(random_workload(Random(seed)), load_plan(plan))
    try:
        report = simulate(table, accelerator, fuse=fuse)
    except InfeasibleError:
        assume(False)
        return
    assert report.bound.cycles <= report.result.cycles_total
    # Every engine and the vector unit are busy for at least what only they can do.
    busy = report.result.busy_cycles()
    work = work_cycles(table, report.engines, accelerator).sum(axis=0)
    for number, engine in enumerate(accelerator.engines):
        assert work[number] <= busy[engine.name] + 1e-6
    assert work[-1] <= busy["vector"]
    moved = int(report.totals[-2:].sum())
    assert report.bound.spill_cycles <= moved * accelerator.clock_hz // accelerator.dram.bandwidth_bits_per_s
