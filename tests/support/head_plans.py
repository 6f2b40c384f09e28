"""Small vision transformers and plans with head widths in them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from accelsim.config import load_plan
from accelsim.formats import Format
from accelsim.head_widths import HeadWidths
from accelsim.ir import Workload
from accelsim.optable import OpTable, op_table
from accelsim.plan import QuantPlan, Rule, WeightShare
from accelsim.workloads.vit import Variant, build_variant

HEADS, TOKENS, DIM = 3, 17, 24
WIDTHS = (2, 3, 4, 6, 8)
HEADED = ("qkv", "softmax", "values", "proj")


@lru_cache(maxsize=4)
def small_vit(heads: int = HEADS, dim: int = DIM, depth: int = 2) -> Workload:
    """17 tokens, heads of dim / heads channels."""
    return build_variant("small_vit", Variant(dim, depth, heads, 4, 5, 1), 16)


def aligned(bits: Sequence[int]) -> HeadWidths:
    """Widths with one range: a step has twice the size for every bit less."""
    return HeadWidths(tuple(bits), tuple(max(bits) - one for one in bits))


def rule_of(workload: Workload, base: QuantPlan, name: str, widths: HeadWidths) -> Rule:
    """The rule of an op with head widths on its output, of a projection on its filters."""
    op, widest = workload.op_by_name[name], Format.parse(f"u{max(widths.bits)}")
    rule = replace(base.rule_for(op), match=name)
    if name.endswith(".proj"):
        return replace(rule, weights=(WeightShare(widest),), weight_heads=widths)
    return replace(rule, output=widest, heads=widths)


def head_plan(
    workload: Workload, seed: int = 0, widths: Sequence[int] = WIDTHS, headed: Sequence[str] = HEADED,
    base: str = "uniform8",
) -> QuantPlan:  # fmt: skip
    """A named plan with random widths in every attention layer."""
    plan, chance = load_plan(base), random.Random(seed)
    rules = []
    for op in workload.ops:
        layer, _, name = op.name.rpartition(".")
        if name not in headed:
            continue
        loop = workload.op_by_name[f"{layer}.scores"].loop
        assert loop is not None
        bits = [chance.choice(widths) for _ in range(loop.groups * (3 if name == "qkv" else 1))]
        own = aligned(bits) if name in ("values", "proj") else HeadWidths(tuple(bits))
        rules.append(rule_of(workload, plan, op.name, own))
    return replace(plan, rules=(*rules, *plan.rules))


def head_table(
    seed: int = 0, widths: Sequence[int] = WIDTHS, headed: Sequence[str] = HEADED, base: str = "uniform8"
) -> OpTable:
    """Arrays of `small_vit` under such a plan."""
    return op_table(small_vit(), head_plan(small_vit(), seed, widths, headed, base))


def with_bits(plan: QuantPlan, name: str, bits: Sequence[int], shifts: bool) -> QuantPlan:
    """The plan with other widths of the parts of an op that has some, its widest as before."""

    def changed(rule: Rule) -> Rule:
        widths = aligned(bits) if shifts else HeadWidths(tuple(bits))
        if rule.match != name:
            return rule
        widest = Format.parse(f"u{max(bits)}")
        if rule.weight_heads is not None:
            return replace(rule, weight_heads=widths, weights=(WeightShare(widest),))
        return replace(rule, heads=widths, output=widest)

    return replace(plan, rules=tuple(changed(rule) for rule in plan.rules))
