"""Why a design takes the time it takes: the roofline position of every op, who waits for whom, and what would help."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from accelsim.api import Report, simulate
from accelsim.arch import Accelerator, Engine
from accelsim.config import accelerator_from_data
from accelsim.counts import count_columns
from accelsim.optable import (
    M_INPUTS,
    M_MODE,
    M_PASSES,
    M_PRODUCTS,
    O_PASSES,
    O_SLICES,
    S_UNITS,
    EngineTable,
    OpTable,
    engine_table,
)
from accelsim.plan import QuantPlan
from accelsim.problems import AccelsimError
from accelsim.program import CAUSES, Row
from accelsim.token_forms import combos_of

FORMAT = "accelsim.explanation/1"
BITS_PER_BYTE = 8


@dataclass(frozen=True)
class RooflinePoint:
    """One op under its roof.  Work is MACs, or operations of the vector unit for an op without MACs (`work_unit`).

    `active_cycles` is the time during which at least one row of the op (transfer or computation) is in progress; all
    its work and all its DRAM bytes fall into it, so attained ≤ roof is a law.  `intensity` is work per DRAM byte moved
    by the op (None: it moves none), `peak` what the compatible engines do at most, `dram_roof` = intensity × bandwidth
    (None likewise), `roof` the lower of the two and `bound` which one it is.  Rates are per core cycle.
    """

    name: str
    op_class: str
    engines: tuple[str, ...]
    work: int
    work_unit: str
    dram_bytes: float
    active_cycles: float
    intensity: float | None
    attained: float
    peak: float
    dram_roof: float | None
    roof: float
    bound: str


@dataclass(frozen=True)
class OpWait:
    """Cycles that a unit lost before rows of `op`, and how many of them each other unit caused."""

    op: str
    cycles: float
    blocked_by: dict[str, float]


@dataclass(frozen=True)
class UnitWait:
    """Waiting cycles of a unit for one cause, by the op whose rows waited, most first; they sum to `cycles`."""

    unit: str
    cause: str
    cycles: float
    ops: tuple[OpWait, ...]


@dataclass(frozen=True)
class Lever:
    """One change of the accelerator, mapped and simulated anew.

    Gains are 1 − new / old (negative: worse), `area_cost_mm2` is new − old.  `problem` says why the change is no
    design; then there are no numbers.
    """

    change: str
    cycles: int = 0
    latency_gain: float = 0.0
    edp_gain: float = 0.0
    edp_gain_synthesized: float = 0.0
    area_cost_mm2: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class Explanation:
    """A recorded report and what follows from it."""

    report: Report
    points: tuple[RooflinePoint, ...]
    waits: tuple[UnitWait, ...]
    levers: tuple[Lever, ...]

    def best(self, gain: str, count: int = 3) -> list[Lever]:
        """Levers with the largest positive `gain` (a field of Lever), the cheaper first among equals."""
        helpful = [lever for lever in self.levers if getattr(lever, gain) > 0]
        return sorted(helpful, key=lambda lever: (-getattr(lever, gain), lever.area_cost_mm2))[:count]

    def to_json(self) -> dict[str, Any]:
        """Plain data; the report itself is that of `accelsim run --json`, without its ops."""
        return {
            "format": FORMAT,
            "report": self.report.to_json(ops=False),
            "dram_bytes_per_cycle": bytes_per_cycle(self.report.accelerator),
            "roofline": [asdict(point) for point in self.points],
            "waits": [asdict(wait) for wait in self.waits],
            "levers": [asdict(lever) for lever in self.levers],
            "best_by_latency": [lever.change for lever in self.best("latency_gain")],
            "best_by_edp": [lever.change for lever in self.best("edp_gain")],
        }


def explain(table: OpTable, accelerator: Accelerator) -> Explanation:
    """Simulate a design with its rows recorded, place its ops under their roofs and try every lever.

    Raises InfeasibleError as `accelsim.api.simulate` does.
    """
    report = simulate(table, accelerator, record=True)
    rows = list(report.result.program.expand())
    levers = tuple(_try(report, change, changed) for change, changed in changes(accelerator))
    return Explanation(report, tuple(roofline(report)), tuple(_waits(report, rows)), levers)


def bytes_per_cycle(accelerator: Accelerator) -> float:
    """DRAM bytes per core cycle."""
    return accelerator.dram.bandwidth_bits_per_s / BITS_PER_BYTE / accelerator.clock_hz


def roofline(report: Report) -> Iterator[RooflinePoint]:
    """Every op of a recorded run of one image under its roof, in execution order."""
    table, accelerator, result = report.table, report.accelerator, report.result
    engines = engine_table(accelerator, table)
    columns = count_columns(accelerator)
    dram = [columns.index(name) for name in ("dram_read_bits", "dram_write_bits")]
    active = _active_ticks(report, list(result.program.expand()))
    used = {row["name"]: tuple(row["engines"]) for row in report.op_rows()}
    for k, item in enumerate(table.quantized.ops):
        macs = item.op.macs
        work = macs or int(table.vector[k, : table.ops[k, O_PASSES]].sum())
        peak = _peak_macs(table, engines, accelerator, k) if macs else _peak_vector(table, accelerator, k)
        moved = int(result.counts[k, dram].sum()) / BITS_PER_BYTE
        cycles = int(active[k]) / result.program.ticks_per_cycle
        intensity = work / moved if moved else None
        dram_roof = None if intensity is None else intensity * bytes_per_cycle(accelerator)
        memory_bound = dram_roof is not None and dram_roof < peak
        yield RooflinePoint(
            name=item.op.name,
            op_class=item.op.op_class,
            engines=used[item.op.name],
            work=work,
            work_unit="MACs" if macs else "vector operations",
            dram_bytes=moved,
            active_cycles=cycles,
            intensity=intensity,
            attained=work / cycles if cycles else 0.0,
            peak=peak,
            dram_roof=dram_roof,
            roof=dram_roof if memory_bound and dram_roof is not None else peak,
            bound="dram" if memory_bound else "compute",
        )


def _active_ticks(report: Report, rows: list[Row]) -> list[int]:
    """Per op: the length of the union of [start, finish) of its rows.  Bus rows occupy until their finish at least."""
    spans: dict[int, list[tuple[int, int]]] = {}
    for row, (start, end, finish, *_) in zip(rows, report.result.rows.tolist(), strict=True):
        spans.setdefault(row.op, []).append((start, max(end, finish)))
    totals = [0] * len(report.table.op_names)
    for op, intervals in spans.items():
        reached = 0
        for start, stop in sorted(intervals):
            totals[op] += max(0, stop - max(start, reached))
            reached = max(reached, stop)
    return totals


def _peak_macs(table: OpTable, engines: EngineTable, accelerator: Accelerator, k: int) -> float:
    """MACs per cycle of all engines that can execute some slice of op k, each in its best mode for the op.

    Of an op with token groups or head widths that is the mode of its narrowest operands.
    """
    used = [s for s in range(int(table.ops[k, O_SLICES])) if table.slices[k, s, S_UNITS] != 0]
    combos = combos_of(table, k)[:, used].ravel()
    peak = 0.0
    for e, engine in enumerate(accelerator.engines):
        modes = [engines.modes[combo, e] for combo in combos]
        peak += engine.slots * max(
            (m[M_PRODUCTS] * m[M_INPUTS] / m[M_PASSES] for m in modes if m[M_MODE] >= 0), default=0.0
        )
    return float(peak)


def _peak_vector(table: OpTable, accelerator: Accelerator, k: int) -> float:
    """Operations per cycle of the vector unit on this op's mix: in a pass the slowest kind decides."""
    passes = table.vector[k, : table.ops[k, O_PASSES]]
    per_cycle = np.maximum(1, np.array(accelerator.vector.throughput()))
    cycles = float((passes / per_cycle).max(axis=1).sum()) if len(passes) else 0.0
    return float(passes.sum()) / cycles if cycles else 0.0


