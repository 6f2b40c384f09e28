"""The ablation: where an EDP saving of mixed precision and mixed scheme comes from, step by step, on equal terms.

Every step is simulated at equal slots and at equal area of the array engines; buffers, bandwidth, clock, node, vector
unit and output stages are those of the baseline.  Nothing is fitted to the published figure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from accelsim.api import Report, simulate
from accelsim.arch import Accelerator, Dram, Engine, EngineKind, Mode
from accelsim.area import engine_area_mm2, pe_ratio
from accelsim.config import load_accelerator, load_plan
from accelsim.counts import ENGINE_COUNTS
from accelsim.energy import Convention, Price
from accelsim.optable import OpTable, op_table
from accelsim.problems import AccelsimError, Problem
from accelsim.technology import load_technology
from accelsim.unit_energy import engine_unit_energies
from accelsim.workloads.registry import build_workload

Network = tuple[str, int]
# The networks of Trio-ViT's accuracy table, the probable average of M²-ViT's abstract.
NETWORKS: tuple[Network, ...] = (
    ("efficientvit_b1", 224), ("efficientvit_b1", 256), ("efficientvit_b1", 288), ("efficientvit_b2", 224),
)  # fmt: skip
# Average EDP saving in the abstract of M²-ViT (arXiv 2410.09113); its tables and designs are not published.
PUBLISHED_SAVING = 0.80
BASES = ("slots", "area")
BASELINE = "uniform8"
LAST_STEP = "fusion"
OTHER_GROUPS = range(16, 25, 2)
# 45 nm, µm²: multiply and adds as in Horowitz (ISSCC 2014) and Dally's tutorial after it; shift from ShiftAddNet
# (NeurIPS 2020), which is secondary.
LITERATURE_UM2 = {"multiply_8x8": 282.0, "shift_8": 34.0, "add_8": 36.0, "add_32": 137.0}
# No wait for DRAM can be left: one image crosses such a bus in a few cycles.
ENDLESS_BITS_PER_S = 10**15
SPLIT_MODES = (Mode(4, 8, 2), Mode(8, 8, 1))


@dataclass(frozen=True)
class Step:
    """A row of the ablation: a design under a plan, with or without fusion; `ladder` rows build on each other."""

    name: str
    label: str
    design: str
    plan: str
    fuse: bool
    ladder: bool = False


STEPS = (
    Step(BASELINE, "uniform-8 baseline", "uniform8", "uniform8", False, True),
    Step("depthwise4", "+ 4-bit depthwise", "split", "m2q:0.0", False, True),
    Step("shift", "+ shift engine, mixed filters", "shift", "m2q", False, True),
    Step(LAST_STEP, "+ fusion and pipelining", "shift", "m2q", True, True),
    Step("uniform8_fused", "uniform-8", "uniform8", "uniform8", True),
    Step("multipliers_fused", "4-bit depthwise, two multiplier engines", "split", "m2q:0.0", True),
    Step("one_array_fused", "4-bit depthwise, one multiplier engine", "one_array", "m2q:0.0", True),
    Step("uniform6_fused", "uniform-6 (8×6 multipliers)", "uniform6", "w6a8_attn6", True),
    Step("uniform4_fused", "uniform-4 (8×4 multipliers)", "uniform4", "w4a8_attn4", True),
)


@dataclass(frozen=True)
class Design:
    """How a design is made from a preset: `change` its engines, then set the pixel groups of the `grown` ones."""

    preset: str
    change: Callable[[Engine], Engine | None]
    grown: tuple[str, ...]


def _split(engine: Engine) -> Engine:
    return replace(engine, modes=SPLIT_MODES) if engine.depthwise else engine


def _narrow(bits: int) -> Callable[[Engine], Engine]:
    """Multipliers of 8 × bits; either operand may be the narrow one."""
    return lambda engine: replace(engine, modes=(Mode(bits, 8), Mode(8, bits)))


def _only_multipliers(engine: Engine) -> Engine | None:
    """The multiplier engine alone, with the slots and the output stage of both."""
    if engine.kind == EngineKind.SHIFT_ARRAY:
        return None
    stage = replace(engine.output_stage, outputs_per_cycle=2 * engine.output_stage.outputs_per_cycle)
    return replace(engine, pixel_groups=2 * engine.pixel_groups, output_stage=stage)


DESIGNS: Mapping[str, Design] = {
    "uniform8": Design("trio_vit", lambda engine: engine, ()),
    "split": Design("trio_vit", _split, ("mat",)),
    "shift": Design("m2vit", lambda engine: engine, ("shift",)),
    "one_array": Design("m2vit", _only_multipliers, ("mult",)),
    "uniform6": Design("trio_vit", _narrow(6), ("mat", "rmac")),
    "uniform4": Design("trio_vit", _narrow(4), ("mat", "rmac")),
}


def engines_mm2(accelerator: Accelerator) -> float:
    """Area of all array engines in mm²."""
    return sum(sum(engine_area_mm2(engine, accelerator.node_nm).values()) for engine in accelerator.engines)


def smallest_group_mm2(accelerator: Accelerator, grown: Sequence[str]) -> float:
    """Area of one more pixel group of the cheapest of the `grown` engines, in mm²."""
    return min(engines_mm2(_with_group(accelerator, name)) for name in grown) - engines_mm2(accelerator)


@cache
def derived(design: str, basis: str) -> Accelerator:
    """A design of the ablation at equal slots or at equal area.

    At equal area the grown engines start at one pixel group each and get groups in turn, the smallest engine first,
    while the array engines together are not larger than the baseline's.
    """
    made = DESIGNS[design]
    accelerator = load_accelerator(made.preset)
    engines = [engine for engine in map(made.change, accelerator.engines) if engine is not None]
    accelerator = accelerator.replace(name=f"{design}_equal_{basis}", engines=tuple(map(_fed, engines)))
    if basis == "slots" or not made.grown:
        return accelerator
    budget = engines_mm2(load_accelerator("trio_vit"))
    accelerator = accelerator.replace(
        engines=tuple(_grouped(engine, 1) if engine.name in made.grown else engine for engine in accelerator.engines)
    )
    while True:
        groups = {engine.name: engine.pixel_groups for engine in accelerator.engines}
        larger = [_with_group(accelerator, name) for name in sorted(made.grown, key=groups.__getitem__)]
        fitting = [one for one in larger if engines_mm2(one) <= budget]
        if not fitting:
            return accelerator
        accelerator = fitting[0]


def _with_group(accelerator: Accelerator, name: str) -> Accelerator:
    engines = (_grouped(one, one.pixel_groups + (one.name == name)) for one in accelerator.engines)
    return accelerator.replace(engines=tuple(engines))


def _grouped(engine: Engine, groups: int) -> Engine:
    return _fed(replace(engine, pixel_groups=groups))


def _fed(engine: Engine) -> Engine:
    """The engine with ports that limit no mode, as wide as in the presets."""
    modes = engine.modes or (Mode(8, 8),)
    dense = engine.lane_width * engine.pixel_groups * max(mode.activation_bits for mode in modes)
    each = engine.slots * max(mode.products * mode.activation_bits for mode in modes)
    weights = engine.lanes * engine.lane_width * max(mode.products * mode.weight_bits for mode in modes)
    return replace(
        engine,
        activation_port_bits_per_cycle=each if engine.depthwise else dense,
        weight_port_bits_per_cycle=weights,
    )


def parse_networks(names: Sequence[str]) -> tuple[Network, ...]:
    """Networks of texts like ``efficientvit_b1:224`` (the default resolution without the number).

    Raises AccelsimError for an unknown model or resolution, and for a network named twice.
    """
    found = []
    for name in names:
        model, _, size = name.partition(":")
        if size and not size.isdecimal():
            raise AccelsimError(Problem(name, f"{size!a} is not a resolution", "MODEL or MODEL:PIXELS", (model,)))
        workload = build_workload(model, int(size) if size else None)
        found.append((model, workload.resolution))
    if len(set(found)) < len(found):
        raise AccelsimError(Problem(" ".join(names), "a network is named twice", "each network once"))
    return tuple(found)


def run_ablation(networks: Sequence[Network] = NETWORKS) -> dict[str, Any]:
    """All designs on all networks as plain data: designs, cells, means and the bounds of arithmetic.

    A saving is 1 − EDP / EDP of the baseline, of the same network and convention.  `free` cells have endless DRAM
    bandwidth (the mapper maps anew) and no DRAM energy.  Raises InfeasibleError when a design cannot run a network.
    """
    cells = []
    for model, resolution in networks:
        tables: dict[str, OpTable] = {}
        for step in STEPS:
            if step.plan not in tables:
                tables[step.plan] = op_table(build_workload(model, resolution), load_plan(step.plan))
        for basis in BASES:
            rows = [_cell(step, basis, tables[step.plan]) for step in STEPS]
            cells += [{"model": model, "resolution": resolution, **row, **_savings(row, rows[0])} for row in rows]
    return {
        "format": "accelsim.ablation/1",
        "networks": [list(network) for network in networks],
        "steps": [
            {"name": s.name, "label": s.label, "plan": s.plan, "fuse": s.fuse, "ladder": s.ladder} for s in STEPS
        ],
        "designs": [design_row(design, basis) for design in DESIGNS for basis in BASES],
        "cells": cells,
        "means": [_mean(step, basis, cells) for basis in BASES for step in STEPS],
        "groups": _other_groups(networks, cells),
        "bounds": bounds(),
        "published_saving": PUBLISHED_SAVING,
    }


def design_row(design: str, basis: str) -> dict[str, Any]:
    """Geometry and area of a derived design, and what is left of the baseline's area (negative: exceeded)."""
    accelerator, budget = derived(design, basis), engines_mm2(load_accelerator("trio_vit"))
    grown = DESIGNS[design].grown
    return {
        "design": design,
        "basis": basis,
        "engines": [
            f"{engine.name} {engine.lanes}×{engine.lane_width}×{engine.pixel_groups}" for engine in accelerator.engines
        ],
        "slots": sum(engine.slots for engine in accelerator.engines),
        "engines_mm2": engines_mm2(accelerator),
        "remainder_mm2": budget - engines_mm2(accelerator),
        "group_mm2": smallest_group_mm2(accelerator, grown) if grown else None,
    }


