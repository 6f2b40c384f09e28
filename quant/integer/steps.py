"""What the integer network executes: one class per form of op, int64 codes in, int64 codes out.

Constants are made by `quant.integer.graph`; nothing here knows a scale, except `FloatIsland`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from accelsim.formats import Format
from quant.functional import NO_LEADING_ONE, Affine, dequantize, log2_code, quantize
from quant.functions import FUNCTIONS
from quant.integer import exact
from quant.integer.requantize import OutputStage, VectorStage
from quant.network import Node, Numerics
from quant.patchwise.narrow import Narrow
from quant.patchwise.order import importances, rank_words
from quant.regions.codes import region_integers

QUOTIENT_BITS = 15  # fraction bits of a true division
# Sees of every array op: operands, accumulators, and what the first requantization gives (before any table).
Watch = Callable[["ArrayStep", list[Tensor], Tensor, Tensor], None]


@dataclass(frozen=True, eq=False)
class Step:
    """One op of an integer network.

    `narrow` drops bits of some of its output's rows; `ends` are the lowest and highest codes of its parts, where they
    have widths of their own (they broadcast against the codes).
    """

    node: Node
    narrow: Narrow | None = field(default=None, kw_only=True)
    ends: tuple[Tensor, Tensor] | None = field(default=None, kw_only=True)

    def run(self, operands: list[Tensor], watch: Watch | None = None) -> Tensor:
        """Codes of the output, all of them full."""
        raise NotImplementedError

    def stored(self, operands: list[Tensor], watch: Watch | None = None) -> Tensor:
        """Codes of the output as they are stored."""
        codes = self.run(operands, watch)
        if self.ends is not None:
            codes = torch.clamp(codes, *self.ends)
        return codes if self.narrow is None else self.narrow(codes, operands)


@dataclass(frozen=True, eq=False)
class Lookup:
    """A table of the output stage: entry per code from `first` on, and, where channels differ, what comes after it.

    Without `after` the entries are stored codes; with it they are 16-bit numbers that are requantized once more.
    """

    first: int
    entries: Tensor
    after: OutputStage | None = None

    def __call__(self, codes: Tensor) -> Tensor:
        """Stored codes."""
        found = self.entries[codes - self.first]
        return found if self.after is None else self.after(found)


@dataclass(frozen=True, eq=False)
class Leading:
    """Divisors as log2 codes: the accumulators where `rows` is true are stored as the index of their leading one.

    k = index, one more when the bit below is set; stored is k − lowest, clamped to 0 … 2^bits − 1, and −1 for zero.
    Source: as `quant.functional.log2_code`.
    """

    rows: Tensor
    lowest: Tensor
    bits: int

    def __call__(self, accumulators: Tensor, codes: Tensor) -> Tensor:
        """`codes` with the divisors replaced."""
        exponent = log2_code(accumulators.clamp(min=0), 0, 6)
        kept = (exponent - self.lowest).clamp(0, (1 << self.bits) - 1)
        return torch.where(self.rows, torch.where(exponent == NO_LEADING_ONE, NO_LEADING_ONE, kept), codes)


@dataclass(frozen=True, eq=False)
class ArrayStep(Step):
    """A product on an array engine and its output stage.  `low`, `high` bound the accumulators, whatever the codes."""

    stage: OutputStage
    table: Lookup | None
    low: int
    high: int

    def accumulate(self, operands: list[Tensor]) -> Tensor:
        """Accumulators, without the bias."""
        raise NotImplementedError

    def finish(self, accumulators: Tensor, codes: Tensor) -> Tensor:
        """Stored codes from those of the first requantization."""
        return codes if self.table is None else self.table(codes)

    def run(self, operands: list[Tensor], watch: Watch | None = None) -> Tensor:
        """Accumulate, requantize, look up."""
        accumulators = self.accumulate(operands)
        codes = self.stage(accumulators)
        if watch is not None:
            watch(self, operands, accumulators, codes)
        return self.finish(accumulators, codes)


@dataclass(frozen=True, eq=False)
class Convolution(ArrayStep):
    """Σ w·a over patches; padding is the zero point of the input channel, so that the bias can take all of it up."""

    weights: Tensor
    zero_point: Tensor
    stride: tuple[int, int]
    padding: tuple[int, int]
    groups: int

    def padded(self, codes: Tensor) -> Tensor:
        """Codes [n, channels, h, w] with their border."""
        return exact.pad(codes, self.padding, self.zero_point)

    def accumulate(self, operands: list[Tensor]) -> Tensor:
        """[n, channels, h, w] → [n, outputs, h', w']."""
        return exact.convolve(self.padded(operands[0]), self.weights, self.stride, self.groups)


@dataclass(frozen=True, eq=False)
class Linear(ArrayStep):
    """Σ w·(a << alignment) over the last axis: parts of the inputs in the steps of the finest one (None: one scale)."""

    weights: Tensor
    alignment: Tensor | None = None

    def accumulate(self, operands: list[Tensor]) -> Tensor:
        """[.., inputs] → [.., outputs]."""
        codes = operands[0] if self.alignment is None else operands[0] << self.alignment
        return exact.product(codes, self.weights.T)


@dataclass(frozen=True, eq=False)
class Product(ArrayStep):
    """Product of two activations; divisors of a linear attention leave as log2 codes."""

    leading: Leading | None

    def accumulate(self, operands: list[Tensor]) -> Tensor:
        """[.., n, k] · [.., k, m] → [.., n, m]."""
        return exact.product(operands[0], operands[1])

    def finish(self, accumulators: Tensor, codes: Tensor) -> Tensor:
        """Stored codes."""
        stored = super().finish(accumulators, codes)
        return stored if self.leading is None else self.leading(accumulators, stored)


@dataclass(frozen=True, eq=False)
class Clamped(Step):
    """A vector op that ends in a clamp to its output's codes."""

    low: int
    high: int

    def value(self, operands: list[Tensor]) -> Tensor:
        """The result before the clamp."""
        raise NotImplementedError

    def run(self, operands: list[Tensor], watch: Watch | None = None) -> Tensor:
        """Stored codes."""
        return self.value(operands).clamp(self.low, self.high)


