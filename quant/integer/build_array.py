"""Steps of the array engines: convolutions, linear layers and products of activations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from accelsim.formats import Format
from accelsim.problems import AccelsimError, Problem
from quant.collect import uses_table
from quant.functional import Affine
from quant.groups import narrow
from quant.head_parts import whole_shifts
from quant.integer.exact import require_exact
from quant.integer.graph import Compiler, builds
from quant.integer.requantize import OutputStage, dyadic, table_stage
from quant.integer.steps import Convolution, Leading, Linear, Lookup, Product, Step
from quant.models.blocks import activate
from quant.network import Node
from quant.regions.codes import region_integers

ENTRY_LIMIT = (1 << 15) - 1  # magnitude of a table entry that is requantized once more
CONSTANT_BITS = 16  # fraction bits of the bias of a filter that is constant


@dataclass(frozen=True, eq=False)
class _Channels:
    """Per output channel: value of an accumulator step, real bias, what z adds to the accumulator, its bounds."""

    step: Tensor
    bias: Tensor
    offset: Tensor
    low: Tensor
    high: Tensor


@builds("conv")
def conv(compiler: Compiler, node: Node) -> Step:
    """Convolution: one scale per group of input channels, one zero point per input channel."""
    settings = node.settings
    groups, padding = int(settings["groups"]), tuple(int(x) for x in settings["padding"])
    scale, zero = _input_channels(
        compiler, node, 1, int(compiler.checkpoint.filters[node.name].integers.shape[1]) * groups
    )
    low, high = compiler.range(node, 0)
    if any(padding) and bool(((zero < low) | (zero > high)).any()):
        what = f"pads with zero points {int(zero.min())} … {int(zero.max())}"
        raise AccelsimError(Problem(f"op {node.name}", what, f"codes {low} … {high}", ("granularity: tensor",)))
    weights, parts = _channels(compiler, node, scale.reshape(groups, -1), zero.reshape(groups, -1))
    stage, table, weights = _stages(compiler, node, parts, weights, axis=1)
    bounds = (int(parts.low.min()), int(parts.high.max()))
    stride = tuple(int(x) for x in settings["stride"])
    return Convolution(node, stage, table, *bounds, weights, zero.long(), stride, padding, groups)  # type: ignore[arg-type]


@builds("linear")
def linear(compiler: Compiler, node: Node) -> Step:
    """Linear layer: one scale for the whole input, or aligned ones of its parts; one zero point per input channel."""
    inputs = int(compiler.checkpoint.filters[node.name].integers.shape[1])
    scale, zero = _input_channels(compiler, node, -1, inputs)
    alignment = whole_shifts(scale) if compiler.aligned(node, 0) else None
    if alignment is not None:
        scale = scale.min().expand(inputs)
    weights, parts = _channels(compiler, node, scale[None], zero[None], alignment)
    stage, table, weights = _stages(compiler, node, parts, weights, axis=-1)
    return Linear(node, stage, table, int(parts.low.min()), int(parts.high.max()), weights, alignment)


def _input_channels(compiler: Compiler, node: Node, axis: int, inputs: int) -> tuple[Tensor, Tensor]:
    """Scale and zero point of every input channel; they may differ along the channels only."""
    found = []
    for value in (compiler.scale(node, 0), compiler.zero_point(node, 0)):
        if value.numel() not in (1, value.shape[axis]):
            what = "scales of its input differ between positions"
            raise AccelsimError(Problem(f"op {node.name}", what, "one scale per channel"))
        found.append(value.reshape(-1).expand(inputs))
    return found[0], found[1]


def _channels(
    compiler: Compiler, node: Node, scale: Tensor, zero: Tensor, alignment: Tensor | None = None
) -> tuple[Tensor, _Channels]:
    """Integer weights and constants of every output channel; `scale`, `zero` are [groups, inputs of a group].

    `alignment` [inputs] shifts the codes of an input channel of an ungrouped layer.
    """
    if not bool((scale == scale[:, :1]).all()):
        what = "would add values of different scales"
        raise AccelsimError(Problem(f"op {node.name}", what, "one scale along the reduction", ("granularity: tensor",)))
    filters = compiler.checkpoint.filters[node.name]
    weights, outputs = filters.integers.long(), len(filters.scale)
    groups = len(scale)
    rows = weights.reshape(groups, outputs // groups, zero.shape[1], -1)
    if alignment is not None:
        rows = rows << alignment[None, None, :, None]
    offset = (rows * zero.long()[:, None, :, None]).sum((2, 3)).reshape(outputs)
    low, high = (end if end.dim() == 0 else _by_input(end, zero) for end in compiler.ends(node, 0))
    least = torch.minimum(rows * low, rows * high).sum((2, 3)).reshape(outputs)
    most = torch.maximum(rows * low, rows * high).sum((2, 3)).reshape(outputs)
    require_exact(f"op {node.name}", int(torch.maximum(-least, most).max()))
    step = filters.scale.double() * scale[:, :1].expand(groups, outputs // groups).reshape(outputs)
    bias = torch.zeros(outputs, dtype=torch.float64) if filters.bias is None else filters.bias.double()
    return weights, _Channels(step, bias, offset, least, most)


def _by_input(ends: Tensor, zero: Tensor) -> Tensor:
    """Ends of the codes of input channels against [groups, outputs of a group, inputs of a group, taps]."""
    return ends.reshape(-1).expand(zero.numel()).reshape(len(zero), 1, -1, 1)


def _stages(
    compiler: Compiler, node: Node, parts: _Channels, weights: Tensor, axis: int
) -> tuple[OutputStage, Lookup | None, Tensor]:
    """Output stage, table and the weights that remain of a layer with filters."""
    target = _target(compiler, node)
    outputs = len(weights)
    scale, zero = (_per_channel(node, value, axis, outputs) for value in (target.scale, target.zero_point))
    ratio = parts.step / scale
    wanted = parts.bias / parts.step + zero / ratio
    bias = torch.round(wanted) - parts.offset
    limit = 2.0**31
    constant = (weights.reshape(outputs, -1) == 0).all(1)
    constant |= (wanted.abs() >= limit) | (bias + parts.low < -limit) | (bias + parts.high >= limit)
    if bool(constant.any()):
        _check_constant(node, parts, ratio, constant)
        code = (parts.bias / scale + zero).clamp(-(1 << 14), 1 << 14)
        bias = torch.where(constant, torch.round(code * (1 << CONSTANT_BITS)), bias)
        ratio = torch.where(constant, 2.0**-CONSTANT_BITS, ratio)
        weights = torch.where(constant.reshape(-1, *[1] * (weights.dim() - 1)), 0, weights)
        compiler.constant_filters[node.name] = tuple(constant.nonzero()[:, 0].tolist())
    multiplier, shift = dyadic(ratio, f"op {node.name}")
    shape = (outputs, 1, 1) if axis == 1 else (outputs,)
    stage = OutputStage(
        bias.long().reshape(shape), multiplier.reshape(shape), shift.reshape(shape), _low(node, target), target.high
    )
    stage.check(f"op {node.name}", *(torch.where(constant, 0, x).reshape(shape) for x in (parts.low, parts.high)))
    return stage, _table(compiler, node, target), weights


def _check_constant(node: Node, parts: _Channels, ratio: Tensor, constant: Tensor) -> None:
    """Raise AccelsimError when what such a filter adds to its bias could be a whole output code."""
    lost = (torch.maximum(-parts.low, parts.high) * ratio)[constant]
    if bool((lost >= 1).any()):
        what = f"a bias leaves 32 bits in accumulator steps, and its filter gives up to {float(lost.max()):.3g} codes"
        raise AccelsimError(Problem(f"op {node.name}", what, "less than one code", ("a larger weight scale",)))


def _target(compiler: Compiler, node: Node) -> Affine:
    """What the first requantization gives: the table's input, or the stored codes."""
    before = compiler.checkpoint.preactivation.get(node.name)
    if uses_table(node) and before is None:
        raise AccelsimError(Problem(f"op {node.name}", "has no quantizer before its table", "a calibrated one"))
    if before is None:
        return compiler.output(node)
    return Affine(before.scale.double(), before.zero_point.double(), before.low, before.high)


