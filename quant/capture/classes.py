"""The op class of every step, by what it is and what stands around it (the table is in docs/capture.md)."""

from __future__ import annotations

from quant.capture.values import Ref, Step, per_image

SHARES = ("softmax", "normalize")
# Ops that stand between a matrix product and the normalization of its rows.
BETWEEN = ("bias_add",)


def op_class(step: Step) -> str:
    """The class of a step's op."""
    if step.kind == "conv":
        return _conv(step)
    if step.kind == "linear":
        return _linear(step)
    if step.kind == "matmul":
        return _matmul(step)
    names = {"divide": "division", "mean": "pool", "activation": step.activation.removesuffix("_tanh")}
    return names.get(step.kind, step.kind)


def _conv(step: Step) -> str:
    weight = step.weight
    assert weight is not None
    outputs, depth, kernel = int(weight.shape[0]), int(weight.shape[1]), int(weight.shape[2])
    source = step.operands[0].step
    if step.settings["groups"] > 1:
        return "dw" if depth == 1 and outputs == step.settings["groups"] and kernel > 1 else "gconv"
    if kernel == 1:
        if _after_pool(source):
            return "fc"
        return "head_conv" if step.users and all(user.kind == "mean" for user in step.users) else "pw"
    stride = step.settings["stride"][0]
    if source.kind == "image":
        return "patch_embed" if stride == kernel and step.settings["padding"] == (0, 0) else "stem"
    return "stem" if stride > 1 and source.kind == "conv" and _conv(source) == "stem" else "conv"


def _after_pool(source: Step) -> bool:
    while source.kind in ("conv", "linear", "layernorm", "activation", "view"):
        if source.kind == "conv" and per_image(source.shape[2]) * per_image(source.shape[3]) != 1:
            return False
        source = source.operands[0].step
    return source.kind == "mean"


def _rows(shape: tuple[object, ...]) -> int:
    rows = 1
    for size in shape[:-1]:
        rows *= per_image(size)  # type: ignore[arg-type]
    return rows


def _linear(step: Step) -> str:
    if _rows(step.shape) == 1:
        return "fc"
    if any(user.kind == "matmul" for user in step.users):
        return "qkv"
    source = _through_views(step.operands[0])
    if source.kind == "matmul" or source.kind == "divide":
        return "proj"
    if step.activation or (source.kind == "linear" and source.activation):
        return "mlp"
    return "pw"


def _through_views(ref: Ref) -> Step:
    step = ref.step
    while step.kind == "view":
        step = step.operands[0].step
    return step


def _matmul(step: Step) -> str:
    if step.operands[0].step.kind in SHARES:
        return "attn_values"
    if _scores(step):
        return "attn_scores"
    if step.operands[1].step.kind == "matmul":
        return "q_ktv"
    return "ktv" if any(user.kind == "matmul" and user.operands[1].step is step for user in step.users) else "matmul"


def _scores(step: Step) -> bool:
    return any(user.kind in SHARES or (user.kind in BETWEEN and _scores(user)) for user in step.users)
