"""Weight quantizers by name: one idea per file, found through `quant.quantizers.registry`."""

from quant.quantizers import apot, log2, pot, published_apot, uniform
from quant.quantizers.registry import QuantizedWeights, options_of, quantize_weights, quantizer_names, register

__all__ = [
    "QuantizedWeights",
    "apot",
    "log2",
    "options_of",
    "pot",
    "published_apot",
    "quantize_weights",
    "quantizer_names",
    "register",
    "uniform",
]
