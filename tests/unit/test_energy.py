"""Energy, area and technology rows: an independent recount, scaling laws, refusals."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import accelsim.technology as technology
from accelsim.arch import Accelerator, Buffer, Dram, Engine, EngineKind, Mode, OutputStage, VectorUnit
from accelsim.area import accelerator_area, engine_area_mm2, pe_ratio
from accelsim.counts import ENGINE_COUNTS, GLOBAL_COUNTS, count_columns
from accelsim.energy import Convention, convention_spread, price, price_per_op, unit_energies
from accelsim.problems import AccelsimError, InfeasibleError
from accelsim.sram import macro
from accelsim.technology import load_technology, parse_rows

MULT = Engine(
    "mult",
    EngineKind.MAC_ARRAY,
    lanes=8,
    lane_width=8,
    pixel_groups=16,
    output_stage=OutputStage(16),
    modes=(Mode(8, 8), Mode(4, 8, 2)),
    depthwise=True,
)
SHIFT = Engine("shift", EngineKind.SHIFT_ARRAY, 8, 8, 16, OutputStage(16), terms=2)
DESIGN = Accelerator(
    "design",
    500_000_000,
    45,
    (MULT, SHIFT),
    VectorUnit(16, 16, 16, 16, 8, 1),
    Buffer(4 * 2**20),
    Buffer(2 * 2**20),
    Dram(102_400_000_000, 512, 1e-7),
)
COLUMNS = count_columns(DESIGN)
UNUSED = {*(f"mult.products_{mode}" for mode in range(2, 6)), "shift.products_4", "shift.products_5"}
USED = np.array([name not in UNUSED for name in COLUMNS])
BUSY = {"mult": 700, "shift": 400, "vector": 300, "dram": 900}
BOTH = pytest.mark.parametrize("convention", list(Convention))
NODE = pytest.mark.parametrize("node_nm", [28, 45])


def some_counts(seed=0):
    drawn = np.random.default_rng(seed).integers(1, 10**6, len(COLUMNS))
    return np.where(USED, drawn, 0)


def table(node_nm=45):
    """The rows of a technology file, read without the program's loader."""
    path = Path(technology.__file__).parent / "tech" / f"{node_nm}nm.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def recount(totals, cycles, busy, node_nm, pe_area):
    """Arithmetic-convention energy of DESIGN in pJ, from the tables and the formulas of docs/prices.md."""
    rows = table(node_nm)
    get = lambda section, name: rows[section][name]["value"]  # noqa: E731
    count = dict(zip(COLUMNS, totals.tolist(), strict=True))
    register = get("arithmetic", "register_pj_per_bit") * (1 + get("arithmetic", "clock_tree_fraction"))
    add_16, add_32 = get("arithmetic", "add_16_pj"), get("arithmetic", "add_32_pj")
    tree = (add_16 + add_32) / 2  # 24 bits: halfway between 16 and 32
    update = add_32 + 32 * register - tree
    requantize = (
        get("output_stage", "multiply_32x16_pj")
        + 2.5 * add_32
        + 1.5 * get("output_stage", "shift_32_pj")
        + 2 * get("output_stage", "compare_32_pj")
        + get("output_stage", "register_bits") * register
    )
    energy = 0.0
    for engine in ("mult", "shift"):
        energy += count[f"{engine}.outputs"] * requantize
        energy += count[f"{engine}.table_lookups"] * get("output_stage", "table_256x8_pj")
        energy += count[f"{engine}.accumulates"] * update
    energy += count["mult.products_0"] * (get("arithmetic", "multiply_8x8_pj") + tree + 16 * register)
    energy += count["mult.products_1"] * (get("arithmetic", "multiply_8x4_pj") + tree + 12 * register)
    for terms in range(1, 5):
        shifts = terms * get("arithmetic", "shift_8_pj") + (terms - 1) * add_16
        energy += count[f"shift.products_{terms - 1}"] * (shifts + tree + (4 * terms + 8) * register)
    vector = {
        "mul": get("arithmetic", "multiply_16x16_pj"),
        "add": add_32,
        "shift": get("output_stage", "shift_32_pj"),
        "compare": get("output_stage", "compare_32_pj"),
        "table": get("output_stage", "table_256x8_pj"),
        "division": get("vector", "divide_pj"),
        "leading_one": get("vector", "leading_one_pj"),
    }
    vector_bits = get("vector", "register_bits_per_op")
    energy += sum(count[f"vector_{kind}"] * (pj + vector_bits * register) for kind, pj in vector.items())
    one = macro(node_nm, 65536, 128)
    for name, macros in (("activation", 64), ("weight", 32)):
        routing = get("sram", "routing_pj_per_bit_mm") * (macros**0.5 - 1) * one.area_mm2**0.5
        energy += count[f"{name}_read_bits"] * (one.read_pj_per_bit + routing)
        energy += count[f"{name}_write_bits"] * (one.write_pj_per_bit + routing)
    energy += 8 * (count["dram_read_bits"] + count["dram_write_bits"])
    idle = get("arithmetic", "idle_clock_fraction") * register
    energy += idle * 1024 * (16 + 32) * (cycles - busy["mult"])
    energy += idle * (1024 * 16 + 128 * 32) * (cycles - busy["shift"])
    energy += idle * 73 * vector_bits * (cycles - busy["vector"])
    seconds = cycles / DESIGN.clock_hz
    leakage_mw = get("leakage", "logic_mw_per_mm2") * pe_area + 96 * one.leakage_mw
    return energy + leakage_mw * seconds * 1e9


