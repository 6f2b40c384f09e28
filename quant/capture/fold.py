"""Rules that fold constants: padding, factors, BatchNorm, layer scale, biases and activations become part of an op."""

from __future__ import annotations

from torch import Tensor

from quant.capture.values import Ref, Step, StepGraph, channel_axis, elements, held, per_image

# Steps whose output stage applies an activation.
FINISHED_BY_ACTIVATION = ("conv", "linear", "matmul", "layernorm", "gate")


def zeros_before_convolution(graph: StepGraph, step: Step) -> bool:
    """Zeros around the input of a convolution are its padding."""
    if step.kind != "conv" or step.operands[0].step.kind != "zeros" or step.operands[0].views:
        return False
    padded = step.operands[0].step
    first, second = (own + more for own, more in zip(step.settings["padding"], padded.settings["padding"], strict=True))
    step.settings["padding"] = (first, second)
    graph.set_operands(step, [padded.operands[0]])
    return True


def nothing_added(graph: StepGraph, step: Step) -> bool:
    """A product with one or a sum with zero disappears."""
    if (step.kind, step.settings.get("scale"), step.settings.get("number")) not in (
        ("scale", 1.0, None),
        ("add_number", None, 0.0),
    ):
        return False
    graph.replace(step, step.operands[0])
    return True


def _scales_with(user: Step, step: Step) -> bool:
    """True for a product that grows by every factor of its operand `step` (no ones were joined to it)."""
    joined = any(view.name == "ones_row" for ref in user.operands if ref.step is step for view in ref.views)
    return user.kind == "matmul" and not joined


def scale_moved(graph: StepGraph, step: Step) -> bool:
    """A constant factor becomes part of the product that it follows or precedes, or of a sum's requantization."""
    if step.kind != "scale":
        return False
    factor, source = step.settings["scale"], step.operands[0]
    if step.users and all(_scales_with(user, step) for user in step.users) and graph.output.step is not step:
        for user in list(step.users):
            user.settings["scale"] = user.settings.get("scale", 1.0) * factor
        graph.replace(step, source)
        return True
    if source.step.kind in ("matmul", "add") and graph.read_only_by(step, source) and not source.step.activation:
        source.step.settings["scale"] = source.step.settings.get("scale", 1.0) * factor
        graph.replace(step, source)
        return True
    if source.step.kind in ("conv", "linear") and graph.read_only_by(step, source) and not source.step.activation:
        first = source.step
        first.weight = held(first.weight) * factor
        first.bias = None if first.bias is None else first.bias * factor
        graph.replace(step, source)
        return True
    return False


def norm_after(graph: StepGraph, step: Step) -> bool:
    """BatchNorm after a convolution or linear layer is folded into its weights and bias, in float64."""
    source = step.operands[0] if step.kind == "batch_norm" else None
    if source is None or source.step.kind not in ("conv", "linear") or not graph.read_only_by(step, source):
        return False
    first = source.step
    if channel_axis(source, 1 if first.kind == "conv" else len(first.shape) - 1) != 1 or first.activation or first.norm:
        return False
    weight, factor, offset = held(first.weight), held(step.weight), held(step.bias)
    folded = weight.double() * factor.reshape(-1, *[1] * (weight.dim() - 1))
    first.weight = folded.to(weight.dtype)
    first.bias = (offset if first.bias is None else first.bias.double() * factor + offset).to(weight.dtype)
    first.norm = True
    graph.replace(step, source)
    return True


def norm_before(graph: StepGraph, step: Step) -> bool:
    """BatchNorm before a linear layer or an unpadded 1 × 1 convolution is folded into it, in float64."""
    if step.kind not in ("linear", "conv"):
        return False
    source = step.operands[0]
    norm = source.step
    if norm.kind != "batch_norm" or norm.owner != step.owner or step.input_norm:
        return False
    axis = 1 if step.kind == "conv" else len(source.shape) - 1
    weight, factor, offset = held(step.weight), held(norm.weight), held(norm.bias)
    if channel_axis(source, 1) != axis or weight[0, 0].numel() != 1 or step.settings.get("groups", 1) != 1:
        return False
    if step.settings.get("padding", (0, 0)) != (0, 0):
        return False
    matrix = weight.double().flatten(1)
    added = matrix @ offset
    step.weight = (matrix * factor).reshape(weight.shape).to(weight.dtype)
    step.bias = (added if step.bias is None else step.bias.double() + added).to(weight.dtype)
    step.input_norm = True
    graph.set_operands(step, [source.after(norm.operands[0])])
    return True


