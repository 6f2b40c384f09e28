"""Designs of a study, simulated again with rows recorded: units over time, waits, energy, ops and the plan."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelsim.api import Report, simulate
from accelsim.config import load_accelerator, load_plan
from accelsim.ir import OpKind
from accelsim.mapping import Mapping, mapping_from_json
from accelsim.optable import op_table
from accelsim.plan import QuantizedOp
from accelsim.problems import AccelsimError, Problem
from accelsim.shares import layer_shares
from accelsim.workloads.from_json import load_workload
from codesign.plots.stalls import unit_parts
from codesign.report.gantt import gantt_data
from codesign.report.study import Design, Study

# Segments of all designs together, and of one: what keeps the page small.
MOST_SEGMENTS, MOST_PER_DESIGN, LEAST_PER_DESIGN = 16_000, 2_000, 200
# A run counts as the same as the study's when cycles are equal and energies differ by less than rounding.
SAME_ENERGY = 1e-6


@dataclass(frozen=True)
class Details:
    """Plain data of the designs with files, by name, and the networks [[op, class, MACs], …] that they refer to."""

    designs: dict[str, dict[str, Any]]
    networks: list[list[list[Any]]]


def design_details(study: Study) -> Details:
    """Details of every design with a folder; raises AccelsimError when one cannot be simulated."""
    designs = [design for design in study.result.designs if design.folder is not None]
    most = max(LEAST_PER_DESIGN, min(MOST_PER_DESIGN, MOST_SEGMENTS // max(1, len(designs))))
    found = Details({}, [])
    for design in designs:
        report = simulated(study.folder / str(design.folder))
        ops = [[item.op.name, item.op.op_class, item.op.macs] for item in report.table.quantized.ops]
        if ops not in found.networks:
            found.networks.append(ops)
        network = found.networks.index(ops)
        found.designs[design.id] = {"network": network, **_details(design, report, most)}
    return found


def simulated(folder: Path) -> Report:
    """The design of a folder with its four files, simulated with its rows recorded.

    Raises AccelsimError with the file at fault, or when the mapping does not fit the other three.
    """
    accelerator, plan = load_accelerator(folder / "accelerator.yaml"), load_plan(folder / "plan.yaml")
    table = op_table(load_workload(folder / "workload.json"), plan)
    name = folder / "mapping.json"
    return simulate(table, accelerator, _read_mapping(name), record=True, mapping_name=str(name))


def _read_mapping(path: Path) -> Mapping:
    expected = "a file of `accelsim run --save-mapping`"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AccelsimError(Problem(str(path), f"cannot be read ({error.strerror})", expected)) from error
    except (ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise AccelsimError(Problem(f"{path}{line}", f"not JSON ({error})", expected)) from error
    return mapping_from_json(data, str(path))


def _details(design: Design, report: Report, most: int) -> dict[str, Any]:
    result, price = report.result, report.prices.arithmetic
    workload, quantized = report.table.quantized.workload, report.table.quantized
    same = design.cycles in (None, result.cycles_total) and (
        abs(price.energy_pj - design.energy_pj) <= SAME_ENERGY * design.energy_pj
    )
    return {
        "cycles": result.cycles_total,
        "clock_hz": report.accelerator.clock_hz,
        "energy_pj": price.energy_pj,
        "same": same,
        "bound_cycles": report.bound.cycles,
        "gantt": gantt_data(report, most),
        "waits": unit_parts(report),
        "energy": dict(price.energy_by_component_pj),
        "area": dict(price.area_by_component_mm2),
        "utilization": report.utilization(),
        "plan": {"name": quantized.plan.name, "division": quantized.plan.division},
        "ops": op_rows(report),
        "fingerprints": {
            "workload": workload.fingerprint(),
            "plan": quantized.plan.fingerprint(),
            "accelerator": report.accelerator.fingerprint(),
            "mapping": report.mapping.fingerprint(),
        },
    }


def op_rows(report: Report) -> list[dict[str, Any]]:
    """Per op: formats in and out, filters by weight format or the format of the right operand, engines, costs.

    `cycles` are own cycles (they sum to the run), `pj` dynamic energy, `bits` what crosses the DRAM bus.
    """
    shares, rows = layer_shares(report), []
    for item, row in zip(report.table.quantized.ops, report.op_rows(), strict=True):
        moved = row["counts"].get("dram_read_bits", 0) + row["counts"].get("dram_write_bits", 0)
        costs = {"engines": row["engines"], "cycles": row["cycles"], "pj": row["dynamic_energy_pj"], "bits": moved}
        rows.append({**_formats(item, shares.get(item.op.name)), **costs})
    return rows


def _formats(item: QuantizedOp, channels: dict[str, int] | None) -> dict[str, Any]:
    op = item.op
    if channels is None and item.weights and op.loop is not None:
        channels = {item.weights[0].format.name: op.loop.groups * op.loop.cols}
    row: dict[str, Any] = {"in": item.activation.name, "out": item.output.name}
    if channels:
        row["filters"] = {name: count for name, count in channels.items() if count}
    elif op.kind is OpKind.MATMUL:
        row["right"] = item.right.name
    if item.zero_point:
        row["zero_point"] = True
    return row
