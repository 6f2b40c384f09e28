"""The exhaustive mapper: the optimum of a declared space, simulated, or the heuristic mapping if that is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from accelsim.arch import Accelerator
from accelsim.energy import price
from accelsim.lowering import DoesNotFitError, Lowered, lower
from accelsim.mappers.chain_ways import FJ_PER_PJ, mapping_of, prepare, ways_of
from accelsim.mappers.choice import EXHAUSTIVE, HEURISTIC, OBJECTIVES
from accelsim.mappers.heuristic import map_and_lower
from accelsim.mappers.memo import Memo
from accelsim.mappers.paths import Network, Path
from accelsim.mapping import MappingArrays
from accelsim.optable import EngineTable, OpTable, engine_table
from accelsim.problems import AccelsimError, InfeasibleError, Problem
from accelsim.result import run_program

# Images simulated when the interval between images counts.
STEADY_IMAGES = 4
# Paths that are simulated: those beside the optimum of an objective may be better when simulated.
SIMULATED = 4
# When regions that fit by sum cannot be placed: this share of the capacity is tried next, so many times.
_SHRINK, _SHRINKS = (31, 32), 16

_memo = Memo()


@dataclass(frozen=True, eq=False)
class Candidate:
    """A mapping and its exact figures of one image.

    `cycles` is the latency, or the interval between images if a steady state was asked for.
    """

    origin: str
    arrays: MappingArrays
    lowered: Lowered
    cycles: float
    energy_pj: float

    def value(self, objective: str) -> float:
        """What an objective minimizes: cycles, picojoules, or picojoules × cycles."""
        return {"latency": self.cycles, "energy": self.energy_pj, "edp": self.energy_pj * self.cycles}[objective]


@dataclass(frozen=True, eq=False)
class Found:
    """What the search of a design gave: the objective's own optimum, and what came of simulating it.

    `optimum` (in the unit of `Candidate.value`) is over the whole declared space, None when nothing in it fits.
    `placed_capacity_bits` is less than the buffer when regions that fit by sum could not be placed.
    """

    objective: str
    engines: EngineTable
    optimum: float | None
    exhaustive: Candidate | None
    heuristic: Candidate | None
    kept: Candidate
    placed_capacity_bits: int

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, for reports."""
        data: dict[str, Any] = {
            "objective": self.objective,
            "optimum_of_objective": self.optimum,
            "kept": self.kept.origin,
            "placed_capacity_bits": self.placed_capacity_bits,
        }
        for one in (self.exhaustive, self.heuristic):
            if one is not None:
                data[one.origin] = {
                    "cycles": one.cycles,
                    "energy_pj": one.energy_pj,
                    "value": one.value(self.objective),
                }
        return data


def find_mapping(
    table: OpTable,
    accelerator: Accelerator,
    objective: str = "latency",
    steady: bool = False,
    memo: Memo | None = None,
) -> Found:
    """The best mapping of a design under an objective: exhaustive or heuristic, whichever simulates better.

    `steady` compares by the interval between images instead of the latency of one.  `memo` is shared by all searches
    of this process unless one is given.  Raises InfeasibleError when neither finds a mapping, AccelsimError for an
    unknown objective.
    """
    if objective not in OBJECTIVES:
        raise AccelsimError(Problem("objective", f"unknown {objective!r}", " or ".join(OBJECTIVES)))
    heuristic, refusal = _heuristic(table, accelerator, steady)
    network = _network(table, accelerator, objective != "latency", memo)
    capacity = accelerator.activation_buffer.capacity_bits
    paths = network.least(objective, capacity)
    tried = [one for path in paths[:SIMULATED] if (one := _placed(network, path, steady)) is not None]
    exhaustive, placed = None, capacity
    if tried:
        exhaustive, placed = min(tried, key=lambda one: one[0].value(objective))
    there = [one for one in (exhaustive, heuristic) if one is not None]
    if not there:
        assert refusal is not None
        raise refusal
    kept = min(there, key=lambda one: one.value(objective))
    optimum = _optimum(paths[0], accelerator, objective) if paths else None
    return Found(objective, network.search.engines, optimum, exhaustive, heuristic, kept, placed)


