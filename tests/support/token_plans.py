"""Small ranked vision transformers and plans with token groups in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from accelsim.config import load_plan
from accelsim.formats import Format
from accelsim.ir import Workload
from accelsim.optable import OpTable, op_table
from accelsim.plan import QuantPlan, Rule
from accelsim.token_groups import CLASS_TOKEN, TokenGroups
from accelsim.workloads.rank import rank_tokens, ranked_layers
from accelsim.workloads.vit import Variant, build_variant

SLICED = ("norm1", "qkv", "softmax", "values", "norm2", "fc1")


@lru_cache(maxsize=8)
def small_vit(side: int = 16, dim: int = 24, heads: int = 3, depth: int = 3) -> Workload:
    """(side / 4)² + 1 tokens, all layers but the first ranked by the class token."""
    workload = build_variant("small_vit", Variant(dim, depth, heads, 4, 5, 1), side)
    return rank_tokens(workload, [one.name for one in ranked_layers(workload)], CLASS_TOKEN)


def grouped_plan(
    workload: Workload, high: Mapping[str, int], drop_bits: int = 4, base: str = "uniform8",
    sliced: tuple[str, ...] = SLICED,
) -> QuantPlan:  # fmt: skip
    """A named plan with token groups in these layers of a ranked workload; rank words of 9 bits."""
    plan = load_plan(base)
    rules = [Rule(f"{layer}.rank", output=Format.parse("u9")) for layer in high]
    for layer, count in high.items():
        for name in sliced:
            op = workload.op_by_name[f"{layer}.{name}"]
            rules.append(replace(plan.rule_for(op), match=op.name, tokens=TokenGroups(layer, count, drop_bits)))
    return replace(plan, rules=(*rules, *plan.rules))


def grouped_table(
    high: Mapping[str, int], drop_bits: int = 4, base: str = "uniform8", sliced: tuple[str, ...] = SLICED
) -> OpTable:
    """Arrays of `small_vit` under such a plan."""
    workload = small_vit()
    return op_table(workload, grouped_plan(workload, high, drop_bits, base, sliced))
