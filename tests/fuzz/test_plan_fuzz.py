"""Index tables, zero points and granularities on random networks: a result within the laws, or problems."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

from accelsim.api import Report, simulate
from accelsim.channels import Channels
from accelsim.config import load_accelerator, plan_from_data
from accelsim.counts import count_columns
from accelsim.formats import Format
from accelsim.ir import Op, Workload
from accelsim.optable import op_table
from accelsim.plan import GRANULARITIES, QuantPlan, Rule, WeightShare
from accelsim.problems import AccelsimError, InfeasibleError
from tests.fuzz.laws import check_laws
from tests.fuzz.networks import random_workload
from tests.fuzz.run import check_problems

NAMES = ("u8", "apot8", "u4")


def random_table(rng: Random, op: Op) -> tuple[WeightShare, ...]:
    """One to three formats on random groups of channels; one time in ten a channel is missing, one in ten in excess."""
    assert op.loop is not None
    groups, cols = op.loop.groups, op.loop.cols
    owner = [rng.randrange(rng.choice([1, 2, 3])) for _ in range(groups if groups > 1 else cols)]
    width = cols if groups > 1 else 1
    parts: dict[int, list[int]] = {}
    for unit, part in enumerate(owner):
        parts.setdefault(part, []).extend(range(unit * width, unit * width + width))
    draw, last = rng.random(), groups * cols
    for channels in parts.values():
        if draw < 0.02 and len(channels) > 1:
            channels.pop()
        if 0.02 <= draw < 0.04:
            channels.append(last)
            break
    return tuple(WeightShare(Format.parse(NAMES[part]), channels=Channels.of(parts[part])) for part in sorted(parts))


def random_plan(rng: Random, workload: Workload) -> QuantPlan:
    rules = []
    for op in workload.ops:
        weights = random_table(rng, op) if op.loop and op.weights else (WeightShare(Format.parse("u8")),)
        granularity = rng.choice(GRANULARITIES) if rng.random() < 0.2 else "tensor"
        rules.append(Rule(op.name, weights, zero_point=rng.random() < 0.1, granularity=granularity))
    return QuantPlan("fuzz", (*rules, Rule("*")), input_zero_point=rng.random() < 0.1)


def with_shares(workload: Workload, plan: QuantPlan) -> QuantPlan:
    """The same plan with the fraction of channels in the place of every index table."""
    rules = []
    for rule in plan.rules:
        op = workload.op_by_name.get(rule.match)
        if op and op.loop and op.weights:
            outputs = op.loop.groups * op.loop.cols
            counts = [part.channels.count for part in rule.weights if part.channels]
            parts = zip(rule.weights, counts, strict=True)
            rule = replace(rule, weights=tuple(WeightShare(part.format, n / outputs) for part, n in parts))
        rules.append(rule)
    return replace(plan, rules=tuple(rules))


def check_outputs(report: Report) -> None:
    """Every output of an array op is requantized once, or twice behind a table with scales of its channels."""
    columns = count_columns(report.accelerator)
    mine = [k for k, name in enumerate(columns) if name.endswith(".outputs")]
    for item, counts in zip(report.table.quantized.ops, report.result.counts, strict=True):
        loop = item.op.loop
        made = loop.groups * loop.rows * loop.cols if loop else 0
        assert counts[mine].sum() == made * (1 + item.requantizes_twice)


def test_random_plans_on_random_networks() -> None:
    design, outcomes, twice = load_accelerator("m2vit"), Counter[str](), 0
    for seed in range(400):
        rng = Random(seed)
        try:
            workload = random_workload(rng)
            plan = random_plan(rng, workload)
            assert plan_from_data(plan.to_json()) == plan
            report = simulate(op_table(workload, plan), design)
        except AccelsimError as error:
            check_problems(error)
            outcomes["infeasible" if isinstance(error, InfeasibleError) else "problem"] += 1
            continue
        outcomes["result"] += 1
        check_laws(report)
        check_outputs(report)
        shares = simulate(op_table(workload, with_shares(workload, plan)), design)
        assert shares.result.cycles_total == report.result.cycles_total
        assert (shares.result.counts == report.result.counts).all()
        twice += any(item.requantizes_twice for item in report.table.quantized.ops)
    assert min(outcomes["result"], outcomes["problem"]) > 50
    assert twice > 5
