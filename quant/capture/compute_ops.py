"""ATen ops that compute."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, fx

from quant.capture.tracer import NotSupportedError, Tracer, handles, op_name
from quant.capture.values import Const, Ref, Value, per_image


def _tensor(value: Any) -> Tensor | None:
    if value is None or isinstance(value, Tensor):
        return value
    if not isinstance(value, Const):
        raise NotSupportedError("a weight is computed from the image")
    return value.value


def _pair(value: Any) -> tuple[int, int]:
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return (int(values[0]), int(values[-1]))


def _given(args: list[Any], kwargs: dict[str, Any], names: tuple[str, ...], start: int = 0) -> dict[str, Any]:
    """Arguments by name, from position `start` on."""
    return {**dict(zip(names, args[start:], strict=False)), **kwargs}


@handles("conv2d", "convolution")
def conv(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """Convolution of [batch, channels, h, w]."""
    if op_name(node.target) == "convolution":
        if args[6]:
            raise NotSupportedError("a transposed convolution is not supported")
        args = [*args[:6], args[8]]
    given = _given(args, kwargs, ("input", "weight", "bias", "stride", "padding", "dilation", "groups"))
    weight = _tensor(given["weight"])
    assert weight is not None
    if _pair(given.get("dilation", 1)) != (1, 1) or weight.dim() != 4:
        raise NotSupportedError("a dilated convolution is not supported")
    padding = given.get("padding", 0)
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    if isinstance(padding, str):
        if padding == "same" and not all(size % 2 for size in kernel):
            raise NotSupportedError(f"a convolution with padding {padding!r} and an even kernel is not supported")
        padding = tuple(size // 2 for size in kernel) if padding == "same" else 0
    settings: dict[str, Any] = {
        "stride": _pair(given.get("stride", 1)), "padding": _pair(padding), "groups": int(given.get("groups", 1))
    }  # fmt: skip
    if any(one != other for one, other in (kernel, settings["stride"], settings["padding"])):
        raise NotSupportedError("a convolution whose kernel, stride or padding differs between h and w")
    if not isinstance(given["input"], Ref):
        raise NotSupportedError("a convolution of a constant with a weight that is computed from the image")
    return tracer.step(node, "conv", [given["input"]], settings=settings, weight=weight, **_bias(given.get("bias")))


def _bias(value: Any) -> dict[str, Any]:
    bias = _tensor(value)
    return {"bias": bias, "learned_bias": bias is not None}


@handles("linear")
def linear(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """Linear layer over the last axis."""
    given = _given(args, kwargs, ("input", "weight", "bias"))
    if not isinstance(given["input"], Ref):
        raise NotSupportedError("a weight is computed from the image")
    return tracer.step(
        node, "linear", [given["input"]], weight=_tensor(given["weight"]), **_bias(given.get("bias"))
    )  # fmt: skip


@handles("addmm")
def addmm(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """Linear layer as bias + rows · matrix."""
    if kwargs or not isinstance(args[1], Ref) or not isinstance(args[2], Const):
        raise NotSupportedError(f"{node.target} of two activations")
    return tracer.step(node, "linear", [args[1]], weight=args[2].value.t(), **_bias(args[0]))


@handles("matmul", "bmm", "mm")
def matmul(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """Product of two activations, or of an activation and a constant matrix (a linear layer)."""
    left, right = args[:2]
    if isinstance(left, Ref) and isinstance(right, Const) and right.value.dim() == 2:
        return tracer.step(node, "linear", [left], weight=right.value.t())
    if not (isinstance(left, Ref) and isinstance(right, Ref)):
        raise NotSupportedError("a product of an activation and a stack of constant matrices")
    return _product(tracer, node, left, right)


def _product(tracer: Tracer, node: fx.Node, left: Ref, right: Ref, **fields: Any) -> Ref:
    if len(left.shape) != len(right.shape) or left.shape[:-2] != right.shape[:-2]:
        raise NotSupportedError(f"a product of {left.shape} and {right.shape} (operands are repeated)")
    return tracer.step(node, "matmul", [left, right], (*left.shape[:-1], right.shape[-1]), **fields)


@handles("scaled_dot_product_attention")
def attention(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """softmax(q·kᵀ·scale + mask)·v as three ops (four with a mask)."""
    given = _given(args, kwargs, ("q", "k", "v", "attn_mask", "dropout_p", "is_causal"))
    queries, keys, values = given["q"], given["k"], given["v"]
    if given.get("is_causal") or kwargs.get("enable_gqa"):
        raise NotSupportedError("causal or grouped attention is not supported")
    scale = kwargs.get("scale")
    path = tracer.place(node)[1]
    prefix = f"{path}." if path else ""
    shares: Any = _product(tracer, node, queries, keys.swapped(), label=f"{prefix}scores",
                           settings={"scale": 1 / math.sqrt(per_image(queries.shape[-1])) if scale is None else scale}
                           )  # fmt: skip
    mask = given.get("attn_mask")
    if mask is not None:
        if not isinstance(mask, Const) or not mask.value.is_floating_point():
            raise NotSupportedError("an attention mask that is computed from the image or not added")
        shares = tracer.step(node, "add_const", [shares], shares.shape, label=f"{prefix}bias", weight=mask.value,
                             learned=mask.learned)  # fmt: skip
    shares = tracer.step(node, "softmax", [shares], shares.shape, label=f"{prefix}softmax")
    return _product(tracer, node, shares, values, label=f"{prefix}values")


@handles("softmax", "_softmax", "_safe_softmax")
def softmax(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """Softmax; an axis that is not the last is made the last."""
    value = args[0]
    dim = int(_given(args, kwargs, ("input", "dim"))["dim"]) % len(value.shape)
    if dim == len(value.shape) - 1:
        return tracer.step(node, "softmax", [value])
    if dim != len(value.shape) - 2:
        raise NotSupportedError(f"softmax over axis {dim} of {len(value.shape)}")
    turned = value.swapped()
    return tracer.step(node, "softmax", [turned], turned.shape).swapped()


@handles("batch_norm")
def batch_norm(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """BatchNorm with its running statistics: a factor and an offset per channel (axis 1), in float64."""
    given = _given(args, kwargs, ("input", "weight", "bias", "mean", "variance", "training", "momentum", "eps"))
    mean, variance = _tensor(given["mean"]), _tensor(given["variance"])
    if mean is None or variance is None or given.get("training"):
        raise NotSupportedError("BatchNorm without running statistics is not supported")
    factor = 1 / (variance.double() + given["eps"]).sqrt()
    weight, bias = _tensor(given["weight"]), _tensor(given["bias"])
    factor = factor if weight is None else factor * weight.double()
    offset = (0 if bias is None else bias.double()) - mean.double() * factor
    return tracer.step(node, "batch_norm", [given["input"]], weight=factor, bias=offset)


@handles("layer_norm")
def layer_norm(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """LayerNorm over the last axis."""
    given = _given(args, kwargs, ("input", "shape", "weight", "bias", "eps"))
    if len(given["shape"]) != 1:
        raise NotSupportedError("LayerNorm over several axes is not supported")
    weight, bias = _tensor(given.get("weight")), _tensor(given.get("bias"))
    learned = frozenset(
        name for value in (given.get("weight"), given.get("bias")) if isinstance(value, Const) for name in value.learned
    )
    return tracer.step(node, "layernorm", [given["input"]], weight=weight, bias=bias, learned=learned,
                       settings={"eps": float(given.get("eps", 1e-5))})  # fmt: skip


@handles("relu", "hardswish", "gelu", "silu", "sigmoid")
def activation(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """An element-wise function of the output stage."""
    name = op_name(node.target)
    if name == "gelu" and kwargs.get("approximate", "none") != "none":
        name = "gelu_tanh"
    return tracer.step(node, "activation", [args[0]], activation=name)


@handles("mean")
def mean(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """Mean over axes that are not the images and not the channels."""
    given = _given(args, kwargs, ("input", "dims", "keep"))
    value = given["input"]
    dims = given.get("dims", given.get("dim"))
    if dims is None:
        raise NotSupportedError("a mean over all axes is not supported")
    dims = tuple(dim % len(value.shape) for dim in (dims if isinstance(dims, list) else [dims]))
    keep = bool(given.get("keep", given.get("keepdim", False)))
    return tracer.step(node, "mean", [value], settings={"dims": dims, "keep": keep})


@handles("adaptive_avg_pool2d")
def pool(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """Mean over all positions."""
    if _pair(args[1]) != (1, 1):
        raise NotSupportedError(f"adaptive pooling to {_pair(args[1])}")
    return tracer.step(node, "mean", [args[0]], settings={"dims": (2, 3), "keep": True})


@handles("avg_pool2d")
def window_mean(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """Mean of the 3 × 3 window, smaller at the border (part of the pooling mixer), or of all positions."""
    names = ("input", "kernel", "stride", "padding", "ceil_mode", "count_include_pad", "divisor")
    given = _given(args, kwargs, names)
    kernel, value = _pair(given["kernel"]), given["input"]
    padding = _pair(given.get("padding", 0))
    if kernel == tuple(value.shape[2:]) and padding == (0, 0):
        return tracer.step(node, "mean", [value], settings={"dims": (2, 3), "keep": True})
    stride = _pair(given.get("stride") or kernel)
    if (kernel, stride, padding) != ((3, 3), (1, 1), (1, 1)) or given.get("count_include_pad", True):
        raise NotSupportedError(f"average pooling with a window of {kernel}")
    return tracer.step(node, "window_mean", [value])


@handles("sum")
def total(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """Sum over one axis that stays (the divisor of quadratic linear attention)."""
    dims = args[1] if len(args) > 1 else kwargs.get("dim")
    keep = args[2] if len(args) > 2 else kwargs.get("keepdim", False)
    dims = dims if isinstance(dims, list) else [dims]
    if len(dims) != 1 or not keep or dims[0] is None:
        raise NotSupportedError("a sum that is not over one axis that stays")
    return tracer.step(node, "sum", [args[0]], settings={"dim": dims[0] % len(args[0].shape)})


@handles("cat", "concat", "concatenate")
def concat(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """Activations side by side, or learned rows before an activation."""
    parts = args[0]
    shape = tracer.shape(node)
    dim = int(_given(args, kwargs, ("parts", "dim")).get("dim", 0)) % len(shape)
    if all(isinstance(part, Ref) for part in parts):
        return tracer.step(node, "concat", parts, settings={"dim": dim})
    last = parts[-1]
    if dim != len(shape) - 2 or not isinstance(last, Ref) or not all(isinstance(part, Const) for part in parts[:-1]):
        raise NotSupportedError("a concatenation of constants and activations that is no row before tokens")
    rows = sum(int(part.value.shape[dim]) for part in parts[:-1])
    tokens = per_image(shape[dim])
    weight = parts[0].value.new_zeros((1, tokens, per_image(shape[-1])))
    start = 0
    for part in parts[:-1]:
        stop = start + int(part.value.shape[dim])
        weight[:, start:stop] = part.value
        start = stop
    learned = frozenset(name for part in parts[:-1] for name in part.learned)
    return tracer.step(node, "embed", [last], settings={"rows": rows}, weight=weight, learned=learned)
