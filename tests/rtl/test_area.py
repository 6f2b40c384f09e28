"""Synthesised processing elements: equal to integers and to the RTL's arithmetic; areas within what is demanded."""

import itertools
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from accelsim.problems import AccelsimError
from accelsim.rtl import area
from accelsim.rtl.area import Design
from accelsim.validation import area as suite
from tests.support.netlist import Netlist

REQUIRE_VARIABLE = "ACCELSIM_REQUIRE_YOSYS"
PAGE = Path(__file__).parents[2] / "docs" / "area.md"
BENCH = Path(__file__).parent / "slots_bench.sv"
Int64 = NDArray[np.int64]
Operands = dict[str, Int64]


@pytest.fixture(scope="module")
def netlist(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Design], Netlist]:
    if area.yosys_path() is None:
        message = "yosys is not installed (apt-get install yosys)"
        if os.environ.get(REQUIRE_VARIABLE):
            pytest.fail(message)
        pytest.skip(message)
    folder = tmp_path_factory.mktemp("netlists")

    def synthesise(design: Design) -> Netlist:
        path = folder / f"{design.name}.json"
        area.area_um2(design, path)
        return Netlist(path)

    return synthesise


def values(design: Netlist, operands: Operands) -> Operands:
    return design.step(operands, design.start(len(next(iter(operands.values())))))


def grid(*widths: int) -> list[Int64]:
    """Every combination of unsigned numbers of these widths."""
    return [axis.ravel() for axis in np.meshgrid(*(np.arange(1 << width) for width in widths), indexing="ij")]


def signed(numbers: Int64, bits: int) -> Int64:
    return (numbers & ((1 << bits) - 1) ^ 1 << bits - 1) - (1 << bits - 1)


def term(activation: Int64, code: Int64, bits: int, single: bool) -> Int64:
    """± activation · 2^exponent with `bits` of exponent; one term per weight: the highest exponent is zero."""
    exponent = code & (1 << bits) - 1
    value = np.where(code >> bits & 1, -1, 1) * activation * 2**exponent
    return np.where(single & (exponent == (1 << bits) - 1), 0, value)


@pytest.mark.parametrize("design", area.MULTIPLIERS, ids=lambda design: design.name)
def test_multipliers(design: Design, netlist: Callable[[Design], Netlist]) -> None:
    widths = dict(design.parameters)
    a_bits, b_bits = widths["A_BITS"], widths["B_BITS"]
    if a_bits + b_bits <= 16:
        a, b = grid(a_bits, b_bits)
    else:
        a, b = np.random.default_rng(1).integers(0, 1 << 16, (2, 100_000))
    product = values(netlist(design), {"a": a, "b": b})["product"]
    assert np.array_equal(signed(product, a_bits + b_bits), signed(a, a_bits) * signed(b, b_bits))


def test_split_multiplier(netlist: Callable[[Design], Netlist]) -> None:
    design = netlist(area.SPLIT)
    a, weight = grid(8, 8)
    whole = values(design, {"activation_low": a, "activation_high": a, "weight": weight, "split": np.zeros_like(a)})
    assert np.array_equal(signed(whole["low"], 16), signed(a, 8) * signed(weight, 8))
    assert not whole["high"].any()
    for other in (1, 77, 128, 255):
        b = (a * 31 + weight * 7 + other) & 255
        split = values(design, {"activation_low": a, "activation_high": b, "weight": weight, "split": np.ones_like(a)})
        assert np.array_equal(signed(split["low"], 16), signed(a, 8) * signed(weight, 4))
        assert np.array_equal(signed(split["high"], 12), signed(b, 8) * signed(weight >> 4, 4))


@pytest.mark.parametrize("design", [area.ONE_TERM, area.ONE_TERM_EARLY], ids=lambda design: design.name)
def test_one_term(design: Design, netlist: Callable[[Design], Netlist]) -> None:
    a, code = grid(8, 4)
    total = values(netlist(design), {"activation": a, "code": code})["total"]
    assert np.array_equal(signed(total, 18), term(signed(a, 8), code, 3, single=True))