@dataclass(frozen=True, eq=False)
class Add(Clamped):
    """Residual sum: two requantizations and an add."""

    left: VectorStage
    right: VectorStage

    def value(self, operands: list[Tensor]) -> Tensor:
        """The sum; the left stage adds the zero point."""
        return self.left(operands[0]) + self.right(operands[1])


@dataclass(frozen=True, eq=False)
class AddConstant(Clamped):
    """A requantization and a learned constant in steps of the output; `rows` new rows hold nothing but the constant."""

    stage: VectorStage
    constant: Tensor
    rows: int
    padding: int

    def value(self, operands: list[Tensor]) -> Tensor:
        """[n, tokens, c] → [n, rows + tokens, c]."""
        codes = F.pad(operands[0], (0, 0, self.rows, 0), value=self.padding) if self.rows else operands[0]
        return self.stage(codes) + self.constant


@dataclass(frozen=True, eq=False)
class Divide(Clamped):
    """Numerators · 2^(15 − k) by one multiplier per scale group, k the divisor's log2 code; by zero: zero.

    A left shift keeps all bits.  ((n << (15 − k))·M + C) >> s is one shift of n·M by s − 15 + k where that is ≥ 0.
    """

    stage: VectorStage
    bits: int
    zero_point: Tensor

    def value(self, operands: list[Tensor]) -> Tensor:
        """[.., d + 1, n] → [.., d, n]."""
        numerators, code = operands[0][..., :-1, :], operands[0][..., -1:, :]
        places = (1 << self.bits) - 1 - code.clamp(min=0)
        return torch.where(code == NO_LEADING_ONE, self.zero_point, self.stage(numerators << places))


