"""Buffer space: offsets for regions with known lifetimes, which regions a region waits for, and an upper bound."""

from __future__ import annotations

from typing import Any

import numpy as np

from accelsim.kernels.jit import inner, jit
from accelsim.program import (
    COUNT,
    FIRST_TEMPLATE,
    LATENCY,
    OCCUPANCY,
    PHASE_ROWS,
    REGION_BITS,
    REGION_BUFFER,
    REGION_OFFSET,
)


@jit
def assign_offsets(bits: Any, first: Any, last: Any, order: Any, offsets: Any) -> int:
    """Place regions in the given order, each at the lowest offset free during its whole life [first, last].

    Writes `offsets` and returns the highest address used.  Regions of no bits get offset 0.
    """
    n = bits.size
    placed = np.zeros(n, np.bool_)
    peak = 0
    starts = np.zeros(n, np.int64)
    ends = np.zeros(n, np.int64)
    for index in order:
        if bits[index] == 0:
            offsets[index] = 0
            continue
        k = 0
        for other in range(n):
            if placed[other] and first[other] <= last[index] and first[index] <= last[other]:
                # Insertion keeps the occupied spans sorted; compiling a library sort would take seconds.
                j = k
                while j > 0 and starts[j - 1] > offsets[other]:
                    starts[j], ends[j] = starts[j - 1], ends[j - 1]
                    j -= 1
                starts[j], ends[j] = offsets[other], offsets[other] + bits[other]
                k += 1
        position = 0
        for j in range(k):
            if starts[j] - position >= bits[index]:
                break
            if ends[j] > position:
                position = ends[j]
        offsets[index] = position
        placed[index] = True
        peak = max(peak, position + bits[index])
    return peak


@inner
def _open_in_shadow(
    regions: Any, region: int, buffers: Any, starts: Any, ends: Any, owners: Any, n: int, out: Any
) -> Any:
    """Replace what `region` covers in the map of last owners; append the owners it displaces to `out`."""
    found = 0
    low = regions[region, REGION_OFFSET]
    high = low + regions[region, REGION_BITS]
    buffer = regions[region, REGION_BUFFER]
    k = 0
    while k < n:
        if buffers[k] != buffer or starts[k] >= high or ends[k] <= low:
            k += 1
            continue
        if owners[k] != region:
            known = False
            for j in range(found):
                if out[j] == owners[k]:
                    known = True
            if not known:
                out[found] = owners[k]
                found += 1
        left = starts[k] < low
        right = ends[k] > high
        if left and right:
            buffers[n], starts[n], ends[n], owners[n] = buffer, high, ends[k], owners[k]
            n += 1
            ends[k] = low
            k += 1
        elif left:
            ends[k] = low
            k += 1
        elif right:
            starts[k] = high
            k += 1
        else:
            n -= 1
            buffers[k], starts[k], ends[k], owners[k] = buffers[n], starts[n], ends[n], owners[n]
    if high > low:
        buffers[n], starts[n], ends[n], owners[n] = buffer, low, high, region
        n += 1
    return n, found


@jit
def overlap_lists(regions: Any, order: Any) -> Any:
    """For every region, the regions that last held its addresses when it is first opened.

    `order` lists the regions in the order of their first opening within an image.  Returns two CSR lists,
    (before_start, before) for the first image and (wrap_start, wrap) for an image that follows another.
    """
    n_regions = regions.shape[0]
    size = 4 * n_regions + 8
    buffers = np.zeros(size, np.int64)
    starts = np.zeros(size, np.int64)
    ends = np.zeros(size, np.int64)
    owners = np.zeros(size, np.int64)
    scratch = np.zeros(n_regions + 1, np.int64)
    n = 0
    counts = np.zeros((2, n_regions + 1), np.int64)
    lists = np.zeros((2, 8 * n_regions + 64), np.int64)
    begin = np.zeros((2, n_regions), np.int64)
    used = np.zeros(2, np.int64)
    for image in range(2):
        for region in order:
            n, found = _open_in_shadow(regions, region, buffers, starts, ends, owners, n, scratch)
            if used[image] + found > lists.shape[1]:
                larger = np.zeros((2, 2 * lists.shape[1] + found), np.int64)
                larger[:, : lists.shape[1]] = lists
                lists = larger
            begin[image, region] = used[image]
            counts[image, region] = found
            for k in range(found):
                lists[image, used[image] + k] = scratch[k]
            used[image] += found
    before_start, wrap_start = np.zeros(n_regions + 1, np.int64), np.zeros(n_regions + 1, np.int64)
    before, wrap = np.zeros(used[0], np.int64), np.zeros(used[1], np.int64)
    _csr(counts[0], begin[0], lists[0], before_start, before)
    _csr(counts[1], begin[1], lists[1], wrap_start, wrap)
    return before_start, before, wrap_start, wrap


@inner
def _csr(counts: Any, begin: Any, values: Any, start: Any, out: Any) -> None:
    n = begin.size
    position = 0
    for region in range(n):
        start[region] = position
        for k in range(counts[region]):
            out[position] = values[begin[region] + k]
            position += 1
    start[n] = position


@jit
def longest_ticks(templates: Any, phases: Any) -> float:
    """Ticks of one image if no two rows overlapped: no schedule is longer.  A float, which cannot overflow."""
    total = 0.0
    for p in range(phases.shape[0]):
        body = 0.0
        for t in range(phases[p, FIRST_TEMPLATE], phases[p, FIRST_TEMPLATE] + phases[p, PHASE_ROWS]):
            body += max(templates[t, OCCUPANCY], templates[t, LATENCY])
        total += body * phases[p, COUNT]
    return total
