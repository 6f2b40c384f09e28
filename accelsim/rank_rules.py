"""Rules of the ops that rank tokens: they follow from the rules of the ops that they copy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from accelsim.formats import Format
from accelsim.ir import OpKind, Workload
from accelsim.plan import QuantPlan, Rule
from accelsim.workloads.rank import GATHER, ranked_layers


def followers(workload: Workload) -> dict[str, str]:
    """Ranking op → the op as whose output its own is stored, of a workload of `rank_tokens`, in execution order.

    The class token's scores and shares follow those of the whole attention, a gather follows what made the residual
    stream (the name of the graph input where nothing did).  Rank words follow nothing and are left out.
    """
    ops, makers = workload.op_by_name, {op.output: op for op in workload.ops}
    found: dict[str, str] = {}
    for one in ranked_layers(workload):
        for new, old in ((one.rank_scores, one.scores), (one.rank_softmax, one.softmax)):
            if new in ops:
                found[new] = old
        if one.gather in ops:
            maker = makers.get(ops[one.gather].inputs[0])
            while maker is not None and maker.kind is OpKind.VIEW:
                maker = makers.get(maker.inputs[0])
            source = workload.input if maker is None else maker.name
            found[one.gather] = found.get(source, source)
    return found


def followed(source: Rule, follower: str, op_class: str) -> Rule:
    """The rule of a follower, from the rule of the op that it follows."""
    if op_class == GATHER:
        return Rule(follower, output=source.output, right=source.right, zero_point=source.zero_point)
    return replace(source, match=follower, tokens=None)


def ranking_rules(workload: Workload, plan: QuantPlan) -> QuantPlan:
    """The plan with rules for the ops of ranking and gathering, which follow from the other ops' rules.

    Rank words have the bits that they need.  The plan itself for a workload that ranks nothing.
    """
    ops, sources = workload.op_by_name, followers(workload)
    rules: dict[str, Rule] = {}
    for one in ranked_layers(workload):
        if one.rank in ops:
            rules[one.rank] = Rule(one.rank, output=Format.parse(f"u{one.rank_bits}"))
        for name in (one.rank_scores, one.rank_softmax, one.gather):
            if name in sources:
                source = sources[name]
                # The image has no rule of its own.
                of_image = replace(Rule(name), zero_point=plan.input_zero_point)
                rule = plan.rule_for(ops[source]) if source in ops else of_image
                rules[name] = followed(rule, name, ops[name].op_class)
    return with_rules(plan, rules)


def with_rules(plan: QuantPlan, rules: Mapping[str, Rule]) -> QuantPlan:
    """The plan with these rules for the ops that they name, each in the place of its old one or before all others."""
    named = {rule.match for rule in plan.rules}
    new = [rule for name, rule in rules.items() if name not in named]
    return replace(plan, rules=(*new, *(rules.get(rule.match, rule) for rule in plan.rules)))