def _along(ref: Ref, value: Tensor) -> Tensor | None:
    """A constant that is added to or multiplied with `ref`, as one number per channel of the step; None if it is not.

    Channels are axis 1 of a convolution, else the last axis.
    """
    axis = channel_axis(ref, 1 if ref.step.kind == "conv" else len(ref.step.shape) - 1)
    if axis is None:
        return None
    padded = value.reshape((1,) * (len(ref.shape) - value.dim()) + tuple(value.shape))
    if any(size != 1 for k, size in enumerate(padded.shape) if k != axis):
        return None
    return padded.flatten().expand(per_image(ref.shape[axis]))


def layer_scale(graph: StepGraph, step: Step) -> bool:
    """γ·branch + skip: γ is part of the branch's requantization in the residual sum; the branch comes first."""
    if step.kind != "add" or step.weight is not None:
        return False
    for k, branch in enumerate(step.operands):
        if branch.step.kind == "mul_const" and not branch.views and graph.read_only_by(step, branch):
            step.weight, step.learned = branch.step.weight, branch.step.learned
            graph.set_operands(step, [branch.step.operands[0], step.operands[1 - k]])
            return True
    return False


def constant_folded(graph: StepGraph, step: Step) -> bool:
    """One factor or offset per output channel of a convolution or linear layer is part of its weights or bias."""
    if step.kind not in ("mul_const", "add_const") or step.weight is None:
        return False
    source = step.operands[0]
    first = source.step
    if first.kind not in ("conv", "linear") or not graph.read_only_by(step, source) or first.activation:
        return False
    values = _along(source, step.weight)
    if values is None or (step.kind == "add_const" and step.weight.numel() != values.numel()):
        return False
    weight = held(first.weight)
    if step.kind == "mul_const":
        first.weight = weight * values.reshape(-1, *[1] * (weight.dim() - 1))
        first.bias = None if first.bias is None else first.bias * values
    else:
        first.bias = values if first.bias is None else first.bias + values
        first.learned_bias = True
    graph.replace(step, source)
    return True


def activation_attached(graph: StepGraph, step: Step) -> bool:
    """An activation right after a product, LayerNorm or gate runs in that op's output stage."""
    if step.kind != "activation":
        return False
    source = step.operands[0]
    first = source.step
    if first.kind not in FINISHED_BY_ACTIVATION or first.activation or not graph.read_only_by(step, source):
        return False
    if elements(source.shape) != elements(first.shape):
        return False
    first.activation = step.activation
    graph.replace(step, source)
    return True


def _windows_apart(source: Ref) -> bool:
    bias, before = held(source.step.weight), source.step.shape
    alone = len(source.views) == 1 and source.views[0].name == "reshape"
    return alone and source.shape[-3:] == before[-3:] and bias.numel() == bias.shape[-3:].numel()


def learned_rows(graph: StepGraph, step: Step) -> bool:
    """A learned constant that is added to tokens or scores; after learned rows (class token) both are one op."""
    if step.kind != "add_const":
        return False
    source = step.operands[0]
    first = source.step
    if first.kind == "bias_add" and graph.read_only_by(step, source) and _windows_apart(source):
        # A mask of windows reads the scores with the windows apart from the images; the bias fits that shape as well.
        graph.set_operands(first, [source.after(first.operands[0])])
        bias = held(first.weight)
        first.weight, first.shape = bias.reshape(bias.shape[-3:]), source.shape
        source = Ref(first, (), first.shape)
    if first.kind in ("embed", "bias_add") and not source.views and graph.read_only_by(step, source):
        first.weight = held(first.weight) + held(step.weight)
        first.learned |= step.learned
        graph.replace(step, source)
        return True
    step.kind = "bias_add" if first.kind in ("matmul", "bias_add") else "embed"
    if step.kind == "embed":
        step.settings["rows"] = 0
    return True
