"""Observers choose the range of an affine quantizer, or the scales of weights, from data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from accelsim.formats import Format, Scheme
from accelsim.problems import AccelsimError, Problem
from quant.functional import Affine, affine_from_range, fake_quantize
from quant.levels import levels, project_to

# Fractions of (min, max) that the error search tries: 1.00, 0.99 … 0.21 (released code of Trio-ViT and BRECQ).
SHRINK_FACTORS: tuple[float, ...] = tuple((100 - k) / 100 for k in range(80))
# Clip candidates of uniform weights: the same, and 1.25 … 1.01, which a filter of few weights can use to lie on levels.
UNIFORM_FACTORS: tuple[float, ...] = tuple((125 - k) / 100 for k in range(105))
# Clip candidates of power-of-two weights, 4 … 1/4 in steps of 1/32 octave.  Above 1 the largest level is not used, but
# sums of powers are sparse at the top (192, 256) and dense around every power: a filter gains where its weights are.
CLIP_FACTORS: tuple[float, ...] = tuple(float(2 ** (2 - k / 32)) for k in range(129))
_COMPARED_AT_ONCE = 1 << 16  # values of one pass of the error search, to stay in the cache


@dataclass(frozen=True)
class Granularity:
    """Which values share a scale: `blocks` = ((axis, size), …); an axis that is not named is shared whole."""

    blocks: tuple[tuple[int, int], ...] = ()

    def block(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the block that shares a scale; AccelsimError when a size does not divide its axis."""
        result = list(shape)
        for axis, size in self.blocks:
            if not -len(shape) <= axis < len(shape) or size < 1 or shape[axis] % size:
                raise AccelsimError(
                    Problem("granularity", f"blocks of {size} on axis {axis} of {list(shape)}", "a divisor of an axis")
                )
            result[axis] = size
        return tuple(result)


PER_TENSOR = Granularity()
PER_TOKEN = Granularity(((0, 1), (1, 1)))  # of [batch, tokens, …]: every token of every image has its own scale


def per_channel(axis: int = 0) -> Granularity:
    """One scale per index of an axis (weights: axis 0)."""
    return Granularity(((axis, 1),))


def per_group(size: int, axis: int = 0, *, per: int | None = None) -> Granularity:
    """One scale per `size` neighbours of an axis; with `per`, also per index of that axis (weights: axis 1 per 0)."""
    return Granularity(((axis, size),) + (() if per is None else ((per, 1),)))


