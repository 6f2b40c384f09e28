"""Attention layers of a workload, and a plan in which one of their heads runs at another width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from accelsim.channels import Channels
from accelsim.formats import Format, Scheme
from accelsim.head_widths import MAX_SHIFT, HeadWidths
from accelsim.ir import Op, OpKind, Workload
from accelsim.plan import QuantPlan, Rule, WeightShare

THIRDS = 3  # q | k | v of one linear layer


@dataclass(frozen=True)
class AttentionLayer:
    """The ops of an attention layer: one linear layer makes q | k | v, one reads the heads' outputs."""

    name: str
    heads: int
    qkv: Op
    scores: Op
    softmax: Op
    values: Op
    proj: Op


def attention_layers(workload: Workload) -> tuple[AttentionLayer, ...]:
    """The attention layers of a plain vision transformer, in order; none in a workload with another layout of heads."""
    makers = {op.output: op for op in workload.ops if op.kind is not OpKind.VIEW}
    found = []
    for values in workload.ops:
        softmax = makers.get(values.inputs[0]) if values.kind is OpKind.MATMUL else None
        if softmax is None or softmax.recipe is None or not softmax.recipe.name.startswith("softmax"):
            continue
        scores, qkv = makers.get(softmax.inputs[0]), makers.get(values.inputs[1])
        proj = next((op for op in workload.ops if op.kind is OpKind.CONV and values.output in op.inputs), None)
        if (
            qkv is None
            or scores is None
            or proj is None
            or not (qkv.loop and scores.loop and values.loop and proj.loop)
        ):
            continue
        heads, size = values.loop.groups, values.loop.cols
        thirds = set(scores.inputs) == {qkv.output} and qkv.loop.cols == THIRDS * heads * size
        linear = qkv.loop.groups == proj.loop.groups == proj.loop.taps == 1 and proj.loop.depth == heads * size
        if thirds and linear and scores.loop.depth == size:
            name = values.name.rpartition(".")[0] or values.name
            found.append(AttentionLayer(name, heads, qkv, scores, softmax, values, proj))
    return tuple(found)


def head_at(plan: QuantPlan, layer: AttentionLayer, head: int, bits: int) -> QuantPlan:
    """The plan with q, k, v, attention, output and filters of one head in `bits` bits, in the ranges that they had.

    Formats that are not uniform stay as they are, and so do filters whose channels the plan does not name.
    """
    qkv, softmax, values, proj = (plan.rule_for(op) for op in (layer.qkv, layer.softmax, layer.values, layer.proj))
    thirds = [third * layer.heads + head for third in range(THIRDS)]
    rules = (
        _with_filters(_with_output(qkv, thirds, THIRDS * layer.heads, bits), layer, head, bits),
        _with_output(softmax, [head], layer.heads, bits),
        _with_output(values, [head], layer.heads, bits, aligned=True),
        _with_weights(proj, head, layer.heads, bits),
    )
    names = (layer.qkv.name, layer.softmax.name, layer.values.name, layer.proj.name)
    named = tuple(replace(rule, match=name) for rule, name in zip(rules, names, strict=True))
    return replace(plan, rules=(*named, *(rule for rule in plan.rules if rule.match not in names)))


def _widths(widths: HeadWidths | None, plain: Format, parts: int, changed: Sequence[int], bits: int) -> HeadWidths:
    """`parts` widths of which those at `changed` are `bits`; a part keeps its range, so its step follows its width."""
    old = widths or HeadWidths((plain.bits,) * parts, (0,) * parts)
    new = tuple(bits if place in changed else one for place, one in enumerate(old.bits))
    # Parts of one width without shifts have one step.
    before = old.shifts or (0,) * parts
    shifts = [shift + was - now for shift, was, now in zip(before, old.bits, new, strict=True)]
    lowest = min(shifts)
    return HeadWidths(new, tuple(min(MAX_SHIFT, shift - lowest) for shift in shifts))


def _with_output(rule: Rule, changed: Sequence[int], parts: int, bits: int, aligned: bool = False) -> Rule:
    if rule.output.scheme is not Scheme.UNIFORM:
        return rule
    widths = _widths(rule.heads, rule.output, parts, changed, bits)
    if not aligned:
        widths = replace(widths, shifts=())
    return replace(rule, heads=widths, output=Format(Scheme.UNIFORM, max(widths.bits)))


def _with_weights(rule: Rule, head: int, heads: int, bits: int) -> Rule:
    if len(rule.weights) != 1 or rule.weights[0].format.scheme is not Scheme.UNIFORM:
        return rule
    widths = _widths(rule.weight_heads, rule.weights[0].format, heads, [head], bits)
    share = replace(rule.weights[0], format=Format(Scheme.UNIFORM, max(widths.bits)))
    return replace(rule, weight_heads=widths, weights=(share,))


def _with_filters(rule: Rule, layer: AttentionLayer, head: int, bits: int) -> Rule:
    """The filters of a head along the outputs of q | k | v in another uniform format."""
    assert layer.qkv.loop is not None
    cols, own = layer.qkv.loop.cols, head_channels(layer, head)
    shares = rule.weights
    named = len(shares) == 1 or all(share.channels is not None for share in shares)
    if not named or rule.weight_heads is not None:
        return rule
    format_of = {}
    for share in shares:
        places = share.channels.indices.tolist() if share.channels is not None else range(cols)
        format_of.update(dict.fromkeys(places, share.format))
    for channel in own:
        if format_of[channel].scheme is Scheme.UNIFORM:
            format_of[channel] = Format(Scheme.UNIFORM, bits)
    formats = dict.fromkeys([*(share.format for share in shares), *format_of.values()])
    members = {one: [c for c in range(cols) if format_of[c] == one] for one in formats}
    kept = [(one, channels) for one, channels in members.items() if channels]
    if len(kept) == 1:
        return replace(rule, weights=(WeightShare(kept[0][0]),))
    return replace(rule, weights=tuple(WeightShare(one, channels=Channels.of(places)) for one, places in kept))


def head_channels(layer: AttentionLayer, head: int) -> list[int]:
    """Output channels of q | k | v that are a head's."""
    assert layer.qkv.loop is not None
    third = layer.qkv.loop.cols // THIRDS
    size = third // layer.heads
    return [part * third + head * size + place for part in range(THIRDS) for place in range(size)]
