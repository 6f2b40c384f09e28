"""Products that non-linear methods need: operands shifted by log2 codes, 16-bit activations in two passes."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from accelsim.arch import Engine, EngineKind, Mode, OutputStage
from accelsim.area import engine_area_mm2
from accelsim.counts import MAX_TERMS
from accelsim.engines import requantize, rules_of, select_mode, tile_cost, uniform_codes, walk_tile
from accelsim.engines.conformance import check_engine
from accelsim.engines.tile import decoded
from accelsim.formats import Format, accumulator_bits_needed
from accelsim.ir import Loop
from accelsim.kernels import products
from accelsim.parts import Convention
from accelsim.problems import AccelsimError, InfeasibleError
from accelsim.technology import load_technology
from accelsim.unit_energy import engine_unit_energies

SHIFT = Engine("s", EngineKind.SHIFT_ARRAY, 2, 4, 1, OutputStage(4), terms=2, dynamic_shift=True)
MODES = (Mode(4, 8, 2), Mode(8, 8), Mode(8, 16, 1, 2))
MULT = Engine("m", EngineKind.MAC_ARRAY, 2, 4, 1, OutputStage(4), modes=MODES, depthwise=True)
WIDE = (-(1 << 40), 1 << 40)
SEEDS = st.integers(0, 2**31)


def fmt(name: str) -> Format:
    return Format.parse(name)


@st.composite
def sizes(draw: st.DrawFn, engine: Engine) -> Engine:
    return replace(
        engine,
        lanes=draw(st.integers(1, 4)),
        lane_width=draw(st.integers(1, 9)),
        pixel_groups=draw(st.integers(1, 4)),
        output_stage=OutputStage(draw(st.integers(1, 9)), draw(st.integers(0, 5))),
        activation_port_bits_per_cycle=draw(st.sampled_from([7, 32, 4096])),
        weight_port_bits_per_cycle=draw(st.sampled_from([5, 24, 4096])),
    )


@st.composite
def tiles(draw: st.DrawFn) -> Loop:
    small = st.integers(1, 6)
    tile = Loop(draw(st.integers(1, 3)), draw(small), draw(st.integers(1, 2)), draw(st.integers(1, 9)),
                draw(st.integers(1, 20)))  # fmt: skip
    assume(not tile.depthwise)
    return tile


def walked_is_exact(engine: Engine, tile: Loop, right: str, left: str, seed: int) -> None:
    """Cycles and counts of the stepped array are the closed form's, its values those of plain integers."""
    rng = np.random.default_rng(seed)
    shape = (tile.groups, tile.rows, tile.taps, tile.depth)
    if left.startswith("log"):
        stored = rng.integers(0, 1 << fmt(left).bits, shape)
        values = np.array(
            [0 if q == stored_zero(left) else 2.0**-q * 2 ** (stored_zero(left) - 1) for q in stored.flat]
        )
        values = values.astype(np.int64).reshape(shape)
    else:
        limit = 1 << (fmt(left).bits - 1)
        values = stored = rng.integers(-limit, limit, shape)
    limit = 1 << (fmt(right).bits - 1)
    weights = rng.integers(-limit, limit, (tile.groups, tile.cols, tile.taps, tile.depth))
    scales = np.stack([np.full(weights.shape[:2], value) for value in (-3, 5, 4)], axis=-1)
    found, outputs = walk_tile(
        engine, tile, fmt(right), fmt(left), stored, uniform_codes(weights, fmt(right)), scales, WIDE
    )
    assert found == tile_cost(engine, tile, fmt(right), fmt(left))
    total = np.einsum("grtd,gctd->grc", values, weights)
    assert (outputs == requantize(total, -3, 5, 4, *WIDE)).all()


def stored_zero(name: str) -> int:
    return (1 << fmt(name).bits) - 1


# --- log2 formats --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value_bits"), [("log2", 4), ("log3", 8), ("log4", 16)])
def test_a_log2_format(name: str, value_bits: int) -> None:
    one = fmt(name)
    assert (one.name, one.bits, one.value_bits, one.is_shift) == (name, int(name[-1]), value_bits, False)
    codes = np.arange(1 << one.bits)
    assert decoded(codes, one).tolist() == [*(2 ** (len(codes) - 2 - q) for q in codes[:-1]), 0]
    assert decoded(codes, one).max() < 1 << (one.value_bits - 1) <= 2 * decoded(codes, one).max()
    assert accumulator_bits_needed(fmt("u8"), one, 197) == 8 + value_bits + 8
    for wrong in ("log1", "log5", "log"):
        with pytest.raises(AccelsimError, match="log2, log3, log4"):
            fmt(wrong)


# --- dynamic shifts ------------------------------------------------------------------------------------------------


@given(
    sizes(SHIFT),
    tiles(),
    st.sampled_from(["log2", "log3", "log4"]),
    st.sampled_from(["u3", "u8"]),
    SEEDS,
    st.integers(1, 3),
)
@settings(max_examples=80, deadline=None)
def test_a_dynamic_shift_is_the_product_with_the_power(
    engine: Engine, tile: Loop, left: str, right: str, seed: int, terms: int
) -> None:
    walked_is_exact(replace(engine, terms=terms), tile, right, left, seed)


def test_one_slot_covers_every_code_and_operand() -> None:
    for bits in (2, 3, 4):
        zero = (1 << bits) - 1
        for code, value in itertools.product(range(zero + 1), range(-128, 128)):
            power = 0 if code == zero else 2 ** (zero - 1 - code)
            assert products.dynamic_shift(code, value, zero) == value * power


