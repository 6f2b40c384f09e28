"""Head widths in the arithmetic: which codes the parts of a stored tensor, and of filters along their inputs, can have.

A plan says the widths (`accelsim.head_widths`); scales are the checkpoint's, one per part.  Codes of a part are clamped
to its own width in fake quantization, in training and in integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from accelsim.head_widths import HeadWidths
from accelsim.ir import OpKind
from accelsim.plan import QuantPlan
from accelsim.problems import AccelsimError, Problem
from quant.calibrated import Checkpoint, Filters
from quant.functional import Affine, code_range
from quant.network import Network, Node

_CALIBRATED = "a checkpoint made under this plan"


@dataclass(frozen=True, eq=False)
class HeadParts:
    """The parts of an op's output: `place` (int64) numbers the part of every element and broadcasts against it.

    `ends` are the lowest and the highest code of every part, int64 [parts].
    """

    widths: HeadWidths
    place: Tensor
    ends: tuple[Tensor, Tensor]

    def spread(self, numbers: Tensor) -> Tensor:
        """A number per part, [parts], as a tensor that broadcasts against the output."""
        return numbers[self.place.to(numbers.device)]

    def within(self, affine: Affine) -> Affine:
        """The quantizer whose codes of a part keep to the part's width."""
        low, high = (end.to(affine.scale) for end in self.code_ends())
        return replace(affine, ends=(low, high))

    def code_ends(self) -> tuple[Tensor, Tensor]:
        """Lowest and highest codes (int64), which broadcast against the output."""
        return self.spread(self.ends[0]), self.spread(self.ends[1])


def head_widths(network: Network, plan: QuantPlan) -> dict[str, HeadWidths]:
    """Widths of the parts of every output that has some under a plan, by tensor."""
    rules = {node.op.output: plan.rule_for(node.op) for node in network.nodes if node.op.kind is not OpKind.VIEW}
    return {name: rule.heads for name, rule in rules.items() if rule.heads is not None}


def part_places(node: Node, channels: int, parts: int) -> Tensor:
    """Number of the part of every channel (int64), in a shape that broadcasts against the output of the op.

    A layer's output channels are cut into equal runs; a product or a softmax [n, heads, rows, columns] has a part per
    head.  Raises AccelsimError for a number of parts that does not divide the channels, and for other ops.
    """
    if node.function in ("linear", "conv") and channels % parts == 0:
        runs = torch.arange(channels) // (channels // parts)
        return runs if node.function == "linear" else runs.reshape(-1, 1, 1)
    if node.function in ("matmul", "softmax"):
        return torch.arange(parts).reshape(1, -1, 1, 1)
    what = f"{parts} parts of the {channels} channels of a {node.function}"
    expected = "equal parts of a linear layer, a product or a softmax"
    raise AccelsimError(Problem(f"op {node.name}: heads", what, expected))


def parts_of(checkpoint: Checkpoint, node: Node) -> HeadParts | None:
    """The parts of an op's output under a checkpoint's plan, if it has any.

    Raises AccelsimError where codes or scales of the checkpoint are not those of the plan's widths and shifts.
    """
    if node.op.kind is OpKind.VIEW:
        return None
    widths = checkpoint.plan.rule_for(node.op).heads
    if widths is None:
        return None
    where, name = f"op {node.name}: heads", node.op.output
    affine = checkpoint.stored.get(name)
    if affine is None:
        raise AccelsimError(
            Problem(where, "passes on the codes that it reads", "head widths of the op that makes them")
        )
    found = parts_with(node, checkpoint.network.workload.tensor_by_name[name].channels, widths, affine)
    _check_scales(affine, found, where)
    return found


def parts_with(node: Node, channels: int, widths: HeadWidths, affine: Affine) -> HeadParts:
    """The parts of an op's output of `channels` channels, with the kind of codes that its quantizer has.

    Raises AccelsimError as `part_places`, and for codes that are not those of the widest part.
    """
    place = part_places(node, channels, len(widths.bits))
    return HeadParts(widths, place, _ends(affine, widths, f"op {node.name}: heads"))


def check_parts(checkpoint: Checkpoint) -> None:
    """Raise AccelsimError with every op whose codes, scales or filters are not those of the plan's head widths."""
    problems: list[Problem] = []
    for node in checkpoint.network.nodes:
        try:
            parts_of(checkpoint, node)
            _check_filters(checkpoint.plan.rule_for(node.op).weight_heads, checkpoint.filters.get(node.name), node)
        except AccelsimError as error:
            problems += error.problems
    if problems:
        raise AccelsimError(problems)


