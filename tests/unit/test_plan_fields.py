"""Plan fields of the second format: files, fingerprints, index tables, zero points, granularities and their costs."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from accelsim import config
from accelsim.api import Report, simulate
from accelsim.arch import Accelerator
from accelsim.channels import Channels
from accelsim.counts import count_columns
from accelsim.energy import price, unit_energies
from accelsim.formats import Format
from accelsim.ir import Loop, Tensor, Workload
from accelsim.optable import op_table
from accelsim.plan import PLAN_FORMAT, QuantPlan, Rule, WeightShare, apply_plan
from accelsim.plans import m2q
from accelsim.workloads import build_workload, recipes
from accelsim.workloads.builder import WorkloadBuilder
from tests.support.config_files import plan_data, problems_of, write

U8, U4, APOT8 = Format.parse("u8"), Format.parse("u4"), Format.parse("apot8")

# Pinned: a study names its plans by these.
FINGERPRINTS = {
    "m2q": "25f318070eeb9e08",
    "uniform4": "c5a8fec0980e4a22",
    "uniform8": "29c08b1bee6750e1",
    "w4a8": "8dd796d86c07618e",
    "w4a8_attn4": "b103dc0227e27eb1",
    "w6a8_attn6": "ea919f8c6b0b1bae",
    "m2q:0": "bdede9c5a3a11300",
    "m2q:0.25": "eafa3b492a8f3524",
    "m2q:0.5": "6a41d3f331e4bfee",
    "m2q:1": "dec2166c66deec64",
}


def plan_of(*rules: Rule, **fields: Any) -> QuantPlan:
    return QuantPlan("mine", (*rules, Rule("*")), **fields)


def table(**channels: str) -> tuple[WeightShare, ...]:
    """Shares by format name, such as u8="0-3", apot8="4-7"."""
    return tuple(WeightShare(Format.parse(name), channels=Channels.parse(text)) for name, text in channels.items())


def chain(activation: str = "hardswish", groups: int = 1, *, reader: str = "pw") -> Workload:
    """12 channels "a", then a reader of them: point-wise, depthwise, or both operands of a product behind views."""
    net = WorkloadBuilder("chain", 8, 4)
    tip = net.conv("a", "pw", net.input, 12, groups=groups, bias=True, activation=activation)
    if reader == "matmul":
        rows = net.view("rows", (tip,), 64, 1, 12)
        tip = net.matmul("b", "attn_scores", rows, rows, Loop(2, rows_h=64, rows_w=1, cols=64, depth=6))
    else:
        kernel = 3 if reader == "dw" else 1
        tip = net.conv("b", reader, tip, 12, kernel=kernel, groups=12 if reader == "dw" else 1)
    return net.build(tip)


# --- files and fingerprints ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_plans_without_new_fields_keep_their_fingerprints(name: str) -> None:
    assert config.load_plan(name).fingerprint() == FINGERPRINTS[name]
    assert {*config.plan_names()} <= {*FINGERPRINTS}


def test_round_trip_of_every_new_field(tmp_path: Path) -> None:
    rules = (
        Rule("a", table(u8="9-11,0-3", apot8="4-8"), zero_point=True, granularity="channel_offset"),
        Rule("b", table(u4="0"), granularity="group"),
    )
    plan = plan_of(*rules, input_zero_point=True)
    text = config.dump_plan(plan)
    assert f"format: {PLAN_FORMAT}" in text
    assert "0-3,9-11" in text
    assert config.load_plan(write(tmp_path, text)) == plan
    assert config.load_plan(write(tmp_path, json.dumps(plan.to_json()), "a.json")) == plan
    assert config.plan_from_data(plan.to_json()) == plan


def test_every_new_field_changes_the_fingerprint() -> None:
    base = Rule("a", table(u8="0-3", apot8="4-7"))
    plans = [
        plan_of(base),
        plan_of(base, input_zero_point=True),
        plan_of(replace(base, zero_point=True)),
        *(plan_of(replace(base, granularity=name)) for name in ("group", "channel_scale", "channel_offset")),
        plan_of(replace(base, weights=table(u8="0-2,4", apot8="3,5-7"))),
    ]
    assert len({plan.fingerprint() for plan in plans}) == len(plans)
    again = plan_of(replace(base, weights=table(u8="3,0-2", apot8="7,6,5,4")))
    assert again.fingerprint() == plans[0].fingerprint()


def test_files_of_the_first_format_are_read_but_cannot_say_more(tmp_path: Path) -> None:
    old = config.dump_plan(m2q()).replace(PLAN_FORMAT, "accelsim.plan/1")
    assert config.load_plan(write(tmp_path, old)) == m2q()
    rules = "rules:\n  - match: a\n    weights: [{format: u8, channels: 0-3}]\n    zero_point: true\n"
    text = f"format: accelsim.plan/1\nname: x\ninput_zero_point: true\n{rules}  - match: '*'\n"
    found = problems_of(config.load_plan, write(tmp_path, text))
    assert [problem.what.split("`")[1] for problem in found] == ["input_zero_point", "channels", "zero_point"]
    assert all(problem.levers == (PLAN_FORMAT,) for problem in found)
    assert config.load_plan(write(tmp_path, text.replace("plan/1", "plan/2"))).rules[0].zero_point


@pytest.mark.parametrize(
    ("weights", "where", "what"),
    [
        ([{"format": "u8", "channels": "0-3"}, {"format": "u4"}], "weights[1]", "u4 has no `channels`"),
        ([{"format": "u8", "channels": "0-3", "share": 0.5}], "weights[0].share", "beside"),
        ([{"format": "u8", "channels": "3-0"}], "weights[0].channels", "ends below its start"),
        ([{"format": "u8", "channels": "0-3,2"}], "weights[0].channels", "channel 2 is named twice"),
        ([{"format": "u8", "channels": "0-3,,5"}], "weights[0].channels", "'' is no channel"),
        ([{"format": "u8", "channels": "-1"}], "weights[0].channels", "'-1' is no channel"),
        ([{"format": "u8", "channels": "0-99999999"}], "weights[0].channels", "is no channel"),
        ([{"format": "u8", "channels": [0, 1]}], "weights[0].channels", "found a list of 2"),
        ([{"format": "u8", "channels": True}], "weights[0].channels", "found true"),
    ],
)  # fmt: skip
def test_faults_of_channels_in_a_file(weights: Any, where: str, what: str) -> None:
    data = {**plan_data("uniform8"), "rules": [{"match": "a", "weights": weights}, {"match": "*"}]}
    (problem,) = problems_of(config.plan_from_data, data, "here")
    assert problem.where == f"here: rules[0].{where}"
    assert what in problem.what
    assert problem.expected


def test_faults_of_the_other_fields() -> None:
    rule = {"match": "*", "zero_point": "yes", "granularity": "chanel_scale"}
    data = {**plan_data("uniform8"), "rules": [rule], "input_zero_point": 1}
    flag, granularity, of_input = sorted(problems_of(config.plan_from_data, data, "here"), key=lambda p: -len(p.where))
    levers = {problem.where: problem.levers for problem in (flag, granularity, of_input)}
    assert levers == {
        "here: rules[0].zero_point": ("true",),
        "here: rules[0].granularity": ("channel_scale",),
        "here: input_zero_point": (),
    }


def test_channels_are_one_text_per_set() -> None:
    assert Channels.of((5, 0, 1, 2, 9)) == Channels.parse(" 9, 0-1,2,5 ") == Channels("0-2,5,9")
    assert Channels("0-2,5,9").count == 5
    assert Channels("0-2,5,9").indices.tolist() == [0, 1, 2, 5, 9]
    for wrong in ((), (1, 1), (-1,)):
        problems_of(Channels.of, wrong)


# --- index tables --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (table(u8="0-3", apot8="4-12"), ["the share apot8 has channel 12"]),
        (table(u8="0-5", apot8="4-11"), ["channel 4 and 1 more of the share apot8 is in the share u8, too"]),
        (table(u8="0-3", apot8="6-11"), ["channel 4 and 1 more is in no share"]),
        (table(u8="0-3", apot8="3-10"), ["channel 3 of the share apot8 is in the share u8, too",
                                             "channel 11 is in no share"]),
        ((*table(u8="0-3"), WeightShare(APOT8)), ["one share has `channels`, another has not"]),
    ],
)  # fmt: skip
def test_an_index_table_fits_its_op(weights: tuple[WeightShare, ...], expected: list[str]) -> None:
    found = problems_of(apply_plan, chain(), plan_of(Rule("a", weights)))
    assert [problem.what for problem in found] == expected
    assert all(problem.where == "plan mine: a" and problem.expected for problem in found)


def test_groups_are_whole() -> None:
    assert apply_plan(chain(groups=4), plan_of(Rule("a", table(u8="0-2,9-11", apot8="3-8")))).ops[0].mixed
    (problem,) = problems_of(apply_plan, chain(groups=4), plan_of(Rule("a", table(u8="0-3,9-11", apot8="4-8"))))
    assert problem.what == "channels 3-5 are one group and have u8 and apot8"
    assert problem.expected == "whole groups of 3 channels"


def random_tables(workload: Workload, seed: int = 0, ratio: float = 0.5) -> QuantPlan:
    """m2q with a random half of the filters of every mixed op as its index table."""
    rng, base, rules = Random(seed), m2q(), []
    for op in workload.ops:
        rule = base.rule_for(op)
        if op.loop is None or not op.weights or len(rule.weights) < 2:
            continue
        outputs = op.loop.groups * op.loop.cols
        shifted = set(rng.sample(range(outputs), round(ratio * outputs)))
        parts = ([c for c in range(outputs) if c not in shifted], sorted(shifted))
        weights = tuple(
            WeightShare(fmt, channels=Channels.of(part)) for fmt, part in zip((U8, APOT8), parts, strict=True)
        )
        rules.append(replace(rule, match=op.name, weights=weights))
    return replace(base, name="random", rules=(*rules, *base.rules))


def test_cycles_and_counts_are_those_of_equal_shares() -> None:
    """Which filters have a format is for the index table alone: only how many of them costs anything."""
    workload, design = build_workload("efficientvit_b1"), config.load_accelerator("m2vit")
    one, other = (simulate(op_table(workload, random_tables(workload, seed)), design) for seed in (0, 1))
    shares = simulate(op_table(workload, m2q(0.5)), design)
    assert one.table.quantized.plan.fingerprint() != other.table.quantized.plan.fingerprint()
    for report in (other, shares):
        assert report.result.cycles_total == one.result.cycles_total
        assert (report.result.counts == one.result.counts).all()


def test_slices_are_counted_not_rounded() -> None:
    uneven = op_table(chain(), plan_of(Rule("a", table(u8="0,3-5", apot8="1", u4="2,6-11"))))
    assert uneven.slices[0, :, 1].tolist() == [4, 1, 7]
    grouped = op_table(chain(groups=4), plan_of(Rule("a", table(u8="0-2,9-11", apot8="3-8"))))
    assert grouped.slices[0, :2, 1].tolist() == [2, 2]


def test_a_large_plan_is_fast(tmp_path: Path) -> None:
    """EfficientViT-B3: 85 index tables, 62,368 channels; the limits are loose, decision 0011 has what was measured."""
    workload = build_workload("efficientvit_b3")
    plan = random_tables(workload)
    path = write(tmp_path, config.dump_plan(plan))
    start = time.perf_counter()
    loaded = config.load_plan(path)
    assert time.perf_counter() - start < 5
    start = time.perf_counter()
    first = op_table(workload, loaded)
    assert time.perf_counter() - start < 5
    start = time.perf_counter()
    assert op_table(workload, replace(loaded)) is first
    assert time.perf_counter() - start < 0.5


# --- zero points and granularities: what is legal ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "reader", "expected"),
    [
        (Rule("a", zero_point=True), "pw", None),
        (Rule("a", zero_point=True), "matmul", "multiplies it by activations: 8,192 outputs"),
        (Rule("a", granularity="channel_offset"), "pw", None),
        (Rule("a", granularity="channel_offset"), "matmul", "multiplies it by activations: 8,192 outputs"),
        (Rule("a", granularity="channel_offset"), "dw", "b pads with one value (1 wide)"),
        (Rule("a", granularity="channel_scale"), "dw", None),
        (Rule("a", granularity="channel_scale"), "pw", "its reader b sums 12 channels"),
        (Rule("a", granularity="channel_scale"), "matmul", "its reader b is a matmul"),
        (Rule("a", granularity="group"), "matmul", None),
        (Rule("a", granularity="group"), "pw", "its reader b sums 12 channels of all groups"),
        (Rule("b", granularity="channel_scale"), "matmul", "output of a matmul"),
    ],
)  # fmt: skip
def test_what_readers_can_bear(rule: Rule, reader: str, expected: str | None) -> None:
    workload = chain(reader=reader)
    if expected is None:
        item = apply_plan(workload, plan_of(rule)).ops[0]
        assert (item.zero_point, item.granularity) == (rule.zero_point, rule.granularity)
        return
    (problem,) = problems_of(apply_plan, workload, plan_of(rule))
    assert problem.where == f"plan mine: {rule.match}"
    assert expected in problem.what
    assert problem.expected
    assert problem.levers


def test_the_graph_input_and_vector_ops() -> None:
    net = WorkloadBuilder("net", 8, 4)
    pooled = net.vector("pool", "pool", (net.input,), recipes.average_pool(4, 64), Tensor("pool", 1, 1, 4))
    tip = net.vector("gate", "gate", (net.input, pooled), recipes.gate(4, 8, 8), Tensor("gate", 8, 8, 4))
    workload = net.build(tip)
    (problem,) = problems_of(apply_plan, workload, plan_of(input_zero_point=True))
    assert problem.where == "plan mine: image"
    assert "gate multiplies it" in problem.what
    assert problem.levers == ("input_zero_point: false",)
    asked = plan_of(Rule("pool", granularity="channel_offset", zero_point=True))
    found = [problem.what for problem in problems_of(apply_plan, workload, asked)]
    assert len(found) == 3
    assert sum("gate" in what for what in found) == 2
    assert "average_pool" in found[0]


def test_a_relu_hands_the_zero_point_on() -> None:
    net = WorkloadBuilder("net", 8, 4)
    tip = net.conv("a", "pw", net.input, 4)
    workload = net.build(net.vector("r", "relu", (tip,), recipes.relu(1, 8, 8, 4), Tensor("r", 8, 8, 4)))
    pointed = Rule("a", zero_point=True)
    (problem,) = problems_of(apply_plan, workload, plan_of(pointed))
    assert problem.levers == ("zero_point: false", "zero_point: true for r")
    assert apply_plan(workload, plan_of(pointed, Rule("r", zero_point=True))).ops[1].zero_point


def test_every_fault_of_a_plan_at_once() -> None:
    workload = build_workload("efficientvit_b1")
    found = problems_of(apply_plan, workload, QuantPlan("mine", (Rule("*", zero_point=True),)))
    assert 2 < len(found) <= 20
    assert all("multiplies it" in problem.what for problem in found)


# --- what they cost ------------------------------------------------------------------------------------------------


def run(workload: Workload, rule: Rule, design: Accelerator) -> Report:
    return simulate(op_table(workload, plan_of(rule)), design)


@pytest.mark.parametrize("granularity", ["channel_scale", "channel_offset", "group"])
@pytest.mark.parametrize("activation", ["", "relu"])
def test_without_a_table_they_are_free(granularity: str, activation: str) -> None:
    """The output stage has a multiplier and a bias for every channel anyway."""
    reader = {"channel_scale": "dw", "channel_offset": "pw", "group": "matmul"}[granularity]
    workload, design = chain(activation, reader=reader), config.load_accelerator("tiny")
    plain, asked = (run(workload, Rule("a", granularity=name), design) for name in ("tensor", granularity))
    assert asked.result.cycles_total == plain.result.cycles_total
    assert (asked.result.counts == plain.result.counts).all()


@pytest.mark.parametrize(
    ("granularity", "reader"), [("channel_scale", "dw"), ("channel_offset", "pw"), ("group", "matmul")]
)
@pytest.mark.parametrize("activation", ["hardswish", "gelu"])
def test_after_a_table_they_cost_a_requantization(granularity: str, reader: str, activation: str) -> None:
    """One more output of the stage for each output, and 64 more parameter bits for each channel: nothing else."""
    workload, design = chain(activation, reader=reader), config.load_accelerator("tiny")
    plain, asked = (run(workload, Rule("a", granularity=name), design) for name in ("tensor", granularity))
    columns = count_columns(design)
    changed = dict(zip(columns, (asked.totals - plain.totals).tolist(), strict=True))
    outputs, parameters = 8 * 8 * 12, 12 * (32 + 32)
    tiles = -(-changed["weight_read_bits"] // parameters)
    assert changed["mac.outputs"] == outputs
    assert changed["weight_write_bits"] == parameters
    assert changed["weight_read_bits"] == tiles * parameters
    assert abs(changed["dram_read_bits"] - parameters) < design.dram.burst_bits
    rest = {name for name, value in changed.items() if value}
    assert rest == {"mac.outputs", "weight_write_bits", "weight_read_bits", "dram_read_bits"}
    traffic = ("weight_write_bits", "weight_read_bits", "dram_read_bits")
    rates = dict(zip(columns, unit_energies(design).tolist(), strict=True))
    expected = outputs * rates["mac.outputs"] + sum(changed[name] * rates[name] for name in traffic)
    assert dynamic_pj(asked) - dynamic_pj(plain) == pytest.approx(expected, rel=1e-9)


def dynamic_pj(report: Report) -> float:
    return float(report.totals @ unit_energies(report.accelerator))


def test_cycles_change_through_parameter_traffic_only() -> None:
    """With parameters of no bits to speak of, a second requantization takes no cycle."""
    workload, design = chain("hardswish"), config.load_accelerator("tiny")
    thin = {"bias_bits": 1, "scale_bits": 1}
    plain, asked = (
        simulate(op_table(workload, plan_of(Rule("a", granularity=name), **thin)), design)
        for name in ("tensor", "channel_offset")
    )
    bursts = design.dram.burst_bits
    same = plain.totals[-2] // bursts == asked.totals[-2] // bursts
    assert same
    assert asked.result.cycles_total == plain.result.cycles_total
    prices = [
        price(report.totals, report.result.cycles_total, report.result.busy_cycles(), design)
        for report in (plain, asked)
    ]
    stage = [one.energy_by_component_pj["mac.output_stage"] for one in prices]
    assert stage[1] - stage[0] == pytest.approx(768 * unit_energies(design)[count_columns(design).index("mac.outputs")])


def test_a_zero_point_is_free() -> None:
    design = config.load_accelerator("tiny")
    plain, asked = (run(chain(reader="dw"), Rule("a", zero_point=flag), design) for flag in (False, True))
    assert asked.result.cycles_total == plain.result.cycles_total
    assert np.array_equal(asked.result.counts, plain.result.counts)
