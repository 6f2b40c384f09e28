"""Short quantization-aware fine-tuning of a checkpoint: integer forward, straight-through backward."""

from __future__ import annotations

from quant.finetune.loop import fine_tune
from quant.finetune.settings import FineTune

__all__ = ["FineTune", "fine_tune"]
