"""Forward values of the hardware with the gradients of real numbers (straight-through estimators)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Shown(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, shown: Tensor) -> Tensor:
        return shown.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return upstream, None


def shown_as(value: Tensor, shown: Tensor) -> Tensor:
    """Exactly `shown`, with the gradient going to `value` unchanged (value + (shown − value) would round)."""
    result: Tensor = _Shown.apply(value, shown)  # type: ignore[no-untyped-call]
    return result


class _Levels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, scale: Tensor, integers: Tensor, low: Tensor, high: Tensor, g: float) -> Tensor:
        position = rows / scale[:, None]
        ctx.save_for_backward(position, integers, (position >= low) & (position <= high))
        ctx.multiplier = g
        return integers * scale[:, None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        position, integers, inside = ctx.saved_tensors
        step = torch.where(inside, integers - position, integers.to(position.dtype)) * upstream * ctx.multiplier
        return upstream * inside, step.sum(1), None, None, None, None


def on_levels(rows: Tensor, scale: Tensor, integers: Tensor, low: Tensor, high: Tensor, multiplier: float) -> Tensor:
    """Values scale · integers for rows[filters, n] that round to `integers`; low, high [filters, 1 or n]: end levels.

    Gradients, with u = rows / scale, inside low … high (ends included) and outside: of `rows`: 1 | 0; of `scale`:
    multiplier · (integer − u) | multiplier · integer.  Source: Esser et al. 2020 (LSQ), eq. 2-3, for any level set.
    """
    result: Tensor = _Levels.apply(rows, scale, integers, low, high, multiplier)  # type: ignore[no-untyped-call]
    return result