@NODE
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_total_is_the_sum_of_components_and_of_counts_times_table(node_nm, seed):
    totals = some_counts(seed)
    design = DESIGN.replace(node_nm=node_nm)
    found = price(totals, 1000, BUSY, design)
    logic = sum(mm2 for name, mm2 in found.area_by_component_mm2.items() if not name.endswith("buffer"))
    assert found.energy_pj == pytest.approx(sum(found.energy_by_component_pj.values()), rel=1e-12)
    assert found.energy_pj == pytest.approx(recount(totals, 1000, BUSY, node_nm, logic), rel=1e-9)


@BOTH
def test_dynamic_energy_per_op_adds_up(convention):
    counts = np.stack([some_counts(seed) for seed in range(7)])
    per_op = price_per_op(counts, DESIGN, convention)
    assert per_op.shape == (7,)
    whole = price(counts.sum(axis=0), 1000, BUSY, DESIGN, convention).energy_by_component_pj
    static = sum(pj for name, pj in whole.items() if name.endswith((".idle", ".leakage")))
    assert per_op.sum() + static == pytest.approx(sum(whole.values()), rel=1e-12)
    assert static > 0


@BOTH
@pytest.mark.parametrize("column", [name for name, used in zip(COLUMNS, USED, strict=True) if used])
def test_doubling_a_count_doubles_its_part_and_nothing_else(column, convention):
    index = COLUMNS.index(column)
    alone = np.zeros(len(COLUMNS), np.int64)
    alone[index] = 1000
    before = price(alone, 1000, BUSY, DESIGN, convention).energy_by_component_pj
    after = price(2 * alone, 1000, BUSY, DESIGN, convention).energy_by_component_pj
    changed = [name for name in before if after[name] != before[name]]
    if column.endswith("accumulates") and convention is Convention.SYNTHESIZED:
        assert changed == []  # the figure per MAC contains it
    else:
        (part,) = changed
        assert after[part] == pytest.approx(2 * before[part])
        assert before[part] == pytest.approx(1000 * unit_energies(DESIGN, convention)[index])


