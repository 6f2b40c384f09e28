"""One template for uniform and mixed designs: a multiplier engine and, if it has groups, a second engine of any kind.

The defaults are the preset m2vit.  Sources of the modes: `accelsim/presets/m2vit.yaml` (4-bit weights twice per
multiplier), `benchmarks/quality/hardware.py` (narrow multipliers).
"""

from __future__ import annotations

from typing import Any

from accelsim.arch import EngineKind, Mode
from codesign.templates.parts import accelerator, engine, shape, shape_text, surroundings
from codesign.templates.registry import Parameter, Values, template

SHIFT = "shift"
# Spelling → modes, narrowest first.  A number is the weight width of an 8-bit activation's mode; two 4-bit weights fit
# the partial-product rows of an 8-bit multiplier, a 6-bit weight only saves energy there.
MODES: dict[str, tuple[Mode, ...]] = {
    "8": (Mode(8, 8, 1),),
    "8/6": (Mode(6, 8, 1), Mode(8, 8, 1)),
    "8/4": (Mode(4, 8, 2), Mode(8, 8, 1)),
    "8/6/4": (Mode(4, 8, 2), Mode(6, 8, 1), Mode(8, 8, 1)),
    "6": (Mode(6, 8, 1),),
    "6/4": (Mode(4, 8, 1), Mode(6, 8, 1)),
    "4": (Mode(4, 8, 1),),
    "4x4": (Mode(4, 4, 1),),
}
DRAM = {
    "bandwidth_bits_per_s": 153_600_000_000,
    "burst_bits": 512,
    "first_beat_latency_s": 30.0e-9,
    "dram_type": "DDR4",
}
PARAMETERS = {
    **shape("mult", "the multiplier engine", 16),
    "mult_bits": Parameter("weight widths of its precision modes", "8/4", choices=tuple(MODES)),
    "mult_depthwise": Parameter(
        "it runs depthwise work too, with an accumulator per multiplier", True, choices=(True, False)
    ),
    **shape("second", "the second engine", 16, least_groups=0),
    "second": Parameter(
        "kind of the second engine: shift, or the widths of a multiplier", SHIFT, choices=(SHIFT, *MODES)
    ),
    "terms": Parameter("powers of two that a shift slot adds per cycle", 2, 1, 3),
    "dynamic_shift": Parameter(
        "a shift slot can shift by a streamed log2 code, too (shares of a softmax)", False, choices=(True, False)
    ),
    "region_shift": Parameter("bits by which multipliers align two-region codes; 0: these are decoded first", 0, 0, 8),
    **surroundings(200_000_000, 128, DRAM),
}


@template("heterogeneous", PARAMETERS)
def heterogeneous(values: Values) -> dict[str, Any]:
    """A multiplier engine and a second one, shift-add or multiplier (second_groups: 0 leaves it out)."""
    shift = {"region_shift": values["region_shift"]}
    modes, depthwise = MODES[values["mult_bits"]], values["mult_depthwise"]
    engines = [engine(values, "mult", EngineKind.MAC_ARRAY, modes, depthwise=depthwise, **shift)]
    name = f"mult {shape_text(values, 'mult')} {values['mult_bits']}"
    if values["second_groups"]:
        kind = values["second"]
        if kind == SHIFT:
            dynamic = values["dynamic_shift"]
            engines.append(
                engine(values, "second", EngineKind.SHIFT_ARRAY, terms=values["terms"], dynamic_shift=dynamic)
            )
        else:
            engines.append(engine(values, "second", EngineKind.MAC_ARRAY, MODES[kind], **shift))
        name += f" + {shape_text(values, 'second')} {kind}"
    return accelerator(name, values, engines)
