"""Filters in training: real weights that are rounded to the levels of their formats in every forward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from accelsim.plan import QuantPlan
from accelsim.problems import AccelsimError, Problem
from quant.calibrated import Filters
from quant.finetune.straight import on_levels
from quant.functional import gradient_multiplier, levels_tensor, project_levels
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
        self.parts = _parts(node, plan, len(self.start_scale), self.start_scale.device)
        rows = start.detach().reshape(len(self.start_scale), -1)
        inside = self._into_cells(node, rows, filters.integers.reshape(rows.shape))
        self.weight = inside.reshape(self.shape).clone().requires_grad_()
        self.bias = None if filters.bias is None else filters.bias.detach().clone().requires_grad_()
        self.growth = torch.zeros_like(self.start_scale).requires_grad_() if learn_scales else None
        self.low, self.high = (torch.empty_like(self.start_scale) for _ in range(2))
        for index, level_set in self.parts:
            self.low[index], self.high[index] = float(level_set[0]), float(level_set[-1])
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
        for index, level_set in self.parts:
            result[index] = level_set[project_levels(rows[index], level_set, scale[index])]
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
        for index, level_set in self.parts:
            levels, wanted = level_set.to(rows.dtype), integers[index].long()
            place = torch.searchsorted(level_set, wanted).clamp(max=len(levels) - 1)
            if not bool((level_set[place] == wanted).all()):
                raise AccelsimError(
                    Problem(f"op {node.name}", "has integers that its formats lack", "filters made under this plan")
                )
            gap = levels.diff()
            endless = gap.new_full((1,), torch.inf)
            below, above = (torch.cat(x)[place] * (0.5 - INSIDE) for x in ((endless, gap), (gap, endless)))
            scale = self.start_scale[index][:, None]
            moved = torch.clamp(rows[index] / scale, levels[place] - below, levels[place] + above) * scale
            right = project_levels(rows[index], level_set, scale[:, 0]) == place
            result[index] = torch.where(right, rows[index], moved)
        return result


def _parts(node: Node, plan: QuantPlan, count: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Filters (index) and levels of every format of a layer."""
    parts = []
    for share in plan.rule_for(node.op).weights:
        index = torch.arange(count) if share.channels is None else torch.from_numpy(share.channels.indices.copy())
        parts.append((index.to(device), levels_tensor(share.format).to(device)))
    return parts
