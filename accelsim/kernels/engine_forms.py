"""Closed forms of the array engines and the vector unit: cycles, SRAM reads and accumulator updates of a tile.

Plain integers in, plain integers out, so that the lowering kernel can call them in its inner loop.  Every form is
proven against the cycle-stepped models of `arrays.py`; `docs/engines/` derives them.  Words used throughout: a *block*
is what the array works on at once (its positions × its channels), a *step* is one operand word through the adder
trees, `products` is the number of products that one multiplier yields in the chosen precision mode.
"""

from __future__ import annotations

from typing import Any

from accelsim.kernels.jit import jit


@jit
def ceil_div(numerator: int, denominator: int) -> int:
    """⌈numerator / denominator⌉ of a non-negative and a positive integer."""
    return (numerator + denominator - 1) // denominator


@jit
def dense_tile(
    groups: int,
    rows: int,
    cols: int,
    taps: int,
    depth: int,
    lanes: int,
    lane_width: int,
    pixel_groups: int,
    products: int,
    term_passes: int,
    activation_bits: int,
    weight_bits: int,
    activation_port: int,
    weight_port: int,
    outputs_per_cycle: int,
) -> tuple[int, int, int, int, int]:
    """(pace_cycles, blocks, steps, compute_cycles, drain_cycles) of a dense tile.

    The reduction runs over input channels in parallel, one kernel tap at a time.  Widths are bits, ports are bits per
    cycle.  A block takes `steps` operand words; a word takes as long as the slower port needs for the tile's word
    shape, at least one cycle.
    """
    channels = lanes * products
    word_depth = min(lane_width, depth)
    block_rows = min(pixel_groups, rows)
    block_cols = min(channels, cols)
    steps = taps * ceil_div(depth, lane_width) * term_passes
    blocks = groups * ceil_div(rows, pixel_groups) * ceil_div(cols, channels)
    step_cycles = max(
        1,
        ceil_div(word_depth * block_rows * activation_bits, activation_port),
        ceil_div(word_depth * block_cols * weight_bits, weight_port),
    )
    compute = steps * step_cycles
    drain = ceil_div(block_rows * block_cols, outputs_per_cycle)
    return max(compute, drain), blocks, steps, compute, drain


@jit
def depthwise_tile(
    channels: int,
    rows: int,
    taps: int,
    lanes: int,
    lane_width: int,
    pixel_groups: int,
    products: int,
    activation_bits: int,
    weight_bits: int,
    activation_port: int,
    weight_port: int,
    outputs_per_cycle: int,
) -> tuple[int, int, int, int, int]:
    """(pace_cycles, blocks, steps, compute_cycles, drain_cycles) of a depthwise tile.

    Channels lie across lane inputs, positions across lanes, pixel groups and products; every multiplier accumulates
    in place, one kernel tap per step.
    """
    positions = lanes * pixel_groups * products
    block_channels = min(channels, lane_width)
    block_rows = min(rows, positions)
    blocks = ceil_div(channels, lane_width) * ceil_div(rows, positions)
    step_cycles = max(
        1,
        ceil_div(block_channels * block_rows * activation_bits, activation_port),
        ceil_div(block_channels * weight_bits, weight_port),
    )
    compute = taps * step_cycles
    drain = ceil_div(block_channels * block_rows, outputs_per_cycle)
    return max(compute, drain), blocks, taps, compute, drain


@jit
def depthwise_word(taps: int, inputs: int, activation_bits: int, weight_bits: int) -> tuple[int, int, int]:
    """(steps, activation_bits, weight_bits) of a depthwise tile whose slots add `inputs` kernel taps per step.

    They take the places of taps and of the operand widths in `depthwise_cycles`; one input changes nothing.
    """
    together = min(inputs, taps)
    return ceil_div(taps, inputs), together * activation_bits, together * weight_bits


@jit
def tile_cycles(pace: int, blocks: int, compute: int, drain: int, pipeline: int) -> tuple[int, int]:
    """(occupancy_cycles, latency_cycles) when block b starts at b·pace and drains while block b + 1 computes."""
    return blocks * pace, (blocks - 1) * pace + compute + drain + pipeline


