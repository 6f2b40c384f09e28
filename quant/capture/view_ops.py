"""ATen ops that only re-arrange a tensor."""

from __future__ import annotations

from typing import Any

from torch import fx

from quant.capture.tracer import NotSupportedError, Tracer, handles
from quant.capture.values import Ref, Shape, Value, per_image
from quant.views import Batch, View

END = 1 << 62


def _reference(value: Any) -> Ref:
    if not isinstance(value, Ref):
        raise NotSupportedError("a constant is re-arranged with sizes of an activation")
    return value


def _whole(size: Any, what: str) -> int:
    if not isinstance(size, int):
        raise NotSupportedError(f"{what} along the images")
    return size


@handles("view", "reshape", "_unsafe_view", "flatten", "unflatten", "reshape_as", "view_as", "squeeze", "unsqueeze",
         view=True)  # fmt: skip
def reshape(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """Another shape for the same elements in the same order."""
    shape = tracer.shape(node)
    return _reference(args[0]).then(View("reshape", (shape,)), shape)


@handles("contiguous", "clone", "alias", "detach", "dropout", "lift_fresh", "to", "_to_copy", "type_as", "float",
         "feature_dropout", "identity", view=True)  # fmt: skip
def same(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """Nothing, in evaluation mode."""
    if not node.meta["val"].dtype.is_floating_point:
        raise NotSupportedError(f"{node.target} to {node.meta['val'].dtype}")
    return _reference(args[0])


@handles("_assert_tensor_metadata", "_assert_async", view=True)
def nothing(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """A check of the exporter's own."""
    return None


@handles("permute", view=True)
def permute(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """Axes in another order."""
    value = _reference(args[0])
    return _permuted(value, tuple(dim % len(value.shape) for dim in args[1]))


@handles("transpose", "swapaxes", "swapdims", view=True)
def transpose(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """Two axes exchanged."""
    value = _reference(args[0])
    dims = list(range(len(value.shape)))
    one, other = (dim % len(dims) for dim in args[1:3])
    dims[one], dims[other] = other, one
    return _permuted(value, tuple(dims))


@handles("t", "numpy_T", "matrix_H", "mT", view=True)
def reverse(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """The last two axes exchanged (a matrix)."""
    return _reference(args[0]).swapped()


def _permuted(value: Ref, dims: tuple[int, ...]) -> Ref:
    return value.then(View("permute", (dims,)), tuple(value.shape[k] for k in dims))


def sliced(value: Ref, dim: int, start: int, stop: int, step: int = 1) -> Ref:
    """Every `step`-th of the positions start … stop − 1 along an axis."""
    dim %= len(value.shape)
    size = value.shape[dim]
    if isinstance(size, Batch):
        if (start, step) == (0, 1) and stop >= END - 1:
            return value
        raise NotSupportedError("a slice along the images")
    start, stop, step = slice(start, stop, step).indices(size)
    shape = (*value.shape[:dim], len(range(start, stop, step)), *value.shape[dim + 1 :])
    return value.then(View("slice", (dim, start, stop, step)), shape)


@handles("slice", view=True)
def slices(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """A slice along one axis."""
    dim, start, stop, step = [*args[1:], None, None, None, None][:4]
    stop = END if stop is None or isinstance(stop, Batch) else min(stop, END)
    return sliced(_reference(args[0]), dim or 0, start or 0, stop, step or 1)


@handles("narrow", view=True)
def narrow(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """A slice given by its start and length."""
    return sliced(_reference(args[0]), args[1], args[2], args[2] + args[3])


@handles("select", view=True)
def select(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """One position along an axis, which disappears."""
    value = _reference(args[0])
    dim = args[1] % len(value.shape)
    index = _whole(args[2], "an index") % _whole(value.shape[dim], "an index")
    return value.then(View("select", (dim, index)), value.shape[:dim] + value.shape[dim + 1 :])


@handles("unbind", view=True)
def unbind(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """All positions along an axis, one by one."""
    value = _reference(args[0])
    dim = (args[1] if len(args) > 1 else 0) % len(value.shape)
    shape = value.shape[:dim] + value.shape[dim + 1 :]
    return [value.then(View("select", (dim, k)), shape) for k in range(_whole(value.shape[dim], "parts"))]


@handles("chunk", "split", "split_with_sizes", "tensor_split", view=True)
def split(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """Consecutive slices along an axis; their sizes are those of the exported results."""
    value = _reference(args[0])
    dim = int(kwargs.get("dim", args[2] if len(args) > 2 else 0)) % len(value.shape)
    parts: list[Any] = []
    start = 0
    for part in node.meta["val"]:
        stop = start + _whole(tracer.size(part.shape[dim]), "parts")
        parts.append(sliced(value, dim, start, stop))
        start = stop
    return parts


@handles("expand", "expand_as", view=True)
def expand(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """Axes of size one repeated."""
    shape = tracer.shape(node)
    return _reference(args[0]).then(View("expand", (shape,)), shape)


@handles("roll", view=True)
def roll(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """Positions moved around in a circle."""
    value = _reference(args[0])
    shifts = tuple(args[1]) if isinstance(args[1], list) else (args[1],)
    dims = args[2] if len(args) > 2 else []
    dims = tuple(dims) if isinstance(dims, list) else (dims,)
    if not dims:
        raise NotSupportedError(f"{node.target} without axes")
    return value.then(View("roll", (shifts, dims)), value.shape)


@handles("pad", "constant_pad_nd", view=True)
def pad(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """One more row of ones at the end of an axis (the row sum of linear attention); zeros before a convolution."""
    value = _reference(args[0])
    amounts = [_whole(amount, "padding") for amount in args[1]]
    mode = args[2] if len(args) > 2 and isinstance(args[2], str) else "constant"
    filler = next((arg for arg in (*args[2:], kwargs.get("value")) if isinstance(arg, (int, float))), 0)
    if not any(amounts):
        return value
    if mode == "constant" and filler == 1 and amounts.count(0) == len(amounts) - 1 and 1 in amounts:
        dim = len(value.shape) - 1 - amounts.index(1) // 2
        if amounts.index(1) % 2:
            shape = _grown(value.shape, dim)
            return value.then(View("ones_row", (dim,)), shape)
    if mode == "constant" and filler == 0 and len(amounts) == 4 and len(set(amounts[:2])) == len(set(amounts[2:])) == 1:
        return tracer.step(node, "zeros", [value], settings={"padding": (amounts[2], amounts[0])})
    raise NotSupportedError(f"{node.target} of {amounts} with {filler} ({mode})")


def _grown(shape: Shape, dim: int) -> Shape:
    return (*shape[:dim], per_image(shape[dim]) + 1, *shape[dim + 1 :])
