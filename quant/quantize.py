"""A trained network and a method, or a plan, give a plan (for the hardware) and a checkpoint (for the arithmetic)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor, nn

from accelsim.formats import Format, Scheme
from accelsim.ir import OpKind
from accelsim.plan import MAX_PROBLEMS, QuantPlan, Rule, apply_plan
from accelsim.problems import AccelsimError, Problem
from accelsim.rank_rules import ranking_rules
from quant.calibrate import Calibration, calibrate, correct_biases
from quant.calibrated import Checkpoint
from quant.collect import Statistics, collect
from quant.groups import scale_groups
from quant.head_parts import head_widths, refuse_tied_parts
from quant.methods.base import UNIFORM8, Method
from quant.network import Network
from quant.reconstruct import Reconstruction, reconstruct
from quant.regions.slopes import slopes
from quant.structure import without_zero_point

Progress = Callable[[str, int, int], None]


def quantize(
    model: Network | nn.Module,
    calibration: Iterable[Tensor | Sequence[Tensor]],
    method: Method,
    options: Calibration | None = None,
    reconstruction: Reconstruction | None = None,
    about: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> tuple[QuantPlan, Checkpoint]:
    """Quantize a network with a method; returns the plan and the calibrated checkpoint.

    `calibration` gives batches of images [n, channels, h, w], or pairs of them with labels, which are ignored (a
    DataLoader, a list); the images are kept.  Without
    `reconstruction` weights are rounded to nearest.  `about` is stored with the checkpoint.  Raises AccelsimError when
    the model cannot be captured or the method does not fit it.
    """
    batches = image_batches(calibration)
    network = method.prepare(as_network(model, batches), batches)
    statistics = gather(network, batches, method)
    return quantize_prepared(network, batches, method, statistics, options, reconstruction, about, progress)


def quantize_prepared(
    network: Network,
    batches: Sequence[Tensor],
    method: Method,
    statistics: Statistics,
    options: Calibration | None = None,
    reconstruction: Reconstruction | None = None,
    about: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> tuple[QuantPlan, Checkpoint]:
    """`quantize` of a network that the method has prepared, with statistics of `gather`.

    Methods that prepare and gather alike (the same smoothing, the same tensors observed by channel, weighted alike)
    may share both.
    """
    plan = make_plan(network, method, statistics)
    made = {"method": type(method).__name__, "method_options": asdict(method), **(about or {})}
    checkpoint = calibrated(network, batches, plan, statistics, options, reconstruction, made, progress)
    return plan, method.finish(checkpoint, statistics)


def quantize_plan(
    model: Network | nn.Module,
    calibration: Iterable[Tensor | Sequence[Tensor]],
    plan: QuantPlan,
    options: Calibration | None = None,
    reconstruction: Reconstruction | None = None,
    about: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> tuple[QuantPlan, Checkpoint]:
    """Quantize a network under a given plan; arguments and results as those of `quantize`, by the same steps.

    Parts of an output (`heads`) get scales of their own, each observed in its own width.  Raises AccelsimError also
    when the plan does not fit the network: mixed filters without channels, one scale where the network has several
    (granularity), a zero point where codes are multiplied, parts whose scales are tied (`shifts`, `weight_heads`).
    """
    batches = image_batches(calibration)
    network = as_network(model, batches)
    check_plan(network, plan)
    refuse_tied_parts(plan, "calibration", ("--method qvit, which learns them",))
    statistics = plan_statistics(network, batches, plan)
    made = {"method": "plan", "method_options": {"name": plan.name}, **(about or {})}
    return plan, calibrated(network, batches, plan, statistics, options, reconstruction, made, progress)


def image_batches(calibration: Iterable[Tensor | Sequence[Tensor]]) -> list[Tensor]:
    """The images of batches, labels left out.  Raises AccelsimError when there are none."""
    batches = [batch if isinstance(batch, Tensor) else batch[0] for batch in calibration]
    if not batches:
        raise AccelsimError(Problem("calibration", "gives no images", "at least one batch"))
    return batches


def calibrated(
    network: Network,
    batches: Sequence[Tensor],
    plan: QuantPlan,
    statistics: Statistics,
    options: Calibration | None = None,
    reconstruction: Reconstruction | None = None,
    about: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> Checkpoint:
    """Calibrate under a plan from the statistics it needs, reconstruct, correct biases; what was done is noted."""
    chosen = Calibration() if options is None else options
    labels = scale_groups(network, _granular(network, plan, "channel_scale"), head_widths(network, plan))
    # Weights are chosen against the float biases; what their rounding adds to the mean is taken away at the end.
    checkpoint = calibrate(network, plan, statistics, labels, chosen)
    if reconstruction is not None:
        checkpoint = reconstruct(network, checkpoint, batches, reconstruction, progress)
    if chosen.bias_correction:
        checkpoint = correct_biases(network, checkpoint, statistics)
    images = sum(len(batch) for batch in batches)
    made = {
        "calibration": {**asdict(chosen), "images": images},
        "reconstruction": None if reconstruction is None else asdict(reconstruction),
    }
    return replace(checkpoint, about={**made, **(about or {})})


def as_network(model: Network | nn.Module, images: Sequence[Tensor]) -> Network:
    """The model as a Network: captured at the shape of the images unless it is one."""
    if isinstance(model, Network):
        return model
    from quant.capture import capture

    channels, height, width = images[0].shape[1:]
    return capture(model, (channels, height, width))


def gather(network: Network, calibration: Sequence[Tensor], method: Method) -> Statistics:
    """Statistics of the float network that the method's plan and calibration need."""
    scales, offsets = method.channel_scales(network), method.channel_offsets(network)
    statistics = collect(network, calibration, scale_groups(network, scales), (*scales, *offsets))
    weighted = method.weighted(network)
    return replace(statistics, slopes=slopes(network, calibration, weighted)) if weighted else statistics


