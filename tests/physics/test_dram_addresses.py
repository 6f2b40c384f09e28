"""Addresses of DRAM rows lie where their tensors and weights are, and programs on banked DRAM obey the laws."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from accelsim.api import evaluate
from accelsim.arch import Accelerator, BankedDram, Buffer
from accelsim.bounds import design_bound, program_bound_ticks
from accelsim.config import load_accelerator, load_plan
from accelsim.dram import DRAM_EVENTS, device_names
from accelsim.lowering import Lowered
from accelsim.mappers.heuristic import map_and_lower
from accelsim.optable import (
    KIND_CONV,
    O_IN0_ROOT0,
    O_IN0_ROOT1,
    O_IN_H,
    O_KERNEL_H,
    O_KIND,
    O_OUT,
    O_PADDING,
    O_ROWS_H,
    O_STRIDE,
    T_BITS,
    OpTable,
    op_table,
)
from accelsim.problems import InfeasibleError
from accelsim.program import REGION_BUFFER
from accelsim.reference import simulate_by_stepping
from accelsim.result import run_program
from accelsim.workloads.registry import build_workload
from tests.support.designs import accelerators
from tests.support.halos import lower_with_halos

SLOW = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
CASES = [("efficientvit_b0", 64), ("efficientvit_b1", 96), ("deit_tiny", 64), ("levit_128", 224)]


def lowered_or_skip(table: OpTable, accelerator: Accelerator, fuse: bool) -> Lowered:
    try:
        return map_and_lower(table, accelerator, fuse)[2]
    except InfeasibleError:
        assume(False)
        raise


def spans(table: OpTable, lowered: Lowered) -> np.ndarray:
    """First bit and end of every tensor, by tensor."""
    return np.stack([lowered.tensor_address_bits, lowered.tensor_address_bits + table.tensors[:, T_BITS]], axis=1)


def operand_span(table: OpTable, tensors: np.ndarray, k: int, operand: int) -> tuple[int, int]:
    """First bit and end of an operand (two tensors side by side, maybe) and of the padding that its windows read."""
    op = table.ops[k]
    roots = [root for root in op[O_IN0_ROOT0 + 2 * operand : O_IN0_ROOT1 + 1 + 2 * operand] if root >= 0]
    low, high = int(tensors[roots, 0].min(initial=1 << 60)), int(tensors[roots, 1].max(initial=0))
    if not roots or operand == 1 or op[O_KIND] != KIND_CONV:
        return low, high
    assert high - low == table.tensors[roots, T_BITS].sum()
    row_bits = (high - low) // int(op[O_IN_H])
    below = (op[O_ROWS_H] - 1) * op[O_STRIDE] + op[O_KERNEL_H] - op[O_PADDING] - op[O_IN_H]
    return low - int(op[O_PADDING]) * row_bits, high + max(0, int(below)) * row_bits


def assert_addresses(table: OpTable, lowered: Lowered) -> None:
    """Loads stay inside their operand with its padding, stores inside their tensor, weight blocks lie side by side."""
    tensors = spans(table, lowered)
    weights: dict[int, dict[int, int]] = defaultdict(dict)
    dram = len(lowered.program.units) - 1
    for row in lowered.program.expand():
        if row.unit != dram:
            continue
        start, end = row.dram_base_bits, row.dram_base_bits + (row.runs - 1) * row.stride_bits + row.run_bits
        op = table.ops[row.op]
        assert start >= 0
        if row.write < 0:
            low, high = tensors[op[O_OUT]]
            assert low <= start < end <= high, (table.op_names[row.op], "store")
        elif lowered.program.regions[row.write, REGION_BUFFER] == 0:
            places = [operand_span(table, tensors, row.op, operand) for operand in range(2)]
            assert any(first <= start and end <= last for first, last in places), (table.op_names[row.op], start, end)
        else:
            assert start >= tensors[:, 1].max()
            assert weights[row.op].setdefault(start, end) == end
    intervals = []
    for blocks in weights.values():
        ordered = sorted(blocks.items())
        # The blocks of an op are its weights, each bit once.
        assert all(left[1] == right[0] for left, right in itertools.pairwise(ordered))
        intervals.append((ordered[0][0], ordered[-1][1]))
    intervals.sort()
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(intervals))


@given(accelerators(), st.integers(0, len(CASES) - 1), st.sampled_from(["uniform8", "m2q", "uniform4"]), st.booleans())
@SLOW
def test_addresses_are_inside_their_tensors(accelerator: Accelerator, case: int, plan: str, fuse: bool) -> None:
    model, resolution = CASES[case]
    table = op_table(build_workload(model, resolution), load_plan(plan))
    assert_addresses(table, lowered_or_skip(table, accelerator, fuse))


@pytest.mark.parametrize("model", ["efficientvit_b1", "efficientvit_b3", "deit_small", "swin_tiny", "mobilevit_s"])
@pytest.mark.parametrize("fuse", [True, False])
def test_addresses_of_whole_networks(model: str, fuse: bool) -> None:
    table = op_table(build_workload(model), load_plan("uniform8"))
    assert_addresses(table, map_and_lower(table, load_accelerator("trio_vit"), fuse)[2])


@pytest.mark.parametrize(
    ("model", "design"), [("efficientvit_b1", "trio_vit"), ("mobilevit_s", "trio_vit"), ("efficientvit_b1", "m2vit")]
)
def test_addresses_with_kept_halos(model: str, design: str) -> None:
    table = op_table(build_workload(model), load_plan("uniform8"))
    arrays, engines, _ = map_and_lower(table, load_accelerator(design))
    assert_addresses(table, lower_with_halos(table, engines, load_accelerator(design), arrays)[2])


def test_a_window_starts_at_its_padding() -> None:
    # 224 rows of 224 x 3 bytes; tiles of the stem read from one row above their first row on.
    table = op_table(build_workload("efficientvit_b1"), load_plan("uniform8"))
    lowered = map_and_lower(table, load_accelerator("trio_vit"))[2]
    dram = len(lowered.program.units) - 1
    loads = [row for row in lowered.program.expand() if row.unit == dram and row.op == 0 and row.write >= 0]
    windows = [row for row in loads if lowered.program.regions[row.write, REGION_BUFFER] == 0]
    row_bits = 224 * 3 * 8
    image = int(lowered.tensor_address_bits[table.ops[0, O_IN0_ROOT0]])
    starts = [(row.dram_base_bits - image) / row_bits for row in windows]
    step = starts[1] - starts[0]
    assert step == int(step) > 0
    assert step % 2 == 0
    assert starts == [-1 + k * step for k in range(len(windows))]
    assert image >= row_bits


@given(accelerators(), st.sampled_from(device_names()), st.sampled_from([1, 2]), st.integers(0, 2), st.booleans())
@SLOW
def test_banked_designs_obey_the_laws(
    accelerator: Accelerator, device: str, channels: int, case: int, fuse: bool
) -> None:
    model, resolution = CASES[case]
    table = op_table(build_workload(model, resolution), load_plan("uniform8"))
    banked = accelerator.replace(dram=BankedDram(device, channels))
    try:
        _, engines, lowered = map_and_lower(table, banked, fuse)
    except InfeasibleError:
        assume(False)
        return
    result = run_program(lowered, 2)
    total = result.total_ticks
    assert (result.unit_busy_ticks + result.unit_wait_ticks.sum(axis=1) + result.unit_drained_ticks == total).all()
    assert result.op_own_ticks.sum() == result.image_finish_ticks[0] >= program_bound_ticks(lowered.program)
    assert result.first_image_cycles >= design_bound(table, engines, banked).cycles
    # Every burst is a hit, a closed row or a conflict.
    moved = [row.runs * -(-row.run_bits // banked.dram.burst_bits) for row in lowered.program.expand(2)]
    events = result.named_dram_events()
    assert sum(moved) == sum(events[name] for name in DRAM_EVENTS[:3])
    assert events["refreshes"] > 0 or total < 10_000 * result.program.ticks_per_cycle


def test_lowered_program_on_banks_equals_the_oracle() -> None:
    # One tick per cycle and device clock; eight channels, because the oracle takes its time for every burst.
    base = load_accelerator("m2vit_ddr4_banked").replace(clock_hz=1_200_000_000, dram=BankedDram("DDR4-2400", 8))
    small = base.replace(activation_buffer=Buffer(12 * 8192), weight_buffer=Buffer(24 * 8192))
    table = op_table(build_workload("efficientvit_b0", 32), load_plan("m2q"))
    _, _, lowered = map_and_lower(table, small)
    result = run_program(lowered, record=True)
    oracle = simulate_by_stepping(lowered.program)
    assert result.rows[:, :3].tolist() == [[row.start, row.free, row.finish] for row in oracle]
    assert result.named_dram_events()["refreshes"] > 5


def test_banks_cost_time_and_move_the_same() -> None:
    plan = load_plan("m2q")
    fixed, banked = (
        evaluate("efficientvit_b1", None, load_accelerator(f"m2vit{e}"), plan) for e in ("", "_ddr4_banked")
    )
    assert (fixed.totals == banked.totals).all()
    assert banked.result.busy_cycles()["dram"] > fixed.result.busy_cycles()["dram"]
    assert "dram_events" not in fixed.to_json()
    events = banked.to_json()["dram_events"]
    assert list(events) == list(DRAM_EVENTS)
    assert min(events.values()) > 0
    slower = evaluate("efficientvit_b1", None, replace_device(banked.accelerator, "LPDDR4-2400"), plan)
    assert slower.result.cycles_total != banked.result.cycles_total


def replace_device(accelerator: Accelerator, device: str) -> Accelerator:
    assert isinstance(accelerator.dram, BankedDram)
    return accelerator.replace(dram=replace(accelerator.dram, device=device))
