"""Composable and systolic engines: energy and area recounted from the tables, one test per fault of their fields."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from accelsim import config
from accelsim.arch import Engine, EngineKind, Mode, OutputStage
from accelsim.area import engine_area_mm2
from accelsim.config import load_accelerator
from accelsim.energy import Convention
from accelsim.sram import macro
from accelsim.technology import load_technology
from accelsim.unit_energy import engine_unit_energies, idle_pj_per_cycle
from tests.support.config_files import problems_of

FUSION = load_accelerator("bitfusion_edge").engines[0]
WS, OS, IS = (load_accelerator(f"systolic_{flow}").engines[0] for flow in ("ws", "os", "is"))
CLOCK = 500_000_000
NODE = pytest.mark.parametrize("node", [28, 45])


def rows(node: int, *names: str) -> list[float]:
    return [load_technology(node).value(name) for name in names]


def register_of(node: int) -> float:
    bit, tree = rows(node, "arithmetic.register_pj_per_bit", "arithmetic.clock_tree_fraction")
    return bit * (1 + tree)


@NODE
def test_energy_of_a_fusion_unit(node: int) -> None:
    """Bricks, one 24-bit add for the inputs that a unit sums up, both operands clocked; column = mode."""
    brick, add_16, add_32 = rows(node, "arithmetic.brick_pj", "arithmetic.add_16_pj", "arithmetic.add_32_pj")
    add_24, register = (add_16 + add_32) / 2, register_of(node)
    found = engine_unit_energies(FUSION, node, CLOCK, Convention.ARITHMETIC)
    bricks_inputs = ((1, 4), (2, 2), (4, 1), (4, 2), (8, 1), (16, 1))
    for column, (mode, (bricks, inputs)) in enumerate(zip(FUSION.modes, bricks_inputs, strict=True)):
        bits = mode.weight_bits + mode.activation_bits
        assert found[column] == pytest.approx(bricks * brick + add_24 / inputs + bits * register)
    assert found[8] == pytest.approx(add_32 + 32 * register - add_24)


@NODE
def test_synthesized_energy_and_area_of_a_fusion_unit_are_published_figures(node: int) -> None:
    tech = load_technology(node)
    low, high = (tech.value(f"synthesized.composable.8x8.{name}") for name in _clocks(node))
    found = engine_unit_energies(FUSION, node, CLOCK, Convention.SYNTHESIZED)
    assert min(low, high) <= found[5] <= max(low, high)  # type: ignore[operator]
    assert found[8] == 0
    area = engine_area_mm2(FUSION, node)
    assert area["slots"] == pytest.approx(1024 * tech.value("area.fusion_unit_um2") / 1e6)
    assert area["operand_registers"] == area["adder_tree"] == 0
    assert area["accumulators"] == pytest.approx(1024 * tech.pe_area_um2["acc32"] / 1e6)
    assert engine_area_mm2(replace(FUSION, depthwise=False), node)["accumulators"] == 0


def _clocks(node: int) -> tuple[str, str]:
    names = sorted(load_technology(node).children("synthesized.composable.8x8"))
    return names[0], names[-1]


@NODE
def test_energy_of_a_systolic_element(node: int) -> None:
    """A product clocks what it passes on; a partial sum is charged with its whole way down the 32 rows."""
    multiply, add_16, add_32 = rows(node, "arithmetic.multiply_8x8_pj", "arithmetic.add_16_pj", "arithmetic.add_32_pj")
    register, bank = register_of(node), macro(node, 256 * 128, 128)
    add_24 = (add_16 + add_32) / 2
    ws, os, serial = (
        engine_unit_energies(engine, node, CLOCK, Convention.ARITHMETIC)
        for engine in (WS, OS, replace(WS, double_buffered=False))
    )
    assert ws[0] == pytest.approx(multiply + (8 + 2 * 8) * register)
    assert serial[0] == pytest.approx(multiply + (8 + 8) * register)
    assert os[0] == pytest.approx(multiply + 16 * register)
    assert ws[:7] == engine_unit_energies(IS, node, CLOCK, Convention.ARITHMETIC)[:7]
    update = add_32 + 32 * register
    memory = 32 * (bank.read_pj_per_bit + bank.write_pj_per_bit)
    assert ws[8] == pytest.approx(32 * (add_24 + 24 * register) + update + memory)
    assert os[8] == pytest.approx(update)
    assert os[6] - ws[6] == pytest.approx(16.5 * 32 * register)  # type: ignore[operator]
    whole = engine_unit_energies(WS, node, CLOCK, Convention.SYNTHESIZED)
    assert whole[8] == pytest.approx(memory)
    assert whole[0] == engine_unit_energies(MAC, node, CLOCK, Convention.SYNTHESIZED)[0]


MAC = Engine("mac", EngineKind.MAC_ARRAY, 8, 8, 16, OutputStage(32), modes=(Mode(8, 8),))


@NODE
def test_area_of_a_systolic_array(node: int) -> None:
    """Registers of one element: 8 streamed + 3 · 8 stationary + 24 (ws), 8 + 8 + 32 in the drain chain (os)."""
    cells = load_technology(node).pe_area_um2
    ws, os = engine_area_mm2(WS, node), engine_area_mm2(OS, node)
    assert ws["slots"] == os["slots"] == pytest.approx(1024 * cells["mul8x8s"] / 1e6)
    assert ws["operand_registers"] == pytest.approx(1024 * 56 / 8 * cells["reg8"] / 1e6)
    assert os["operand_registers"] == pytest.approx(1024 * 48 / 8 * cells["reg8"] / 1e6)
    assert (ws["adder_tree"], os["adder_tree"]) == (pytest.approx(1024 * cells["add24"] / 1e6), 0)
    bank = macro(node, 256 * 128, 128).area_mm2
    assert ws["accumulators"] == pytest.approx(32 * cells["acc32"] / 1e6 + 4 * 8 * bank)
    assert os["accumulators"] == pytest.approx(1024 * cells["acc32"] / 1e6)


def test_idle_energy_counts_the_registers_of_the_elements() -> None:
    design = load_accelerator("systolic_ws")
    gated = rows(28, "arithmetic.idle_clock_fraction")[0] * register_of(28)
    assert idle_pj_per_cycle(design)["array"] == pytest.approx(gated * (1024 * 56 + 32 * 32))


FAULTS: list[tuple[str, dict[str, Any], str, str]] = [
    ("bitfusion_edge", {"modes": []}, "modes", "a composable_array without precision modes"),
    ("bitfusion_edge", {"terms": 2}, "terms", "a composable_array has no shift-add terms"),
    ("bitfusion_edge", {"modes": [(4, 4, 2)]}, "modes[0]", "2 products on 16 bricks"),
    ("bitfusion_edge", {"modes": [(8, 8, 1), (4, 8, 2)]}, "modes", "the modes are not sorted"),
    ("bitfusion_edge", {"modes": [(4, 8, 2), (4, 8, 2)]}, "modes", "two modes have the same widths"),
    ("bitfusion_edge", {"modes": [(6, 6, 1)]}, "modes[0]", "no operands of these widths"),
    ("bitfusion_edge", {"dataflow": "ws"}, "dataflow", "a composable_array has no `dataflow`"),
    ("tiny", {"accumulator_rows": 128}, "accumulator_rows", "a mac_array has no `accumulator_rows`"),
    ("tiny", {"timing": "scalesim"}, "timing", "a mac_array has no `timing`"),
    ("systolic_ws", {"dataflow": "none"}, "dataflow", "a systolic_array without dataflow"),
    ("systolic_ws", {"dataflow": "rs"}, "dataflow", "found the text 'rs'"),
    ("systolic_ws", {"modes": []}, "modes", "a systolic_array without precision modes"),
    ("systolic_ws", {"modes": [(4, 8, 4), (8, 8, 1)]}, "modes[0].products", "do not fit a multiplier"),
    ("systolic_ws", {"pixel_groups": 2}, "pixel_groups", "2 pixel groups"),
    ("systolic_ws", {"depthwise": True}, "depthwise", "no depthwise mode"),
    (
        "systolic_ws",
        {"accumulator_rows": 127},
        "accumulator_rows",
        "127 accumulator rows behind an array with dataflow ws",
    ),
    ("systolic_is", {"lanes": 600}, "accumulator_rows", "512 accumulator rows behind an array with dataflow is"),
    ("systolic_os", {"accumulator_rows": 512}, "accumulator_rows", "os accumulates inside the array"),
    ("systolic_os", {"double_buffered": False}, "double_buffered", "no stationary operand"),
    ("systolic_ws", {"timing": "scalesim", "double_buffered": False}, "double_buffered", "always loads before"),
]


@pytest.mark.parametrize(("preset", "changes", "field", "what"), FAULTS)
def test_fault_of_a_field(preset: str, changes: dict[str, Any], field: str, what: str) -> None:
    data = load_accelerator(preset).to_json()
    if "modes" in changes:
        names = ("weight_bits", "activation_bits", "products")
        changes = changes | {"modes": [dict(zip(names, mode, strict=True)) for mode in changes["modes"]]}
    data["engines"] = [data["engines"][0] | changes]
    (problem,) = problems_of(config.accelerator_from_data, data, "here")
    assert problem.where == f"here: engines[0].{field}"
    assert what in problem.what
    assert problem.expected


def test_systolic_fields_leave_older_fingerprints_alone_and_change_their_own() -> None:
    tiny, systolic = load_accelerator("tiny"), load_accelerator("systolic_ws")
    assert tiny.fingerprint() == "de17877c04931b9e"  # of the version before systolic arrays
    (array,) = systolic.engines
    for change in ({"dataflow": "is"}, {"double_buffered": False}, {"accumulator_rows": 600}, {"timing": "scalesim"}):
        other = systolic.replace(engines=(replace(array, **change),))  # type: ignore[arg-type]
        assert other.fingerprint() != systolic.fingerprint()