def test_components_have_stable_names():
    names = set(price(some_counts(), 1000, BUSY, DESIGN).energy_by_component_pj)
    engines = {
        f"{engine}.{part}"
        for engine in ("mult", "shift")
        for part in ("products", "accumulate", "output_stage", "idle", "leakage")
    }
    kinds = ("mul", "add", "shift", "compare", "table", "division", "leading_one")
    vector = {f"vector.{part}" for part in (*kinds, "idle", "leakage")}
    buffers = {f"{name}_buffer.{part}" for name in ("activation", "weight") for part in ("read", "write", "leakage")}
    assert names == engines | vector | buffers | {"dram.read", "dram.write"}
    assert len(COLUMNS) == 2 * len(ENGINE_COUNTS) + len(GLOBAL_COUNTS)


def test_edp_power_and_json():
    found = price(some_counts(), 1000, BUSY, DESIGN)
    assert found.latency_s == 1000 / 500_000_000
    assert found.edp_pj_s == pytest.approx(found.energy_pj * 2e-6)
    assert found.power_w == pytest.approx(found.energy_pj * 1e-12 / 2e-6)
    assert json.loads(json.dumps(found.to_json()))["energy_pj"] == found.energy_pj


def test_idle_falls_with_busy_cycles_and_leakage_does_not():
    lazy = price(some_counts(), 1000, {**BUSY, "shift": 0}, DESIGN).energy_by_component_pj
    busy = price(some_counts(), 1000, {**BUSY, "shift": 1000}, DESIGN).energy_by_component_pj
    assert lazy["shift.idle"] > busy["shift.idle"] == 0
    assert {name for name in lazy if lazy[name] != busy[name]} == {"shift.idle"}


@NODE
def test_conventions_differ_and_the_spread_says_by_how_much(node_nm):
    design = DESIGN.replace(node_nm=node_nm)
    spread = convention_spread(some_counts(), 1000, BUSY, design)
    products = [part.energy_by_component_pj["mult.products"] for part in (spread.arithmetic, spread.synthesized)]
    assert products[0] != pytest.approx(products[1], rel=0.05)
    assert spread.energy_ratio == spread.synthesized.energy_pj / spread.arithmetic.energy_pj != 1
    assert spread.arithmetic.area_mm2 == spread.synthesized.area_mm2


@BOTH
@NODE
def test_cheaper_modes_are_cheaper(node_nm, convention):
    pj = dict(zip(COLUMNS, unit_energies(DESIGN.replace(node_nm=node_nm), convention), strict=True))
    assert pj["mult.products_1"] < pj["mult.products_0"]
    assert pj["shift.products_0"] < pj["shift.products_1"] < pj["shift.products_2"] < pj["shift.products_3"]
    assert pj["shift.products_1"] < pj["mult.products_0"]


def test_unlisted_width_is_bilinear_from_8x8():
    tech = load_technology(45)
    narrow = DESIGN.replace(engines=(replace(MULT, modes=(Mode(6, 8),)),))
    wide = DESIGN.replace(engines=(replace(MULT, modes=(Mode(8, 8),)),))
    for convention, scale in ((Convention.SYNTHESIZED, 6 / 8), (Convention.ARITHMETIC, None)):
        low, high = unit_energies(narrow, convention)[0], unit_energies(wide, convention)[0]
        if scale:
            assert low == pytest.approx(scale * high)
        else:
            register = tech.value("arithmetic.register_pj_per_bit") * (1 + tech.value("arithmetic.clock_tree_fraction"))
            assert high - low == pytest.approx(0.2 * 2 / 8 + 2 * register)


def test_dense_and_depthwise_count_the_adds_that_happen():
    tech = load_technology(45)
    pj = dict(zip(COLUMNS, unit_energies(DESIGN), strict=True))
    register = tech.value("arithmetic.register_pj_per_bit") * (1 + tech.value("arithmetic.clock_tree_fraction"))
    operands, update, tree = 0.2 + 16 * register, 0.1 + 32 * register, 0.075
    dense = 8 * pj["mult.products_0"] + pj["mult.accumulates"]
    assert dense == pytest.approx(8 * operands + 7 * tree + update)
    assert pj["mult.products_0"] + pj["mult.accumulates"] == pytest.approx(operands + update)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda totals: totals[:-1], "has shape"),
        (lambda totals: np.where(np.arange(len(totals)) == 0, -1, totals), "mult.products_0"),
        (lambda totals: np.where(np.arange(len(totals)) == 2, 1, totals), "mult.products_2"),
        (lambda totals: totals.astype(float), "are float64"),
    ],
)
def test_counts_that_cannot_be(bad, message):
    totals = bad(some_counts())
    with pytest.raises(AccelsimError, match=message):
        price(totals, 1000, BUSY, DESIGN)
    with pytest.raises(AccelsimError, match=message):
        price_per_op(totals[np.newaxis], DESIGN)


