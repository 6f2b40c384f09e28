"""How a group of tensors may be stored: the choices of a penalty table that the settings of a space ask for.

A choice is measured as a whole (`quant.penalties.choices`): a format, for a softmax or LayerNorm with its method.
Narrow parts of q, k and v are put together here, from the losses of each part alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from accelsim.formats import Format, Scheme
from accelsim.head_widths import HeadWidths
from accelsim.ir import OpKind, Workload
from accelsim.plan import Rule
from accelsim.problems import AccelsimError, Problem
from codesign.allocate.option_counts import BASE
from quant.penalties.activation_groups import ActivationGroup
from quant.penalties.choices import METHOD_MARK, StoredChoice
from quant.penalties.table import PenaltyTable

if TYPE_CHECKING:
    from codesign.allocate.options import OptionSettings

REGIONS = re.compile(r"r[3-8]")  # a two-region format whose ratio comes from data
Choices = dict[str, tuple[StoredChoice, float]]  # by name, with the penalty; the first one is the base


def group_choices(
    workload: Workload, penalties: PenaltyTable, group: ActivationGroup, settings: OptionSettings
) -> Choices:
    """The choices of a group, the base first: `u8` with the first method, or what comes closest to it.

    Where the table has the group's choices by method and the settings name methods, exactly those of these methods;
    otherwise those without a method.  Log2 codes are offered where their method is.  Where a vector op reads
    the group, such as the ranking of tokens, codes that are not uniform are left out.  Raises AccelsimError when no
    method makes a code that the group can have.
    """
    losses = penalties.activations[group.name]
    by_method = bool(settings.methods) and any(METHOD_MARK in name for name in losses)
    found: Choices = {}
    for method in settings.methods if by_method else ("",):
        for name in _in_order(losses, method, settings):
            found[name] = (StoredChoice.parse(name), losses[name])
    if _in_vector_unit(workload, group.ops):
        found = {name: one for name, one in found.items() if one[0].format.scheme is Scheme.UNIFORM}
    if not found:
        what = f"{group.name} has no codes by {' or '.join(settings.methods)} that its readers can read"
        raise AccelsimError(Problem("options.methods", what, "another method first: ivit, ibert"))
    if not penalties.tokens:  # a ranked network: no operand is cut along tokens and along heads
        found |= _with_parts(penalties, group.name, settings)
    return found


def _in_order(losses: Mapping[str, float], method: str, settings: OptionSettings) -> Iterator[str]:
    """Names with a method ("": without one): the base, then in the order of the settings' formats, log2 codes last."""
    names = [name for name in losses if name.partition(METHOD_MARK)[2] == method]
    formats = (BASE, *(name for name in settings.activation_formats if name != BASE))
    for wanted in formats:
        for name in names:
            stored = name.partition(METHOD_MARK)[0]
            if stored == wanted or (REGIONS.fullmatch(wanted) and re.fullmatch(rf"{wanted}[pn]\d+", stored)):
                yield name
    yield from (name for name in names if method and Format.parse(name.partition(METHOD_MARK)[0]).scheme is Scheme.LOG2)


def _in_vector_unit(workload: Workload, ops: tuple[str, ...]) -> bool:
    """Whether a vector op reads the outputs of some of these ops."""
    outputs = {workload.op_by_name[name].output for name in ops}
    return any(
        op.kind is OpKind.VECTOR and any(outputs & {*workload.storage_of(name)} for name in op.inputs)
        for op in workload.ops
    )


def _with_parts(penalties: PenaltyTable, group: str, settings: OptionSettings) -> Choices:
    """`u8` with the parts narrow that lose least by it, at numbers of parts spread evenly between none and all."""
    found: Choices = {}
    for narrow, losses in penalties.parts.get(group, {}).items():
        if narrow not in settings.head_formats:
            continue
        order = np.argsort(losses, kind="stable")
        sums = np.cumsum(np.array(losses)[order])
        wide, bits = Format.parse(BASE), Format.parse(narrow).bits
        for count in head_counts(len(losses), settings.head_mixtures):
            less = set(order[:count].tolist())
            widths = HeadWidths(tuple(bits if k in less else wide.bits for k in range(len(losses))))
            choice = StoredChoice(wide, "", widths)
            found[choice.name] = (choice, penalties.activations[group][BASE] + float(sums[count - 1]))
    return found


def head_counts(parts: int, most: int) -> tuple[int, ...]:
    """At most `most` numbers of narrow parts, 0 < n < parts, in equal steps; with more than one of them the largest,
    all parts but one, which is where one part alone needs the width.
    """
    if most <= 0 or parts < 2:
        return ()
    inner = [round(k) for k in np.linspace(0, parts, most + 1)[1:-1]] + [parts - 1] if most > 1 else [parts // 2]
    return tuple(dict.fromkeys(n for n in inner if 0 < n < parts))


def nearest_choice(choices: Mapping[str, StoredChoice], rule: Rule) -> str:
    """The choice closest to how a rule stores an output: its method, its scheme, its mean width, its parts."""

    def distance(choice: StoredChoice) -> tuple[float, ...]:
        fmt, wanted = choice.format, rule.output
        return (
            choice.method != rule.nonlinear,
            fmt.scheme is not wanted.scheme,
            abs(_mean(fmt, choice.heads) - _mean(wanted, rule.heads)),
            abs(fmt.bits - wanted.bits),
            _apart(choice.heads, rule.heads),
            fmt != wanted,
        )

    return min(choices, key=lambda name: distance(choices[name]))


def _mean(fmt: Format, heads: HeadWidths | None) -> float:
    return float(fmt.bits) if heads is None else heads.mean


def _apart(one: HeadWidths | None, other: HeadWidths | None) -> float:
    """Sum of the differences of the widths; 1 for parts that cannot be compared."""
    if one is None or other is None or len(one.bits) != len(other.bits):
        return float((one is None) != (other is None))
    return float(sum(abs(a - b) for a, b in zip(one.bits, other.bits, strict=True)))
