"""Verification: a design of the search is chosen again exactly, mapped well, simulated, quantized and measured.

Every verified design has a folder with its plan, accelerator, workload and mapping, which `accelsim run` takes, and
`design.json`, written last: what is there is not done again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelsim.api import Report, simulate
from accelsim.arch import Accelerator
from accelsim.config import dump_accelerator, dump_plan
from accelsim.files import write_text_atomic
from accelsim.ir import Workload, digest
from accelsim.optable import op_table
from accelsim.plan import QuantPlan
from accelsim.workloads.from_json import dump_workload
from codesign.loop.bench import VALIDATION, Bench
from codesign.loop.folder import StudyFolder
from codesign.loop.learned_networks import copy_checkpoint
from codesign.loop.variants import PLAIN

DESIGN = "design.json"


@dataclass(frozen=True)
class Candidate:
    """A design to verify.  `origin` is the arm it belongs to, `extra` what is noted beside its numbers.

    `variant` is the form of the network that the plan is for; a `checkpoint` (a folder) is measured as it is.
    """

    name: str
    origin: str
    label: str
    accelerator: Accelerator
    values: Mapping[str, Any]
    plan: QuantPlan
    predicted_loss: float | None
    level: float | None = None
    variant: str = PLAIN
    extra: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Path | None = None


class Verifier:
    """Verifies candidates of one study, whose networks are `workloads`.  Without a bench nothing is measured.

    Arms often choose the same plan: it is calibrated and measured once, whatever hardware it is for.
    """

    def __init__(
        self, folder: StudyFolder, workloads: Mapping[str, Workload], mapper: str, bench: Bench | None,
        limits: Mapping[str, float],
    ) -> None:  # fmt: skip
        self.folder, self.workloads, self.mapper, self.bench, self.limits = folder, workloads, mapper, bench, limits
        self._done: dict[str, str] = {}  # plan → a design that has it

    def stored(self, name: str) -> dict[str, Any] | None:
        """The record of a verified design, None when it is not done."""
        found = self.folder.read(self.folder.design(name) / DESIGN)
        if found is None:
            return None
        self._done.setdefault(found["plan"], name)
        return dict(found)

    def verify(self, candidate: Candidate) -> dict[str, Any]:
        """Map, simulate, quantize and measure a design; returns and stores its record."""
        workload = self.workloads[candidate.variant]
        report = simulate(op_table(workload, candidate.plan), candidate.accelerator, mapper=self.mapper)
        place = self.folder.design(candidate.name)
        place.mkdir(parents=True, exist_ok=True)
        record = {**self._record(candidate, report), "validation": None, "test": None}
        same = self._done.get(record["plan"], candidate.name)
        if same != candidate.name and self.bench is not None:
            copy_checkpoint(self.folder.design(same), place)
        elif candidate.checkpoint is not None:
            copy_checkpoint(candidate.checkpoint, place)
        elif self.bench is not None:
            self.bench.quantize(candidate.plan, place, candidate.variant)
        else:
            write_text_atomic(place / "plan.yaml", dump_plan(candidate.plan))
            write_text_atomic(place / "workload.json", dump_workload(workload))
        write_text_atomic(place / "accelerator.yaml", dump_accelerator(candidate.accelerator))
        write_text_atomic(place / "mapping.json", json.dumps(report.mapping.to_json(), indent=1) + "\n")
        if same != candidate.name:
            record["validation"] = self.folder.read(self.folder.design(same) / DESIGN)["validation"]
        elif self.bench is not None:
            record["validation"] = self.bench.measure(place, VALIDATION)
        self.folder.write(place / DESIGN, record)
        self._done.setdefault(record["plan"], candidate.name)
        return record

    def _record(self, candidate: Candidate, report: Report) -> dict[str, Any]:
        numbers = report.metrics()
        found, workload = report.found, self.workloads[candidate.variant]
        return {
            "id": candidate.name,
            "origin": candidate.origin,
            "label": candidate.label,
            "arch": candidate.accelerator.name,
            "values": dict(candidate.values),
            "level": candidate.level,
            "variant": candidate.variant,
            "plan": digest([candidate.variant, candidate.plan.fingerprint(), str(candidate.checkpoint or "")]),
            "predicted_loss": candidate.predicted_loss,
            "cycles": numbers["cycles_total"],
            **{name: numbers[name] for name in ("clock_hz", "latency_s", "energy_pj", "edp_pj_s", "area_mm2")},
            "power_w": report.prices.arithmetic.power_w,
            "over_limits": over_limits(report, self.limits),
            "mapper": self.mapper,
            "kept_mapping": "given" if found is None else found.kept.origin,
            "utilization": numbers["utilization"],
            "busy_cycles": report.result.busy_cycles(),
            "bound_cycles": report.bound.cycles,
            "average_weight_bits": average_weight_bits(candidate.plan, workload),
            "shift_share": shift_share(candidate.plan, workload),
            "folder": f"designs/{candidate.name}",
            **candidate.extra,
        }


def over_limits(report: Report, limits: Mapping[str, float]) -> dict[str, float]:
    """Limits that a simulated design misses, with its numbers: another mapper or plan than the search's may."""
    numbers = {**report.metrics(), "power_w": report.prices.arithmetic.power_w}
    return {name: float(numbers[name]) for name, limit in limits.items() if numbers[name] > limit}


def average_weight_bits(plan: QuantPlan, workload: Workload) -> float:
    """Stored bits of a weight, averaged over all weights."""
    total = bits = 0.0
    for op in workload.ops:
        if op.weights:
            total += op.weights
            bits += op.weights * sum(part.format.bits * (part.share or 0.0) for part in plan.rule_for(op).weights)
    return bits / total if total else 0.0


def shift_share(plan: QuantPlan, workload: Workload) -> float:
    """Share of the multiply-accumulates with weights that are powers of two."""
    macs = shifted = 0.0
    for op in workload.ops:
        if op.weights:
            parts = plan.rule_for(op).weights
            macs += op.macs
            shifted += op.macs * sum(part.share or 0.0 for part in parts if part.format.is_shift)
    return shifted / macs if macs else 0.0
