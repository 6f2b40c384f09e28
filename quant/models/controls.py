"""Positive controls: vision transformers with outliers made on purpose (they show correctness, not benefit).

Scales and offsets of LayerNorm outputs are undone in the next layer's weights and bias, so that the function is the
same and only quantization sees the difference.  `glyph_vit_outlier` is trained with held biases instead: its LayerNorm
inputs have outliers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from accelsim.problems import AccelsimError, Problem
from quant.models.blocks import LayerNorm, Linear
from quant.models.registry import load_reference
from quant.models.vit import VisionTransformer

# Biases of the patch embedding that are held while `glyph_vit_outlier` is trained.
HELD_CHANNELS = 6
HELD_RANGE = (4.0, 12.0)
# Share of a LayerNorm's channels that become outliers.
OUTLIER_SHARE = 0.05


def hold_outlier_biases(model: nn.Module, seed: int) -> Callable[[], None]:
    """Set a few biases of the patch embedding to large values of either sign and keep gradients from them.

    The channels and sizes come from the seed.  Returns a function that takes the hook away.
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


def with_output_scales(model: VisionTransformer, ratio: float, seed: int) -> VisionTransformer:
    """The same function with LayerNorm outputs scaled per channel: gain and offset times s, next weights over s.

    s is 1 but for a twentieth of the channels, where it lies between ratio / 2 and ratio (log-uniform, one at `ratio`),
    so max / median of s is `ratio`.  Raises AccelsimError when `ratio` is below 1.
    """
    if not ratio >= 1:
        raise AccelsimError(Problem("control", f"a ratio of {ratio}", "at least 1"))
    changed, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for norm, following in _norms(changed):
            channels = _outliers(len(norm.norm.weight), generator)
            part = torch.rand(len(channels), generator=generator, dtype=torch.float64)
            part[0] = 1.0
            scale = torch.ones(len(norm.norm.weight), dtype=torch.float64)
            scale[channels] = ratio * 2.0 ** (part - 1)
            scale = scale.to(norm.norm.weight.dtype)
            norm.norm.weight.mul_(scale)
            norm.norm.bias.mul_(scale)
            following.linear.weight.div_(scale)
    return changed


def with_output_offsets(model: VisionTransformer, size: float, seed: int) -> VisionTransformer:
    """The same function with LayerNorm outputs moved per channel by o; the next bias takes − W·o.

    o has random signs and magnitudes between size / 2 and size times the median gain, which is the deviation of a
    middling channel.  Raises AccelsimError when `size` is negative.
    """
    if not size >= 0:
        raise AccelsimError(Problem("control", f"an offset of {size}", "at least 0"))
    changed, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for norm, following in _norms(changed):
            gain = norm.norm.weight
            draws = torch.rand((2, len(gain)), generator=generator, dtype=torch.float64).to(gain.dtype)
            offset = torch.where(draws[0] < 0.5, -1.0, 1.0).to(gain.dtype) * (1 + draws[1]) * (size / 2)
            offset *= gain.abs().median()
            norm.norm.bias.add_(offset)
            following.linear.bias.sub_(following.linear.weight @ offset)
    return changed


def _outliers(channels: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(channels, generator=generator)[: max(1, round(OUTLIER_SHARE * channels))]


def _norms(model: VisionTransformer) -> Iterator[tuple[LayerNorm, Linear]]:
    """Every LayerNorm with the only layer that reads it."""
    pairs = [(f"b{k}.norm{n}", f"b{k}.{layer}") for k in range(model.depth) for n, layer in ((1, "qkv"), (2, "fc1"))]
    for norm_name, layer_name in [*pairs, ("norm", "head")]:
        norm, layer = model.get_submodule(norm_name), model.get_submodule(layer_name)
        if isinstance(norm, LayerNorm) and isinstance(layer, Linear):
            yield norm, layer


CONTROLS: dict[str, Callable[..., VisionTransformer]] = {
    "glyph_vit_scale10": partial(with_output_scales, ratio=10.0),
    "glyph_vit_scale40": partial(with_output_scales, ratio=40.0),
    "glyph_vit_offset": partial(with_output_offsets, size=8.0),
}
CONTROL_NAMES = (*CONTROLS, "glyph_vit_outlier")


def load_control(name: str, seed: int = 0) -> nn.Module:
    """A positive control by name (one of `CONTROL_NAMES`), made of the committed weights, in eval mode, float32.

    `seed` chooses channels, scales and offsets; the trained weights are those of seed 0.
    Raises AccelsimError for another name.
    """
    if name not in CONTROL_NAMES:
        raise AccelsimError(Problem("control", f"no control {name!r}", f"one of {', '.join(CONTROL_NAMES)}"))
    if name not in CONTROLS:
        return load_reference(name)
    model = load_reference("glyph_vit")
    if not isinstance(model, VisionTransformer):
        raise TypeError("glyph_vit is a VisionTransformer")
    return CONTROLS[name](model, seed=seed).eval()
