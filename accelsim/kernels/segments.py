"""Closed form of a tile whose reduction has two segments of different modes: values of full and of narrow tokens.

Both accumulate in the same registers of an adder-tree array.  A block has the channels of the mode with more products;
the mode with fewer takes it in several passes.  The narrow segment comes first, then the accumulators shift by
`drop_bits` in one cycle, then the full segment is added, then the block drains once.  All blocks take the pace of the
first, the largest.  docs/decisions/0019-token-groups.md, an interpretation of PMQ (arXiv 2305.06559).
"""

from __future__ import annotations

from typing import Any

from accelsim.kernels.engine_forms import ceil_div
from accelsim.kernels.jit import inner, jit

ALIGN_CYCLES = 1  # the accumulators of a block shift at once


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
def segmented_tile(
    groups: int, rows: int, cols: int, lanes: int, pixels: int, width: int, full: Any, narrow: Any, ports: Any
) -> Any:
    """(pace, blocks, compute, drain) of a tile in two segments, in cycles.

    `full` and `narrow` are (depth, products, passes, inputs, activation bits, weight bits) of a segment, `ports` are
    (activation bits per cycle, weight bits per cycle, outputs per cycle).
    """
    channels = lanes * max(full[1], narrow[1])
    block_rows, block_cols = min(pixels, rows), min(channels, cols)
    compute = ALIGN_CYCLES
    for part in (narrow, full):
        compute += segment_cycles(
            part[0], block_rows, block_cols, lanes, width * part[3], part[1], part[2], part[4], part[5], ports[0],
            ports[1],
        )  # fmt: skip
    drain = ceil_div(block_rows * block_cols, ports[2])
    return max(compute, drain), groups * ceil_div(rows, pixels) * ceil_div(cols, channels), compute, drain
