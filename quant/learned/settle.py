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
    _lower(real, whole, budget, free)
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


def _lower(real: Widths, whole: dict[str, Tensor], budget: Budget, free: list[str]) -> None:
    """Lower whole widths bit by bit until the cost is within the limit, in place.

    Which widths come next does not depend on the cost, which may be a simulation: twice as many at a time, then half
    of what was too much back.
    """
    moves: list[tuple[str, int]] = []
    few, chunk, left = 0, 1, True
    while left and budget.spent(whole) > 1:
        few = len(moves)
        for _ in range(chunk):
            found = _nearest(real, whole, free, -1)
            left = found is not None
            if found is None:
                break
            moves.append(found)
            whole[found[0]].view(-1)[found[1]] -= 1
        chunk *= 2
    done = most = len(moves)  # `most` moves suffice, or are all there are; `few` do not
    while most - few > 1:
        target = (few + most) // 2
        _change(whole, moves, done, target)
        done = target
        if budget.spent(whole) > 1:
            few = target
        else:
            most = target
    _change(whole, moves, done, most)


def _change(whole: dict[str, Tensor], moves: list[tuple[str, int]], done: int, target: int) -> None:
    """The widths after `target` moves instead of `done`."""
    for name, place in moves[target:done]:
        whole[name].view(-1)[place] += 1
    for name, place in moves[done:target]:
        whole[name].view(-1)[place] -= 1


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
