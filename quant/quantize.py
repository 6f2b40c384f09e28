"""`quantize`: a trained network and a method give a plan (for the hardware) and a checkpoint (for the arithmetic)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor, nn

from accelsim.plan import QuantPlan, Rule
from quant.calibrate import Calibration, calibrate
from quant.calibrated import Checkpoint
from quant.collect import Statistics, collect
from quant.groups import scale_groups
from quant.methods.base import UNIFORM8, Method
from quant.network import Network
from quant.reconstruct import Reconstruction, reconstruct
from quant.structure import depthwise_inputs, pointwise_inputs_after_depthwise, without_zero_point

Progress = Callable[[str, int, int], None]


def quantize(
    model: Network | nn.Module,
    calibration: Sequence[Tensor],
    method: Method,
    options: Calibration | None = None,
    reconstruction: Reconstruction | None = None,
    about: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> tuple[QuantPlan, Checkpoint]:
    """Quantize a network with a method; returns the plan and the calibrated checkpoint.

    `calibration` are batches of images [n, channels, h, w], walked more than once; no labels are needed.  Without
    `reconstruction` weights are rounded to nearest.  `about` is stored with the checkpoint.  Raises AccelsimError when
    the model cannot be captured or the method does not fit it.
    """
    network = as_network(model, calibration)
    chosen = Calibration() if options is None else options
    statistics = gather(network, calibration, method)
    plan = make_plan(network, method, statistics)
    labels = scale_groups(network, _per_channel(network, method)[0])
    checkpoint = calibrate(network, plan, statistics, labels, chosen)
    if reconstruction is not None:
        checkpoint = reconstruct(network, checkpoint, calibration, reconstruction, progress)
    images = sum(len(batch) for batch in calibration)
    made = {
        "method": type(method).__name__,
        "method_options": asdict(method),
        "calibration": {**asdict(chosen), "images": images},
        "reconstruction": None if reconstruction is None else asdict(reconstruction),
    }
    return plan, replace(checkpoint, about={**made, **(about or {})})


def as_network(model: Network | nn.Module, images: Sequence[Tensor]) -> Network:
    """The model as a Network: captured at the shape of the images unless it is one."""
    if isinstance(model, Network):
        return model
    from quant.capture import capture

    channels, height, width = images[0].shape[1:]
    return capture(model, (channels, height, width))


def gather(network: Network, calibration: Iterable[Tensor], method: Method) -> Statistics:
    """Statistics of the float network that the method's plan and calibration need."""
    scales, offsets = _per_channel(network, method)
    return collect(network, calibration, scale_groups(network, scales), (*scales, *offsets))


def _per_channel(network: Network, method: Method) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Outputs with a scale, and outputs with an offset, for each channel."""
    scales = depthwise_inputs(network) if method.migration else ()
    offsets = pointwise_inputs_after_depthwise(network) if method.shift else ()
    return scales, offsets


def make_plan(network: Network, method: Method, statistics: Statistics) -> QuantPlan:
    """One rule per op: formats of its filters and of what it stores.

    Image and logits have 8 bits.  Outputs have a zero point unless codes are multiplied there.
    """
    scales, offsets = _per_channel(network, method)
    groups = scale_groups(network, scales)
    symmetric = without_zero_point(network)
    rules = []
    for node in network.nodes:
        name, last = node.op.output, node.op.output == network.workload.output
        output = UNIFORM8 if last else method.activation
        shared = "group" if groups[name].count > 1 else "tensor"
        kind = "channel_scale" if name in scales else "channel_offset" if name in offsets else shared
        rule = Rule(
            node.name, activation=UNIFORM8, output=output, right=output, zero_point=name not in symmetric,
            granularity=kind,
        )  # fmt: skip
        if node.has_filters:
            rule = replace(rule, weights=method.shares(node, statistics.inputs.get(node.name)))
        rules.append(rule)
    division = "log2_shift" if method.log2_divisor else "divide"
    rules.append(Rule("*"))
    return QuantPlan(type(method).__name__.lower(), tuple(rules), division, input_zero_point=True)
