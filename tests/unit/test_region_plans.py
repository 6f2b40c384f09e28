"""Two-region codes in plans: names in files, who may store and read them, what storing them costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from accelsim import config
from accelsim.api import simulate
from accelsim.arch import VectorUnit
from accelsim.bounds import design_bound
from accelsim.counts import count_columns
from accelsim.engines.tile import decoded
from accelsim.formats import Format
from accelsim.ir import Loop, Tensor, VectorKind, Workload
from accelsim.nonlinear.methods import method_of
from accelsim.nonlinear.program import Builder, run_program
from accelsim.nonlinear.regions import region_pass
from accelsim.optable import op_table
from accelsim.plan import PLAN_FORMAT, QuantPlan, Rule, apply_plan
from accelsim.workloads import build_workload, recipes
from accelsim.workloads.builder import WorkloadBuilder
from accelsim.workloads.separate import separate_activations
from tests.support.config_files import problems_of, write

SHARES, GELUS = Format.parse("r6p5"), Format.parse("r6n4")
UNIT = VectorUnit(8, 8, 8, 8, 4, 2)


def plan_of(*rules: Rule) -> QuantPlan:
    return QuantPlan("regions", (*rules, Rule("*")))


def vit() -> Workload:
    return build_workload("deit_tiny", 64)


def faults(workload: Workload, *rules: Rule) -> list[tuple[str, str, tuple[str, ...]]]:
    found = problems_of(apply_plan, workload, plan_of(*rules))
    return [(problem.where.rpartition(" ")[2], problem.what, problem.levers) for problem in found]


# --- files ---------------------------------------------------------------------------------------------------------


def test_round_trip_and_fingerprint(tmp_path: Path) -> None:
    plan = plan_of(Rule("class:softmax", output=SHARES), Rule("b*.fc1", output=GELUS))
    text = config.dump_plan(plan)
    assert "output: r6p5" in text
    assert config.load_plan(write(tmp_path, text)) == plan
    names = ("u6", "r6p5", "r6p4", "r5p5", "r6n5")
    assert len({plan_of(Rule("a", output=Format.parse(name))).fingerprint() for name in names}) == len(names)
    assert config.load_plan("uniform8").fingerprint() == "29c08b1bee6750e1"  # of the version before these formats


@pytest.mark.parametrize("name", ["r2p4", "r9n1", "r6p16", "r6q4"])
def test_an_unknown_format_is_told_the_known_ones_in_short(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, f"format: {PLAN_FORMAT}\nname: x\nrules:\n  - match: '*'\n    output: {name}\n")
    (problem,) = problems_of(config.load_plan, path)
    assert problem.where == f"{path}:5: rules[0].output"
    assert problem.expected.endswith("log4, r3p0 … r8n15 (p: both regions ≥ 0, n: the fine one negative)")


def test_a_region_shift_is_of_a_multiplier_array_and_takes_count_columns(tmp_path: Path) -> None:
    design, base = config.load_accelerator("m2vit_regions"), config.load_accelerator("m2vit_nonlinear")
    assert design.fingerprint() != base.fingerprint()
    mult, shift = base.engines
    assert design.engines == (type(mult)(**{**mult.__dict__, "region_shift": 8}), shift)
    assert design.replace(engines=base.engines, name=base.name) == base
    text = config.dump_accelerator(design)
    assert config.load_accelerator(write(tmp_path, text)) == design
    other = config.dump_accelerator(config.load_accelerator("systolic_os")).replace(
        "region_shift: 0", "region_shift: 3"
    )
    (wrong,) = problems_of(config.load_accelerator, write(tmp_path, other))
    assert (wrong.what, wrong.expected) == ("a systolic_array has no `region_shift`", "0, or kind: mac_array")
    more = text.replace(
        "- weight_bits: 4\n",
        "- weight_bits: 3\n        activation_bits: 8\n        products: 2\n      - weight_bits: 4\n",
    )
    assert more != text
    (many,) = problems_of(config.load_accelerator, write(tmp_path, more))
    assert (many.what, many.expected) == (
        "4 modes with a region_shift: aligned products are counted beside those of each mode", "at most 3 modes",
    )  # fmt: skip
    (far,) = problems_of(config.load_accelerator, write(tmp_path, text.replace("region_shift: 8", "region_shift: 16")))
    assert far.where.endswith("engines[0].region_shift")


# --- who stores and who reads --------------------------------------------------------------------------------------


def test_shares_and_gelus_are_stored_in_their_bits() -> None:
    workload = vit()
    quantized = apply_plan(workload, plan_of(Rule("class:softmax", output=SHARES), Rule("b*.fc1", output=GELUS)))
    readers = {item.op.name: item.activation for item in quantized.ops}
    assert (readers["b0.values"], readers["b0.fc2"], readers["b0.proj"].name) == (SHARES, GELUS, "u8")
    assert quantized.activation_bits["b0.softmax"] == quantized.activation_bits["b0.fc1"] == 6


@pytest.mark.parametrize(
    ("rule", "what", "lever"),
    [
        (Rule("b0.fc2", output=GELUS), "output r6n4 of an op that ends in no softmax and in no table", "output: u6"),
        (Rule("b0.norm1", output=SHARES), "output r6p5 of an op that ends in no softmax and in no table", "output: u6"),
        (Rule("b0.fc1", output=SHARES), "output r6p5 of gelu, which has negative values", "output: r6n5"),
        (Rule("b0.softmax", output=GELUS), "output r6n4 of softmax, which is never negative", "output: r6p4"),
        (Rule("b0.fc1", output=GELUS, zero_point=True), "output r6n4 and a zero point", "zero_point: false"),
        (
            Rule("b0.fc1", output=GELUS, granularity="group"),
            "output r6n4 and granularity group",
            "granularity: tensor",
        ),
    ],
)
def test_who_may_not_store_them(rule: Rule, what: str, lever: str) -> None:
    assert ("b0." + rule.match.partition(".")[2], what, (lever,)) in faults(vit(), rule)


def test_heads_may_have_scales_of_their_own() -> None:
    found = apply_plan(vit(), plan_of(Rule("b0.softmax", output=SHARES, granularity="group")))
    assert next(item for item in found.ops if item.op.name == "b0.values").activation == SHARES


def test_functions_of_their_own_and_methods_may_store_them() -> None:
    workload = separate_activations(vit())
    for name in ("", "table", "ibert", "ivit"):
        rules = [Rule("class:gelu", output=GELUS, nonlinear=name)]
        if name != "table":
            rules.append(Rule("class:softmax", output=SHARES, nonlinear=name))
        assert apply_plan(workload, plan_of(*rules))
    (problem, *_) = faults(workload, Rule("b0.softmax", output=SHARES, nonlinear="fqvit"))
    assert "its results are log2 codes" in problem[1]
    mobile = build_workload("mobilevit_s", 64)
    assert apply_plan(mobile, plan_of(Rule("s1.b0.expand", output=GELUS))).ops[2].activation == GELUS


def net(*, left: bool = True, last: bool = False) -> Workload:
    build = WorkloadBuilder("net", 4, 16)
    scores = build.vector("soft", "softmax", (build.input,), recipes.softmax(1, 16, 1, 16), Tensor("soft", 16, 1, 16))
    shares = build.view("shares", (scores,), 16, 1, 16)
    values = build.conv("v", "pw", build.input, 16)
    product = build.matmul(
        "av", "attn_values", *((shares, values) if left else (values, shares)), Loop(1, 16, 1, 16, 16)
    )
    return build.build(shares if last else product)


def test_who_may_not_read_them() -> None:
    rule = Rule("soft", output=SHARES)
    assert apply_plan(net(), plan_of(rule)).ops[-1].activation == SHARES  # through a view
    lever = ("output: u6 of its producer",)
    assert faults(net(left=False), rule) == [("av", "reads the two-region codes of soft as its right operand", lever)]
    workload = separate_activations(vit())
    gelu = Rule("b0.fc1.gelu", output=GELUS)
    assert apply_plan(workload, plan_of(gelu))
    (problem,) = faults(net(last=True), rule)
    assert problem[1:] == ("the network's output is two-region codes (soft)", ("output: u6",))


def test_a_vector_op_may_not_read_them_and_a_depthwise_convolution_may() -> None:
    build = WorkloadBuilder("net", 8, 8)
    first = build.conv("first", "pw", build.input, 8, activation="silu")
    deep = build.conv("deep", "dw", first, 8, kernel=3, groups=8)
    recipe = recipes.residual_add(1, 8, 8, 8)
    workload = build.build(build.vector("sum", "add", (first, deep), recipe, Tensor("sum", 8, 8, 8)))
    (problem,) = faults(workload, Rule("first", output=GELUS))
    assert problem[:2] == ("sum", "reads the two-region codes of first in the vector unit")


# --- costs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["r3p0", "r4p2", "r4p3", "r4p8", "r6p5", "r8p15", "r3n0", "r4n1", "r6n4", "r8n8"])
def test_the_program_stores_the_nearest_level(name: str) -> None:
    fmt = Format.parse(name)
    low, high = (-fmt.low_codes if fmt.low_negative else 0), (fmt.low_codes - 1) << fmt.region_shift
    steps = np.unique(np.concatenate([np.arange(low, min(high, 600) + 1), np.linspace(low, high, 900).astype(int)]))
    build = Builder()
    x = build.operand("x")
    program = build.finish(build.region_code(x, fmt), x)
    (cost, found) = run_program(UNIT, program, {"x": steps[None]}, [0])
    start = -fmt.low_codes if fmt.low_negative else 0
    levels = np.unique(decoded(np.arange(start, start + 2 * fmt.low_codes), fmt))
    nearest = levels[np.abs(steps[:, None] - levels[None]).argmin(axis=1)]  # the lower one of a tie
    assert (decoded(found["code"][0], fmt) == nearest).all()
    assert start <= found["code"].min()
    assert found["code"].max() < start + 2 * fmt.low_codes
    slots = (1, 1, 1) if fmt.low_negative else (2, 1, 3)
    kinds = (VectorKind.ADD, VectorKind.SHIFT, VectorKind.COMPARE)
    assert region_pass(fmt).per_element == tuple(zip(kinds, slots, strict=True))
    assert sum(cost.operations) == sum(slots) * len(steps)


@pytest.mark.parametrize("name", ["", "ibert", "ivit"])
def test_storing_shares_takes_slots_of_the_last_pass(name: str) -> None:
    workload, design = vit(), config.load_accelerator("m2vit_regions")
    plans = [plan_of(Rule("class:softmax", output=fmt, nonlinear=name)) for fmt in (Format.parse("u6"), SHARES)]
    items = [next(i for i in apply_plan(workload, plan).ops if i.op.name == "b0.softmax") for plan in plans]
    plain, regions = (item.op.recipe for item in items)
    assert plain is not None
    assert regions is not None
    assert (items[1].function, items[1].nonlinear) == ("softmax", name)
    assert (regions.name, regions.passes[:-1]) == (plain.name, plain.passes[:-1])
    if name:
        assert plain.passes == method_of("softmax", name).passes
    tables = [op_table(workload, plan) for plan in plans]
    reports = [simulate(table, design) for table in tables]
    before, after = (dict(zip(count_columns(design), r.totals.tolist(), strict=True)) for r in reports)
    elements = sum(op.recipe.elements for op in workload.ops if op.op_class == "softmax" and op.recipe)
    for kind, slots in (("add", 2), ("shift", 1), ("compare", 3), ("mul", 0), ("table", 0)):
        assert after[f"vector_{kind}"] - before[f"vector_{kind}"] == slots * elements
    assert before["mult.products_1"] - after["mult.products_1"] == after["mult.products_4"] > 0
    assert design_bound(tables[1], reports[1].engines, design).cycles <= reports[1].result.cycles_total


def test_the_entries_of_a_table_are_codes_already() -> None:
    workload = separate_activations(vit())
    plans = [plan_of(Rule("class:gelu", output=fmt, nonlinear="table")) for fmt in (Format.parse("u6"), GELUS)]
    plain, regions = (next(i for i in apply_plan(workload, p).ops if i.op.op_class == "gelu") for p in plans)
    assert plain.op == regions.op


def test_levers_where_no_engine_takes_them() -> None:
    table = op_table(vit(), plan_of(Rule("class:softmax", output=Format.parse("r8p8"))))
    found = problems_of(simulate, table, config.load_accelerator("m2vit"))
    assert found[0].what == "no engine executes u8 weights with r8p8 activations"
    assert found[0].levers == ("region_shift: 8 on a mac_array", "a mode of 16-bit activations", "wider accumulators")
