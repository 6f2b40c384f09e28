"""The weight quantizers by name: a dictionary and a decorator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from accelsim.formats import Format
from accelsim.problems import AccelsimError, Problem


class QuantizedWeights(NamedTuple):
    """weights ≈ scale · integers: scale [filters], integers int64 in the shape of the weights, and their Format.

    `fmt` is None where no engine has such a format: then the weights have an accuracy, but no cycles and no energy.
    """

    scale: Tensor
    integers: Tensor
    fmt: Format | None


# Weights [filters, n] and an options object of the registered type.
WeightQuantizer = Callable[[Tensor, Any], QuantizedWeights]
_QUANTIZERS: dict[str, tuple[WeightQuantizer, type]] = {}


def register(name: str, options: type) -> Callable[[WeightQuantizer], WeightQuantizer]:
    """Decorator that makes a function on (weights [filters, n], options) a weight quantizer of that name.

    `options` is a frozen dataclass whose fields all have defaults.
    """

    def add(function: WeightQuantizer) -> WeightQuantizer:
        _QUANTIZERS[name] = (function, options)
        return function

    return add


def quantizer_names() -> tuple[str, ...]:
    """Names that `quantize_weights` accepts."""
    return tuple(sorted(_QUANTIZERS))


def options_of(name: str) -> type:
    """The options dataclass of a quantizer; AccelsimError with the known names otherwise."""
    if name not in _QUANTIZERS:
        raise AccelsimError(
            Problem("weight quantizer", f"unknown quantizer {name!r}", f"one of {', '.join(quantizer_names())}")
        )
    return _QUANTIZERS[name][1]


def quantize_weights(name: str, weights: Tensor, options: Any = None) -> QuantizedWeights:
    """Scale per filter and integers of weights [filters, …]; default options when None.

    Raises AccelsimError for an unknown name, options of another quantizer, or weights that are empty or not finite.
    """
    kind = options_of(name)
    chosen = kind() if options is None else options
    if not isinstance(chosen, kind):
        raise AccelsimError(Problem(f"quantizer {name}", f"options {type(chosen).__name__}", kind.__name__))
    if weights.ndim < 2 or not weights.numel() or not bool(weights.isfinite().all()):
        raise AccelsimError(
            Problem(f"quantizer {name}", f"weights {list(weights.shape)}, or not finite", "[filters, …], finite")
        )
    scale, integers, fmt = _QUANTIZERS[name][0](weights.detach().flatten(1), chosen)
    return QuantizedWeights(scale, integers.reshape(weights.shape), fmt)
