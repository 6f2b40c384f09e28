"""Calibration: from a float network, a plan and statistics to the numbers of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from accelsim.formats import Format, Scheme
from accelsim.plan import QuantizedWorkload, QuantPlan, WeightShare, apply_plan
from accelsim.problems import AccelsimError, Problem
from accelsim.workloads.rank import GATHER, RANK
from quant.calibrated import Checkpoint, Divisor, Filters, PtfFactors
from quant.collect import Statistics
from quant.functional import Affine, code_range, log2_code
from quant.groups import Groups, narrow, operand_values, spread_values
from quant.network import Network, Node
from quant.nonlinear.finest import finest_input
from quant.nonlinear.fqvit import ptf_factors
from quant.nonlinear.ops import log2_values
from quant.observers import Observed, channel_midpoint, migration_ratio, minmax, mse, percentile, quantile, weight_scale
from quant.patchwise.narrow import aligned
from quant.regions.choose import choose, sample_of
from quant.regions.codes import region_format, region_range
from quant.rounding import bias_correction
from quant.views import rearrange

OBSERVERS = ("mse", "minmax", "percentile")
WEIGHT_SCALES = ("filter", "tensor")
TABLE_BITS = 8  # a table of 256 entries
DIVISOR_BITS = 4


@dataclass(frozen=True)
class Calibration:
    """Options of calibration.

    `observer` chooses the ranges of stored tensors; `power` is that of the error which "mse" and the weights'
    scales minimise (2.4 in Trio-ViT's code).  `tied_branches` rounds the scales of a joined tensor's parts to powers
    of two times the first one's.  `weights` says what shares a weight scale: a "filter", or the whole "tensor" (uniform
    formats only).
    """

    observer: str = "mse"
    power: float = 2.4
    bias_correction: bool = True
    tied_branches: bool = False
    weights: str = "filter"

    def __post_init__(self) -> None:
        for name, value, known in (("observer", self.observer, OBSERVERS), ("weights", self.weights, WEIGHT_SCALES)):
            if value not in known:
                raise AccelsimError(Problem(name, f"unknown {name} {value!r}", f"one of {', '.join(known)}"))

    def observe(self, seen: Tensor | Observed, bits: int, symmetric: bool) -> Affine:
        """Quantizer of one scale group."""
        if self.observer == "minmax":
            return minmax(seen, bits, symmetric=symmetric)
        if self.observer == "percentile":
            return percentile(seen, bits, symmetric=symmetric)
        return mse(seen, bits, self.power, symmetric=symmetric)


def calibrate(
    network: Network,
    plan: QuantPlan,
    statistics: Statistics,
    labels: Mapping[str, Groups],
    options: Calibration | None = None,
    known_stored: Mapping[str, Affine] | None = None,
    known_filters: Mapping[str, Filters] | None = None,
) -> Checkpoint:
    """Scales, zero points and integer weights (round to nearest) of a network under a plan; biases as they are.

    Quantizers of stored tensors and filters that are known already, by tensor and by op, are taken as they are.
    """
    chosen = Calibration() if options is None else options
    quantized = apply_plan(network.workload, plan)
    stored, filters = dict(known_stored or {}), dict(known_filters or {})
    for name in (*statistics.groups, *statistics.channels):
        if name not in stored:
            stored[name] = stored_quantizer(name, quantized, statistics, labels[name], chosen)
    if chosen.tied_branches:
        _tie_branches(network, stored)
    before = {
        name: _scalar(chosen.observe(seen, TABLE_BITS, symmetric=False))
        for name, seen in statistics.preactivation.items()
    }
    for node in network.nodes:
        if node.has_filters and node.name not in filters:
            filters[node.name] = rounded_filters(node, plan, chosen)
    divisors = _divisors(network, plan, statistics, labels, stored) if plan.division == "log2_shift" else {}
    return Checkpoint(network, plan, filters, stored, before, divisors, factors=norm_factors(network, plan, statistics))


def norm_factors(network: Network, plan: QuantPlan, statistics: Statistics) -> dict[str, PtfFactors]:
    """Power-of-two factors of the inputs of FQ-ViT's LayerNorms, in codes as wide as those of their outputs."""
    rules = {name: plan.rule_for(network.node(name).op) for name in statistics.norms}
    found = {}
    for name, rule in rules.items():
        if rule.nonlinear == "fqvit":
            scale, zero, alpha = ptf_factors(statistics.norms[name].values.T, rule.output.bits)
            found[name] = PtfFactors(scale, zero, torch.ones_like(alpha) << alpha, rule.output.bits)
    return found


def _scalar(affine: Affine) -> Affine:
    return Affine(affine.scale.reshape(()), affine.zero_point.reshape(()), affine.low, affine.high)


