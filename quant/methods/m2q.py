"""M²Q, the quantization of M²-ViT (arXiv 2410.09113): two levels, mixed precision and mixed scheme.

The abstract fixes the two levels; the split by layer kind is secondary information, and the rule that sends a filter to
the uniform or the power-of-two scheme, with its ratio, is an interpretation (no text of the paper is public): the
ratio-constrained ranking below.  Its degenerate case, the scheme of the lower weight error, picks no filter for two
terms: a uniform 8-bit filter always has the lower error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from accelsim.channels import Channels
from accelsim.formats import Format
from accelsim.plan import WeightShare
from accelsim.problems import AccelsimError, Problem
from quant.collect import Moments
from quant.methods.base import UNIFORM8, Method, method
from quant.network import Node
from quant.observers import weight_scale

MIXED_CLASSES = ("pw", "qkv", "proj", "mlp")
RULES = ("moments", "weights", "argmin")
SHIFT = {2: "apot8", 3: "apot12"}  # format by number of terms


@method("m2q")
@dataclass(frozen=True)
class M2Q(Method):
    """Depthwise filters uniform 4-bit; filters of pointwise and linear layers uniform 8-bit or power-of-two.

    Of every mixed layer round(ratio · filters) filters, those with the least penalty, become power-of-two; `counts`
    gives the number of some layers instead (from the engines of an accelerator).  `rule` is the penalty: "moments":
    Σ_k E[x_k²]·((w_k − ŵ_k)² of the power-of-two filter − that of the uniform one); "weights": without E[x_k²];
    "argmin": no ratio, every filter takes the scheme of the lower weight error.
    """

    migration: bool = True
    shift: bool = True
    log2_divisor: bool = True
    ratio: float = 0.5
    terms: int = 2
    depthwise_bits: int = 4
    rule: str = "moments"
    counts: Mapping[str, int] = field(default_factory=dict)

    def shares(self, node: Node, moments: Moments | None) -> tuple[WeightShare, ...]:
        """Formats and channels of a layer's filters.  Raises AccelsimError for parameters out of range."""
        self._check()
        loop = node.op.loop
        if loop is not None and loop.depthwise:
            return (WeightShare(Format.parse(f"u{self.depthwise_bits}", "depthwise_bits")),)
        if node.op.op_class not in MIXED_CLASSES or loop is None or loop.groups > 1:
            return (WeightShare(UNIFORM8),)
        return self._mixed(node, moments)

    def _check(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise AccelsimError(Problem("ratio", f"found {self.ratio}", "a number 0 … 1"))
        if self.terms not in SHIFT:
            raise AccelsimError(Problem("terms", f"found {self.terms}", "2 or 3"))
        if self.rule not in RULES:
            raise AccelsimError(Problem("rule", f"found {self.rule!r}", f"one of {', '.join(RULES)}"))

    def _mixed(self, node: Node, moments: Moments | None) -> tuple[WeightShare, ...]:
        shift = Format.parse(SHIFT[self.terms])
        penalty = penalties(node, shift, moments if self.rule == "moments" else None)
        filters = len(penalty)
        if self.rule == "argmin":
            chosen = (penalty < 0).nonzero()[:, 0]
        else:
            count = self.counts.get(node.name, round(self.ratio * filters))
            chosen = penalty.argsort(stable=True)[: min(max(count, 0), filters)]
        power = set(chosen.tolist())
        if not power:
            return (WeightShare(UNIFORM8),)
        if len(power) == filters:
            return (WeightShare(shift),)
        rest = [k for k in range(filters) if k not in power]
        return (
            WeightShare(UNIFORM8, len(rest) / filters, Channels.of(rest)),
            WeightShare(shift, len(power) / filters, Channels.of(power)),
        )


def penalties(node: Node, shift: Format, moments: Moments | None) -> Tensor:
    """Penalty [filters] of storing a filter in a power-of-two format instead of uniform 8-bit.

    Σ_k m_k ((w_k − ŵ_k)² − (w_k − w̃_k)²) with ŵ the power-of-two and w̃ the uniform filter (least squares);
    m_k = E[x²] of the input channel, or 1 without `moments`.
    """
    assert node.weight is not None
    weights = node.weight.detach().double()
    rows = weights.reshape(len(weights), -1)
    shape = (1, weights.shape[1], *[1] * (weights.dim() - 2))
    importance = torch.ones(shape) if moments is None else moments.square.double().reshape(shape)
    spread = importance.expand(1, *weights.shape[1:]).reshape(1, -1)
    errors = []
    for fmt in (shift, UNIFORM8):
        scale, integers = weight_scale(rows, fmt)
        errors.append((spread * (rows - scale[:, None] * integers) ** 2).sum(1))
    return errors[0] - errors[1]
