"""Rules that find attention's forms: divisions, shares, which operand stands right, one activation of q and k."""

from __future__ import annotations

from quant.capture.values import Ref, Step, StepGraph, channel_axis, per_image
from quant.capture.view_ops import sliced
from quant.views import View


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
