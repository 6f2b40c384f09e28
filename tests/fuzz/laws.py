"""Laws that every result obeys, whatever the network, plan and accelerator."""

from __future__ import annotations

import json
import math

import numpy as np

from accelsim.api import Report
from accelsim.bounds import program_bound_ticks
from accelsim.counts import ENGINE_COUNTS, MAX_MODES, count_columns
from accelsim.program import RUN_BITS, RUNS, Program
from accelsim.reference import simulate_by_stepping

ORACLE_TICKS = 4_000
ORACLE_ROWS = 200
EXPANDED_ROWS = 4_000


def check_laws(report: Report) -> None:
    """Raise AssertionError when a result breaks a law."""
    result, program, accelerator = report.result, report.lowered.program, report.accelerator
    total = result.total_ticks
    assert total > 0
    units = (result.unit_busy_ticks, result.unit_wait_ticks, result.unit_drained_ticks)
    ops = (result.op_own_ticks, result.op_start_ticks, result.op_wait_ticks)
    for values in (result.counts, *units, *ops, program.templates[:, 2:4]):
        assert (values >= 0).all()
    assert (result.unit_busy_ticks + result.unit_wait_ticks.sum(axis=1) + result.unit_drained_ticks == total).all()
    assert result.op_own_ticks.sum() == int(result.image_finish_ticks[0])
    assert result.cycles_total >= report.bound.cycles
    if program.n_rows <= EXPANDED_ROWS:
        assert int(result.image_finish_ticks[0]) >= program_bound_ticks(program)
    columns = list(count_columns(accelerator))
    products = [
        columns.index(f"{engine.name}.{ENGINE_COUNTS[mode]}")
        for engine in accelerator.engines
        for mode in range(MAX_MODES)
    ]
    macs = [item.op.macs for item in report.table.quantized.ops]
    assert result.counts[:, products].sum(axis=1).tolist() == macs
    _check_traffic(report, columns)
    _check_prices(report)
    if result.images == 1 and total <= ORACLE_TICKS and program.n_rows <= ORACLE_ROWS:
        _check_oracle(program, total)


def _check_traffic(report: Report, columns: list[str]) -> None:
    """DRAM traffic is what the rows move, and at least every weight, the input and the output once."""
    program, burst = report.lowered.program, report.accelerator.dram.burst_bits
    moved = 0
    for first, rows, count, _ in program.phases.tolist():
        for row in program.templates[first : first + rows].tolist():
            moved += count * row[RUNS] * -(-row[RUN_BITS] // burst) * burst
    totals = dict(zip(columns, report.totals.tolist(), strict=True))
    traffic = totals["dram_read_bits"] + totals["dram_write_bits"]
    assert moved == traffic
    dram = report.accelerator.dram
    compulsory = report.bound.traffic_cycles * dram.bandwidth_bits_per_s // report.accelerator.clock_hz
    assert traffic >= compulsory


def _check_prices(report: Report) -> None:
    data = report.to_json()
    json.dumps(data, allow_nan=False)
    for name in ("energy_pj", "energy_pj_synthesized", "area_mm2", "latency_s", "power_w"):
        assert math.isfinite(data[name]), name
        assert data[name] > 0, name
    for shares in data["utilization"].values():
        assert 0 <= shares["temporal"] <= 1
        assert 0 <= shares["spatial"] <= 1 + 1e-9


def _check_oracle(program: Program, total: int) -> None:
    rows = simulate_by_stepping(program, 1)
    assert max(row.finish for row in rows) == total
    assert len(rows) == program.n_rows
    assert np.all([row.free >= row.start for row in rows])
