"""Fake quantization: the network in real numbers, weights and stored values rounded to what their codes stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from accelsim.nonlinear.methods import TABLE, named_method
from accelsim.workloads.rank import RANK
from quant.calibrated import Checkpoint, Divisor
from quant.functional import (
    NO_LEADING_ONE,
    Affine,
    dequantize,
    fake_quantize,
    fake_quantize_ste,
    log2_code,
    quantize,
)
from quant.head_parts import HeadParts, parts_of
from quant.network import Node, Numerics
from quant.patchwise.narrow import Narrow, narrow_of
from quant.regions.codes import region_format, region_values, region_values_ste

if TYPE_CHECKING:
    from quant.integer.graph import Compiler
    from quant.integer.steps import Step

ADDED_CONSTANT = ("embed", "bias_add")  # functions whose `weight` is added to codes


class FakeQuantized(Numerics):
    """Numerics of a checkpoint.  With `gradients`, roundings of activations pass gradients straight through."""

    def __init__(self, checkpoint: Checkpoint, gradients: bool = False) -> None:
        self.checkpoint = checkpoint
        self.gradients = gradients
        self._round = fake_quantize_ste if gradients else fake_quantize
        self._round_regions = region_values_ste if gradients else region_values
        self._weights: dict[str, tuple[Tensor | None, Tensor | None]] = {}
        self._narrow: dict[str, Narrow | None] = {}
        self._parts: dict[str, HeadParts | None] = {}
        self._compiler: Compiler | None = None
        self._integer: dict[str, tuple[Step, Affine, Affine] | None] = {}

    def image(self, value: Tensor) -> Tensor:
        """The image as it is stored."""
        return self._round(value, self.checkpoint.stored[self.checkpoint.network.workload.input])

    def parameters(self, node: Node) -> tuple[Tensor | None, Tensor | None]:
        """Quantized filters; constants that are added (position embedding) in steps of the output's scale."""
        if node.name not in self._weights:
            self._weights[node.name] = self._make(node)
        return self._weights[node.name]

    def operand(self, node: Node, position: int, value: Tensor) -> Tensor:
        """What a ranking sums: whole codes, so that its order is that of the integers."""
        if node.function != RANK:
            return value
        return quantize(value.detach(), self.checkpoint.stored[node.operands[position].source])

    def accumulator(self, node: Node, value: Tensor) -> Tensor:
        """Before a table activation: the table's input."""
        affine = self.checkpoint.preactivation.get(node.name)
        return value if affine is None else self._round(value, affine)

    def nonlinear(self, node: Node, operands: list[Tensor]) -> Tensor | None:
        """What the integers of the op's method stand for; None where the plan names no method, or a table."""
        if node.name not in self._integer:
            self._integer[node.name] = self._compiled(node)
        found = self._integer[node.name]
        if found is None:
            return None
        step, source, output = found
        codes = step.run([quantize(operands[0].detach(), source).long()])
        return dequantize(codes.to(operands[0].dtype), output)

    def _compiled(self, node: Node) -> tuple[Step, Affine, Affine] | None:
        from quant.integer.graph import Compiler
        from quant.integer.steps import Nonlinear

        if named_method(self.checkpoint.plan, node.op) in ("", TABLE):
            return None
        if self._compiler is None:
            self._compiler = Compiler(self.checkpoint)
        compiler = self._compiler
        step = compiler.step(node)
        if not isinstance(step, Nonlinear):
            return None
        scale, zero = compiler.single(node, 0)
        return (
            step,
            Affine(scale.float(), zero.float(), *compiler.range(node, 0)),
            self.checkpoint.stored[node.op.output],
        )

    def stored(self, node: Node, value: Tensor) -> Tensor:
        """The output as it is stored; divisors of a linear attention as powers of two."""
        name = node.op.output
        affine, divisor = self.checkpoint.stored.get(name), self.checkpoint.divisors.get(name)
        result = value if affine is None else self._rounded(node, value, affine)
        return result if divisor is None else torch.where(divisor.rows, log2_divisor(value, divisor), result)

    def narrowed(self, node: Node, value: Tensor, operands: list[Tensor]) -> Tensor:
        """The output with narrow rows where the plan has token groups; gradients pass straight through."""
        if node.name not in self._narrow:
            self._narrow[node.name] = narrow_of(self.checkpoint, node)
        narrow = self._narrow[node.name]
        if narrow is None:
            return value
        affine = self.checkpoint.stored[node.op.output]
        result = dequantize(narrow(quantize(value.detach(), affine), operands), affine)
        if not self.gradients:
            return result
        from quant.finetune.straight import shown_as

        return shown_as(value, result.detach())

    def _rounded(self, node: Node, value: Tensor, affine: Affine) -> Tensor:
        untied = self.checkpoint.untied.get(node.op.output)
        if untied is not None:
            return untied.values(value)
        if node.name not in self._parts:
            self._parts[node.name] = parts_of(self.checkpoint, node)
        parts = self._parts[node.name]
        if parts is not None:
            return self._round(value, parts.within(affine))
        regions = region_format(self.checkpoint.plan.rule_for(node.op))
        return self._round(value, affine) if regions is None else self._round_regions(value, affine.scale, regions)

    def _make(self, node: Node) -> tuple[Tensor | None, Tensor | None]:
        filters = self.checkpoint.filters.get(node.name)
        if filters is not None:
            return filters.values(), filters.bias
        if node.function in ADDED_CONSTANT and node.weight is not None:
            return rounded_constant(node.weight, self.checkpoint.stored[node.op.output]), node.bias
        return node.weight, node.bias


def log2_divisor(value: Tensor, divisor: Divisor) -> Tensor:
    """Divisors as unit · 2^k by the rule of the hardware, from whole accumulator steps; see `functional.log2_code`."""
    steps = (value / divisor.unit).round().clamp(min=0)
    exponent = log2_code(steps, 0, 6)
    last = divisor.lowest + (1 << divisor.bits) - 1
    kept = torch.minimum(torch.maximum(exponent, divisor.lowest), last)
    return torch.where(exponent == NO_LEADING_ONE, 0.0, divisor.unit * torch.exp2(kept))


def rounded_constant(value: Tensor, affine: Affine) -> Tensor:
    """A constant that is added to codes: whole steps of the output's scale."""
    return (value / affine.scale).round() * affine.scale
