"""Closed form of a tile whose reduction runs in segments of different modes or shifts.

All segments accumulate in the same registers of an adder-tree array.  A block has the channels of the mode with most
products; a mode with fewer takes it in several passes.  The segment of the highest shift comes first; before one of a
lower shift the accumulators shift in one cycle, by the difference.  Then the block drains once.  All blocks take the
pace of the first, the largest.  Values of narrow and full tokens: docs/decisions/0019-token-groups.md, an
interpretation of PMQ (arXiv 2305.06559); heads of several widths: docs/decisions/0020-head-widths.md, an interpretation
of Q-ViT (arXiv 2201.07703).
"""

from __future__ import annotations

from typing import Any

from accelsim.kernels.engine_forms import ceil_div
from accelsim.kernels.jit import inner, jit

ALIGN_CYCLES = 1  # the accumulators of a block shift at once
# Numbers of a segment, as `segmented_tile` takes them.
G_DEPTH, G_PRODUCTS, G_PASSES, G_INPUTS, G_ABITS, G_WBITS, G_SHIFT = range(7)
N_SEGMENT = 7


@jit
def segment_cycles(
    depth: int,
    block_rows: int,
    block_cols: int,
    lanes: int,
    word: int,
    products: int,
    passes: int,
    activation_bits: int,
    weight_bits: int,
    activation_port: int,
    weight_port: int,
) -> int:
    """Cycles of one segment of a block: passes over its channels × operand words × cycles of a word.

    `word` are the reduction inputs of a step (lane inputs × inputs of the mode).  Widths are bits, ports bits a cycle.
    """
    channels = lanes * products
    inputs = min(word, depth)
    step_cycles = max(
        1,
        ceil_div(inputs * block_rows * activation_bits, activation_port),
        ceil_div(inputs * min(channels, block_cols) * weight_bits, weight_port),
    )
    return ceil_div(block_cols, channels) * ceil_div(depth, word) * passes * step_cycles


@inner
def most_products(segments: Any, n: int) -> int:
    """Products of the mode that gives a block its channels: the most of all `n` segments."""
    products = 1
    for s in range(n):
        products = max(products, segments[s, G_PRODUCTS])
    return products


@inner
def column_passes(cols: int, lanes: int, products: int, block_products: int) -> int:
    """Passes of a segment over the channels of all blocks of a row of blocks: each reads the activations once.

    A block has lanes · `block_products` channels; a mode whose products do not divide them leaves lanes idle in each.
    """
    channels, own = lanes * block_products, lanes * products
    return cols // channels * ceil_div(channels, own) + ceil_div(cols % channels, own)


@inner
def count_shifts(segments: Any, n: int) -> int:
    """How often the accumulators of a block shift between its first `n` segments."""
    shifts = 0
    for s in range(1, n):
        if segments[s, G_SHIFT] != segments[s - 1, G_SHIFT]:
            shifts += 1
    return shifts


@inner
def segmented_tile(
    groups: int, rows: int, cols: int, lanes: int, pixels: int, width: int, segments: Any, n: int, ports: Any
) -> Any:
    """(pace, blocks, compute, drain) of a tile in `n` segments, in cycles.

    `segments` [n or more, N_SEGMENT] have the depth, the products, passes and inputs of the mode, activation and weight
    bits and the shift of a segment, in their order; `ports` are (activation bits per cycle, weight bits per cycle,
    outputs per cycle).
    """
    channels = lanes * most_products(segments, n)
    block_rows, block_cols = min(pixels, rows), min(channels, cols)
    compute = ALIGN_CYCLES * count_shifts(segments, n)
    for s in range(n):
        one = segments[s]
        compute += segment_cycles(
            one[G_DEPTH], block_rows, block_cols, lanes, width * one[G_INPUTS], one[G_PRODUCTS], one[G_PASSES],
            one[G_ABITS], one[G_WBITS], ports[0], ports[1],
        )  # fmt: skip
    drain = ceil_div(block_rows * block_cols, ports[2])
    return max(compute, drain), groups * ceil_div(rows, pixels) * ceil_div(cols, channels), compute, drain
