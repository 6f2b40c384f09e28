"""The Trio-ViT authors' analytical cycle model, from its formulas, with every counting quirk as a switch.

Source of the arithmetic: shihuihong214/Trio-ViT@fba35c6 EfficientViT/models/efficientvit/latency_v2.py (removed from
the main branch later).  The model counts compute cycles of EfficientViT on two arrays of 8 × 8 multipliers, one
(MAT) for products with a reduction, one (R-MAC) for depthwise convolution and everything else; there is no DRAM.
Throughput is quoted for 16 groups of such a pair, each on its own output pixels, at 200 MHz.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

from accelsim.problems import AccelsimError, Problem
from accelsim.workloads.efficientvit import AGGREGATION_KERNEL, CLASSES, EXPAND, VARIANTS, Variant
from accelsim.workloads.registry import resolve

ARRAY_LANES = 8
LANE_WIDTH = 8
MULTIPLIERS = 2 * ARRAY_LANES * LANE_WIDTH
PIXEL_GROUPS = 16
CLOCK_HZ = 200_000_000


@dataclass(frozen=True)
class Quirks:
    """Counting quirks of the authors' model; True counts as they do, False corrects that one thing.

    group_conv_c_outputs: the grouped convolution of the aggregation makes C outputs instead of 3C.
    projection_swapped: the output projection maps C to 2C channels instead of 2C to C.
    ones_column_missing: the column of row sums (the divisor) is left out of both attention products.  The correction
        computes it on the arrays, which is an upper bound: a design with separate row-sum adders pays less.
    group_conv_macs_missing: the grouped convolution takes cycles but is left out of the MAC total.
    head_missing: the head convolution and the two linear layers are left out.
    fused_progress_truncated: pointwise work done while the depthwise convolution runs is rounded down to whole steps.
    fused_drain_missing: a fused block may end with its depthwise part, although the last pixel group's pointwise work
        can only start then.
    """

    group_conv_c_outputs: bool = True
    projection_swapped: bool = True
    ones_column_missing: bool = True
    group_conv_macs_missing: bool = True
    head_missing: bool = True
    fused_progress_truncated: bool = True
    fused_drain_missing: bool = True


ALL = Quirks()
NONE = Quirks(**dict.fromkeys((item.name for item in fields(Quirks)), False))


@dataclass(frozen=True)
class CountedCycles:
    """Cycles of one pixel group (128 multipliers), MACs, MACs per multiplier and cycle, and GOPS of 16 groups."""

    cycles: int
    macs: int
    utilization: float
    gops: float


@dataclass(frozen=True)
class QuirkContribution:
    """Change of cycles and MACs when `quirk` alone is corrected (or "all"), and the result after that correction."""

    quirk: str
    cycles_change: int
    macs_change: int
    corrected: CountedCycles


@dataclass
class _Count:
    """Running totals over the network."""

    quirks: Quirks
    cycles: int = field(default=0)
    macs: int = field(default=0)


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _dense_cycles(cols: int, depth: int, positions: int) -> int:
    """Both arrays: 16 output channels × 8 input channels per cycle, one position at a time."""
    return _ceil_div(cols, 2 * ARRAY_LANES) * _ceil_div(depth, LANE_WIDTH) * positions


def _fused_cycles(quirks: Quirks, edge: int, kernel: int, channels: int, cols: int, depth: int) -> int:
    """Depthwise convolution of `channels` on the R-MAC array while the MAT array runs the following product.

    `edge` is the output height and width, `depth` the reduction of the following product and `cols` its outputs.  The
    R-MAC array takes 8 channels × 8 pixels of one line per cycle and tap.  The MAT array starts when the first 8 pixels
    are done in all channels; when the depthwise part ends, both arrays finish the product.
    """
    setup = _ceil_div(channels, LANE_WIDTH) * kernel**2
    depthwise = _ceil_div(edge, ARRAY_LANES) * edge * setup
    step = _ceil_div(depth, LANE_WIDTH)
    mat_slots = 1 if cols <= ARRAY_LANES else 2 * _ceil_div(cols, 2 * ARRAY_LANES)
    if quirks.fused_progress_truncated:
        total = _truncated_total(depthwise, setup, edge**2, step, cols)
    else:
        left = max(0, mat_slots * step * edge**2 - (depthwise - setup))
        total = depthwise + _ceil_div(left, 2)
    if not quirks.fused_drain_missing:
        last_pixels = edge - ARRAY_LANES * (_ceil_div(edge, ARRAY_LANES) - 1)
        total = max(total, depthwise + _ceil_div(last_pixels * mat_slots * step, 2))
    return total


def _truncated_total(depthwise: int, setup: int, area: int, step: int, cols: int) -> int:
    """Fused total when progress is counted in whole results, whole blocks of 16 channels and whole pixels."""
    block = min(2 * ARRAY_LANES, cols)
    results = (depthwise - setup) // step * ARRAY_LANES
    finished = results // (2 * ARRAY_LANES * area) * block
    if finished >= cols:
        return depthwise
    block_pixels_left = area - (results - finished * area) // block
    later = max(0, cols - finished - block)
    rest = step * block_pixels_left + _dense_cycles(later, step * LANE_WIDTH, area)
    return max(depthwise, depthwise + rest)


def _mb_conv(count: _Count, in_edge: int, out_edge: int, inputs: int, outputs: int) -> None:
    middle = EXPAND * inputs
    count.cycles += _dense_cycles(middle, inputs, in_edge**2)
    count.cycles += _fused_cycles(count.quirks, out_edge, 3, middle, outputs, middle)
    count.macs += in_edge**2 * inputs * middle + out_edge**2 * middle * (9 + outputs)


def _attention(count: _Count, edge: int, channels: int, dim: int) -> None:
    quirks, area = count.quirks, edge**2
    count.cycles += _dense_cycles(3 * channels, channels, area)
    grouped = channels if quirks.group_conv_c_outputs else 3 * channels
    count.cycles += _fused_cycles(quirks, edge, AGGREGATION_KERNEL, 3 * channels, grouped, dim)
    count.macs += area * 3 * channels * (channels + AGGREGATION_KERNEL**2)
    if not quirks.group_conv_macs_missing:
        count.macs += area * 3 * channels * dim
    # 2·channels/dim heads, half of them on each array.
    cols = dim if quirks.ones_column_missing else dim + 1
    per_array = channels // dim
    blocks = per_array * _ceil_div(cols, ARRAY_LANES)
    count.cycles += blocks * (_ceil_div(area, LANE_WIDTH) * dim + _ceil_div(dim, LANE_WIDTH) * area)
    count.macs += 2 * (2 * per_array) * area * dim * cols
    wide, narrow = 2 * channels, channels
    count.cycles += _dense_cycles(*((wide, narrow) if quirks.projection_swapped else (narrow, wide)), area)
    count.macs += area * wide * narrow


def _stem(count: _Count, edge: int, variant: Variant) -> None:
    """First convolution (one tap per step, 3 of 8 lane inputs used) and the separable blocks behind it."""
    width = variant.widths[0]
    count.cycles += _dense_cycles(width, 3, 9 * edge**2)
    count.macs += 9 * edge**2 * 3 * width
    for _ in range(variant.depths[0]):
        count.cycles += _fused_cycles(count.quirks, edge, 3, width, width, width)
        count.macs += edge**2 * width * (9 + width)


def authors_cycles(model: str, resolution: int, quirks: Quirks = ALL) -> CountedCycles:
    """Cycles and MACs of EfficientViT `model` ("efficientvit_b0" … "efficientvit_b3") as the authors count them.

    `quirks` says which of their counting quirks to keep.  Raises AccelsimError for other models, for a resolution
    (pixels) that is not a multiple of 32, and below the linear-attention limit, which their model does not know.
    """
    if model not in VARIANTS:
        raise AccelsimError(
            Problem("model", f"the Trio-ViT cycle model does not cover {model!r}", f"one of {', '.join(VARIANTS)}")
        )
    resolve(model, resolution)
    variant = VARIANTS[model]
    if (resolution // 32) ** 2 <= variant.head_dim:
        raise AccelsimError(
            Problem(f"model {model}", "the Trio-ViT cycle model knows linear attention only",
                    levers=("a larger image",), demand=variant.head_dim + 1,
                    bound=(resolution // 32) ** 2, unit="positions in stage 4")
        )  # fmt: skip
    count = _Count(quirks)
    edge = resolution // 2
    _stem(count, edge, variant)
    channels = variant.widths[0]
    for stage in range(1, 5):
        width, attends = variant.widths[stage], stage >= 3
        _mb_conv(count, edge, edge // 2, channels, width)
        edge, channels = edge // 2, width
        for _ in range(variant.depths[stage] - (not attends)):
            if attends:
                _attention(count, edge, channels, variant.head_dim)
            _mb_conv(count, edge, edge, channels, channels)
    if not quirks.head_missing:
        middle, last = variant.head_widths
        for positions, depth, cols in ((edge**2, channels, middle), (1, middle, last), (1, last, CLASSES)):
            count.cycles += _dense_cycles(cols, depth, positions)
            count.macs += positions * depth * cols
    seconds = count.cycles / PIXEL_GROUPS / CLOCK_HZ
    return CountedCycles(
        count.cycles, count.macs, count.macs / (count.cycles * MULTIPLIERS), 2 * count.macs / seconds / 1e9
    )


def quirk_contributions(model: str, resolution: int) -> tuple[QuirkContribution, ...]:
    """One row per quirk corrected alone, then the row "all" with every quirk corrected.

    Changes are against the authors' count; they do not add up exactly, because the fused blocks interact.
    Raises AccelsimError as `authors_cycles` does.
    """
    published = authors_cycles(model, resolution)
    cases = [(item.name, replace(ALL, **{item.name: False})) for item in fields(Quirks)] + [("all", NONE)]
    rows = []
    for name, quirks in cases:
        counted = authors_cycles(model, resolution, quirks)
        rows.append(QuirkContribution(name, counted.cycles - published.cycles, counted.macs - published.macs, counted))
    return tuple(rows)