def _waits(report: Report, rows: list[Row]) -> Iterator[UnitWait]:
    """Every (unit, cause) with lost cycles, most first."""
    program = report.result.program
    lost: dict[tuple[int, int], dict[int, Counter[str]]] = {}
    for row, (_, _, _, cause, blocker, waited) in zip(rows, report.result.rows.tolist(), strict=True):
        if cause >= 0 and waited > 0:
            unit = program.units[rows[blocker].unit] if blocker >= 0 else "none"
            lost.setdefault((row.unit, cause), {}).setdefault(row.op, Counter())[unit] += waited
    ticks = program.ticks_per_cycle
    found = []
    for (unit, cause), by_op in lost.items():
        ops = [
            OpWait(program.op_names[op], units.total() / ticks, {u: n / ticks for u, n in units.most_common()})
            for op, units in by_op.items()
        ]
        ops.sort(key=lambda wait: -wait.cycles)
        total = sum(units.total() for units in by_op.values()) / ticks
        found.append(UnitWait(program.units[unit], CAUSES[cause], total, tuple(ops)))
    yield from sorted(found, key=lambda wait: -wait.cycles)


def changes(accelerator: Accelerator) -> Iterator[tuple[str, Accelerator]]:
    """The levers: name and changed accelerator.  Engine ports grow with the operands that the change needs."""
    yield "2x DRAM bandwidth", accelerator.replace(dram=accelerator.dram.faster(2))
    for name in ("activation_buffer", "weight_buffer"):
        buffer = getattr(accelerator, name)
        larger = replace(buffer, capacity_bits=2 * buffer.capacity_bits)
        yield f"2x {name.replace('_', ' ')}", accelerator.replace(**{name: larger})
    for k, engine in enumerate(accelerator.engines):
        for what, changed in _engine_changes(engine):
            engines = (*accelerator.engines[:k], changed, *accelerator.engines[k + 1 :])
            yield f"2x {what} of {engine.name}", accelerator.replace(engines=engines)


