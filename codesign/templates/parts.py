"""What templates share: parameters of clock, vector unit, buffers and DRAM, and the fields derived from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from accelsim.arch import Engine, EngineKind, Mode, OutputStage
from accelsim.config_fields import DRAM_TYPES
from accelsim.engines.registry import rules_of
from accelsim.engines.shift_array import ACTIVATION_BITS, TERM_BITS
from codesign.templates.registry import Parameter, Values

MACRO_BITS = 65_536
WORD_BITS = 128
# A bandwidth of b steps and a clock of whole MHz give time a unit of 1 / (25 b) cycle at worst, within its limit.
BANDWIDTH_STEP_BITS_PER_S = 100_000_000
OUTPUT_LATENCY_CYCLES = 4
VECTOR_LATENCY_CYCLES = 8
# A vector unit of L lanes: L of everything but L / 4 tables and L / 8 dividers, and 16 port bits per lane.
LANES_PER_TABLE = 4
LANES_PER_DIVIDER = 8
PORT_BITS_PER_LANE = 16
VECTOR_MEANING = "vector operations per cycle; tables a quarter, dividers an eighth"
BURSTS = (64, 128, 256, 512, 1024, 2048, 4096)
# A shift-add slot of one term runs 8-bit codes of two terms in two passes, and each of them reads the whole code.
LEAST_CODE_BITS = 8


def shape(prefix: str, what: str, groups: int, least_groups: int = 1) -> dict[str, Parameter]:
    """Parameters `PREFIX_lanes`, `_width`, `_groups` and `_outputs` of an engine."""
    return {
        f"{prefix}_lanes": Parameter(f"output channels of {what} in parallel", 8, 1, 64),
        f"{prefix}_width": Parameter(f"reduction inputs of a lane of {what}", 8, 1, 64),
        f"{prefix}_groups": Parameter(f"output positions of {what} in parallel", groups, least_groups, 64),
        f"{prefix}_outputs": Parameter(f"results of {what} requantized per cycle", 128, 1, 4096),
    }


def surroundings(clock_hz: int, vector_lanes: int, dram: Mapping[str, Any]) -> dict[str, Parameter]:
    """Parameters of everything but the engines; `dram` has the defaults of its four."""
    bandwidth, step = dram["bandwidth_bits_per_s"], BANDWIDTH_STEP_BITS_PER_S
    return {
        "accumulator_bits": Parameter("width of every accumulator", 32, 16, 64),
        "vector_lanes": Parameter(VECTOR_MEANING, vector_lanes, 1, 4096),
        "vector_leading_ones": Parameter("highest set bits that the vector unit finds per cycle", 0, 0, 4096),
        "activation_buffer_bits": _capacity("activation"),
        "weight_buffer_bits": _capacity("weight"),
        "bandwidth_bits_per_s": Parameter("peak bandwidth of the DRAM", bandwidth, step, 4_000_000_000_000, step),
        "burst_bits": Parameter("smallest DRAM transfer", dram["burst_bits"], choices=BURSTS),
        "first_beat_latency_s": Parameter(
            "time until the first data of a transfer", dram["first_beat_latency_s"], 0, 1e-6
        ),
        "dram_type": Parameter("selects the DRAM's energy per bit", dram["dram_type"], choices=DRAM_TYPES),
        "clock_hz": Parameter("core clock", clock_hz, 10_000_000, 2_000_000_000, 1_000_000),
        "node_nm": Parameter("technology node", 28, choices=(28, 45)),
    }


def _capacity(name: str) -> Parameter:
    return Parameter(f"capacity of the {name} buffer", 2_097_152, MACRO_BITS, 1 << 28, MACRO_BITS)


def engine(
    values: Values, prefix: str, kind: str, modes: tuple[Mode, ...] = (), terms: int = 0, depthwise: bool = False,
    **of_kind: Any,
) -> dict[str, Any]:  # fmt: skip
    """Plain data of the engine of the parameters `PREFIX_…`, with ports that never make it wait.

    `of_kind` are fields that only its kind has (`accelsim.arch.FIELDS_OF_KIND`).
    """
    lanes, width, groups, outputs = (values[f"{prefix}_{name}"] for name in ("lanes", "width", "groups", "outputs"))
    stage = OutputStage(outputs, OUTPUT_LATENCY_CYCLES)
    accumulator = values["accumulator_bits"]
    made = Engine(prefix, kind, lanes, width, groups, stage, modes, terms, depthwise, accumulator, **of_kind)
    activation, weight = ports(made)
    return {
        "name": prefix,
        "kind": str(kind),
        "lanes": lanes,
        "lane_width": width,
        "pixel_groups": groups,
        "modes": [asdict(mode) for mode in modes],
        "terms": terms,
        "depthwise": depthwise,
        "accumulator_bits": made.accumulator_bits,
        "output_stage": {"outputs_per_cycle": outputs, "latency_cycles": OUTPUT_LATENCY_CYCLES},
        "activation_port_bits_per_cycle": activation,
        "weight_port_bits_per_cycle": weight,
        **of_kind,
    }


def ports(made: Engine) -> tuple[int, int]:
    """(activation, weight) port in bits per cycle: the operands of the hungriest step of any mode.

    A dense step reads an activation word for every pixel group and a weight word for every lane and product; a
    depthwise step reads an activation for every product of every slot (docs/engines/mac_array.md).
    """
    if made.kind == EngineKind.SHIFT_ARRAY:
        code_bits = max(LEAST_CODE_BITS, TERM_BITS * made.terms)
        # A dynamic shift reads right operands of 8 bits where a weight's code stands: no more than LEAST_CODE_BITS.
        return made.lane_width * made.pixel_groups * ACTIVATION_BITS, made.lanes * made.lane_width * code_bits
    activation = weight = 0
    for column, mode in enumerate(made.modes):
        rate = rules_of(made).rate(made, column)
        word_bits = rate.inputs * mode.activation_bits
        dense = made.lane_width * made.pixel_groups * word_bits
        depthwise = made.slots * rate.products * word_bits if made.depthwise else 0
        activation = max(activation, dense, depthwise)
        weight = max(weight, made.lanes * rate.products * made.lane_width * rate.inputs * mode.weight_bits)
    return activation, weight


def accelerator(name: str, values: Values, engines: list[dict[str, Any]]) -> dict[str, Any]:
    """Plain data of a design: the engines and what `surroundings` says of the rest."""
    lanes = values["vector_lanes"]
    each = ("mul_per_cycle", "add_per_cycle", "shift_per_cycle", "compare_per_cycle")
    dram = {field: values[field] for field in ("bandwidth_bits_per_s", "burst_bits", "first_beat_latency_s")}
    buffers = {
        part: {"capacity_bits": values[f"{part}_bits"], "macro_bits": MACRO_BITS, "word_bits": WORD_BITS}
        for part in ("activation_buffer", "weight_buffer")
    }
    return {
        "name": name,
        "clock_hz": values["clock_hz"],
        "node_nm": values["node_nm"],
        "engines": engines,
        "vector": {
            **dict.fromkeys(each, lanes),
            "table_per_cycle": max(1, lanes // LANES_PER_TABLE),
            "division_per_cycle": max(1, lanes // LANES_PER_DIVIDER),
            "port_bits_per_cycle": PORT_BITS_PER_LANE * lanes,
            "latency_cycles": VECTOR_LATENCY_CYCLES,
            "leading_one_per_cycle": values["vector_leading_ones"],
        },
        **buffers,
        "dram": {**dram, "type": values["dram_type"]},
    }


def shape_text(values: Values, prefix: str) -> str:
    """Lanes × width × groups of an engine, for names."""
    return "x".join(str(values[f"{prefix}_{part}"]) for part in ("lanes", "width", "groups"))