@jit
def dense_cycles(
    groups: int,
    rows: int,
    cols: int,
    taps: int,
    depth: int,
    lanes: int,
    lane_width: int,
    pixel_groups: int,
    products: int,
    term_passes: int,
    activation_bits: int,
    weight_bits: int,
    activation_port: int,
    weight_port: int,
    outputs_per_cycle: int,
    pipeline: int,
) -> tuple[int, int]:
    """(occupancy_cycles, latency_cycles) of a dense tile; `pipeline` is `Engine.pipeline_cycles`."""
    pace, blocks, _, compute, drain = dense_tile(
        groups,
        rows,
        cols,
        taps,
        depth,
        lanes,
        lane_width,
        pixel_groups,
        products,
        term_passes,
        activation_bits,
        weight_bits,
        activation_port,
        weight_port,
        outputs_per_cycle,
    )
    return tile_cycles(pace, blocks, compute, drain, pipeline)


@jit
def depthwise_cycles(
    channels: int,
    rows: int,
    taps: int,
    lanes: int,
    lane_width: int,
    pixel_groups: int,
    products: int,
    activation_bits: int,
    weight_bits: int,
    activation_port: int,
    weight_port: int,
    outputs_per_cycle: int,
    pipeline: int,
) -> tuple[int, int]:
    """(occupancy_cycles, latency_cycles) of a depthwise tile; `pipeline` is `Engine.pipeline_cycles`."""
    pace, blocks, _, compute, drain = depthwise_tile(
        channels,
        rows,
        taps,
        lanes,
        lane_width,
        pixel_groups,
        products,
        activation_bits,
        weight_bits,
        activation_port,
        weight_port,
        outputs_per_cycle,
    )
    return tile_cycles(pace, blocks, compute, drain, pipeline)


@jit
def dense_reads(
    groups: int,
    rows: int,
    cols: int,
    taps: int,
    depth: int,
    lanes: int,
    products: int,
    pixel_groups: int,
    activation_bits: int,
    weight_bits: int,
) -> tuple[int, int]:
    """(activation_bits, weight_bits) that a dense tile reads from SRAM.

    Activations are read once per channel block, weights once per position block; nothing is kept between taps.
    """
    reduction = taps * depth
    activation = groups * ceil_div(cols, lanes * products) * rows * reduction * activation_bits
    weight = groups * ceil_div(rows, pixel_groups) * cols * reduction * weight_bits
    return activation, weight


@jit
def depthwise_reads(
    channels: int,
    rows: int,
    taps: int,
    lanes: int,
    products: int,
    pixel_groups: int,
    activation_bits: int,
    weight_bits: int,
) -> tuple[int, int]:
    """(activation_bits, weight_bits) that a depthwise tile reads from SRAM (argument order as in `dense_reads`)."""
    activation = channels * rows * taps * activation_bits
    weight = ceil_div(rows, lanes * pixel_groups * products) * channels * taps * weight_bits
    return activation, weight


@jit
def dense_accumulates(
    groups: int, rows: int, cols: int, taps: int, depth: int, lane_width: int, term_passes: int
) -> int:
    """Accumulator updates of a dense tile: one per output and adder-tree step."""
    return groups * rows * cols * taps * ceil_div(depth, lane_width) * term_passes


@jit
def depthwise_accumulates(channels: int, rows: int, taps: int) -> int:
    """Accumulator updates of a depthwise tile: one per output and step (a tap, or the taps that a slot adds)."""
    return channels * rows * taps


@jit
def vector_cycles(
    ops_per_pass: Any, throughput: Any, bits_per_pass: Any, port_bits: int, latency: int
) -> tuple[int, int]:
    """(occupancy_cycles, latency_cycles) of a vector recipe over a tile.

    `ops_per_pass[p, k]` are the operations of kind k (order of `VECTOR_KINDS`) in pass p, `throughput[k]` the
    operations per cycle, `bits_per_pass[p]` what pass p moves through the port.  All kinds of a pass run in parallel,
    passes run one after the other, and a pass takes at least one cycle.  The throughput of a kind without operations is
    not used; of a kind with operations it must be positive.
    """
    occupancy = 0
    for p in range(ops_per_pass.shape[0]):
        longest = max(1, ceil_div(bits_per_pass[p], port_bits))
        for k in range(ops_per_pass.shape[1]):
            if ops_per_pass[p, k] > 0:
                longest = max(longest, ceil_div(ops_per_pass[p, k], throughput[k]))
        occupancy += longest
    return occupancy, occupancy + latency
