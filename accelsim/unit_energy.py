"""Dynamic energy of one counted event of an engine or the vector unit, and the clock energy of idle units."""

from __future__ import annotations

from functools import cache, lru_cache

from accelsim.arch import Accelerator, Engine
from accelsim.counts import MAX_MODES
from accelsim.engines.registry import rules_of
from accelsim.parts import Convention, register_pj
from accelsim.problems import AccelsimError, Problem
from accelsim.technology import load_technology


@lru_cache(maxsize=4096)
def engine_unit_energies(
    engine: Engine, node_nm: int, clock_hz: int, convention: Convention
) -> tuple[float | None, ...]:
    """Energies in pJ per count, in `ENGINE_COUNTS` order; None for a mode that the engine does not have.

    Raises AccelsimError for more than six modes, for an engine without any, and for a mode that its kind cannot make.
    """
    if len(engine.modes) > MAX_MODES:
        raise AccelsimError(Problem(engine.name, f"has {len(engine.modes)} modes", f"at most {MAX_MODES}", ("modes",)))
    tech, rules = load_technology(node_nm), rules_of(engine)
    products = [rules.product_pj(engine, column, tech, clock_hz, convention) for column in range(MAX_MODES)]
    output = rules.output_pj(engine, tech, convention)
    table = tech.value("output_stage.table_256x8_pj")
    return (*products, output, table, rules.accumulate_pj(engine, tech, clock_hz, convention))


@cache
def vector_unit_energies(node_nm: int) -> tuple[float, ...]:
    """Energies in pJ per vector operation, in `VECTOR_KINDS` order: unit and clocked operands, for both conventions."""
    tech = load_technology(node_nm)
    registers = register_pj(tech.value("vector.register_bits_per_op"), tech)
    names = (
        "arithmetic.multiply_16x16_pj",
        "arithmetic.add_32_pj",
        "output_stage.shift_32_pj",
        "output_stage.compare_32_pj",
        "output_stage.table_256x8_pj",
        "vector.divide_pj",
        "vector.leading_one_pj",
    )
    return tuple(tech.value(name) + registers for name in names)


def idle_pj_per_cycle(accelerator: Accelerator) -> dict[str, float]:
    """Clock energy of a cycle in which a unit is not busy, by unit, in pJ: gated share of its registers' energy."""
    tech = load_technology(accelerator.node_nm)
    bits = {engine.name: rules_of(engine).register_bits(engine) for engine in accelerator.engines}
    units = sum(accelerator.vector.throughput())
    gated = tech.value("arithmetic.idle_clock_fraction")
    idle = {name: gated * register_pj(count, tech) for name, count in bits.items()}
    idle["vector"] = gated * register_pj(units * tech.value("vector.register_bits_per_op"), tech)
    return idle
