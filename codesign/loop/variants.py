"""The forms of a study's network, each with its own ops, losses and options: as it is, and with ranked tokens.

Token groups need a network that ranks its tokens (`quant.patchwise`), which costs ops of its own; parts of a tensor
with widths of their own cannot be in it (decision 0020).  So a plan is one of the plain network, without token groups,
or one of the patchwise network, without head widths, and the search has both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from accelsim.arch import Accelerator
from accelsim.formats import Format
from accelsim.ir import Workload, digest
from accelsim.plan import QuantPlan, Rule, WeightShare
from codesign.allocate.families import without
from codesign.allocate.options import OptionSettings, OptionSpace, option_space
from quant.penalties.table import PenaltyTable

PLAIN, PATCHWISE = "plain", "patchwise"
UNIFORM = "uniform"


@dataclass(frozen=True)
class Variant:
    """A form of the network: its ops, their predicted losses, and what a plan of it may choose."""

    name: str
    workload: Workload
    penalties: PenaltyTable
    options: OptionSettings

    @cached_property
    def identity(self) -> str:
        """Hash of everything that decides the plans but the accelerator."""
        return digest([self.name, self.workload.fingerprint(), self.penalties.fingerprint(), repr(self.options)])

    def without(self, family: str) -> Variant:
        """The same without a family of options."""
        return replace(self, options=without(self.options, family))

    def space(self, accelerator: Accelerator, settings: OptionSettings | None = None) -> OptionSpace:
        """What may be chosen on an accelerator, all of it or what `settings` leave.  Raises as `option_space` does."""
        return option_space(self.workload, self.penalties, accelerator, settings or self.options)

    def uniform_plan(self, accelerator: Accelerator, bits: int) -> QuantPlan:
        """The start of the space with weights of one width everywhere; the name is `uniformB`."""
        space = self.space(accelerator)
        start = space.plan(space.start, channels=False)
        weights = (WeightShare(Format.parse(f"u{bits}", "uniform bits")),)
        rules = [start.rule_for(op) for op in self.workload.ops]
        rules = [
            replace(rule, weights=weights) if op.weights else rule
            for op, rule in zip(self.workload.ops, rules, strict=True)
        ]
        return replace(start, name=f"{UNIFORM}{bits}", rules=(*rules, Rule("*")))


def settings_of(name: str, options: OptionSettings) -> OptionSettings:
    """The options that a form of the network can have."""
    return replace(options, token_shares=()) if name == PLAIN else replace(options, head_formats=())
