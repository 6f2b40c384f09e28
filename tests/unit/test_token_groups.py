"""Token groups in plans and ranked workloads: what is read, what is refused, what the graph looks like."""

from __future__ import annotations

from dataclasses import replace

import pytest

from accelsim.api import simulate
from accelsim.config import dump_plan, load_accelerator, load_plan
from accelsim.formats import Format
from accelsim.ir import Workload
from accelsim.optable import op_table
from accelsim.plan import QuantPlan, Rule, apply_plan
from accelsim.problems import AccelsimError
from accelsim.token_groups import TokenGroups, token_layers, with_counts
from accelsim.workloads import build_workload
from accelsim.workloads.builder import check_workload
from accelsim.workloads.rank import rank_tokens, ranked_layers

SLICED = ("norm1", "qkv", "softmax", "values", "norm2", "fc1")


def sliced_plan(workload: Workload, layer: str = "b1", high: int = 5, drop_bits: int = 2) -> QuantPlan:
    """uniform8 with token groups in one layer of a ranked workload."""
    ranks = [Rule(one.rank, output=Format.parse(f"u{one.rank_bits}")) for one in ranked_layers(workload)]
    groups = TokenGroups(layer, high, drop_bits)
    own = [Rule(f"{layer}.{name}", tokens=groups) for name in SLICED]
    plan = load_plan("uniform8")
    return replace(plan, rules=(*own, *ranks, *plan.rules))


@pytest.fixture(scope="module")
def ranked() -> Workload:
    """glyph_vit with all its ranked layers."""
    workload = build_workload("glyph_vit")
    return rank_tokens(workload, [one.name for one in ranked_layers(workload)])


@pytest.mark.parametrize("importance", ["class", "received"])
def test_a_ranked_workload_is_a_sound_workload(importance: str) -> None:
    """Every layer but the first gets its ops; all that read the residual stream read the copy in order."""
    workload = build_workload("glyph_vit")
    layers = ranked_layers(workload)
    assert [one.name for one in layers] == ["b1", "b2", "b3"]
    made = rank_tokens(workload, [one.name for one in layers], importance)
    check_workload(made)
    for one in layers:
        assert made.op_by_name[f"{one.name}.norm1"].inputs == (one.gather,)
        assert made.op_by_name[f"{one.name}.attn_add"].inputs[1] == one.gather
        assert made.op_by_name[one.gather].inputs == (one.source, one.rank)
        assert (one.rank_scores in made.op_by_name) == (importance == "class")
    assert made.tensor_by_name["b1.rank"].elements == 65
    extra = made.macs - workload.macs
    assert extra == (3 * 6 * 65 * 32 if importance == "class" else 0)


def test_groups_reach_the_readers(ranked: Workload) -> None:
    """Rows of every product, columns of the keys, the reduction over the values; nothing behind the layer."""
    quantized = apply_plan(ranked, sliced_plan(ranked))
    found = {item.op.name: item for item in quantized.ops}
    assert found["b1.scores"].right_axis == "cols"
    assert found["b1.values"].right_axis == "depth"
    assert found["b1.fc2"].left_tokens == TokenGroups("b1", 5, 2)
    assert found["b1.fc2"].tokens is None
    assert found["b2.qkv"].left_tokens is None


def test_plans_with_groups_are_read_back(ranked: Workload, tmp_path: pytest.TempPathFactory) -> None:
    """A file holds what the plan says; other counts are another plan, no groups the old fingerprint."""
    plan = sliced_plan(ranked)
    path = f"{tmp_path}/plan.yaml"
    with open(path, "w", encoding="utf-8") as file:
        file.write(dump_plan(plan))
    assert load_plan(path) == plan
    assert token_layers(plan) == {"b1": TokenGroups("b1", 5, 2)}
    assert with_counts(plan, {"b1": 9}).fingerprint() != plan.fingerprint()
    assert Rule("*").to_json().keys() == {"match", "weights", "activation", "output", "right"}


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        (Rule("b1.norm1", tokens=TokenGroups("b1", 66)), "66 full tokens of 65"),
        (Rule("b1.fc1", tokens=TokenGroups("b1", 6)), "but [56] in another op"),
        (Rule("b1.norm1", tokens=TokenGroups("b9", 5)), "no op b9.gather"),
        (Rule("b1.norm1", tokens=TokenGroups("b1", 5, 7)), "u8 less 7 bits is no number format"),
        (Rule("b1.scores", tokens=TokenGroups("b1", 5)), "b1.softmax, a vector op, reads them"),
        (Rule("b0.norm1", tokens=TokenGroups("b1", 5)), "no op b1.gather"),
        (Rule("b2.norm1", tokens=TokenGroups("b1", 5)), "in the order of b2.gather: no op b1.gather"),
        (Rule("b2.rank", output=Format.parse("u7")), "words of u7 for the places of 65 tokens and a flag"),
        (Rule("b1.gather", output=Format.parse("u4")), "a copy of u8 in u4"),
    ],
)
def test_what_cannot_be_is_refused(ranked: Workload, rule: Rule, what: str) -> None:
    """One clear problem for each fault."""
    plan = sliced_plan(ranked)
    with pytest.raises(AccelsimError, match=what):
        apply_plan(ranked, replace(plan, rules=(rule, *(one for one in plan.rules if one.match != rule.match))))


def test_groups_without_ranking_are_refused(ranked: Workload) -> None:
    """A workload that never orders its tokens has no groups."""
    with pytest.raises(AccelsimError, match=r"no op b1\.gather"):
        apply_plan(build_workload("glyph_vit"), sliced_plan(ranked))
    with pytest.raises(AccelsimError, match="cannot rank its tokens"):
        rank_tokens(build_workload("efficientvit_b1"), ["b1"])


def test_the_order_holds_until_the_next_ranking() -> None:
    """A layer that is not ranked itself has the groups of the last one that was; words have 9 bits for 197 tokens."""
    once = rank_tokens(build_workload("glyph_vit"), ["b1"])
    plan = load_plan("uniform8")
    later = replace(plan, rules=(Rule("b3.norm1", tokens=TokenGroups("b1", 5)), *plan.rules))
    assert [item.op.name for item in apply_plan(once, later).ops if item.tokens] == ["b3.norm1"]
    deit = rank_tokens(build_workload("deit_tiny"), ["b5"])
    with pytest.raises(AccelsimError, match=r"match: b5\.rank, output: u9"):
        apply_plan(deit, plan)


def test_ranking_runs_on_the_vector_unit(ranked: Workload) -> None:
    """The ops are executed and cost time, under both mappers."""
    ranks = [Rule(one.rank, output=Format.parse("u8")) for one in ranked_layers(build_workload("glyph_vit"))]
    plan = replace(load_plan("uniform8"), rules=(*ranks, *load_plan("uniform8").rules))
    for mapper in ("heuristic", "exhaustive:edp"):
        report = simulate(op_table(ranked, plan), load_accelerator("trio_vit"), mapper=mapper)
        rows = {row["name"]: row for row in report.op_rows()}
        assert rows["b2.rank"]["counts"]["vector_compare"] == 65 * 14
        assert rows["b2.gather"]["cycles"] > 0
