"""The least time of a chain at a tile size: the options of its ops combined, without losing the optimum.

A combination takes as long as the largest of the sums of its columns (docs/decisions/0010).  Ops with one option are
added up; the others are combined one after the other.  A partial combination is dropped when another is no worse in
every column, or when what it must at least become is no better than a whole one already found.
"""

from __future__ import annotations

from accelsim.kernels.jit import inner
from accelsim.kernels.splits import Scratch

F_CYCLES, F_BURSTS, F_ENERGY, F_BLOCKS = range(4)
# Columns of an option that are no cycles: weight bursts and femtojoules.
_OTHERS = 2
# Beyond this many partial combinations the dominated ones are looked for.
_SIFT = 64


@inner
def beaten(s: Scratch, n_found: int, cycles: int, bursts: int, energy: int, blocks: int) -> bool:
    """True when a result is no worse in anything."""
    for r in range(n_found):
        faster = s.found[r, F_CYCLES] <= cycles and s.found[r, F_BURSTS] <= bursts
        if faster and s.found[r, F_ENERGY] <= energy and s.found[r, F_BLOCKS] <= blocks:
            return True
    return False


@inner
def add_result(s: Scratch, n_found: int, cycles: int, bursts: int, energy: int, blocks: int) -> int:
    """Put a result behind those that it does not beat; returns their number, which is its place, or −1 without room."""
    kept = 0
    for r in range(n_found):
        better = s.found[r, F_CYCLES] < cycles or s.found[r, F_BURSTS] < bursts
        if better or s.found[r, F_ENERGY] < energy or s.found[r, F_BLOCKS] < blocks:
            if kept < r:
                for c in range(s.found.shape[1]):
                    s.found[kept, c] = s.found[r, c]
                for f in range(s.found_option.shape[1]):
                    s.found_option[kept, f] = s.found_option[r, f]
            kept += 1
    if kept >= s.found.shape[0]:
        return -1
    s.found[kept, F_CYCLES], s.found[kept, F_BURSTS] = cycles, bursts
    s.found[kept, F_ENERGY], s.found[kept, F_BLOCKS] = energy, blocks
    return kept


@inner
def _first_found(s: Scratch, n_flexible: int) -> None:
    """A whole combination, op by op the option that keeps the time least: what partial ones have to beat."""
    width = s.rest.shape[1]
    for d in range(width):
        s.labels[1, 0, d] = s.labels[0, 0, d]
    for f in range(n_flexible):
        k = s.flexible[f]
        best, best_cycles = 0, -1
        for o in range(s.n[k]):
            cycles = 0
            for d in range(width - _OTHERS):
                cycles = max(cycles, s.labels[1, 0, d] + s.x[k, o, d] + s.rest[f + 1, d])
            if best_cycles < 0 or cycles < best_cycles:
                best, best_cycles = o, cycles
        for d in range(width):
            s.labels[1, 0, d] += s.x[k, best, d]
        s.found_option[0, k] = best
    cycles = 0
    for d in range(width - _OTHERS):
        cycles = max(cycles, s.labels[1, 0, d])
    s.found[0, F_CYCLES], s.found[0, F_BURSTS] = cycles, s.labels[1, 0, width - 2]
    s.found[0, F_ENERGY], s.found[0, F_BLOCKS] = s.labels[1, 0, width - 1], 1


@inner
def _sift(s: Scratch, generation: int, f: int, count: int) -> int:
    """Drop dominated partial combinations; returns how many are left."""
    width = s.rest.shape[1]
    kept = 0
    for m in range(count):
        dominated = False
        for r in range(kept):
            worse = False
            for d in range(width):
                if s.labels[generation, r, d] > s.labels[generation, m, d]:
                    worse = True
                    break
            if not worse:
                dominated = True
                break
        if dominated:
            continue
        if kept < m:
            for d in range(width):
                s.labels[generation, kept, d] = s.labels[generation, m, d]
            s.back[f, kept, 0], s.back[f, kept, 1] = s.back[f, m, 0], s.back[f, m, 1]
        kept += 1
    return kept


@inner
def _record(s: Scratch, n_found: int, f: int, m: int, option: int, cycles: int, bursts: int, energy: int) -> int:
    """Add the whole combination that ends with `option` behind partial combination m of layer f − 1."""
    place = add_result(s, n_found, cycles, bursts, energy, 1)
    if place < 0:
        return -1
    s.found_option[place, s.flexible[f]] = option
    for layer in range(f - 1, -1, -1):
        s.found_option[place, s.flexible[layer]] = s.back[layer, m, 1]
        m = s.back[layer, m, 0]
    return place + 1


@inner
def combine(s: Scratch, n_ops: int) -> int:
    """Whole combinations of the first `n_ops` ops that no other beats in cycles and weight bursts: `s.found`.

    Returns their number, or −1 when there was no room for all partial ones.
    """
    width = s.rest.shape[1]
    n_flexible = 0
    for d in range(width):
        s.labels[0, 0, d] = 0
    for k in range(n_ops):
        if s.n[k] == 1:
            for d in range(width):
                s.labels[0, 0, d] += s.x[k, 0, d]
            for r in range(s.found.shape[0]):
                s.found_option[r, k] = 0
        else:
            s.flexible[n_flexible] = k
            n_flexible += 1
    for d in range(width):
        s.rest[n_flexible, d] = 0
    for f in range(n_flexible - 1, -1, -1):
        k = s.flexible[f]
        for d in range(width):
            least = s.x[k, 0, d]
            for o in range(1, s.n[k]):
                least = min(least, s.x[k, o, d])
            s.rest[f, d] = s.rest[f + 1, d] + least
    _first_found(s, n_flexible)
    return _combine_flexible(s, n_flexible)


@inner
def _combine_flexible(s: Scratch, n_flexible: int) -> int:
    width = s.rest.shape[1]
    n_found = 1
    count, old = 1, 0
    for f in range(n_flexible):
        k = s.flexible[f]
        now = 1 - old
        made = 0
        for m in range(count):
            for o in range(s.n[k]):
                cycles = 0
                for d in range(width - _OTHERS):
                    cycles = max(cycles, s.labels[old, m, d] + s.x[k, o, d] + s.rest[f + 1, d])
                bursts = s.labels[old, m, width - 2] + s.x[k, o, width - 2] + s.rest[f + 1, width - 2]
                energy = s.labels[old, m, width - 1] + s.x[k, o, width - 1] + s.rest[f + 1, width - 1]
                if beaten(s, n_found, cycles, bursts, energy, 1):
                    continue
                if f == n_flexible - 1:
                    n_found = _record(s, n_found, f, m, o, cycles, bursts, energy)
                    if n_found < 0:
                        return -1
                    continue
                if made >= s.labels.shape[1]:
                    return -1
                for d in range(width):
                    s.labels[now, made, d] = s.labels[old, m, d] + s.x[k, o, d]
                s.back[f, made, 0], s.back[f, made, 1] = m, o
                made += 1
        if made > _SIFT:
            made = _sift(s, now, f, made)
        count, old = made, now
    return n_found
