"""What every attention head of a plan costs: array cycles, energy, and what it would cost at 8 bits.

Q-ViT (Li et al. 2022, arXiv 2201.07703) chooses a width for every head; this is what a choice means for a design.  The
costs are defined in docs/explain.md; docs/decisions/0020-head-widths.md says how heads are executed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from accelsim.api import Report, simulate
from accelsim.arch import Accelerator
from accelsim.counts import ENGINE_COUNTS, count_columns
from accelsim.energy import price_per_op, unit_energies
from accelsim.head_plans import THIRDS, AttentionLayer, attention_layers, head_at, head_channels
from accelsim.head_work import (
    Float,
    array_cycles,
    column_products_pj,
    filter_shares,
    part_products_pj,
    product_work,
    segment_shares,
)
from accelsim.ir import Workload
from accelsim.optable import MAX_PROBLEMS, OpTable, op_table
from accelsim.plan import QuantizedOp, QuantPlan
from accelsim.problems import AccelsimError, InfeasibleError, Problem
from accelsim.token_forms import has_groups

COMPARED_BITS = 8
_TOKEN_LEVERS = ("no `tokens` in its rules",)
_PART_LEVERS = ("`bits` with one width for every head",)


@dataclass(frozen=True)
class HeadCost:
    """One head of an attention layer.

    Widths: of its queries, keys, values, attention shares, outputs, and mean widths of its filters in the layer that
    makes q | k | v and in the projection.  `*_cycles` are cycles for which an array engine is busy, `*_pj` dynamic
    energy in pJ (arithmetic convention).  `more_cycles` and `more_pj` are what one image of the whole network takes
    more, all energy, when this head alone runs at 8 bits, mapped and simulated anew; None where the design cannot.
    """

    layer: str
    head: int
    query_bits: int
    key_bits: int
    value_bits: int
    attention_bits: int
    output_bits: int
    qkv_filter_bits: float
    projection_filter_bits: float
    qkv_cycles: float
    scores_cycles: float
    values_cycles: float
    projection_cycles: float
    qkv_pj: float
    scores_pj: float
    values_pj: float
    projection_pj: float
    more_cycles: int | None
    more_pj: float | None

    @property
    def array_cycles(self) -> float:
        """Array cycles of the head in the four ops."""
        return self.qkv_cycles + self.scores_cycles + self.values_cycles + self.projection_cycles

    @property
    def energy_pj(self) -> float:
        """Dynamic energy of the head in the four ops."""
        return self.qkv_pj + self.scores_pj + self.values_pj + self.projection_pj

    def to_json(self) -> dict[str, Any]:
        """Plain data, sums included."""
        return {**asdict(self), "array_cycles": self.array_cycles, "energy_pj": self.energy_pj}


def head_costs(workload: Workload, plan: QuantPlan, accelerator: Accelerator) -> list[HeadCost]:
    """Costs of every head of every attention layer, heuristic mapping.

    QKᵀ and AV of a head have closed forms (a row of its own in its own widths); energy of transfers of these ops is
    shared by the bits of their heads.  The projection's cycles are shared by the segments, those of q | k | v by
    the products of a head's columns and their speed; energy of both by what products and filters of a head cost.
    Raises AccelsimError for a workload without such layers, for token groups and for projections whose filters have
    parts that are not the heads; InfeasibleError when the design cannot run the plan.
    """
    layers = attention_layers(workload)
    if not layers:
        expected = "attention layers whose q | k | v is one linear layer, heads side by side"
        raise AccelsimError(Problem(workload.name, "has no attention heads", expected, ("deit_tiny", "glyph_vit")))
    table = op_table(workload, plan)
    _check_parts(table, layers)
    report = simulate(table, accelerator)
    return [cost for layer in layers for cost in _layer_costs(report, layer)]


def _check_parts(table: OpTable, layers: Sequence[AttentionLayer]) -> None:
    """Raise AccelsimError unless all tokens of an op run alike and every part of a projection's filters is a head."""
    problems = []
    if has_groups(table):
        what = "token groups have no costs per head"
        problems.append(Problem(f"plan {table.quantized.plan.name}", what, "a plan without `tokens`", _TOKEN_LEVERS))
    for layer in layers:
        widths = table.quantized.ops[table.op_names.index(layer.proj.name)].weight_heads
        if widths is not None and len(widths.bits) != layer.heads:
            where = f"plan {table.quantized.plan.name}: {layer.proj.name}: weight_heads"
            what = f"{len(widths.bits)} parts of filters for {layer.heads} heads"
            problems.append(Problem(where, what, f"one part for every head: {layer.heads}", _PART_LEVERS))
    if problems:
        raise AccelsimError(problems[:MAX_PROBLEMS])


