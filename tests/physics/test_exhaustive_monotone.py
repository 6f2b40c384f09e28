"""Law (ii): more of anything never worsens the optimum of the declared space (latency, adder-tree engines)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from accelsim.arch import Accelerator, Buffer, Dram, Engine
from accelsim.config import load_plan
from accelsim.optable import OpTable
from accelsim.plan import QuantPlan
from accelsim.problems import AccelsimError
from tests.physics.test_exhaustive import designs, table_of
from tests.support.searches import network_of, search_of

# Formats of unequal width that share an op are outside the law.
EQUAL_WIDTHS = st.sampled_from([load_plan(name) for name in ("uniform8", "m2q", "w4a8")])
SOME = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
SIZES = ("lanes", "lane_width", "pixel_groups")


def _levels(engine: Engine) -> int:
    return engine.pipeline_cycles - engine.output_stage.latency_cycles


def larger_engine(draw: st.DrawFn, engine: Engine) -> Engine:
    """More slots, ports, results per cycle; the output stage gets shorter by the levels that the tree grows."""
    more = {name: getattr(engine, name) + draw(st.integers(0, 2)) for name in SIZES}
    for name in ("activation_port_bits_per_cycle", "weight_port_bits_per_cycle"):
        more[name] = getattr(engine, name) + draw(st.sampled_from([0, 0, 8, 30]))
    stage = engine.output_stage
    grown = replace(engine, **more)
    latency = max(0, stage.latency_cycles - (_levels(grown) - _levels(engine)))
    outputs = stage.outputs_per_cycle + draw(st.integers(0, 2))
    return replace(grown, output_stage=replace(stage, outputs_per_cycle=outputs, latency_cycles=latency))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Accelerator, Accelerator]:
    """(smaller, larger) designs."""
    small = draw(designs().filter(lambda design: all(engine.dataflow == "none" for engine in design.engines)))
    dram = small.dram
    assert isinstance(dram, Dram)
    factor = draw(st.sampled_from([1, 1, 2, 3]))
    bits = [buffer.capacity_bits * draw(st.sampled_from([1, 1, 2, 3])) for buffer in
            (small.activation_buffer, small.weight_buffer)]  # fmt: skip
    engines = tuple(larger_engine(draw, engine) for engine in small.engines)
    assume(
        all(big.pipeline_cycles <= engine.pipeline_cycles for big, engine in zip(engines, small.engines, strict=True))
    )
    large = replace(
        small, engines=engines, activation_buffer=Buffer(bits[0], 8192, 64), weight_buffer=Buffer(bits[1], 8192, 64),
        dram=replace(dram, bandwidth_bits_per_s=dram.bandwidth_bits_per_s * factor),
    )  # fmt: skip
    return small, large


def least_cycles(table: OpTable, accelerator: Accelerator) -> Fraction | None:
    try:
        network = network_of(search_of(table, accelerator, False))
    except AccelsimError:
        return None
    paths = network.least("latency", accelerator.activation_buffer.capacity_bits)
    return Fraction(paths[0].ticks, accelerator.bus_ticks().per_cycle) if paths else None


@SOME
@given(pairs(), st.integers(0, 10**6), EQUAL_WIDTHS)
def test_a_larger_design_is_never_worse(designs_: tuple[Accelerator, Accelerator], seed: int, plan: QuantPlan) -> None:
    small, large = designs_
    if len(small.engines) > 1:
        # Blocks of weights on several engines are outside the law: no weights are cut.
        small, large = (replace(design, weight_buffer=Buffer(1 << 16)) for design in (small, large))
    table = table_of(seed, plan)
    before = least_cycles(table, small)
    assume(before is not None)
    after = least_cycles(table, large)
    assert after is not None
    assert after <= before
