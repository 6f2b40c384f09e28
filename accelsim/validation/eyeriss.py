"""Eyeriss silicon, AlexNet: processing latency, active PEs, buffer volume and DRAM volume of the five convolutions.

Compared: a row-stationary array with registers (`accelsim/analysis/row_stationary.py`) in closed form, 168 PEs at
200 MHz, four images.  Active PEs must be equal.  Buffer volume must agree to the printed digit (rounding of one decimal
is the tolerance).  Processing latency is stated: nothing is fitted.  DRAM volume is contained: at least all filters
and the inputs that are not zero (the chip compresses zeros), at most what re-streaming for every pass would move.

Not modelled: the last partial sums leaving the array, handshakes of the on-chip network, configuration between
layers, skipped zeros (they save energy, no cycles).  The mapping of every layer (strip, filters and channels per PE,
copies) is an input, found from register sizes and active PEs; for CONV3 several remain, and the one whose buffer volume
is right was taken, so that volume checks the other four layers only.  That CONV5 comes out too slow while all others
come out too fast is not explained.
"""

from __future__ import annotations

from accelsim.analysis.row_stationary import (
    ConvShape,
    PassMapping,
    active_pes,
    buffer_words,
    layer_cycles,
    streamed_words,
)
from accelsim.validation.case import Case, Demand, Suite, rows_of

CLOCK_HZ = 200_000_000
WORD_BYTES = 2
IMAGES = 4
PRINTED_MB = 0.05


def layers() -> list[tuple[dict[str, str], ConvShape, PassMapping]]:
    """Data row, shape and mapping of every layer."""
    found = []
    for row in rows_of("eyeriss_alexnet.csv"):
        n = {key: int(value) for key, value in row.items() if value.isdigit()}
        shape = ConvShape(
            IMAGES, n["groups"], n["channels"], n["filters"], n["in_edge"], n["kernel"], n["out_edge"], n["stride"]
        )
        mapping = PassMapping(
            n["images"], n["strip_rows"], n["pe_filters"], n["pe_channels"], n["channel_sets"], n["filter_sets"]
        )
        found.append((row, shape, mapping))
    return found


def least_dram_bytes(row: dict[str, str], layer: ConvShape) -> float:
    """Filters once and inputs other than zero once."""
    filters = layer.groups * layer.filters * layer.channels * layer.kernel**2
    inputs = layer.images * layer.groups * layer.channels * int(row["unpadded_edge"]) ** 2
    return WORD_BYTES * (filters + inputs * (1 - float(row["zero_inputs_pct"]) / 100))


def cases() -> list[Case]:
    """Rows of the suite."""
    rows, total_ms, reference_ms = [], 0.0, 0.0
    for row, layer, mapping in layers():
        name = row["layer"]
        ours_ms, measured_ms = layer_cycles(layer, mapping) / CLOCK_HZ * 1e3, float(row["processing_ms"])
        total_ms, reference_ms = total_ms + ours_ms, reference_ms + measured_ms
        megabytes = buffer_words(layer, mapping) * WORD_BYTES / 1e6
        buffer_mb, dram_mb = float(row["buffer_mb"]), float(row["dram_mb"])
        rows += [
            Case(name, "active PEs", "PEs", int(row["active_pes"]), active_pes(layer, mapping)),
            Case(name, "buffer volume", "MB", buffer_mb, megabytes, Demand.WITHIN, PRINTED_MB / buffer_mb),
            Case(name, "processing latency", "ms", measured_ms, ours_ms, Demand.STATED),
            Case(name, "DRAM, least", "MB", dram_mb, least_dram_bytes(row, layer) / 1e6, Demand.AT_MOST),
            Case(name, "DRAM, re-streamed", "MB", dram_mb, streamed_words(layer, mapping) * WORD_BYTES / 1e6,
                 Demand.AT_LEAST),
        ]  # fmt: skip
    return [*rows, Case("all five", "processing latency", "ms", reference_ms, total_ms, Demand.STATED)]


SUITE = Suite(
    name="eyeriss",
    title="Eyeriss v1, AlexNet",
    source="Chen et al., JSSC 52(1) 2017, Table V, as transcribed in yonseicasl/NPUsim@2a371fd",
    text=__doc__ or "",
    run=cases,
)
