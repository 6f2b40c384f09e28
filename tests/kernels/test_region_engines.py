"""Two-region activations on the engines: products aligned behind the multipliers, or decoded values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.api import evaluate
from accelsim.arch import Engine, EngineKind, Mode, OutputStage
from accelsim.area import engine_area_mm2
from accelsim.config import load_accelerator
from accelsim.counts import ENGINE_COUNTS
from accelsim.engines import requantize, rules_of, select_mode, tile_cost, uniform_codes, walk_tile
from accelsim.engines.conformance import check_engine
from accelsim.engines.tile import decoded
from accelsim.formats import Format
from accelsim.ir import Loop
from accelsim.kernels import products
from accelsim.parts import Convention, shift_pj
from accelsim.plan import QuantPlan, Rule
from accelsim.problems import AccelsimError, InfeasibleError
from accelsim.rtl.engine import check_engine as check_rtl
from accelsim.technology import load_technology
from accelsim.unit_energy import engine_unit_energies
from accelsim.workloads.registry import build_workload

MODES = (Mode(4, 8, 2), Mode(8, 8), Mode(8, 16, 1, 2))
ALIGNED = Engine("m", EngineKind.MAC_ARRAY, 2, 4, 1, OutputStage(4), modes=MODES, depthwise=True, region_shift=8)
PLAIN = replace(ALIGNED, region_shift=0)
SHIFT = Engine("s", EngineKind.SHIFT_ARRAY, 2, 4, 1, OutputStage(4), terms=2)
FUSION = Engine("f", EngineKind.COMPOSABLE_ARRAY, 2, 4, 1, OutputStage(4), modes=(Mode(4, 4, 4), Mode(8, 8, 1)))
FLOW = Engine("a", EngineKind.SYSTOLIC_ARRAY, 3, 4, 1, OutputStage(3), modes=MODES[:2], dataflow="os")
WIDE = (-(1 << 40), 1 << 40)
NAMES = ["r3n0", "r4n3", "r4n8", "r8n8", "r3p1", "r4p4", "r6p3", "r8p8"]
SEEDS = st.integers(0, 2**31)


def fmt(name: str) -> Format:
    return Format.parse(name)


def values_of(codes: np.ndarray, one: Format) -> np.ndarray:
    """The integers behind codes, word by word, from the definition."""

    def value(code: int) -> int:
        if one.low_negative:
            return code if code < 0 else code * 2**one.region_shift
        flag, payload = divmod(code, 2 ** (one.bits - 1))
        return payload * 2**one.region_shift if flag else payload

    return np.array([value(int(code)) for code in codes.flat], np.int64).reshape(codes.shape)


def drawn(one: Format, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    low = -one.low_codes if one.low_negative else 0
    return rng.integers(low, low + 2 * one.low_codes, shape)


@st.composite
def sizes(draw: st.DrawFn, engine: Engine) -> Engine:
    return replace(
        engine, lanes=draw(st.integers(1, 4)), lane_width=draw(st.integers(1, 9)), pixel_groups=draw(st.integers(1, 4)),
        output_stage=OutputStage(draw(st.integers(1, 9)), draw(st.integers(0, 5))),
        activation_port_bits_per_cycle=draw(st.sampled_from([7, 32, 4096])),
        weight_port_bits_per_cycle=draw(st.sampled_from([5, 24, 4096])),
    )  # fmt: skip


@st.composite
def tiles(draw: st.DrawFn) -> Loop:
    if draw(st.integers(0, 3)) == 0:
        return Loop(draw(st.integers(2, 9)), draw(st.integers(1, 6)), draw(st.integers(1, 2)), 1, 1, 3, 3)
    depth = st.integers(2, 20)
    return Loop(draw(st.integers(1, 3)), draw(st.integers(1, 6)), 1, draw(st.integers(1, 9)), draw(depth))


def walked_is_exact(engine: Engine, tile: Loop, right: str, left: str, seed: int) -> None:
    """Cycles and counts of the stepped array are the closed form's, its values those of plain integers."""
    rng = np.random.default_rng(seed)
    stored = drawn(fmt(left), (tile.groups, tile.rows, tile.taps, tile.depth), rng)
    limit = 1 << (fmt(right).bits - 1)
    weights = rng.integers(-limit, limit, (tile.groups, tile.cols, tile.taps, tile.depth))
    scales = np.stack([np.full(weights.shape[:2], value) for value in (-3, 5, 4)], axis=-1)
    codes = uniform_codes(weights, fmt(right))
    found, outputs = walk_tile(engine, tile, fmt(right), fmt(left), stored, codes, scales, WIDE)
    assert found == tile_cost(engine, tile, fmt(right), fmt(left))
    total = np.einsum("grtd,gctd->grc", values_of(stored, fmt(left)), weights)
    assert (outputs == requantize(total, -3, 5, 4, *WIDE)).all()


