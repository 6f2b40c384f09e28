"""A reduction in two segments: closed form against blocks and steps one by one, values against aligned integers."""

from __future__ import annotations

import numba
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.kernels.segments import segmented_tile

SIZE = st.integers(1, 9)
# Products, passes, inputs of a mode; activation and weight bits.
MODE = st.tuples(st.sampled_from([1, 2, 4]), st.integers(1, 2), st.sampled_from([1, 2, 4]))


@numba.njit(error_model="numpy")
def closed_form(shape, full, narrow, ports):  # type: ignore[no-untyped-def]
    """The inner function, made callable from Python; not cached, as numba would not see that it changed."""
    return segmented_tile(shape[0], shape[1], shape[2], shape[3], shape[4], shape[5], full, narrow, ports)


def word_cycles(inputs: int, rows: int, cols: int, bits: tuple[int, int], ports: tuple[int, int]) -> int:
    """Cycles that the slower port needs for a word: bits are sent until none are left."""
    cycles = 0
    left = [inputs * rows * bits[0], inputs * cols * bits[1]]
    while cycles == 0 or left[0] > 0 or left[1] > 0:
        left = [max(0, left[k] - ports[k]) for k in range(2)]
        cycles += 1
    return cycles


def walk(values, weights, high, drop, sizes, modes, bits, ports):  # type: ignore[no-untyped-def]
    """(compute and drain cycles of the first block, blocks, results): every pass, word and product one by one.

    `values` [groups, rows, depth] and `weights` [groups, depth, cols] are narrow codes behind the first `high`.
    """
    lanes, pixels, width = sizes
    groups, rows, depth = values.shape
    cols = weights.shape[2]
    channels = lanes * max(mode[0] for mode in modes)
    sums = np.zeros((groups, rows, cols), np.int64)
    blocks, first = 0, None
    for g in range(groups):
        for row in range(0, rows, pixels):
            for col in range(0, cols, channels):
                cycles = 0
                here = range(row, min(row + pixels, rows)), range(col, min(col + channels, cols))
                for segment in (1, 0):
                    places = range(high, depth) if segment else range(high)
                    products, passes, inputs = modes[segment]
                    word = width * inputs
                    widest = min(pixels, rows), min(lanes * products, channels, cols)
                    step = word_cycles(min(word, len(places)), *widest, bits[segment], ports)
                    for start in range(0, len(here[1]), lanes * products):
                        for at in range(0, len(places), word):
                            for _ in range(passes):
                                cycles += step
                            for place in places[at : at + word]:
                                for r in here[0]:
                                    for c in here[1][start : start + lanes * products]:
                                        sums[g, r, c] += values[g, r, place] * weights[g, place, c]
                    if segment:
                        cycles += 1
                        for r in here[0]:
                            for c in here[1]:
                                sums[g, r, c] <<= drop
                blocks += 1
                drain = -(-min(pixels, rows) * min(channels, cols) // ports[2])
                first = first or (cycles, drain)
    assert first is not None
    return first, blocks, sums


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_two_segments_equal_their_steps(data: st.DataObject) -> None:
    """Cycles, blocks and sums; the sums are those of codes aligned to full steps, in one product."""
    draw = data.draw
    groups, rows, cols = draw(st.integers(1, 2)), draw(SIZE), draw(SIZE)
    high, low, drop = draw(SIZE), draw(SIZE), draw(st.integers(1, 6))
    sizes = (draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 4)))
    modes = (draw(MODE), draw(MODE))
    bits = ((8, 8), (draw(st.sampled_from([2, 8])), 8 - drop))
    ports = (draw(st.sampled_from([8, 24, 4096])), draw(st.sampled_from([8, 24, 4096])), draw(st.integers(1, 9)))
    rng = np.random.default_rng(draw(st.integers(0, 2**30)))
    values = rng.integers(0, 256, (groups, rows, high + low))
    weights = rng.integers(-8, 8, (groups, high + low, cols))
    (compute, drain), blocks, sums = walk(values, weights, high, drop, sizes, modes, bits, ports)
    segments = [(depth, *mode, *pair) for depth, mode, pair in zip((high, low), modes, bits, strict=True)]
    found = closed_form((groups, rows, cols, *sizes), segments[0], segments[1], ports)
    assert found == (max(compute, drain), blocks, compute, drain)
    aligned = weights.copy()
    aligned[:, high:] <<= drop
    assert (sums == values @ aligned).all()
