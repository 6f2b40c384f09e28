"""Steps that rank tokens and copy them in their order."""

from __future__ import annotations

from quant.integer.graph import Compiler, builds
from quant.integer.steps import Rank, Rearrangement, Step
from quant.network import Node


@builds("rank")
def rank(compiler: Compiler, node: Node) -> Step:
    """Sums of codes with one scale and no zero point: in the order of the sums of what they stand for."""
    compiler.single(node, 0)
    compiler.require_symmetric(node, 0)
    return Rank(node)


@builds("gather")
def gather(compiler: Compiler, node: Node) -> Step:
    """A copy: codes pass through."""
    return Rearrangement(node)
