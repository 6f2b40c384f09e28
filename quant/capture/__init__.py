"""Any torch module as a Network: `capture(model)`; how it reads a model and names its ops: docs/capture.md."""

from __future__ import annotations

from quant.capture.capture import capture

__all__ = ["capture"]
