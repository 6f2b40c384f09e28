"""Costs of a quantized workload that need no accelerator: bit operations, weight storage, average width."""

from __future__ import annotations

from fractions import Fraction

from accelsim.formats import Format
from accelsim.plan import QuantizedOp, QuantizedWorkload
from accelsim.problems import AccelsimError, Problem
from accelsim.token_groups import TokenGroups
from accelsim.token_rules import DEPTH


def weight_shares(item: QuantizedOp) -> list[tuple[Format, float]]:
    """Formats of an op's weights and the fraction of them that each has.

    Raises AccelsimError for a balanced share: only an accelerator's engines can say what it is.
    """
    result = []
    for part in item.weights:
        if part.channels is not None and item.op.loop is not None:
            result.append((part.format, part.channels.count / (item.op.loop.groups * item.op.loop.cols)))
            continue
        if part.share is None:
            raise AccelsimError(Problem(f"op {item.op.name}", "its shares are balanced", "a plan with fixed shares"))
        result.append((part.format, part.share))
    return result


def bit_operations(quantized: QuantizedWorkload) -> float:
    """Σ MACs · bits of the left operand · bits of the right operand, storage bits, every op counted.

    For weights of several formats their shares count.  Of a tensor with token groups every token counts with its own
    bits: d·(Σ_p b_p)·(Σ_q b_q) for the products of tokens p with tokens q.  Published conventions differ (Q-ViT
    includes patch embedding and head as here; HAWQ leaves out the first and last layer).
    """
    total = 0.0
    for item in quantized.ops:
        if not item.op.macs:
            continue
        left, right = _token_bits(item)
        if item.weights:
            right = Fraction(sum(fmt.bits * share for fmt, share in weight_shares(item)))
        total += float(item.op.macs * left * right)
    return total


def _token_bits(item: QuantizedOp) -> tuple[Fraction, Fraction]:
    """Mean bits of the operands of an array op over the rows, columns or terms that are tokens.

    A product with one row reads the first token, which is always full.
    """
    assert item.op.loop is not None
    loop = item.op.loop
    left = _mean_bits(item.activation, item.left_tokens if loop.rows > 1 else None, loop.rows)
    across = loop.depth if item.right_axis == DEPTH else loop.cols
    return left, _mean_bits(item.right, item.right_tokens, across)


def _mean_bits(fmt: Format, groups: TokenGroups | None, tokens: int) -> Fraction:
    if groups is None:
        return Fraction(fmt.bits)
    full = min(groups.high, tokens)
    return Fraction(full * fmt.bits + (tokens - full) * groups.narrow(fmt).bits, tokens)


def size_bits(quantized: QuantizedWorkload) -> float:
    """Storage of all weights, without biases and scales."""
    return sum(
        item.op.weights * fmt.bits * share
        for item in quantized.ops
        if item.weights
        for fmt, share in weight_shares(item)
    )


def average_bits(quantized: QuantizedWorkload) -> float:
    """Mean storage bits of a weight."""
    return size_bits(quantized) / sum(item.op.weights for item in quantized.ops if item.weights)
