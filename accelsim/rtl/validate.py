"""A short run of the RTL against the simulator, for users: `validate_rtl`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from accelsim.api import evaluate
from accelsim.arch import Engine, EngineKind, Mode, OutputStage
from accelsim.config import load_accelerator, load_plan
from accelsim.engines import tile_cost
from accelsim.formats import Format
from accelsim.ir import Loop
from accelsim.kernels.alloc import overlap_lists
from accelsim.kernels.schedule import schedule
from accelsim.program import LATENCY, LEAD, N_COLUMNS, OCCUPANCY, OPENS, READ0, UNIT, WRITE, Int64, Program
from accelsim.rtl.engine import build_engine, run_tiles
from accelsim.rtl.sequencer import SequencerSize, build_sequencer, run_programs
from accelsim.rtl.tiles import lowered_tiles, random_job

QUICK_PROGRAMS, PROGRAMS = 200, 2000
QUICK_TILES, TILES = 60, 300
MODES = (Mode(8, 8, 1), Mode(4, 8, 2))
SMALL_ENGINES = (
    Engine("small multiplier array", EngineKind.MAC_ARRAY, 3, 5, 2, OutputStage(3, 4), MODES, depthwise=True,
           activation_port_bits_per_cycle=32, weight_port_bits_per_cycle=24),
    Engine("small shift-add array", EngineKind.SHIFT_ARRAY, 2, 4, 3, OutputStage(5, 0), terms=2, depthwise=True,
           activation_port_bits_per_cycle=100, weight_port_bits_per_cycle=7),
)  # fmt: skip
Tile = tuple[Loop, Format]
DESIGNS = (("trio_vit", "uniform8"), ("m2vit", "m2q"))


@dataclass(frozen=True)
class RtlCase:
    """One comparison: cycles by the RTL (`reference`) and by the simulator (`ours`), results that differ (`error`)."""

    case: str
    reference: int
    ours: int
    error: int


def pipeline_program(seed: int) -> Program:
    """A random producer-consumer chain of rows over rings of regions, on up to three units and the bus."""
    rng = np.random.default_rng(seed)
    units, ticks, stages = int(rng.integers(2, 5)), int(rng.choice([1, 2, 3])), int(rng.integers(2, 5))
    rings = rng.integers(1, 4, stages)
    base = np.concatenate([[0], np.cumsum(rings)])
    rows = np.zeros((stages, N_COLUMNS), np.int64)
    rows[:, [READ0, READ0 + 3, READ0 + 6, WRITE]] = -1
    for stage, row in enumerate(rows):
        row[UNIT] = rng.integers(0, units)
        scale = 1 if row[UNIT] == units - 1 else ticks
        row[OCCUPANCY] = rng.integers(1, 9) * scale
        row[LATENCY] = row[OCCUPANCY] + rng.integers(0, 5) * scale
        row[LEAD] = 0 if row[UNIT] == units - 1 else rng.integers(0, 8) * scale
        row[WRITE], row[WRITE + 1], row[OPENS] = base[stage], rings[stage], 1
        if stage:
            row[READ0], row[READ0 + 1] = base[stage - 1], rings[stage - 1]
    regions = np.array([[0, 4 * k, 4] for k in range(int(base[-1]))], np.int64)
    phases = np.array([[0, stages, int(rng.integers(1, 12)), 0]], np.int64)
    names = (*(f"u{k}" for k in range(units - 1)), "dram")
    return Program(names, ("op",), ticks, rows, phases, regions, *overlap_lists(regions, np.arange(len(regions))))


def kernel_times(program: Program, images: int = 1) -> Int64:
    """Start, unit free and result usable [rows, 3] in ticks, by the simulation kernel."""
    lists = (program.before_start, program.before, program.wrap_start, program.wrap)
    sizes = (len(program.units), len(program.op_names), program.ticks_per_cycle, images)
    return np.asarray(schedule(program.templates, program.phases, *lists, *sizes, True, None)[-1][:, :3], np.int64)


def random_tile(engine: Engine, seed: int) -> tuple[Loop, Format]:
    """A small tile and a weight format that the engine executes in one pass, every third one depthwise."""
    rng = np.random.default_rng(seed)
    depthwise = engine.depthwise and seed % 3 == 0
    if depthwise:
        tile = Loop(int(rng.integers(2, 20)), int(rng.integers(1, 6)), int(rng.integers(1, 9)), 1, 1, 3, 1)
    else:
        groups, rows, cols, depth = (int(rng.integers(1, limit)) for limit in (4, 13, 12, 20))
        tile = Loop(groups, rows, 1, cols, depth + 1, int(rng.integers(1, 3)), int(rng.integers(1, 3)))
    names = ["u2", "u3", "u4", "u6", "u8"]
    if engine.kind == EngineKind.SHIFT_ARRAY:
        names = [name for name in ("pot3", "pot4", "apot8", "apot12")
                 if not depthwise or Format.parse(name).terms <= engine.terms]  # fmt: skip
    return tile, Format.parse(str(rng.choice(names)))


def compare_tiles(engine: Engine, tiles: list[Tile], executable: Path) -> list[tuple[int, int, bool]]:
    """(latency of the RTL, of the closed form, all equal) of every tile, values included."""
    made = [random_job(tile, weight, n, (0 if n % 2 else -128, 127)) for n, (tile, weight) in enumerate(tiles)]
    found = run_tiles(engine, [[job] for job, _ in made], executable)
    rows = []
    for (job, outputs), (seen,) in zip(made, found.jobs, strict=True):
        cost = tile_cost(engine, job.tile, job.weight, Format.parse("u8"))
        observed = (seen.free - seen.start, seen.finish - seen.start)
        equal = observed == (cost.occupancy_cycles, cost.latency_cycles) and bool((seen.outputs == outputs).all())
        rows.append((observed[1], cost.latency_cycles, equal))
    return rows


def design_tiles(design: str, plan: str, model: str = "efficientvit_b1") -> Iterator[tuple[Engine, list[Tile]]]:
    """Every array engine of a preset with the distinct tiles that the lowered model runs on it."""
    report = evaluate(model, 224, load_accelerator(design), load_plan(plan))
    found = lowered_tiles(report)
    for unit, engine in enumerate(report.accelerator.engines):
        yield engine, list(dict.fromkeys((item.tile, item.weight) for item in found if item.unit == unit))


def _summary(case: str, rows: list[tuple[int, int, bool]]) -> RtlCase:
    return RtlCase(case, sum(row[0] for row in rows), sum(row[1] for row in rows), sum(not row[2] for row in rows))


def validate_rtl(quick: bool = True, folder: Path | None = None) -> list[RtlCase]:
    """Build and run the RTL against the simulator; `error` counts programs or tiles that are not equal in everything.

    Quick: random programs and random tiles on two small engines, under a minute with the build.  Else also every
    distinct tile of EfficientViT-B1 at 224 × 224 on `trio_vit` and `m2vit`.  `folder` keeps the builds (`build.py`).
    AccelsimError without verilator.
    """
    size = SequencerSize()
    programs = [pipeline_program(seed) for seed in range(QUICK_PROGRAMS if quick else PROGRAMS)]
    runs = run_programs([(program, 1) for program in programs], size, build_sequencer(size, folder))
    rows = []
    for program, times in zip(programs, runs.times, strict=True):
        ours = kernel_times(program)
        rows.append((int(times[:, 2].max()), int(ours[:, 2].max()), bool((times == ours).all())))
    cases = [_summary(f"{len(programs)} random programs (ticks)", rows)]
    for engine in SMALL_ENGINES:
        tiles = [random_tile(engine, seed) for seed in range(QUICK_TILES if quick else TILES)]
        found = compare_tiles(engine, tiles, build_engine(engine, folder=folder))
        cases.append(_summary(f"{len(tiles)} random tiles, {engine.name}", found))
    for design, plan in () if quick else DESIGNS:
        for engine, tiles in design_tiles(design, plan):
            found = compare_tiles(engine, tiles, build_engine(engine, folder=folder))
            cases.append(_summary(f"{len(tiles)} tiles of B1-224, {design}.{engine.name}", found))
    return cases
