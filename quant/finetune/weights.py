"""Filters in training: real weights that are rounded to the levels of their formats in every forward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from accelsim.formats import Format, Scheme
from accelsim.plan import QuantPlan
from accelsim.problems import AccelsimError, Problem
from quant.calibrated import Filters
from quant.finetune.straight import on_levels
from quant.functional import gradient_multiplier, levels_tensor, project_levels
from quant.head_parts import column_parts
from quant.network import Node

INSIDE = 1e-3  # of the gap between two levels: how far inside its cell a weight starts that lay outside


class Latent:
    """The real weights of a layer with the integers of a checkpoint as what they first round to.

    `weight` is the float layer's weight, moved into the cell of its integer where reconstruction chose another one; so
    the first forward pass is the checkpoint's.  `bias` is the checkpoint's.  `growth` (with `learn_scales`) is the
    logarithm of the change of every filter's scale, so that scales stay positive.
    """

    def __init__(self, node: Node, start: Tensor, filters: Filters, plan: QuantPlan, learn_scales: bool) -> None:
        self.shape = filters.integers.shape
        self.start_scale = filters.scale.detach()
        rows = start.detach().reshape(len(self.start_scale), -1)
        integers = filters.integers.reshape(rows.shape)
        self.parts = _parts(node, plan, integers)
        inside = self._into_cells(node, rows, integers)
        self.weight = inside.reshape(self.shape).clone().requires_grad_()
        self.bias = None if filters.bias is None else filters.bias.detach().clone().requires_grad_()
        self.growth = torch.zeros_like(self.start_scale).requires_grad_() if learn_scales else None
        # Ends of a filter's levels, or of every weight's where they differ along the inputs.
        ends = rows if plan.rule_for(node.op).weight_heads is not None else rows[:, :1]
        self.low, self.high = (torch.empty_like(ends) for _ in range(2))
        for place, level_set in self.parts:
            self.low[place], self.high[place] = float(level_set[0]), float(level_set[-1])
        self.multiplier = gradient_multiplier(rows.shape[1], int(self.high.max()))

    def parameters(self) -> dict[str, Tensor]:
        """What is trained, by part."""
        parts = {"weight": self.weight, "bias": self.bias, "growth": self.growth}
        return {name: value for name, value in parts.items() if value is not None}

    def scale(self) -> Tensor:
        """Scale of every filter, [filters]."""
        return self.start_scale if self.growth is None else self.start_scale * self.growth.exp()

    def integers(self) -> Tensor:
        """The nearest levels (int64, [filters, n]), as calibration rounds: a tie goes to the lower one."""
        rows, scale = self.weight.detach().reshape(len(self.start_scale), -1), self.scale().detach()
        result = torch.empty_like(rows, dtype=torch.int64)
        for place, level_set in self.parts:
            result[place] = level_set[project_levels(rows[place], level_set, scale[place[0]])]
        return result

    def values(self) -> Tensor:
        """The weights that the hardware has, as real numbers in the shape of the layer's weight."""
        rows = self.weight.reshape(len(self.start_scale), -1)
        found = on_levels(rows, self.scale(), self.integers(), self.low, self.high, self.multiplier)
        return found.reshape(self.shape)

    def filters(self) -> Filters:
        """The layer as a checkpoint has it."""
        integers = self.integers().reshape(self.shape).to(torch.int32)
        bias = None if self.bias is None else self.bias.detach().clone()
        return Filters(integers, self.scale().detach().clone(), bias)

    def _into_cells(self, node: Node, rows: Tensor, integers: Tensor) -> Tensor:
        """The weights, each where it rounds to its integer."""
        result = rows.clone()
        for place, level_set in self.parts:
            levels, wanted = level_set.to(rows.dtype), integers[place].long()
            nearest = torch.searchsorted(level_set, wanted).clamp(max=len(levels) - 1)
            if not bool((level_set[nearest] == wanted).all()):
                raise AccelsimError(
                    Problem(f"op {node.name}", "has integers that its formats lack", "filters made under this plan")
                )
            gap = levels.diff()
            endless = gap.new_full((1,), torch.inf)
            below, above = (torch.cat(x)[nearest] * (0.5 - INSIDE) for x in ((endless, gap), (gap, endless)))
            scale = self.start_scale[place[0]][:, None]
            moved = torch.clamp(rows[place] / scale, levels[nearest] - below, levels[nearest] + above) * scale
            right = project_levels(rows[place], level_set, scale[:, 0]) == nearest
            result[place] = torch.where(right, rows[place], moved)
        return result


_Place = tuple[Tensor, slice]


def _parts(node: Node, plan: QuantPlan, integers: Tensor) -> list[tuple[_Place, Tensor]]:
    """Filters and inputs (as an index) of `integers` [filters, n] and levels, of every format and width of a layer."""
    rule, count, device = plan.rule_for(node.op), len(integers), integers.device
    places: list[tuple[_Place, Format, int]] = []
    if rule.weight_heads is not None:
        everyone = torch.arange(count, device=device)
        for columns, bits, shift in column_parts(rule.weight_heads, integers.shape[1]):
            places.append(((everyone, columns), Format.parse(f"u{bits}"), shift))
    else:
        for share in rule.weights:
            index = torch.arange(count) if share.channels is None else torch.from_numpy(share.channels.indices.copy())
            places.append(((index.to(device), slice(None)), share.format, 0))
    return [(place, _levels(fmt, integers[place], shift)) for place, fmt, shift in places]


def _levels(fmt: Format, integers: Tensor, shift: int) -> Tensor:
    """Levels of a format times 2^shift; with the lowest code of two's complement, −2^(b − 1), where the filters use it.

    Calibration leaves that code out, widths that were learned have it.
    """
    found = levels_tensor(fmt).to(integers.device) << shift
    lowest = -(1 << (fmt.bits - 1)) << shift
    if fmt.scheme is Scheme.UNIFORM and bool((integers == lowest).any()):
        found = torch.cat([found.new_tensor([lowest]), found])
    return found
