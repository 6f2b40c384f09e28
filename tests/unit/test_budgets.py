"""Costs without hardware and budgets: the first candidate that fits, or numbers."""

from __future__ import annotations

import pytest

from accelsim.config import load_accelerator, load_plan
from accelsim.plan import apply_plan
from accelsim.plans import m2q
from accelsim.problems import AccelsimError, InfeasibleError
from accelsim.workloads.registry import build_workload
from codesign.budgets import KINDS, Budget, cost, parse_budget, within
from quant.costs import average_bits, bit_operations, size_bits

WORKLOAD = build_workload("efficientvit_b0", 64)
ARCH = load_accelerator("m2vit")


def test_uniform_costs_are_the_obvious_products():
    eight, four = (apply_plan(WORKLOAD, load_plan(name)) for name in ("uniform8", "uniform4"))
    assert bit_operations(eight) == 64 * WORKLOAD.macs
    assert bit_operations(four) == 16 * WORKLOAD.macs
    weights = sum(op.weights for op in WORKLOAD.ops)
    assert size_bits(eight) == 8 * weights
    assert average_bits(four) == 4.0


def test_deit_bit_operations_are_those_that_q_vit_publishes():
    """Q-ViT (arXiv 2201.07703): the budget of uniform 4 bits with 8-bit patch embedding and head, DeiT-T, 21.455 G."""
    quantized = apply_plan(build_workload("deit_tiny"), load_plan("uniform4"))
    outer = sum(item.op.macs for item in quantized.ops if item.op.op_class in ("patch_embed", "fc"))
    assert (bit_operations(quantized) + (64 - 16) * outer) / 1e9 == pytest.approx(21.455, abs=5e-4)


def test_shares_count_with_their_part():
    mixed = apply_plan(WORKLOAD, m2q(0.5))
    four = sum(op.weights for op in WORKLOAD.ops if op.op_class == "dw")
    rest = sum(op.weights for op in WORKLOAD.ops) - four
    assert size_bits(mixed) == 4 * four + 8 * rest
    with pytest.raises(AccelsimError, match="balanced"):
        size_bits(apply_plan(WORKLOAD, load_plan("m2q")))


def test_the_first_candidate_within_the_budget_is_taken():
    plans = [(name, load_plan(name)) for name in ("uniform8", "w4a8", "uniform4")]
    spent = cost(Budget("latency_s", 1), WORKLOAD, plans[1][1], ARCH)
    assert within(Budget("latency_s", spent), WORKLOAD, ARCH, plans)[:2] == ("w4a8", spent)
    assert within(Budget("avg_bits", 5), WORKLOAD, ARCH, plans)[0] == "w4a8"
    assert within(Budget("uniform", 8), WORKLOAD, ARCH, plans)[0] == "uniform8"
    assert within(Budget("uniform", 4), WORKLOAD, ARCH, plans)[0] == "uniform4"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "uniform"])
def test_a_budget_that_nothing_meets_names_the_cheapest(kind):
    with pytest.raises(InfeasibleError, match=r"the cheapest, .*, needs .*at most 1e-12"):
        within(Budget(kind, 1e-12), WORKLOAD, ARCH, [(name, load_plan(name)) for name in ("uniform8", "w4a8")])


@pytest.mark.parametrize("text", ["", "bops", "time=3", "bops=-1", "bops=x", "uniform=4.5", "uniform=40", "bops=inf"])
def test_bad_budgets(text):
    with pytest.raises(AccelsimError):
        parse_budget(text)


def test_good_budgets():
    assert parse_budget("edp_pj_s=1e3") == Budget("edp_pj_s", 1000.0)
    assert parse_budget("uniform=4") == Budget("uniform", 4.0)
