"""Quantization of hybrid vision transformers: methods, calibration, integer-only execution, sensitivity.

`quant.load` and `quant.save` read and write what `quant.quantize.quantize` makes.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    # Torch is loaded when something needs it, not with the package.
    if name in ("load", "save"):
        from quant import checkpoint

        return getattr(checkpoint, name)
    raise AttributeError(f"module 'quant' has no attribute {name!r}")
