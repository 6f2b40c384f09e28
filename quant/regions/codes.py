"""Two-region formats (`accelsim.formats`): rounding to the nearest level, and the stored codes of levels.

A level is the integer behind a code, in steps of the fine region.  A tie between two levels goes to the one nearer to
zero, which is the fine one where a fine and a coarse level meet.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from accelsim.formats import Format, Scheme
from accelsim.plan import Rule
from accelsim.problems import AccelsimError, Problem


def region_range(fmt: Format) -> tuple[int, int]:
    """Lowest and highest level: 0 or −2^(b−1), and (2^(b−1) − 1)·2^m."""
    return (-fmt.low_codes if fmt.low_negative else 0), (fmt.low_codes - 1) << fmt.region_shift


def region_format(rule: Rule) -> Format | None:
    """The two-region format that a plan's rule gives a stored tensor; None for another format."""
    return rule.output if rule.output.scheme is Scheme.TWO_REGION else None


def region_levels(fmt: Format) -> NDArray[np.int64]:
    """All levels (int64), sorted.  Raises AccelsimError for a format that is not two-region."""
    if fmt.scheme is not Scheme.TWO_REGION:
        raise AccelsimError(Problem("two-region levels", f"found the format {fmt.name}", "rBpM or rBnM", ("r6n4",)))
    codes = np.arange(fmt.low_codes, dtype=np.int64)
    return np.unique(np.concatenate([codes - fmt.low_codes if fmt.low_negative else codes, codes << fmt.region_shift]))


def threshold(fmt: Format) -> int:
    """The largest whole number of fine steps that goes to the fine region.

    Fine negative regions end at 0.  Else it is ⌊midpoint⌋ of the last fine level 2^(b−1) − 1 and the first coarse level
    above it.
    """
    return 0 if fmt.low_negative else _fine_end(fmt) // 2


def rounding_constant(fmt: Format) -> int:
    """What is added before the shift right by m that rounds fine steps ≥ 0 to coarse ones, ties down: 2^(m−1) − 1."""
    return (1 << fmt.region_shift) // 2 - 1 if fmt.region_shift else 0


def _fine_end(fmt: Format) -> int:
    """Twice the midpoint between the last fine level and the first coarse one above it."""
    last = fmt.low_codes - 1
    return last + (((last >> fmt.region_shift) + 1) << fmt.region_shift)


def nearest_region(v: Tensor, fmt: Format) -> Tensor:
    """The level (int64) nearest to whole numbers of fine steps v (int64), by compares, an add and shifts.

    Source: the nearest representable value; what lies outside is clipped.
    """
    low, high = region_range(fmt)
    coarse = (v + rounding_constant(fmt)) >> fmt.region_shift << fmt.region_shift
    if fmt.low_negative:
        return torch.where(v > 0, coarse, v).clamp(low, high)
    return torch.where(v > threshold(fmt), coarse.clamp(max=high), v.clamp(low, fmt.low_codes - 1))


def region_integers(x: Tensor, step: Tensor | float, fmt: Format) -> Tensor:
    """The level nearest to x / step, in the dtype of x: one rounding, not first to fine steps and then to coarse ones.

    `step` (above 0) is that of the fine region and broadcasts against x.
    """
    # Without `torch.where`, which takes longer than everything else.  x − ½ and x + ½ are exact where they decide.
    fine, size, last = x / step, 1 << fmt.region_shift, fmt.low_codes - 1
    if fmt.low_negative:
        negative = fine.clamp(-fmt.low_codes, 0).add_(0.5).floor_()
        return fine.mul_(1 / size).clamp_(0, last).sub_(0.5).ceil_().mul_(size).add_(negative)
    coarse = F.threshold(fine, _fine_end(fmt) / 2, 0.0)
    coarse = coarse.mul_(1 / size).clamp_(0, last).sub_(0.5).ceil_().mul_(size)
    return torch.maximum(fine.clamp_(0, last).sub_(0.5).ceil_(), coarse)


def pack(levels: Tensor, fmt: Format) -> Tensor:
    """Stored codes (int64) of levels (int64).

    n: the two's complement number itself, −2^(b−1) … 2^(b−1) − 1.  p: the word with the flag (coarse) above the
    payload, 0 … 2^b − 1; a level that both regions have is stored as a fine one.  Raises AccelsimError for an integer
    that is no level.
    """
    shifted = levels >> fmt.region_shift
    if fmt.low_negative:
        codes = torch.where(levels < 0, levels, shifted)
    else:
        codes = torch.where(levels < fmt.low_codes, levels, shifted + fmt.low_codes)
    low, high = (-fmt.low_codes, fmt.low_codes - 1) if fmt.low_negative else (0, 2 * fmt.low_codes - 1)
    wrong = (codes < low) | (codes > high) | (unpack(codes, fmt) != levels)
    if bool(wrong.any()):
        what = f"{int(levels[wrong][0])} is not a level of {fmt.name}"
        raise AccelsimError(Problem("two-region codes", what, "values of region_levels(fmt)"))
    return codes


def unpack(codes: Tensor, fmt: Format) -> Tensor:
    """Levels (int64) of stored codes (int64); the inverse of `pack`."""
    if fmt.low_negative:
        return torch.where(codes < 0, codes, codes << fmt.region_shift)
    payload = codes & (fmt.low_codes - 1)
    return torch.where(codes >= fmt.low_codes, payload << fmt.region_shift, payload)


def region_values(x: Tensor, step: Tensor, fmt: Format) -> Tensor:
    """The values that the codes of x stand for: step · level.  No gradient; see `region_values_ste`."""
    return region_integers(x, step, fmt) * step


def region_values_ste(x: Tensor, step: Tensor, fmt: Format, multiplier: float = 1.0) -> Tensor:
    """`region_values` that can be trained; `step` has one element.

    Gradients inside the range (ends included) and outside, u = x / step: of x: 1 | 0; of the step:
    multiplier · (level − u) | multiplier · level.  Source: Esser et al. 2020 (LSQ), eq. 2-3, for this level set.
    Raises AccelsimError for several steps.
    """
    from quant.finetune.straight import on_levels

    if step.numel() != 1:
        what = f"{step.numel()} steps in training"
        raise AccelsimError(Problem("two-region format", what, "one step", ("granularity: tensor",)))
    integers = region_integers(x.detach(), step.detach(), fmt)
    low, high = (torch.full((1,), float(end), dtype=x.dtype, device=x.device) for end in region_range(fmt))
    result = on_levels(x.reshape(1, -1), step.reshape(1), integers.reshape(1, -1), low, high, multiplier)
    return result.reshape(x.shape)
