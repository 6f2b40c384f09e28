"""How a component is rounded: filters to nearest with a scale per filter, stored tensors affine, all by MSE search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from accelsim.formats import Format
from quant.calibrate import Calibration, grouped
from quant.calibrated import Filters
from quant.collect import SAMPLE
from quant.functional import Affine, fake_quantize
from quant.groups import Groups, channel_axis, scale_groups
from quant.network import Network, Node, Numerics, run
from quant.observers import Observed, weight_scale
from quant.sensitivity.components import channel_mask
from quant.sensitivity.table import Component, Ranges
from quant.structure import without_zero_point


def value_mask(node: Node, ranges: Ranges, value: Tensor) -> Tensor | None:
    """True at the channels of `ranges` in the op's output, in a shape that broadcasts; None when that is all of it."""
    if not ranges:
        return None
    axis = channel_axis(node) % value.dim()
    shape = [-1 if k == axis else 1 for k in range(value.dim())]
    return channel_mask(ranges, value.shape[axis]).reshape(shape)


def filter_mask(ranges: Ranges, weight: Tensor) -> Tensor | None:
    """The same for an op's filters, [outputs, ..]."""
    return channel_mask(ranges, len(weight)).reshape(-1, *[1] * (weight.dim() - 1)) if ranges else None


class Rounded(Numerics):
    """Floating point, but with other filters for some ops and rounded outputs of others (where a mask is true)."""

    def __init__(
        self, weights: Mapping[str, Tensor], outputs: Mapping[str, Affine], ranges: Mapping[str, Ranges]
    ) -> None:
        self.weights, self.outputs, self.ranges = weights, outputs, ranges

    def parameters(self, node: Node) -> tuple[Tensor | None, Tensor | None]:
        """Rounded filters of the component's ops; the bias stays."""
        return self.weights.get(node.name, node.weight), node.bias

    def stored(self, node: Node, value: Tensor) -> Tensor:
        """Rounded outputs of the component's ops."""
        affine = self.outputs.get(node.name)
        if affine is None:
            return value
        rounded, mask = fake_quantize(value, affine), value_mask(node, self.ranges[node.name], value)
        return rounded if mask is None else torch.where(mask, rounded, value)


class _Observe(Numerics):
    """Watches the stored values that components round: per scale group, or the channels of a head."""

    def __init__(self, components: Iterable[Component], labels: Mapping[str, Groups]) -> None:
        self.labels = labels
        self.components: dict[str, list[Component]] = {}
        self.seen: dict[tuple[Component, str], list[Observed]] = {}
        for component in components:
            for op, _ in component.stored:
                self.components.setdefault(op, []).append(component)

    def stored(self, node: Node, value: Tensor) -> Tensor:
        for component in self.components.get(node.name, ()):
            groups, mask = self.labels[node.op.output], value_mask(node, dict(component.stored)[node.name], value)
            count = groups.count if mask is None else 1
            seen = self.seen.setdefault(
                (component, node.name), [Observed(capacity=SAMPLE, seed=k) for k in range(count)]
            )
            if count == 1:
                seen[0].update(value if mask is None else value[mask.expand(value.shape)])
            else:
                flat, members = value.reshape(value.shape[0], -1), groups.labels.reshape(-1)
                for k, one in enumerate(seen):
                    one.update(flat[:, members == k])
        return value


class Rounding:
    """Rounded filters and quantizers of stored values, each made when it is first asked for.

    A stored tensor gets a zero point unless a product of activations reads it, as in a plan, and a range per scale
    group; a head has a range of its own.  Biases stay as they are.
    """

    def __init__(
        self, network: Network, components: Iterable[Component], calibration: Iterable[Tensor], options: Calibration
    ) -> None:
        self.network, self.options = network, options
        self._symmetric = without_zero_point(network)
        self._labels = scale_groups(network)
        observe = _Observe(components, self._labels)
        if observe.components:
            with torch.no_grad():
                for images in calibration:
                    run(network, images, observe)
        self._seen = observe.seen
        self.observed_ops = tuple(observe.components)  # whose outputs are components, or hold heads that are
        self._filters: dict[tuple[str, int], Filters] = {}
        self._affine: dict[tuple[Component, str, int], Affine] = {}

    def numerics(self, component: Component, bits: int) -> Rounded:
        """Numerics that round the component and nothing else."""
        weights, outputs = {}, {}
        for op, ranges in component.layers:
            if self.network.node(op).has_filters:
                weights[op] = self._weights(op, ranges, bits)
        for op, _ in component.stored:
            outputs[op] = self._quantizer(component, op, bits)
        return Rounded(weights, outputs, dict((*component.layers, *component.stored)))

    def _weights(self, op: str, ranges: Ranges, bits: int) -> Tensor:
        weight = self.network.node(op).weight
        assert weight is not None
        if (op, bits) not in self._filters:
            rows = weight.detach().reshape(len(weight), -1)
            scale, integers = weight_scale(rows, Format.parse(f"u{bits}", "bits"), self.options.power)
            # Two bytes a weight: the real numbers of every width would not fit for a large network.
            self._filters[op, bits] = Filters(integers.to(torch.int16).reshape(weight.shape), scale, None)
        rounded, mask = self._filters[op, bits].values(), filter_mask(ranges, weight)
        return rounded if mask is None else torch.where(mask, rounded, weight.detach())

    def _quantizer(self, component: Component, op: str, bits: int) -> Affine:
        key = (component, op, bits)
        if key not in self._affine:
            name = self.network.node(op).op.output
            whole = Groups(torch.zeros(1, dtype=torch.long), 1)
            groups = self._labels[name] if component.head is None else whole
            symmetric = name in self._symmetric
            self._affine[key] = grouped(
                self._seen[component, op], groups, [bits] * groups.count, symmetric, self.options
            )
        return self._affine[key]
