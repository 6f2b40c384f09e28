"""Fusion units that run 8×8 down to 2×2 bits, for plans of many widths.  The defaults are the preset bitfusion_edge."""

from __future__ import annotations

from typing import Any

from accelsim.arch import EngineKind, Mode
from codesign.templates.parts import accelerator, engine, shape, shape_text, surroundings
from codesign.templates.registry import Parameter, Values, template

MODES = (Mode(2, 2, 16), Mode(2, 4, 8), Mode(2, 8, 4), Mode(4, 4, 4), Mode(4, 8, 2), Mode(8, 8, 1))
DRAM = {
    "bandwidth_bits_per_s": 76_800_000_000,
    "burst_bits": 512,
    "first_beat_latency_s": 33.2e-9,
    "dram_type": "LPDDR4",
}
PARAMETERS = {
    **shape("fusion", "the fusion units", 16),
    "fusion_depthwise": Parameter(
        "they run depthwise work too, with an accumulator per unit", True, choices=(True, False)
    ),
    **surroundings(500_000_000, 64, DRAM),
}


@template("composable", PARAMETERS)
def composable(values: Values) -> dict[str, Any]:
    """One array of bit-composable fusion units."""
    made = engine(values, "fusion", EngineKind.COMPOSABLE_ARRAY, MODES, depthwise=values["fusion_depthwise"])
    return accelerator(f"fusion {shape_text(values, 'fusion')}", values, [made])
