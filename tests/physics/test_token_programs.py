"""Programs of plans with token groups: what is counted and moved, laws, bounds, the oracle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from accelsim.api import Report, simulate
from accelsim.arch import Accelerator, Buffer, Dram
from accelsim.bounds import design_bound
from accelsim.config import load_accelerator
from accelsim.counts import ENGINE_COUNTS, count_columns
from accelsim.energy import unit_energies
from accelsim.kernels.engine_forms import dense_cycles
from accelsim.mappers.heuristic import map_and_lower
from accelsim.optable import (
    M_INPUTS,
    M_MODE,
    M_PASSES,
    M_PRODUCTS,
    S_COMBO,
    EngineTable,
    OpTable,
    engine_table,
    op_table,
)
from accelsim.plan import apply_plan
from accelsim.problems import AccelsimError, InfeasibleError
from accelsim.reference import simulate_by_stepping
from accelsim.result import run_program
from accelsim.rtl.tiles import lowered_tiles
from accelsim.token_bound import least_design
from accelsim.token_forms import combos_of, recount, worst_case
from accelsim.token_groups import with_counts
from tests.support.designs import accelerators
from tests.support.program_laws import SLOW, assert_laws, lowered_or_skip
from tests.support.token_plans import SLICED, grouped_plan, grouped_table, small_vit

TOKENS = 17
COUNTS = st.fixed_dictionaries({"b1": st.integers(1, TOKENS), "b2": st.integers(1, TOKENS)})
PLANS = st.sampled_from(["uniform8", "w4a8"])
DROPS = st.sampled_from([1, 2, 4, 6])
SOME = st.sampled_from([SLICED, ("norm1", "qkv"), ("softmax", "values"), ("qkv", "softmax"), ("norm2", "fc1")])
DESIGNS = ["bitfusion_edge", "trio_vit", "m2vit", "systolic_os", "m2vit_lpddr5_banked", "tiny"]


def of_op(report: Report, name: str) -> dict[str, int]:
    """Counts of an op by column."""
    row = report.result.counts[report.table.op_names.index(name)]
    return dict(zip(count_columns(report.accelerator), row.tolist(), strict=True))


@given(accelerators(), COUNTS, PLANS, DROPS, SOME, st.booleans())
@SLOW
def test_random_designs_obey_the_laws(
    accelerator: Accelerator, high: dict[str, int], plan: str, drop: int, sliced: tuple[str, ...], fuse: bool
) -> None:
    """No hazard, conservation of time, products and bits moved, both bounds."""
    table = grouped_table(high, drop, plan, sliced)
    chains, lowered, engines = lowered_or_skip(table, accelerator, fuse)
    assert_laws(table, accelerator, chains, lowered, engines)


@pytest.mark.parametrize("design", DESIGNS)
@given(high=COUNTS, drop=DROPS)
@settings(max_examples=2, deadline=None)
def test_the_kernel_steps_as_the_oracle(design: str, high: dict[str, int], drop: int) -> None:
    """Start, unit free and finish of every row."""
    report = simulate(grouped_table(high, drop), load_accelerator(design), record=True)
    oracle = simulate_by_stepping(report.lowered.program)
    expected = np.array([[row.start, row.free, row.finish] for row in oracle])
    np.testing.assert_array_equal(report.result.rows[:, :3], expected)


@pytest.mark.parametrize("mapper", ["heuristic", "exhaustive"])
@pytest.mark.parametrize("design", DESIGNS)
def test_all_tokens_full_is_the_plan_without_groups(design: str, mapper: str) -> None:
    """The same program and counts; and the mapping does not depend on the counts."""
    accelerator = load_accelerator(design)
    full = simulate(grouped_table({"b1": TOKENS, "b2": TOKENS}), accelerator, mapper=mapper)
    plain = simulate(worst_case(full.table), accelerator, mapper=mapper)
    for name in ("templates", "phases", "regions"):
        np.testing.assert_array_equal(getattr(full.lowered.program, name), getattr(plain.lowered.program, name))
    np.testing.assert_array_equal(full.lowered.counts, plain.lowered.counts)
    some = simulate(grouped_table({"b1": 3, "b2": 9}), accelerator, mapper=mapper)
    assert some.mapping == plain.mapping
    assert some.metrics()["energy_pj"] < plain.metrics()["energy_pj"]
    if mapper == "exhaustive":
        assert some.found is not None
        assert some.found.kept.cycles == plain.result.cycles_total
    # A saved mapping is that of every count.
    again = simulate(some.table, accelerator, plain.mapping)
    np.testing.assert_array_equal(again.lowered.program.templates, some.lowered.program.templates)


@given(high=st.integers(1, TOKENS))
@settings(max_examples=8, deadline=None)
def test_products_of_attention_fall_with_the_square(high: int) -> None:
    """Exact counts by mode on an array of bricks: 4-bit keys run in 4x8, both in 4x4; 8-bit keys in 8x8."""
    report = simulate(grouped_table({"b1": high}), load_accelerator("bitfusion_edge"))
    low, heads, width = TOKENS - high, 3, 8
    modes = [(mode.weight_bits, mode.activation_bits) for mode in report.accelerator.engines[0].modes]
    expected = {
        "b1.scores": {(8, 8): TOKENS * high, (4, 8): high * low, (4, 4): low * low},
        "b1.values": {(8, 8): TOKENS * high, (4, 8): high * low, (4, 4): low * low},
    }
    for name, by_mode in expected.items():
        counts = of_op(report, name)
        found = {mode: counts[f"fusion.{ENGINE_COUNTS[number]}"] for number, mode in enumerate(modes)}
        assert found == {mode: heads * width * by_mode.get(mode, 0) for mode in modes}


def test_scores_are_four_tiles_and_values_blocks_of_two_segments() -> None:
    """Times of the rows from the closed forms, one pair of groups after the other, worked by hand.

    8 lanes × 8 inputs × 16 pixel groups; one head of 8 channels per tile, or all three.
    """
    high, low = 5, 12
    report = simulate(grouped_table({"b1": high}), load_accelerator("bitfusion_edge"))
    program, ticks = report.lowered.program, report.lowered.program.ticks_per_cycle
    times: dict[str, list[int]] = {"b1.scores": [], "b1.values": []}
    for row in program.expand():
        name = program.op_names[row.op]
        if name in times and program.units[row.unit] == "fusion":
            times[name].append(row.occupancy_ticks // ticks)
    tiles = len(times["b1.values"]) // 2
    heads = 3 // tiles
    ports = (32_768, 2_048, 128)

    def cycles(rows: int, cols: int, channels: int, inputs: int, a: int, w: int) -> int:
        return dense_cycles(heads, rows, cols, 1, 8, 8, 8 * inputs, 16, channels, 1, a, w, *ports, 0)[0]

    four = [cycles(high, high, 1, 1, 8, 8), cycles(high, low, 2, 1, 8, 4), cycles(low, high, 1, 1, 4, 8),
            cycles(low, low, 2, 2, 4, 4)]  # fmt: skip
    # Narrow rows, full columns: the array lists no 8x4 mode, the activation is decoded.
    assert times["b1.scores"] == four * tiles
    # Values: 8 columns are one block of 16 channels.  Narrow keys of full rows: 12 inputs of 8, two words; all full:
    # one word; and the cycle of the shift.  Narrow rows take 12 inputs of 16 at once.  The drain of 5 × 8 or 12 × 8
    # results is one cycle.
    assert times["b1.values"] == [heads * (2 + 1 + 1), heads * (1 + 1 + 1)] * tiles


def test_one_mode_decodes_and_counts_true_bits() -> None:
    """On an array of one mode nothing is split: times of full tokens, operands read at their own widths."""
    high, low, heads, width = 5, 12, 3, 8
    accelerator = load_accelerator("trio_vit")
    some, full = (simulate(grouped_table({"b1": count}), accelerator) for count in (high, TOKENS))
    engines = [engine.name for engine in accelerator.engines]

    def busy(report: Report) -> list[int]:
        return [report.result.busy_cycles()[name] for name in engines]

    assert busy(some) == busy(full)
    bits = 8 * high + 4 * low
    counts = of_op(some, "b1.scores")
    # Rows once per block of 8 of the 17 columns, keys once per block of 16 of the 17 rows.
    assert counts["activation_read_bits"] == heads * width * (3 * bits + 2 * bits)
    assert counts["activation_write_bits"] == heads * TOKENS * TOKENS * 8
    counts = of_op(some, "b1.values")
    assert counts["activation_read_bits"] == heads * TOKENS * bits + heads * 2 * width * bits
    assert counts["activation_write_bits"] == heads * width * bits
    assert of_op(some, "b1.norm1")["activation_write_bits"] == 24 * bits
    assert of_op(some, "b1.softmax")["activation_write_bits"] == heads * TOKENS * bits
    assert of_op(some, "b1.qkv")["activation_read_bits"] == -(-72 // 8) * 24 * bits
    assert of_op(some, "b1.fc2")["activation_read_bits"] == 3 * 96 * bits
    # The class token's scores read its queries in full and all keys.
    assert of_op(some, "b2.rank_scores")["activation_read_bits"] == heads * width * (3 * 8 + bits)


def tight(design: str, kib: int, fuse: bool, burst_bits: int = 64) -> tuple[Accelerator, bool]:
    """A design whose activation buffer holds few tensors, on a bus of small bursts."""
    accelerator = load_accelerator(design)
    return accelerator.replace(
        activation_buffer=Buffer(kib * 8192), dram=Dram(4_000_000_000, burst_bits, 5e-8), name="tight"
    ), fuse


@pytest.mark.parametrize("design", ["trio_vit", "bitfusion_edge", "systolic_os"])
@given(high=st.integers(1, TOKENS), drop=st.sampled_from([2, 4]), kib=st.sampled_from([2, 3, 4]), fuse=st.booleans())
@settings(max_examples=12, deadline=None)
def test_spilled_tokens_lie_densely_and_are_moved_once(design: str, high: int, drop: int, kib: int, fuse: bool) -> None:
    """What is stored of a tensor with groups covers its true bits without gaps or overlaps, in its own room."""
    table = grouped_table({"b1": high}, drop)
    accelerator, fuse = tight(design, kib, fuse)
    try:
        lowered = map_and_lower(table, accelerator, fuse)[2]
    except InfeasibleError:
        assume(False)
        return
    bus = len(lowered.program.units) - 1
    stored: dict[int, list[tuple[int, int]]] = {}
    loaded: dict[int, set[tuple[int, int]]] = {}
    for row in lowered.program.expand():
        if row.unit != bus:
            continue
        runs = [(row.dram_base_bits + n * row.stride_bits, row.run_bits) for n in range(row.runs)]
        if row.write < 0:
            stored.setdefault(row.op, []).extend(runs)
        else:
            loaded.setdefault(row.op, set()).update(runs)
    found = 0
    for name in ("b1.norm1", "b1.qkv", "b1.softmax", "b1.values", "b1.norm2", "b1.fc1"):
        k = table.op_names.index(name)
        if k not in stored:
            continue
        tensor = table.tensor_names.index(name)
        elements = table.quantized.workload.tensor_by_name[name].elements // TOKENS
        at = start = int(lowered.tensor_address_bits[tensor])
        for first, bits in sorted(stored[k]):
            assert first == at, name
            at += bits
        end = start + elements * (high * 8 + (TOKENS - high) * (8 - drop))
        assert at == end
        for reader in range(k + 1, len(table.op_names)):
            for first, bits in loaded.get(reader, ()):
                if start <= first < start + elements * TOKENS * 8:
                    assert first + bits <= end
        found += 1
    assume(found)


@given(accelerators(shift=False), st.integers(1, TOKENS - 1), st.sampled_from([1, 2, 4]))
@SLOW
def test_without_other_modes_nothing_grows_with_the_full_tokens(accelerator: Accelerator, high: int, drop: int) -> None:
    """A fixed mapping, fixed bandwidth, one mode: cycles, every count and the dynamic energy fall with the counts."""
    one_mode = tuple(replace(engine, modes=engine.modes[:1]) for engine in accelerator.engines)
    one_mode = tuple(replace(e, modes=tuple(replace(m, weight_bits=8, products=1) for m in e.modes)) for e in one_mode)
    design = accelerator.replace(engines=one_mode)
    results = []
    for count in (high, high + 1):
        table = grouped_table({"b1": count, "b2": TOKENS}, drop)
        try:
            results.append(run_program(map_and_lower(table, design)[2]))
        except InfeasibleError:
            assume(False)
    less, more = results
    assert less.cycles_total <= more.cycles_total
    assert (less.counts <= more.counts).all()
    prices = unit_energies(design)
    assert less.counts.sum(axis=0) @ prices < more.counts.sum(axis=0) @ prices


def test_in_other_modes_whole_blocks_fall() -> None:
    """Splits round to blocks of each group; at whole blocks the array's time falls with the counts."""
    design = load_accelerator("bitfusion_edge")
    workload = small_vit(28, 32, 2)  # 50 tokens
    plan = grouped_plan(workload, {"b1": 50}, 4, "w4a8")
    arrays = [
        simulate(op_table(workload, with_counts(plan, {"b1": high})), design).result.busy_cycles()["fusion"]
        for high in (2, 18, 34, 50)
    ]
    assert arrays == sorted(set(arrays))


