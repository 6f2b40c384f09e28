"""Published quantization methods: a frozen dataclass each, which chooses the formats of a network's tensors."""

from __future__ import annotations

from quant.methods import m2q, mnq, mptq, pmq, power_of_two, qvit, uniform
from quant.methods.base import Method, method, method_class, method_names

__all__ = [
    "Method",
    "m2q",
    "method",
    "method_class",
    "method_names",
    "mnq",
    "mptq",
    "pmq",
    "power_of_two",
    "qvit",
    "uniform",
]
