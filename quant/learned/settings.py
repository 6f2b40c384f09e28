"""What is learned, and how."""

from __future__ import annotations

from dataclasses import dataclass, field

from accelsim.problems import AccelsimError, Problem
from quant.learned.quantizer import HIGHEST_BITS, LOWEST_BITS
from quant.learned.sites import SiteOptions


@dataclass(frozen=True)
class LearnBits:
    """Options of learned widths.

    Widths start at `start_bits`; `learned=False` keeps them (LSQ with uniform widths).  `switchable`: a scale for every
    width, else one for all.  Bits are frozen for the last `frozen_share` of the steps; then the scales that meet in one
    sum become powers of two times each other (`tied`).  `bit_rate` and `step_rate` are the learning rates of bits and
    of scales and offsets as shares of that of the weights.  The released code has one rate for all, 2e-4 for 300 epochs
    of ImageNet; a short run needs faster bits (an interpretation).  `log_every` steps widths are noted.
    """

    start_bits: int = 5
    learned: bool = True
    switchable: bool = True
    tied: bool = True
    frozen_share: float = 0.1
    bit_rate: float = 120.0
    step_rate: float = 1.0
    log_every: int = 10
    sites: SiteOptions = field(default_factory=SiteOptions)

    def __post_init__(self) -> None:
        found = []
        for name, low, high in (("start_bits", LOWEST_BITS, HIGHEST_BITS), ("frozen_share", 0, 1),
                                ("bit_rate", 0, 1e4), ("step_rate", 0, 1e4), ("log_every", 1, 1 << 20)):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                what = f"found {getattr(self, name)}"
                found.append(Problem(f"learned bits: {name}", what, f"{low:g} … {high:g}"))
        if found:
            raise AccelsimError(found)
