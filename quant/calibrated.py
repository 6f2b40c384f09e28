"""The calibrated checkpoint: everything the arithmetic needs that is not in the plan, and its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from accelsim.plan import QuantPlan
from quant.functional import Affine
from quant.network import Network
from quant.regions.untied import UntiedSteps


@dataclass(frozen=True, eq=False)
class Filters:
    """Weights of a convolution or linear layer: value = scale[output] · integers[output, ..]; `bias` in real numbers.

    `integers` is int32 in the shape of the float weight; what format an output channel has stands in the plan.
    """

    integers: Tensor
    scale: Tensor
    bias: Tensor | None

    def values(self) -> Tensor:
        """The weights as real numbers."""
        return self.integers * self.scale.reshape(-1, *[1] * (self.integers.dim() - 1))


@dataclass(frozen=True, eq=False)
class Divisor:
    """Log2 quantizer of the divisors inside a stored tensor: unit · 2^k, k = lowest … lowest + 2^bits − 1, or zero.

    All tensors broadcast against the stored tensor: `rows` is true where a divisor stands, `unit` is the value of one
    accumulator step there, `lowest` the first exponent.
    """

    rows: Tensor
    unit: Tensor
    lowest: Tensor
    bits: int


@dataclass(frozen=True, eq=False)
class PtfFactors:
    """Power-of-two factors of a LayerNorm's input (FQ-ViT): x ≈ scale · alpha_pow2[channel] · (code − zero_point).

    Codes are 0 … 2^bits − 1; `alpha_pow2` (int64) is 1, 2, 4 or 8.
    """

    scale: float
    zero_point: int
    alpha_pow2: Tensor
    bits: int


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A network with its plan and calibrated numbers.

    `stored` and `divisors` are keyed by tensor, `preactivation`, `filters` and `factors` (of FQ-ViT's LayerNorms) by
    op.  `untied`, keyed by tensor, replaces `stored` in fake quantization; such a checkpoint has no integers.

    `about` says how it was made (method, options, data, seed); nothing in the arithmetic depends on it.
    """

    network: Network
    plan: QuantPlan
    filters: Mapping[str, Filters]
    stored: Mapping[str, Affine]
    preactivation: Mapping[str, Affine]
    divisors: Mapping[str, Divisor]
    about: Mapping[str, Any] = field(default_factory=dict)
    factors: Mapping[str, PtfFactors] = field(default_factory=dict)
    untied: Mapping[str, UntiedSteps] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by a unique name, as the safetensors file holds them."""
        result: dict[str, Tensor] = {}
        for node in self.network.nodes:
            if not node.has_filters:
                for part, value in (("weight", node.weight), ("bias", node.bias)):
                    if value is not None:
                        result[f"node/{node.name}/{part}"] = value
        for name, one in self.filters.items():
            result[f"filters/{name}/integers"] = _short(one.integers)
            result[f"filters/{name}/scale"] = one.scale
            if one.bias is not None:
                result[f"filters/{name}/bias"] = one.bias
        for kind in ("stored", "preactivation"):
            for name, affine in getattr(self, kind).items():
                result[f"{kind}/{name}/scale"], result[f"{kind}/{name}/zero_point"] = affine.scale, affine.zero_point
        for name, divisor in self.divisors.items():
            result[f"divisors/{name}/rows"] = divisor.rows.to(torch.uint8)
            result[f"divisors/{name}/unit"], result[f"divisors/{name}/lowest"] = divisor.unit, divisor.lowest
        for name, norm in self.factors.items():
            result[f"factors/{name}/scale"] = torch.tensor(norm.scale, dtype=torch.float64)
            result[f"factors/{name}/alpha_pow2"] = norm.alpha_pow2
        for name, steps in self.untied.items():
            result[f"untied/{name}"] = torch.tensor([steps.low_step, steps.high_step, steps.split], dtype=torch.float64)
        return {name: value.detach().contiguous() for name, value in result.items()}


def _short(integers: Tensor) -> Tensor:
    """Integers of filters in 16 bits, which hold all but aligned codes of very different steps."""
    short = integers.to(torch.int16)
    return short if bool((short == integers).all()) else integers.to(torch.int32)
