"""Rows of results side by side: which images were right, paired differences, and how tables print them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from cells import Bools, Row, correct

from quant.statistics import Interval, PairedResult, compare, holm, paired_bootstrap

Pair = tuple[Bools, Bools]


def of(rows: Sequence[Row], model: str, bits: int, arm: str, seed: int = 0) -> Row | None:
    """The row of a cell, None when it has not been run."""
    wanted = (model, bits, arm, seed)
    return next((r for r in rows if (r["model"], r["bits"], r["arm"], r["seed"]) == wanted), None)


def seeds_of(rows: Sequence[Row], model: str, bits: int, arm: str) -> list[int]:
    """Checkpoints on which an arm has been run."""
    return sorted({r["seed"] for r in rows if (r["model"], r["bits"], r["arm"]) == (model, bits, arm)})


def pairs(rows: Sequence[Row], model: str, bits: int, reference: str, candidate: str) -> list[Pair]:
    """(reference, candidate) of every checkpoint on which both have been run."""
    found = []
    for seed in seeds_of(rows, model, bits, candidate):
        first, second = (of(rows, model, bits, arm, seed) for arm in (reference, candidate))
        if first is not None and second is not None:
            found.append((correct(first), correct(second)))
    return found


def mean_change(kept: Sequence[Pair]) -> Interval:
    """Candidate − reference in points, mean over checkpoints: an image stays one image on all of them (95 %)."""
    change = paired_bootstrap(np.mean([a for a, _ in kept], axis=0), np.mean([b for _, b in kept], axis=0))
    return Interval(*(100 * value for value in (change.estimate, change.low, change.high)))


def change_text(change: Interval) -> str:
    """`+0.99 (+0.40 … +1.63)`."""
    return f"{change.estimate:+.2f} ({change.low:+.2f} … {change.high:+.2f})"


def pair_text(pair: PairedResult) -> str:
    """Difference of one pair with its interval, in points."""
    return change_text(Interval(*(100 * value for value in (pair.difference, *pair.interval))))


def holm_texts(groups: Sequence[Sequence[Pair]]) -> list[str]:
    """McNemar's p of every pair of every group as a table's cell, with Holm's correction over all of them."""
    adjusted = iter(holm([compare(a, b).p_value for kept in groups for a, b in kept]))
    return [" / ".join(p_text(next(adjusted)) for _ in kept) for kept in groups]


def p_text(value: float) -> str:
    """A p value for a table."""
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def tops(kept: Iterable[Bools]) -> str:
    """Top-1 in % of every checkpoint."""
    return " / ".join(f"{100 * one.mean():.2f}" for one in kept)


def change_table(head: str, found: Mapping[str, Sequence[Pair]]) -> str:
    """A line per comparison (its first cells → pairs): both accuracies, the change, p by checkpoint; Holm over all."""
    kept = {cells: some for cells, some in found.items() if some}
    lines = [f"| {head}, points (95 %) | p (Holm) |", "|---" * (head.count("|") + 2) + "|"]
    for (cells, some), p in zip(kept.items(), holm_texts(list(kept.values())), strict=True):
        both = f"{tops(a for a, _ in some)} | {tops(b for _, b in some)}"
        lines.append(f"| {cells} | {both} | {change_text(mean_change(some))} | {p} |")
    return "\n".join(lines)
