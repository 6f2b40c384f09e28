"""Token groups: the first tokens of a layer keep their width, the others are stored in fewer bits (patch-wise bits).

Patch-wise mixed precision (Xiao et al. 2023, PMQ, arXiv 2305.06559) gives the patches of a layer different widths at
inference.  How is not public: what follows is an interpretation.  A layer ranks its tokens, puts them in the order of
their importance, and stores the first `high` rows of its operands in full, the others in `drop_bits` bits fewer.  The
step of the narrow codes is 2^drop_bits steps of the full ones: both groups have one range and one real scale, and a
shift aligns them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from accelsim.formats import Format, Scheme
from accelsim.problems import AccelsimError, Problem

if TYPE_CHECKING:
    from accelsim.plan import QuantPlan

MIN_BITS = 2  # of a narrow code
# Whose attention ranks the tokens: the class token's, or that of all.
CLASS_TOKEN, RECEIVED = "class", "received"
IMPORTANCES = (CLASS_TOKEN, RECEIVED)


@dataclass(frozen=True)
class TokenGroups:
    """Of an op's output the first `high` tokens have the rule's `output`, the others `drop_bits` bits fewer.

    `layer` names the layer whose ranking ordered the tokens; all ops of a layer have the same `high`.
    """

    layer: str
    high: int
    drop_bits: int = 2

    def narrow(self, full: Format) -> Format:
        """The format of the other tokens.  Raises AccelsimError where it does not exist."""
        if full.scheme is not Scheme.UNIFORM or full.bits - self.drop_bits < MIN_BITS:
            what = f"{full.name} less {self.drop_bits} bits is no number format"
            expected = f"a uniform format of at least {MIN_BITS + self.drop_bits} bits"
            where = f"token groups of layer {self.layer}"
            raise AccelsimError(Problem(where, what, expected, ("a smaller drop_bits",)))
        return Format(Scheme.UNIFORM, full.bits - self.drop_bits)

    def to_json(self) -> dict[str, Any]:
        """Plain data in the plan file's format."""
        return {"layer": self.layer, "high": self.high, "drop_bits": self.drop_bits}


def full_count(share: float, tokens: int) -> int:
    """The number of full tokens that a share of a layer's tokens stands for, at least the first one."""
    return max(1, round(share * tokens))


def with_counts(plan: QuantPlan, high: Mapping[str, int]) -> QuantPlan:
    """The plan with other numbers of full tokens, by layer; layers that are not named keep theirs."""

    def changed(tokens: TokenGroups | None) -> TokenGroups | None:
        return None if tokens is None else replace(tokens, high=high.get(tokens.layer, tokens.high))

    return replace(plan, rules=tuple(replace(rule, tokens=changed(rule.tokens)) for rule in plan.rules))


def without_groups(plan: QuantPlan) -> QuantPlan:
    """The plan with all tokens full: the worst case, for which mappings are chosen."""
    return replace(plan, rules=tuple(replace(rule, tokens=None) for rule in plan.rules))


def token_layers(plan: QuantPlan) -> dict[str, TokenGroups]:
    """The layers with token groups, in the order of the plan's rules, each with the groups of its first rule."""
    found: dict[str, TokenGroups] = {}
    for rule in plan.rules:
        if rule.tokens is not None:
            found.setdefault(rule.tokens.layer, rule.tokens)
    return found