def _engine_changes(engine: Engine) -> Iterator[tuple[str, Engine]]:
    """Twice the pixel groups read twice the activations, twice the lanes twice the weights (depthwise: both)."""
    two_activations = 2 * engine.activation_port_bits_per_cycle
    yield (
        "pixel groups",
        replace(engine, pixel_groups=2 * engine.pixel_groups, activation_port_bits_per_cycle=two_activations),
    )
    stage = replace(engine.output_stage, outputs_per_cycle=2 * engine.output_stage.outputs_per_cycle)
    yield "outputs per cycle", replace(engine, output_stage=stage)
    port = two_activations if engine.depthwise else engine.activation_port_bits_per_cycle
    weight_port = 2 * engine.weight_port_bits_per_cycle
    yield (
        "lanes",
        replace(
            engine,
            lanes=2 * engine.lanes,
            weight_port_bits_per_cycle=weight_port,
            activation_port_bits_per_cycle=port,
        ),
    )


def _try(report: Report, change: str, accelerator: Accelerator) -> Lever:
    try:
        accelerator_from_data(accelerator.to_json(), change)
        new = simulate(report.table, accelerator)
    except AccelsimError as error:
        return Lever(change, problem=str(error.problems[0]))
    old_prices, prices = report.prices, new.prices
    return Lever(
        change=change,
        cycles=new.result.cycles_total,
        latency_gain=1 - new.result.cycles_total / report.result.cycles_total,
        edp_gain=1 - prices.arithmetic.edp_pj_s / old_prices.arithmetic.edp_pj_s,
        edp_gain_synthesized=1 - prices.synthesized.edp_pj_s / old_prices.synthesized.edp_pj_s,
        area_cost_mm2=prices.arithmetic.area_mm2 - old_prices.arithmetic.area_mm2,
    )


def explain_model(model: str, resolution: int | None, accelerator: Accelerator, plan: QuantPlan) -> Explanation:
    """`explain` of a built-in model (its default resolution when None), with the ranking that token groups need."""
    from accelsim.optable import op_table
    from accelsim.token_rules import ranked_for
    from accelsim.workloads.registry import build_workload

    return explain(op_table(ranked_for(build_workload(model, resolution), plan), plan), accelerator)