def column_parts(widths: HeadWidths, inputs: int) -> tuple[tuple[slice, int, int], ...]:
    """Of every part of filters along `inputs` inputs: its inputs, its bits, and the shift of its integers."""
    size, shifts = inputs // len(widths.bits), widths.shifts or (0,) * len(widths.bits)
    return tuple(
        (slice(k * size, (k + 1) * size), bits, shift)
        for k, (bits, shift) in enumerate(zip(widths.bits, shifts, strict=True))
    )


def whole_shifts(scales: Tensor) -> Tensor | None:
    """Exponents (int64) of scales that are powers of two times the smallest of them; None where they are not."""
    exponents = torch.log2(scales / scales.min()).round().long()
    exact = torch.ldexp(scales.min().expand_as(scales), exponents)
    return exponents if bool((exact == scales).all()) else None


def _ends(affine: Affine, widths: HeadWidths, where: str) -> tuple[Tensor, Tensor]:
    """Ends of the codes of parts: of the kind (signed, symmetric, unsigned) that the codes of the widest have."""
    widest = max(widths.bits)
    for symmetric, signed in ((False, True), (True, True), (False, False)):
        if (affine.low, affine.high) == code_range(widest, symmetric, signed):
            ends = [code_range(bits, symmetric, signed) for bits in widths.bits]
            low, high = torch.tensor(ends).T
            return low, high
    what = f"codes {affine.low} … {affine.high} are not those of {widest} bits, the widest part"
    raise AccelsimError(Problem(where, what, _CALIBRATED))


def _check_scales(affine: Affine, parts: HeadParts, where: str) -> None:
    """Every part has one scale; with shifts they are powers of two times each other."""
    scale, place = _together(affine.scale.detach().double(), parts.place.to(affine.scale.device))
    shifts = parts.widths.shifts
    if shifts:
        scale = torch.ldexp(scale, -parts.spread(torch.tensor(shifts, device=scale.device)).expand(scale.shape))
        what = f"scales are not {' : '.join(f'2^{shift}' for shift in shifts)}"
        if not bool((scale == scale.reshape(-1)[0]).all()):
            raise AccelsimError(Problem(where, what, _CALIBRATED))
    for k in range(len(parts.widths.bits)):
        one = scale[place == k]
        if one.numel() and not bool((one == one[0]).all()):
            raise AccelsimError(Problem(where, f"part {k} has several scales", _CALIBRATED))


def _together(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the shape to which they broadcast."""
    return one + torch.zeros_like(other, dtype=one.dtype), other + torch.zeros_like(one, dtype=other.dtype)


def _check_filters(widths: HeadWidths | None, filters: Filters | None, node: Node) -> None:
    """Integers of a part are whole multiples of its shift, within its width."""
    if widths is None or filters is None:
        return
    where = f"op {node.name}: weight_heads"
    for columns, bits, shift in column_parts(widths, filters.integers.shape[1]):
        integers, half = filters.integers[:, columns], 1 << (bits - 1)
        codes = integers >> shift
        if bool(((codes << shift) != integers).any() | (codes < -half).any() | (codes >= half).any()):
            what = f"weights of the inputs {columns.start} … {columns.stop - 1} are no {bits}-bit codes times 2^{shift}"
            raise AccelsimError(Problem(where, what, _CALIBRATED))


def refuse_parts(plan: QuantPlan, where: str, levers: Sequence[str] = ()) -> None:
    """Raise AccelsimError when rules of a plan give widths to parts, for which `where` has no form."""
    found = [rule.match for rule in plan.rules if rule.heads is not None or rule.weight_heads is not None]
    _refuse(found, where, "no form for the head widths of", "a plan without `heads` and `weight_heads`", levers)


def refuse_tied_parts(plan: QuantPlan, where: str, levers: Sequence[str] = ()) -> None:
    """Raise AccelsimError when scales of parts of a plan are tied: `heads` with shifts, and `weight_heads`."""
    tied = (r.match for r in plan.rules if r.weight_heads is not None or (r.heads is not None and r.heads.shifts))
    expected = "`heads` without `shifts` (outputs that products read, such as q, k, v), no `weight_heads`"
    _refuse(list(tied), where, "no way to find tied scales for the head widths of", expected, levers)


def _refuse(found: Sequence[str], where: str, what: str, expected: str, levers: Sequence[str]) -> None:
    if found:
        more = f" and {len(found) - 4} more" * (len(found) > 4)
        raise AccelsimError(Problem(where, f"{what} {', '.join(found[:4])}{more}", expected, tuple(levers)))