def _layer_costs(report: Report, layer: AttentionLayer) -> list[HeadCost]:
    names, heads = report.table.op_names, range(layer.heads)
    qkv, scores, values, proj = (names.index(op.name) for op in (layer.qkv, layer.scores, layer.values, layer.proj))
    channels = [head_channels(layer, head) for head in heads]
    qkv_cycles = array_cycles(report, qkv) @ filter_shares(report, qkv, channels)
    proj_cycles = array_cycles(report, proj) @ segment_shares(report, proj, layer.heads)
    qkv_pj = _linear_pj(report, qkv, [_filter_pj(report, qkv, own) for own in channels])
    proj_pj = _linear_pj(report, proj, [_part_pj(report, proj, head, layer.heads) for head in heads])
    works = [[product_work(report, k, head) for head in heads] for k in (scores, values)]
    scores_pj, values_pj = (
        _product_pj(report, k, np.array([work.counts for work in of_op]))
        for k, of_op in zip((scores, values), works, strict=True)
    )
    items = report.table.quantized.ops
    filters, parts = _channel_bits(items[qkv]), _part_bits(items[proj], layer.heads)
    query, key, value = (third * layer.heads for third in range(THIRDS))
    softmax = items[names.index(layer.softmax.name)]
    found = []
    for head in heads:
        more_cycles, more_pj = _more(report, layer, head)
        found.append(HeadCost(
            layer=layer.name, head=head, query_bits=_bits(items[qkv], query + head),
            key_bits=_bits(items[qkv], key + head), value_bits=_bits(items[qkv], value + head),
            attention_bits=_bits(softmax, head), output_bits=_bits(items[values], head),
            qkv_filter_bits=float(filters[channels[head]].mean()), projection_filter_bits=parts[head],
            qkv_cycles=float(qkv_cycles[head]), scores_cycles=float(works[0][head].cycles),
            values_cycles=float(works[1][head].cycles), projection_cycles=float(proj_cycles[head]),
            qkv_pj=float(qkv_pj[head]), scores_pj=float(scores_pj[head]), values_pj=float(values_pj[head]),
            projection_pj=float(proj_pj[head]), more_cycles=more_cycles, more_pj=more_pj,
        ))  # fmt: skip
    return found


def _part_bits(item: QuantizedOp, heads: int) -> list[float]:
    """Bits of a linear layer's filters by part along their inputs; the mean for all where they have one width."""
    if item.weight_heads is not None:
        return [float(bits) for bits in item.weight_heads.bits]
    return [float(_channel_bits(item).mean())] * heads


def _bits(item: QuantizedOp, part: int) -> int:
    return item.output.bits if item.heads is None else item.heads.bits[part]


def _channel_bits(item: QuantizedOp) -> Float:
    """Bits of the filter weights of every output channel; their mean for all where the plan does not name them."""
    assert item.op.loop is not None
    found = np.zeros(item.op.loop.cols)
    if item.weight_heads is not None:
        return found + item.weight_heads.mean
    for share in item.weights:
        if share.channels is not None:
            found[share.channels.indices] = share.format.bits
        else:
            found += share.format.bits * (1 / len(item.weights) if share.share is None else share.share)
    return found


def _product_pj(report: Report, k: int, counts: Float) -> Float:
    """Energy of the heads of a product: their own counts, and what the op moves besides by the bits of the heads."""
    prices = unit_energies(report.accelerator)
    own = np.asarray(counts @ prices, np.float64)
    shared = len(ENGINE_COUNTS) * len(report.accelerator.engines)
    bits = counts[:, shared:].sum(axis=1)
    rest = float(price_per_op(report.result.counts[k : k + 1], report.accelerator)[0]) - own.sum()
    return np.asarray(own + rest * bits / bits.sum())


def _linear_pj(report: Report, k: int, weights: list[float]) -> Float:
    """Energy of a linear layer shared in proportion to `weights`."""
    total = float(price_per_op(report.result.counts[k : k + 1], report.accelerator)[0])
    return np.asarray(total * np.array(weights) / sum(weights))


def _filter_pj(report: Report, k: int, channels: list[int]) -> float:
    """Energy of the products of these output channels and of their filters on the way to the weight buffer."""
    item = report.table.quantized.ops[k]
    assert item.op.loop is not None
    bits = float(_channel_bits(item)[channels].sum()) * item.op.loop.depth
    return column_products_pj(report, k, channels) + bits * _filter_bit_pj(report)


def _part_pj(report: Report, k: int, head: int, heads: int) -> float:
    """As `_filter_pj`, of a head's part of all filters along their inputs."""
    item = report.table.quantized.ops[k]
    bits = _part_bits(item, heads)[head] * item.op.weights / heads
    return part_products_pj(report, k, head, heads) + bits * _filter_bit_pj(report)


def _filter_bit_pj(report: Report) -> float:
    """Energy of a bit that is loaded once: out of DRAM and into the weight buffer."""
    prices = dict(zip(count_columns(report.accelerator), unit_energies(report.accelerator), strict=True))
    return float(prices["dram_read_bits"] + prices["weight_write_bits"])


def _more(report: Report, layer: AttentionLayer, head: int) -> tuple[int | None, float | None]:
    """(cycles, pJ) that the network takes more when the head runs at `COMPARED_BITS`; None where the design cannot."""
    quantized = report.table.quantized
    changed = op_table(quantized.workload, head_at(quantized.plan, layer, head, COMPARED_BITS))
    try:
        wide = simulate(changed, report.accelerator)
    except InfeasibleError:
        return None, None
    energy = wide.prices.arithmetic.energy_pj - report.prices.arithmetic.energy_pj
    return wide.result.cycles_total - report.result.cycles_total, energy