@pytest.mark.parametrize(
    ("cycles", "busy", "message"),
    [
        (0, BUSY, "cycles_total: is 0"),
        (1000, {"mult": 1, "vector": 1}, r"lacks \['shift'\]"),
        (1000, {**BUSY, "npu": 1}, r"unknown \['npu'\]"),
        (1000, {**BUSY, "mult": 1001}, "busy_cycles.mult: is 1001"),
        (1000, {**BUSY, "dram": -1}, "busy_cycles.dram: is -1"),
    ],
)
def test_cycles_that_cannot_be(cycles, busy, message):
    with pytest.raises(AccelsimError, match=message):
        price(some_counts(), cycles, busy, DESIGN)


@pytest.mark.parametrize(
    ("design", "message"),
    [
        (DESIGN.replace(node_nm=7), "one of 28, 45"),
        (DESIGN.replace(dram=replace(DESIGN.dram, type="DDR9")), "'DDR9'.*LPDDR4.*HBM2"),
        (DESIGN.replace(engines=(replace(MULT, modes=()),)), "mult: has no modes"),
        (DESIGN.replace(engines=(replace(MULT, modes=(Mode(32, 8),)),)), "covers 32×8"),
        (DESIGN.replace(engines=(replace(MULT, modes=(Mode(8, 8),) * 7),)), "has 7 modes"),
        (DESIGN.replace(engines=(replace(SHIFT, terms=0),)), "shift: has 0 terms"),
        (DESIGN.replace(clock_hz=0), "clock_hz: is 0"),
    ],
)
def test_designs_without_a_price(design, message):
    with pytest.raises(AccelsimError, match=message):
        unit_energies(design)


def test_a_buffer_slower_than_the_clock_has_no_price():
    with pytest.raises(InfeasibleError, match=r"activation_buffer.*cannot be read in one cycle"):
        unit_energies(DESIGN.replace(clock_hz=1_000_000_000))  # 45 nm, 8 KB: 1.06 ns


def test_area_total_is_the_sum_and_28_nm_logic_is_0_377_of_45():
    area = accelerator_area(DESIGN)
    assert area.total_mm2 == pytest.approx(sum(area.by_component_mm2.values()))
    small, large = engine_area_mm2(MULT, 28), engine_area_mm2(MULT, 45)
    for part in ("slots", "operand_registers", "adder_tree", "accumulators"):
        assert small[part] == pytest.approx(0.377 * large[part])


def test_slot_areas():
    parts = engine_area_mm2(MULT, 45)
    assert parts["slots"] == pytest.approx(1024 * 465.2 * 1.125e-6)
    assert parts["operand_registers"] == pytest.approx(1024 * 2 * 36.2e-6)
    assert parts["adder_tree"] == pytest.approx(128 * 7 * 137.0e-6)
    assert parts["accumulators"] == pytest.approx(1024 * 360.2e-6)
    one_mode = replace(MULT, modes=(Mode(8, 8),), depthwise=False, accumulator_bits=24)
    assert engine_area_mm2(one_mode, 45)["slots"] == pytest.approx(1024 * 465.2e-6)
    assert engine_area_mm2(one_mode, 45)["accumulators"] == pytest.approx(128 * 279.3e-6)
    shared = replace(MULT, depthwise=False)
    assert engine_area_mm2(shared, 45)["accumulators"] == pytest.approx(2 * 128 * 360.2e-6)


