"""A vision transformer of two small layers on digits, untrained: `accelsim codesign` takes it as FILE.py:tiny_vit."""

from __future__ import annotations

import torch

from accelsim.workloads.vit import Variant
from quant.data.small import GREY_32
from quant.models.vit import VisionTransformer


def tiny_vit() -> tuple[torch.nn.Module, object]:
    """The network with weights of a fixed seed, and the preprocessing of its images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VisionTransformer(Variant(dim=16, depth=2, heads=2, patch=8, in_channels=1, classes=10), 32), GREY_32
