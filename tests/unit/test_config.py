"""Accelerator and plan files: presets, round trips, and one test per fault with its line, field and suggestion."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim import config
from accelsim.arch import Accelerator
from accelsim.config_fields import FIELDS, KINDS
from accelsim.config_yaml import read_source
from accelsim.formats import Format
from accelsim.plan import QuantPlan
from accelsim.plans import m2q
from accelsim.problems import AccelsimError, Problem

DOCS = Path(__file__).parents[2] / "docs" / "accelerators.md"


def preset_data(name: str = "m2vit") -> dict[str, Any]:
    return json.loads(json.dumps(config.load_accelerator(name).to_json()))


def plan_data(name: str = "m2q") -> dict[str, Any]:
    return config.load_plan(name).to_json()


def problems_of(load: Any, *args: Any) -> tuple[Problem, ...]:
    with pytest.raises(AccelsimError) as caught:
        load(*args)
    return caught.value.problems


def set_path(data: Any, path: str, value: Any) -> None:
    *parents, last = [int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", path)]
    for part in parents:
        data = data[part]
    data[last] = value


def fault_of(data: dict[str, Any], kind: str = "accelerator") -> Problem:
    """The only problem of the data."""
    build = config.accelerator_from_data if kind == "accelerator" else config.plan_from_data
    (problem,) = problems_of(build, data, "here")
    return problem


# --- presets and plans ---------------------------------------------------------------------------------------------


def test_names() -> None:
    assert config.preset_names() == ["m2vit", "m2vit_iso_area", "tiny", "trio_vit"]
    assert config.plan_names() == ["m2q", "uniform4", "uniform8", "w4a8"]


@pytest.mark.parametrize("name", config.preset_names())
def test_preset_ports_do_not_limit_any_mode(name: str) -> None:
    accelerator = config.load_accelerator(name)
    assert accelerator.name == name
    for engine in accelerator.engines:
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
    assert trio.ticks_per_cycle() == 3
    assert trio.first_beat_cycles() == 6


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
    tabbed.write_text(json.dumps({"format": KINDS["accelerator"], **accelerator.to_json()}, indent="\t"))
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
    path.write_text(json.dumps({"format": KINDS["accelerator"], **accelerator.to_json()}))
    assert config.load_accelerator(path).notes == notes


# --- faults of single fields ---------------------------------------------------------------------------------------

FIELD_FAULTS = [
    ("engines[1].lanes", "8", "found the text '8'", "8 without quotes"),
    ("engines[1].lanes", True, "found true", ""),
    ("engines[1].lanes", 8.0, "found the number 8.0", "8"),
    ("engines[1].lanes", 8.5, "found the number 8.5", ""),
    ("engines[1].lanes", float("nan"), "found the number nan", ""),
    ("engines[1].lanes", 0, "found 0", ""),
    ("engines[1].lanes", -8, "found -8", ""),
    ("engines[1].lanes", None, "found nothing", ""),
    ("engines[1].lanes", [8], "found a list of 1", ""),
    ("engines[0].depthwise", 1, "found 1", ""),
    ("engines[0].depthwise", "on", "found the text 'on'", "true"),
    ("engines[0].kind", "macarray", "found the text 'macarray'", "mac_array"),
    ("engines[0].name", "two words", "found the text 'two words'", ""),
    ("engines[0].accumulator_bits", 15, "found 15", ""),
    ("engines[0].accumulator_bits", 65, "found 65", ""),
    ("engines[1].terms", 4, "found 4", ""),
    ("engines[0].output_stage", 128, "found 128", ""),
    ("node_nm", 7, "found 7", ""),
    ("clock_hz", 999_999, "found 999999", ""),
    ("clock_hz", 5_000_000_001, "found 5000000001", ""),
    ("vector.division_per_cycle", (1 << 40) + 1, "found 1099511627777", ""),
    ("vector.division_per_cycle", 10**60, "found a number of 200 bits", ""),
    ("dram.burst_bits", 500, "found 500", "256"),
    ("dram.burst_bits", 8192, "found 8192", ""),
    ("dram.first_beat_latency_s", float("inf"), "found the number inf", ""),
    ("dram.first_beat_latency_s", -1e-9, "found the number -1e-09", ""),
    ("dram.type", "lpddr4", "found the text 'lpddr4'", "LPDDR4"),
    ("name", "", "found the text ''", ""),
    ("engines", [], "the list has 0 entries", ""),
    ("engines", {"mat": 1}, "found a mapping", ""),
    ("format", "accelsim.accelerator/2", "found the text 'accelsim.accelerator/2'", "accelsim.accelerator/1"),
]


@pytest.mark.parametrize(("path", "value", "what", "lever"), FIELD_FAULTS)
def test_field_fault(path: str, value: Any, what: str, lever: str) -> None:
    data = preset_data()
    set_path(data, path, value)
    problem = fault_of(data)
    assert problem.where == f"here: {path}"
    assert problem.what == what
    assert problem.expected
    assert problem.levers == ((lever,) if lever else ())


def test_integer_too_long_to_print() -> None:
    data = preset_data()
    data["vector"]["division_per_cycle"] = 10**5000
    data["dram"]["first_beat_latency_s"] = 10**5000
    found = problems_of(config.accelerator_from_data, data, "here")
    assert [problem.what for problem in found] == ["found a number of 16,610 bits"] * 2


def test_integer_is_a_number_where_a_fraction_is_allowed() -> None:
    data = preset_data()
    data["dram"]["first_beat_latency_s"] = 0
    latency = config.accelerator_from_data(data).dram.first_beat_latency_s
    assert latency == 0.0
    assert isinstance(latency, float)


def test_misspelt_field_is_one_fault() -> None:
    data = preset_data()
    data["engines"][1]["pixel_group"] = data["engines"][1].pop("pixel_groups")
    problem = fault_of(data)
    assert (problem.where, problem.what, problem.levers) == (
        "here: engines[1].pixel_group", "unknown field", ("pixel_groups",),
    )  # fmt: skip


@pytest.mark.parametrize(
    "path",
    ["name", "clock_hz", "engines[0].lanes", "engines[0].output_stage.outputs_per_cycle", "vector.mul_per_cycle"],
)
def test_missing_field(path: str) -> None:
    data = preset_data()
    parent, _, last = path.rpartition(".")
    holder = data
    for part in re.findall(r"[^.\[\]]+", parent):
        holder = holder[int(part) if part.isdigit() else part]
    del holder[last]
    problem = fault_of(data)
    assert (problem.where, problem.what) == (f"here: {path}", "the field is missing")


def test_optional_fields_take_the_dataclass_defaults() -> None:
    data = preset_data("trio_vit")
    for name in ("accumulator_bits", "terms"):
        del data["engines"][0][name]
    del data["notes"]
    assert config.accelerator_from_data(data) == config.load_accelerator("trio_vit")


# --- faults across fields ------------------------------------------------------------------------------------------

CROSS_FAULTS = [
    ({"engines[1].name": "mult"}, "engines[1].name", "another engine has this name"),
    ({"engines[0].name": "vector"}, "engines[0].name", "reserved"),
    ({"engines[0].name": "DRAM"}, "engines[0].name", "reserved"),
    ({"engines[0].modes": []}, "engines[0].modes", "without precision modes"),
    ({"engines[0].terms": 2}, "engines[0].terms", "no shift-add terms"),
    ({"engines[1].terms": 0}, "engines[1].terms", "without terms"),
    ({"engines[1].depthwise": True}, "engines[1].depthwise", "no depthwise mode"),
    ({"engines[1].modes": [{"weight_bits": 8, "activation_bits": 8}]}, "engines[1].modes", "no precision modes"),
    ({"engines[0].modes[0].weight_bits": 9}, "engines[0].modes", "not sorted"),
    ({"engines[0].modes[0].weight_bits": 8}, "engines[0].modes", "same widths"),
    ({"engines[0].lanes": 1 << 14}, "engines", "slots in all engines"),
    ({"weight_buffer.capacity_bits": 32768}, "weight_buffer.macro_bits", "a macro of 65,536 bits"),
    ({"weight_buffer.capacity_bits": 100_000}, "weight_buffer.capacity_bits", "not a whole number of macros"),
    ({"activation_buffer.word_bits": 100}, "activation_buffer.word_bits", "words of 100 bits"),
    ({"clock_hz": 199_999_991}, "dram.bandwidth_bits_per_s", "too fine a unit of time"),
    (
        {"clock_hz": 4_999_999_999, "dram.bandwidth_bits_per_s": 1_000_003, "dram.burst_bits": 4096},
        "dram.bandwidth_bits_per_s",
        "64-bit time could overflow",
    ),
]


@pytest.mark.parametrize(("changes", "path", "what"), CROSS_FAULTS)
def test_cross_fault(changes: dict[str, Any], path: str, what: str) -> None:
    data = preset_data()
    for name, value in changes.items():
        set_path(data, name, value)
    problem = fault_of(data)
    assert problem.where == f"here: {path}"
    assert what in problem.what
    assert problem.expected


def test_five_modes_are_too_many() -> None:
    data = preset_data()
    data["engines"][0]["modes"] = [{"weight_bits": bits, "activation_bits": 8} for bits in range(2, 7)]
    problem = fault_of(data)
    assert problem.where == "here: engines[0].modes"
    assert problem.what == "the list has 5 entries"


@pytest.mark.parametrize("bandwidth", [153_600_000_001, 19_999_999_999, 150_000_001])
def test_suggested_bandwidth_is_accepted_and_near(bandwidth: int) -> None:
    data = preset_data()
    data["dram"]["bandwidth_bits_per_s"] = bandwidth
    (lever,) = fault_of(data).levers
    suggestion = int(lever.removeprefix("bandwidth_bits_per_s: "))
    assert abs(suggestion - bandwidth) <= bandwidth / 1000
    data["dram"]["bandwidth_bits_per_s"] = suggestion
    assert config.accelerator_from_data(data).ticks_per_cycle() < 1 << 20


def test_checks_across_fields_run_beside_other_faults() -> None:
    data = preset_data()
    data["engines"][0].update(lanes="eight", name="dram")
    data["engines"][1]["terms"] = 0
    data["dram"]["burst_bits"] = 3
    places = [problem.where for problem in problems_of(config.accelerator_from_data, data, "x")]
    assert places == ["x: engines[0].lanes", "x: dram.burst_bits", "x: engines[0].name", "x: engines[1].terms"]


PLAN_FAULTS = [
    ("rules[0].weights[0].format", "u17", "found the text 'u17'", "u16"),
    ("rules[0].weights[0].format", "apot9", "found the text 'apot9'", "apot8"),
    ("rules[0].weights[0].format", 4, "found 4", "u4"),
    ("rules[0].activation", "apot8", "found the text 'apot8'", "u8"),
    ("rules[0].right", "u32", "found the text 'u32'", "u16"),
    ("rules[0].weights[0].share", 1.5, "found the number 1.5", ""),
    ("rules[0].weights[0].share", -0.5, "found the number -0.5", ""),
    ("rules[0].weights[0].share", "all", "found the text 'all'", ""),
    ("rules[0].weights[0].share", None, "found nothing", ""),
    ("division", "log2shift", "found the text 'log2shift'", "log2_shift"),
    ("rules[0].match", "clas:dw", "unknown prefix 'clas'", "class"),
    ("rules[0].match", "class:", "no class after `class:`", ""),
    ("rules[0].weights", [], "the list has 0 entries", ""),
    ("rules", [], "the list has 0 entries", ""),
]


@pytest.mark.parametrize(("path", "value", "what", "lever"), PLAN_FAULTS)
def test_plan_field_fault(path: str, value: Any, what: str, lever: str) -> None:
    data = plan_data()
    set_path(data, path, value)
    problem = fault_of(data, "plan")
    assert (problem.where, problem.what) == (f"here: {path}", what)
    assert problem.expected
    assert problem.levers == ((lever,) if lever else ())


def weights(*parts: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"format": name, "share": share} for name, share in parts]


PLAN_CROSS_FAULTS = [
    ("rules[1].weights", weights(("u8", 0.5), ("apot8", 0.4)), "rules[1].weights", "add up to 0.9"),
    ("rules[1].weights", weights(("u8", "balanced"), ("apot8", 0.5)), "rules[1].weights", "beside numbers"),
    ("rules[1].weights", weights(("u8", "balanced"), ("u4", "balanced")), "rules[1].weights", "compete"),
    ("rules[1].weights", weights(("u8", 0.5), ("u8", 0.5)), "rules[1].weights[1]", "listed twice"),
    ("rules[1].match", "class:dw", "rules[1].match", "earlier rule"),
    ("rules[5].match", "stem", "rules", "no rule matches"),
]


@pytest.mark.parametrize(("path", "value", "place", "what"), PLAN_CROSS_FAULTS)
def test_plan_cross_fault(path: str, value: Any, place: str, what: str) -> None:
    data = plan_data()
    set_path(data, path, value)
    problem = fault_of(data, "plan")
    assert problem.where == f"here: {place}"
    assert what in problem.what


def test_catch_all_before_other_rules() -> None:
    data = plan_data()
    data["rules"] = [data["rules"][-1], *data["rules"][:-1]]
    problem = fault_of(data, "plan")
    assert problem.where == "here: rules[0].match"
    assert "the 5 rules after it never apply" in problem.what


def test_numeric_shares_of_any_distinct_formats_are_allowed() -> None:
    data = plan_data()
    data["rules"][1]["weights"] = weights(("u8", 0.5), ("u4", 0.25), ("pot4", 0.25))
    shares = config.plan_from_data(data).rules[1].weights
    assert [part.format for part in shares] == [Format.parse(name) for name in ("u8", "u4", "pot4")]


# --- files ---------------------------------------------------------------------------------------------------------


def write(folder: Path, text: str | bytes, name: str = "a.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


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
    ("#" * ((1 << 18) + 1), 1, "larger than"),
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
    plan = config.dump_plan(m2q()).replace("format: accelsim.plan/1\n", "").replace("u4", "u40")
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


# --- JSON Schema and documentation ---------------------------------------------------------------------------------


def accepts(schema: dict[str, Any], value: Any) -> bool:
    """The part of JSON Schema that the export uses."""
    if "anyOf" in schema:
        return any(accepts(option, value) for option in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return value in schema.get("enum", [schema.get("const")])
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}
    if not isinstance(value, kinds[schema["type"]]) or (isinstance(value, bool) and schema["type"] != "boolean"):
        return False
    if schema["type"] == "object":
        known = schema["properties"]
        return (
            value.keys() <= known.keys()
            and set(schema["required"]) <= value.keys()
            and all(accepts(known[key], item) for key, item in value.items())
        )
    if schema["type"] == "array":
        return schema["minItems"] <= len(value) <= schema["maxItems"] and all(
            accepts(schema["items"], v) for v in value
        )
    if schema["type"] == "string":
        return re.search(schema.get("pattern", ""), value) is not None
    return schema["type"] == "boolean" or schema["minimum"] <= value <= schema["maximum"]


@pytest.mark.parametrize("name", [*config.preset_names(), *config.plan_names()])
def test_schema_accepts_what_comes_with_the_program(name: str) -> None:
    folder, kind = (config.PRESETS, "accelerator") if name in config.preset_names() else (config.PLANS, "plan")
    data, _ = read_source(folder / f"{name}.yaml")
    assert accepts(config.json_schema(kind), data)


@pytest.mark.parametrize(("path", "value", "what", "lever"), FIELD_FAULTS)
def test_schema_rejects_field_faults(path: str, value: Any, what: str, lever: str) -> None:
    data = {"format": KINDS["accelerator"], **preset_data()}
    set_path(data, path, value)
    assert not accepts(config.json_schema("accelerator"), data)


@pytest.mark.parametrize(("path", "value", "what", "lever"), [case for case in PLAN_FAULTS if "class" not in case[2]])
def test_schema_rejects_plan_faults(path: str, value: Any, what: str, lever: str) -> None:
    data = plan_data()
    schema = config.json_schema("plan")
    assert accepts(schema, data)
    if not path.endswith("match"):
        set_path(data, path, value)
        assert not accepts(schema, data)


def test_schema_is_json_and_knows_its_kinds() -> None:
    for kind in KINDS:
        assert json.loads(json.dumps(config.json_schema(kind)))["title"] == KINDS[kind]
    (problem,) = problems_of(config.json_schema, "plans")
    assert problem.levers == ("plan",)


def test_every_dataclass_field_has_a_meaning_and_a_place_in_the_docs() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for cls, specs in FIELDS.items():
        names = [member.name for member in dataclasses.fields(cls)]
        assert list(specs) == names, cls
        section = text.split(f"### {cls.__name__}\n", 1)[1].split("\n#", 1)[0]
        for name in names:
            assert f"| `{name}` |" in section, f"{cls.__name__}.{name}"


def test_examples_in_the_docs_are_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(format:.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    kinds = set()
    for block in blocks:
        path = write(tmp_path, block)
        assert config.check_file(path) == []
        kinds.add(yaml.safe_load(block)["format"])
    assert kinds == set(KINDS.values())


def test_loaders_leave_their_input_alone() -> None:
    data = preset_data()
    before = copy.deepcopy(data)
    config.accelerator_from_data(data)
    assert data == before
    assert isinstance(config.plan_from_data(plan_data()), QuantPlan)