@pytest.mark.parametrize("design", DESIGNS)
def test_the_bound_is_one_for_all_counts(design: str) -> None:
    """Not more than what any count takes, and the same for every count."""
    accelerator = load_accelerator(design)
    bounds = set()
    for high in (1, 2, 9, 16, TOKENS):
        report = simulate(grouped_table({"b1": high, "b2": 18 - high}), accelerator)
        bounds.add(report.bound)
        assert report.bound.cycles <= report.result.cycles_total
    assert len(bounds) == 1
    plain = worst_case(report.table)
    assert report.bound.cycles <= design_bound(plain, report.engines, accelerator).cycles


def test_the_bound_of_full_tokens_would_be_wrong() -> None:
    """On a design that computes most of the time few full tokens beat the bound of all, and not their own."""
    base = load_accelerator("bitfusion_edge")
    vector = replace(base.vector, port_bits_per_cycle=1 << 20, latency_cycles=0, **{
        f"{kind}_per_cycle": 1 << 16 for kind in ("mul", "add", "shift", "compare", "table", "division")
    })  # fmt: skip
    design = base.replace(vector=vector, dram=Dram(100_000_000_000_000, 64, 0.0), name="fast around the array")
    workload = small_vit(28, 32, 2)
    plan = grouped_plan(workload, {"b1": 1, "b2": 1}, 4, "w4a8")
    report = simulate(op_table(workload, plan), design)
    worst = worst_case(report.table)
    assert report.bound.cycles <= report.result.cycles_total
    assert design_bound(worst, engine_table(design, worst), design).cycles > report.result.cycles_total


