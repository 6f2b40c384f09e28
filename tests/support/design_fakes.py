"""A tiny world for tests of the co-design loop: two accelerators, a plan, and an evaluator that is a formula.

Worker processes import this module by name, so nothing here may depend on pytest.
"""

import os
import time
from dataclasses import replace
from pathlib import Path

from accelsim.arch import Accelerator, Buffer, Dram, Engine, EngineKind, Mode, OutputStage, VectorUnit
from accelsim.config import accelerator_from_data
from accelsim.mappers.choice import DEFAULT_MAPPER
from accelsim.plan import QuantPlan, Rule
from accelsim.problems import AccelsimError, InfeasibleError, Problem
from codesign.catalog import Catalog
from codesign.chunks import evaluate_design

MULT = Engine("mult", EngineKind.MAC_ARRAY, 8, 8, 8, OutputStage(8), modes=(Mode(8, 8),), depthwise=True)
SHIFT = Engine("shift", EngineKind.SHIFT_ARRAY, 8, 8, 8, OutputStage(8), terms=2)
ONE = Accelerator(
    "one",
    500_000_000,
    28,
    (MULT,),
    VectorUnit(16, 16, 16, 16, 16, 1),
    Buffer(8 << 20),
    Buffer(4 << 20),
    Dram(102_400_000_000, 512, 60e-9),
)
TWO = replace(ONE, name="two", engines=(MULT, SHIFT))
ACCELERATORS = {"one": ONE, "two": TWO}
RESOLUTIONS = {"small": (None, 32, 64), "large": (None, 64)}


def accelerator(name):
    if name not in ACCELERATORS:
        raise AccelsimError(Problem(name, "no such accelerator", "one | two"))
    return ACCELERATORS[name].to_json()


def plan(name):
    if name not in ("eight", "mixed"):
        raise AccelsimError(Problem(name, "no such plan", "eight | mixed"))
    return QuantPlan(name, (Rule("*"),), division="divide" if name == "eight" else "log2_shift")


def workload_id(model, resolution):
    if resolution not in RESOLUTIONS.get(model, ()):
        raise AccelsimError(Problem(model, f"no such workload at {resolution}", "small | large"))
    return f"{model}-{resolution}"


CATALOG = Catalog(accelerator, accelerator_from_data, plan, workload_id)


def evaluate(model, resolution, design, quant_plan, mapper=DEFAULT_MAPPER):
    """Latency falls and area grows with the array; too small a buffer is infeasible."""
    slots = sum(engine.slots for engine in design.engines)
    needed = 2 << 20
    if design.activation_buffer.capacity_bits < needed:
        have = design.activation_buffer.capacity_bits
        raise InfeasibleError(Problem(model, "does not fit", demand=needed, bound=have, unit="bits"))
    cycles = (resolution or 64) * 1_000_000 // slots + (100 if quant_plan.name == "eight" else 50)
    cycles -= {"heuristic": 0, "exhaustive:latency": 20, "exhaustive:edp": 10}[mapper.name]
    energy_pj = 1000.0 * cycles + 3.0 * slots + design.activation_buffer.capacity_bits / 1000
    latency_s = cycles / design.clock_hz
    return {
        "cycles_total": cycles,
        "clock_hz": design.clock_hz,
        "latency_s": latency_s,
        "energy_pj": energy_pj,
        "energy_by_component_pj": {"engines": energy_pj},
        "area_mm2": slots / 1000,
        "edp_pj_s": energy_pj * latency_s,
        "energy_pj_synthesized": 2 * energy_pj,
        "edp_pj_s_synthesized": 2 * energy_pj * latency_s,
        "macs": 1_000_000,
        "dram_read_bits": 1 << 50,
        "dram_write_bits": 7,
        "power_w": energy_pj * 1e-12 / latency_s,
        "utilization": {engine.name: {"spatial": 0.5, "temporal": 1.0} for engine in design.engines},
        "busy_cycles": {engine.name: cycles for engine in design.engines},
        "counts": [cycles, slots],
    }


def slow_evaluate(model, resolution, design, quant_plan, mapper):
    """The same after FAKE_SLEEP_S seconds; leaves the process id in the folder FAKE_PIDS."""
    (Path(os.environ["FAKE_PIDS"]) / str(os.getpid())).touch()
    time.sleep(float(os.environ["FAKE_SLEEP_S"]))
    return evaluate(model, resolution, design, quant_plan, mapper)


def slow_simulate(model, resolution, design, quant_plan, mapper):
    """The true simulation, and FAKE_SLEEP_S more."""
    time.sleep(float(os.environ["FAKE_SLEEP_S"]))
    return evaluate_design(model, resolution, design, quant_plan, mapper)


def dying_evaluate(model, resolution, design, quant_plan, mapper):
    """Kills its own process, as the system does when memory runs out."""
    os._exit(9)
