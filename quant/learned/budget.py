"""What widths cost: bit operations as Q-ViT counts them, and the budget's part of the loss.

A cost is a function of all widths at once that gradients pass: `BitOperations` here, simulated latency or energy of a
target in `codesign.learned`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from accelsim.ir import OpKind, Workload
from quant.learned.sites import END_BITS, Site
from quant.learned.structure import attentions

Widths = Mapping[str, Tensor]  # [tables, heads] of every site, by name
FLOAT_BITS = 32.0  # of a site that stays in floating point: not a number of the paper, which has no such run


class Cost(Protocol):
    """A cost of widths; `of` is differentiable, `exact` is what is reported and kept to."""

    name: str

    def of(self, widths: Widths) -> Tensor:
        """The cost, a number with gradients for the widths."""

    def exact(self, widths: Widths) -> float:
        """The cost of whole widths."""

    def raised(self, widths: Widths, fixed: Mapping[str, bool]) -> dict[str, Tensor]:
        """Whole widths, raised where that costs nothing; `fixed` sites keep theirs."""


@dataclass(frozen=True)
class Term:
    """A product of an op: `macs` of it have the left operand's site and table and those of the right one.

    `means`: the product of the two mean widths counts, not the mean of the products of heads (the projection).
    """

    op: str
    macs: int
    left: str
    right: str
    left_table: int | None = None
    right_table: int | None = None
    means: bool = False


def terms_of(workload: Workload) -> tuple[Term, ...]:
    """Products of a vision transformer whose operands have sites.  Raises AccelsimError as `sites_of` does."""
    found: list[Term] = []
    special: dict[str, Term] = {}
    for one in attentions(workload):
        qkv, softmax = (workload.op_by_name[name].output for name in (one.qkv, one.softmax))
        scores, values = (workload.op_by_name[name] for name in (one.scores, one.values))
        special[one.scores] = Term(one.scores, scores.macs, f"stored/{qkv}", f"stored/{qkv}", 0, 1)
        special[one.values] = Term(one.values, values.macs, f"stored/{softmax}", f"stored/{qkv}", 0, 2)
        proj = workload.op_by_name[one.proj]
        special[one.proj] = Term(one.proj, proj.macs, f"stored/{values.output}", f"weights/{one.proj}", means=True)
    for op in workload.ops:
        if op.name in special:
            found.append(special[op.name])
        elif op.kind is OpKind.CONV:
            left = workload.storage_of(op.inputs[0])[0]
            found.append(Term(op.name, op.macs, f"stored/{left}", f"weights/{op.name}"))
    return tuple(found)


class BitOperations:
    """Multiply-accumulates times both widths, summed over products, per image.

    Source: the released code of Q-ViT (`engine.py`): mean over heads of the products of widths for QKᵀ and AV, mean
    width of W_q, W_k and W_v, product of the two mean widths for the projection.
    """

    name = "bit operations"

    def __init__(self, workload: Workload) -> None:
        self.terms = terms_of(workload)

    def of(self, widths: Widths) -> Tensor:
        """Bit operations of one image."""
        return torch.stack([self.of_term(term, widths) for term in self.terms]).sum()

    def exact(self, widths: Widths) -> float:
        """Bit operations of one image of whole widths."""
        whole = {name: one.detach().double() for name, one in widths.items()}
        return float(self.of(whole))

    def raised(self, widths: Widths, fixed: Mapping[str, bool]) -> dict[str, Tensor]:
        """The widths themselves: every bit is an operation."""
        return dict(widths)

    def of_term(self, term: Term, widths: Widths) -> Tensor:
        """Bit operations of one product."""
        left, right = _of_table(widths, term.left, term.left_table), _of_table(widths, term.right, term.right_table)
        if term.means:
            return term.macs * left.mean() * right.mean()
        return term.macs * (left * right).mean()


def _of_table(widths: Widths, site: str, table: int | None) -> Tensor:
    """Widths of a site, or of one of its tables."""
    if site not in widths:
        return torch.tensor(FLOAT_BITS)
    return widths[site] if table is None or len(widths[site]) == 1 else widths[site][table]


# The budget of 4-bit DeiT-T in G bit operations, with which the paper's weight of the penalty was chosen.
REFERENCE_BUDGET = 21.455


@dataclass(frozen=True)
class Budget:
    """A limit on a cost and the weight of its penalty.

    The penalty is weight · (21.455 · max(cost / limit − 1, 0))²: for DeiT-T at 4 bits that of the paper,
    λ · max(G bit operations − budget, 0)² with λ = 0.1, and for every other network and unit as strong relative to its
    limit (an interpretation: the paper's own would vanish for small networks).
    """

    cost: Cost
    limit: float
    weight: float = 0.1

    def penalty(self, widths: Widths) -> Tensor:
        """What is added to the loss."""
        over = (self.cost.of(widths) / self.limit - 1).clamp(min=0)
        return self.weight * (REFERENCE_BUDGET * over) ** 2

    def spent(self, widths: Widths) -> float:
        """Exact cost of whole widths, as a share of the limit."""
        return self.cost.exact(widths) / self.limit


def uniform_widths(sites: Mapping[str, Site], bits: int) -> dict[str, Tensor]:
    """One width for all sites but those of the first and last layer, which have 8 bits; tensors [tables, heads]."""
    return {
        name: torch.full((site.tables, site.heads), float(END_BITS if site.end else bits))
        for name, site in sites.items()
    }
