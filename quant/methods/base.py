"""What a method decides, and the registry of methods."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from accelsim.formats import Format
from accelsim.plan import QuantPlan, WeightShare
from accelsim.problems import AccelsimError, Problem
from quant.calibrated import Checkpoint
from quant.collect import Moments, Statistics
from quant.network import Network, Node
from quant.structure import depthwise_inputs, pointwise_inputs_after_depthwise

UNIFORM8 = Format.parse("u8")


@dataclass(frozen=True)
class Method:
    """Formats of every tensor.  Subclasses say which formats the filters of a layer have.

    `activation_bits` holds for all stored tensors but the image and the logits, which have 8, and the numerators of
    linear attention, which have `numerator_bits` (8 in Trio-ViT): they are divided, so what is small must be exact.
    `migration` gives the inputs of depthwise convolutions a scale per channel, `shift` the inputs of the pointwise
    convolutions after them an offset per channel (both from Trio-ViT, arXiv 2405.03882).  `log2_divisor` stores the
    divisors of linear attention as powers of two.  Without `zero_points` stored tensors are symmetric.
    """

    activation_bits: int = 8
    numerator_bits: int = 16
    migration: bool = False
    shift: bool = False
    log2_divisor: bool = False
    zero_points: bool = True

    def prepare(self, network: Network, batches: Sequence[Tensor]) -> Network:
        """The network that is quantized: the same function, perhaps with more ops or other parameters.

        `batches` are the calibration images [n, channels, h, w].
        """
        return network

    def channel_scales(self, network: Network) -> tuple[str, ...]:
        """Stored tensors with a scale for each channel."""
        return depthwise_inputs(network) if self.migration else ()

    def channel_offsets(self, network: Network) -> tuple[str, ...]:
        """Stored tensors with an offset for each channel."""
        return pointwise_inputs_after_depthwise(network) if self.shift else ()

    def zero_point(self, network: Network, name: str) -> bool:
        """Whether a stored tensor has a zero point where its readers can bear one."""
        return self.zero_points

    def weighted(self, network: Network) -> tuple[str, ...]:
        """Stored tensors whose calibration needs gradients: what an error costs, value by value."""
        return ()

    def outputs(self, network: Network, statistics: Statistics) -> Mapping[str, Format]:
        """Formats of stored tensors that are not `activation`."""
        return {}

    def nonlinear(self, node: Node) -> str:
        """The method of a softmax, LayerNorm or GELU (`accelsim.nonlinear`); "" for none."""
        return ""

    def grouped(self, network: Network, plan: QuantPlan) -> QuantPlan:
        """The plan with token groups (`quant.patchwise`), for a network that ranks its tokens."""
        return plan

    def shares(self, node: Node, moments: Moments | None) -> tuple[WeightShare, ...]:
        """Formats of a layer's filters; more than one come with the channels of each.

        `moments` are those of the layer's input, None when no statistics were asked for.
        """
        raise NotImplementedError

    def finish(self, checkpoint: Checkpoint, statistics: Statistics) -> Checkpoint:
        """The calibrated checkpoint with what no plan can say."""
        return checkpoint

    @property
    def activation(self) -> Format:
        """Format of the stored tensors.  Raises AccelsimError for a width that does not exist."""
        return Format.parse(f"u{self.activation_bits}", "activation_bits")


_METHODS: dict[str, type[Method]] = {}
M = TypeVar("M", bound=type[Method])


def method(name: str) -> Callable[[M], M]:
    """Decorator: offer a method under `name`."""

    def add(one: M) -> M:
        _METHODS[name] = one
        return one

    return add


def method_names() -> tuple[str, ...]:
    """Names of all methods."""
    return tuple(_METHODS)


def method_class(name: str) -> type[Method]:
    """The method of that name.  Raises AccelsimError with the nearest one otherwise."""
    if name not in _METHODS:
        close = difflib.get_close_matches(name, _METHODS, n=1, cutoff=0.4)
        raise AccelsimError(
            Problem("method", f"unknown method {name!r}", f"one of {', '.join(_METHODS)}", tuple(close))
        )
    return _METHODS[name]