def test_which_engine_takes_log2_codes() -> None:
    assert select_mode(SHIFT, fmt("u8"), fmt("log4")) == MAX_TERMS
    assert select_mode(SHIFT, fmt("u9"), fmt("log4")) is None
    assert select_mode(SHIFT, fmt("apot8"), fmt("log4")) is None
    assert select_mode(SHIFT, fmt("u8"), fmt("u8")) is None
    assert select_mode(SHIFT, fmt("apot8"), fmt("u8")) == 1
    assert select_mode(replace(SHIFT, dynamic_shift=False), fmt("u8"), fmt("log4")) is None
    assert select_mode(MULT, fmt("u8"), fmt("log4")) == 2  # 16 value bits, in two passes
    assert select_mode(MULT, fmt("u8"), fmt("log3")) == 1
    narrow = replace(MULT, modes=MODES[:2])
    with pytest.raises(InfeasibleError, match=r"dynamic_shift: true on a shift_array or a mode of 16-bit activations"):
        tile_cost(narrow, Loop(1, 1, 1, 1, 4), fmt("u8"), fmt("log4"))
    with pytest.raises(InfeasibleError, match=r"needs 33 bits, has 32"):
        tile_cost(SHIFT, Loop(1, 1, 1, 1, 257), fmt("u8"), fmt("log4"))
    assert tile_cost(SHIFT, Loop(1, 1, 1, 1, 256), fmt("u8"), fmt("log4")).products == 256


@pytest.mark.parametrize("node_nm", [28, 45])
def test_prices_of_a_dynamic_shift(node_nm: int) -> None:
    plain = replace(SHIFT, dynamic_shift=False)
    for convention in Convention:
        before, after = (engine_unit_energies(one, node_nm, 200_000_000, convention) for one in (plain, SHIFT))
        assert before[MAX_TERMS] is None
        assert (*after[:MAX_TERMS], *after[MAX_TERMS + 1 :]) == (*before[:MAX_TERMS], *before[MAX_TERMS + 1 :])
        assert before[0] < after[MAX_TERMS] < engine_unit_energies(MULT, node_nm, 200_000_000, convention)[1]
    tech = load_technology(node_nm)
    slot = rules_of(SHIFT).slot_um2(SHIFT, tech) - rules_of(SHIFT).slot_um2(plain, tech)
    assert slot == pytest.approx(tech.value("area.shift_32_um2") * (8 + 4 + 22) / 160)
    assert engine_area_mm2(SHIFT, node_nm)["operand_registers"] == engine_area_mm2(plain, node_nm)["operand_registers"]
    one_term = replace(SHIFT, terms=1)
    assert rules_of(one_term).operand_bits(one_term) == 16  # the register of a 4-bit code is too narrow for an operand


# --- two passes ----------------------------------------------------------------------------------------------------


@given(sizes(MULT), tiles(), st.sampled_from(["u9", "u12", "u16", "log4"]), st.sampled_from(["u2", "u4", "u8"]), SEEDS)
@settings(max_examples=80, deadline=None)
def test_two_passes_are_the_product_with_the_wide_activation(
    engine: Engine, tile: Loop, left: str, right: str, seed: int
) -> None:
    assert select_mode(engine, fmt(right), fmt(left)) == 2
    walked_is_exact(engine, tile, right, left, seed)


@given(sizes(MULT), tiles(), SEEDS)
@settings(max_examples=30, deadline=None)
def test_two_passes_of_a_split_multiplier(engine: Engine, tile: Loop, seed: int) -> None:
    split = replace(engine, modes=(Mode(4, 8, 2), Mode(4, 16, 2, 2), Mode(8, 8)))
    walked_is_exact(split, tile, "u4", "u16", seed)


def test_the_second_pass_costs_a_step_and_an_accumulate_but_no_reads() -> None:
    tile, wide = Loop(1, 4, 1, 6, 20), replace(MULT, accumulator_bits=40)
    one, two = (tile_cost(wide, tile, fmt("u8"), fmt(name)) for name in ("u8", "u16"))
    assert two.occupancy_cycles == 2 * one.occupancy_cycles
    assert two.accumulates == 2 * one.accumulates
    assert (two.products, two.outputs, two.weight_read_bits) == (one.products, one.outputs, one.weight_read_bits)
    assert two.activation_read_bits == 2 * one.activation_read_bits  # the same number of elements, twice as wide


def test_the_choice_of_a_mode_counts_passes() -> None:
    both = replace(MULT, modes=(Mode(8, 8), Mode(8, 16, 1, 2), Mode(16, 16)))
    assert select_mode(both, fmt("u8"), fmt("u16")) == 2
    assert select_mode(both, fmt("u8"), fmt("u8")) == 0
    with pytest.raises(InfeasibleError, match="in depthwise mode"):
        tile_cost(MULT, Loop(5, 2, 2, 1, 1, 3, 3), fmt("u8"), fmt("u16"))
    flow = Engine("a", EngineKind.SYSTOLIC_ARRAY, 4, 4, 1, OutputStage(3), modes=MODES[1:], dataflow="os")
    assert select_mode(flow, fmt("u8"), fmt("u16")) is None


@pytest.mark.parametrize("node_nm", [28, 45])
def test_prices_of_two_passes(node_nm: int) -> None:
    plain = replace(MULT, modes=MODES[:2])
    for convention in Convention:
        before, after = (engine_unit_energies(one, node_nm, 200_000_000, convention) for one in (plain, MULT))
        assert after[2] == pytest.approx(2 * after[1])
        assert (*after[:2], *after[3:]) == (*before[:2], *before[3:])
    areas = [engine_area_mm2(one, node_nm) for one in (plain, MULT)]
    assert areas[0]["slots"] == areas[1]["slots"]
    assert areas[1]["operand_registers"] == pytest.approx(areas[0]["operand_registers"] * 24 / 16)


def test_engines_with_these_modes_keep_every_law() -> None:
    check_engine(SHIFT)
    check_engine(MULT)