def stored_quantizer(
    name: str,
    quantized: QuantizedWorkload,
    statistics: Statistics,
    groups: Groups,
    options: Calibration,
) -> Affine:
    """Quantizer of one stored tensor (not of what a view or a ReLU passes on) under a plan."""
    workload, plan = quantized.workload, quantized.plan
    bits = quantized.activation_bits[name]
    if name == workload.input:
        return _scalar(options.observe(statistics.groups[name][0], bits, symmetric=not plan.input_zero_point))
    rule = plan.rule_for(workload.op_by_name[name])
    if rule.output.scheme is Scheme.LOG2:
        return log2_values(bits)
    regions = region_format(rule)
    if regions is not None:
        return region_quantizer(name, regions, statistics, groups)
    if rule.granularity in ("channel_scale", "channel_offset"):
        make = _channel_scales if rule.granularity == "channel_scale" else _channel_offsets
        return make(statistics.channels[name], bits, rule.zero_point, options)
    if workload.op_by_name[name].op_class == RANK:
        return rank_quantizer(bits)
    widths = [bits] * groups.count if rule.heads is None else rule.heads.bits
    found = grouped(statistics.groups[name], groups, widths, not rule.zero_point, options)
    if rule.tokens is not None:
        found = aligned(found, rule.tokens.drop_bits)
    # Finer steps leave the widths of a program; the codes then reach further than the values do.
    return replace(found, scale=found.scale.clamp(min=finest_scale(name, quantized)))


def rank_quantizer(bits: int) -> Affine:
    """The identity: rank words are whole numbers without a sign, 0 … 2^bits − 1 (other uniform codes have one)."""
    return Affine(torch.tensor(1.0), torch.tensor(0.0), *code_range(bits, symmetric=False, signed=False))


def region_quantizer(name: str, regions: Format, statistics: Statistics, groups: Groups) -> Affine:
    """Quantizer of a stored tensor in a two-region format: `scale` is the step of the fine region, codes are levels.

    The step has the least squared error on the sample for the format's shift, weighted where slopes are known.
    """
    steps = []
    for k in range(groups.count):
        values, weights = sample_of(statistics, name, k)
        found = choose(values, regions.bits, regions.low_negative, weights, fixed=regions.region_shift)
        steps.append(found.step)
    scale = groups.spread(torch.tensor(steps))
    return Affine(scale, torch.zeros_like(scale), *region_range(regions))


def finest_scale(name: str, quantized: QuantizedWorkload) -> float:
    """The finest scale of a stored tensor that the methods of its readers take under a plan; 0 for any."""
    workload = quantized.workload

    def roots(inputs: Sequence[str]) -> set[str]:
        found = {root for one in inputs for root in workload.storage_of(one)}
        copies = [workload.op_by_name[root] for root in found if root in workload.op_by_name]
        return found.union(*(roots(op.inputs[:1]) for op in copies if op.op_class == GATHER))

    finest = 0.0
    for item in quantized.ops:
        if item.op.recipe is not None and item.nonlinear and name in roots(item.op.inputs):
            finest = max(finest, finest_input(item.function, item.nonlinear, item.op.recipe.width))
    return finest


def grouped(
    seen: Sequence[Observed], groups: Groups, widths: Sequence[int], symmetric: bool, options: Calibration
) -> Affine:
    """Quantizer of a stored tensor with a scale per group, from what was observed of each at its own width.

    `widths` are bits per group (of parts of a tensor their own); the codes are those of the widest.
    """
    parts = [options.observe(one, bits, symmetric=symmetric) for one, bits in zip(seen, widths, strict=True)]
    scale = groups.spread(torch.stack([part.scale.reshape(()) for part in parts]))
    zero = groups.spread(torch.stack([part.zero_point.reshape(()) for part in parts]))
    widest = max(parts, key=lambda part: part.high)
    return Affine(scale, zero, widest.low, widest.high)


def _channel_scales(seen: Observed, bits: int, zero_point: bool, options: Calibration) -> Affine:
    """Channel-wise migration (Trio-ViT): the channels divided by their ratios share one quantizer."""
    magnitude = torch.maximum(seen.high.abs(), seen.low.abs())
    p99 = float(quantile(seen.values.abs().reshape(1, -1), 99.0))
    ratio = migration_ratio(magnitude, p99)
    base = options.observe(seen.values / ratio[:, None], bits, symmetric=not zero_point)
    scaled = Affine(base.scale.reshape(()) * ratio, base.zero_point.reshape(()).expand(len(ratio)), base.low, base.high)
    return seen.shaped(scaled)


def _channel_offsets(seen: Observed, bits: int, zero_point: bool, options: Calibration) -> Affine:
    """Channel-wise shift (Trio-ViT): every channel is centred; the shift is a whole number of steps."""
    middle = channel_midpoint(seen.low, seen.high)
    base = options.observe(seen.values - middle[:, None], bits, symmetric=True)
    scale = base.scale.reshape(())
    return seen.shaped(Affine(scale.expand(len(middle)), -(middle / scale).round(), base.low, base.high))


def _tie_branches(network: Network, stored: dict[str, Affine]) -> None:
    """Scales of the parts of a joined tensor become the first part's times powers of two (rounded up)."""
    for node in network.nodes:
        if node.function == "concat":
            first, *rest = (operand.source for operand in node.operands)
            for name in rest:
                power = torch.log2(stored[name].scale / stored[first].scale).ceil()
                part = stored[name]
                stored[name] = Affine(stored[first].scale * torch.exp2(power), part.zero_point, part.low, part.high)


