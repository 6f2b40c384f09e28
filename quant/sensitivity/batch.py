"""All components on one batch of images: each block of the float network is run once, components go on from there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from quant.network import Network, Node, forward, run
from quant.sensitivity.case import Case, Part, Stopwatch
from quant.sensitivity.gradients import Gradients, gradients
from quant.sensitivity.hessian import Curvatures, curvatures
from quant.sensitivity.metrics.base import Metric
from quant.sensitivity.rounding import Rounded, Rounding, filter_mask, value_mask
from quant.sensitivity.table import PROBES, Component
from quant.structure import segments


@dataclass(frozen=True)
class Cell:
    """A component at one width; with `by_channel` each of its filters for itself."""

    component: Component
    bits: int
    by_channel: bool = False

    @property
    def text(self) -> str:
        """Its key in a cache."""
        kind = "channel" if self.by_channel else self.component.kind
        return f"{kind}|{self.component.name}|{self.bits}"


class Work:
    """A batch of images with what all its components share; `probes` and `seed` are those of its Hessian."""

    def __init__(
        self,
        network: Network,
        rounding: Rounding,
        images: Tensor,
        labels: Tensor | None,
        probes: int = PROBES,
        seed: int = 0,
    ) -> None:
        self.network, self.rounding, self.images, self.probes, self.seed = network, rounding, images, probes, seed
        self.labels = torch.zeros(len(images), dtype=torch.long) if labels is None else labels
        self.watch = Stopwatch()

    @cached_property
    def exact_logits(self) -> Tensor:
        """Logits of the float network."""
        with self.watch.stage("float"), torch.no_grad():
            self.count_run(self.network.nodes)
            return forward(self.network, self.images)

    def exact(self, nodes: tuple[Node, ...], given: dict[str, Tensor], keep: Iterable[str]) -> dict[str, Tensor]:
        """Tensors of a block of the float network."""
        with self.watch.stage("float"), torch.no_grad():
            self.count_run(nodes)
            return run(self.network, self.images, given=given, nodes=nodes, keep=keep)

    @cached_property
    def gradients(self) -> Gradients:
        """Gradients of every image."""
        with self.watch.stage("gradients"):
            self.count_run(self.network.nodes)
            self.watch.count("backward", len(self.images))
            return gradients(self.network, self.images, self.labels, self.rounding.observed_ops)

    @cached_property
    def curvatures(self) -> Curvatures:
        """Estimates of the Hessian's diagonal."""
        outputs = self.rounding.observed_ops
        with self.watch.stage("hessian"):
            self.count_run(self.network.nodes)
            self.watch.count("backward", len(self.images))
            self.watch.count("hessian", (2 if outputs else 1) * self.probes * len(self.images))
            return curvatures(self.network, self.images, self.labels, outputs, self.probes, self.seed)

    def count_run(self, nodes: Iterable[Node]) -> None:
        """Count a run of some ops by their share of the MACs."""
        self.watch.count("runs", len(self.images))
        share = sum(node.op.macs for node in nodes) / self.network.workload.macs
        self.watch.count("forward", share * len(self.images))


def rows_of_batch(
    work: Work, missing: Iterable[tuple[Cell, list[Metric]]]
) -> Iterator[tuple[Cell, Metric | None, Tensor]]:
    """Rows of the missing metrics of cells, cell by cell; after each cell one item with no metric."""
    parts = segments(work.network)
    place = {node.name: k for k, part in enumerate(parts) for node in part}
    waiting: dict[int, list[tuple[Cell, list[Metric]]]] = {}
    for cell, metrics in missing:
        if metrics:
            first = min(place[op] for op in _ops(cell.component))
            waiting.setdefault(first, []).append((cell, metrics))
        else:
            yield cell, None, torch.empty(0)
    given: dict[str, Tensor] = {}
    for k in range(len(parts)):
        if all(later < k for later in waiting):
            return
        cells = waiting.get(k, [])
        ops = {op for cell, _ in cells for op in _ops(cell.component)}
        # A head or product whose ops lie in several blocks needs the outputs of all of them.
        stop = 1 + max([k, *(place[op] for op in ops)])
        nodes = tuple(node for part in parts[k:stop] for node in part)
        after = parts[k][-1].op.output
        values = work.exact(nodes, given, [after, *(work.network.node(op).op.output for op in ops)])
        rest = tuple(node for part in parts[k:] for node in part)
        for cell, metrics in cells:
            case = _case(work, cell, values, given, rest)
            for metric in metrics:
                with work.watch.stage(metric.name):
                    rows = metric.rows(case)
                yield cell, metric, rows
            yield cell, None, torch.empty(0)
        given = {after: values[after]}


def _ops(component: Component) -> tuple[str, ...]:
    """Ops whose filters or stored outputs are rounded, and those whose output shows it."""
    return tuple(dict.fromkeys(op for op, _ in (*component.parts, *component.stored)))


def _case(work: Work, cell: Cell, values: dict[str, Tensor], given: dict[str, Tensor], rest: tuple[Node, ...]) -> Case:
    names = [work.network.node(op).op.output for op, _ in cell.component.parts]
    with work.watch.stage("rounding"), torch.no_grad():
        numerics = work.rounding.numerics(cell.component, cell.bits)
        parts = tuple(_part(work, numerics, op, values) for op in (*numerics.weights, *numerics.outputs))

    def go_on() -> tuple[Tensor, tuple[Tensor, ...]]:
        last = work.network.workload.output
        with work.watch.stage("run"), torch.no_grad():
            work.count_run(rest)
            found = run(work.network, work.images, numerics, given=given, nodes=rest, keep=[*names, last])
        return found[last].reshape(len(work.images), -1), tuple(found[name] for name in names)

    exact = tuple(values[name] for name in names)
    return Case(len(work.images), work.labels, work.exact_logits, exact, parts, go_on, cell.by_channel)


def _part(work: Work, numerics: Rounded, op: str, values: dict[str, Tensor]) -> Part:
    node = work.network.node(op)
    ranges = numerics.ranges[op]
    if op in numerics.weights:
        assert node.weight is not None
        exact, mask = node.weight.detach(), filter_mask(ranges, node.weight)
        change = (numerics.weights[op] - exact)[None]
        diagonal = _masked(lambda: work.curvatures.weights[op], mask)
        return Part(change, _members(exact, mask), _slopes_of_weights(work, op), diagonal)
    exact = values[node.op.output]
    mask = value_mask(node, ranges, exact)
    change = numerics.stored(node, exact) - exact
    diagonal = _masked(lambda: work.curvatures.stored[op], mask)
    return Part(change, _members(exact, mask) // len(work.images), _slopes_of_values(work, op), diagonal)


def _masked(make: Callable[[], Tensor], mask: Tensor | None) -> Callable[[], Tensor]:
    """Zero outside the mask."""
    return make if mask is None else lambda: torch.where(mask, make(), 0.0)


def _members(value: Tensor, mask: Tensor | None) -> int:
    return value.numel() if mask is None else int(mask.expand(value.shape).sum())


def _slopes_of_weights(work: Work, op: str) -> Callable[[], tuple[Tensor, Tensor]]:
    return lambda: work.gradients.weights[op]


def _slopes_of_values(work: Work, op: str) -> Callable[[], tuple[Tensor, Tensor]]:
    return lambda: (work.gradients.stored[op], work.gradients.stored[op] ** 2)