@dataclass(frozen=True, eq=False)
class Quotient(Clamped):
    """Numerators · 2^15 divided by the divisors' codes, rounded to nearest, then one requantization; by zero: zero."""

    stage: VectorStage
    zero_point: Tensor

    def value(self, operands: list[Tensor]) -> Tensor:
        """[.., d + 1, n] → [.., d, n]."""
        numerators, divisors = operands[0][..., :-1, :] << (QUOTIENT_BITS + 1), operands[0][..., -1:, :]
        safe = divisors.clamp(min=1)
        quotients = torch.div(numerators + safe, 2 * safe, rounding_mode="floor")
        return torch.where(divisors <= 0, self.zero_point, self.stage(quotients))


@dataclass(frozen=True, eq=False)
class Mean(Clamped):
    """Sum over `dims`, then one requantization."""

    stage: VectorStage
    dims: tuple[int, ...]
    keep: bool

    def value(self, operands: list[Tensor]) -> Tensor:
        """Means."""
        result = self.stage(operands[0].sum(self.dims, keepdim=True))
        return result if self.keep else result.squeeze(self.dims)


@dataclass(frozen=True, eq=False)
class Gate(Clamped):
    """Product of two codes without their zero points, then one requantization."""

    stage: VectorStage
    zero_points: tuple[Tensor, Tensor]

    def value(self, operands: list[Tensor]) -> Tensor:
        """Products."""
        left, right = (codes - zero for codes, zero in zip(operands, self.zero_points, strict=True))
        return self.stage(left * right)


@dataclass(frozen=True, eq=False)
class Relu(Step):
    """max(code, zero point): the scale does not change."""

    zero_point: Tensor

    def run(self, operands: list[Tensor], watch: Watch | None = None) -> Tensor:
        """Codes."""
        return torch.maximum(operands[0], self.zero_point)


@dataclass(frozen=True, eq=False)
class Table(Step):
    """An activation that is an op of its own: a table from code to code."""

    table: Lookup

    def run(self, operands: list[Tensor], watch: Watch | None = None) -> Tensor:
        """Codes."""
        return self.table(operands[0])


@dataclass(frozen=True, eq=False)
class Nonlinear(Step):
    """A softmax, LayerNorm or activation by an integer method: `function` from codes to stored codes."""

    function: Callable[[Tensor], Tensor]

    def run(self, operands: list[Tensor], watch: Watch | None = None) -> Tensor:
        """Codes."""
        return self.function(operands[0])


@dataclass(frozen=True, eq=False)
class Rearrangement(Step):
    """A view, or rows in the order of rank words: codes pass through."""

    def run(self, operands: list[Tensor], watch: Watch | None = None) -> Tensor:
        """Codes."""
        return FUNCTIONS[self.node.function](self.node, operands, Numerics())


@dataclass(frozen=True, eq=False)
class Rank(Step):
    """Rank words of shares of attention: sums of codes, sorted."""

    def run(self, operands: list[Tensor], watch: Watch | None = None) -> Tensor:
        """[n, heads, rows, tokens] → [n, tokens]."""
        return rank_words(importances(operands[0]), self.node.settings)


@dataclass(frozen=True, eq=False)
class FloatIsland(Step):
    """An op without an integer form: dequantize, compute in float64, quantize.  `node` has float64 parameters."""

    inputs: tuple[tuple[Tensor, Tensor], ...]
    output: Affine
    regions: Format | None

    def run(self, operands: list[Tensor], watch: Watch | None = None) -> Tensor:
        """Codes."""
        values = [
            dequantize(codes.double(), Affine(scale, zero, 0, 0))
            for codes, (scale, zero) in zip(operands, self.inputs, strict=True)
        ]
        value = FUNCTIONS[self.node.function](self.node, values, Numerics())
        if self.regions is None:
            return quantize(value, self.output).long()
        return region_integers(value, self.output.scale, self.regions).long()
