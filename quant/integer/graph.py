"""`compile_integer`: from a checkpoint's scales to integer constants, node by node, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from accelsim.formats import Format
from accelsim.ir import OpKind
from accelsim.nonlinear.methods import named_method
from accelsim.problems import AccelsimError, Problem
from quant.calibrated import Checkpoint
from quant.functional import Affine
from quant.groups import narrow, operand_values, passed_on, spread_values
from quant.head_parts import parts_of
from quant.integer.steps import FloatIsland, Rearrangement, Step
from quant.network import Node
from quant.patchwise.narrow import narrow_of
from quant.regions.codes import region_format


@dataclass(frozen=True, eq=False)
class IntegerNetwork:
    """A checkpoint's network in integer constants, one step per node.

    `float_islands` names the ops without an integer form: they dequantize, compute in float64 and quantize.
    `constant_filters` names op and output channels whose filter is zero, or so small that a 32-bit bias could not hold
    its offset in accumulator steps: they give their bias, in steps of 2^−16 of an output code.
    """

    checkpoint: Checkpoint
    steps: tuple[Step, ...]
    float_islands: tuple[str, ...]
    constant_filters: Mapping[str, tuple[int, ...]]

    def step(self, name: str) -> Step:
        """The step of that op.  Raises AccelsimError when there is none."""
        for step in self.steps:
            if step.node.name == name:
                return step
        raise AccelsimError(Problem(f"integer network {self.checkpoint.network.workload.name}", f"has no op {name!r}"))


class Compiler:
    """Scales and zero points of every tensor, element by element, in float64; steps look up what they need."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        network, stored = checkpoint.network, checkpoint.stored
        _check_scales(checkpoint)
        self.scales = spread_values(network, {name: one.scale.double() for name, one in stored.items()}, 1.0)
        self.zeros = spread_values(network, {name: one.zero_point.double() for name, one in stored.items()}, 0.0)
        self.ranges = {name: (one.low, one.high) for name, one in stored.items()}
        found = {node.op.output: parts_of(checkpoint, node) for node in network.nodes}
        self.parts = {name: one for name, one in found.items() if one is not None}
        self.constant_filters: dict[str, tuple[int, ...]] = {}
        for node in network.nodes:
            if node.op.output not in self.ranges:
                parts = [self.ranges[node.operands[k].source] for k in passed_on(node)]
                self.ranges[node.op.output] = (min(low for low, _ in parts), max(high for _, high in parts))

    def method(self, node: Node) -> str:
        """The method that the plan names for a softmax, LayerNorm or GELU; "" for none and for other ops."""
        return named_method(self.checkpoint.plan, node.op)

    def output(self, node: Node) -> Affine:
        """The stored quantizer of an op's output, in float64."""
        one = self.checkpoint.stored[node.op.output]
        return Affine(one.scale.double(), one.zero_point.double(), one.low, one.high)

    def regions(self, node: Node) -> Format | None:
        """The two-region format in which an op's output is stored, if it is."""
        return region_format(self.checkpoint.plan.rule_for(node.op))

    def step(self, node: Node) -> Step:
        """The integer form of an op.  Raises AccelsimError as `compile_integer` does."""
        from quant.integer import build_array, build_nonlinear, build_tokens, build_vector  # noqa: F401  (they fill BUILDERS)

        if node.op.kind is OpKind.VIEW:
            return Rearrangement(node)
        return BUILDERS.get(node.function, float_island)(self, node)

    def scale(self, node: Node, position: int) -> Tensor:
        """Scales of an operand, in its shape for one image (axes along which they are equal have size 1)."""
        return narrow(operand_values(self.scales, node, position, 1.0))

    def zero_point(self, node: Node, position: int) -> Tensor:
        """Zero points of an operand, as `scale`."""
        return narrow(operand_values(self.zeros, node, position, 0.0))

    def range(self, node: Node, position: int) -> tuple[int, int]:
        """Lowest and highest code of an operand."""
        return self.ranges[node.operands[position].source]

    def ends(self, node: Node, position: int) -> tuple[Tensor, Tensor]:
        """Lowest and highest codes (int64) of an operand, part by part, in its shape for one image as `scale`."""
        source = node.operands[position].source
        parts = self.parts.get(source)
        if parts is None:
            low, high = self.range(node, position)
            return torch.tensor(low), torch.tensor(high)
        full = ({source: end.expand(self.scales[source].shape)} for end in parts.code_ends())
        low_ends, high_ends = (narrow(operand_values(one, node, position, 1)) for one in full)
        return low_ends, high_ends

    def aligned(self, node: Node, position: int) -> bool:
        """True for an operand whose parts have steps that are powers of two times each other, says the plan."""
        parts = self.parts.get(node.operands[position].source)
        return parts is not None and bool(parts.widths.shifts)

    def single(self, node: Node, position: int) -> tuple[Tensor, Tensor]:
        """The one scale and zero point of an operand.  Raises AccelsimError when there are several."""
        scale, zero = self.scale(node, position), self.zero_point(node, position)
        if scale.numel() > 1 or zero.numel() > 1:
            raise AccelsimError(Problem(f"op {node.name}", "its input has several scales", "one scale and zero point"))
        return scale.reshape(()), zero.reshape(())

    def require_symmetric(self, node: Node, position: int) -> None:
        """Raise AccelsimError when an operand of a product of activations has a zero point."""
        if bool(self.zero_point(node, position).any()):
            name = node.operands[position].source
            what = f"its operand {name} has a zero point: its sums would change with the image"
            levers = (f"zero_point: false for the op that makes {name}",)
            raise AccelsimError(Problem(f"op {node.name}", what, "no zero point", levers))