@given(sizes(ALIGNED), tiles(), st.sampled_from(NAMES), st.sampled_from(["u3", "u4", "u8"]), SEEDS)
@settings(max_examples=120, deadline=None)
def test_an_aligned_product_is_the_product_with_the_value(
    engine: Engine, tile: Loop, left: str, right: str, seed: int
) -> None:
    walked_is_exact(engine, tile, right, left, seed)


@pytest.mark.parametrize("engine", [PLAIN, FUSION, FLOW], ids=lambda engine: engine.kind)
@given(tiles(), st.sampled_from(["r3n0", "r4n3", "r4p4", "r3p1"]), SEEDS)
@settings(max_examples=30, deadline=None)
def test_other_arrays_decode_what_their_modes_hold(engine: Engine, tile: Loop, left: str, seed: int) -> None:
    if tile.depthwise and not engine.depthwise and engine is FUSION:
        with pytest.raises(InfeasibleError, match="depthwise"):
            tile_cost(engine, tile, fmt("u8"), fmt(left))
        return
    walked_is_exact(engine, tile, "u8", left, seed)


@pytest.mark.parametrize("name", NAMES)
def test_one_slot_covers_every_code_and_weight(name: str) -> None:
    one = fmt(name)
    flag = products.SIGN_FLAG if one.low_negative else one.low_codes
    codes = np.arange(2 * one.low_codes) - (one.low_codes if one.low_negative else 0)
    values = values_of(codes, one)
    assert (decoded(codes, one) == values).all()
    assert max(abs(values)) == one.max_magnitude
    for code, value in zip(codes.tolist(), values.tolist(), strict=True):
        payload = products.region_payload(code, flag)
        assert -one.low_codes <= payload < one.low_codes  # fits an operand of b bits
        places = products.region_places(code, flag, one.region_shift)
        for weight in (-8, -3, 0, 7):
            assert products.split_product(payload, weight & 15, 0, 4) << places == weight * value


def test_a_shift_array_takes_narrow_values_as_what_it_shifts() -> None:
    assert select_mode(SHIFT, fmt("apot8"), fmt("r4p4")) == 1
    assert select_mode(SHIFT, fmt("apot8"), fmt("r4p5")) is None  # a value of 9 bits
    assert select_mode(SHIFT, fmt("u8"), fmt("r4p4")) is None
    check_engine(SHIFT)


def test_which_mode_executes_them() -> None:
    """Aligned where that is cheaper; decoded where the same mode holds the value, because it saves the shift."""
    assert select_mode(ALIGNED, fmt("u8"), fmt("r8p8")) == 3 + 1
    assert select_mode(ALIGNED, fmt("u4"), fmt("r8n8")) == 3 + 0
    assert select_mode(ALIGNED, fmt("u8"), fmt("r4p4")) == 1
    assert select_mode(ALIGNED, fmt("u8"), fmt("u8")) == 1
    assert select_mode(ALIGNED, fmt("apot8"), fmt("r8p8")) is None
    assert select_mode(ALIGNED, fmt("u9"), fmt("r8p8")) is None
    passes = replace(ALIGNED, modes=(Mode(4, 4), Mode(4, 8, 1, 2)))
    assert select_mode(passes, fmt("u4"), fmt("r4p8")) == 2 + 0
    assert select_mode(passes, fmt("u4"), fmt("r5p8")) is None  # a mode of two passes aligns nothing
    assert rules_of(ALIGNED).columns(ALIGNED) == 6
    assert rules_of(PLAIN).columns(PLAIN) == 3


