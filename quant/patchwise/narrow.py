"""Narrow tokens: the codes that the less important rows of a stored tensor have (aligned codes)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from accelsim.ir import OpKind
from accelsim.problems import AccelsimError, Problem
from accelsim.token_groups import TokenGroups
from quant.calibrated import Checkpoint
from quant.functional import Affine
from quant.network import Node
from quant.patchwise.order import flags

ROWS = -2  # axis of the tokens: LayerNorm and layers give [n, tokens, c], products and softmax [n, heads, tokens, m]
FLAGS = "flags"  # setting of a node whose last operand is the rank words of its layer


def narrow_codes(codes: Tensor, low: int, high: int, drop_bits: int) -> Tensor:
    """Codes without their last `drop_bits` bits, in full steps: multiples of 2^drop_bits within low … high.

    clamp(⌊(c + 2^(δ − 1)) / 2^δ⌋, ⌈low / 2^δ⌉, ⌊high / 2^δ⌋) · 2^δ: round half up.  What hardware computes that stores
    the quotient and shifts products by δ.  Integers of any dtype in and out.
    """
    if not drop_bits:
        return codes
    step = 1 << drop_bits
    kept = torch.div(codes + step // 2, step, rounding_mode="floor")
    return kept.clamp(-(-low // step), high // step) * step


def aligned(affine: Affine, drop_bits: int) -> Affine:
    """The quantizer with a zero point that is a multiple of 2^drop_bits, as narrow codes need, and at least its range.

    Of the two nearest multiples the one with the smaller scale that still covers the range; element by element.
    """
    step = 1 << drop_bits
    zero = affine.zero_point
    lowest, highest = affine.scale * (affine.low - zero), affine.scale * (affine.high - zero)
    best_scale, best_zero = torch.full_like(affine.scale, torch.inf), zero
    for side in (torch.floor(zero / step), torch.ceil(zero / step)):
        moved = side.clamp(-(-affine.low // step), affine.high // step) * step
        scale = torch.maximum(_needed(highest, affine.high - moved), _needed(lowest, affine.low - moved))
        better = scale < best_scale
        best_scale, best_zero = torch.where(better, scale, best_scale), torch.where(better, moved, best_zero)
    exact = zero == best_zero  # nothing to move: the scale as it was, to the last bit
    return Affine(torch.where(exact, affine.scale, best_scale), best_zero, affine.low, affine.high)


def _needed(end: Tensor, steps: Tensor) -> Tensor:
    """The scale with which that many steps reach an end of the range: 0 for no range, infinite for no steps."""
    return torch.where(end == 0, 0.0, torch.where(steps == 0, torch.inf, end / steps))


@dataclass(frozen=True)
class Narrow:
    """What makes an op's stored codes those of its token groups.

    `flagged`: the op's last operand has the rank words of the current images, whose flags say which rows are full;
    without it the first `groups.high` rows are.
    """

    op: str
    groups: TokenGroups
    low: int
    high: int
    tokens: int
    flagged: bool

    def __call__(self, codes: Tensor, operands: Sequence[Tensor]) -> Tensor:
        """Codes of the output, [.., tokens, m], with narrow rows; `operands` are those of the op.

        Raises AccelsimError for a tensor whose rows are not the tokens.
        """
        if codes.dim() < -ROWS or codes.shape[ROWS] != self.tokens:
            what = f"its output is {list(codes.shape)}"
            raise AccelsimError(
                Problem(f"op {self.op}: tokens", what, f"{self.tokens} tokens in the last axis but one")
            )
        if self.flagged:
            full = flags(operands[-1]).reshape(-1, *[1] * (codes.dim() - 3), self.tokens, 1)
        else:
            full = (torch.arange(self.tokens) < self.groups.high)[:, None]
        return torch.where(full, codes, narrow_codes(codes, self.low, self.high, self.groups.drop_bits))


def narrow_of(checkpoint: Checkpoint, node: Node) -> Narrow | None:
    """The token groups of an op's output under a checkpoint's plan, if it has any.

    Raises AccelsimError where a zero point is no multiple of 2^drop_bits.
    """
    rule = checkpoint.plan.rule_for(node.op)
    if rule.tokens is None or node.op.kind is OpKind.VIEW:
        return None
    stored = checkpoint.stored.get(node.op.output)
    if stored is None:
        what = "passes on the codes that it reads, which have no groups of their own"
        raise AccelsimError(Problem(f"op {node.name}: tokens", what, "token groups of the op that makes the codes"))
    step = 1 << rule.tokens.drop_bits
    if bool((stored.zero_point % step != 0).any()):
        what, expected = f"a zero point is no multiple of {step}", "a checkpoint calibrated under this plan"
        raise AccelsimError(Problem(f"op {node.name}: tokens", what, expected))
    tokens = checkpoint.network.workload.tensor_by_name[node.op.output].h
    return Narrow(node.name, rule.tokens, stored.low, stored.high, tokens, bool(node.settings.get(FLAGS)))
