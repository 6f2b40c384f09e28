"""What every product costs on a target for pairs of widths, from simulations of whole networks, and lines between them.

A pair of widths is simulated with all learned left operands (stored tensors) in one width and all right operands
(filters, keys, values) in the other.  The simulator says what every op takes of it: the cycles that are its own, its
energy.  Ops without learned widths (sums, norms, softmax) belong to the next product behind them.  The sum over the
products is the simulated figure of the whole, so the table is right for every uniform plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from accelsim.api import Report
from codesign.allocate.op_costs import op_costs
from quant.learned.budget import Term, Widths
from quant.learned.sites import Site

Floats = NDArray[np.float64]
CYCLES, ENERGY = range(2)


@dataclass(frozen=True, eq=False)
class WidthTable:
    """`values` [terms, left knots, right knots, 2] are cycles and pJ of products, without static energy.

    `static_pj_per_cycle` × cycles is to be added to the energy.
    """

    left: tuple[int, ...]
    right: tuple[int, ...]
    values: Tensor
    static_pj_per_cycle: float

    def at(self, term: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Cycles and pJ [n, 2] of terms [n] at widths [n], bilinear between knots, with gradients for the widths.

        At a knot the slope is that of the side below: what a narrower width would save.
        """
        i, a = _place(self.left, left)
        j, b = _place(self.right, right)
        a, b = a[:, None], b[:, None]
        low = self.values[term, i, j] * (1 - b) + self.values[term, i, j + 1] * b
        high = self.values[term, i + 1, j] * (1 - b) + self.values[term, i + 1, j + 1] * b
        return low * (1 - a) + high * a


def _place(knots: tuple[int, ...], width: Tensor) -> tuple[Tensor, Tensor]:
    """Interval of every width, the one below at a knot, and how far along it the width is."""
    points = torch.tensor(knots, dtype=width.dtype, device=width.device)
    index = (torch.searchsorted(points, width.detach().contiguous()) - 1).clamp(0, len(knots) - 2)
    return index, (width - points[index]) / (points[index + 1] - points[index])


def width_table(
    terms: Sequence[Term], learned: Sequence[int], knots: tuple[tuple[int, ...], tuple[int, ...]],
    simulated: Callable[[int, int], Report],
) -> WidthTable:  # fmt: skip
    """The table of the terms, of which those at the places `learned` have learned widths and carry the cost of all ops.

    `simulated` gives the report of a pair of widths.  Costs that fall with a wider width (waits move from op to op, a
    mapping changes) are raised to those of the narrower one, and all of a pair scaled to the simulated figure.
    """
    left, right = knots
    owner: NDArray[np.int64] | None = None
    found = np.zeros((len(terms), len(left), len(right), 2))
    totals = np.zeros((len(left), len(right), 2))
    static = 0.0
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            report = simulated(a, b)
            costs = op_costs(report)
            static = costs.static_pj_per_cycle
            if owner is None:
                owner = _owners(report.table.op_names, terms, learned)
            of_ops = np.column_stack([costs.cycles, costs.energy_pj])
            np.add.at(found[:, i, j], owner, of_ops)
            totals[i, j] = of_ops.sum(axis=0)
    found = _rising(found)
    found = _rising(found * (_rising(totals) / found.sum(axis=0)))
    return WidthTable(left, right, torch.from_numpy(found), static)


def _rising(values: Floats) -> Floats:
    """Values [.., left, right, 2] raised where a wider width costs less."""
    return np.maximum.accumulate(np.maximum.accumulate(values, axis=-3), axis=-2)


def _owners(names: Sequence[str], terms: Sequence[Term], learned: Sequence[int]) -> NDArray[np.int64]:
    """Of every op the term that has its cost: its own, else the next one behind it, else the last."""
    places = {terms[k].op: k for k in learned}
    found, owner = [], max(learned, key=lambda k: names.index(terms[k].op))
    for name in reversed(names):
        owner = places.get(name, owner)
        found.append(owner)
    return np.array(found[::-1], np.int64)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of widths of all parts of the learned terms: where they are in the flat widths, and their share of a term.

    `left` and `right` [n] index the widths of all sites one after the other, `term` [n] the table.
    """

    names: tuple[str, ...]
    left: Tensor
    right: Tensor
    term: Tensor
    share: Tensor

    def flat(self, widths: Widths) -> Tensor:
        """All widths one after the other, float64 on the CPU."""
        return torch.cat([widths[name].reshape(-1) for name in self.names]).cpu().double()


def pairs_of(terms: Sequence[Term], learned: Sequence[int], sites: Mapping[str, Site]) -> Pairs:
    """Pairs of the terms; a tensor of one part meets every part of the other one."""
    begins, count = {}, 0
    for name, site in sites.items():
        begins[name] = count
        count += site.tables * site.heads
    left, right, term, share = [], [], [], []
    for k in learned:
        one = terms[k]
        a = _indices(sites[one.left], begins[one.left], one.left_table)
        b = _indices(sites[one.right], begins[one.right], one.right_table)
        parts = max(len(a), len(b))
        left += a * (parts // len(a))
        right += b * (parts // len(b))
        term += [k] * parts
        share += [1.0 / parts] * parts
    lefts, rights, places = (torch.tensor(one, dtype=torch.long) for one in (left, right, term))
    return Pairs(tuple(sites), lefts, rights, places, torch.tensor(share, dtype=torch.float64))


def _indices(site: Site, begin: int, table: int | None) -> list[int]:
    if table is None or site.tables == 1:
        return list(range(begin, begin + site.tables * site.heads))
    return list(range(begin + table * site.heads, begin + (table + 1) * site.heads))