def test_folded_term(netlist: Callable[[Design], Netlist]) -> None:
    a, code = grid(8, 4)
    out = values(netlist(area.FOLDED_TERM), {"activation": a, "code": code})
    assert np.array_equal(signed(out["term"], 16) + out["carry"], term(signed(a, 8), code, 3, single=True))


@pytest.mark.parametrize("design", [area.TWO_TERMS, area.TWO_TERMS_EARLY], ids=lambda design: design.name)
def test_two_terms(design: Design, netlist: Callable[[Design], Netlist]) -> None:
    a, code = grid(8, 8)
    total = values(netlist(design), {"activation": a, "code": code})["total"]
    expected = sum(term(signed(a, 8), code >> place, 3, single=False) for place in (0, 4))
    assert np.array_equal(signed(total, 18), expected)


def test_slot_of_any_format(netlist: Callable[[Design], Netlist]) -> None:
    design = netlist(area.SHIFT_SLOT)
    a, code = grid(8, 8)
    for flags in range(16):
        enable, narrow, single = flags & 3, flags >> 2 & 1, flags >> 3
        settings = {"enable": enable, "narrow": narrow, "single": single}
        total = values(
            design,
            {"activation": a, "code": code} | {name: np.full_like(a, value) for name, value in settings.items()},
        )["total"]
        expected = np.zeros_like(a)
        for k in (0, 1):
            if enable >> k & 1:
                expected += term(signed(a, 8), code >> 4 * k, 2 if narrow else 3, bool(single))
        assert np.array_equal(signed(total, 18), expected)


@pytest.mark.parametrize("design", area.ADDERS, ids=lambda design: design.name)
def test_adders_wrap(design: Design, netlist: Callable[[Design], Netlist]) -> None:
    bits = dict(design.parameters)["BITS"]
    a, b = np.random.default_rng(2).integers(0, 1 << bits, (2, 50_000))
    assert np.array_equal(values(netlist(design), {"a": a, "b": b})["sum"], a + b & (1 << bits) - 1)


@pytest.mark.parametrize("design", [*area.ACCUMULATORS, *area.MAC_PES, *area.SHIFT_PES], ids=lambda design: design.name)
def test_sums_over_cycles(design: Design, netlist: Callable[[Design], Netlist]) -> None:
    """64 cycles of 200 sequences: a sum begins with `first` and has every operand since; registers delay operands."""
    circuit = netlist(design)
    widths = {name: len(port["bits"]) for name, port in circuit.ports.items() if port["direction"] == "input"}
    bits = len(circuit.ports["sum"]["bits"])
    rng, state = np.random.default_rng(3), circuit.start(200)
    expected = product = np.zeros(200, np.int64)
    for cycle in range(64):
        operands = {name: rng.integers(0, 1 << width, 200) for name, width in widths.items()}
        first = operands["first"] = np.where(rng.random(200) < (0.1 if cycle else 1.1), 1, 0)
        found = circuit.step(operands, state)["sum"]
        if cycle:
            assert np.array_equal(signed(found, bits), signed(expected, bits))
        if "value" in operands:
            product = signed(operands["value"], bits)
        expected = np.where(first, 0, expected) + product
        if "a" in operands:
            product = signed(operands["a"], widths["a"]) * signed(operands["b"], widths["b"])
        elif "code" in operands:
            product = term(signed(operands["activation"], 8), operands["code"], 3, single=True)