def _low(node: Node, target: Affine) -> int:
    """Lower clamp: ReLU is max(code, zero point)."""
    if node.activation != "relu":
        return target.low
    if bool((target.zero_point != target.zero_point.reshape(-1)[0]).any()):
        what = "ReLU with zero points that differ between channels: the output stage has one clamp"
        raise AccelsimError(Problem(f"op {node.name}", what, "one zero point", ("granularity: tensor",)))
    return max(target.low, int(target.zero_point.reshape(-1)[0]))


def _per_channel(node: Node, value: Tensor, axis: int, outputs: int) -> Tensor:
    """One number per output channel of what broadcasts against the output."""
    if value.numel() == 1:
        return value.reshape(1).expand(outputs)
    if value.numel() != outputs or value.shape[axis] != outputs:
        raise AccelsimError(Problem(f"op {node.name}", "scales of its output differ between positions", "per channel"))
    return value.reshape(outputs)


def _table(compiler: Compiler, node: Node, before: Affine) -> Lookup | None:
    """The activation's table, if the output stage looks one up."""
    if not uses_table(node):
        return None
    return lookup(before, compiler.output(node), node.activation, f"op {node.name}", compiler.regions(node))


def lookup(before: Affine, output: Affine, activation: str, where: str, regions: Format | None = None) -> Lookup:
    """Table of an activation between two quantizers; `before` has one scale.

    With `regions` entries are levels of that two-region format, each nearest to the real value.  Per-channel outputs:
    entries are in steps of smallest scale / 2^k, k as large as 16 bits allow.
    """
    codes = torch.arange(before.low, before.high + 1, dtype=torch.float64)
    values = activate(before.scale * (codes - before.zero_point), activation)
    if regions is not None:
        if output.scale.numel() > 1:
            raise AccelsimError(Problem(where, "two-region codes of several scales", "granularity: tensor"))
        return Lookup(before.low, region_integers(values, output.scale.reshape(()), regions).long())
    if output.scale.numel() == 1 and output.zero_point.numel() == 1:
        entries = torch.round(values / output.scale.reshape(())) + output.zero_point.reshape(())
        return Lookup(before.low, entries.clamp(output.low, output.high).long())
    step, largest = float(output.scale.min()), float(values.abs().max())
    while largest / step <= ENTRY_LIMIT / 2 and step * 2.0**46 > float(output.scale.max()):
        step /= 2
    entries = torch.round(values / step).clamp(-ENTRY_LIMIT, ENTRY_LIMIT)
    after = table_stage(step, output.scale, output.zero_point, output.low, output.high, where)
    return Lookup(before.low, entries.long(), after)


