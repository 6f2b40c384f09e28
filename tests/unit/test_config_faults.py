"""One test per fault of an accelerator or plan, with its field and suggestion; the JSON Schema and the docs agree."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from accelsim import config
from accelsim.arch import Dram
from accelsim.config_fields import FIELDS, KINDS
from accelsim.config_yaml import read_source
from accelsim.formats import Format
from accelsim.technology import load_technology
from tests.support.config_files import fault_of, plan_data, preset_data, problems_of, set_path, write

DOCS = Path(__file__).parents[2] / "docs" / "accelerators.md"


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
    ({"engines[0].modes[0].weight_bits": 9, "engines[0].modes[0].products": 1}, "engines[0].modes", "not sorted"),
    ({"engines[0].modes[0].weight_bits": 8, "engines[0].modes[0].products": 1}, "engines[0].modes", "same widths"),
    ({"engines[0].modes[0].products": 3}, "engines[0].modes[0].products", "do not fit a multiplier"),
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


def test_seven_modes_are_too_many() -> None:
    data = preset_data()
    data["engines"][0]["modes"] = [{"weight_bits": bits, "activation_bits": 8} for bits in range(2, 9)]
    problem = fault_of(data)
    assert problem.where == "here: engines[0].modes"
    assert problem.what == "the list has 7 entries"


@pytest.mark.parametrize("bandwidth", [153_600_000_001, 19_999_999_999, 150_000_001])
def test_suggested_bandwidth_is_accepted_and_near(bandwidth: int) -> None:
    data = preset_data()
    data["dram"]["bandwidth_bits_per_s"] = bandwidth
    (lever,) = fault_of(data).levers
    suggestion = int(lever.removeprefix("bandwidth_bits_per_s: "))
    assert abs(suggestion - bandwidth) <= bandwidth / 1000
    data["dram"]["bandwidth_bits_per_s"] = suggestion
    assert config.accelerator_from_data(data).bus_ticks().per_cycle < 1 << 20


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


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, value, _, _ in FIELD_FAULTS])
def test_schema_rejects_field_faults(path: str, value: Any) -> None:
    data = {"format": KINDS["accelerator"][0], **preset_data()}
    set_path(data, path, value)
    assert not accepts(config.json_schema("accelerator"), data)


@pytest.mark.parametrize(
    ("path", "value"), [(path, value) for path, value, _, _ in PLAN_FAULTS if not path.endswith("match")]
)
def test_schema_rejects_plan_faults(path: str, value: Any) -> None:
    data = plan_data()
    set_path(data, path, value)
    assert not accepts(config.json_schema("plan"), data)


def test_schema_is_json_and_knows_its_kinds() -> None:
    for kind in KINDS:
        assert json.loads(json.dumps(config.json_schema(kind)))["title"] == KINDS[kind][0]
    (problem,) = problems_of(config.json_schema, "plans")
    assert problem.levers == ("plan",)


def test_dram_types_are_those_with_an_energy() -> None:
    types = FIELDS[Dram]["type"].choices
    assert set(types) == set(load_technology(28).dram_pj_per_bit)


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
    assert kinds == {names[0] for names in KINDS.values()}


# --- the two kinds of DRAM -----------------------------------------------------------------------------------------

BANKED_FAULTS = [
    ({"device": "DDR4-2401"}, "dram.device", "found the text 'DDR4-2401'", "DDR4-2400"),
    ({"device": "HBM2", "channels": 3}, "dram.channels", "found 3", "2"),
    ({"device": "HBM2", "channels": 128}, "dram.channels", "found 128", ""),
    ({"device": "HBM2", "model": "bank"}, "dram.model", "found the text 'bank'", "banked"),
    ({"model": "banked"}, "dram.device", "the field is missing", ""),
    ({"device": "HBM2", "chanels": 2}, "dram.chanels", "unknown field", "channels"),
    ({"device": "HBM2", "burst_bits": 512, "channels": 2}, "dram.burst_bits", "unknown field", ""),
]


@pytest.mark.parametrize(("dram", "field", "what", "lever"), BANKED_FAULTS)
def test_faults_of_banked_dram(dram: dict[str, Any], field: str, what: str, lever: str) -> None:
    data = preset_data()
    data["dram"] = dram
    problem = fault_of(data)
    assert problem.where == f"here: {field}"
    assert what in problem.what
    assert lever in problem.levers or not lever


def test_clock_that_does_not_fit_the_device_clock() -> None:
    data = preset_data()
    data["dram"], data["clock_hz"] = {"device": "DDR4-2400"}, 199_999_991
    problem = fault_of(data)
    assert problem.where == "here: clock_hz"
    assert "too fine a unit of time" in problem.what
    data["clock_hz"] = int(problem.levers[0])
    assert config.accelerator_from_data(data).bus_ticks().per_cycle < 1 << 20


def test_banked_dram_survives_the_file(tmp_path: Path) -> None:
    design = config.load_accelerator("m2vit_lpddr5_banked")
    assert config.load_accelerator(write(tmp_path, config.dump_accelerator(design))) == design
    assert config.accelerator_from_data(design.to_json()) == design
    alternatives = config.json_schema("accelerator")["properties"]["dram"]["anyOf"]
    assert [next(iter(each["properties"])) for each in alternatives] == ["bandwidth_bits_per_s", "device"]
