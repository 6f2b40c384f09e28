"""Plans of ranked networks: token groups of a layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from accelsim.formats import Scheme
from accelsim.plan import QuantPlan, apply_plan
from accelsim.problems import AccelsimError, Problem
from accelsim.rank_rules import ranking_rules, with_rules
from accelsim.token_groups import TokenGroups
from accelsim.token_rules import sliced_ops
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
    plan = ranking_rules(network.workload, plan)
    ops = network.workload.op_by_name
    rules = {}
    for layer, count in high.items():
        for name in sliced_ops(network.workload, layer):
            rule = plan.rule_for(ops[name])
            if rule.output.scheme is Scheme.UNIFORM:
                rules[name] = replace(rule, match=name, tokens=TokenGroups(layer, count, drop_bits))
    made = with_rules(plan, rules)
    apply_plan(network.workload, made)
    return made
