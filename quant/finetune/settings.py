"""How long and how a checkpoint is fine-tuned."""

from __future__ import annotations

import math
from dataclasses import dataclass

from accelsim.problems import AccelsimError, Problem

LAST_RATE = 1 / 15  # of the first one.  Source: the released code of MNQ (cosine from the rate to a fifteenth of it)


@dataclass(frozen=True)
class FineTune:
    """AdamW with a learning rate that falls along a cosine to a fifteenth.

    How long: one of `epochs`, `steps` and `seconds`; none means one epoch.  `seconds` is the limited-time setting: the
    number of steps that fit is worked out once from measured steps and kept.  `weight_decay` holds for filters only.
    `smoothing` is that of the labels.  `distill` is the weight of the float network's answers in the loss, 0 … 1.
    `augment`: images are moved by up to a pixel and half of them inverted, as in the training of the reference models.
    `learn_scales`: scales of filters and of stored values are trained too (LSQ).  `clip` bounds the gradient's norm.

    Source of AdamW and the cosine: MNQ, whose rate is 1e-6 (mixup, cutmix, up to 90 epochs of ImageNet); the default
    here is for few steps; small hybrids gain more at 1e-3, a vision transformer is damaged by it.
    """

    epochs: int | None = None
    steps: int | None = None
    seconds: float | None = None
    rate: float = 1e-4
    batch: int = 64
    weight_decay: float = 0.0
    smoothing: float = 0.0
    distill: float = 0.0
    augment: bool = False
    learn_scales: bool = False
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        given = [name for name in ("epochs", "steps", "seconds") if getattr(self, name) is not None]
        found = []
        if len(given) > 1:
            found.append(Problem("fine-tuning", f"{' and '.join(given)} are given", "one of epochs, steps and seconds"))
        for name in given:
            if not 0 < getattr(self, name) < math.inf:
                found.append(Problem(f"fine-tuning: {name}", f"found {getattr(self, name)}", "more than 0"))
        for name, low, high in (("batch", 1, math.inf), ("seed", 0, math.inf), ("weight_decay", 0, math.inf),
                                ("smoothing", 0, 1), ("distill", 0, 1)):  # fmt: skip
            if not low <= getattr(self, name) <= high or getattr(self, name) == math.inf:
                expected = f"{low} or more" if high == math.inf else f"{low} … {high}"
                found.append(Problem(f"fine-tuning: {name}", f"found {getattr(self, name)}", expected))
        for name, most, expected in (("rate", 1, "more than 0, at most 1"), ("clip", math.inf, "more than 0")):
            if not 0 < getattr(self, name) <= most:
                found.append(Problem(f"fine-tuning: {name}", f"found {getattr(self, name)}", expected))
        if found:
            raise AccelsimError(found)

    def rate_at(self, step: int, steps: int) -> float:
        """Learning rate of step 0 … steps − 1: a cosine from `rate` to a fifteenth of it."""
        share = 0.5 * (1 + math.cos(math.pi * step / max(steps - 1, 1)))
        return self.rate * (LAST_RATE + (1 - LAST_RATE) * share)
