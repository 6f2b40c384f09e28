"""A reduction in segments: closed form against blocks and steps one by one, values against aligned integers."""

from __future__ import annotations

import numba
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.kernels.segments import count_shifts, segmented_tile

SIZE = st.integers(1, 9)
# Products, passes, inputs of a mode; activation and weight bits.
MODE = st.tuples(st.sampled_from([1, 2, 4]), st.integers(1, 2), st.sampled_from([1, 2, 4]))
BITS = st.tuples(st.sampled_from([2, 4, 8]), st.sampled_from([2, 3, 8]))
SHIFTS = st.lists(st.integers(0, 6), min_size=1, max_size=5).map(lambda found: sorted(found, reverse=True))


@numba.njit(error_model="numpy")
def closed_form(shape, segments, ports):  # type: ignore[no-untyped-def]
    """The inner functions, made callable from Python; not cached, as numba would not see that they changed."""
    tile = segmented_tile(
        shape[0], shape[1], shape[2], shape[3], shape[4], shape[5], segments, len(segments), ports
    )  # fmt: skip
    return tile, count_shifts(segments, len(segments))


def word_cycles(inputs: int, rows: int, cols: int, bits: tuple[int, int], ports: tuple[int, int]) -> int:
    """Cycles that the slower port needs for a word: bits are sent until none are left."""
    cycles = 0
    left = [inputs * rows * bits[0], inputs * cols * bits[1]]
    while cycles == 0 or left[0] > 0 or left[1] > 0:
        left = [max(0, left[k] - ports[k]) for k in range(2)]
        cycles += 1
    return cycles


def walk(values, weights, segments, sizes, ports):  # type: ignore[no-untyped-def]
    """(compute and drain cycles of the first block, blocks, updates of an output that are shifts, results).

    Every pass, word and product one by one.  `values` [groups, rows, depth] and `weights` [groups, depth, cols];
    `segments` are (places of the depth, mode, bits, shift) in their order.
    """
    lanes, pixels, width = sizes
    groups, rows, _ = values.shape
    cols = weights.shape[2]
    channels = lanes * max(mode[0] for _, mode, _, _ in segments)
    sums = np.zeros((groups, rows, cols), np.int64)
    blocks, first, shifts = 0, None, 0
    for g in range(groups):
        for row in range(0, rows, pixels):
            for col in range(0, cols, channels):
                cycles, shifts, now = 0, 0, segments[0][3]
                here = range(row, min(row + pixels, rows)), range(col, min(col + channels, cols))
                for places, (products, passes, inputs), bits, shift in segments:
                    if shift != now:
                        cycles, shifts = cycles + 1, shifts + 1
                        for r in here[0]:
                            for c in here[1]:
                                sums[g, r, c] <<= now - shift
                        now = shift
                    word = width * inputs
                    widest = min(pixels, rows), min(lanes * products, channels, cols)
                    step = word_cycles(min(word, len(places)), *widest, bits, ports)
                    for start in range(0, len(here[1]), lanes * products):
                        for at in range(0, len(places), word):
                            for _ in range(passes):
                                cycles += step
                            for place in places[at : at + word]:
                                for r in here[0]:
                                    for c in here[1][start : start + lanes * products]:
                                        sums[g, r, c] += values[g, r, place] * weights[g, place, c]
                blocks += 1
                drain = -(-min(pixels, rows) * min(channels, cols) // ports[2])
                first = first or (cycles, drain)
    assert first is not None
    return first, blocks, shifts, sums


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_segments_equal_their_steps(data: st.DataObject) -> None:
    """Cycles, blocks, shifts and sums; the sums are those of codes aligned to the finest steps, in one product."""
    draw = data.draw
    groups, rows, cols = draw(st.integers(1, 2)), draw(SIZE), draw(SIZE)
    sizes = (draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 4)))
    ports = (draw(st.sampled_from([8, 24, 4096])), draw(st.sampled_from([8, 24, 4096])), draw(st.integers(1, 9)))
    shifts = draw(SHIFTS)
    depths = [draw(SIZE) for _ in shifts]
    rng = np.random.default_rng(draw(st.integers(0, 2**30)))
    # The parts of a segment need not be neighbours.
    order = rng.permutation(sum(depths))
    places = np.split(order, np.cumsum(depths)[:-1])
    segments = [(where, draw(MODE), draw(BITS), shift) for where, shift in zip(places, shifts, strict=True)]
    values = rng.integers(0, 256, (groups, rows, len(order)))
    weights = rng.integers(-8, 8, (groups, len(order), cols))
    (compute, drain), blocks, shifted, sums = walk(values, weights, segments, sizes, ports)
    numbers = np.array([(len(where), *mode, *bits, shift) for where, mode, bits, shift in segments], np.int64)
    found, updates = closed_form((groups, rows, cols, *sizes), numbers, ports)
    assert found == (max(compute, drain), blocks, compute, drain)
    assert updates == shifted == len(set(shifts)) - 1
    aligned = weights.copy()
    for where, _, _, shift in segments:
        aligned[:, where] <<= shift - shifts[-1]
    assert (sums == values @ aligned).all()
