"""Rewrite steps into ops of the hardware: fold BatchNorm and constants, attach activations, find attention's forms."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from quant.capture.values import Ref, Step, StepGraph, channel_axis, elements, held, per_image

Rule = Callable[[StepGraph, Step], bool]
# Steps whose output stage applies an activation.
FINISHED_BY_ACTIVATION = ("conv", "linear", "matmul", "layernorm", "gate")


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


def _only(graph: StepGraph, reader: Step, ref: Ref) -> bool:
    """True when `reader` alone reads the result of the step behind `ref`, within the same module call."""
    return graph.readers(ref.step) == 1 and ref.step.owner == reader.owner


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


def division_by_last(graph: StepGraph, step: Step) -> bool:
    """Quotient x[.., :d] / (x[.., d:] + eps), the division of linear attention."""
    if step.kind != "div":
        return False
    top, bottom = step.operands
    eps = 0.0
    if bottom.step.kind == "add_number" and not bottom.views:
        eps = float(bottom.step.settings["number"])
        bottom = bottom.step.operands[0]
    if top.step is not bottom.step or not top.views or top.views[:-1] != bottom.views[:-1]:
        return False
    one, other = top.views[-1], bottom.views[-1]
    axis = len(top.shape) - 1 if one.args[0] == len(top.shape) - 1 else len(top.shape) - 2
    size = top.shape[axis]
    if (
        one.name != "slice"
        or one.args != (axis, 0, size, 1)
        or other.args[:2] != (axis, size)
        or bottom.shape[axis] != 1
    ):
        return False
    shape = (*top.shape[:axis], per_image(size) + 1, *top.shape[axis + 1 :])
    whole = Ref(top.step, top.views[:-1], shape)
    turned = axis == len(shape) - 1
    operand = whole.swapped() if turned else whole
    made = Step("divide", [], (*operand.shape[:-2], per_image(operand.shape[-2]) - 1, operand.shape[-1]), step.owner,
                step.label, {"eps": eps})  # fmt: skip
    return _put(graph, step, made, [operand], turned)


def division_by_sum(graph: StepGraph, step: Step) -> bool:
    """Quotient x / (Σ x + eps) along the last or second last axis: shares of quadratic attention."""
    if step.kind != "div":
        return False
    top, bottom = step.operands
    eps = 0.0
    if bottom.step.kind == "add_number":
        eps = float(bottom.step.settings["number"])
        bottom = bottom.step.operands[0]
    if bottom.step.kind != "sum":
        return False
    summed, axis, last = bottom.step.operands[0], bottom.step.settings["dim"], len(top.shape) - 1
    if summed.step is not top.step or summed.views != top.views or axis not in (last, last - 1):
        return False
    turned = axis == last - 1
    operand = top.swapped() if turned else top
    made = Step("normalize", [], operand.shape, step.owner, step.label, {"dim": -1, "eps": eps})
    return _put(graph, step, made, [operand], turned)


def _put(graph: StepGraph, old: Step, made: Step, operands: list[Ref], turned: bool) -> bool:
    """Put `made` in the place of `old`, its last two axes exchanged for the readers when `turned`."""
    graph.steps.insert(graph.steps.index(old), made)
    graph.set_operands(made, operands)
    result = Ref(made, (), made.shape)
    graph.replace(old, result.swapped() if turned else result)
    return True


def pooling_mixer(graph: StepGraph, step: Step) -> bool:
    """Sum x + γ·(window mean of x − x)."""
    if step.kind != "add":
        return False
    for k, branch in enumerate(step.operands):
        scaled, skip = branch.step, step.operands[1 - k]
        if scaled.kind != "mul_const" or scaled.operands[0].step.kind != "sub" or branch.views or skip.views:
            continue
        mean, value = scaled.operands[0].step.operands
        if mean.step.kind == "window_mean" and value.step is skip.step is mean.step.operands[0].step:
            made = Step("pool_mixer", [], step.shape, step.owner, step.label, weight=scaled.weight,
                        learned=scaled.learned)  # fmt: skip
            return _put(graph, step, made, [skip], False)
    return False


def product_transposed(graph: StepGraph, step: Step) -> bool:
    """Put what plays the weights (row sums, Kᵀ·V, values under shares) on the right: (A·B)ᵀ = Bᵀ·Aᵀ."""
    if step.kind != "matmul" or not _turns(step):
        return False
    left, right = step.operands
    made = Step("matmul", [], (*step.shape[:-2], step.shape[-1], step.shape[-2]), step.owner, step.label,
                dict(step.settings), activation=step.activation)  # fmt: skip
    return _put(graph, step, made, [right.swapped(), left.swapped()], True)


def _turns(step: Step) -> bool:
    left, right = step.operands
    if any(view.name == "ones_row" for view in left.views) or right.step.kind in ("softmax", "normalize"):
        return True
    if left.step.kind == "matmul" and any(view.name == "ones_row" for view in left.step.operands[1].views):
        return True
    swapped = len(step.shape) - 1
    return any(
        user.kind in ("softmax", "normalize") and user.operands[0].views
        and channel_axis(user.operands[0], swapped) == len(user.operands[0].shape) - 2
        for user in step.users
    )  # fmt: skip


def scale_moved(graph: StepGraph, step: Step) -> bool:
    """A constant factor becomes part of the product that it follows or precedes, or of a sum's requantization."""
    if step.kind != "scale":
        return False
    factor, source = step.settings["scale"], step.operands[0]
    if step.users and all(user.kind == "matmul" for user in step.users) and graph.output.step is not step:
        for user in list(step.users):
            user.settings["scale"] = user.settings.get("scale", 1.0) * factor
        graph.replace(step, source)
        return True
    if source.step.kind in ("matmul", "add") and _only(graph, step, source) and not source.step.activation:
        source.step.settings["scale"] = source.step.settings.get("scale", 1.0) * factor
        graph.replace(step, source)
        return True
    if source.step.kind in ("conv", "linear") and _only(graph, step, source) and not source.step.activation:
        first = source.step
        first.weight = held(first.weight) * factor
        first.bias = None if first.bias is None else first.bias * factor
        graph.replace(step, source)
        return True
    return False