def _cell(step: Step, basis: str, table: OpTable) -> dict[str, Any]:
    accelerator = derived(step.design, basis)
    assert isinstance(accelerator.dram, Dram)
    endless = accelerator.replace(
        dram=replace(accelerator.dram, bandwidth_bits_per_s=ENDLESS_BITS_PER_S, first_beat_latency_s=0.0)
    )
    report, free = (simulate(table, design, fuse=step.fuse) for design in (accelerator, endless))
    prices, free_prices = report.prices, free.prices
    busy = report.result.busy_cycles()
    cycles = report.result.cycles_total
    return {
        "step": step.name,
        "basis": basis,
        "cycles": cycles,
        "bound_compute_cycles": report.bound.compute_cycles,
        "bound_traffic_cycles": report.bound.traffic_cycles,
        "dram_bits": int(report.totals[-2:].sum()),
        "energy_pj": prices.arithmetic.energy_pj,
        "energy_pj_synthesized": prices.synthesized.energy_pj,
        "edp_pj_s": prices.arithmetic.edp_pj_s,
        "edp_pj_s_synthesized": prices.synthesized.edp_pj_s,
        "dram_share": share(prices.arithmetic, "dram"),
        "dram_share_synthesized": share(prices.synthesized, "dram"),
        "products_share": share(prices.arithmetic, "products"),
        "products_share_synthesized": share(prices.synthesized, "products"),
        "busy": {engine.name: busy[engine.name] / cycles for engine in accelerator.engines},
        "last_engine_barred": barred_share(report),
        "free_cycles": free.result.cycles_total,
        "free_edp_pj_s": _without_dram(free_prices.arithmetic),
        "free_edp_pj_s_synthesized": _without_dram(free_prices.synthesized),
    }


