"""The chain cut of the design bound: earliest begin and finish of every op, in op order."""

from __future__ import annotations

from typing import Any

from accelsim.kernels.jit import jit

# What an op's begin or finish follows from, where it is not another op (from 0: that op).
FROM_WORK, FROM_BUS = -1, -2


@jit
def chain_work(follows: Any, before: Any, work: Any, cycles: Any, column: Any) -> None:
    """Write the work [n, n] between two ops that can be in one chain, both included, and the column of `work` it is.

    Rows of all ops that follow op k and that op m follows lie between the begin of k and the finish of m.  Other pairs
    are left as they are.
    """
    n, columns = work.shape
    for k in range(n):
        for m in range(k + 1, n):
            if not follows[k, m] or before[k, m]:
                continue
            for c in range(columns):
                total = 0.0
                for j in range(k, m + 1):
                    if follows[k, j] and follows[j, m]:
                        total += work[j, c]
                if total > cycles[k, m]:
                    cycles[k, m] = total
                    column[k, m] = c


@jit
def walk_cuts(
    follows: Any, before: Any, head: Any, own: Any, inside: Any, middle: Any, loaded: Any, tile: Any, begin: Any,
    finish: Any, reasons: Any,
) -> None:  # fmt: skip
    """Write `begin` and `finish` [n]: no row of op m begins before, and not all have finished before (cycles).

    `follows` and `before` [n, n] are the relations of `bound_graph.Graph`.  `head[m]` is the work before op m or the
    latency of its first bits, `own[m]` its own work, `inside[k, m]` the work from op k to op m if they can be in one
    chain (else 0) and the drain of m, `middle[k, m]` the bus time between the begin of op k and the last
    row of op m, `loaded[m]` the time until all that op m needs has crossed the bus, `tile[m]` the time of its smallest
    tile.  `reasons` [n, 2]: where begin follows from (an op k behind whose finish it is, n + k behind whose first tile,
    or FROM_WORK), where finish follows from (an op k since whose begin bits crossed, n + k behind whose finish it is,
    2 · n + k since whose begin ops worked, FROM_WORK: begin and own work, or FROM_BUS: `loaded`).
    """
    n = head.size
    for m in range(n):
        begin[m] = head[m]
        reasons[m, 0] = FROM_WORK
        for k in range(m):
            if before[k, m] and finish[k] > begin[m]:
                begin[m] = finish[k]
                reasons[m, 0] = k
            if follows[k, m] and begin[k] + tile[k] > begin[m]:
                begin[m] = begin[k] + tile[k]
                reasons[m, 0] = n + k
        finish[m] = begin[m] + own[m]
        reasons[m, 1] = FROM_WORK
        if loaded[m] > finish[m]:
            finish[m] = loaded[m]
            reasons[m, 1] = FROM_BUS
        for k in range(m + 1):
            if follows[k, m]:
                if begin[k] + middle[k, m] > finish[m]:
                    finish[m] = begin[k] + middle[k, m]
                    reasons[m, 1] = k
                if begin[k] + inside[k, m] > finish[m]:
                    finish[m] = begin[k] + inside[k, m]
                    reasons[m, 1] = 2 * n + k
                if k < m and finish[k] + tile[m] > finish[m]:
                    finish[m] = finish[k] + tile[m]
                    reasons[m, 1] = n + k
