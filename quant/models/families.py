"""Torch twins of the built-in networks that have one builder function each, by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from accelsim.workloads.swin import VARIANTS as SWIN_VARIANTS
from quant.models.efficientformer import EfficientFormer
from quant.models.fastvit import FastVit
from quant.models.levit import Levit
from quant.models.mobilevit import MobileVit
from quant.models.swin import swin

# (name, resolution in pixels) → module with random weights.
FAMILIES: dict[str, Callable[[str, int], nn.Module]] = {
    **dict.fromkeys(SWIN_VARIANTS, swin),
    "levit_128": lambda name, resolution: Levit(resolution),
    "mobilevit_s": lambda name, resolution: MobileVit(),
    "efficientformer_l1": lambda name, resolution: EfficientFormer(resolution),
    "fastvit_t8": lambda name, resolution: FastVit(),
}
