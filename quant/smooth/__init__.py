"""SmoothQuant and SQ-b: LayerNorm outputs are moved and scaled, the layers behind undo it (docs/smoothing.md)."""

from __future__ import annotations

from quant.smooth.fold import Smooth, offset_and_scale, smooth
from quant.smooth.sites import layernorm_outputs, not_smoothable, smoothable, value_products
from quant.smooth.skew import Skew, channel_skew

__all__ = [
    "Skew",
    "Smooth",
    "channel_skew",
    "layernorm_outputs",
    "not_smoothable",
    "offset_and_scale",
    "smooth",
    "smoothable",
    "value_products",
]
