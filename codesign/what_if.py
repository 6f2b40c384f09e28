"""What a change of the hardware would do, estimated from the run of one design: a busy unit is worth making faster.

A design is reduced to busy shares of its units.  A change multiplies the busy time of the units that it concerns; the
time of the design follows the units by a norm between their sum and their maximum, plus the time in which no unit
limits.  Energy changes by what burns over time (clocks of idle units, leakage) and by DRAM traffic, area by the parts
that grow.  These are estimates to rank proposals with: what is proposed is simulated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from accelsim.arch import Accelerator
from accelsim.area import accelerator_area
from accelsim.counts import count_columns
from accelsim.problems import AccelsimError
from codesign.searchers.registry import Floats
from codesign.space import PREFIX

BUS, VECTOR = "dram", "vector"
# Order of the norm that makes a time of busy units: they overlap, but not wholly.
OVERLAP = 4.0
# Traffic and waits for space fall with this power of a buffer's capacity.
BUFFER_POWER = 0.25
# Busy share of a unit that a design was not simulated with.
UNKNOWN_SHARE = 0.5
TINY = 1e-9
_ENGINE_FIELDS = {"lanes": "size", "lane_width": "size", "pixel_groups": "size", "outputs_per_cycle": "outputs"}
_ENGINE_PARAMETERS = {"lanes": "size", "width": "size", "groups": "size", "outputs": "outputs"}
_BUS = re.compile(r"(dram\.)?(bandwidth_bits_per_s|channels)")
_BUFFER = re.compile(r"(activation|weight)_buffer(_bits|\.capacity_bits)")
_VECTOR = re.compile(r"vector(_lanes|\.\w+_per_cycle)")


class Role(NamedTuple):
    """What an axis scales: `size` or `outputs` of an engine, `bus`, `buffer`, `vector` (all of a `unit`), `clock`."""

    kind: str
    unit: str = ""


class Change(NamedTuple):
    """A role and new value / old value (0: the engine is left out)."""

    role: Role
    ratio: float


@dataclass(frozen=True)
class State:
    """A simulated design: busy shares of its units (of the time in cycles), and where area and energy are.

    `shares` [units] in the order of `units`; `drains` is the part of an engine's busy time that its output stage needs
    at least.  `area` and `leakage` are shares of the total by part (unit, buffer, or `UNIT.output_stage`), `static` is
    the share of the energy that grows with time, `traffic` that of the DRAM.
    """

    units: tuple[str, ...]
    shares: Floats
    drains: Mapping[str, float]
    area: Mapping[str, float]
    leakage: Mapping[str, float]
    static: float
    traffic: float


def role_of(axis: str, units: Sequence[str]) -> Role | None:
    """What an axis of a space scales, field of a design or parameter of a template; None when it is not known.

    `units` are the names of `State.units`, engines first.
    """
    if not axis.startswith(PREFIX):
        return None
    field = axis.removeprefix(PREFIX)
    parts = field.split(".")
    if parts[0] == "engines" and len(parts) > 2 and parts[-1] in _ENGINE_FIELDS:
        unit = units[int(parts[1])] if parts[1].isdecimal() and int(parts[1]) < len(units) else parts[1]
        return Role(_ENGINE_FIELDS[parts[-1]], unit)
    if _BUS.fullmatch(field):
        return Role("bus", BUS)
    if buffer := _BUFFER.fullmatch(field):
        return Role("buffer", f"{buffer[1]}_buffer")
    if _VECTOR.fullmatch(field):
        return Role("vector", VECTOR)
    if field == "clock_hz":
        return Role("clock")
    prefix, _, parameter = field.rpartition("_")
    return Role(_ENGINE_PARAMETERS[parameter], prefix) if prefix and parameter in _ENGINE_PARAMETERS else None


def state_of(accelerator: Accelerator, outcome: Mapping[str, Any]) -> State:
    """The state of a design from its stored outcome; one that was not simulated has equal shares."""
    units = (*(engine.name for engine in accelerator.engines), VECTOR, BUS)
    busy, cycles = outcome.get("busy_cycles") or {}, outcome.get("cycles") or 0
    shares = [min(1.0, busy.get(unit, 0) / cycles) if cycles else UNKNOWN_SHARE for unit in units]
    energy, total_pj = outcome.get("energy_by_component_pj") or {}, outcome.get("energy_pj") or 0.0
    of_energy = {name: pj / total_pj for name, pj in energy.items()} if total_pj else {}
    leakage: dict[str, float] = {}
    for name, share in of_energy.items():
        unit, _, what = name.rpartition(".")
        if what == "leakage":
            leakage[unit] = share
    return State(
        units,
        np.array(shares),
        _drains(accelerator, outcome, busy),
        _area_shares(accelerator),
        leakage,
        sum(share for name, share in of_energy.items() if name.endswith((".leakage", ".idle"))),
        sum(share for name, share in of_energy.items() if name.startswith(BUS)),
    )


def _drains(accelerator: Accelerator, outcome: Mapping[str, Any], busy: Mapping[str, int]) -> dict[str, float]:
    """Results ÷ results per cycle ÷ busy cycles of every engine."""
    columns, counts = count_columns(accelerator), outcome.get("counts") or ()
    if len(columns) != len(counts):
        return {}
    named = dict(zip(columns, counts, strict=True))
    found = {}
    for engine in accelerator.engines:
        cycles = named.get(f"{engine.name}.outputs", 0) / engine.output_stage.outputs_per_cycle
        found[engine.name] = min(1.0, cycles / max(1, busy.get(engine.name, 0)))
    return found


def _area_shares(accelerator: Accelerator) -> dict[str, float]:
    """Area by unit or buffer, and by output stage, as shares of the total; empty when it has no area."""
    try:
        area = accelerator_area(accelerator)
    except AccelsimError:
        return {}
    shares: dict[str, float] = {}
    for name, mm2 in area.by_component_mm2.items():
        part = name if name.endswith(".output_stage") else name.partition(".")[0]
        shares[part] = shares.get(part, 0.0) + mm2 / area.total_mm2
    return shares


@dataclass(frozen=True)
class Effects:
    """Of n changes: factors of the units' busy time [n, units] and of the time without any, and additions [n].

    `area` and `leakage` are in shares of the design's total, `traffic` and `clock` logarithms of their factors.
    """

    busy: Floats
    slack: Floats
    area: Floats
    leakage: Floats
    traffic: Floats
    clock: Floats

    def both(self, first: Any, second: Any) -> Effects:
        """Changes `first[k]` and `second[k]` together."""
        return Effects(
            self.busy[first] * self.busy[second],
            self.slack[first] * self.slack[second],
            self.area[first] + self.area[second],
            self.leakage[first] + self.leakage[second],
            self.traffic[first] + self.traffic[second],
            self.clock[first] + self.clock[second],
        )


def effects(state: State, changes: Sequence[Change | None]) -> Effects:
    """What each change does by itself; None does nothing."""
    n = len(changes)
    found = Effects(np.ones((n, len(state.units))), np.ones(n), *(np.zeros(n) for _ in range(4)))
    for row, change in enumerate(changes):
        if change is not None:
            _apply(state, change, found, row)
    return found


def _apply(state: State, change: Change, found: Effects, row: int) -> None:
    (kind, unit), ratio = change
    column = state.units.index(unit) if unit in state.units else -1
    part = f"{unit}.output_stage" if kind == "outputs" else unit
    found.area[row] = state.area.get(part, 0.0) * (ratio - 1.0)
    if unit != BUS and kind != "outputs":
        found.leakage[row] = state.leakage.get(unit, 0.0) * (ratio - 1.0)
    if ratio <= 0.0:
        found.area[row] -= state.area.get(f"{unit}.output_stage", 0.0)
        return
    if kind == "size" and column >= 0:
        # A larger array is of no use beyond what its output stage drains.
        found.busy[row, column] = max(1.0 / ratio, min(1.0, state.drains.get(unit, 0.0)))
    elif kind == "outputs" and column >= 0:
        drain = state.drains.get(unit, 0.0)
        found.busy[row, column] = (1.0 - drain) + drain / ratio if ratio > 1.0 else max(1.0, drain / ratio)
    elif kind in ("bus", "vector"):
        found.busy[row, column] = 1.0 / ratio
    elif kind == "buffer":
        factor = ratio**-BUFFER_POWER
        found.busy[row, state.units.index(BUS)] = found.slack[row] = factor
        found.traffic[row] = math.log(factor)
    elif kind == "clock":
        found.busy[row, state.units.index(BUS)] = ratio
        found.clock[row] = math.log(ratio)


def predicted(state: State, changed: Effects) -> dict[str, Floats]:
    """Logarithm of new / old [n] of time, energy and area, by the metrics' names."""
    slack = max(0.0, 1.0 - float(state.shares.max()))
    old = max(TINY, float((state.shares**OVERLAP).sum()) ** (1 / OVERLAP))
    new = ((state.shares * changed.busy) ** OVERLAP).sum(axis=1) ** (1 / OVERLAP)
    cycles = np.log(slack * changed.slack + (1.0 - slack) * new / old + TINY)
    time = cycles - changed.clock
    energy = np.log(np.maximum(TINY, 1.0 + state.static * np.expm1(time) + changed.leakage * np.exp(time)
                               + state.traffic * np.expm1(changed.traffic)))  # fmt: skip
    area = np.log(np.maximum(TINY, 1.0 + changed.area))
    found = {"cycles": cycles, "latency_s": time, "area_mm2": area, "power_w": energy - time}
    for suffix in ("", "_synthesized"):
        found |= {f"energy_pj{suffix}": energy, f"edp_pj_s{suffix}": energy + time}
    return {**found, "dram_read_bits": changed.traffic, "dram_write_bits": changed.traffic}
