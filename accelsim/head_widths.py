"""Head widths: equal parts of a tensor's channels, or of a filter's inputs, that are stored in widths of their own.

Q-ViT (Li et al. 2022, arXiv 2201.07703) learns a width for every attention head.  How hardware executes such heads is
not published: what follows is an interpretation.  The channels of an op's output are cut into equal runs (six heads, or
q | k | v of six heads: 18 parts), each in its own width.  Heads meet in one sum only in the layer behind the attention:
there the steps of the parts are powers of two times the finest, and shifts align their partial sums.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accelsim.plan import QuantPlan

PART_BITS = range(2, 17)
MAX_SHIFT = 15
MOST_PARTS = 4096


@dataclass(frozen=True)
class HeadWidths:
    """Widths of equal parts of channels, in their order.

    `shifts` say that a step of part i is 2^shifts[i] times the finest step of all parts; empty: the parts have scales
    of their own and never meet in one sum.
    """

    bits: tuple[int, ...]
    shifts: tuple[int, ...] = ()

    @property
    def mean(self) -> float:
        """Mean width of a channel."""
        return sum(self.bits) / len(self.bits)

    def to_json(self) -> dict[str, Any]:
        """Plain data in the plan file's format."""
        return {"bits": list(self.bits), **({"shifts": list(self.shifts)} if self.shifts else {})}


def without_heads(plan: QuantPlan) -> QuantPlan:
    """The plan with all parts in their widest widths: the worst case, for which mappings are chosen."""
    return replace(plan, rules=tuple(replace(rule, heads=None, weight_heads=None) for rule in plan.rules))
