"""What the lowering kernels read and write: named tuples of arrays, and the positions inside them."""

from __future__ import annotations

from typing import Any, NamedTuple


class Tables(NamedTuple):
    """Everything lowering reads, as arrays (`scalars`: see SCALARS)."""

    ops: Any
    slices: Any
    tensors: Any
    vector: Any
    engines: Any
    modes: Any
    throughput: Any
    chains: Any
    parts: Any
    n_parts: Any
    resident: Any
    scalars: Any
    groups: Any
    forms: Any  # the rows of `ops`, and behind them the forms of token groups, head widths and segments
    form_slices: Any
    heads: Any
    head_parts: Any
    segments: Any  # `accelsim.segment_table`
    segment_spans: Any


class Output(NamedTuple):
    """Everything lowering writes.  `cursor`: see CURSOR; `ring` by op: see the R_ positions."""

    templates: Any
    phases: Any
    regions: Any
    region_life: Any  # first and last chain, first and last tensor use
    counts: Any
    cursor: Any
    tensor_region: Any
    ring: Any
    dram_base: Any  # by tensor
    segments: Any  # room for the segments of a tile


# A segment of a reduction: row of `forms`, shift of its step, parts in it, bits that one element of all its parts
# together has less on the left and on the right than the form says.
SEG_FORM, SEG_SHIFT, SEG_PARTS, SEG_LEFT_LESS, SEG_RIGHT_LESS, SEG_COLUMNS = range(6)

SCALARS: tuple[str, ...] = (
    "vector_port", "vector_latency", "burst_bits", "burst_ticks", "read_latency_ticks", "write_latency_ticks",
    "ticks_per_cycle", "weight_capacity", "prefetch_chains",
)  # fmt: skip
(
    VECTOR_PORT, VECTOR_LATENCY, BURST_BITS, BURST_TICKS, READ_LATENCY, WRITE_LATENCY, TICKS, WEIGHT_CAPACITY,
    PREFETCH,
) = range(len(SCALARS))  # fmt: skip

CURSOR: tuple[str, ...] = (
    "templates", "phases", "regions", "weight_pointer", "next_weight_chain", "overflow", "body_start", "times",
)  # fmt: skip
N_TEMPLATES, N_PHASES, N_REGIONS, WEIGHT_POINTER, NEXT_WEIGHTS, OVERFLOW, BODY, TIMES = range(len(CURSOR))
OVERFLOW_NONE, OVERFLOW_SPACE, OVERFLOW_READS = range(3)

# Regions behind an op: rings of its two loaded inputs and of its output tile (base, slots), its weights, their place in
# the weight buffer and in DRAM.
R_IN0, R_IN0_N, R_IN1, R_IN1_N, R_OUT, R_OUT_N, R_WEIGHT, R_WEIGHT_LOW, R_WEIGHT_HIGH, R_DRAM, N_RING = range(11)
