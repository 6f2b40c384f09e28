"""Composable array: closed form against the stepped array, values of every mode, and what each mode shares."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.arch import Engine, EngineKind, Mode, OutputStage
from accelsim.engines import requantize, select_mode, slot_products, tile_cost, uniform_codes, walk_tile
from accelsim.engines.composable_array import BRICKS, bricks_per_product
from accelsim.formats import Format
from accelsim.ir import Loop
from accelsim.kernels.bricks import brick_product
from accelsim.problems import AccelsimError

MODES = (Mode(2, 2, 16), Mode(2, 4, 8), Mode(2, 8, 4), Mode(4, 4, 4), Mode(4, 8, 2), Mode(8, 8, 1))
WIDE = 1 << 20
SMALL, SEEDS = st.integers(1, 6), st.integers(0, 2**31)
WIDTHS = st.sampled_from(["u2", "u3", "u4", "u6", "u8"])


def fmt(name: str) -> Format:
    return Format.parse(name)


def array(lanes: int, width: int, pixels: int, ports: tuple[int, int] = (WIDE, WIDE), outputs: int = 4) -> Engine:
    return Engine("array", EngineKind.COMPOSABLE_ARRAY, lanes, width, pixels, OutputStage(outputs, 3), modes=MODES,
                  depthwise=True, activation_port_bits_per_cycle=ports[0],
                  weight_port_bits_per_cycle=ports[1])  # fmt: skip


PORTS = st.tuples(st.sampled_from([7, 32, 100, WIDE]), st.sampled_from([5, 24, 100, WIDE]))
ENGINES = st.builds(array, st.integers(1, 4), SMALL, st.integers(1, 4), PORTS, st.integers(1, 9))
DENSE = st.builds(Loop, st.integers(1, 3), SMALL, st.integers(1, 2), st.integers(1, 19), st.integers(1, 40),
                  st.integers(1, 2), st.integers(1, 2))  # fmt: skip
DEPTHWISE = st.builds(Loop, st.integers(2, 14), SMALL, st.integers(1, 9), st.just(1), st.just(1), st.integers(1, 3),
                      st.integers(1, 3))  # fmt: skip


def check(engine: Engine, tile: Loop, weight: Format, activation: Format, seed: int) -> None:
    """Cycles, reads, accumulator updates and values of the stepped array are those of the closed form and of numpy."""
    rng = np.random.default_rng(seed)
    acts = rng.integers(-(1 << activation.bits - 1), 1 << activation.bits - 1,
                        (tile.groups, tile.rows, tile.taps, tile.depth))  # fmt: skip
    weights = rng.integers(-(1 << weight.bits - 1), 1 << weight.bits - 1,
                           (tile.groups, tile.cols, tile.taps, tile.depth))  # fmt: skip
    scales = np.stack([rng.integers(low, high, weights.shape[:2]) for low, high in ((-99, 99), (1, 99), (1, 9))], -1)
    codes = uniform_codes(weights, weight)
    walked, outputs = walk_tile(engine, tile, weight, activation, acts, codes, scales, (-30_000, 30_000))
    total = np.einsum("grtd,gctd->grc", acts, weights)
    assert walked == tile_cost(engine, tile, weight, activation)
    assert (outputs == requantize(total, *np.moveaxis(scales[:, None], -1, 0), -30_000, 30_000)).all()


@given(ENGINES, DENSE, WIDTHS, WIDTHS, SEEDS)
@settings(max_examples=200, deadline=None)
def test_dense(engine: Engine, tile: Loop, weight: str, activation: str, seed: int) -> None:
    check(engine, tile, fmt(weight), fmt(activation), seed)


@given(ENGINES, DEPTHWISE, WIDTHS, WIDTHS, SEEDS)
@settings(max_examples=150, deadline=None)
def test_depthwise(engine: Engine, tile: Loop, weight: str, activation: str, seed: int) -> None:
    if tile.depthwise:
        check(engine, tile, fmt(weight), fmt(activation), seed)


@pytest.mark.parametrize("weight_bits", [2, 4, 8])
@pytest.mark.parametrize("activation_bits", [2, 4, 8])
def test_bricks_make_every_product_exactly(weight_bits: int, activation_bits: int) -> None:
    for activation in range(-(1 << activation_bits - 1), 1 << activation_bits - 1):
        for weight in range(-(1 << weight_bits - 1), 1 << weight_bits - 1, 3):
            neighbours = 0b1011 << weight_bits  # the fields above this one in the weight register
            packed = weight & ((1 << weight_bits) - 1) | neighbours
            assert brick_product(activation, packed, activation_bits, weight_bits) == activation * weight


@pytest.mark.parametrize("mode", range(len(MODES)))
def test_a_mode_uses_all_bricks_and_divides_channels_and_reduction(mode: int) -> None:
    channels, inputs = slot_products(array(1, 1, 1), mode)
    assert channels * inputs == MODES[mode].products
    assert MODES[mode].products * bricks_per_product(MODES[mode]) == BRICKS
    assert channels * MODES[mode].weight_bits == inputs * MODES[mode].activation_bits == 8


@pytest.mark.parametrize(
    ("weight", "activation", "speed"),
    [("u8", "u8", 1), ("u4", "u8", 2), ("u2", "u8", 4), ("u4", "u4", 4), ("u2", "u4", 8), ("u2", "u2", 16),
     ("u6", "u4", 1), ("u3", "u4", 4)],
)  # fmt: skip
def test_speed_of_every_mode_on_work_that_fills_the_array(weight: str, activation: str, speed: int) -> None:
    """Products per slot and cycle by hand: 64 / (weight bits · activation bits) at the widths that are executed."""
    engine = array(2, 4, 2, outputs=64)
    tile = Loop(1, 4, 4, 64, 128, 3, 3)
    cost = tile_cost(engine, tile, fmt(weight), fmt(activation))
    assert cost.occupancy_cycles == tile.macs // (engine.slots * speed)


def test_depthwise_four_bits_adds_two_taps_at_two_positions() -> None:
    engine = array(2, 4, 2, outputs=64)
    tile = Loop(4, 8, 8, 1, 1, 3, 3)
    wide, narrow = (tile_cost(engine, tile, fmt(name), fmt(name)) for name in ("u8", "u4"))
    assert wide.occupancy_cycles == 16 * 9  # 64 positions, 4 at a time, 9 taps
    assert narrow.occupancy_cycles == 8 * 5  # 8 at a time, ⌈9 / 2⌉ steps
    assert narrow.accumulates == 4 * 64 * 5


def test_a_mode_that_bricks_cannot_make_is_refused() -> None:
    for mode, words in ((Mode(4, 4, 2), "4 products"), (Mode(6, 6, 1), "no operands")):
        engine = Engine("a", EngineKind.COMPOSABLE_ARRAY, 1, 1, 1, OutputStage(1), modes=(mode,))
        assert select_mode(engine, fmt("u4"), fmt("u4")) == 0
        with pytest.raises(AccelsimError, match=words):
            tile_cost(engine, Loop(1, 1, 1, 1, 1), fmt("u4"), fmt("u4"))
