"""How a group of tensors may be stored: a format, the method of the op that computes it, parts in a narrower width.

A choice has a name, by which penalty tables and cost tables know it: `u8`; `u8+ivit` (made by a softmax or a LayerNorm
with I-ViT's method); `log4+fqvit`; `r6p3` (two regions); `u8/u4x6` (six parts, the ones that lose least, in 4 bits).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from accelsim.formats import Format, Scheme
from accelsim.head_widths import HeadWidths
from accelsim.plan import UNIFORM8, Rule

METHOD_MARK, PARTS_MARK = "+", "/"


@dataclass(frozen=True)
class StoredChoice:
    """A format, a method ("" leaves the rule's), and the widths of parts (None: all have the format's)."""

    format: Format
    method: str = ""
    heads: HeadWidths | None = None

    @property
    def name(self) -> str:
        """The name in tables; parts are counted, which ones follows from their penalties."""
        name = self.format.name + (f"{METHOD_MARK}{self.method}" if self.method else "")
        if self.heads is None:
            return name
        narrow = min(self.heads.bits)
        return f"{name}{PARTS_MARK}u{narrow}x{self.heads.bits.count(narrow)}"

    @property
    def stored_name(self) -> str:
        """The name without the method: what readers of the tensor see."""
        return replace(self, method="").name

    @staticmethod
    def parse(name: str, where: str = "choice") -> StoredChoice:
        """The choice of a name without parts.  Raises AccelsimError for an unknown format."""
        fmt, _, method = name.partition(METHOD_MARK)
        return StoredChoice(Format.parse(fmt, where), method)

    def applied(self, rule: Rule) -> Rule:
        """The rule with this choice; codes that are not uniform have no zero point."""
        uniform = self.format.scheme is Scheme.UNIFORM
        return replace(
            rule, output=self.format, right=self.format if uniform else UNIFORM8, heads=self.heads,
            zero_point=rule.zero_point and uniform and self.heads is None, nonlinear=self.method or rule.nonlinear,
        )  # fmt: skip
