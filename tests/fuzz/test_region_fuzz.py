"""Two-region formats on random networks and multiplier arrays: a result within the laws, or problems."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

from accelsim.api import simulate
from accelsim.arch import Accelerator, Mode
from accelsim.config import load_accelerator, plan_from_data
from accelsim.counts import ENGINE_COUNTS
from accelsim.formats import two_region
from accelsim.ir import Op, Workload
from accelsim.optable import op_table
from accelsim.plan import TABLE_ACTIVATIONS, QuantPlan, Rule
from accelsim.problems import AccelsimError, InfeasibleError
from tests.fuzz.laws import check_laws
from tests.fuzz.networks import random_workload
from tests.fuzz.run import check_problems

MODES = ((Mode(4, 8, 2), Mode(8, 8), Mode(8, 16, 1, 2)), (Mode(4, 4, 2), Mode(8, 8)), (Mode(16, 16),))


def random_rule(rng: Random, op: Op) -> Rule:
    """Two regions where the op may have them, two times in five, and one in a hundred where it may not."""
    shares = op.op_class == "softmax" or op.activation == "sigmoid"
    may = shares or op.activation in TABLE_ACTIVATIONS
    if rng.random() > (0.4 if may else 0.01):
        return Rule(op.name)
    return Rule(op.name, output=two_region(rng.randint(3, 8), rng.randint(0, 9), not shares))


def random_plan(rng: Random, workload: Workload) -> QuantPlan:
    return QuantPlan("fuzz", (*(random_rule(rng, op) for op in workload.ops), Rule("*")))


def random_design(rng: Random) -> Accelerator:
    """The preset with other modes, another region_shift, wider accumulators."""
    design = load_accelerator("m2vit_regions")
    shift, bits = rng.choice([0, 1, 4, 8, 15]), rng.choice([24, 32, 48])
    mult = replace(design.engines[0], modes=rng.choice(MODES), region_shift=shift, accumulator_bits=bits)
    return design.replace(engines=(mult, *design.engines[1:]))


def test_random_two_region_plans_on_random_networks() -> None:
    outcomes = Counter[str]()
    for seed in range(600):
        rng = Random(seed)
        try:
            workload = random_workload(rng)
            plan, design = random_plan(rng, workload), random_design(rng)
            assert plan_from_data(plan.to_json()) == plan
            report = simulate(op_table(workload, plan), design)
        except AccelsimError as error:
            check_problems(error)
            outcomes["infeasible" if isinstance(error, InfeasibleError) else "problem"] += 1
            continue
        outcomes["result"] += 1
        check_laws(report)
        modes = len(design.engines[0].modes)
        outcomes["aligned"] += bool(report.totals[modes : len(ENGINE_COUNTS) - 3].any())
    assert min(outcomes[name] for name in ("result", "problem", "infeasible", "aligned")) > 10
