"""Steps of the vector unit that have an integer form."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from accelsim.problems import AccelsimError, Problem
from quant.functional import Affine
from quant.groups import keeps_scale, narrow, operand_values
from quant.integer.build_array import lookup
from quant.integer.graph import Compiler, builds, float_island
from quant.integer.requantize import vector_stage
from quant.integer.steps import QUOTIENT_BITS, Add, AddConstant, Divide, Gate, Mean, Quotient, Relu, Step, Table
from quant.network import Node


@builds("add")
def add(compiler: Compiler, node: Node) -> Step:
    """Two requantizations and an add; a factor per channel (layer scale) and one of the sum are in the multipliers."""
    where, output = f"op {node.name}", compiler.output(node)
    factor = float(node.settings.get("scale", 1.0)) / output.scale
    branch = factor if node.weight is None else node.weight.double() * factor
    stages = [
        vector_stage(compiler.scale(node, k) * ratio, where, compiler.zero_point(node, k), zero)
        for k, (ratio, zero) in enumerate(((branch, output.zero_point), (factor, None)))
    ]
    return Add(node, output.low, output.high, *stages)


@builds("embed", "bias_add")
def add_constant(compiler: Compiler, node: Node) -> Step:
    """A requantization and a constant in whole steps of the output (position embedding, relative-position bias)."""
    output = compiler.output(node)
    assert node.weight is not None
    scale, zero = compiler.scale(node, 0), compiler.zero_point(node, 0)
    rows = int(node.settings.get("rows", 0))
    if rows:
        scale, zero = compiler.single(node, 0)
    stage = vector_stage(scale / output.scale, f"op {node.name}", zero, output.zero_point)
    constant = torch.round(node.weight.double() / output.scale).long()
    return AddConstant(node, output.low, output.high, stage, constant, rows, int(zero) if rows else 0)


@builds("divide")
def divide(compiler: Compiler, node: Node) -> Step:
    """Linear attention's division: a shift (log2 divisors) or a quotient, and one multiplier per branch and head."""
    compiler.require_symmetric(node, 0)
    output = compiler.output(node)
    source = node.operands[0].source
    divisor = compiler.checkpoint.divisors.get(source)
    if divisor is None:
        scales = operand_values(compiler.scales, node, 0, 1.0)
        ratio = narrow((scales[..., :-1, :] / (scales[..., -1:, :] * output.scale)).contiguous())
        stage = vector_stage(ratio * 2.0**-QUOTIENT_BITS, f"op {node.name}", None, output.zero_point)
        return Quotient(node, output.low, output.high, stage, output.zero_point.long())
    maker = compiler.checkpoint.network.node(source)
    unit = compiler.scale(maker, 0) * compiler.scale(maker, 1) * float(maker.settings.get("scale", 1.0))
    last = (1 << divisor.bits) - 1
    smallest = unit * torch.exp2(divisor.lowest.double() + last)
    below = _seen(compiler, node, smallest)[..., -1:, :]
    above = _seen(compiler, node, compiler.scales[maker.op.output])[..., :-1, :]
    ratio = narrow((above / (below * output.scale)).contiguous())
    stage = vector_stage(ratio, f"op {node.name}", None, output.zero_point)
    return Divide(node, output.low, output.high, stage, divisor.bits, output.zero_point.long())


def _seen(compiler: Compiler, node: Node, values: Tensor) -> Tensor:
    """Numbers that broadcast against the stored operand, as the op reads them."""
    source = node.operands[0].source
    full = values.expand(compiler.scales[source].shape)
    return operand_values({source: full}, node, 0, 1.0)


@builds("mean")
def mean(compiler: Compiler, node: Node) -> Step:
    """Sum, multiply, shift: the number of summed elements is in the multiplier."""
    output = compiler.output(node)
    scale, zero = compiler.scale(node, 0), compiler.zero_point(node, 0)
    dims = tuple(int(dim) for dim in node.settings["dims"])
    shape = operand_values(compiler.scales, node, 0, 1.0).shape
    count = math.prod(shape[dim] for dim in dims)
    if any(scale.shape[dim] > 1 or zero.shape[dim] > 1 for dim in dims):
        raise AccelsimError(Problem(f"op {node.name}", "would add values of different scales", "one scale"))
    stage = vector_stage(scale / (output.scale * count), f"op {node.name}", zero * count, output.zero_point)
    return Mean(node, output.low, output.high, stage, dims, bool(node.settings.get("keep", False)))


@builds("gate")
def gate(compiler: Compiler, node: Node) -> Step:
    """Product with one factor per channel, then one requantization; with an activation after it a float island."""
    if node.settings.get("activation"):
        return float_island(compiler, node)
    output = compiler.output(node)
    zeros = (compiler.zero_point(node, 0).long(), compiler.zero_point(node, 1).long())
    ratio = compiler.scale(node, 0) * compiler.scale(node, 1) / output.scale
    return Gate(node, output.low, output.high, vector_stage(ratio, f"op {node.name}", None, output.zero_point), zeros)


def activation(compiler: Compiler, node: Node) -> Step:
    """ReLU: max(code, zero point), the scale stays.  Others: a table from code to code."""
    if keeps_scale(node):
        return Relu(node, compiler.zero_point(node, 0).long())
    scale, zero = compiler.single(node, 0)
    low, high = compiler.range(node, 0)
    name = str(node.settings["activation"])
    before = Affine(scale, zero, low, high)
    return Table(node, lookup(before, compiler.output(node), name, f"op {node.name}", compiler.regions(node)))
