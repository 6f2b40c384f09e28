"""What the RTL's rule for unequal tiles back to back would change: a tile waits for the output stage.

An engine has one output stage and results leave it in order.  The RTL therefore starts a tile not before the finish of
the engine's previous tile − lead, lead being the tile's compute time of a block + the pipeline.  The contract of today
has no such term; this module replays a Program with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from accelsim.api import Report
from accelsim.engines import tile_cost
from accelsim.problems import AccelsimError, Problem
from accelsim.program import Int64, Program
from accelsim.rtl.engine import TileJob, lead_cycles
from accelsim.rtl.sequencer import instructions
from accelsim.rtl.tiles import lowered_tiles

LeadTicks = dict[tuple[int, int, int, int], int]  # by (unit, op, occupancy, latency) of a row


@dataclass(frozen=True)
class HandoverChange:
    """Cycles of one image today and with the rule; rows that start later because of their own engine's results."""

    today_cycles: int
    with_rule_cycles: int
    held_rows: int
    engine_rows: int


def lead_ticks(report: Report) -> LeadTicks:
    """Lead of every array row of a design.  AccelsimError when two tiles of an op cost the same but differ in it."""
    ticks = report.result.program.ticks_per_cycle
    leads: LeadTicks = {}
    empty = np.zeros(0, np.int64)
    for item in lowered_tiles(report):
        engine = report.accelerator.engines[item.unit]
        job = TileJob(item.tile, item.weight, empty, empty, empty, (0, 0))
        cost = tile_cost(engine, item.tile, item.weight, item.activation)
        key = (item.unit, item.op, cost.occupancy_cycles * ticks, cost.latency_cycles * ticks)
        lead = (lead_cycles(engine, job) + engine.pipeline_cycles) * ticks
        if leads.setdefault(key, lead) != lead:
            raise AccelsimError(Problem(f"rows of op {item.op}", "tiles of equal cost have different leads"))
    return leads


def replay(program: Program, leads: LeadTicks | None = None) -> tuple[Int64, int]:
    """Start, unit free and finish [rows, 3] in ticks from the sequencer's instructions; rows held by the rule.

    Without `leads` the rule is off and the times are those of the contract.
    """
    queues, _ = instructions(program)
    by_number = {item.number: item for queue in queues for item in queue}
    times = np.zeros((len(by_number), 3), np.int64)
    signals: dict[tuple[int, int], int] = {}
    free, finished = [0] * len(program.units), [0] * len(program.units)
    bus, ticks, held = len(program.units) - 1, program.ticks_per_cycle, 0
    for number, row in enumerate(program.expand()):
        item = by_number[number]
        met = [signals[semaphore, k] for semaphore, index in item.waits for k in range(index)]
        start = max([free[row.unit], *met])
        lead = (leads or {}).get((row.unit, row.op, row.occupancy_ticks, row.latency_ticks))
        if lead is not None and finished[row.unit] - lead > start:
            start, held = finished[row.unit] - lead, held + 1
        end, finish = start + row.occupancy_ticks, start + row.latency_ticks
        released = end
        if row.unit == bus:
            released, finish = -(-end // ticks) * ticks, -(-finish // ticks) * ticks
        signals.update(dict.fromkeys(item.releases, released))
        signals.update(dict.fromkeys(item.finishes, finish))
        free[row.unit], finished[row.unit] = end, finish
        times[number] = start, end, finish
    return times, held


def handover_change(report: Report) -> HandoverChange:
    """How long one image takes today and with the rule."""
    program = report.result.program
    leads = lead_ticks(report)
    before, _ = replay(program)
    after, held = replay(program, leads)
    rows = sum(row.unit < len(report.accelerator.engines) for row in program.expand())
    cycles = [-(-int(times[:, 2].max()) // program.ticks_per_cycle) for times in (before, after)]
    return HandoverChange(cycles[0], cycles[1], held, rows)
