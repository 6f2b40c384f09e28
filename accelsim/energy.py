"""Price of a simulation: counts and cycles into pJ, mm², W and EDP.  docs/prices.md has the formulas and limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.arch import Accelerator
from accelsim.area import Area, accelerator_area
from accelsim.counts import ENGINE_COUNTS, count_columns
from accelsim.ir import VECTOR_KINDS
from accelsim.parts import Convention
from accelsim.problems import AccelsimError, Problem
from accelsim.sram import buffer_price
from accelsim.technology import load_technology
from accelsim.unit_energy import engine_unit_energies, idle_pj_per_cycle, vector_unit_energies

__all__ = [
    "Convention",
    "ConventionSpread",
    "Price",
    "convention_spread",
    "price",
    "price_per_op",
    "static_pj_per_cycle",
    "unit_energies",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BUFFERS = ("activation_buffer", "weight_buffer")
_ENGINE_COMPONENT = {"outputs": "output_stage", "table_lookups": "output_stage", "accumulates": "accumulate"}


@dataclass(frozen=True)
class Price:
    """Energy, area, time and their products for one image.

    Component names are `<engine>.products | accumulate | output_stage | idle | leakage`, `vector.<kind> | idle |
    leakage`, `activation_buffer.read | write | leakage` (weight_buffer likewise) and `dram.read | write`; the energies
    sum to `energy_pj`.
    """

    convention: Convention
    energy_pj: float
    energy_by_component_pj: Mapping[str, float]
    area_mm2: float
    area_by_component_mm2: Mapping[str, float]
    latency_s: float
    edp_pj_s: float
    power_w: float

    def to_json(self) -> dict[str, Any]:
        """Plain data with the field names."""
        return {
            "convention": str(self.convention),
            "energy_pj": self.energy_pj,
            "energy_by_component_pj": dict(self.energy_by_component_pj),
            "area_mm2": self.area_mm2,
            "area_by_component_mm2": dict(self.area_by_component_mm2),
            "latency_s": self.latency_s,
            "edp_pj_s": self.edp_pj_s,
            "power_w": self.power_w,
        }


@dataclass(frozen=True)
class ConventionSpread:
    """The same run priced under every convention; `energy_ratio` is synthesized over arithmetic energy."""

    arithmetic: Price
    synthesized: Price
    energy_ratio: float


class _Rates:
    """Everything about a design that pricing multiplies with: built once per design and convention."""

    def __init__(self, accelerator: Accelerator, convention: Convention) -> None:
        node_nm, clock_hz = accelerator.node_nm, accelerator.clock_hz
        if clock_hz <= 0:
            raise AccelsimError(Problem("clock_hz", f"is {clock_hz}", "1 or more"))
        self.columns = count_columns(accelerator)
        self.area: Area = accelerator_area(accelerator)
        rates: list[float | None] = []
        for engine in accelerator.engines:
            rates.extend(engine_unit_energies(engine, node_nm, clock_hz, convention))
        rates.extend(vector_unit_energies(node_nm))
        for name in BUFFERS:
            buffer = buffer_price(getattr(accelerator, name), node_nm, clock_hz, name)
            rates.extend((buffer.read_pj_per_bit, buffer.write_pj_per_bit))
        rates.extend((_dram_pj_per_bit(accelerator),) * 2)
        self.priced = np.array([rate is not None for rate in rates])
        self.vector: FloatArray = np.array([rate or 0.0 for rate in rates])
        self.vector.setflags(write=False)
        names = _components(accelerator)
        self.components = tuple(dict.fromkeys(names))
        self.component_of = np.array([self.components.index(name) for name in names])
        self.idle_pj_per_cycle = idle_pj_per_cycle(accelerator)
        self.leakage_mw = _leakage_mw(accelerator, self.area)


def unit_energies(accelerator: Accelerator, convention: Convention = Convention.ARITHMETIC) -> FloatArray:
    """Dynamic energy in pJ of one count of every column, in `count_columns` order (read-only, cached).

    Columns that this design cannot count (modes that it does not have) are 0; `price` refuses counts in them.  Raises
    AccelsimError for unknown nodes, DRAM types and widths, InfeasibleError for a buffer slower than the clock.
    """
    return _rates(accelerator, convention).vector


def static_pj_per_cycle(accelerator: Accelerator) -> tuple[dict[str, float], float]:
    """(idle energy of a cycle in which a unit is not busy, by unit; leakage of any cycle), in pJ; raises as above."""
    rates = _rates(accelerator, Convention.ARITHMETIC)
    leakage_pj = sum(rates.leakage_mw.values()) * 1e9 / accelerator.clock_hz
    return rates.idle_pj_per_cycle, leakage_pj


def price(
    totals: IntArray,
    cycles_total: int,
    busy_cycles: Mapping[str, int],
    accelerator: Accelerator,
    convention: Convention = Convention.ARITHMETIC,
) -> Price:
    """Price a simulated run.

    `totals` is the int64 vector of counts in `count_columns(accelerator)` order; `busy_cycles` has every engine by
    name and "vector" ("dram" may be there: it has no idle energy).  The dynamic energy is `totals @ unit_energies`;
    idle clock energy runs while a unit is not busy and leakage all the time.  Raises AccelsimError for counts or
    cycles that cannot belong to the design, InfeasibleError for a buffer slower than the clock.
    """
    rates = _rates(accelerator, convention)
    counts = np.asarray(totals)
    if counts.shape != rates.vector.shape:
        raise _count_problem(f"has shape {counts.shape}", f"{len(rates.columns)} counts")
    _check_counts(counts[np.newaxis], rates)
    _check_cycles(cycles_total, busy_cycles, rates)
    dynamic = np.bincount(rates.component_of, counts * rates.vector, len(rates.components))
    energy = dict(zip(rates.components, dynamic.tolist(), strict=True))
    latency_s = cycles_total / accelerator.clock_hz
    for unit, idle in rates.idle_pj_per_cycle.items():
        energy[f"{unit}.idle"] = idle * (cycles_total - busy_cycles[unit])
    for unit, leakage_mw in rates.leakage_mw.items():
        energy[f"{unit}.leakage"] = leakage_mw * latency_s * 1e9  # mW · s = mJ = 1e9 pJ
    total = sum(energy.values())
    return Price(
        convention,
        total,
        energy,
        rates.area.total_mm2,
        dict(rates.area.by_component_mm2),
        latency_s,
        total * latency_s,
        total * 1e-12 / latency_s,
    )


def price_per_op(
    counts: IntArray, accelerator: Accelerator, convention: Convention = Convention.ARITHMETIC
) -> FloatArray:
    """Dynamic energy in pJ of every row of `counts` [n_ops, n_columns]: one matrix product, shape [n_ops].

    Idle and leakage energy belong to the whole run, not to an op.  Raises AccelsimError as `price` does.
    """
    rates = _rates(accelerator, convention)
    table = np.asarray(counts)
    if table.ndim != 2 or table.shape[1] != len(rates.columns):
        raise _count_problem(f"has shape {table.shape}", f"[n_ops, {len(rates.columns)}]")
    _check_counts(table, rates)
    return np.asarray(table @ rates.vector, dtype=np.float64)


def convention_spread(
    totals: IntArray, cycles_total: int, busy_cycles: Mapping[str, int], accelerator: Accelerator
) -> ConventionSpread:
    """Price one run under both conventions, to report how far the answer hangs on the choice.  Raises as `price`."""
    arithmetic = price(totals, cycles_total, busy_cycles, accelerator, Convention.ARITHMETIC)
    synthesized = price(totals, cycles_total, busy_cycles, accelerator, Convention.SYNTHESIZED)
    return ConventionSpread(arithmetic, synthesized, synthesized.energy_pj / arithmetic.energy_pj)


@lru_cache(maxsize=4096)
def _rates(accelerator: Accelerator, convention: Convention) -> _Rates:
    return _Rates(accelerator, convention)


def _components(accelerator: Accelerator) -> list[str]:
    """Component name of every count column."""
    names = [
        f"{engine.name}.{_ENGINE_COMPONENT.get(event, 'products')}"
        for engine in accelerator.engines
        for event in ENGINE_COUNTS
    ]
    names += [f"vector.{kind}" for kind in VECTOR_KINDS]
    return names + [f"{memory}.{access}" for memory in (*BUFFERS, "dram") for access in ("read", "write")]


def _dram_pj_per_bit(accelerator: Accelerator) -> float:
    table = load_technology(accelerator.node_nm).dram_pj_per_bit
    if accelerator.dram.type not in table:
        raise AccelsimError(
            Problem("dram.type", f"no energy for {accelerator.dram.type!r}", ", ".join(table), tuple(table))
        )
    return table[accelerator.dram.type].value


def _leakage_mw(accelerator: Accelerator, area: Area) -> dict[str, float]:
    """Leakage power of every engine, the vector unit and the buffers: always on, power gating is not modelled."""
    density = load_technology(accelerator.node_nm).value("leakage.logic_mw_per_mm2")
    leakage = {}
    for unit in (*(engine.name for engine in accelerator.engines), "vector"):
        parts = area.by_component_mm2.items()
        leakage[unit] = density * sum(mm2 for name, mm2 in parts if name.split(".")[0] == unit)
    for name in BUFFERS:
        buffer = buffer_price(getattr(accelerator, name), accelerator.node_nm, accelerator.clock_hz, name)
        leakage[name] = buffer.leakage_mw
    return leakage


def _check_counts(counts: IntArray, rates: _Rates) -> None:
    if not np.issubdtype(counts.dtype, np.integer):
        raise _count_problem(f"are {counts.dtype}", "integers")
    bad = (counts < 0).any(axis=0) | (~rates.priced & (counts != 0).any(axis=0))
    if bad.any():
        names = ", ".join(np.array(rates.columns)[bad])
        raise _count_problem(f"are negative or of a mode that the design does not have: {names}", "counts of its modes")


def _count_problem(what: str, expected: str) -> AccelsimError:
    return AccelsimError(Problem("counts", what, expected))


def _check_cycles(cycles_total: int, busy_cycles: Mapping[str, int], rates: _Rates) -> None:
    if cycles_total <= 0:
        raise AccelsimError(Problem("cycles_total", f"is {cycles_total}", "1 or more"))
    known = {*rates.idle_pj_per_cycle, "dram"}
    missing = sorted(set(rates.idle_pj_per_cycle) - set(busy_cycles))
    unknown = sorted(set(busy_cycles) - known)
    if missing or unknown:
        what = f"lacks {missing} and has unknown {unknown}"
        raise AccelsimError(Problem("busy_cycles", what, ", ".join(sorted(known))))
    for unit, busy in busy_cycles.items():
        if not 0 <= busy <= cycles_total:
            raise AccelsimError(Problem(f"busy_cycles.{unit}", f"is {busy}", f"0 … {cycles_total}"))