def test_one_bit_less_of_region_shift_falls_back_or_is_refused() -> None:
    narrow, tile = replace(ALIGNED, region_shift=7), Loop(1, 3, 1, 5, 40)
    assert select_mode(narrow, fmt("u8"), fmt("r8p8")) == 2  # 16 value bits in two passes
    aligned, passes = (tile_cost(one, tile, fmt("u8"), fmt("r8p8")) for one in (ALIGNED, narrow))
    assert passes.occupancy_cycles == 2 * aligned.occupancy_cycles
    assert passes.activation_read_bits == aligned.activation_read_bits  # 8 bits of each are stored
    without = replace(narrow, modes=MODES[:2])
    with pytest.raises(InfeasibleError, match="region_shift: 8 on a mac_array or a mode of 16-bit activations"):
        tile_cost(without, tile, fmt("u8"), fmt("r8p8"))
    assert tile_cost(replace(without, region_shift=8), tile, fmt("u8"), fmt("r8p8")) == aligned
    with pytest.raises(InfeasibleError, match=r"needs 33 bits, has 32"):
        tile_cost(ALIGNED, Loop(1, 1, 1, 1, 257), fmt("u8"), fmt("r8p8"))


@pytest.mark.parametrize("node_nm", [28, 45])
def test_prices_of_aligned_products(node_nm: int) -> None:
    tech, clock = load_technology(node_nm), 200_000_000
    for convention in Convention:
        before, after = (engine_unit_energies(one, node_nm, clock, convention) for one in (PLAIN, ALIGNED))
        assert (*after[:3], *after[6:]) == (*before[:3], *before[6:])
        assert before[3:6] == (None, None, None)
        assert after[5] is None  # the mode of two passes aligns nothing
        assert after[1] < after[4] < after[2]
        assert after[4] - after[1] == pytest.approx(after[3] - after[0])
    adds = [tech.value(f"arithmetic.add_{bits}_pj") for bits in (16, 32)]
    energies = engine_unit_energies(ALIGNED, node_nm, clock, Convention.ARITHMETIC)
    assert energies[4] - energies[1] == pytest.approx(shift_pj(24, tech) + (adds[1] - adds[0]) / 2)
    slots = [rules_of(one).slot_um2(one, tech) for one in (PLAIN, ALIGNED)]
    # Two products per multiplier, results of 24 bits, amounts of 0 … 8: four stages.
    assert slots[1] - slots[0] == pytest.approx(2 * tech.value("area.shift_32_um2") * 24 * 4 / 160)
    areas = [engine_area_mm2(one, node_nm) for one in (PLAIN, ALIGNED)]
    assert areas[1]["adder_tree"] == pytest.approx(areas[0]["adder_tree"] * 32 / 24)
    assert [areas[1][part] for part in ("operand_registers", "accumulators", "output_stage")] == [
        areas[0][part] for part in ("operand_registers", "accumulators", "output_stage")
    ]


def test_engines_with_aligned_products_keep_every_law() -> None:
    check_engine(ALIGNED)
    check_engine(replace(ALIGNED, region_shift=2, depthwise=False, modes=(Mode(4, 4), Mode(8, 8))))


def test_rtl_has_no_alignment() -> None:
    buildable = replace(ALIGNED, modes=MODES[:2])
    check_rtl(replace(buildable, region_shift=0))
    with pytest.raises(AccelsimError, match="aligned products"):
        check_rtl(buildable)


# --- whole networks ------------------------------------------------------------------------------------------------


def plan(output: str, method: str = "") -> QuantPlan:
    return QuantPlan("p", (Rule("class:softmax", output=fmt(output), nonlinear=method), Rule("*")))


def test_a_network_counts_its_aligned_products_apart() -> None:
    design, plain = load_accelerator("m2vit_regions"), load_accelerator("m2vit_nonlinear")
    uniform, aligned = (evaluate("deit_tiny", 224, design, plan(name)) for name in ("u8", "r8p8"))
    passes = evaluate("deit_tiny", 224, plain, plan("r8p8"))
    shares = sum(op.loop.macs for op in build_workload("deit_tiny", 224).ops if op.op_class == "attn_values")
    assert shares > 0
    place = ENGINE_COUNTS.index("products_0")
    assert (uniform.totals[place + 4], aligned.totals[place + 4]) == (0, shares)
    assert passes.totals[place + 2] == shares
    assert aligned.result.cycles_total <= uniform.result.cycles_total * 1.01
    assert passes.result.cycles_total > aligned.result.cycles_total