def test_slots_equal_the_arithmetic_of_the_engines(rtl_folder: Path, tmp_path: Path) -> None:
    """Verilator: the modules against the functions that slot_array calls, over all operands."""
    files = [area.FOLDER / "engine_pkg.sv", *sorted(area.SOURCES.glob("*.sv")), BENCH]
    command = ["verilator", "--binary", "-Wall", "-Wno-UNUSEDPARAM", "--top-module", BENCH.stem]
    command += ["--Mdir", str(tmp_path), "-o", "bench", *(str(path) for path in files)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    done = subprocess.run([str(tmp_path / "bench")], capture_output=True, text=True, check=True)
    assert "differ 0 of 9699328" in done.stdout, done.stdout


@pytest.mark.parametrize("path", sorted(area.SOURCES.glob("*.sv")), ids=lambda path: path.stem)
def test_every_module_is_lint_clean(path: Path, rtl_folder: Path) -> None:
    command = ["verilator", "--lint-only", "-Wall", "-y", str(area.SOURCES), "--top-module", path.stem, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_source_belongs_to_a_design() -> None:
    assert {path.stem for path in area.SOURCES.glob("*.sv")} == {design.module for design in area.DESIGNS}


def test_the_suite(netlist: Callable[[Design], Netlist]) -> None:
    cases = suite.cases()
    assert not [case for case in cases if not case.met]
    assert {case.name for case in cases} == {design.name for design in area.DESIGNS}
    ours = {case.name: case.ours for case in cases}
    # What docs/area.md says of splitting, and of formats chosen at run time.
    assert ours[area.SPLIT.name] == pytest.approx(1.097, abs=0.005)
    assert ours[area.SHIFT_SLOT.name] / ours[area.TWO_TERMS.name] == pytest.approx(1.18, abs=0.02)


def test_the_page_has_every_case(netlist: Callable[[Design], Netlist]) -> None:
    """Another version of yosys may change the last digits of ours."""
    lines = [line.split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    shown = {line[0].removeprefix("| "): line[1:] for line in lines[1:]}
    cases = suite.cases()
    assert list(shown) == [case.name for case in cases]
    for case in cases:
        quantity, reference, ours = shown[case.name][:3]
        assert quantity == case.quantity
        assert float(reference) == pytest.approx(case.reference, rel=1e-3)
        assert float(ours) == pytest.approx(case.ours, rel=0.02)


def test_without_yosys_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(area, "yosys_path", lambda: None)
    with pytest.raises(AccelsimError, match="yosys is not installed"):
        area.area_um2(area.SPLIT)


def test_a_cell_without_an_area_is_an_error(
    netlist: Callable[[Design], Netlist], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = tmp_path / area.LIBRARY.name
    library.write_text(area.LIBRARY.read_text().replace("    area : 4.522;\n", ""))
    monkeypatch.setattr(area, "LIBRARY", library)
    with pytest.raises(AccelsimError, match=r"no area for .*DFF_X1"):
        area.area_um2(area.MAC_PES[0])


def by_name(cell: str, pins: dict[str, bool]) -> bool:
    """What a cell of that name computes: AOI and OAI have a digit per group of pins, a letter names the group."""
    kind, digits = re.fullmatch(r"([A-Z]+)(\d*)_X1", cell).groups()  # type: ignore[union-attr]
    if kind == "MUX":
        return pins["B"] if pins["S"] else pins["A"]
    if kind in ("AOI", "OAI"):
        groups = {name[0]: [value for other, value in pins.items() if other[0] == name[0]] for name in pins}
        assert sorted(map(len, groups.values()), reverse=True) == [int(digit) for digit in digits]
        inner, outer = (all, any) if kind == "AOI" else (any, all)
        return not outer(inner(group) for group in groups.values())
    assert len(pins) == int(digits or 1)
    found = {"AND": all, "OR": any, "XOR": lambda values: sum(values) % 2 == 1, "INV": all, "BUF": all}
    inverts = kind in ("NAND", "NOR", "XNOR", "INV")
    return bool(found[kind if kind in found else kind.replace("N", "", 1)](list(pins.values()))) != inverts


def test_cells_do_what_their_names_say_and_fill_whole_sites() -> None:
    cells = re.findall(r"cell \((\w+)\) {\s*area : ([\d.]+);(.*?)\n  }", area.LIBRARY.read_text(), re.DOTALL)
    assert len(cells) == 29
    for name, area_um2, body in cells:
        # A site of the library is 0.19 µm × 1.4 µm.
        assert float(area_um2) / 0.266 == pytest.approx(round(float(area_um2) / 0.266))
        if name == "DFF_X1":
            continue
        inputs = re.findall(r"pin \((\w+)\) { direction : input; }", body)
        (function,) = re.findall(r'function : "(.*)"', body)
        python = function.replace("!", " not ").replace("&", " and ").replace("|", " or ").replace("^", " != ")
        for levels in itertools.product((False, True), repeat=len(inputs)):
            pins = dict(zip(inputs, levels, strict=True))
            assert bool(eval(python, {}, pins)) == by_name(name, pins), name
