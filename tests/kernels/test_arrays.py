"""Closed forms against the cycle-stepped arrays, and the values that the arrays compute against numpy integers."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from accelsim.arch import Engine, EngineKind, Mode, OutputStage
from accelsim.engines import requantize, require, select_mode, tile_cost, uniform_codes, walk_tile
from accelsim.formats import Format
from accelsim.ir import Loop
from accelsim.kernels import arrays, products
from accelsim.problems import AccelsimError, InfeasibleError
from quant.levels import decode, encode, levels

MODES = (Mode(8, 8, 1), Mode(4, 8, 2), Mode(2, 8, 4))
CLAMP = (-128, 127)


def fmt(name: str) -> Format:
    return Format.parse(name)


@st.composite
def engines(draw: st.DrawFn, kind: EngineKind) -> Engine:
    return Engine(
        "array",
        kind,
        lanes=draw(st.integers(1, 4)),
        lane_width=draw(st.integers(1, 9)),
        pixel_groups=draw(st.integers(1, 4)),
        output_stage=OutputStage(draw(st.integers(1, 9)), draw(st.integers(0, 5))),
        modes=MODES if kind is EngineKind.MAC_ARRAY else (),
        terms=draw(st.integers(1, 3)) if kind is EngineKind.SHIFT_ARRAY else 0,
        depthwise=True,
        activation_port_bits_per_cycle=draw(st.sampled_from([7, 32, 100, 4096])),
        weight_port_bits_per_cycle=draw(st.sampled_from([5, 24, 100, 4096])),
    )


@st.composite
def dense_tiles(draw: st.DrawFn) -> Loop:
    side = draw(st.sampled_from([1, 2]))
    small = st.integers(1, 6)
    return Loop(draw(st.integers(1, 3)), draw(small), draw(st.integers(1, 2)), draw(st.integers(1, 11)),
                draw(st.integers(1, 20)), side, side)  # fmt: skip


@st.composite
def depthwise_tiles(draw: st.DrawFn) -> Loop:
    return Loop(draw(st.integers(2, 20)), draw(st.integers(1, 6)), draw(st.integers(1, 9)), 1, 1, 3, 1)


def operands(tile: Loop, weight: Format, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    acts = rng.integers(-128, 128, (tile.groups, tile.rows, tile.taps, tile.depth))
    shape = (tile.groups, tile.cols, tile.taps, tile.depth)
    if weight.is_shift:
        weights = rng.choice(levels(weight), shape)
    else:
        weights = rng.integers(-(1 << (weight.bits - 1)), 1 << (weight.bits - 1), shape)
    parts = [rng.integers(-999, 999, shape[:2]), rng.integers(0, 1 << 20, shape[:2]), rng.integers(1, 31, shape[:2])]
    return acts, weights, np.stack(parts, axis=-1)


def expected_outputs(acts: np.ndarray, weights: np.ndarray, requant: np.ndarray, low: int, high: int) -> np.ndarray:
    """Plain numpy integers: the dot product of decoded weights, then the output stage."""
    total = np.einsum("grtd,gctd->grc", acts, weights)
    bias, multiplier, shift = np.moveaxis(requant[:, None], -1, 0)
    return requantize(total, bias, multiplier, shift, low, high)


def check(engine: Engine, tile: Loop, weight: Format, seed: int, clamp: tuple[int, int] = CLAMP) -> None:
    acts, weights, requant = operands(tile, weight, seed)
    codes = encode(weights, weight) if weight.is_shift else uniform_codes(weights, weight)
    assert (decode(codes, weight) == weights).all()
    walked, outputs = walk_tile(engine, tile, weight, fmt("u8"), acts, codes, requant, clamp)
    assert walked == tile_cost(engine, tile, weight, fmt("u8"))
    assert (outputs == expected_outputs(acts, weights, requant, *clamp)).all()


SEEDS = st.integers(0, 2**31)
UNIFORM = st.sampled_from(["u2", "u3", "u4", "u6", "u8"])
SHIFTS = st.sampled_from(["pot3", "pot4", "apot8", "apot12"])


@given(engines(EngineKind.MAC_ARRAY), dense_tiles(), UNIFORM, SEEDS, st.booleans())
@settings(max_examples=150, deadline=None)
def test_multiplier_array_dense(engine: Engine, tile: Loop, name: str, seed: int, relu: bool) -> None:
    check(engine, tile, fmt(name), seed, (0 if relu else -128, 127))


@given(engines(EngineKind.MAC_ARRAY), depthwise_tiles(), UNIFORM, SEEDS)
@settings(max_examples=100, deadline=None)
def test_multiplier_array_depthwise(engine: Engine, tile: Loop, name: str, seed: int) -> None:
    check(engine, tile, fmt(name), seed)


@given(engines(EngineKind.SHIFT_ARRAY), dense_tiles(), SHIFTS, SEEDS)
@settings(max_examples=150, deadline=None)
def test_shift_array_dense_is_the_integer_dot_product(engine: Engine, tile: Loop, name: str, seed: int) -> None:
    assume(not tile.depthwise)
    check(engine, tile, fmt(name), seed)


@given(engines(EngineKind.SHIFT_ARRAY), depthwise_tiles(), SHIFTS, SEEDS)
@settings(max_examples=50, deadline=None)
def test_shift_array_depthwise_needs_all_terms_in_one_slot(engine: Engine, tile: Loop, name: str, seed: int) -> None:
    if fmt(name).terms > engine.terms:
        with pytest.raises(InfeasibleError, match="in depthwise mode"):
            require(engine, tile, fmt(name), fmt("u8"))
    else:
        check(engine, tile, fmt(name), seed)


@given(engines(EngineKind.MAC_ARRAY), dense_tiles(), SEEDS, st.integers(2, 3))
@settings(max_examples=40, deadline=None)
def test_equal_tiles_back_to_back_are_one_tile_of_more_groups(
    engine: Engine, tile: Loop, seed: int, count: int
) -> None:
    """What occupancy means: the next equal tile may start there, and its own latency then holds."""
    one = tile_cost(engine, tile, fmt("u8"), fmt("u8"))
    chain = Loop(tile.groups * count, tile.rows_h, tile.rows_w, tile.cols, tile.depth, tile.kernel_h, tile.kernel_w)
    assume(chain.depthwise == tile.depthwise)  # several groups of one channel run in another mode than one
    acts, weights, requant = operands(chain, fmt("u8"), seed)
    codes = uniform_codes(weights, fmt("u8"))
    walked, _ = walk_tile(engine, chain, fmt("u8"), fmt("u8"), acts, codes, requant, CLAMP)
    assert walked.occupancy_cycles == count * one.occupancy_cycles
    assert walked.latency_cycles == (count - 1) * one.occupancy_cycles + one.latency_cycles


@pytest.mark.parametrize(("fields", "bits"), [(1, 8), (2, 4), (4, 2)])
def test_one_multiplier_gives_its_products_exactly(fields: int, bits: int) -> None:
    """All 8-bit activations against all packed weight registers of a mode (every register for one byte)."""
    limit = 1 << (bits - 1)
    for activation in range(-128, 128, 5):
        for packed in range(0, 256, 3):
            for product in range(fields):
                field = packed >> (product * bits) & (2 * limit - 1)
                weight = field - 2 * limit if field >= limit else field
                assert products.split_product(activation, packed, product, bits) == activation * weight


def test_shift_slot_covers_every_two_term_level() -> None:
    values = levels(fmt("apot8"))
    for value, code in zip(values, encode(values, fmt("apot8")), strict=True):
        for activation in (-128, -1, 0, 77, 127):
            assert products.shift_terms(activation, code, 0, 2) == activation * value


def test_accumulator_too_narrow_is_refused_with_numbers_and_overflow_is_seen() -> None:
    engine = Engine("a", EngineKind.MAC_ARRAY, 2, 4, 1, OutputStage(4), modes=MODES, accumulator_bits=18)
    tile = Loop(1, 1, 1, 1, 64)
    with pytest.raises(InfeasibleError, match=r"needs 22 bits, has 18, short by 4"):
        tile_cost(engine, tile, fmt("u8"), fmt("u8"))
    geometry = np.zeros(arrays.GEOMETRY_SIZE, np.int64)
    geometry[: arrays.CLAMP_LOW] = (1, 1, 1, 1, 64, 2, 4, 1, 1, 1, 8, 8, 64, 64, 1, 0, 0, 8, 0, 18)
    geometry[arrays.DEPTH_PRODUCTS] = 1
    acts = np.full((1, 1, 1, 64), -128, np.int64)
    codes = np.full((1, 1, 1, 64, 1, 2), -128, np.int64)
    result, out = np.zeros(arrays.RESULT_SIZE, np.int64), np.zeros((1, 1, 1), np.int64)
    arrays.walk_array(geometry, acts, codes, np.ones((1, 1, 3), np.int64), out, result)
    assert result[arrays.STATUS] == arrays.STATUS_OVERFLOW


def test_wrong_operand_shapes_are_refused() -> None:
    engine = Engine("a", EngineKind.MAC_ARRAY, 2, 4, 1, OutputStage(4), modes=MODES)
    tile = Loop(1, 2, 1, 3, 5)
    acts, weights, requant = operands(tile, fmt("u8"), 0)
    codes = uniform_codes(weights, fmt("u8"))
    with pytest.raises(AccelsimError, match=r"expected \(1, 2, 1, 5\)"):
        walk_tile(engine, tile, fmt("u8"), fmt("u8"), acts[:, :1], codes, requant, CLAMP)
    with pytest.raises(AccelsimError, match="do not fit u4"):
        uniform_codes(np.array([8]), fmt("u4"))


@pytest.mark.parametrize(
    ("weight", "activation", "mode"),
    [("u8", "u8", 0), ("u5", "u8", 0), ("u4", "u8", 1), ("u4", "u4", 1), ("u3", "u8", 1), ("u2", "u8", 2),
     ("u9", "u8", None), ("u8", "u9", None), ("apot8", "u8", None)],
)  # fmt: skip
def test_multiplier_mode_choice(weight: str, activation: str, mode: int | None) -> None:
    engine = Engine("a", EngineKind.MAC_ARRAY, 2, 4, 1, OutputStage(4), modes=MODES)
    assert select_mode(engine, fmt(weight), fmt(activation)) == mode


@pytest.mark.parametrize(("weight", "mode"), [("pot4", 0), ("apot8", 1), ("apot12", 2), ("u8", None)])
def test_shift_mode_choice(weight: str, mode: int | None) -> None:
    engine = Engine("s", EngineKind.SHIFT_ARRAY, 2, 4, 1, OutputStage(4), terms=2)
    assert select_mode(engine, fmt(weight), fmt("u8")) == mode


def test_a_mode_wider_than_the_multiplier_is_not_a_split() -> None:
    engine = Engine("a", EngineKind.MAC_ARRAY, 1, 1, 1, OutputStage(1), modes=(Mode(8, 8), Mode(4, 8, 3)))
    tile = Loop(1, 1, 1, 1, 1)
    acts, weights, requant = operands(tile, fmt("u4"), 0)
    codes = uniform_codes(weights, fmt("u4"))
    with pytest.raises(AccelsimError, match="needs 12 rows, has 8"):
        walk_tile(engine, tile, fmt("u4"), fmt("u8"), acts, codes, requant, CLAMP)
