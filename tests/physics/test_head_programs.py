"""Programs of plans with head widths: what is counted and moved, laws, bounds, the oracle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from accelsim.api import Report, simulate
from accelsim.arch import Accelerator, Buffer, Dram, Engine, EngineKind, Mode, OutputStage
from accelsim.bounds import design_bound
from accelsim.channels import Channels
from accelsim.config import load_accelerator
from accelsim.counts import ENGINE_COUNTS, count_columns
from accelsim.formats import Format
from accelsim.head_widths import HeadWidths
from accelsim.kernels.engine_forms import dense_cycles
from accelsim.mappers.heuristic import map_and_lower
from accelsim.optable import op_table
from accelsim.plan import QuantPlan, WeightShare
from accelsim.problems import AccelsimError, InfeasibleError
from accelsim.reference import simulate_by_stepping
from accelsim.result import run_program
from accelsim.rtl.tiles import lowered_tiles
from accelsim.token_forms import worst_case
from tests.support.designs import accelerators
from tests.support.head_plans import DIM, HEADED, HEADS, TOKENS, head_plan, head_table, small_vit, with_bits
from tests.support.program_laws import assert_laws, lowered_or_skip

FEW = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
SEEDS = st.integers(0, 1 << 20)
SOME = st.sampled_from([HEADED, ("qkv",), ("softmax", "values"), ("proj",), ("qkv", "proj")])
DESIGNS = ["bitfusion_edge", "trio_vit", "m2vit", "m2vit_lpddr5_banked", "tiny"]
SIZE = DIM // HEADS


def of_op(report: Report, name: str) -> dict[str, int]:
    """Counts of an op by column."""
    row = report.result.counts[report.table.op_names.index(name)]
    return dict(zip(count_columns(report.accelerator), row.tolist(), strict=True))


@given(accelerators(), SEEDS, st.sampled_from(["uniform8", "w4a8"]), SOME, st.booleans())
@FEW
def test_random_designs_obey_the_laws(
    accelerator: Accelerator, seed: int, plan: str, headed: tuple[str, ...], fuse: bool
) -> None:
    """No hazard, conservation of time, products and bits moved, both bounds."""
    table = head_table(seed, headed=headed, base=plan)
    chains, lowered, engines = lowered_or_skip(table, accelerator, fuse)
    assert_laws(table, accelerator, chains, lowered, engines)


@pytest.mark.parametrize("design", DESIGNS)
@given(seed=SEEDS)
@settings(max_examples=2, deadline=None)
def test_the_kernel_steps_as_the_oracle(design: str, seed: int) -> None:
    """Start, unit free and finish of every row, of random widths."""
    report = simulate(head_table(seed), load_accelerator(design), record=True)
    oracle = simulate_by_stepping(report.lowered.program)
    expected = np.array([[row.start, row.free, row.finish] for row in oracle])
    np.testing.assert_array_equal(report.result.rows[:, :3], expected)


@pytest.mark.parametrize("mapper", ["heuristic", "exhaustive"])
@pytest.mark.parametrize("design", [*DESIGNS, "systolic_os"])
def test_equal_widths_are_the_plan_without_heads(design: str, mapper: str) -> None:
    """The same program, counts, mapping and bound, on adder trees and on systolic arrays."""
    accelerator = load_accelerator(design)
    equal = simulate(head_table(widths=(8,)), accelerator, mapper=mapper)
    plain = simulate(worst_case(equal.table), accelerator, mapper=mapper)
    assert plain.table.quantized.plan.fingerprint() != equal.table.quantized.plan.fingerprint()
    for name in ("templates", "phases", "regions"):
        np.testing.assert_array_equal(getattr(equal.lowered.program, name), getattr(plain.lowered.program, name))
    np.testing.assert_array_equal(equal.lowered.counts, plain.lowered.counts)
    assert equal.mapping == plain.mapping
    assert equal.bound == plain.bound


def fixed() -> QuantPlan:
    """Widths of one layer that tests work out by hand."""
    plan = head_plan(small_vit(), widths=(8,))
    plan = with_bits(plan, "b0.qkv", (8, 4, 3, 8, 8, 4, 2, 8, 8), shifts=False)
    plan = with_bits(plan, "b0.softmax", (8, 4, 2), shifts=False)
    plan = with_bits(plan, "b0.values", (8, 4, 4), shifts=True)
    return with_bits(plan, "b0.proj", (4, 4, 8), shifts=True)


def test_products_run_in_the_modes_of_their_heads() -> None:
    """Exact counts by mode on an array of bricks, of heads and of the segments of the projection."""
    report = simulate(op_table(small_vit(), fixed()), load_accelerator("bitfusion_edge"))
    modes = [(mode.weight_bits, mode.activation_bits) for mode in report.accelerator.engines[0].modes]
    head = TOKENS * TOKENS * SIZE
    expected = {
        # (k, q): (8, 8), (8, 4) has no mode of its own, (4, 3).
        "b0.scores": {(8, 8): 2 * head, (4, 4): head},
        # (v, shares): (2, 8), (8, 4), (8, 2).
        "b0.values": {(2, 8): head, (8, 8): 2 * head},
        # (filters, sums): (4, 8), (4, 4), (8, 4).
        "b0.proj": dict.fromkeys(((4, 8), (4, 4), (8, 8)), TOKENS * DIM * SIZE),
    }
    for name, by_mode in expected.items():
        counts = of_op(report, name)
        found = {mode: counts[f"fusion.{ENGINE_COUNTS[number]}"] for number, mode in enumerate(modes)}
        assert found == {mode: by_mode.get(mode, 0) for mode in modes}, name


def test_operands_are_read_and_results_written_at_their_own_widths() -> None:
    """On an array of one mode nothing is split: cycles of the widest, bits of every part."""
    accelerator = load_accelerator("trio_vit")
    own = simulate(op_table(small_vit(), fixed()), accelerator)
    plain = simulate(worst_case(own.table), accelerator)
    assert own.result.busy_cycles()["vector"] <= plain.result.busy_cycles()["vector"]
    q, k, v, shares, sums, filters = (8, 4, 3), (8, 8, 4), (2, 8, 8), (8, 4, 2), (8, 4, 4), (4, 4, 8)
    counts = of_op(own, "b0.scores")
    # Queries once per block of 8 of the 17 columns, keys once per block of 16 of the 17 rows.
    assert counts["activation_read_bits"] == TOKENS * SIZE * (3 * sum(q) + 2 * sum(k))
    counts = of_op(own, "b0.values")
    assert counts["activation_read_bits"] == TOKENS * TOKENS * sum(shares) + 2 * TOKENS * SIZE * sum(v)
    assert counts["activation_write_bits"] == TOKENS * SIZE * sum(sums)
    assert of_op(own, "b0.softmax")["activation_write_bits"] == TOKENS * TOKENS * sum(shares)
    assert of_op(own, "b0.qkv")["activation_write_bits"] == TOKENS * SIZE * (sum(q) + sum(k) + sum(v))
    counts, before = of_op(own, "b0.proj"), of_op(plain, "b0.proj")
    assert counts["activation_read_bits"] == 3 * TOKENS * SIZE * sum(sums)
    extra = DIM * (32 + 32)
    assert counts["weight_write_bits"] - extra == DIM * SIZE * sum(filters)
    # Filters once per block of 16 of the 17 rows.
    assert before["weight_read_bits"] - counts["weight_read_bits"] == 2 * DIM * SIZE * (3 * 8 - sum(filters))
    # A word of 8 inputs for every head; their steps are shifted by 0 + 4, 4 + 4 and 4 + 0: the accumulators shift once.
    words, shifts = 3, 1
    engines = [f"{engine.name}.accumulates" for engine in accelerator.engines]
    assert sum(counts[name] for name in engines) == TOKENS * DIM * (words + shifts)
    assert sum(before[name] for name in engines) == TOKENS * DIM * words


def test_every_pass_of_a_block_reads_the_activations() -> None:
    """Modes of three and two products: a block of 3 lanes' channels takes two passes of the mode with two."""
    lanes = 4
    accelerator = load_accelerator("bitfusion_edge")
    modes = (Mode(8, 8, 1), Mode(4, 8, 2), Mode(2, 8, 3))
    engine = Engine(
        "mac", EngineKind.MAC_ARRAY, lanes, 8, 4, OutputStage(64), modes=modes, activation_port_bits_per_cycle=4096,
        weight_port_bits_per_cycle=4096,
    )  # fmt: skip
    filters = (8, 4, 2)
    plan = with_bits(head_plan(small_vit(), widths=(8,), headed=("proj",)), "b0.proj", filters, shifts=True)
    report = simulate(op_table(small_vit(), plan), accelerator.replace(engines=(engine,)))
    channels = [lanes * products for products in (1, 2, 3)]
    passes = [sum(-(-min(channels[2], DIM - at) // own) for at in range(0, DIM, channels[2])) for own in channels]
    assert passes == [6, 4, 2]
    counts = of_op(report, "b0.proj")
    assert counts["activation_read_bits"] == sum(passes) * TOKENS * SIZE * 8


def test_neighbours_of_one_mode_are_one_row() -> None:
    """A tile of three heads in two runs takes the closed forms of two heads and of one, worked by hand."""
    report = simulate(op_table(small_vit(), fixed()), load_accelerator("bitfusion_edge"))
    program, ticks = report.lowered.program, report.lowered.program.ticks_per_cycle
    found = [row for row in program.expand() if program.op_names[row.op] == "b0.scores" and row.unit == 0]
    times = [row.occupancy_ticks // ticks for row in found]

    def cycles(heads: int, channels: int, inputs: int, a: int, w: int) -> int:
        ports = (32_768, 2_048, 128)
        return dense_cycles(heads, TOKENS, TOKENS, 1, SIZE, 8, 8 * inputs, 16, channels, 1, a, w, *ports, 0)[0]

    wide, narrow = cycles(1, 1, 1, 8, 8), cycles(1, 2, 2, 3, 4)
    assert narrow != wide
    assert times in ([2 * wide, narrow], [wide, wide, narrow])


@given(SEEDS, st.sampled_from(["trio_vit", "bitfusion_edge"]), st.sampled_from([2, 3, 4]), st.booleans())
@settings(max_examples=12, deadline=None)
def test_spilled_parts_lie_densely_and_are_moved_once(seed: int, design: str, kib: int, fuse: bool) -> None:
    """What is stored of a tensor with parts covers its true bits without gaps or overlaps, in its own room."""
    table = head_table(seed)
    accelerator = load_accelerator(design)
    accelerator = accelerator.replace(activation_buffer=Buffer(kib * 8192), dram=Dram(4_000_000_000, 64, 5e-8))
    try:
        lowered = map_and_lower(table, accelerator, fuse)[2]
    except InfeasibleError:
        assume(False)
        return
    bus, found = len(lowered.program.units) - 1, 0
    stored: dict[int, list[tuple[int, int]]] = {}
    for row in lowered.program.expand():
        if row.unit == bus and row.write < 0:
            runs = [(row.dram_base_bits + n * row.stride_bits, row.run_bits) for n in range(row.runs)]
            stored.setdefault(row.op, []).extend(runs)
    for item in table.quantized.ops:
        k = table.op_names.index(item.op.name)
        if item.heads is None or k not in stored:
            continue
        tensor = table.quantized.workload.tensor_by_name[item.op.output]
        at = start = int(lowered.tensor_address_bits[table.tensor_names.index(tensor.name)])
        for first, bits in sorted(stored[k]):
            assert first == at
            at += bits
        size = tensor.channels // len(item.heads.bits)
        assert at == start + TOKENS * size * sum(item.heads.bits)
        found += 1
    assume(found)


@given(accelerators(shift=False), SEEDS, st.integers(0, 8))
@FEW
def test_without_other_modes_a_narrower_head_costs_nothing(accelerator: Accelerator, seed: int, part: int) -> None:
    """One mode, fixed bandwidth, the mapping of the worst case: cycles and every count fall with a head's width."""
    one_mode = tuple(replace(engine, modes=engine.modes[:1]) for engine in accelerator.engines)
    one_mode = tuple(replace(e, modes=tuple(replace(m, weight_bits=8, products=1) for m in e.modes)) for e in one_mode)
    design = accelerator.replace(engines=one_mode)
    plan = head_plan(small_vit(), seed, headed=("qkv", "softmax"))
    results = []
    for bits in (3, 8):
        changed = plan
        for name, parts in (("b0.qkv", 9), ("b0.softmax", 3)):
            widths = list(next(rule for rule in plan.rules if rule.match == name).heads.bits)
            widths[(part + 1) % parts] = 8  # the widest stays
            widths[part % parts] = bits
            changed = with_bits(changed, name, widths, shifts=False)
        try:
            results.append(run_program(map_and_lower(op_table(small_vit(), changed), design)[2]))
        except InfeasibleError:
            assume(False)
    less, more = results
    assert less.cycles_total <= more.cycles_total
    assert (less.counts <= more.counts).all()


@pytest.mark.parametrize("design", DESIGNS)
def test_the_bound_is_that_of_the_narrowest(design: str) -> None:
    """Not more than what the plan takes, nor than the bound of the widest."""
    accelerator = load_accelerator(design)
    report = simulate(head_table(3), accelerator)
    assert report.bound.cycles <= report.result.cycles_total
    assert report.bound.cycles <= design_bound(worst_case(report.table), report.engines, accelerator).cycles


def test_the_mapping_is_that_of_the_widest() -> None:
    """Where filters have one width; a saved mapping is that of all widths."""
    accelerator = load_accelerator("bitfusion_edge")
    some = simulate(head_table(1, headed=("qkv", "softmax", "values")), accelerator)
    plain = simulate(worst_case(some.table), accelerator)
    assert some.mapping == plain.mapping
    again = simulate(some.table, accelerator, some.mapping)
    np.testing.assert_array_equal(again.lowered.program.templates, some.lowered.program.templates)


@pytest.mark.parametrize("mapper", ["heuristic", "exhaustive"])
def test_filters_of_heads_have_five_formats(mapper: str) -> None:
    """Every format is executed, in its mode, and stored at its width."""
    plan, widths = head_plan(small_vit(), 1), (2, 3, 4, 6, 8)
    shares = tuple(
        WeightShare(Format.parse(f"u{bits}"), channels=Channels.of(range(number, 3 * DIM, len(widths))))
        for number, bits in enumerate(widths)
    )
    rules = tuple(replace(rule, weights=shares) if rule.match == "b0.qkv" else rule for rule in plan.rules)
    table = op_table(small_vit(), replace(plan, rules=rules))
    report = simulate(table, load_accelerator("bitfusion_edge"), mapper=mapper)
    counts = of_op(report, "b0.qkv")
    channels = {bits: len(range(number, 3 * DIM, len(widths))) for number, bits in enumerate(widths)}
    index_bits = 7
    extra = 3 * DIM * (32 + 32 + index_bits)
    assert counts["weight_write_bits"] - extra == DIM * sum(bits * count for bits, count in channels.items())
    modes = [(mode.weight_bits, mode.activation_bits) for mode in report.accelerator.engines[0].modes]
    executed = {(2, 8): channels[2], (4, 8): channels[3] + channels[4], (8, 8): channels[6] + channels[8]}
    found = {mode: counts[f"fusion.{ENGINE_COUNTS[number]}"] for number, mode in enumerate(modes)}
    assert found == {mode: TOKENS * DIM * executed.get(mode, 0) for mode in modes}
    again = simulate(table, report.accelerator, report.mapping)
    assert again.result.cycles_total == report.result.cycles_total


def test_systolic_arrays_keep_a_sum_in_one_mode_and_shift() -> None:
    """Sums that travel cannot be shifted: an answer with op and levers; heads of products are no sums."""
    design = load_accelerator("systolic_os")
    with pytest.raises(InfeasibleError, match="a systolic array cannot change them within a sum"):
        simulate(head_table(0, headed=("values",)), design)
    assert simulate(head_table(0, headed=("qkv", "softmax")), design).result.cycles_total > 0
    flat = with_bits(head_plan(small_vit(), headed=("values",)), "b0.values", (8, 4, 3), shifts=False)
    rules = tuple(
        replace(rule, heads=HeadWidths(rule.heads.bits, (0,) * HEADS)) if rule.heads else rule for rule in flat.rules
    )
    assert simulate(op_table(small_vit(), replace(flat, rules=rules)), design).result.cycles_total > 0


def test_accumulators_hold_aligned_sums() -> None:
    """8-bit products of 24 inputs need 21 bits; shifted by 12, 31: 8 products of 16 + 12 bits."""
    plan = head_plan(small_vit(), widths=(8,), headed=("values",))
    rules = tuple(replace(rule, heads=HeadWidths((8, 8, 8), (12, 0, 0))) if rule.heads else rule for rule in plan.rules)
    table, base = op_table(small_vit(), replace(plan, rules=rules)), load_accelerator("bitfusion_edge")
    for bits, enough in ((31, False), (32, True)):
        engines = tuple(replace(engine, accumulator_bits=bits) for engine in base.engines)
        design = base.replace(engines=engines)
        if enough:
            assert simulate(table, design).result.cycles_total > 0
        else:
            with pytest.raises(InfeasibleError, match=r"aligned sums of its parts \(needs 32 accumulator bits, has 31"):
                simulate(table, design)


def test_the_rtl_refuses_head_widths() -> None:
    """One clear line."""
    with pytest.raises(AccelsimError, match="some heads have fewer bits than others"):
        lowered_tiles(simulate(head_table(0), load_accelerator("trio_vit")))