def _rows(x: Tensor, granularity: Granularity) -> tuple[Tensor, tuple[int, ...], tuple[int, ...]]:
    """(values [blocks, values of a block], block counts per axis, block sizes per axis)."""
    if not x.numel():
        raise AccelsimError(Problem("observer", "no values", "a tensor with at least one value"))
    block = granularity.block(tuple(x.shape))
    counts = tuple(n // size for n, size in zip(x.shape, block, strict=True))
    cut = x.detach().reshape([length for pair in zip(counts, block, strict=True) for length in pair])
    outer_first = list(range(0, 2 * x.ndim, 2)) + list(range(1, 2 * x.ndim, 2))
    return cut.permute(outer_first).reshape(prod(counts), prod(block)), counts, block


def _spread(values: Tensor, counts: tuple[int, ...], block: tuple[int, ...]) -> Tensor:
    """Values per block [blocks] in a shape that broadcasts against the observed tensor."""
    result = values.reshape(counts)
    for axis, (count, size) in enumerate(zip(counts, block, strict=True)):
        if count > 1 and size > 1:
            result = result.repeat_interleave(size, axis)
    return result


class Observed:
    """What is kept of several batches: exact smallest and largest value per block, and a sample of the values.

    The sample is uniform over all values seen, without replacement: every position gets a random key and the
    `capacity` smallest keys stay (the same positions in every block).  Blocks must not depend on the batch size, so
    no scale per image.
    """

    def __init__(self, granularity: Granularity = PER_TENSOR, capacity: int = 1 << 16, seed: int = 0) -> None:
        self.granularity = granularity
        self.capacity = capacity
        self._random = torch.Generator().manual_seed(seed)
        self._keys = torch.empty(0, dtype=torch.float64)
        self.values = torch.empty(0)  # [blocks, kept]
        self.low = torch.empty(0)  # [blocks]
        self.high = torch.empty(0)
        self._counts: tuple[int, ...] = ()
        self._block: tuple[int, ...] = ()

    def update(self, x: Tensor) -> None:
        """Take in one batch; AccelsimError when it has another number of blocks than those before."""
        rows, counts, block = _rows(x, self.granularity)
        if not self._counts:
            self.low, self.high, self.values = rows.amin(1), rows.amax(1), rows[:, :0]
        elif counts != self._counts:
            raise AccelsimError(Problem("observer", f"{counts} blocks after {self._counts}", "the same blocks"))
        self._counts, self._block = counts, block
        self.low, self.high = torch.minimum(self.low, rows.amin(1)), torch.maximum(self.high, rows.amax(1))
        keys = torch.rand(rows.shape[1], generator=self._random, dtype=torch.float64)
        if len(self._keys) == self.capacity:
            small = (keys < self._keys.max()).nonzero()[:, 0]
            keys, rows = keys[small], rows[:, small]
        keys, values = torch.cat([self._keys, keys]), torch.cat([self.values, rows], 1)
        if len(keys) > self.capacity:
            kept = keys.topk(self.capacity, largest=False).indices
            keys, values = keys[kept], values[:, kept]
        self._keys, self.values = keys, values

    def shaped(self, affine: Affine) -> Affine:
        """A quantizer with one entry per block, in a shape that broadcasts against the observed tensors."""
        if not self._counts:
            raise AccelsimError(Problem("observer", "no values", "at least one batch"))
        scale = _spread(affine.scale, self._counts, self._block)
        return Affine(scale, _spread(affine.zero_point, self._counts, self._block), affine.low, affine.high)


def _observe(data: Tensor | Observed, granularity: Granularity) -> Observed:
    if isinstance(data, Observed):
        return data
    everything = Observed(granularity, capacity=max(1, data.numel()))
    everything.update(data)
    return everything


def minmax(
    data: Tensor | Observed,
    bits: int,
    *,
    symmetric: bool = False,
    signed: bool = True,
    granularity: Granularity = PER_TENSOR,
) -> Affine:
    """Quantizer of the range [min, max].

    `data` is a tensor, or batches gathered by `Observed`, whose own granularity then counts.  Source: Jacob et
    al. 2018, section 3.
    """
    seen = _observe(data, granularity)
    return seen.shaped(affine_from_range(seen.low, seen.high, bits, symmetric, signed))


def quantile(rows: Tensor, percent: float) -> Tensor:
    """Percentile [blocks] of rows [blocks, n], linear between neighbours; any n (torch.quantile stops at 2^24)."""
    ordered = rows.sort(1).values
    position = percent / 100 * (rows.shape[1] - 1)
    before = int(position)
    after = min(before + 1, rows.shape[1] - 1)
    return torch.lerp(ordered[:, before], ordered[:, after], position - before)


def percentile(
    data: Tensor | Observed,
    bits: int,
    q: float = 99.99,
    *,
    symmetric: bool = False,
    signed: bool = True,
    granularity: Granularity = PER_TENSOR,
) -> Affine:
    """Quantizer of the range between the (100 − q)th and the qth percentile.  Source: Wu et al. 2020."""
    if not 50 <= q <= 100:
        raise AccelsimError(Problem("percentile", f"q = {q}", "50 to 100"))
    seen = _observe(data, granularity)
    low, high = quantile(seen.values, 100 - q), quantile(seen.values, q)
    return seen.shaped(affine_from_range(low, high, bits, symmetric, signed))


def _power_error(rows: Tensor, affine: Affine, power: float) -> Tensor:
    """Σ |x − x̂|^power of every row, in float64."""
    columns = Affine(affine.scale[:, None], affine.zero_point[:, None], affine.low, affine.high)
    error = (fake_quantize(rows, columns) - rows).abs_()
    return (error * error if power == 2 else error.pow_(power)).sum(1, dtype=torch.float64)


def _least_error(
    rows: Tensor, low: Tensor, high: Tensor, make: Callable[[Tensor, Tensor], Affine], power: float
) -> Affine:
    """Of the quantizers make(low · f, high · f), f in SHRINK_FACTORS, the one with the least error of each row."""
    best = torch.full((len(rows),), torch.inf, dtype=torch.float64)
    chosen = torch.ones_like(low)
    width = max(1, _COMPARED_AT_ONCE // len(rows))
    for factor in SHRINK_FACTORS:
        affine = make(low * factor, high * factor)
        error = torch.zeros_like(best)
        for part in torch.split(rows, width, 1):
            error += _power_error(part, affine, power)
        better = error < best
        best, chosen = torch.where(better, error, best), torch.where(better, factor, chosen)
    return make(low * chosen, high * chosen)


def mse(
    data: Tensor | Observed,
    bits: int,
    power: float = 2.0,
    *,
    symmetric: bool = False,
    signed: bool = True,
    granularity: Granularity = PER_TENSOR,
) -> Affine:
    """Quantizer of the range (min, max) · f with the least mean |x − x̂|^power; f = 1.00, 0.99 … 0.21.

    The range is exact, the error is that of the values kept.  Never worse than `minmax` on them.  Source: the released
    code of Trio-ViT and BRECQ, with power 2.4; there the range need not contain zero.
    """
    seen = _observe(data, granularity)
    affine = _least_error(
        seen.values, seen.low, seen.high, lambda low, high: affine_from_range(low, high, bits, symmetric, signed), power
    )
    return seen.shaped(affine)


def weight_scale(weights: Tensor, fmt: Format, power: float = 2.0) -> tuple[Tensor, Tensor]:
    """Scale [filters] and integer levels (int64, [filters, n]) of weights[filters, n] ≈ scale[:, None] · integers.

    The largest level is put at max|w| · f; the f with the least Σ|error|^power of the filter wins.  f runs over
    `UNIFORM_FACTORS` for uniform formats and over `CLIP_FACTORS` for power-of-two formats.  A filter of zeros gets
    scale 1.  Source: as `mse`, with candidates above 1 added for both; levels: `quant.levels.levels`.
    """
    fractions = UNIFORM_FACTORS if fmt.scheme is Scheme.UNIFORM else CLIP_FACTORS
    return weight_scale_to(weights, torch.from_numpy(levels(fmt)), power, fractions)


def weight_scale_to(
    weights: Tensor, level_set: Tensor, power: float = 2.0, fractions: tuple[float, ...] = CLIP_FACTORS
) -> tuple[Tensor, Tensor]:
    """`weight_scale` onto any sorted set of integer levels (int64), with the clip fractions to try."""
    scale, integers = project_to(weights.detach().cpu().double().numpy(), level_set.cpu().numpy(), power, fractions)
    return torch.from_numpy(scale).to(weights), torch.from_numpy(integers).to(weights.device)


def migration_ratio(channel_max: Tensor, p99: float) -> Tensor:
    """Ratio [channels] by which channels are divided so that they share one scale (and weights are multiplied).

    channel max / max(99th percentile of all values, mean of the channel maxima), clamped to [0.1, 64].  Source: the
    released code of Trio-ViT (channel-wise migration of depthwise inputs).  Raises AccelsimError when the divisor is
    not above 0.
    """
    reference = max(float(p99), float(channel_max.mean()))
    if not reference > 0:
        raise AccelsimError(Problem("migration_ratio", f"the reference value is {reference}", "a value above 0"))
    return (channel_max / reference).clamp(0.1, 64)


def channel_midpoint(low: Tensor, high: Tensor) -> Tensor:
    """(high + low) / 2 of every channel, the shift of the second pointwise input.

    Source: the released code of Trio-ViT (channel-wise shift, folded into the next bias as Σ_i c_i · w_ij).
    """
    return (high + low) / 2
