"""The chain cut of the design bound: earliest begin and finish of every op, in op order."""

from __future__ import annotations

from typing import Any

from accelsim.kernels.jit import jit

# What an op's begin or finish follows from, where it is not another op (from 0: that op).
FROM_WORK, FROM_BUS = -1, -2


@jit
def walk_cuts(
    follows: Any, before: Any, head: Any, own: Any, middle: Any, loaded: Any, tile: Any, begin: Any, finish: Any,
    reasons: Any,
) -> None:  # fmt: skip
    """Write `begin` and `finish` [n]: no row of op m begins before, and not all have finished before (cycles).

    `follows` and `before` [n, n] are the relations of `bound_graph.Graph`.  `head[m]` is the work before op m or the
    latency of its first bits, `own[m]` its own work, `middle[k, m]` the bus time between the begin of op k and the last
    row of op m, `loaded[m]` the time until all that op m needs has crossed the bus, `tile[m]` the time of its smallest
    tile.  `reasons` [n, 2]: where begin follows from (an op k behind whose finish it is, n + k behind whose first tile,
    or FROM_WORK), where finish follows from (an op k since whose begin bits crossed, n + k behind whose finish it is,
    FROM_WORK: begin and own work, or FROM_BUS: `loaded`).
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
                if k < m and finish[k] + tile[m] > finish[m]:
                    finish[m] = finish[k] + tile[m]
                    reasons[m, 1] = n + k
