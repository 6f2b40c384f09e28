"""NVDLA nv_small RTL: bytes on its data bus, and cycles of convolution traces.

Compared: bytes of inputs and weights, demanded equal.  Inputs are stored in atoms of 8 channels, weights in blocks of
128 bytes:

    inputs = width · height · ⌈channels / 8⌉ · 8        weights = ⌈filters · channels · kernel / 128⌉ · 128

Cycles: the multiplier array takes one step per output position, kernel tap, 8 input channels and 8 filters; the bus
moves 8 bytes per cycle.  The larger of the two is the model; its error is stated, and it is demanded to be at most the
RTL's cycles.  Small and bus-bound traces are far above it: latency of the memory model, configuration and the
start of the pipeline are not modelled, and nothing is fitted to them.

Not compared: output bytes.  Stride and padding are not in the names of the traces, so the number of output positions is
taken from the output bytes themselves.

The references come from one group's repository; its README reports sporadic data corruption of the build machine.
Outputs were checked by CRC, cycles were not cross-checked.
"""

from __future__ import annotations

from accelsim.validation.case import Case, Demand, Suite, ceil_div, rows_of

ATOM_CHANNELS = 8
ATOM_FILTERS = 8
WEIGHT_BLOCK_BYTES = 128
BUS_BYTES_PER_CYCLE = 8


def input_bytes(width: int, height: int, channels: int) -> int:
    """Bytes of an 8-bit input on the bus: whole atoms of channels."""
    return width * height * ceil_div(channels, ATOM_CHANNELS) * ATOM_CHANNELS


def weight_bytes(filters: int, channels: int, taps: int) -> int:
    """Bytes of 8-bit weights on the bus: whole blocks."""
    return ceil_div(filters * channels * taps, WEIGHT_BLOCK_BYTES) * WEIGHT_BLOCK_BYTES


def array_cycles(positions: int, taps: int, channels: int, filters: int) -> int:
    """Steps of the 8 × 8 multiplier array."""
    return positions * taps * ceil_div(channels, ATOM_CHANNELS) * ceil_div(filters, ATOM_FILTERS)


def cases() -> list[Case]:
    """Rows of the suite."""
    found = []
    for row in rows_of("nvdla_nv_small.csv"):
        name = row["trace"]
        n = {key: int(value) for key, value in row.items() if key != "trace"}
        taps = n["kernel_w"] * n["kernel_h"]
        inputs = input_bytes(n["width"], n["height"], n["channels"])
        weights = weight_bytes(n["filters"], n["channels"], taps)
        array = array_cycles(n["positions"], taps, n["channels"], n["filters"])
        bus = ceil_div(inputs + weights + n["out_bytes"], BUS_BYTES_PER_CYCLE)
        found += [
            Case(name, "input bytes", "bytes", n["in_bytes"], inputs),
            Case(name, "weight bytes", "bytes", n["weight_bytes"], weights),
            Case(name, "cycles", "cycles", n["rtl_cycles"], max(array, bus), Demand.STATED),
            Case(name, "cycles, lower bound", "cycles", n["rtl_cycles"], max(array, bus), Demand.AT_MOST),
        ]
    return found


SUITE = Suite(
    name="nvdla",
    title="NVDLA nv_small",
    source="yonseicasl/NPUsim@2a371fd validation/nvdla (nvdla/hw@1a65f1f, Verilator 5.022)",
    text=__doc__ or "",
    run=cases,
)
