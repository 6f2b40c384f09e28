"""From names to answers: `evaluate` runs a design, the Report says what it costs.  The notebook user's entrance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.arch import Accelerator
from accelsim.bounds import DesignBound, design_bound
from accelsim.counts import ENGINE_COUNTS, count_columns
from accelsim.energy import ConventionSpread, convention_spread, price_per_op
from accelsim.engines.registry import rules_of
from accelsim.lowering import Lowered, check_batch, lower
from accelsim.mappers.choice import DEFAULT_MAPPER, Mapper, mapper_of, refuse_unused
from accelsim.mappers.heuristic import map_and_lower
from accelsim.mapping import Mapping, MappingArrays, arrays_to_mapping, mapping_to_arrays
from accelsim.optable import EngineTable, OpTable, engine_table, op_table
from accelsim.plan import QuantPlan
from accelsim.program import CAUSES, Int64
from accelsim.result import SimResult, named_counts, run_program
from accelsim.token_forms import varies, worst_case
from accelsim.token_rules import ranked_for
from accelsim.workloads.registry import build_workload

if TYPE_CHECKING:
    from accelsim.mappers.exhaustive import Found

# Images simulated to read the steady-state interval between finishes.
STEADY_IMAGES = 4


@dataclass(frozen=True, eq=False)
class Report:
    """One design, simulated; what needs more work than that is computed when it is first asked for.

    `to_json` is the machine-readable form, `metrics` the part that studies keep.  `found` is what the exhaustive mapper
    found, None when the mapping came from the heuristic one or a file.
    """

    accelerator: Accelerator
    table: OpTable
    engines: EngineTable
    arrays: MappingArrays
    lowered: Lowered
    result: SimResult
    found: Found | None = None

    @cached_property
    def mapping(self) -> Mapping:
        """The mapping in the user's form."""
        return arrays_to_mapping(self.arrays, self.table, self.accelerator)

    @cached_property
    def bound(self) -> DesignBound:
        """What no mapping of this design can beat."""
        return design_bound(self.table, self.engines, self.accelerator)

    @cached_property
    def initiation_interval_cycles(self) -> float:
        """Cycles between the finishes of two images in steady state."""
        result = self.result
        steady = result if result.images >= STEADY_IMAGES else run_program(self.lowered, STEADY_IMAGES)
        return float(steady.initiation_interval_cycles)

    @cached_property
    def totals(self) -> Int64:
        """Counts of one image in `count_columns` order."""
        return np.asarray(self.result.counts.sum(axis=0), np.int64)

    @cached_property
    def prices(self) -> ConventionSpread:
        """Price of all images under both conventions."""
        result = self.result
        return convention_spread(
            self.totals * result.images, result.cycles_total, result.busy_cycles(), self.accelerator
        )

    def utilization(self) -> dict[str, dict[str, float]]:
        """Per engine: busy share of the time, and the share of slot-cycles that did work while busy."""
        result, shares = self.result, {}
        columns = count_columns(self.accelerator)
        totals = dict(zip(columns, (self.totals * result.images).tolist(), strict=True))
        busy = result.busy_cycles()
        for engine in self.accelerator.engines:
            used = 0.0
            rules = rules_of(engine)
            for column in range(rules.columns(engine)):
                rate = rules.rate(engine, column)
                macs = totals[f"{engine.name}.{ENGINE_COUNTS[column]}"]
                used += macs * rate.passes / (rate.products * rate.inputs)
            cycles = busy[engine.name]
            shares[engine.name] = {
                "temporal": cycles / result.cycles_total,
                "spatial": used / (cycles * engine.slots) if cycles else 0.0,
            }
        return shares

    def metrics(self) -> dict[str, Any]:
        """What a study keeps of a design: plain numbers, cheap to make.

        Energies are per image, under the arithmetic convention unless the name says otherwise.
        """
        result, price, synthesized = self.result, self.prices.arithmetic, self.prices.synthesized
        images, clock = result.images, self.accelerator.clock_hz
        read, write = (int(bits) for bits in self.totals[-2:])
        return {
            "cycles_total": result.cycles_total,
            "clock_hz": clock,
            "latency_s": result.cycles_total / clock,
            "energy_pj": price.energy_pj / images,
            "energy_by_component_pj": {k: v / images for k, v in price.energy_by_component_pj.items()},
            "energy_pj_synthesized": synthesized.energy_pj / images,
            "area_mm2": price.area_mm2,
            "edp_pj_s": price.energy_pj / images * result.cycles_total / images / clock,
            "edp_pj_s_synthesized": synthesized.energy_pj / images * result.cycles_total / images / clock,
            "macs": self.table.quantized.workload.macs,
            "dram_read_bits": read,
            "dram_write_bits": write,
            "utilization": self.utilization(),
        }

    def to_json(self, ops: bool = True) -> dict[str, Any]:
        """Plain data: `metrics`, and what explains them; with `ops` a row for every op."""
        result, price = self.result, self.prices.arithmetic
        workload, plan = self.table.quantized.workload, self.table.quantized.plan
        clock = self.accelerator.clock_hz
        data: dict[str, Any] = {
            "format": "accelsim.report/1",
            "model": workload.name,
            "resolution": workload.resolution,
            "arch": self.accelerator.name,
            "plan": plan.name,
            "batch": result.images,
            **self.metrics(),
            "first_image_latency_s": result.first_image_cycles / clock,
            "first_image_latency_cycles": result.first_image_cycles,
            "initiation_interval_cycles": self.initiation_interval_cycles,
            "frames_per_s": clock / self.initiation_interval_cycles,
            "area_by_component_mm2": dict(price.area_by_component_mm2),
            "power_w": price.power_w,
            "waits_cycles": {unit: result.waits(k) for k, unit in enumerate(result.program.units)},
            "bound_cycles": {
                "compute": self.bound.compute_cycles,
                "vector": self.bound.vector_cycles,
                "traffic": self.bound.traffic_cycles,
                "spill": self.bound.spill_cycles,
                "cut": self.bound.cut_cycles,
            },
            **({"mapper": self.found.to_json()} if self.found is not None else {}),
            "counts": named_counts(self.totals, count_columns(self.accelerator)),
            **({"dram_events": result.named_dram_events()} if result.program.dram is not None else {}),
            "fingerprints": {
                "workload": workload.fingerprint(),
                "plan": plan.fingerprint(),
                "accelerator": self.accelerator.fingerprint(),
                "mapping": self.mapping.fingerprint(),
            },
        }
        if ops:
            data["ops"] = self.op_rows()
        return data

    def op_rows(self) -> list[dict[str, Any]]:
        """Per op: name, kind, engines, start, finish, own cycles (they sum to the total), waits by cause, counts."""
        result, ticks = self.result, self.result.program.ticks_per_cycle
        columns = count_columns(self.accelerator)
        engines = {
            name: tuple(dict.fromkeys(part.engine for part in parts)) or ("vector",)
            for chain in self.mapping.chains
            for name, parts in zip(chain.ops, chain.parts, strict=True)
        }
        energy = price_per_op(result.counts, self.accelerator)
        rows = []
        for k, item in enumerate(self.table.quantized.ops):
            rows.append(
                {
                    "name": item.op.name,
                    "kind": str(item.op.kind),
                    "class": item.op.op_class,
                    "engines": list(engines[item.op.name]),
                    "start_cycles": int(result.op_start_ticks[k]) // ticks,
                    "finish_cycles": -(-int(result.op_finish_ticks[k]) // ticks),
                    "cycles": int(result.op_own_ticks[k]) / ticks,
                    "macs": item.op.macs,
                    "waits_cycles": {
                        cause: int(w) / ticks for cause, w in zip(CAUSES, result.op_wait_ticks[k], strict=True)
                    },
                    "dynamic_energy_pj": float(energy[k]),
                    "counts": named_counts(result.counts[k], columns),
                }
            )
        return rows


def simulate(
    table: OpTable,
    accelerator: Accelerator,
    mapping: Mapping | None = None,
    batch: int = 1,
    record: bool = False,
    fuse: bool = True,
    mapping_name: str = "mapping",
    mapper: Mapper | str = DEFAULT_MAPPER,
) -> Report:
    """Map (unless a mapping is given), lower, simulate and price one design.

    `fuse=False` makes every op its own chain; the exhaustive mapper has no such space.  `mapper` is a `Mapper` or its
    short name, such as `exhaustive:edp`.  Of a plan with token groups the mapping is that of all tokens full, with head
    widths that of the widest; `found` is about that, too.  Raises InfeasibleError with numbers when the accelerator
    cannot run the workload, AccelsimError when the given mapping is not legal for it.
    """
    chosen = mapper_of(mapper) if isinstance(mapper, str) else mapper
    refuse_unused(chosen, mapping is not None, fuse)
    found = None
    if mapping is not None:
        engines = engine_table(accelerator, table)
        arrays = mapping_to_arrays(mapping, table, engines, accelerator, mapping_name)
        lowered = lower(table, engines, accelerator, arrays)
    elif chosen.exhaustive:
        from accelsim.mappers.exhaustive import find_mapping

        found = find_mapping(worst_case(table), accelerator, chosen.objective, chosen.steady)
        arrays, engines, lowered = found.kept.arrays, found.engines, found.kept.lowered
        if varies(table):
            engines = engine_table(accelerator, table)
            lowered = lower(table, engines, accelerator, arrays)
    else:
        arrays, engines, lowered = map_and_lower(table, accelerator, fuse)
    check_batch(lowered.program, batch, record)
    return Report(accelerator, table, engines, arrays, lowered, run_program(lowered, batch, record), found)


def evaluate(
    model: str,
    resolution: int | None,
    accelerator: Accelerator,
    plan: QuantPlan,
    batch: int = 1,
    mapper: Mapper | str = DEFAULT_MAPPER,
) -> Report:
    """Report of a built-in model or a workload file (its own resolution when None) under a plan on an accelerator.

    Layers with token groups get the ops that rank their tokens (`accelsim.token_rules.ranked_for`).
    """
    workload = ranked_for(build_workload(model, resolution), plan)
    return simulate(op_table(workload, plan), accelerator, batch=batch, mapper=mapper)
