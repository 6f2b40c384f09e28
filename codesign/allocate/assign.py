"""Which channels of an op get which format, when it is known how many get each."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from accelsim.problems import AccelsimError, Problem
from codesign.allocate.goal import Flags, Floats, Ints


def assign_channels(penalties: Floats, counts: Ints) -> Ints:
    """Format of every channel [C] with the least total penalty, `counts` [F] channels having each format.

    `penalties` [C, F].  Two formats: the second goes where it costs least more than the first, channels of lower number
    first among equals.  More: every channel starts with its cheapest format, and channels move along shortest paths
    from formats with too many to formats with too few, which keeps the assignment optimal for its counts (successive
    shortest paths; Ahuja, Magnanti, Orlin, Network Flows, 1993, §9.7).  Raises AccelsimError when the counts do not add
    up to C or a penalty is not finite.
    """
    channels, formats = penalties.shape
    counts = np.asarray(counts, np.int64)
    if len(counts) != formats or (counts < 0).any() or counts.sum() != channels:
        raise AccelsimError(
            Problem("channels", f"counts {counts.tolist()}", f"{formats} counts that add up to {channels}")
        )
    if not np.isfinite(penalties).all():
        raise AccelsimError(Problem("channels", "a penalty is not finite", "finite penalties"))
    if formats == 2:
        second = np.zeros(channels, np.int64)
        second[_order(penalties[:, 0], penalties[:, 1])[: counts[1]]] = 1
        return second
    result: Ints = np.argmin(penalties, axis=1).astype(np.int64)
    held = np.bincount(result, minlength=formats)
    step, mover = np.full((formats, formats), np.inf), np.zeros((formats, formats), np.int64)
    _refresh(penalties, result, range(formats), step, mover)
    rounding = 1e-13 * float(np.abs(penalties).max(initial=0.0))
    while (held > counts).any():
        path = _shortest_path(step, held > counts, held < counts, rounding)
        movers = [int(mover[source, target]) for source, target in pairwise(path)]
        result[movers] = path[1:]
        held[path[0]] -= 1
        held[path[-1]] += 1
        _refresh(penalties, result, path, step, mover)
    return result


def total_by_count(penalties_a: Floats, penalties_b: Floats) -> Floats:
    """Least total penalty [C + 1] when n = 0..C channels have format b and the others format a; penalties [C] each."""
    more = np.sort(penalties_b - penalties_a)
    result: Floats = penalties_a.sum() + np.concatenate(((0.0,), np.cumsum(more)))
    return result


def _order(penalties_a: Floats, penalties_b: Floats) -> Ints:
    """Channels in the order in which they take format b."""
    order: Ints = np.argsort(penalties_b - penalties_a, kind="stable")
    return order


def _refresh(penalties: Floats, result: Ints, formats: range | list[int], step: Floats, mover: Ints) -> None:
    """What moving one channel from each of `formats` to every format costs at least, and which channel that is."""
    for source in formats:
        members = np.flatnonzero(result == source)
        if not len(members):
            step[source] = np.inf
            continue
        change = penalties[members] - penalties[members, source][:, None]
        best = np.argmin(change, axis=0)
        step[source], mover[source] = change[best, np.arange(len(step))], members[best]
        step[source, source] = np.inf


def _shortest_path(step: Floats, sources: Flags, targets: Flags, rounding: float) -> list[int]:
    """Formats of the cheapest path from any source to any target (Bellman-Ford; no cycle is negative)."""
    formats = len(step)
    distance = np.where(sources, 0.0, np.inf)
    before = np.full(formats, -1)
    for _ in range(formats - 1):
        through = distance[:, None] + step
        nearest = np.argmin(through, axis=0)
        reached = through[nearest, np.arange(formats)]
        # Rounding must not turn a cycle of zero into an endless path.
        shorter = reached < distance - rounding
        shorter &= ~sources
        if not shorter.any():
            break
        distance[shorter], before[shorter] = reached[shorter], nearest[shorter]
    path = [int(np.argmin(np.where(targets, distance, np.inf)))]
    while before[path[-1]] >= 0:
        path.append(int(before[path[-1]]))
    return path[::-1]
