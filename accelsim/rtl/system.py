"""One machine of sequencer, array engine, two operand memories and bus: a double-buffered run of equal tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from accelsim.arch import Engine
from accelsim.engines import tile_cost
from accelsim.formats import Format
from accelsim.kernels.alloc import overlap_lists
from accelsim.problems import AccelsimError, Problem
from accelsim.program import LATENCY, LEAD, N_COLUMNS, OCCUPANCY, OPENS, READ0, UNIT, WRITE, Int64, Program
from accelsim.rtl.build import build, run
from accelsim.rtl.engine import (
    CHANNEL_BITS,
    TILE_BITS,
    TileJob,
    buffer_lines,
    channel_blocks,
    channel_entries,
    check_room,
    descriptor,
    lead_cycles,
    outputs,
    result_slots,
)
from accelsim.rtl.engine import MODULES as ENGINE_MODULES
from accelsim.rtl.sequencer import SequencerSize, instruction_words, instructions

MODULES = ("sequencer_pkg", "semaphores", "sequencer", "timed_unit", *ENGINE_MODULES, "engine_port", "system_top")
SIZE = SequencerSize(n_units=2, n_rows=256, n_waits=8, n_semaphores=64)
FIRST_BEAT_CYCLES = 5
ENGINE, BUS = 0, 1
_IN, _WEIGHT, _OUT = 0, 2, 4  # first of the two regions of each


@dataclass(frozen=True, eq=False)
class SystemRun:
    """Row times [rows, 3] in program order, and the outputs of every tile."""

    times: Int64
    outputs: list[Int64]


def system_program(engine: Engine, jobs: Sequence[TileJob], lines: tuple[int, int]) -> Program:
    """Load inputs, load weights, compute, store of every tile, two regions each, one line per bus cycle.

    `lines` of activations and weights per tile.  Stores stand behind the loads of the next tile.
    """
    rows = []
    for n, job in enumerate(jobs):
        cost = tile_cost(engine, job.tile, job.weight, Format.parse("u8"))
        slot = n % 2
        for region, count in zip((_IN, _WEIGHT), lines, strict=True):
            rows.append(_row(BUS, count, count + FIRST_BEAT_CYCLES, (), region + slot))
        reads = (_IN + slot, _WEIGHT + slot)
        rows.append(_row(ENGINE, cost.occupancy_cycles, cost.latency_cycles, reads, _OUT + slot))
        rows[-1][LEAD] = lead_cycles(engine, job) + engine.pipeline_cycles
        if n:
            rows.append(_row(BUS, 3, 3, (_OUT + 1 - slot,), -1))
    rows.append(_row(BUS, 3, 3, (_OUT + (len(jobs) - 1) % 2,), -1))
    sizes = (lines[0], lines[0], lines[1], lines[1], 1, 1)
    regions = np.array([[k // 2 == 1, 1000 * k, size] for k, size in enumerate(sizes)], np.int64)
    phases = np.array([[k, 1, 1, 0] for k in range(len(rows))], np.int64)
    lists = overlap_lists(regions, np.arange(len(regions)))
    return Program((engine.name, "dram"), ("tile",), 1, np.array(rows, np.int64), phases, regions, *lists)


def _row(unit: int, occupancy: int, latency: int, reads: tuple[int, ...], write: int) -> Int64:
    row = np.zeros(N_COLUMNS, np.int64)
    row[[READ0, READ0 + 3, READ0 + 6, WRITE]] = -1
    row[[UNIT, OCCUPANCY, LATENCY, WRITE, WRITE + 1, OPENS]] = unit, occupancy, latency, write, 1, write >= 0
    for k, region in enumerate(reads):
        row[READ0 + 3 * k], row[READ0 + 3 * k + 1] = region, 1
    return row


def build_system(engine: Engine, folder: Path | None = None) -> Path:
    """The simulation of `system_top` with this engine (a multiplier array with two modes and depthwise)."""
    ports = (engine.activation_port_bits_per_cycle, engine.weight_port_bits_per_cycle)
    outputs_per_cycle = engine.output_stage.outputs_per_cycle
    parameters = {
        "LANES": engine.lanes, "LANE_WIDTH": engine.lane_width, "PIXEL_GROUPS": engine.pixel_groups,
        "ACTIVATION_PORT": ports[0], "WEIGHT_PORT": ports[1], "OUTPUTS_PER_CYCLE": outputs_per_cycle,
        "OUTPUT_LATENCY": engine.output_stage.latency_cycles, "N_ROWS": SIZE.n_rows, "N_WAITS": SIZE.n_waits,
        "N_SEMAPHORES": SIZE.n_semaphores, "SLOTS": SIZE.slots,
    }  # fmt: skip
    constants = {
        "ACTIVATION_PORT": ports[0], "WEIGHT_PORT": ports[1], "OUTPUTS_PER_CYCLE": outputs_per_cycle,
        "TILE_BITS": TILE_BITS, "CHANNEL_BITS": CHANNEL_BITS, "INSTRUCTION_BITS": SIZE.instruction_bits,
        "NUMBER_BITS": (SIZE.n_rows - 1).bit_length() + 1,
    }  # fmt: skip
    return build("system_top", MODULES, parameters, constants, folder)


def run_system(engine: Engine, jobs: Sequence[TileJob], executable: Path) -> tuple[Program, SystemRun]:
    """Run tiles of one shape through the machine; the program that it ran, row times and outputs.

    Raises AccelsimError when the tiles do not fit, and on a hardware fault: an accumulator bank overwritten, or too
    many rows in flight.
    """
    lines = [buffer_lines(engine, job) for job in jobs]
    sizes = (len(lines[0][0]), len(lines[0][1]))
    check_room(engine, 2 * max(sizes), len(jobs) * channel_blocks(engine, jobs[0]))
    program = system_program(engine, jobs, sizes)
    queues, n_semaphores = instructions(program)
    SIZE.check(queues, n_semaphores)
    numbers = [len(jobs)]
    for n, (item, job) in enumerate(zip(queues[ENGINE], jobs, strict=True)):
        numbers += instruction_words(item, SIZE)
        bases = (n % 2 * sizes[0], n % 2 * sizes[1], n * channel_blocks(engine, job))
        numbers += descriptor(engine, job, bases).tolist()
    numbers.append(len(queues[BUS]))
    loads = 0
    for item in queues[BUS]:
        numbers += instruction_words(item, SIZE)
        if not item.finishes:
            numbers += [item.latency, 0, 0, 0]
            continue
        tile, memory = divmod(loads, 2)
        loads += 1
        data = lines[tile][memory]
        numbers += [item.latency, memory + 1, tile % 2 * sizes[memory], len(data), *data.ravel().tolist()]
    tables = [channel_entries(engine, job, n * channel_blocks(engine, job)) for n, job in enumerate(jobs)]
    entries = np.concatenate(tables)
    numbers += [len(entries), *entries.ravel().tolist()]
    output, _, _ = run(executable, np.array(numbers, np.int64))
    if output[0]:
        raise AccelsimError(Problem("rtl system", "fault" if output[0] == 1 else "does not end"))
    order = [item.number for queue in queues for item in queue]
    times = np.zeros((len(order), 3), np.int64)
    times[order] = output[1 : 1 + 3 * len(order)].reshape(-1, 3)
    slots = output[1 + 3 * len(order) :].reshape(len(jobs), result_slots(engine, jobs[0]), 2)
    return program, SystemRun(times, [outputs(engine, job, mine) for job, mine in zip(jobs, slots, strict=True)])
