"""How many output channels each weight format got: what the mapper decided where a plan says "balanced"."""

from __future__ import annotations

from accelsim.api import Report
from accelsim.optable import O_UNIT_CHANNELS


def layer_shares(report: Report) -> dict[str, dict[str, int]]:
    """Output channels by weight format of every op with more than one, in the order of the plan's shares.

    For a plan with fixed shares this is what the plan says; with "balanced" it is the split with which the engines of
    the report's accelerator finish the op together, the ratio that a quantizer of filters needs.  A format that got
    nothing is there with 0.
    """
    found = {}
    table, parts, n_parts = report.table, report.arrays.parts, report.arrays.n_parts
    for k, item in enumerate(table.quantized.ops):
        if not item.mixed:
            continue
        channels = [0] * len(item.weights)
        for _, part, units, *_ in parts[k, : n_parts[k]].tolist():
            channels[part] += units * int(table.ops[k, O_UNIT_CHANNELS])
        found[item.op.name] = {share.format.name: count for share, count in zip(item.weights, channels, strict=True)}
    return found
