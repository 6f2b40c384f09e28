"""Accelerator and plan files: presets, plans, round trips, and text that cannot be read."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from accelsim import config
from accelsim.arch import Accelerator
from accelsim.area import accelerator_area
from accelsim.config_fields import KINDS
from accelsim.plan import QuantPlan
from accelsim.plans import m2q
from tests.support.config_files import plan_data, preset_data, problems_of, write

# --- presets and plans ---------------------------------------------------------------------------------------------


def test_names() -> None:
    known = {"bitfusion_edge", "gemmini_16", "m2vit", "m2vit_iso_area", "systolic_is", "systolic_os", "systolic_ws"}
    assert {*known, "tiny", "trio_vit"} <= set(config.preset_names())
    assert config.plan_names() == ["m2q", "uniform4", "uniform8", "w4a8", "w4a8_attn4", "w6a8_attn6"]


@pytest.mark.parametrize("name", config.preset_names())
def test_preset_ports_do_not_limit_any_mode(name: str) -> None:
    accelerator = config.load_accelerator(name)
    assert accelerator.name == name
    for engine in accelerator.engines:
        if engine.kind == "systolic_array":
            edge = 8 * max(engine.lanes, engine.lane_width)  # one operand per row and one per column, of 8 bits
            assert engine.activation_port_bits_per_cycle == engine.weight_port_bits_per_cycle == edge
            continue
        dense = engine.lane_width * engine.pixel_groups * 8
        depthwise = [engine.slots * mode.products * mode.activation_bits for mode in engine.modes if engine.depthwise]
        assert engine.activation_port_bits_per_cycle == max([dense, *depthwise])
        weights = [mode.products * mode.weight_bits for mode in engine.modes] or [8]
        assert engine.weight_port_bits_per_cycle == engine.lanes * engine.lane_width * max(weights)


def test_trio_vit_is_the_published_geometry() -> None:
    trio = config.load_accelerator("trio_vit")
    assert sum(engine.slots for engine in trio.engines) == 2048
    assert trio.clock_hz == 200_000_000
    assert trio.dram.bandwidth_bits_per_s == 8 * 19_200_000_000
    # A burst takes 2/3 cycle, the first beat 30 ns = 6 cycles.
    assert trio.bus_ticks() == (3, 2, 18, 0)


def engine_area_um2(accelerator: Accelerator) -> float:
    """Engine area by hand: Nangate 45 nm synthesis (Yosys 0.23), the formula in m2vit_iso_area.yaml."""
    total = 0.0
    for engine in accelerator.engines:
        multiplier = 465.2 * (1.125 if len(engine.modes) == 2 else 1)
        slot = multiplier if engine.modes else 297.4
        slot += 72.4 + 137.0 * 7 / 8 + (360.2 if engine.depthwise else 360.2 / 8)
        total += slot * engine.slots
    return total


def test_iso_area_is_the_largest_shift_engine_that_fits() -> None:
    bound = engine_area_um2(config.load_accelerator("trio_vit"))
    iso = config.load_accelerator("m2vit_iso_area")
    shift = iso.engines[1]
    larger = iso.replace(engines=(iso.engines[0], dataclasses.replace(shift, pixel_groups=shift.pixel_groups + 1)))
    assert engine_area_um2(iso) <= bound < engine_area_um2(larger)
    areas = [accelerator_area(design).total_mm2 for design in (iso, config.load_accelerator("trio_vit"), larger)]
    assert areas == sorted(areas)
    base = config.load_accelerator("m2vit")
    assert iso.engines[0] == base.engines[0]
    assert (iso.vector, iso.dram, iso.weight_buffer) == (base.vector, base.dram, base.weight_buffer)


def test_m2q_formats_by_class() -> None:
    rules = {
        rule.match: [(part.format.name, part.share) for part in rule.weights] for rule in config.load_plan("m2q").rules
    }
    mixed = [("u8", None), ("apot8", None)]
    assert rules == {
        "class:dw": [("u4", 1.0)],
        **{f"class:{name}": mixed for name in ("pw", "qkv", "proj", "mlp")},
        "*": [("u8", 1.0)],
    }


@pytest.mark.parametrize(("name", "weights", "activation"), [("uniform8", 8, 8), ("uniform4", 4, 4), ("w4a8", 4, 8)])
def test_uniform_plans(name: str, weights: int, activation: int) -> None:
    (rule,) = config.load_plan(name).rules
    assert [part.format.bits for part in rule.weights] == [weights]
    assert {rule.activation.bits, rule.output.bits, rule.right.bits} == {activation}


def test_m2q_ratio() -> None:
    plan = config.load_plan("m2q:0.25")
    assert plan == m2q(0.25)
    assert [(part.format.name, part.share) for part in plan.rules[1].weights] == [("u8", 0.75), ("apot8", 0.25)]
    assert plan.rules[0] == m2q().rules[0]
    assert [part.format.name for part in m2q(0).rules[1].weights] == ["u8"]
    assert [part.format.name for part in m2q(1.0).rules[1].weights] == ["apot8"]
    assert config.plan_from_data(plan.to_json()) == plan


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1))
def test_m2q_any_ratio_is_a_valid_plan(ratio: float) -> None:
    plan = m2q(ratio)
    assert config.plan_from_data(plan.to_json()) == plan
    assert config.load_plan(plan.name) == plan


@pytest.mark.parametrize("text", ["m2q:", "m2q:half", "m2q:1.5", "m2q:-0.1", "m2q:nan", "m2q:inf"])
def test_m2q_bad_ratio(text: str) -> None:
    (problem,) = problems_of(config.load_plan, text)
    assert problem.expected == "a number 0 … 1"


@pytest.mark.parametrize(
    ("load", "name", "lever"),
    [
        (config.load_accelerator, "trio_vt", "trio_vit"),
        (config.load_accelerator, "m2vit.yml", "m2vit"),
        (config.load_plan, "m2p:0.5", "m2q:0.5"),
        (config.load_plan, "uniform8:0.5", "uniform8"),
        (config.load_plan, "unifrm8", "uniform8"),
    ],
)
def test_unknown_name_suggests_a_known_one(load: Any, name: str, lever: str) -> None:
    (problem,) = problems_of(load, name)
    assert problem.where == name
    assert problem.levers == (lever,)


# --- round trips ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", config.preset_names())
def test_accelerator_round_trip(name: str, tmp_path: Path) -> None:
    accelerator = config.load_accelerator(name)
    path = tmp_path / "copy.yaml"
    path.write_text(config.dump_accelerator(accelerator), encoding="utf-8")
    assert config.load_accelerator(path) == accelerator
    assert config.accelerator_from_data(accelerator.to_json()) == accelerator
    tabbed = tmp_path / "copy.json"
    tabbed.write_text(json.dumps({"format": KINDS["accelerator"][0], **accelerator.to_json()}, indent="\t"))
    assert config.load_accelerator(str(tabbed)) == accelerator
    assert config.check_file(tabbed) == []


@pytest.mark.parametrize("name", [*config.plan_names(), "m2q:0.3"])
def test_plan_round_trip(name: str, tmp_path: Path) -> None:
    plan = config.load_plan(name)
    path = tmp_path / "copy.yaml"
    path.write_text(config.dump_plan(plan), encoding="utf-8")
    assert config.load_plan(path) == plan
    assert config.check_file(path) == []


@settings(max_examples=50, deadline=None)
@example(notes="\x85", name="tiny")
@example(notes="a\u2028 b\n\n  c\r\n", name="tiny")
@given(
    notes=st.text(),
    name=st.sampled_from(["1e6", "0x1F", "true", "null", "~", "a: b", "010", "- x", "2001-01-01", "é😀"]),
)
def test_any_text_survives_a_dump(notes: str, name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    accelerator = config.load_accelerator("tiny").replace(notes=notes, name=name)
    path = tmp_path_factory.mktemp("dump") / "a.yaml"
    path.write_text(config.dump_accelerator(accelerator), encoding="utf-8", newline="")
    back = config.load_accelerator(path)
    assert (back.name, back.notes) == (name, notes)
    path.write_text(json.dumps({"format": KINDS["accelerator"][0], **accelerator.to_json()}))
    assert config.load_accelerator(path).notes == notes


def test_loaders_leave_their_input_alone() -> None:
    data = preset_data()
    before = copy.deepcopy(data)
    config.accelerator_from_data(data)
    assert data == before
    assert isinstance(config.plan_from_data(plan_data()), QuantPlan)


# --- files ---------------------------------------------------------------------------------------------------------


def preset_text(name: str) -> str:
    return (config.PRESETS / f"{name}.yaml").read_text(encoding="utf-8")


def line_of(text: str, needle: str, nth: int = 0) -> int:
    return [number for number, line in enumerate(text.splitlines(), 1) if needle in line][nth]


def test_lines_of_all_faults_in_order(tmp_path: Path) -> None:
    text = (
        preset_text("m2vit")
        .replace("clock_hz: 200_000_000", "clock_hz: 200e6")
        .replace("kind: shift_array", "kind: shift")
    )
    text = text.replace("    terms: 2\n", "    terms: 2\n    terms: 3\n").replace("type: DDR4", "typ: DDR4")
    text = text.replace("  mul_per_cycle: 128\n", "")
    path = write(tmp_path, text)
    expected = [
        (line_of(text, "clock_hz"), "clock_hz"),
        (line_of(text, "kind: shift"), "engines[1].kind"),
        (line_of(text, "terms: 3"), "engines[1].terms"),
        (line_of(text, "vector:"), "vector.mul_per_cycle"),
        (line_of(text, "typ: DDR4"), "dram.typ"),
    ]
    found = [problem.where for problem in config.check_file(path)]
    assert found == [f"{path}:{line}: {name}" for line, name in expected]
    assert f"first on line {line_of(text, 'terms: 2')}" in config.check_file(path)[2].what
    assert [problem.where for problem in problems_of(config.load_accelerator, path)] == found


BAD_TEXTS = [
    ("", 1, "empty"),
    ("# only a comment\n", 1, "empty"),
    ("\n\n- a\n- b\n", 3, "found a list of 2"),
    ("just text", 1, "found the text 'just text'"),
    ("a: 1\nb: [1, 2\n", 3, "not valid YAML"),
    ("a: 1\n\tb: 2\n", 2, "not valid YAML"),
    ("a: 1\n---\nb: 2\n", 2, "not valid YAML"),
    ("a: *nowhere\n", 1, "not valid YAML"),
    ('a: "\\UFFFFFFFF"\n', 1, "not valid YAML"),
    ("a: " + "[" * 3000, 1, "nested deeper"),
    ("a: &a [*a]\n", 1, "nested deeper"),
    ("\n- 1" * 30_000, 20_001, "longer than 20,000 values"),
    (b"name: x\n\xff\xfe\x00\x01", 2, "not a text file: byte 0xff"),
    (b"name: x\nname\x00: y", 2, "not a text file: character"),
    (b"\x7fELF\x02\x01\x01" + bytes(range(256)), 2, "not a text file"),
    ("#" * ((1 << 22) + 1), 1, "larger than"),
]


@pytest.mark.parametrize(("text", "line", "what"), BAD_TEXTS)
def test_unreadable_text_is_one_clear_problem(text: str | bytes, line: int, what: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    for found in (
        config.check_file(path),
        problems_of(config.load_accelerator, path),
        problems_of(config.load_plan, path),
    ):
        (problem,) = found
        assert problem.where.startswith(f"{path}:{line}")
        assert what in problem.what


def test_alias_bomb_ends_quickly(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [" + ", ".join([f"*a{k - 1}"] * 10) + "]" for k in range(1, 9)]
    (problem,) = config.check_file(write(tmp_path, "\n".join(lines)))
    assert "longer than 20,000 values" in problem.what


def test_tabs_and_tags_and_strange_keys(tmp_path: Path) -> None:
    text = preset_text("tiny") + "? [1, 2]\n: 3\nnotes: !!python/none x\n'a b': 1\n5: 6\nnotés: 1\n"
    path = write(tmp_path, text)
    found = {problem.where.removeprefix(str(path)): problem.what for problem in config.check_file(path)}
    last = len(text.splitlines())
    assert found == {
        f":{last - 5}": "a list or mapping is used as a field name",
        f":{last - 3}: notes": "the tag 'tag:yaml.org,2002:python/none' is not supported for 'x'",
        f":{last - 2}: 'a b'": "unknown field",
        f":{last - 1}: '5'": "unknown field",
        f":{last}: 'not\\xe9s'": "unknown field",
    }


def test_many_faults_are_cut_short(tmp_path: Path) -> None:
    text = preset_text("tiny") + "".join(f"junk{k}: {k}\n" for k in range(80))
    found = config.check_file(write(tmp_path, text))
    assert len(found) == 51
    assert found[-1].what == "this and 29 more faults are not shown"


def test_missing_file_and_folder(tmp_path: Path) -> None:
    write(tmp_path, "", "design.yaml")
    (missing,) = problems_of(config.load_accelerator, tmp_path / "desing.yaml")
    assert missing.levers == (str(tmp_path / "design.yaml"),)
    (folder,) = problems_of(config.load_accelerator, tmp_path)
    assert "cannot be read" in folder.what
    (gone,) = config.check_file(tmp_path / "none.yaml")
    assert "cannot be read" in gone.what
    for name in ("", "a\0b", "x" * 5000):
        assert problems_of(config.load_accelerator, name)


def test_file_of_the_other_kind(tmp_path: Path) -> None:
    path = write(tmp_path, config.dump_plan(m2q()))
    (problem,) = problems_of(config.load_accelerator, path)
    assert (problem.where, problem.expected) == (f"{path}:1: format", "accelsim.accelerator/1")
    (back,) = problems_of(config.load_plan, config.PRESETS / "tiny.yaml")
    assert "accelsim.accelerator/1" in back.what


def test_check_file_without_format_decides_by_content(tmp_path: Path) -> None:
    plan = config.dump_plan(m2q()).replace("format: accelsim.plan/2\n", "").replace("u4", "u40")
    found = config.check_file(write(tmp_path, plan))
    assert sorted(problem.where.rsplit(": ", 1)[1] for problem in found) == ["format", "rules[0].weights[0].format"]
    (unknown,) = config.check_file(write(tmp_path, "format: accelsim.plam/1\n"))
    assert unknown.levers == ("accelsim.plan/1",)


def test_a_name_means_the_preset_and_a_path_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = config.load_accelerator("tiny").replace(clock_hz=250_000_000)
    write(tmp_path, config.dump_accelerator(other), "tiny")
    monkeypatch.chdir(tmp_path)
    assert config.load_accelerator("tiny").clock_hz == 500_000_000
    assert config.load_accelerator("./tiny").clock_hz == 250_000_000
    assert config.load_accelerator(Path("tiny")).clock_hz == 250_000_000
