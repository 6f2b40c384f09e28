"""TPU v1: roofline bound, conservation of its cycle classes, and the share of cycles that wait for weights.

Compared, for the six published applications:

* the four cycle classes (array active, weight stall, weight shift, no matrix work) add up to 100 %, and useful plus
  unused MACs to the active cycles (within the rounding of the printed digits);
* measured throughput is at most the roofline min(peak, 2 · MACs per weight byte · 34 GB/s), peak = 2 · 256² · 700 MHz;
* of the cycles with matrix work, the share in which the array is active.  A tile of 256 × 256 weights is used for as
  many cycles as the application has MACs per weight byte, and the next tile needs 65,536 bytes at 34 GB/s meanwhile, so
  the share is min(1, used ÷ load).  The error is stated.

Not modelled: shift of weights into the array, tiles that are not full (MACs per weight byte are averages), dependences
between layers, the host.  The application traces are not public, so no network is simulated.
"""

from __future__ import annotations

from accelsim.validation.case import Case, Demand, Suite, rows_of

EDGE = 256
CLOCK_HZ = 700_000_000
BANDWIDTH_BYTES_PER_S = 34_000_000_000
# Printed with one decimal: four addends, then three.
ROUNDING_OF_FOUR = 0.002
ROUNDING_OF_THREE = 0.15


def roofline_tops(macs_per_weight_byte: float) -> float:
    """Bound on 10¹² operations per second (a MAC is two)."""
    peak = 2 * EDGE**2 * CLOCK_HZ
    return min(peak, 2 * macs_per_weight_byte * BANDWIDTH_BYTES_PER_S) / 1e12


def active_share(macs_per_weight_byte: float) -> float:
    """Share of matrix cycles in which the array is active, when tiles of weights load behind the tile in use."""
    load_cycles = EDGE**2 / BANDWIDTH_BYTES_PER_S * CLOCK_HZ
    return min(1.0, macs_per_weight_byte / load_cycles)


def cases() -> list[Case]:
    """Rows of the suite."""
    found = []
    for row in rows_of("tpu_v1.csv"):
        app = row["app"]
        value = {key: float(text) for key, text in row.items() if key != "app"}
        active, useful = value["active_pct"], value["useful_pct"] + value["unused_pct"]
        matrix = active + value["weight_stall_pct"] + value["weight_shift_pct"]
        intensity = value["ops_per_weight_byte"]
        found += [
            Case(app, "sum of cycle classes", "%", 100.0, matrix + value["non_matrix_pct"], Demand.WITHIN,
                 ROUNDING_OF_FOUR),
            Case(app, "useful + unused MACs", "% of cycles", active, useful, Demand.WITHIN, ROUNDING_OF_THREE / active),
            Case(app, "roofline", "TOPS", value["tops"], roofline_tops(intensity), Demand.AT_LEAST),
            Case(app, "active share of matrix cycles", "%", 100 * active / matrix, 100 * active_share(intensity),
                 Demand.STATED),
        ]  # fmt: skip
    return found


SUITE = Suite(
    name="tpu",
    title="TPU v1",
    source="Jouppi et al., ISCA 2017 (arXiv 1704.04760), Tables 1, 3 and 5",
    text=__doc__ or "",
    run=cases,
)
