"""Everything to measure for a penalty table: changes of a base network under settings."""

from __future__ import annotations

from collections.abc import Sequence

from accelsim.head_plans import THIRDS, attention_layers
from accelsim.nonlinear.methods import function_of
from accelsim.token_groups import full_count
from accelsim.token_rules import sliced_ops
from accelsim.workloads.rank import ranked_layers
from quant.collect import Statistics
from quant.methods.mptq import MPTQ, region_kind
from quant.network import Network
from quant.patchwise.network import rankings
from quant.penalties.activation_groups import ActivationGroup
from quant.penalties.changes import CODED, DIVISION, FILTERS, FULL, OUTPUTS, PARTS, TOKENS, Base, Change
from quant.penalties.choices import METHOD_MARK
from quant.penalties.settings import BASE_FORMAT, FUNCTIONS, LOG2_FORMAT, LOG2_METHOD, Settings


def every_change(base: Base, settings: Settings) -> list[Change]:
    """Everything to measure, what the base has included."""
    network = base.checkpoint.network
    layers = [node.name for node in network.nodes if node.has_filters]
    divides = any(node.op.op_class == "division" for node in network.nodes)
    changes = [Change(FILTERS, op, fmt) for op in layers for fmt in settings.formats]
    for name, group in base.groups.items():
        choices = group_choices(network, base.statistics, group, settings)
        changes += [Change(OUTPUTS, name, one) for one in choices]
        if any(METHOD_MARK in one for one in choices):
            changes.append(Change(CODED, name, BASE_FORMAT))
    for name, count in base.parts.items():
        changes += [Change(PARTS, name, one, k) for one in (BASE_FORMAT, *settings.head_formats) for k in range(count)]
    for layer, counts in token_counts(network, settings).items():
        changes += [Change(TOKENS, layer, one) for one in (FULL, *map(str, counts))]
    return [*changes, *(Change(DIVISION, "", one) for one in settings.divisions if divides)]


def group_choices(
    network: Network, statistics: Statistics, group: ActivationGroup, settings: Settings
) -> tuple[str, ...]:
    """Names of the choices of a group (`quant.penalties.choices`): formats, then formats by method.

    Two-region formats have the ratio that OPT-m finds on the statistics.  Only a group of one op whose output may have
    them has them, and log2 codes; only groups of softmaxes or LayerNorms have methods.
    """
    ops = [network.node(name) for name in group.ops]
    output = ops[0].op.output
    coded = len(ops) == 1 and region_kind(network, output) is not None
    finder = MPTQ()
    regions = [finder.format_of(network, statistics, output, bits).name for bits in settings.region_bits if coded]
    plain = (*settings.uniform_formats, *regions)
    functions = {function_of(node.op.recipe) for node in ops}
    if len(functions) > 1 or not functions <= set(FUNCTIONS) or any(node.settings.get("activation") for node in ops):
        return plain
    made = []
    for method in settings.methods:
        able: Sequence[str] = plain
        if method == LOG2_METHOD and functions == {FUNCTIONS[0]}:
            able = (LOG2_FORMAT,) if coded else ()
        made += [f"{one}{METHOD_MARK}{method}" for one in able]
    return (*plain, *made)


def part_counts(network: Network, groups: Sequence[ActivationGroup], settings: Settings) -> dict[str, int]:
    """Numbers of parts q | k | v of the heads, of groups that are the output of one layer; none in a ranked network.

    No plan has both token groups and head widths (docs/decisions/0020-head-widths.md).
    """
    if not settings.head_formats or rankings(network):
        return {}
    alone = {group.ops[0] for group in groups if len(group.ops) == 1}
    return {one.qkv.name: THIRDS * one.heads for one in attention_layers(network.workload) if one.qkv.name in alone}


def token_counts(network: Network, settings: Settings) -> dict[str, tuple[int, ...]]:
    """Numbers of full tokens of every layer that the network ranks, most first.

    Layers none of whose outputs can have token groups are left out.
    """
    ranks = rankings(network)
    tokens = {
        one.name: one.tokens
        for one in ranked_layers(network.workload)
        if one.name in ranks and sliced_ops(network.workload, one.name)
    }
    shares = sorted(settings.token_shares, reverse=True)
    return {
        name: tuple(dict.fromkeys(full_count(share, count) for share in shares)) for name, count in tokens.items()
    } if shares else {}  # fmt: skip
