"""Distributions over counts of full tokens, and the ranking ops that a plan asks for."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from accelsim.api import evaluate, simulate
from accelsim.config import load_accelerator, load_plan
from accelsim.explain import explain
from accelsim.ir import OpKind, Workload
from accelsim.optable import op_table
from accelsim.problems import AccelsimError
from accelsim.token_counts import METRICS, simulate_counts
from accelsim.token_groups import RECEIVED, with_counts
from accelsim.token_rules import ranked_for
from accelsim.workloads import build_workload
from accelsim.workloads.rank import rank_tokens
from tests.support.token_plans import grouped_plan, grouped_table, small_vit

COUNTS = [{"b1": 3, "b2": 9}, {"b1": 17}, {"b1": 3, "b2": 9}, {"b1": 3}, {"b2": 1}]


@pytest.mark.parametrize("mapper", ["heuristic", "exhaustive:edp"])
def test_points_are_the_simulations_of_their_plans(mapper: str) -> None:
    """Figures of every count, equal counts once, and the mapping of all tokens full for all of them."""
    workload, design = small_vit(), load_accelerator("bitfusion_edge")
    plan = grouped_plan(workload, {"b1": 5, "b2": 9})
    found = simulate_counts(workload, plan, design, COUNTS, mapper)
    assert found.images == 5
    assert [(point.high, point.images) for point in found.points] == [
        ({"b1": 3, "b2": 9}, 3), ({"b1": 5, "b2": 1}, 1), ({"b1": 17, "b2": 9}, 1)
    ]  # fmt: skip
    for point in (*found.points, found.worst):
        metrics = simulate(op_table(workload, with_counts(plan, point.high)), design, mapper=mapper).metrics()
        assert point.cycles == metrics["cycles_total"]
        for name in METRICS[1:]:
            assert getattr(point, name) == metrics[name]
    assert found.worst.high == {"b1": 17, "b2": 17}


def test_the_distribution_is_that_of_images() -> None:
    """Mean and nearest ranks by hand."""
    workload = small_vit()
    plan = grouped_plan(workload, {"b1": 5})
    counts = [{"b1": high} for high in [2] * 18 + [9] * 2]
    found = simulate_counts(workload, plan, load_accelerator("bitfusion_edge"), counts)
    low, high = (point.cycles for point in found.points)
    assert low < high
    cycles = found.distribution("cycles")
    assert cycles.mean == pytest.approx((18 * low + 2 * high) / 20)
    assert (cycles.p5, cycles.p50, cycles.p95, cycles.p99, cycles.max) == (low, low, high, high, high)
    data = json.loads(json.dumps(found.to_json()))
    assert data["distributions"]["edp_pj_s"]["max"] == max(point.edp_pj_s for point in found.points)
    with pytest.raises(AccelsimError, match="unknown 'joules'"):
        found.distribution("joules")


@pytest.mark.parametrize(
    ("counts", "what"),
    [
        ([], "no image"),
        ([{"b7": 3}], "no token groups in b7"),
        ([{"b1": 0}], "0 full tokens in op b1"),
        ([{"b1": 18}], "18 full tokens in op b1"),
    ],
)
def test_bad_counts_are_refused(counts: list[dict[str, int]], what: str) -> None:
    """One clear problem."""
    workload = small_vit()
    with pytest.raises(AccelsimError, match=what):
        simulate_counts(workload, grouped_plan(workload, {"b1": 5}), load_accelerator("tiny"), counts)


def test_a_plan_without_groups_has_no_counts() -> None:
    """There is nothing to vary."""
    with pytest.raises(AccelsimError, match="has no token groups"):
        simulate_counts(small_vit(), load_plan("uniform8"), load_accelerator("tiny"), [{}])


def test_a_plan_brings_its_ranking() -> None:
    """By the class token where there is one, by received attention else; nothing twice."""
    workload = build_workload("glyph_vit")
    layers = ["b1", "b3"]
    plan = grouped_plan(rank_tokens(workload, layers), {"b1": 5, "b3": 7})
    made = ranked_for(workload, plan)
    assert made == rank_tokens(workload, layers)
    assert ranked_for(made, plan) is made
    assert ranked_for(workload, load_plan("uniform8")) is workload
    pooled = without_class_token(workload)
    assert ranked_for(pooled, plan) == rank_tokens(pooled, layers, RECEIVED)
    with pytest.raises(AccelsimError, match="cannot rank its tokens"):
        ranked_for(build_workload("efficientvit_b1"), plan)
    report = evaluate("glyph_vit", None, load_accelerator("trio_vit"), plan)
    assert [row["name"] for row in report.op_rows() if row["class"] == "gather"] == ["b1.gather", "b3.gather"]


def without_class_token(workload: Workload) -> Workload:
    """The network up to its last residual sum."""
    stop = next(k for k, op in enumerate(workload.ops) if op.kind is OpKind.VIEW)
    return replace(workload, ops=workload.ops[:stop], output=workload.ops[stop].inputs[0])


def test_explanations_keep_ops_under_their_roofs() -> None:
    """Narrow products run in faster modes; the roof is that of the fastest."""
    found = explain(grouped_table({"b1": 1, "b2": 1}, 4, "w4a8"), load_accelerator("bitfusion_edge"))
    for point in found.points:
        assert point.attained <= point.roof * (1 + 1e-9), point.name
    assert any(lever.cycles for lever in found.levers)