def share(price: Price, part: str) -> float:
    """Share of the energy in components that have `part` as the first or last piece of their name."""
    found = sum(
        pj for name, pj in price.energy_by_component_pj.items() if part in (name.split(".")[0], name.split(".")[-1])
    )
    return found / price.energy_pj


def _without_dram(price: Price) -> float:
    return price.edp_pj_s * (1 - share(price, "dram"))


def barred_share(report: Report) -> float:
    """Share of the time in which the oldest unfinished op gave the last engine no work."""
    last = report.accelerator.engines[-1].name
    idle = sum(row["cycles"] for row in report.op_rows() if last not in row["engines"])
    return float(idle / report.result.first_image_cycles)


def _savings(row: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, float]:
    keys = ("edp_pj_s", "edp_pj_s_synthesized", "free_edp_pj_s", "free_edp_pj_s_synthesized")
    return {key.replace("edp_pj_s", "saving"): 1 - row[key] / base[key] for key in keys}


def _mean(step: Step, basis: str, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Arithmetic means over the networks, as the abstract's average is understood."""
    rows = [cell for cell in cells if (cell["step"], cell["basis"]) == (step.name, basis)]
    keys = [key for key, value in rows[0].items() if isinstance(value, float)]
    return {"step": step.name, "basis": basis} | {key: sum(row[key] for row in rows) / len(rows) for key in keys}


def _other_groups(networks: Sequence[Network], cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The last step with fewer and more pixel groups in the shift engine: what rounding of tiles to groups does."""
    step = next(step for step in STEPS if step.name == LAST_STEP)
    base = [cell for cell in cells if (cell["step"], cell["basis"]) == (BASELINE, "area")]
    plan, rows = load_plan(step.plan), []
    tables = [op_table(build_workload(*network), plan) for network in networks]
    for groups in OTHER_GROUPS:
        accelerator = derived(step.design, "area")
        engines = (
            _grouped(one, groups) if one.name in DESIGNS[step.design].grown else one for one in accelerator.engines
        )
        accelerator = accelerator.replace(engines=tuple(engines))
        prices = [simulate(table, accelerator, fuse=step.fuse).prices for table in tables]
        row = {"groups": groups, "area_ratio": engines_mm2(accelerator) / engines_mm2(derived(BASELINE, "area"))}
        for suffix, found in (("", [p.arithmetic for p in prices]), ("_synthesized", [p.synthesized for p in prices])):
            ratios = [price.edp_pj_s / cell[f"edp_pj_s{suffix}"] for price, cell in zip(found, base, strict=True)]
            row[f"saving{suffix}"] = 1 - sum(ratios) / len(ratios)
        rows.append(row)
    return rows


def bounds() -> list[dict[str, Any]]:
    """What shift-add arithmetic alone can save: all products on it, equal area, always computing, memory free.

    saving = 1 − 1 / (energy ratio × area ratio), ratios of an 8-bit multiply-accumulate to a two-term shift-add one.
    """
    tech = load_technology(45)
    add_32 = tech.value("arithmetic.add_32_pj")
    multiply = tech.value("arithmetic.multiply_8x8_pj") + add_32
    shift = 2 * tech.value("arithmetic.shift_8_pj") + tech.value("arithmetic.add_8_pj") + add_32
    um2 = LITERATURE_UM2
    areas = (um2["multiply_8x8"] + um2["add_32"]) / (2 * um2["shift_8"] + um2["add_8"] + um2["add_32"])
    mat, sac = load_accelerator("trio_vit").engines[0], load_accelerator("m2vit").engines[1]
    rows = [
        ("unit operations, literature areas", multiply / shift, areas),
        ("unit operations, synthesized processing elements", multiply / shift, 1 / pe_ratio("apot8")),
    ]
    rows += [(f"prices of this simulator, {c}", *_own_ratios(mat, sac, c)) for c in Convention]
    return [
        {"prices": name, "energy_ratio": energy, "area_ratio": area, "saving": 1 - 1 / (energy * area)}
        for name, energy, area in rows
    ]


def _own_ratios(mat: Engine, sac: Engine, convention: Convention) -> tuple[float, float]:
    """Energy and area of a slot of the baseline's dense engine over those of the shift-add engine."""
    accelerator = load_accelerator("trio_vit")
    accumulate = ENGINE_COUNTS.index("accumulates")
    pj, mm2 = [], []
    for engine, column in ((mat, 0), (sac, sac.terms - 1)):
        prices = engine_unit_energies(engine, accelerator.node_nm, accelerator.clock_hz, convention)
        pj.append((prices[column] or 0.0) + (prices[accumulate] or 0.0) / engine.lane_width)
        parts = engine_area_mm2(engine, accelerator.node_nm)
        mm2.append(sum(value for name, value in parts.items() if name != "output_stage") / engine.slots)
    return pj[0] / pj[1], mm2[0] / mm2[1]
