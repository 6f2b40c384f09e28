"""What the pictures of one run share: its title, its recorded rows, and classes of ops worth a colour."""

from __future__ import annotations

from collections.abc import Mapping

from accelsim.api import Report
from accelsim.problems import AccelsimError, Problem
from accelsim.program import CAUSES
from codesign.plots.frame import COLOURS, GREY

OTHER = "other"
BUSY = "#1B4F72"
BUSY_NEXT = "#7FB3D5"
DRAINED = "0.9"
CAUSE_COLOURS = dict(zip(CAUSES, ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#F0E442"), strict=True))
CAUSE_TEXTS = {
    "region": "waits for a place in a buffer",
    "bus": "waits for data from DRAM",
    "input": "waits for a result of another unit",
    "dependency": "waits for an explicit dependency",
    "output": "waits for its own output stage",
}


def require_rows(report: Report, where: str, one_image: bool = False) -> None:
    """Raise AccelsimError when the run was not recorded, or is a batch where one image is needed."""
    if not len(report.result.rows):
        raise AccelsimError(Problem(where, "the run has no recorded rows to draw", "simulate(…, record=True)"))
    if one_image and report.result.images > 1:
        raise AccelsimError(Problem(where, f"the run has {report.result.images} images", "a run of one image"))


def run_title(report: Report) -> str:
    """Network, resolution, accelerator and plan in a line."""
    workload, plan = report.table.quantized.workload, report.table.quantized.plan
    text = f"{workload.name} at {workload.resolution} on {report.accelerator.name}, plan {plan.name}"
    return text if report.result.images == 1 else f"{text}, batch {report.result.images}"


def class_colours(amounts: Mapping[str, float]) -> dict[str, str]:
    """Colours of the op classes with the largest amounts; classes that are left out are `OTHER`, in grey."""
    largest = sorted(amounts, key=lambda name: -amounts[name])[: len(COLOURS) - 1]
    chosen = [name for name in amounts if name in largest]
    return {**dict(zip(chosen, COLOURS, strict=False)), OTHER: GREY}
