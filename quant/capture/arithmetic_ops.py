"""ATen sums, differences, products and quotients."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from quant.capture.tracer import NotSupportedError, Tracer, handles
from quant.capture.values import Const, Ref, Value


def _number(value: Any) -> float | None:
    """A plain number, or None.  A constant of one element that nobody learns is a number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return float(value)
    if isinstance(value, Const) and isinstance(value.value, Tensor) and value.value.numel() == 1 and not value.learned:
        return float(value.value)
    return None


def _plain(kwargs: dict[str, Any]) -> None:
    if kwargs.get("alpha", 1) != 1 or kwargs.get("rounding_mode") is not None:
        raise NotSupportedError("a sum or quotient with further arguments")


def _combined(tracer: Tracer, node: fx.Node, kind: str, value: Ref, other: Const, weight: Tensor) -> Ref:
    """A step with a constant operand, which may not make the activation larger."""
    if tracer.shape(node) != value.shape:
        raise NotSupportedError(f"{node.target} with a constant repeats the activation")
    return tracer.step(node, kind, [value], weight=weight, learned=other.learned)


@handles("add", "__add__", "__radd__")
def add(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """Sum of two activations, of an activation and a constant, or of an activation and a number."""
    _plain(kwargs)
    left, right = args[:2]
    if isinstance(left, Ref) and isinstance(right, Ref):
        if left.shape != right.shape:
            raise NotSupportedError(f"a sum of activations of the shapes {left.shape} and {right.shape}")
        return tracer.step(node, "add", [left, right])
    value, other = (left, right) if isinstance(left, Ref) else (right, left)
    number = _number(other)
    if number is not None:
        return tracer.step(node, "add_number", [value], settings={"number": number})
    if not isinstance(other, Const):
        raise NotSupportedError("a sum with something that is no tensor")
    return _combined(tracer, node, "add_const", value, other, other.value)


@handles("sub", "__sub__")
def sub(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """Difference of two activations (part of the pooling mixer), or of an activation and a constant."""
    _plain(kwargs)
    left, right = args[:2]
    if isinstance(left, Ref) and isinstance(right, Ref):
        return tracer.step(node, "sub", [left, right])
    number = _number(right)
    if isinstance(left, Ref) and number is not None:
        return tracer.step(node, "add_number", [left], settings={"number": -number})
    if isinstance(left, Ref) and isinstance(right, Const):
        return _combined(tracer, node, "add_const", left, right, -right.value)
    raise NotSupportedError("a difference of a constant and an activation")


@handles("mul", "__mul__", "__rmul__")
def mul(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """Product of two activations (a gate), of an activation and a constant, or of an activation and a number."""
    left, right = args[:2]
    if isinstance(left, Ref) and isinstance(right, Ref):
        shape = tracer.shape(node)
        if shape not in (left.shape, right.shape):
            raise NotSupportedError(f"a product of activations of the shapes {left.shape} and {right.shape}")
        return tracer.step(node, "gate", [left, right] if left.shape == shape else [right, left])
    value, other = (left, right) if isinstance(left, Ref) else (right, left)
    number = _number(other)
    if number is not None:
        return tracer.step(node, "scale", [value], settings={"scale": number})
    if not isinstance(other, Const):
        raise NotSupportedError("a product with something that is no tensor")
    return _combined(tracer, node, "mul_const", value, other, other.value)


@handles("div", "true_divide", "__truediv__")
def div(tracer: Tracer, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """Quotient of an activation and a number, or of two activations (linear attention)."""
    _plain(kwargs)
    left, right = args[:2]
    number = _number(right)
    if isinstance(left, Ref) and number is not None:
        return tracer.step(node, "scale", [left], settings={"scale": 1.0 / number})
    if isinstance(left, Ref) and isinstance(right, Ref):
        return tracer.step(node, "div", [left, right])
    raise NotSupportedError("a quotient with a constant tensor")
