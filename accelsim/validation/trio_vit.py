"""The Trio-ViT accelerator: published throughput, the authors' own cycle model, and our simulation.

Compared: GOPS and utilization that the authors measured on EfficientViT-B1 at 224 × 224 with (8×8 + 8×8) × 16
multipliers at 200 MHz, against their cycle model re-implemented from its formulas (within 0.5 %), and its cycle counts
(exactly).  The last row is our simulation of the preset `trio_vit`.

Not the same thing: the authors count neither DRAM nor the head nor the grouped convolutions in full.  Our simulation
does all of that on assumed buffers and an assumed DRAM, so its lower throughput is stated, not demanded.
"""

from __future__ import annotations

from accelsim.analysis.trio_vit_model import authors_cycles
from accelsim.api import evaluate
from accelsim.config import load_accelerator, load_plan
from accelsim.validation.case import Case, Demand, Suite, rows_of

MODEL, RESOLUTION = "efficientvit_b1", 224
NAME = f"{MODEL} at {RESOLUTION}"
# arXiv 2403.20230: 780.2 GOPS of 819.2.
PUBLISHED_GOPS, PUBLISHED_UTILIZATION = 780.2, 0.952
TOLERANCE = 0.005


def cases() -> list[Case]:
    """Rows of the suite."""
    rows = []
    for row in rows_of("trio_vit_cycles.csv"):
        counted = authors_cycles(row["model"], int(row["resolution"]))
        rows.append(
            Case(
                f"{row['model']} at {row['resolution']}",
                "cycles of one pixel group",
                "cycles",
                int(row["cycles"]),
                counted.cycles,
            )
        )
    counted = authors_cycles(MODEL, RESOLUTION)
    for what, unit, published, ours in (
        ("throughput", "GOPS", PUBLISHED_GOPS, counted.gops),
        ("utilization", "1", PUBLISHED_UTILIZATION, counted.utilization),
    ):
        rows.append(Case(NAME, f"{what}, authors' model", unit, published, ours, Demand.WITHIN, TOLERANCE))
    report = evaluate(MODEL, RESOLUTION, load_accelerator("trio_vit"), load_plan("uniform8"))
    seconds = report.result.cycles_total / report.accelerator.clock_hz
    gops = 2 * report.table.quantized.workload.macs / seconds / 1e9
    rows.append(Case(NAME, "throughput, our simulation with DRAM", "GOPS", PUBLISHED_GOPS, gops, Demand.STATED))
    return rows


SUITE = Suite(
    name="trio_vit",
    title="Trio-ViT / EfficientViT-FPGA",
    source="arXiv 2403.20230 (780.2 GOPS, ZCU102); shihuihong214/Trio-ViT@fba35c6 latency_v2.py (cycles)",
    text=__doc__ or "",
    run=cases,
)
