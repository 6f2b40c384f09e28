"""The chain cut of the design bound: earliest begin and finish of every op, in op order."""

from __future__ import annotations

from typing import Any

from accelsim.kernels.jit import jit


@jit
def walk_cuts(
    follows: Any, before: Any, head: Any, own: Any, middle: Any, loaded: Any, begin: Any, finish: Any
) -> None:
    """Write `begin` and `finish` [n]: no row of op m begins before, and not all have finished before (cycles).

    `follows` and `before` [n, n] are the relations of `bound_graph.Graph`.  `head[m]` is the work before op m, `own[m]`
    its own, `middle[k, m]` the bus time between the begin of op k and the last row of op m, `loaded[m]` the time until
    all that op m needs has crossed the bus.
    """
    for m in range(head.size):
        begin[m] = head[m]
        for k in range(m):
            if before[k, m]:
                begin[m] = max(begin[m], finish[k])
        finish[m] = max(begin[m] + own[m], loaded[m])
        for k in range(m + 1):
            if follows[k, m]:
                finish[m] = max(finish[m], begin[k] + middle[k, m])
