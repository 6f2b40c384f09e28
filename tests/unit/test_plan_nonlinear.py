"""The methods of softmax, GELU and LayerNorm in a plan: files, fingerprints, recipes, costs and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from accelsim import config
from accelsim.api import simulate
from accelsim.bounds import design_bound
from accelsim.counts import count_columns
from accelsim.formats import Format
from accelsim.ir import Loop, Tensor, VectorKind, VectorPass, Workload
from accelsim.nonlinear import methods
from accelsim.nonlinear.methods import Method
from accelsim.optable import op_table
from accelsim.plan import PLAN_FORMAT, QuantPlan, Rule, apply_plan
from accelsim.workloads import build_workload, recipes
from accelsim.workloads.builder import WorkloadBuilder
from accelsim.workloads.separate import separate_activations
from tests.support.config_files import plan_data, problems_of, write

U16 = Format.parse("u16")
TWO_PASSES = (VectorPass(((VectorKind.ADD, 2),)), VectorPass(((VectorKind.MUL, 3),), ((VectorKind.DIVISION, 1),)))
METHODS = (
    Method("softmax", "slow", TWO_PASSES, 8),
    Method("layernorm", "slow", TWO_PASSES, 16),
    Method("gelu", "slow", (VectorPass(((VectorKind.MUL, 5),)),), 8),
    Method("gelu", "table", (VectorPass(((VectorKind.TABLE, 1),)),), 8),
    Method("softmax", "fqvit", TWO_PASSES, 8),
)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry of our own: what the program offers has its own tests."""
    methods.method_names()
    monkeypatch.setattr(methods, "_METHODS", {(method.function, method.name): method for method in METHODS})


def plan_of(*rules: Rule, **fields: Any) -> QuantPlan:
    return QuantPlan("with methods", (*rules, Rule("*")), **fields)


def vit(separate: bool = True) -> Workload:
    workload = build_workload("deit_tiny", 64)
    return separate_activations(workload) if separate else workload


# --- files and fingerprints ----------------------------------------------------------------------------------------


def test_round_trip_and_fingerprint(tmp_path: Path) -> None:
    plan = plan_of(Rule("class:softmax", nonlinear="slow"))
    text = config.dump_plan(plan)
    assert "nonlinear: slow" in text
    assert text.count("nonlinear") == 1
    assert config.load_plan(write(tmp_path, text)) == plan
    assert config.load_plan(write(tmp_path, json.dumps(plan.to_json()), "a.json")) == plan
    others = {plan_of(Rule("class:softmax", nonlinear=name)).fingerprint() for name in ("", "fqvit", "slow")}
    assert len(others) == 3
    assert plan_of(Rule("class:softmax")).fingerprint() in others


def test_a_misspelt_method_in_a_file_has_its_line_and_the_nearest_name(tmp_path: Path) -> None:
    path = write(tmp_path, f"format: {PLAN_FORMAT}\nname: x\nrules:\n  - match: '*'\n    nonlinear: slwo\n")
    (problem,) = problems_of(config.load_plan, path)
    assert problem.where == f"{path}:5: rules[0].nonlinear"
    assert problem.expected == "one of fqvit, slow, table"
    assert problem.levers == ("slow",)
    (old,) = problems_of(
        config.load_plan, write(tmp_path, path.read_text().replace("slwo", "slow").replace("/2", "/1"))
    )
    assert old.levers == (PLAN_FORMAT,)
    (number,) = problems_of(config.plan_from_data, {**plan_data("uniform8"), "rules": [{"match": "*", "nonlinear": 3}]})
    assert number.what == "found 3"


# --- what a method changes -----------------------------------------------------------------------------------------


def test_a_method_replaces_the_recipe_of_the_ops_that_have_the_function() -> None:
    workload = vit()
    quantized = apply_plan(workload, plan_of(Rule("b0.*", nonlinear="slow")))
    for item, op in zip(quantized.ops, (op for op in workload.ops if op.kind != "view"), strict=True):
        named = item.op.name.startswith("b0.") and op.op_class in ("softmax", "layernorm", "gelu")
        assert item.nonlinear == ("slow" if named else "")
        assert item.function == (op.op_class if op.op_class in ("softmax", "layernorm", "gelu") else "")
        if not named:
            assert item.op == op
            continue
        assert op.recipe is not None
        passes = next(method.passes for method in METHODS if (method.function, method.name) == (op.op_class, "slow"))
        assert item.op.recipe == replace(op.recipe, name=f"{op.op_class}_slow", passes=passes)
    assert sum(bool(item.nonlinear) for item in quantized.ops) == 4


