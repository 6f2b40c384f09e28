"""Closed forms of a systolic array: cycles, SRAM reads and accumulator updates of a tile, for ws, os and is.

The array has `rows` × `cols` processing elements.  A tile is `groups` matrix products of `positions` × `reduction` ×
`channels`, one after the other.  docs/engines/systolic.md derives the forms, `systolic_stationary.py` and
`systolic_outputs.py` step the array register by register; a test compares them.
"""

from __future__ import annotations

from accelsim.kernels.engine_forms import ceil_div
from accelsim.kernels.jit import jit

# What a kind of engine computes its cycles with; a systolic dataflow with SCALESIM added charges serial folds.
FORM_TREE, FORM_WS, FORM_OS, FORM_IS = range(4)
SCALESIM = 4


@jit
def systolic_cycles(
    form: int,
    groups: int,
    positions: int,
    channels: int,
    reduction: int,
    rows: int,
    cols: int,
    products: int,
    double_buffered: int,
    accumulator_rows: int,
    activation_bits: int,
    weight_bits: int,
    activation_port: int,
    weight_port: int,
    outputs_per_cycle: int,
    pipeline: int,
) -> tuple[int, int]:
    """(occupancy_cycles, latency_cycles) of a tile.

    `products` channels per processing element, `accumulator_rows` streamed steps whose results fit behind the array,
    `pipeline` = rows + cols + output latency (fill, drain and the registers at both ends).
    """
    if form >= SCALESIM:
        total = scalesim_cycles(form - SCALESIM, groups, positions, channels, reduction, rows, cols, products)
        return total, total
    if form == FORM_OS:
        return _output_stationary(
            groups, positions, channels, reduction, rows, cols * products, activation_bits, weight_bits,
            activation_port, weight_port, outputs_per_cycle, pipeline,
        )  # fmt: skip
    return _stationary(
        form, groups, positions, channels, reduction, rows, cols, products, double_buffered, accumulator_rows,
        activation_bits, weight_bits, activation_port, weight_port, outputs_per_cycle, pipeline,
    )  # fmt: skip


@jit
def _stationary(
    form: int, groups: int, positions: int, channels: int, reduction: int, rows: int, cols: int, products: int,
    double_buffered: int, accumulator_rows: int, activation_bits: int, weight_bits: int, activation_port: int,
    weight_port: int, outputs_per_cycle: int, pipeline: int,
) -> tuple[int, int]:  # fmt: skip
    """As `systolic_cycles`, for ws and is."""
    used = min(rows, reduction)
    if form == FORM_WS:
        steps = positions
        across, across_blocks = min(cols * products, channels), ceil_div(channels, cols * products)
        load = max(1, ceil_div(across * weight_bits, weight_port))
        step_cycles = max(1, ceil_div(used * activation_bits, activation_port))
        results = across
    else:
        steps, together = ceil_div(channels, products), min(products, channels)
        across, across_blocks = min(cols, positions), ceil_div(positions, cols)
        load = max(1, ceil_div(across * activation_bits, activation_port))
        step_cycles = max(1, ceil_div(used * together * weight_bits, weight_port))
        results = across * together
    chunks = ceil_div(steps, accumulator_rows)
    stream_steps = ceil_div(steps, chunks)
    preload, stream = used * load, stream_steps * step_cycles
    fold = max(stream, preload) if double_buffered else preload + stream + used - 1
    folds = ceil_div(reduction, rows)
    row_drain = ceil_div(results, outputs_per_cycle)
    blocks = groups * chunks * across_blocks
    pace = max(folds * fold, stream_steps * row_drain)
    last = step_cycles + (stream_steps - 1) * max(step_cycles, row_drain) + row_drain
    return blocks * pace, preload + (blocks - 1) * pace + (folds - 1) * fold + last + pipeline


@jit
def _output_stationary(
    groups: int, positions: int, channels: int, reduction: int, rows: int, columns: int, activation_bits: int,
    weight_bits: int, activation_port: int, weight_port: int, outputs_per_cycle: int, pipeline: int,
) -> tuple[int, int]:  # fmt: skip
    """As `systolic_cycles`; `columns` are output channels side by side."""
    used_rows, used_columns = min(rows, positions), min(columns, channels)
    step_cycles = max(
        1,
        ceil_div(used_rows * activation_bits, activation_port),
        ceil_div(used_columns * weight_bits, weight_port),
    )
    blocks = groups * ceil_div(positions, rows) * ceil_div(channels, columns)
    compute = reduction * step_cycles
    drain = used_rows * ceil_div(used_columns, outputs_per_cycle)
    pace = max(compute, drain)
    return blocks * pace, (blocks - 1) * pace + compute + drain + pipeline


@jit
def scalesim_cycles(
    dataflow: int, groups: int, positions: int, channels: int, reduction: int, rows: int, cols: int, products: int
) -> int:
    """What SCALE-Sim 3.0.0 reports for one layer per group: F·L − 1, every fold with its full fill and drain."""
    columns = cols * products
    if dataflow == FORM_OS:
        folds = ceil_div(positions, rows) * ceil_div(channels, columns)
        return groups * (folds * (rows + cols + reduction - 2) - 1)
    if dataflow == FORM_WS:
        folds, streamed = ceil_div(reduction, rows) * ceil_div(channels, columns), positions
    else:
        folds, streamed = ceil_div(reduction, rows) * ceil_div(positions, cols), ceil_div(channels, products)
    return groups * (folds * (2 * rows + cols + streamed - 2) - 1)


@jit
def systolic_reads(
    form: int,
    groups: int,
    positions: int,
    channels: int,
    reduction: int,
    rows: int,
    cols: int,
    products: int,
    accumulator_rows: int,
    activation_bits: int,
    weight_bits: int,
) -> tuple[int, int]:
    """(activation_bits, weight_bits) that a tile reads from SRAM: every operand once per block that needs it."""
    dataflow = form & (SCALESIM - 1)
    activation = groups * positions * reduction * activation_bits
    weight = groups * channels * reduction * weight_bits
    if dataflow == FORM_OS:
        return activation * ceil_div(channels, cols * products), weight * ceil_div(positions, rows)
    if dataflow == FORM_WS:
        chunks = 1 if form >= SCALESIM else ceil_div(positions, accumulator_rows)
        return activation * ceil_div(channels, cols * products), weight * chunks
    chunks = 1 if form >= SCALESIM else ceil_div(ceil_div(channels, products), accumulator_rows)
    return activation * chunks, weight * ceil_div(positions, cols)


@jit
def systolic_accumulates(form: int, groups: int, positions: int, channels: int, reduction: int, rows: int) -> int:
    """Accumulator updates of a tile: one per product in the elements (os), one per output and fold behind the array."""
    folds = reduction if form & (SCALESIM - 1) == FORM_OS else ceil_div(reduction, rows)
    return groups * positions * channels * folds