def test_the_bound_takes_the_best_of_every_mode() -> None:
    """Most channels and inputs and fewest passes of all groups of an op, whatever the modes."""
    design = load_accelerator("m2vit")
    table = grouped_table({"b1": 5}, 4, "w4a8")
    found = engine_table(design, table)
    modes = found.modes.copy()
    able = modes[:, :, M_MODE] >= 0
    numbers = np.random.default_rng(0).integers(1, 9, modes.shape)
    modes[able, 1:] = numbers[able, 1:]
    least, engines = least_design(table, EngineTable(found.engines, modes), design)
    for name in ("b1.qkv", "b1.scores", "b1.values", "b1.fc2"):
        k = table.op_names.index(name)
        best = engines.modes[least.slices[k, 0, S_COMBO]]
        used = modes[np.unique(combos_of(table, k)[:, 0])]
        assert len(used) > 1
        for e in np.flatnonzero((used[:, :, M_MODE] >= 0).all(axis=0)):
            assert (best[e, [M_PRODUCTS, M_INPUTS]] >= used[:, e][:, [M_PRODUCTS, M_INPUTS]].max(axis=0)).all()
            assert best[e, M_PASSES] <= used[:, e, M_PASSES].min()


def test_recounting_is_building_anew() -> None:
    """All arrays of a table with other counts, and its plan."""
    workload = small_vit()
    plan = grouped_plan(workload, {"b1": 3, "b2": 4})
    changed: OpTable = recount(op_table(workload, plan), {"b2": 11})
    anew = op_table(workload, with_counts(plan, {"b2": 11}))
    assert changed.quantized == apply_plan(workload, with_counts(plan, {"b2": 11}))
    for name in ("ops", "slices", "vector", "tensors", "groups", "forms", "form_slices"):
        np.testing.assert_array_equal(getattr(changed, name), getattr(anew, name))
    assert changed.combos == anew.combos
    with pytest.raises(AccelsimError, match="18 full tokens in op b2"):
        recount(anew, {"b2": 18})


def test_systolic_arrays_keep_values_in_one_mode() -> None:
    """Sums that travel cannot be shifted between modes: an answer with op, formats and levers."""
    base = load_accelerator("systolic_ws")
    narrow = replace(base.engines[0].modes[0], weight_bits=4, products=2)
    both = base.replace(engines=(replace(base.engines[0], modes=(narrow, base.engines[0].modes[0])),))
    simulate(grouped_table({"b1": 5}), base)
    with pytest.raises(InfeasibleError, match="cannot shift its sums") as caught:
        simulate(grouped_table({"b1": 5}), both)
    assert "b1.values on" in str(caught.value)
    assert "values of u8 and u4" in str(caught.value)
    # Groups of the queries and keys alone are two modes in rows and columns, which it can run.
    assert simulate(grouped_table({"b1": 5}, sliced=("norm1", "norm2", "fc1")), both).result.cycles_total > 0


def test_the_rtl_refuses_token_groups() -> None:
    """One clear line."""
    with pytest.raises(AccelsimError, match="some tokens have fewer bits than others"):
        lowered_tiles(simulate(grouped_table({"b1": 5}), load_accelerator("trio_vit")))