def test_the_vector_unit_is_charged_for_the_method() -> None:
    design, workload = config.load_accelerator("m2vit"), vit()
    plain, slow = (op_table(workload, plan_of(Rule("class:gelu", nonlinear=name))) for name in ("table", "slow"))
    elements = sum(op.recipe.elements for op in workload.ops if op.op_class == "gelu" and op.recipe)
    one, other = (simulate(table, design).result.counts.sum(axis=0) for table in (plain, slow))
    difference = dict(zip(count_columns(design), (other - one).tolist(), strict=True))
    assert {name: count for name, count in difference.items() if count} == {
        "vector_mul": 5 * elements,
        "vector_table": -elements,
    }


def test_a_layernorm_of_a_method_keeps_its_parameters_of_channels() -> None:
    workload = vit()
    for name in ("", "slow"):
        rule = Rule("b0.norm1", granularity="channel_scale", nonlinear=name)
        (problem,) = problems_of(apply_plan, workload, plan_of(rule))
        assert "its reader" in problem.what  # the producer may, the reader may not
    softmax = Rule("b0.softmax", granularity="channel_scale", nonlinear="slow")
    found = problems_of(apply_plan, workload, plan_of(softmax))
    assert "which has one multiplier" in found[0].what


# --- what is refused -----------------------------------------------------------------------------------------------


def faults(workload: Workload, *rules: Rule) -> list[tuple[str, str]]:
    found = problems_of(apply_plan, workload, plan_of(*rules))
    assert all(problem.expected or problem.gap is not None for problem in found)
    return [(problem.where.removeprefix("plan with methods: "), problem.what) for problem in found]


def test_a_method_that_the_function_does_not_have() -> None:
    (problem,) = problems_of(apply_plan, vit(), plan_of(Rule("b0.norm1", nonlinear="slo")))
    assert (problem.where, problem.levers) == ("plan with methods: b0.norm1", ("slow",))
    assert faults(vit(), Rule("b0.softmax", nonlinear="table")) == [("b0.softmax", "no method 'table' of softmax")]
    (problem,) = problems_of(apply_plan, vit(), plan_of(Rule("b0.*.gelu", nonlinear="fqvit")))
    assert problem.what == "fqvit has no integer GELU: it computes it in floating point"
    assert problem.levers == ("nonlinear: slow", "nonlinear: table")


def test_an_op_without_the_function() -> None:
    """A fault where the rule names the op, or where it reaches no op with a function."""
    assert faults(vit(), Rule("b0.fc2", nonlinear="slow")) == [
        ("rule b0.fc2", "nonlinear: slow for b0.fc2 (mlp), without a function that has methods")
    ]
    assert faults(vit(), Rule("*.fc2", nonlinear="slow")) == [
        ("rule *.fc2", "nonlinear: slow for b0.fc2 (mlp) and 11 more, without a function that has methods")
    ]
    assert apply_plan(vit(), plan_of(Rule("*.fc[12]*", nonlinear="slow")))
    (problem,) = problems_of(
        apply_plan, build_workload("efficientvit_b0"), plan_of(Rule("class:layernorm", nonlinear="slow"))
    )
    assert "for head.norm (layernorm_hardswish)" in problem.what


@pytest.mark.parametrize("match", ["*", "b0.fc1", "*.fc1", "class:gelu", "b0.fc1.gelu", "*.gelu"])
def test_a_gelu_that_is_a_table_of_the_output_stage(match: str) -> None:
    found = problems_of(apply_plan, vit(separate=False), plan_of(Rule(match, nonlinear="slow")))
    assert {problem.what for problem in found} == {"slow for its GELU, which is a table of the output stage"}
    assert found[0].where == "plan with methods: b0.fc1"
    assert found[0].levers[0] == "--separate gelu"
    assert apply_plan(vit(separate=False), plan_of(Rule("class:softmax", nonlinear="slow")))
    assert apply_plan(vit(separate=False), plan_of(Rule("class:gelu", nonlinear="table")))


