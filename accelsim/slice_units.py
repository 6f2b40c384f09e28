"""Units of the slices of an op, and the bits in which their weights are stored."""

from __future__ import annotations

import numpy as np

from accelsim.formats import Format
from accelsim.plan import QuantizedOp, WeightShare


def unit_bits(item: QuantizedOp, weights: int, fmt: Format) -> int:
    """Stored bits of the weights of a unit: of filters whose parts have widths of their own those of all parts."""
    if item.weight_heads is None:
        return weights * fmt.bits
    return weights // len(item.weight_heads.bits) * sum(item.weight_heads.bits)


def slice_units(weights: tuple[WeightShare, ...], units: int, unit_channels: int) -> list[int]:
    """Units of every slice, -1 for balanced: counted where the plan names channels, else its fractions rounded."""
    if not weights:
        return [units]
    edges, done, sizes = np.cumsum([part.share or 0.0 for part in weights]), 0, []
    for k, part in enumerate(weights):
        stop = units if k == len(weights) - 1 else round(float(edges[k]) * units)
        if part.channels is not None:
            stop = done + part.channels.count // unit_channels
        sizes.append(-1 if part.share is None else stop - done)
        done = stop
    return sizes