@builds("matmul")
def matmul(compiler: Compiler, node: Node) -> Step:
    """Product of two activations: a multiplier per pair of operand scales (attention branch, head, row of sums)."""
    for position in range(2):
        compiler.require_symmetric(node, position)
    where = f"op {node.name}"
    left, right = compiler.scale(node, 0), compiler.scale(node, 1)
    if left.shape[-1] > 1 or right.shape[-2] > 1:
        raise AccelsimError(Problem(where, "would add values of different scales", "one scale along the reduction"))
    step = left * right * float(node.settings.get("scale", 1.0))
    target = _target(compiler, node)
    ratio = narrow((step / target.scale).contiguous())
    multiplier, shift = dyadic(ratio, where)
    bias = torch.round(target.zero_point / ratio).long()
    stage = OutputStage(bias, multiplier, shift, _low(node, target), target.high)
    bound = _reduction(compiler, node) * max(
        abs(x * y) for x in compiler.range(node, 0) for y in compiler.range(node, 1)
    )
    stage.check(where, torch.tensor(-bound), torch.tensor(bound))
    require_exact(where, bound)
    return Product(node, stage, _table(compiler, node, target), -bound, bound, _leading(compiler, node))


def _reduction(compiler: Compiler, node: Node) -> int:
    """Products that one output adds up."""
    assert node.op.loop is not None
    return node.op.loop.reduction


def _leading(compiler: Compiler, node: Node) -> Leading | None:
    divisor = compiler.checkpoint.divisors.get(node.op.output)
    return None if divisor is None else Leading(divisor.rows, divisor.lowest.long(), divisor.bits)
