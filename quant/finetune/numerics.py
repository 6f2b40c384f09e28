"""A checkpoint whose parameters are trained: its forward values, and gradients that pass roundings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from accelsim.formats import Format
from accelsim.nonlinear.methods import function_of
from quant.calibrated import Checkpoint
from quant.fake import ADDED_CONSTANT, FakeQuantized, rounded_constant
from quant.finetune.straight import shown_as
from quant.finetune.weights import Latent
from quant.functional import Affine, fake_quantize_ste, gradient_multiplier
from quant.functions import FUNCTIONS
from quant.head_parts import head_widths
from quant.network import Network, Node, Numerics, forward
from quant.regions.codes import region_range, region_values_ste

TRAINED = ("layernorm", "embed")  # functions without filters whose parameters are trained


class Scales:
    """The scales of a quantizer in training; elements that share a scale keep sharing it.

    `tied` scales keep their ratios: all of them change by one factor.
    """

    def __init__(self, start: Affine, tied: bool = False) -> None:
        self.start = start
        self.members, self.place = torch.unique(start.scale.detach(), return_inverse=True)
        self.growth = torch.zeros_like(self.members[:1] if tied else self.members).requires_grad_()

    def affine(self) -> Affine:
        """The quantizer as it is now."""
        return replace(self.start, scale=(self.members * self.growth.exp())[self.place])


class Trainable(FakeQuantized):
    """Numerics in training: `logits` are exactly those of `checkpoint()`, with gradients for `parameters()`.

    `floating` has the real weights that the filters start from.  Roundings pass gradients straight through, and none
    where a value is clipped; a log2 divisor passes all of them.  An op that the checkpoint's numerics compute in
    integers (`Numerics.nonlinear`) has the gradient of the float function.
    """

    def __init__(self, checkpoint: Checkpoint, floating: Network, learn_scales: bool = False) -> None:
        super().__init__(checkpoint, gradients=True)
        self.start = checkpoint
        self.latent = {
            name: Latent(checkpoint.network.node(name), _weight(floating, name), filters, checkpoint.plan, learn_scales)
            for name, filters in checkpoint.filters.items()
        }
        self.network = replace(checkpoint.network, nodes=tuple(_in_training(x) for x in checkpoint.network.nodes))
        self.scales: dict[tuple[str, str], Scales] = {}
        if learn_scales:
            self._round, self._round_regions = _rounded_with_scale, _regions_with_scale
            tied = {("stored", name) for name, one in head_widths(self.network, checkpoint.plan).items() if one.shifts}
            self.scales = {key: Scales(affine, key in tied) for key, affine in _learnable(checkpoint).items()}
        self._hardware = FakeQuantized(checkpoint)

    def parameters_by_name(self) -> dict[str, Tensor]:
        """Everything that is trained, by a unique name."""
        found = {f"filters/{op}/{part}": x for op, one in self.latent.items() for part, x in one.parameters().items()}
        for node in self.network.nodes:
            if node.function in TRAINED:
                parts = (("weight", node.weight), ("bias", node.bias))
                found |= {f"node/{node.name}/{part}": value for part, value in parts if value is not None}
        return found | {f"{kind}/{name}/growth": one.growth for (kind, name), one in self.scales.items()}

    def logits(self, images: Tensor) -> Tensor:
        """Logits [n, classes] of images [n, channels, h, w] under the parameters as they are now."""
        if self.scales:
            self.checkpoint = self._with_scales(detached=False)
        # Integer forms hold constants that follow from parameters and scales, which the last step changed.
        self._hardware = FakeQuantized(self._with_scales(detached=True))
        return forward(self.network, images, self)

    def parameters(self, node: Node) -> tuple[Tensor | None, Tensor | None]:
        """Rounded filters and constants."""
        if node.name in self.latent:
            return self.latent[node.name].values(), self.latent[node.name].bias
        if node.function in ADDED_CONSTANT and node.weight is not None:
            affine = self.checkpoint.stored[node.op.output]
            constant = rounded_constant(node.weight.detach(), replace(affine, scale=affine.scale.detach()))
            return shown_as(node.weight, constant), node.bias
        return node.weight, node.bias

    def nonlinear(self, node: Node, operands: list[Tensor]) -> Tensor | None:
        """What the integers give, with the gradient of the float function; None where there are no integers."""
        with torch.no_grad():
            found = self._hardware.nonlinear(_detached(node), [operand.detach() for operand in operands])
        return None if found is None else shown_as(FUNCTIONS[node.function](node, operands, Numerics()), found)

    def stored(self, node: Node, value: Tensor) -> Tensor:
        """The output as it is stored."""
        result, divisor = super().stored(node, value), self.checkpoint.divisors.get(node.op.output)
        return result if divisor is None else torch.where(divisor.rows, shown_as(value, result.detach()), result)

    def trained(self) -> Checkpoint:
        """The checkpoint of the parameters as they are now, with `about` of the first one."""
        filters = {name: one.filters() for name, one in self.latent.items()}
        nodes = []
        for node in self.network.nodes:
            one = _detached(node)
            if node.name in filters:
                one = replace(one, weight=self.latent[node.name].weight.detach().clone(), bias=filters[node.name].bias)
            nodes.append(one)
        return replace(self._with_scales(True), network=replace(self.network, nodes=tuple(nodes)), filters=filters)

    def _with_scales(self, detached: bool) -> Checkpoint:
        changed: dict[str, dict[str, Affine]] = {
            "stored": dict(self.start.stored), "preactivation": dict(self.start.preactivation)
        }  # fmt: skip
        for (kind, name), one in self.scales.items():
            affine = one.affine()
            changed[kind][name] = replace(affine, scale=affine.scale.detach().clone()) if detached else affine
        more: dict[str, Any] = changed
        return replace(self.start, **more)


def _rounded_with_scale(x: Tensor, affine: Affine) -> Tensor:
    """`fake_quantize_ste` with the gradient of the scale as LSQ balances it."""
    if affine.ends is not None:
        values = max(x.numel() // len(torch.unique(affine.scale.detach())), 1)
        return fake_quantize_ste(x, affine, (values * affine.ends[1].clamp(min=1)).rsqrt())
    values = max(x.numel() // affine.scale.numel(), 1)
    return fake_quantize_ste(x, affine, gradient_multiplier(values, max(affine.high, 1)))


def _regions_with_scale(x: Tensor, step: Tensor, fmt: Format) -> Tensor:
    """`region_values_ste` with the gradient of the step as LSQ balances it; the highest level counts as its codes."""
    return region_values_ste(x, step, fmt, gradient_multiplier(x.numel(), region_range(fmt)[1]))


def _weight(floating: Network, name: str) -> Tensor:
    weight = floating.node(name).weight
    assert weight is not None
    return weight


def _detached(node: Node) -> Node:
    weight, bias = (None if value is None else value.detach().clone() for value in (node.weight, node.bias))
    return replace(node, weight=weight, bias=bias)


def _in_training(node: Node) -> Node:
    """The node with parameters of its own, which ask for gradients where they are trained."""
    one = _detached(node)
    if node.function in TRAINED:
        for value in (one.weight, one.bias):
            if value is not None:
                value.requires_grad_()
    return one


def _learnable(checkpoint: Checkpoint) -> dict[tuple[str, str], Affine]:
    """Quantizers whose scales may be trained, by kind and name.

    Left out: the image, which the host writes; what an integer method gives, because it is whole steps already and its
    distance from them no gradient; what products read that make log2 divisors, whose unit is the product of these
    scales; parts of a joined tensor, whose scales may be tied.
    """
    workload = checkpoint.network.workload
    kept = {workload.input}
    for node in checkpoint.network.nodes:
        if node.function == "concat" or node.op.output in checkpoint.divisors:
            kept |= {root for operand in node.operands for root in workload.storage_of(operand.source)}
        if function_of(node.op.recipe) and checkpoint.plan.rule_for(node.op).nonlinear not in ("", "table"):
            kept.add(node.op.output)
    found = {("stored", name): affine for name, affine in checkpoint.stored.items() if name not in kept}
    return found | {("preactivation", name): affine for name, affine in checkpoint.preactivation.items()}
