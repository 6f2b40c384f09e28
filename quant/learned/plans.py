"""The plan that widths alone give: what the hardware would execute if training ended with them.

Formats only.  Shifts of heads that meet in one sum follow from steps, which training knows; here they are 0 unless
they are given.
"""

from __future__ import annotations

from dataclasses import replace

from accelsim.head_widths import HeadWidths
from accelsim.plan import QuantPlan
from accelsim.problems import AccelsimError, Problem
from quant.collect import Statistics
from quant.learned.budget import Widths
from quant.learned.sites import BY_HEAD, STORED, WEIGHTS, SiteOptions, sites_of
from quant.learned.structure import attentions
from quant.methods.qvit import QVit
from quant.network import Network
from quant.quantize import make_plan


class WidthPlans:
    """Plans of the widths of a network's sites.

    Raises AccelsimError for sites that no plan can express: parts cut as the released code does, components that stay
    in floating point.
    """

    def __init__(self, network: Network, options: SiteOptions) -> None:
        if options.head_axis != BY_HEAD or options.floating:
            what = f"head axis {options.head_axis}, floating point: {', '.join(options.floating) or 'nothing'}"
            raise AccelsimError(Problem("plan of learned widths", what, "head axis head, everything in integers"))
        self.network, self.sites = network, sites_of(network.workload, options)
        found = attentions(network.workload)
        self._heads = {f"{STORED}/{network.workload.op_by_name[one.qkv].output}": one.heads for one in found}
        values = {f"{STORED}/{network.workload.op_by_name[one.values].output}" for one in found}
        self._summed = values | {f"{WEIGHTS}/{one.proj}" for one in found}
        self._base = make_plan(network, QVit(), Statistics())

    def of(self, widths: Widths) -> QuantPlan:
        """The plan of whole widths [tables, heads] of every site."""
        method = self.method(widths)
        formats = method.outputs(self.network, Statistics())
        rules = []
        for node, rule in zip(self.network.nodes, self._base.rules, strict=False):
            output = formats.get(node.op.output, rule.output)
            rule = replace(rule, output=output, right=output)
            rules.append(replace(rule, weights=method.shares(node, None)) if node.has_filters else rule)
        return method.grouped(self.network, replace(self._base, rules=(*rules, self._base.rules[-1])))

    def method(self, widths: Widths) -> QVit:
        """The formats of whole widths."""
        kinds: dict[str, dict[str, HeadWidths]] = {STORED: {}, WEIGHTS: {}}
        for name, site in self.sites.items():
            kinds[site.kind][site.of] = self._parts(name, [int(bits) for bits in widths[name].flatten().tolist()])
        return QVit(stored=kinds[STORED], weights=kinds[WEIGHTS])

    def _parts(self, name: str, bits: list[int]) -> HeadWidths:
        """One part where all have one width; else a part for every head."""
        if len(set(bits)) == 1:
            return HeadWidths((bits[0],))
        each = 3 * self._heads[name] // len(bits) if name in self._heads else 1
        spread = tuple(one for one in bits for _ in range(each))
        return HeadWidths(spread, (0,) * len(spread) if name in self._summed else ())