@pytest.mark.parametrize(("terms", "um2"), [(1, 86.2), (2, 297.4), (3, 446.1)])
def test_shift_slot_area(terms, um2):
    assert engine_area_mm2(replace(SHIFT, terms=terms), 45)["slots"] == pytest.approx(1024 * um2 * 1e-6)


@pytest.mark.parametrize(
    ("mode", "um2"),
    [((8, 8), 465.2), ((6, 8), 299.5), ((4, 8), 176.4), ((2, 8), 69.4), ((4, 4), 75.3), ((6, 6), 299.5)],
)
def test_multiplier_covers_the_mode(mode, um2):
    engine = replace(MULT, modes=(Mode(*mode),))
    assert engine_area_mm2(engine, 45)["slots"] == pytest.approx(1024 * um2 * 1e-6)


def test_unknown_pe():
    with pytest.raises(AccelsimError, match="no processing element 'pot9'"):
        pe_ratio("pot9")


@NODE
def test_every_row_has_provenance(node_nm):
    rows = load_technology(node_nm).rows
    assert len(rows) > 30
    assert all(bool(row.source) != bool(row.derived) and row.low <= row.value <= row.high for row in rows.values())
    assert all("estimate" not in row.derived or row.low < row.high for row in rows.values())


def test_28_nm_rows_that_say_scaled_are_scaled():
    old, new = load_technology(45), load_technology(28)
    checked = 0
    for name, row in new.rows.items():
        if row.derived.startswith("45 nm row") and row.derived.endswith("_factor)"):
            factor = new.value("scaling.energy_factor" if "energy" in row.derived else "scaling.area_factor")
            assert row.value == pytest.approx(old.value(name) * factor, rel=1e-6), name
            checked += 1
    assert checked >= 14


@NODE
def test_shift_ratio_rows_follow_from_the_cells(node_nm):
    tech = load_technology(node_nm)
    cells = tech.pe_area_um2
    for terms, unit in ((1, "pot4x"), (2, "apot8")):
        assert tech.value(f"synthesized.shift_ratio.terms_{terms}") == pytest.approx(pe_ratio(unit), abs=6e-4)
    for terms in (3, 4):
        area = cells["apot8"] * terms / 2 + cells["acc24"] + cells["reg8"] * (1 + terms / 2)
        expected = area / cells["pe_mac8x8_acc24"]
        assert tech.value(f"synthesized.shift_ratio.terms_{terms}") == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{value: 1.0}", "does not say where its number comes from"),
        ("{value: 1.0, source: ''}", "does not say where its number comes from"),
        ("{value: 1.0, source: a, derived: b}", "does not say where its number comes from"),
        ("{source: a}", "has the value None"),
        ("{value: -1, source: a}", "has the value -1"),
        ("{value: .nan, source: a}", "has the value nan"),
        ("{value: true, source: a}", "has the value True"),
        ("{value: 1.0, source: a, note: b}", "unknown keys note"),
        ("{value: 1.0, source: a, range: [2, 3]}", "has the range"),
        ("{value: 1.0, source: a, range: [1]}", "has the range"),
        ("1.0", "expected a mapping"),
    ],
)
def test_rows_without_provenance_are_refused(row, message):
    with pytest.raises(AccelsimError, match=message) as caught:
        parse_rows(f"good:\n  a: {{value: 1, source: x}}\nbad:\n  b: {row}\n", "file.yaml")
    assert caught.value.problems[0].where == "file.yaml: bad.b"


def test_every_faulty_row_is_reported_at_once():
    with pytest.raises(AccelsimError) as caught:
        parse_rows("a: {value: 1}\nb: 2\nc: {value: 0, source: s}\n", "file.yaml")
    assert len(caught.value.problems) == 3


def test_broken_yaml_is_an_answer():
    with pytest.raises(AccelsimError, match=r"file.yaml: is not YAML"):
        parse_rows("a: [", "file.yaml")
