"""Positive controls: vision transformers with outliers made on purpose (they show correctness, not benefit)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

# Biases of the patch embedding that are held while `glyph_vit_outlier` is trained: they make outlier channels at the
# inputs of all LayerNorms.
HELD_CHANNELS = 6
HELD_RANGE = (4.0, 12.0)


def hold_outlier_biases(model: nn.Module, seed: int) -> Callable[[], None]:
    """Set a few biases of the patch embedding to large values of either sign and keep gradients from them.

    The channels, sizes and signs come from the seed.  Returns a function that takes the hook away.
    """
    bias = model.get_parameter("patch_embed.conv.bias")
    generator = torch.Generator().manual_seed(seed)
    held = torch.randperm(len(bias), generator=generator)[:HELD_CHANNELS]
    low, high = HELD_RANGE
    sizes = low + (high - low) * torch.rand(HELD_CHANNELS, generator=generator)
    signs = torch.tensor([1.0, -1.0]).repeat(HELD_CHANNELS // 2)
    free = torch.ones_like(bias)
    free[held] = 0.0
    with torch.no_grad():
        bias[held] = sizes * signs

    def masked(gradient: Tensor) -> Tensor:
        return gradient * free

    handle = bias.register_hook(masked)  # type: ignore[no-untyped-call]
    remove: Callable[[], None] = handle.remove
    return remove
