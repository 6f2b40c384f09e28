"""Plans of ranked networks: rules of the new ops, and token groups of a layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from accelsim.formats import Format, Scheme
from accelsim.ir import OpKind
from accelsim.plan import QuantPlan, Rule, apply_plan
from accelsim.problems import AccelsimError, Problem
from accelsim.token_groups import TokenGroups
from accelsim.token_rules import sliced_ops
from accelsim.workloads.rank import RankedLayer, ranked_layers
from quant.network import Network
from quant.patchwise.network import rankings


def with_groups(network: Network, plan: QuantPlan, high: Mapping[str, int], drop_bits: int = 2) -> QuantPlan:
    """The plan of a ranked network with token groups in these layers: layer → number of full tokens.

    They are in every output of the layer that `sliced_ops` names and that has a uniform format; two-region and log2
    codes keep all their bits.  Under a threshold the number is the one that plans are compared and simulated with;
    images have their own.  Raises AccelsimError for a layer that is not ranked, a number that is not 1 … tokens, or
    widths that cannot lose so many bits.
    """
    unknown = [name for name in high if name not in rankings(network)]
    if unknown or drop_bits < 1:
        what = f"{', '.join(unknown)}: not ranked in {network.workload.name}" if unknown else f"{drop_bits} bits fewer"
        expected = ", ".join(rankings(network)) or "a network of quant.patchwise.network.ranked"
        raise AccelsimError(Problem("token groups", what, expected if unknown else "1 or more"))
    plan = ranking_rules(network, plan)
    ops = network.workload.op_by_name
    rules = {}
    for layer, count in high.items():
        for name in sliced_ops(network.workload, layer):
            rule = plan.rule_for(ops[name])
            if rule.output.scheme is Scheme.UNIFORM:
                rules[name] = replace(rule, match=name, tokens=TokenGroups(layer, count, drop_bits))
    made = _with_rules(plan, rules)
    apply_plan(network.workload, made)
    return made


def ranking_rules(network: Network, plan: QuantPlan) -> QuantPlan:
    """The plan with rules for the ops of ranking and gathering, which follow from the other ops' rules.

    The class token's scores and shares are stored as those of the whole attention are, the copy of the residual stream
    as the stream is; rank words have the bits that they need.  The plan itself for a network that ranks nothing.
    """
    ranks, workload = rankings(network), network.workload
    rules: dict[str, Rule] = {}
    for one in ranked_layers(workload):
        if one.name not in ranks:
            continue
        rules[one.rank] = Rule(one.rank, output=Format.parse(f"u{one.rank_bits}"))
        for new, name in ((one.rank_scores, one.scores), (one.rank_softmax, one.softmax)):
            if new in workload.op_by_name:
                rules[new] = replace(plan.rule_for(workload.op_by_name[name]), match=new, tokens=None)
        rules[one.gather] = _gathered(network, plan, one, rules)
    return _with_rules(plan, rules)


def _gathered(network: Network, plan: QuantPlan, one: RankedLayer, made: Mapping[str, Rule]) -> Rule:
    """The rule of a gather: its output is stored as what it copies."""
    name = network.node(one.gather).operands[0].source
    while name in network.workload.op_by_name and network.workload.op_by_name[name].kind is OpKind.VIEW:
        name = network.workload.op_by_name[name].inputs[0]
    if name not in network.workload.op_by_name:  # the image, which has no rule
        return replace(Rule(one.gather), zero_point=plan.input_zero_point)
    source = made.get(name) or plan.rule_for(network.workload.op_by_name[name])
    return Rule(one.gather, output=source.output, right=source.right, zero_point=source.zero_point)


def _with_rules(plan: QuantPlan, rules: Mapping[str, Rule]) -> QuantPlan:
    """The plan with these rules for the ops that they name, each in the place of its old one or before all others."""
    named = {rule.match for rule in plan.rules}
    new = [rule for name, rule in rules.items() if name not in named]
    return replace(plan, rules=(*new, *(rules.get(rule.match, rule) for rule in plan.rules)))
