"""Whole widths that keep to a budget: where learning ends a little above or below it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from quant.learned.budget import Budget, Widths
from quant.learned.quantizer import HIGHEST_BITS, LOWEST_BITS

CLOSE = 0.99  # of the limit: what is spent at least, where steps of one bit allow it


def settle(real: Widths, budget: Budget, fixed: Mapping[str, bool]) -> dict[str, Tensor]:
    """Whole widths [tables, heads] nearest to real ones that cost at most the limit, and 99 % of it where they can.

    Widths are rounded; while the cost is above the limit, the part that is nearest to the next lower width gets it, and
    while it is below 99 %, the one nearest to the next higher width, if the limit still holds.  `fixed` sites keep
    theirs.  At last widths are raised where the cost has no use for narrower ones.  A fixed point: settled widths are
    returned as they are.
    """
    whole = {name: one.detach().clamp(LOWEST_BITS, HIGHEST_BITS).round() for name, one in real.items()}
    free = [name for name in whole if not fixed.get(name, False)]
    while budget.spent(whole) > 1:
        found = _nearest(real, whole, free, -1)
        if found is None:
            break
        name, place = found
        whole[name].view(-1)[place] -= 1
    tried: set[tuple[str, int]] = set()
    while budget.spent(whole) < CLOSE:
        found = _nearest(real, whole, free, +1, tried)
        if found is None:
            break
        name, place = found
        whole[name].view(-1)[place] += 1
        if budget.spent(whole) > 1:
            whole[name].view(-1)[place] -= 1
            tried.add(found)
    return budget.cost.raised(whole, fixed)


def _nearest(
    real: Widths, whole: Mapping[str, Tensor], free: list[str], change: int, tried: set[tuple[str, int]] | None = None
) -> tuple[str, int] | None:
    """Site and part whose real width is nearest to its whole one changed by one bit."""
    best, found = float("inf"), None
    for name in free:
        target = whole[name] + change
        distance = (real[name].detach() - target).mul(change).neg()
        distance = torch.where((target < LOWEST_BITS) | (target > HIGHEST_BITS), torch.inf, distance).view(-1)
        for place in distance.argsort().tolist():
            value = float(distance[place])
            if value >= best:
                break
            if tried is None or (name, place) not in tried:
                best, found = value, (name, place)
                break
    return found
