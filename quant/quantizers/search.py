"""The scale search that level-set quantizers share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from quant.observers import CLIP_FACTORS, weight_scale_to


@dataclass(frozen=True)
class ScaleOptions:
    """How scales are chosen.

    `clip` "search" takes the clip fraction with the least Σ|error|^power, "max" puts the largest level at max|w|.
    `per_tensor` gives all filters one scale.
    """

    power: float = 2.0
    clip: Literal["search", "max"] = "search"
    per_tensor: bool = False


def search_scale(
    weights: Tensor, level_set: Tensor, options: ScaleOptions, fractions: tuple[float, ...] = CLIP_FACTORS
) -> tuple[Tensor, Tensor]:
    """Scale [filters] and integers [filters, n] of weights [filters, n] on sorted integer levels."""
    rows = weights.reshape(1, -1) if options.per_tensor else weights
    tried = fractions if options.clip == "search" else (1.0,)
    scale, integers = weight_scale_to(rows, level_set, options.power, tried)
    return scale.expand(len(weights)).clone(), integers.reshape(weights.shape)
