"""The order of an image's tokens, and how many of them are full: one rule for real numbers and for integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from accelsim.problems import AccelsimError, Problem

IMPORTANT, INVERSE, RANDOM = "important", "inverse", "random"
ORDERS = (IMPORTANT, INVERSE, RANDOM)  # the others are controls of studies
SHARE_BITS = 8  # a threshold is a number of 256ths
HASH_BITS = 31
_MASK = (1 << HASH_BITS) - 1
_CONTENT_BITS = 16  # fraction bits of a real importance that the random order depends on


@dataclass(frozen=True)
class Fixed:
    """The number of full tokens is the plan's, the same for every image."""


@dataclass(frozen=True)
class Threshold:
    """Per image the fewest tokens, most important first, that hold `share_256` / 256 of the summed importance."""

    share_256: int

    def __post_init__(self) -> None:
        if not 1 <= self.share_256 <= 1 << SHARE_BITS:
            raise AccelsimError(Problem("token threshold", f"a share of {self.share_256}/256", "1 … 256"))


Rule = Fixed | Threshold


def ranking_settings(rule: Rule, order: str, seed: int, first: bool) -> dict[str, Any]:
    """Settings of a rank node.  `first`: token 0 is the class token, which stays in front.

    Raises AccelsimError for an unknown order.
    """
    if order not in ORDERS:
        raise AccelsimError(Problem("token order", f"unknown order {order!r}", f"one of {', '.join(ORDERS)}"))
    share = rule.share_256 if isinstance(rule, Threshold) else 0
    return {"order": order, "seed": seed, "share_256": share, "first": int(first)}


def importances(shares: Tensor) -> Tensor:
    """Importance of every token, [n, tokens]: shares of attention [n, heads, rows, tokens] summed over heads and rows.

    Sums of codes are int64, those of real numbers float64 (which holds sums of whole numbers exactly).
    """
    exact = shares.double() if shares.is_floating_point() else shares.long()
    return exact.sum((1, 2))


def rank_words(importance: Tensor, settings: Mapping[str, Any]) -> Tensor:
    """A word for every place of the new order, int64 [n, tokens]: 2 · the token's old place + its flag.

    Equal importances keep their order.  The flag says that the token is full; under the fixed rule, where the count
    is the plan's, it is 0.  Controls (`inverse`, `random`) change the order, not the number of full tokens.
    """
    first = int(settings["first"])
    important = _sorted(importance, first, descending=True)
    order = important
    if settings["order"] == INVERSE:
        order = _sorted(importance, first, descending=False)
    elif settings["order"] == RANDOM:
        order = _sorted(_random_keys(importance, int(settings["seed"])), first, descending=False)
    share = int(settings["share_256"])
    if not share:
        return 2 * order
    full = full_tokens(importance.gather(1, important), share)
    return 2 * order + (torch.arange(order.shape[1]) < full[:, None])


def full_tokens(ordered: Tensor, share_256: int) -> Tensor:
    """Number of full tokens of every image, int64 [n], from importances in their order, [n, tokens].

    The smallest k with 256 · Σ_{first k} ≥ share_256 · Σ_all; exact in integers; at least 1.  All where sums are NaN.
    """
    sums = ordered.cumsum(1)
    reached = (sums << SHARE_BITS if not sums.is_floating_point() else sums * (1 << SHARE_BITS)) >= (
        share_256 * sums[:, -1:]
    )
    return (~reached[:, :-1]).sum(1) + 1


def places(words: Tensor) -> Tensor:
    """Old places of the tokens, int64, from words (integers of any type)."""
    return words.long() >> 1


def flags(words: Tensor) -> Tensor:
    """True for full tokens, from words (integers of any type)."""
    return (words.long() & 1).bool()


def _sorted(keys: Tensor, first: int, descending: bool) -> Tensor:
    """Token numbers by key, ties in their order; the first `first` tokens stay where they are."""
    rest = torch.sort(keys[:, first:], dim=1, descending=descending, stable=True).indices + first
    return torch.cat([torch.arange(first).expand(len(keys), first), rest], dim=1)


def _random_keys(importance: Tensor, seed: int) -> Tensor:
    """Keys that depend on nothing but the seed and the image's importances, whatever the batch."""
    content = torch.round(importance.double() * (1 << _CONTENT_BITS)).long() & _MASK
    place = torch.arange(importance.shape[1])
    image = _mixed(content ^ _mixed(place + 1)).sum(1, keepdim=True) & _MASK
    return _mixed(_mixed(image ^ _mixed(torch.tensor(seed & _MASK))) ^ _mixed(place + 1))


def _mixed(x: Tensor) -> Tensor:
    """A bijection of 31-bit numbers that spreads their bits; products stay below 2^62."""
    x = (x ^ (x >> 16)) * 0x2C1B3C6D & _MASK
    x = (x ^ (x >> 12)) * 0x297A2D39 & _MASK
    return x ^ (x >> 15)