def test_an_input_wider_than_the_method() -> None:
    wide = Rule("b0.scores", output=U16)
    (problem,) = problems_of(apply_plan, vit(), plan_of(wide, Rule("b0.softmax", nonlinear="slow")))
    assert (problem.demand, problem.bound, problem.unit) == (16, 8, "bits")
    assert "slow of softmax reads" in problem.what
    assert apply_plan(vit(), plan_of(Rule("b0.attn_add", output=U16), Rule("b0.norm2", nonlinear="slow")))


# --- log2 codes ----------------------------------------------------------------------------------------------------

LOG4 = Format.parse("log4")
CODES = Rule("class:softmax", nonlinear="fqvit", output=LOG4)


def test_log2_codes_round_trip_and_only_as_an_output(tmp_path: Path) -> None:
    plan = plan_of(CODES)
    assert config.load_plan(write(tmp_path, config.dump_plan(plan))) == plan
    for field in ("activation", "right", "weights"):
        data = {**plan_data("uniform8"), "rules": [{"match": "*", field: "log4"}]}
        (problem,) = problems_of(config.plan_from_data, data, "here")
        assert problem.where.startswith(f"here: rules[0].{field}")
    assert "log4" in config.json_schema("plan")["properties"]["rules"]["items"]["properties"]["output"]["enum"]


def test_log_int_softmax_and_log2_codes_go_together() -> None:
    assert apply_plan(vit(), plan_of(CODES)).activation_bits["b0.softmax"] == 4
    assert faults(vit(), Rule("b0.softmax", nonlinear="fqvit")) == [
        ("b0.softmax", "fqvit of softmax stored as u8, but its results are log2 codes")
    ]
    assert faults(vit(), Rule("b0.softmax", nonlinear="slow", output=LOG4)) == [
        ("b0.softmax", "output log4 of an op that makes no log2 codes")
    ]
    assert faults(vit(), Rule("b0.fc2", output=LOG4)) == [
        ("b0.fc2", "output log4 of an op that makes no log2 codes"),
        ("b0.mlp_add", "reads the log2 codes of b0.fc2"),
    ]


@pytest.mark.parametrize("left", [True, False])
def test_log2_codes_are_the_left_operand_of_a_product(left: bool) -> None:
    net = WorkloadBuilder("net", 4, 16)
    scores = net.vector("soft", "softmax", (net.input,), recipes.softmax(1, 16, 1, 16), Tensor("soft", 16, 1, 16))
    shares = net.view("shares", (scores,), 16, 1, 16)
    values = net.conv("v", "pw", net.input, 16)
    pair = (shares, values) if left else (values, shares)
    workload = net.build(net.matmul("av", "attn_values", *pair, Loop(1, rows_h=16, rows_w=1, cols=16, depth=16)))
    if left:
        assert apply_plan(workload, plan_of(CODES)).ops[-1].activation == LOG4
    else:
        assert faults(workload, CODES) == [("av", "reads the log2 codes of soft")]


def test_products_with_log2_codes_run_on_the_dynamic_shift_array() -> None:
    """Counts of the whole network, and the levers on a design that cannot."""
    workload, design = vit(), config.load_accelerator("m2vit_nonlinear")
    table = op_table(workload, plan_of(CODES))
    report = simulate(table, design)
    macs = sum(op.macs for op in workload.ops if op.op_class == "attn_values")
    counts = dict(zip(count_columns(design), report.result.counts.sum(axis=0).tolist(), strict=True))
    assert counts["shift.products_4"] > 0
    assert counts["shift.products_4"] + counts["mult.products_2"] == macs
    assert counts["mult.products_1"] == workload.macs - macs
    assert design_bound(table, report.engines, design).cycles <= report.result.cycles_total
    found = problems_of(simulate, table, config.load_accelerator("m2vit"))
    assert found[0].what == "no engine executes u8 weights with log4 activations"
    assert found[0].levers[:2] == ("dynamic_shift: true on a shift_array", "a mode of 16-bit activations")


def test_wide_attention_shares_run_in_two_passes() -> None:
    workload, design = vit(), config.load_accelerator("m2vit_nonlinear")
    table = op_table(workload, plan_of(Rule("class:softmax", output=U16)))
    report = simulate(table, design)
    macs = sum(op.macs for op in workload.ops if op.op_class == "attn_values")
    counts = dict(zip(count_columns(design), report.result.counts.sum(axis=0).tolist(), strict=True))
    assert (counts["mult.products_1"], counts["mult.products_2"]) == (workload.macs - macs, macs)
    assert design_bound(table, report.engines, design).cycles <= report.result.cycles_total