def find_front(
    table: OpTable, accelerator: Accelerator, steady: bool = False, memo: Memo | None = None
) -> list[Candidate]:
    """Those of `try_front` that `not_beaten` leaves.  Raises as `find_mapping` does."""
    return not_beaten(try_front(table, accelerator, steady, memo))


def try_front(
    table: OpTable, accelerator: Accelerator, steady: bool = False, memo: Memo | None = None
) -> list[Candidate]:
    """Mappings of one design, simulated: among them all that `find_mapping` simulates for any objective.

    They are the corners of the lower hull of time and energy over the declared space, the paths of least latency, and
    the heuristic mapping.  A mapping whose regions cannot be placed is left out.  Raises as `find_mapping` does.
    """
    heuristic, refusal = _heuristic(table, accelerator, steady)
    tried = [] if heuristic is None else [heuristic]
    for objective in ("front", "latency"):
        network = _network(table, accelerator, objective == "front", memo)
        for path in network.least(objective, accelerator.activation_buffer.capacity_bits):
            placed = _placed(network, path, steady)
            tried += [] if placed is None else [placed[0]]
    if not tried:
        assert refusal is not None
        raise refusal
    return tried


def _network(table: OpTable, accelerator: Accelerator, with_energy: bool, memo: Memo | None) -> Network:
    search = prepare(table, engine_table(accelerator, table), accelerator, with_energy, memo or _memo)
    return Network(search, [ways_of(search, start) for start in search.space.starts])


def not_beaten(tried: Sequence[Candidate]) -> list[Candidate]:
    """Mappings of which none is at least as fast and as frugal as another, fastest first."""
    front: list[Candidate] = []
    for one in sorted(tried, key=lambda one: (one.cycles, one.energy_pj)):
        if not front or one.energy_pj < front[-1].energy_pj:
            front.append(one)
    return front


def _heuristic(
    table: OpTable, accelerator: Accelerator, steady: bool
) -> tuple[Candidate | None, InfeasibleError | None]:
    try:
        arrays, _, lowered = map_and_lower(table, accelerator)
    except InfeasibleError as error:
        return None, error
    return _simulated(HEURISTIC, arrays, lowered, accelerator, steady), None


def _simulated(
    origin: str, arrays: MappingArrays, lowered: Lowered, accelerator: Accelerator, steady: bool
) -> Candidate:
    result = run_program(lowered)
    totals = np.asarray(result.counts.sum(axis=0), np.int64)
    energy_pj = price(totals, result.cycles_total, result.busy_cycles(), accelerator).energy_pj
    cycles = float(result.cycles_total)
    if steady:
        cycles = float(run_program(lowered, STEADY_IMAGES).initiation_interval_cycles)
    return Candidate(origin, arrays, lowered, cycles, energy_pj)


def _placed(network: Network, path: Path, steady: bool) -> tuple[Candidate, int] | None:
    """A path as a simulated mapping, and the capacity it was found for; None when its regions cannot be placed.

    The search adds up what is alive; placing regions at fixed addresses may need more.  Then the same objective is
    searched with a slightly smaller buffer.
    """
    search = network.search
    current: Path | None = path
    for _ in range(_SHRINKS):
        if current is None:
            return None
        arrays = mapping_of(search, network.found, current.steps)
        try:
            lowered = lower(search.table, search.engines, search.accelerator, arrays)
        except DoesNotFitError:
            smaller = current.capacity_bits * _SHRINK[0] // _SHRINK[1]
            current = network.shortest(*current.weights, smaller)
            continue
        candidate = _simulated(EXHAUSTIVE, arrays, lowered, search.accelerator, steady)
        return candidate, current.capacity_bits
    return None


def _optimum(path: Path, accelerator: Accelerator, objective: str) -> float:
    cycles = path.ticks / accelerator.bus_ticks().per_cycle
    energy_pj = path.energy_fj / FJ_PER_PJ
    return {"latency": cycles, "energy": energy_pj, "edp": energy_pj * cycles}[objective]