def norm_after(graph: StepGraph, step: Step) -> bool:
    """BatchNorm after a convolution or linear layer is folded into its weights and bias, in float64."""
    source = step.operands[0] if step.kind == "batch_norm" else None
    if source is None or source.step.kind not in ("conv", "linear") or not _only(graph, step, source):
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
        if branch.step.kind == "mul_const" and not branch.views and _only(graph, step, branch):
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
    if first.kind not in ("conv", "linear") or not _only(graph, step, source) or first.activation:
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
    if first.kind not in FINISHED_BY_ACTIVATION or first.activation or not _only(graph, step, source):
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


def activations_merged(graph: StepGraph, step: Step) -> bool:
    """The same function of two neighbouring slices (of q and of k) is one op over both."""
    if step.kind != "activation" or not step.operands[0].views:
        return False
    own = step.operands[0]
    for other in own.step.users:
        ref = other.operands[0]
        if (
            other is step
            or other.kind != "activation"
            or other.activation != step.activation
            or other.owner != step.owner
        ):
            continue
        if len(own.views) != len(ref.views) or own.views[:-1] != ref.views[:-1]:
            continue
        one, two = own.views[-1], ref.views[-1]
        if one.name != "slice" or two.name != "slice" or one.args[0] != two.args[0] or one.args[2] != two.args[1]:
            continue
        return _merge(graph, step, other)
    return False


def _merge(graph: StepGraph, step: Step, other: Step) -> bool:
    from quant.capture.view_ops import sliced
    from quant.views import View

    own = step.operands[0]
    dim, start, middle, _ = own.views[-1].args
    stop = other.operands[0].views[-1].args[2]
    shape = (*own.shape[:dim], stop - start, *own.shape[dim + 1 :])
    whole = Ref(own.step, (*own.views[:-1], View("slice", (dim, start, stop, 1))), shape)
    made = Step("activation", [], shape, step.owner, step.label, activation=step.activation)
    graph.steps.insert(min(graph.steps.index(step), graph.steps.index(other)), made)
    graph.set_operands(made, [whole])
    result = Ref(made, (), shape)
    graph.replace(step, sliced(result, dim, 0, middle - start))
    graph.replace(other, sliced(result, dim, middle - start, stop - start))
    return True


def learned_rows(graph: StepGraph, step: Step) -> bool:
    """A learned constant that is added to tokens or scores; after learned rows (class token) both are one op."""
    if step.kind != "add_const":
        return False
    source = step.operands[0]
    first = source.step
    if first.kind == "bias_add" and _only(graph, step, source) and _windows_apart(source):
        # A mask of windows reads the scores with the windows apart from the images; the bias fits that shape as well.
        graph.set_operands(first, [source.after(first.operands[0])])
        bias = held(first.weight)
        first.weight, first.shape = bias.reshape(bias.shape[-3:]), source.shape
        source = Ref(first, (), first.shape)
    if first.kind in ("embed", "bias_add") and not source.views and _only(graph, step, source):
        first.weight = held(first.weight) + held(step.weight)
        first.learned |= step.learned
        graph.replace(step, source)
        return True
    step.kind = "bias_add" if first.kind in ("matmul", "bias_add") else "embed"
    if step.kind == "embed":
        step.settings["rows"] = 0
    return True


RULES: tuple[Rule, ...] = (
    zeros_before_convolution, division_by_last, division_by_sum, nothing_added, pooling_mixer, product_transposed,
    scale_moved, norm_after, norm_before, layer_scale, constant_folded, learned_rows, activations_merged,
    activation_attached,
)  # fmt: skip