def plan_statistics(network: Network, calibration: Iterable[Tensor], plan: QuantPlan) -> Statistics:
    """Statistics of the float network that the calibration of a plan needs."""
    scales, offsets = (_granular(network, plan, kind) for kind in ("channel_scale", "channel_offset"))
    return collect(network, calibration, scale_groups(network, scales, head_widths(network, plan)), (*scales, *offsets))


def _granular(network: Network, plan: QuantPlan, granularity: str) -> tuple[str, ...]:
    """Outputs of that granularity."""
    ops = (node.op for node in network.nodes if node.op.kind is not OpKind.VIEW)
    return tuple(op.output for op in ops if plan.rule_for(op).granularity == granularity)


def check_plan(network: Network, plan: QuantPlan) -> None:
    """Raise AccelsimError where a plan asks for what the arithmetic of the network cannot give it.

    `apply_plan` checks formats and index tables; here it is checked that a tensor with several scales has parts or the
    granularity to pay for them, and that codes which are multiplied or compared have no zero point.
    """
    apply_plan(network.workload, plan)
    parts = head_widths(network, plan)
    labels = scale_groups(network, _granular(network, plan, "channel_scale"), parts)
    symmetric, problems = without_zero_point(network), []
    for node in network.nodes:
        if node.op.kind is OpKind.VIEW:
            continue
        rule, where = plan.rule_for(node.op), f"plan {plan.name}: {node.name}"
        if rule.granularity == "tensor" and node.op.output not in parts and labels[node.op.output].count > 1:
            what = f"one scale, but the network has {labels[node.op.output].count} in its output"
            problems.append(Problem(where, what, "granularity: group"))
        if rule.zero_point and node.op.output in symmetric:
            what = "has a zero point, but its codes are multiplied, divided or passed through a ReLU of its own"
            problems.append(Problem(where, what, "zero_point: false"))
    if problems:
        raise AccelsimError(problems[:MAX_PROBLEMS])


def make_plan(network: Network, method: Method, statistics: Statistics) -> QuantPlan:
    """One rule per op: formats of its filters and of what it stores.

    Image and logits have 8 bits, numerators that are divided have bits of their own.  Outputs have a zero point unless
    codes are multiplied there.
    """
    scales, offsets = method.channel_scales(network), method.channel_offsets(network)
    groups = scale_groups(network, scales)
    symmetric = without_zero_point(network)
    divided = {node.operands[0].source for node in network.nodes if node.function == "divide"}
    formats = method.outputs(network, statistics)
    rules = []
    for node in network.nodes:
        name = node.op.output
        output = formats.get(name, method.activation)
        if name == network.workload.output:
            output = UNIFORM8
        elif name in divided:
            output = Format.parse(f"u{method.numerator_bits}", "numerator_bits")
        shared = "group" if groups[name].count > 1 else "tensor"
        kind = "channel_scale" if name in scales else "channel_offset" if name in offsets else shared
        pointed = method.zero_point(network, name) and name not in symmetric and output.scheme is Scheme.UNIFORM
        right = output if output.scheme is Scheme.UNIFORM else UNIFORM8
        rule = Rule(
            node.name, activation=UNIFORM8, output=output, right=right, zero_point=pointed, granularity=kind,
            nonlinear=method.nonlinear(node),
        )  # fmt: skip
        if node.has_filters:
            rule = replace(rule, weights=method.shares(node, statistics.inputs.get(node.name)))
        rules.append(rule)
    division = "log2_shift" if method.log2_divisor else "divide"
    rules.append(Rule("*"))
    plan = QuantPlan(type(method).__name__.lower(), tuple(rules), division, input_zero_point=True)
    return method.grouped(network, ranking_rules(network.workload, plan))
