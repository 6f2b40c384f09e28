"""Costs of a quantized workload that need no accelerator: bit operations, weight storage, average width."""

from __future__ import annotations

from accelsim.formats import Format
from accelsim.plan import QuantizedOp, QuantizedWorkload
from accelsim.problems import AccelsimError, Problem


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

    For weights of several formats their shares count.  Published conventions differ (Q-ViT includes patch embedding and
    head as here; HAWQ leaves out the first and last layer).
    """
    total = 0.0
    for item in quantized.ops:
        if not item.op.macs:
            continue
        right = sum(fmt.bits * share for fmt, share in weight_shares(item)) if item.weights else item.right.bits
        total += item.op.macs * item.activation.bits * right
    return total


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