Builder = Callable[[Compiler, Node], Step]
BUILDERS: dict[str, Builder] = {}


def builds(*functions: str) -> Callable[[Builder], Builder]:
    """Decorator: makes the steps of nodes with these functions."""

    def add(one: Builder) -> Builder:
        BUILDERS.update(dict.fromkeys(functions, one))
        return one

    return add


def compile_integer(checkpoint: Checkpoint) -> IntegerNetwork:
    """Every constant of integer-only execution, from the checkpoint's scales; the same on every machine.

    Raises AccelsimError for what integers cannot do: a zero point on an operand of a product, sums over different
    scales, constants that leave their bits, untied steps of two regions.
    """
    if checkpoint.untied:
        names = ", ".join(checkpoint.untied)
        what = f"untied steps of {names} are not executable in integers"
        raise AccelsimError(Problem("integer network", what, "steps whose ratio is 2^m", ("a two-region format",)))
    compiler = Compiler(checkpoint)
    steps, islands = [], []
    for node in checkpoint.network.nodes:
        step = compiler.step(node)
        parts = compiler.parts.get(node.op.output)
        ends = None if parts is None else parts.code_ends()
        steps.append(replace(step, narrow=narrow_of(checkpoint, node), ends=ends))
        if isinstance(step, FloatIsland):
            islands.append(node.name)
    return IntegerNetwork(checkpoint, tuple(steps), tuple(islands), compiler.constant_filters)


def float_island(compiler: Compiler, node: Node) -> Step:
    """The step of an op without an integer form: `quant.functions` in float64 between codes."""
    inputs = tuple((compiler.scale(node, k), compiler.zero_point(node, k)) for k in range(len(node.operands)))
    weight, bias = (None if one is None else one.double() for one in (node.weight, node.bias))
    return FloatIsland(replace(node, weight=weight, bias=bias), inputs, compiler.output(node), compiler.regions(node))


def _check_scales(checkpoint: Checkpoint) -> None:
    problems = []
    for kind in ("stored", "preactivation"):
        for name, one in getattr(checkpoint, kind).items():
            if not bool((torch.isfinite(one.scale) & (one.scale > 0)).all()):
                problems.append(Problem(f"{kind} {name}", "a scale is not a positive number", "finite scales above 0"))
            if bool((one.zero_point != one.zero_point.round()).any()):
                problems.append(Problem(f"{kind} {name}", "a zero point is not a whole number", "whole numbers"))
    for name, filters in checkpoint.filters.items():
        if not bool((torch.isfinite(filters.scale) & (filters.scale > 0)).all()):
            problems.append(Problem(f"filters {name}", "a scale is not a positive number", "finite scales above 0"))
    if problems:
        raise AccelsimError(problems)
