"""Rewrite steps into ops of the hardware by rules, in order, each until it applies nowhere."""

from __future__ import annotations

from collections.abc import Callable

from quant.capture.fold import (
    activation_attached,
    constant_folded,
    layer_scale,
    learned_rows,
    norm_after,
    norm_before,
    nothing_added,
    scale_moved,
    zeros_before_convolution,
)
from quant.capture.forms import (
    activations_merged,
    division_by_last,
    division_by_sum,
    pooling_mixer,
    product_transposed,
)
from quant.capture.values import Step, StepGraph

Rule = Callable[[StepGraph, Step], bool]
RULES: tuple[Rule, ...] = (
    zeros_before_convolution,
    division_by_last,
    division_by_sum,
    nothing_added,
    pooling_mixer,
    product_transposed,
    scale_moved,
    norm_after,
    norm_before,
    layer_scale,
    constant_folded,
    learned_rows,
    activations_merged,
    activation_attached,
)


def fuse(graph: StepGraph) -> None:
    """Apply every rule, in order, to every step until none applies."""
    graph.prune()
    for rule in RULES:
        changed = True
        while changed:
            changed = False
            for step in list(graph.steps):
                if step.users or graph.output.step is step:
                    changed |= rule(graph, step)
    graph.prune()
