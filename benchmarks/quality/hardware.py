"""The best design of a family for a plan, at no more area than the baseline's array engines.

Every design has a multiplier engine that also runs depthwise work and products of activations (8×8, or 8×8 and twice
8×4), and may have a second engine of the kind that fits the plan.  Buffers, DRAM, clock and vector unit are those of
`tiny`, whose array engine with its output stage is the area to spend: on lanes, pixel groups and output stages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product

from accelsim.api import Report, simulate
from accelsim.arch import Accelerator, Engine, EngineKind, Mode, OutputStage
from accelsim.area import engine_area_mm2
from accelsim.config import load_accelerator
from accelsim.formats import Format
from accelsim.ir import Workload
from accelsim.optable import op_table
from accelsim.plan import QuantPlan, apply_plan
from accelsim.problems import InfeasibleError

LANE_WIDTH = 8
LANES = (8, 16)
GROUPS = (1, 2, 3, 4, 6, 8)
LEAST_AREA = 0.93  # of the budget: smaller designs are left out
OUTPUTS = (16, 32, 64)  # requantized results per cycle: a large part of an engine's area
EDGE = "tiny"
PLAIN, SPLIT = (Mode(8, 8, 1),), (Mode(4, 8, 2), Mode(8, 8, 1))


@dataclass(frozen=True)
class Fitted:
    """The design of least EDP, its array engines' area and the run."""

    accelerator: Accelerator
    engines_mm2: float
    report: Report


def engines_mm2(accelerator: Accelerator) -> float:
    """Area of all array engines in mm²."""
    return sum(sum(engine_area_mm2(engine, accelerator.node_nm).values()) for engine in accelerator.engines)


def budget_mm2() -> float:
    """Area of the baseline's array engine, 512 multipliers of 8×8 with a depthwise mode."""
    return engines_mm2(load_accelerator(EDGE))


def fit(workload: Workload, plan: QuantPlan) -> Fitted:
    """The design of the family with the least EDP for a plan.  Raises InfeasibleError when none can run it."""
    table = op_table(workload, plan)
    best: Fitted | None = None
    problem: InfeasibleError | None = None
    for accelerator, area in _designs(_formats(workload, plan)):
        try:
            report = simulate(table, accelerator)
        except InfeasibleError as error:
            problem = error
            continue
        if best is None or report.prices.arithmetic.edp_pj_s < best.report.prices.arithmetic.edp_pj_s:
            best = Fitted(accelerator, area, report)
    if best is None:
        assert problem is not None
        raise problem
    return best


def _formats(workload: Workload, plan: QuantPlan) -> frozenset[Format]:
    return frozenset(part.format for item in apply_plan(workload, plan).ops for part in item.weights)


@cache
def _designs(formats: frozenset[Format]) -> tuple[tuple[Accelerator, float], ...]:
    """Designs that use the budget and whose second engine, if any, is of use for the formats."""
    base = load_accelerator(EDGE)
    limit = budget_mm2()
    firsts = [
        _multiplier("mult", lanes, groups, outputs, modes, depthwise=True)
        for lanes, groups, outputs, modes in product(LANES, GROUPS, OUTPUTS, (PLAIN, SPLIT))
    ]
    areas = {engine: sum(engine_area_mm2(engine, base.node_nm).values()) for engine in (*firsts, *_second(formats))}
    pairs = [(first,) for first in firsts] + list(product(firsts, _second(formats)))
    found = []
    for engines in pairs:
        if LEAST_AREA * limit <= sum(areas[engine] for engine in engines) <= limit:
            accelerator = base.replace(name=_name(engines), engines=engines)
            found.append((accelerator, engines_mm2(accelerator)))
    return tuple(found)


def _second(formats: frozenset[Format]) -> Iterator[Engine]:
    shifts = [fmt for fmt in formats if fmt.is_shift]
    widths = {max(4, fmt.bits) for fmt in formats if not fmt.is_shift}
    for lanes, groups, outputs in product(LANES, GROUPS, OUTPUTS):
        for bits in sorted(widths):
            yield _multiplier("second", lanes, groups, outputs, (Mode(bits, 8, 1),), depthwise=False)
        if shifts:
            terms = max(fmt.terms for fmt in shifts)
            yield _engine("shift", EngineKind.SHIFT_ARRAY, lanes, groups, outputs, (), terms, depthwise=False)


def _multiplier(name: str, lanes: int, groups: int, outputs: int, modes: tuple[Mode, ...], depthwise: bool) -> Engine:
    return _engine(name, EngineKind.MAC_ARRAY, lanes, groups, outputs, modes, 0, depthwise)


def _engine(
    name: str,
    kind: EngineKind,
    lanes: int,
    groups: int,
    outputs: int,
    modes: tuple[Mode, ...],
    terms: int,
    depthwise: bool,
) -> Engine:
    """An engine whose ports never make it wait: a word of operands for every slot and cycle."""
    slots = lanes * LANE_WIDTH * groups
    products = max((mode.products for mode in modes), default=1)
    activations = slots * 8 * products if depthwise else LANE_WIDTH * groups * 8
    base = load_accelerator(EDGE).engines[0]
    return Engine(
        name, kind, lanes, LANE_WIDTH, groups, OutputStage(outputs, base.output_stage.latency_cycles), modes, terms,
        depthwise, 32, activations, lanes * LANE_WIDTH * 8,
    )  # fmt: skip


def _name(engines: tuple[Engine, ...]) -> str:
    return " + ".join(
        f"{engine.lanes}x{engine.lane_width}x{engine.pixel_groups}:{engine.output_stage.outputs_per_cycle} "
        + ("shift" if engine.kind == EngineKind.SHIFT_ARRAY else "/".join(f"{m.weight_bits}x8" for m in engine.modes))
        for engine in engines
    )
