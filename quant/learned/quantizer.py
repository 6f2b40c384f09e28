"""A quantizer with learnable scale, offset and width: seven switchable scales, one per width of 2 … 8 bits.

Source: Q-ViT (Li et al. 2022, arXiv 2201.07703), section 3, and the released code (`quantization/lsq_layer.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from quant.finetune.straight import shown_as
from quant.functional import learned_step
from quant.learned.sites import Site

LOWEST_BITS, HIGHEST_BITS = 2, 8
SLOTS = HIGHEST_BITS - LOWEST_BITS + 1
SMALLEST_STEP = 1e-4


@dataclass(frozen=True, eq=False)
class Start:
    """Where a quantizer starts: steps and offsets [tables, 7] of the widths 2 … 8; no offsets: None."""

    steps: Tensor
    offsets: Tensor | None = None


class Quantizer:
    """The parameters of a site.

    `bits` [tables, heads] are real widths; `growth` [tables, slots] the logarithms of what the start's steps were
    multiplied by (steps stay positive, and an optimizer's step is relative); `moved` [tables, slots] what the start's
    offsets were moved by, in their steps (an interpretation: the released code trains steps and offsets directly).
    Steps are at least 1e-4, as released.  `switchable`: a slot for every width; else one step for all, that of the
    first width.

    `freeze` ends the learning of bits; from then on every part has a step `tied` · exp(growth of the first slot), and
    an offset of −`zero` whole steps: scale · (code − zero), which the hardware can compute.
    """

    def __init__(self, site: Site, start: Start, bits: Tensor, learned: bool = True, switchable: bool = True) -> None:
        self.site = site
        bits = bits.detach().reshape(site.tables, site.heads).to(start.steps)
        self.bits = bits.clone().requires_grad_(learned)
        self.start = start
        if not switchable:
            slot = bits.round().long()[:, :1] - LOWEST_BITS
            offsets = None if start.offsets is None else start.offsets.gather(1, slot)
            self.start = Start(start.steps.gather(1, slot), offsets)
        self.growth = torch.zeros_like(self.start.steps).requires_grad_()
        self.moved = None if start.offsets is None else torch.zeros_like(self.start.steps).requires_grad_()
        self.tied, self.zero = torch.zeros_like(bits), torch.zeros_like(bits)
        self.frozen = False

    def parameters(self) -> dict[str, Tensor]:
        """What a state has to keep, by part; trained is what asks for gradients."""
        parts = {"bits": self.bits, "growth": self.growth, "moved": self.moved, "tied": self.tied, "zero": self.zero}
        return {name: value for name, value in parts.items() if value is not None}

    def clamp(self) -> None:
        """Bring the bits back to 2 … 8, in place."""
        with torch.no_grad():
            self.bits.clamp_(LOWEST_BITS, HIGHEST_BITS)

    def freeze(self, powers_of_two: bool = False) -> None:
        """Keep the whole widths, the steps of the parts and offsets of whole steps from here on.

        `powers_of_two`: steps become powers of two times one of them, as parts need that meet in one sum.
        """
        with torch.no_grad():
            width = self.width()
            step, shift = self.step(width), self.shift(width)
            self.bits.copy_(width)
            self.tied.copy_(tie(step) if powers_of_two else step)
            if shift is not None:
                self.zero.copy_((-shift / step).round().clamp(*self.range(width)))
            self.growth.zero_()
        self.hold()

    def hold(self) -> None:
        """Go on as frozen, with the values that `freeze` left."""
        self.frozen = True
        self.bits.requires_grad_(False)

    def width(self) -> Tensor:
        """Whole widths [tables, heads], whose gradients pass to the real ones."""
        return shown_as(self.bits, self.bits.detach().clamp(LOWEST_BITS, HIGHEST_BITS).round())

    def range(self, width: Tensor) -> tuple[Tensor, Tensor]:
        """Lowest and highest code of widths: signed −2^(n−1) … 2^(n−1) − 1, else 0 … 2^n − 1."""
        if not self.site.signed:
            return torch.zeros_like(width), torch.exp2(width) - 1
        half = torch.exp2(width - 1)
        return -half, half - 1

    def step(self, width: Tensor) -> Tensor:
        """Steps [tables, heads] of widths, from the slot of each width; the slot gets the gradient, its number none."""
        if self.frozen:
            return self.tied * self.growth[:, :1].exp()
        return self._of_slot((self.start.steps * self.growth.exp()).clamp(min=SMALLEST_STEP), width)

    def shift(self, width: Tensor) -> Tensor | None:
        """Offsets [tables, heads] of widths; None for a site without."""
        if self.moved is None or self.start.offsets is None:
            return None
        if self.frozen:
            return -self.zero * self.step(width)
        return self._of_slot(self.start.offsets + self.moved * self.start.steps, width)

    def _of_slot(self, table: Tensor, width: Tensor) -> Tensor:
        if table.shape[1] == 1:
            return table.expand(*width.shape)
        return table.gather(1, width.detach().long() - LOWEST_BITS)

    def __call__(self, value: Tensor) -> Tensor:
        """The value as its codes stand for it.

        Gradients of scales are multiplied by 1 / √(values of a part · highest code), as in LSQ.
        """
        site, width = self.site, self.width()
        seen = site.seen(value)
        low, high = self.range(width)
        multiplier = (seen.numel() / math.prod(width.shape) * high.detach()).rsqrt()
        step, shift = self.step(width), None
        if self.frozen:
            low, high = low - self.zero, high - self.zero
        else:
            shift = self.shift(width)
        low, high, multiplier, step = (one.reshape(site.parts) for one in (low, high, multiplier, step))
        shift = None if shift is None else shift.reshape(site.parts)
        return learned_step(seen, step, low, high, multiplier, shift).reshape(value.shape)


def tie(steps: Tensor) -> Tensor:
    """Steps [tables, heads] as powers of two times one base per table.

    Every step goes to the nearest on a logarithmic scale; of the steps as bases, that with the least squared error.
    An interpretation: nothing in the paper lets heads of several scales meet in one sum of integers.
    """
    exponents = steps.log2()
    bases = (exponents - exponents.floor()).reshape(len(steps), 1, -1)
    off = exponents[:, :, None] - bases
    error = (off - off.round()).square().sum(1)  # [tables, candidates]: the fractions of the steps themselves
    best = bases.squeeze(1).gather(1, error.argmin(1, keepdim=True))
    return torch.ldexp(torch.exp2(best), (exponents - best).round())


def widths_of(quantizers: Mapping[str, Quantizer]) -> dict[str, Tensor]:
    """Whole widths [tables, heads] of every site, with gradients where bits are learned."""
    return {name: one.width() for name, one in quantizers.items()}