def rounded_filters(node: Node, plan: QuantPlan, options: Calibration) -> Filters:
    """Integer filters in the formats of the plan, round to nearest."""
    assert node.weight is not None
    weights = node.weight.detach()
    rows = weights.reshape(len(weights), -1)
    shares = plan.rule_for(node.op).weights
    if options.weights == "tensor":
        scale, integers = _one_scale(rows, shares, options, f"plan {plan.name}: {node.name}")
        return Filters(integers.reshape(weights.shape).to(torch.int32), scale, node.bias)
    scale, integers = torch.ones(len(rows)), torch.zeros(rows.shape, dtype=torch.int64)
    for share in shares:
        if len(shares) > 1 and share.channels is None:
            expected = "the channels of every format: an index table"
            raise AccelsimError(
                Problem(f"plan {plan.name}: {node.name}", "several formats share the filters", expected)
            )
        index = torch.arange(len(rows)) if share.channels is None else torch.from_numpy(share.channels.indices.copy())
        scale[index], integers[index] = weight_scale(rows[index], share.format, options.power)
    return Filters(integers.reshape(weights.shape).to(torch.int32), scale, node.bias)


def _one_scale(rows: Tensor, shares: Sequence[WeightShare], options: Calibration, where: str) -> tuple[Tensor, Tensor]:
    """Scale [filters], the same for all, and integers of weights [filters, n]."""
    if len(shares) != 1 or shares[0].format.scheme is not Scheme.UNIFORM:
        names = ", ".join(share.format.name for share in shares)
        raise AccelsimError(
            Problem(where, f"one weight scale for filters of {names}", "one uniform format", ("weights: filter",))
        )
    scale, integers = weight_scale(rows.reshape(1, -1), shares[0].format, options.power)
    return scale.expand(len(rows)).clone(), integers.reshape(rows.shape)


def correct_biases(network: Network, checkpoint: Checkpoint, statistics: Statistics) -> Checkpoint:
    """The checkpoint with biases that take away what the rounding of its filters adds to the mean outputs.

    `network` has the float weights; inputs are those of the float network, so errors of quantized inputs stay.
    """
    filters = {
        node.name: corrected(node, checkpoint.filters[node.name], statistics)
        for node in network.nodes
        if node.has_filters
    }
    return replace(checkpoint, filters=filters)


def corrected(node: Node, one: Filters, statistics: Statistics) -> Filters:
    """The filters of a layer with the bias of `correct_biases`."""
    assert node.weight is not None
    mean = statistics.inputs[node.name].mean
    shift = bias_correction(mean_output(node, mean, node.weight.detach()), mean_output(node, mean, one.values()))
    return replace(one, bias=shift if node.bias is None else node.bias + shift)


def mean_output(node: Node, mean_input: Tensor, weights: Tensor) -> Tensor:
    """Mean over images and positions of the layer's linear part with other weights, [outputs].

    It is exact because the layer is linear: the mean of outputs is the output of the mean input.
    """
    if node.function == "linear":
        return F.linear(mean_input, weights).reshape(-1, len(weights)).mean(0)
    result = F.conv2d(
        mean_input, weights, None, node.settings["stride"], node.settings["padding"], groups=node.settings["groups"]
    )
    return result.mean((0, 2, 3))


def _divisors(
    network: Network,
    plan: QuantPlan,
    statistics: Statistics,
    labels: Mapping[str, Groups],
    stored: Mapping[str, Affine],
) -> dict[str, Divisor]:
    """Log2 quantizers of the divisors of every linear attention."""
    divisions = [node for node in network.nodes if node.function == "divide"]
    if not divisions:
        return {}
    scales = spread_values(network, {name: one.scale for name, one in stored.items()}, ones=1.0)
    found = {}
    for node in divisions:
        maker = network.node(node.operands[0].source)
        if maker.function == "matmul":
            found[maker.op.output] = _divisor(node, maker, scales, labels[maker.op.output], statistics)
    return found


def _divisor(node: Node, maker: Node, scales: Mapping[str, Tensor], groups: Groups, statistics: Statistics) -> Divisor:
    left, right = (operand_values(scales, maker, k, 1.0) for k in range(2))
    unit = (left[..., :, :1] * right[..., :1, :] * float(maker.settings.get("scale", 1.0))).expand(groups.labels.shape)
    rows = torch.zeros(groups.labels.numel(), dtype=torch.bool)
    index = torch.arange(groups.labels.numel()).reshape(groups.labels.shape)
    rows[rearrange(index, node.operands[0].views, 1)[..., -1:, :].reshape(-1)] = True
    rows = rows.reshape(groups.labels.shape)
    lowest = torch.zeros(groups.count)
    for k in sorted(set(groups.labels[rows].tolist())):
        steps = statistics.groups[maker.op.output][k].high / unit[groups.labels == k].min()
        lowest[k] = max(0, int(log2_code(steps.round(), 0, 6)) - (1 << DIVISOR_BITS) + 1)
    return Divisor(narrow(rows), narrow(unit), groups.spread(lowest), DIVISOR_BITS)
